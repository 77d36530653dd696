package dev.flotilla.serve;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Random;

/** Writes a small llama GGUF with seeded random F32 weights. */
final class TestModel {

  static final int VOCABULARY = 259;
  static final int WIDTH = 64;
  static final int LAYERS = 6;
  static final int CONTEXT = 256;

  private TestModel() {}

  static Path write(Path file, long seed) throws IOException {
    Map<String, int[]> tensors = new LinkedHashMap<>();
    tensors.put("token_embd.weight", new int[] {WIDTH, VOCABULARY});
    for (int layer = 0; layer < LAYERS; layer++) {
      String block = "blk." + layer + ".";
      tensors.put(block + "attn_norm.weight", new int[] {WIDTH});
      tensors.put(block + "attn_q.weight", new int[] {WIDTH, WIDTH});
      tensors.put(block + "attn_k.weight", new int[] {WIDTH, 32});
      tensors.put(block + "attn_v.weight", new int[] {WIDTH, 32});
      tensors.put(block + "attn_output.weight", new int[] {WIDTH, WIDTH});
      tensors.put(block + "ffn_norm.weight", new int[] {WIDTH});
      tensors.put(block + "ffn_gate.weight", new int[] {WIDTH, 96});
      tensors.put(block + "ffn_up.weight", new int[] {WIDTH, 96});
      tensors.put(block + "ffn_down.weight", new int[] {96, WIDTH});
    }
    tensors.put("output_norm.weight", new int[] {WIDTH});
    tensors.put("output.weight", new int[] {WIDTH, VOCABULARY});

    ByteBuffer out = ByteBuffer.allocate(8 << 20).order(ByteOrder.LITTLE_ENDIAN);
    out.put("GGUF".getBytes(StandardCharsets.US_ASCII)).putInt(3);
    out.putLong(tensors.size()).putLong(10);
    string(out, "general.architecture").putInt(8);
    string(out, "llama");
    string(out, "general.name").putInt(8);
    string(out, "random");
    integer(out, "llama.embedding_length", WIDTH);
    integer(out, "llama.block_count", LAYERS);
    integer(out, "llama.attention.head_count", 4);
    integer(out, "llama.attention.head_count_kv", 2);
    integer(out, "llama.feed_forward_length", 96);
    integer(out, "llama.context_length", CONTEXT);
    string(out, "llama.rope.freq_base").putInt(6).putFloat(10_000);
    string(out, "llama.attention.layer_norm_rms_epsilon").putInt(6).putFloat(1e-5f);
    long offset = 0;
    for (Map.Entry<String, int[]> tensor : tensors.entrySet()) {
      string(out, tensor.getKey()).putInt(tensor.getValue().length);
      long elements = 1;
      for (int dimension : tensor.getValue()) {
        out.putLong(dimension);
        elements *= dimension;
      }
      out.putInt(0).putLong(offset);
      offset += (elements * 4 + 31) / 32 * 32;
    }
    Random random = new Random(seed);
    for (Map.Entry<String, int[]> tensor : tensors.entrySet()) {
      out.position((out.position() + 31) / 32 * 32);
      int elements = 1;
      for (int dimension : tensor.getValue()) {
        elements *= dimension;
      }
      boolean gain = tensor.getValue().length == 1;
      for (int i = 0; i < elements; i++) {
        out.putFloat(
            (float) (gain ? 1 + 0.1 * random.nextGaussian() : 0.2 * random.nextGaussian()));
      }
    }
    byte[] content = new byte[out.position()];
    out.flip().get(content);
    return Files.write(file, content);
  }

  private static ByteBuffer string(ByteBuffer out, String text) {
    byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
    return out.putLong(bytes.length).put(bytes);
  }

  private static void integer(ByteBuffer out, String key, int value) {
    string(out, key).putInt(4).putInt(value);
  }
}

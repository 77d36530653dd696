package dev.flotilla.model;

import dev.flotilla.tensor.WeightType;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;

/**
 * Writes a model of any shape with seeded random weights and a tokenizer of single bytes: for tests
 * and benchmarks of everything but what it says.
 */
public final class RandomModel {

  private static final int NORMAL = 1;
  private static final int CONTROL = 3;
  private static final int UNUSED = 5;
  private static final int BYTES = 256;

  private RandomModel() {}

  /**
   * Writes a GGUF file; memory is bounded whatever its size.
   *
   * @param type of the matrices; those whose rows it cannot hold become F16
   */
  public static void write(Path file, ModelConfig config, WeightType type, long seed) {
    Map<String, Object> metadata = GgufConfig.metadata("random", config, type);
    tokenizer(metadata, config.vocabularySize());
    List<GgufWriter.Tensor> tensors = new ArrayList<>();
    ModelTensors.all(config)
        .forEach((name, part) -> tensors.add(tensor(name, part.shape(), type, seed)));
    GgufWriter.write(file, metadata, tensors);
  }

  /** Every tensor and row has its own stream, so a model's layers are the same in any file. */
  private static GgufWriter.Tensor tensor(
      String name, List<Integer> shape, WeightType type, long seed) {
    int columns = shape.getFirst();
    boolean gain = shape.size() == 1;
    // Uniform over this range has a variance of 1 / columns, so activations keep their size.
    double range = gain ? 0.1 : Math.sqrt(3.0 / columns);
    double middle = gain ? 1 : 0;
    long stream = seed * 0x9E3779B97F4A7C15L + name.hashCode();
    return new GgufWriter.Tensor(
        name,
        shape,
        gain ? WeightType.F32 : GgufTypes.forRows(type, columns),
        (row, values) -> {
          SplittableRandom random = new SplittableRandom(stream + ((long) row << 32));
          for (int i = 0; i < values.length; i++) {
            values[i] = (float) (middle + range * (2 * random.nextDouble() - 1));
          }
        });
  }

  /** Byte-level BPE without merges: one token per byte, then an end token, then unused ones. */
  private static void tokenizer(Map<String, Object> metadata, int vocabularySize) {
    List<String> tokens = new ArrayList<>();
    int[] types = new int[vocabularySize];
    int substitutes = 0;
    for (int i = 0; i < vocabularySize; i++) {
      if (i < BYTES) {
        boolean printable = (i > 32 && i < 127) || (i > 160 && i != 173);
        tokens.add(Character.toString(printable ? i : BYTES + substitutes++));
        types[i] = NORMAL;
      } else {
        tokens.add(i == BYTES ? "<|end|>" : "<|unused" + i + "|>");
        types[i] = i == BYTES ? CONTROL : UNUSED;
      }
    }
    int end = Math.min(BYTES, vocabularySize - 1);
    metadata.put("tokenizer.ggml.model", "gpt2");
    metadata.put("tokenizer.ggml.pre", "gpt-2");
    metadata.put("tokenizer.ggml.tokens", tokens);
    metadata.put("tokenizer.ggml.token_type", types);
    metadata.put("tokenizer.ggml.merges", Collections.emptyList());
    metadata.put("tokenizer.ggml.bos_token_id", end);
    metadata.put("tokenizer.ggml.eos_token_id", end);
    metadata.put("tokenizer.ggml.add_bos_token", false);
    metadata.put(
        "tokenizer.chat_template",
        "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
            + "assistant: ");
  }
}

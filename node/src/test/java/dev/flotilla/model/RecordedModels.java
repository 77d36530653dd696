package dev.flotilla.model;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.Json;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.zip.CRC32;

/**
 * Tiny models of every architecture, and what transformers says with them: recorded by {@code
 * peer/make_architectures.py}, whose formula for the weights is repeated here.
 */
final class RecordedModels {

  private static final JsonNode RECORDED = read();

  private RecordedModels() {}

  private static JsonNode read() {
    try (var in = RecordedModels.class.getResourceAsStream("/peer/architectures.json")) {
      return Json.MAPPER.readTree(Objects.requireNonNull(in));
    } catch (IOException e) {
      throw new IllegalStateException(e);
    }
  }

  static List<String> names() {
    List<String> names = new ArrayList<>();
    RECORDED.path("models").fieldNames().forEachRemaining(names::add);
    return names;
  }

  static int[] tokens() {
    return Json.MAPPER.convertValue(RECORDED.path("tokens"), int[].class);
  }

  /** The positions whose logits are recorded. */
  static int[] positions() {
    return Json.MAPPER.convertValue(RECORDED.path("recorded"), int[].class);
  }

  /** The most likely token after each position. */
  static int[] best(String name) {
    return Json.MAPPER.convertValue(model(name).path("best"), int[].class);
  }

  /** Logits of the recorded positions. */
  static float[][] logits(String name) {
    byte[] bytes = Base64.getDecoder().decode(model(name).path("logits").asText());
    FloatBuffer floats = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer();
    float[][] logits = new float[positions().length][floats.capacity() / positions().length];
    for (float[] row : logits) {
      floats.get(row);
    }
    return logits;
  }

  static JsonNode config(String name) {
    return model(name).path("config");
  }

  private static JsonNode model(String name) {
    return RECORDED.path("models").path(name);
  }

  /** Writes a Hugging Face folder. */
  static void write(String name, Path folder) throws IOException {
    TestFolders.writeText(folder);
    Files.writeString(folder.resolve("config.json"), config(name).toPrettyString());
    ModelConfig config = HuggingFaceFolder.readConfig(folder.resolve("config.json"));
    List<Safetensors.Tensor> tensors = new ArrayList<>();
    for (Part part : ModelTensors.all(config).values()) {
      List<Integer> shape = part.shape().reversed();
      if (part.huggingFace().contains("*")) {
        for (int expert = 0; expert < shape.getFirst(); expert++) {
          String tensor = part.huggingFace().replace("*", String.valueOf(expert));
          tensors.add(tensor(tensor, shape.subList(1, 3), name));
        }
      } else if (!part.huggingFace().isEmpty()) {
        tensors.add(tensor(part.huggingFace(), shape, name));
      }
    }
    Safetensors.write(folder.resolve("model.safetensors"), Map.of("format", "pt"), tensors);
  }

  private static Safetensors.Tensor tensor(String name, List<Integer> shape, String model) {
    CRC32 seed = new CRC32();
    seed.update(name.getBytes(StandardCharsets.UTF_8));
    double middle = name.contains("norm") && !model.startsWith("gemma") ? 1 : 0;
    float[] values = new float[shape.stream().reduce(1, Math::multiplyExact)];
    for (int i = 0; i < values.length; i++) {
      int h = (int) seed.getValue() + i * 0x9E3779B1;
      h = (h ^ h >>> 16) * 0x7FEB352D;
      h = (h ^ h >>> 15) * 0x846CA68B;
      h = h ^ h >>> 16;
      values[i] = (float) (((h >>> 8) / (double) (1 << 24) * 2 - 1) / 4 + middle);
    }
    return Safetensors.Tensor.of(name, shape, values);
  }
}

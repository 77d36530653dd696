package dev.flotilla.model;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.model.GgufHeader.TensorInfo;
import dev.flotilla.tensor.Blocks;
import dev.flotilla.tensor.WeightType;
import java.io.ByteArrayOutputStream;
import java.lang.foreign.MemorySegment;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Predicate;

/**
 * Turns a Hugging Face folder into one GGUF file that llama.cpp loads: weights, shape, tokenizer
 * and chat template; or a GGUF file into one of another weight type.
 */
public final class GgufConverter {

  /** The weight types that models are made in; others are only read. */
  public static final List<WeightType> TYPES =
      List.of(WeightType.Q8_0, WeightType.Q4_0, WeightType.BF16, WeightType.F16, WeightType.F32);

  private GgufConverter() {}

  /**
   * Converts; the file is written whole or not at all, in bounded memory.
   *
   * @param folder with {@code config.json}, safetensors, {@code tokenizer.json}, and a chat
   *     template in {@code chat_template.jinja} or {@code tokenizer_config.json}
   * @param type of the matrices; norms are always F32, and a matrix whose rows the type cannot hold
   *     becomes F16
   * @throws FlotillaException {@code NOT_FOUND}, {@code BAD_FILE} or {@code STORAGE}
   */
  public static void convert(Path folder, Path gguf, String name, WeightType type) {
    try (HuggingFaceFolder source = HuggingFaceFolder.open(folder)) {
      ModelConfig config = source.config();
      Map<String, Object> metadata = GgufConfig.metadata(name, config, type);
      TokenizerMetadata.add(metadata, folder, config.vocabularySize());
      addSampling(metadata, JsonFiles.readIfThere(folder.resolve("generation_config.json")));
      addPooling(metadata, folder);
      List<GgufWriter.Tensor> tensors = new ArrayList<>();
      for (Part part : ModelTensors.all(config).values()) {
        tensors.add(tensor(source, part, type));
      }
      source.requireAllUsed();
      GgufWriter.write(gguf, metadata, tensors);
    }
  }

  /**
   * Writes a GGUF file's model in another weight type; all else stays as it is. Weights that are
   * quantised already lose a little more than from the original.
   *
   * @param type of the matrices, as in {@link #convert}
   * @throws FlotillaException {@code NOT_FOUND}, {@code BAD_FILE} or {@code STORAGE}
   */
  public static void requantize(Path gguf, Path to, WeightType type) {
    try (GgufFile source = GgufFile.open(gguf)) {
      GgufHeader header = source.header();
      ModelConfig config = header.modelConfig();
      String fileType = "general.file_type";
      Predicate<String> kept = key -> !key.equals(fileType) && !key.equals(GgufParser.ALIGNMENT);
      ByteArrayOutputStream metadata = new ByteArrayOutputStream();
      metadata.writeBytes(GgufHeader.metadataBytes(gguf, kept));
      metadata.writeBytes(GgufWriter.encode(Map.of(fileType, GgufTypes.fileType(type))));
      int keys = 1 + (int) header.metadata().keySet().stream().filter(kept).count();
      List<GgufWriter.Tensor> tensors = new ArrayList<>();
      for (Part part : ModelTensors.all(config).values()) {
        WeightType stored = GgufTypes.stored(part, type, config.tiedEmbeddings());
        tensors.add(
            new GgufWriter.Tensor(part.name(), part.shape(), stored, rows(source, part.name())));
      }
      GgufWriter.write(to, keys, metadata.toByteArray(), tensors);
    }
  }

  private static GgufWriter.Rows rows(GgufFile source, String name) {
    TensorInfo info = source.header().tensor(name).orElseThrow();
    MemorySegment data = source.tensor(name);
    long rowBytes = info.type().bytes(info.columns());
    return (row, values) ->
        Blocks.decode(info.type(), data, rowBytes * row, values, 0, values.length);
  }

  private static GgufWriter.Tensor tensor(HuggingFaceFolder source, Part part, WeightType type) {
    float[] computed = source.ropeFactors().get(part.name());
    GgufWriter.Rows rows =
        computed == null
            ? rows(source, part)
            : (row, values) -> System.arraycopy(computed, 0, values, 0, values.length);
    WeightType stored = GgufTypes.stored(part, type, source.config().tiedEmbeddings());
    return new GgufWriter.Tensor(part.name(), part.shape(), stored, rows);
  }

  /** The rows of a tensor, in the order that GGUF has them. */
  private static GgufWriter.Rows rows(HuggingFaceFolder source, Part part) {
    if (part.huggingFace().contains("*")) {
      return expertRows(source, part);
    }
    Safetensors.Tensor from = source.tensor(part.huggingFace(), part.shape().reversed());
    if (part.interleaved()) {
      int headWidth = source.config().headWidth();
      return (row, values) -> from.read(ModelTensors.halfSplitRow(row, headWidth), values);
    }
    float offset = source.config().architecture().definition().storedGainOffset();
    if (part.vector() && offset != 0) {
      return (row, values) -> {
        from.read(row, values);
        for (int i = 0; i < values.length; i++) {
          values[i] += offset;
        }
      };
    }
    return from::read;
  }

  private static GgufWriter.Rows expertRows(HuggingFaceFolder source, Part part) {
    List<Safetensors.Tensor> experts = new ArrayList<>();
    List<Integer> shape = part.shape().subList(0, 2).reversed();
    for (int expert = 0; expert < part.shape().getLast(); expert++) {
      String name = part.huggingFace().replace("*", String.valueOf(expert));
      experts.add(source.tensor(name, shape));
    }
    int each = part.shape().get(1);
    return (row, values) -> experts.get(row / each).read(row % each, values);
  }

  /** How its makers would sample, where they say so. */
  private static void addSampling(Map<String, Object> metadata, JsonNode generation) {
    JsonNode samples = generation.path("do_sample");
    if (samples.isBoolean() && !samples.asBoolean()) {
      metadata.put("general.sampling.temp", 0f);
      return;
    }
    number(generation, "temperature", 0, 2)
        .ifPresent(value -> metadata.put("general.sampling.temp", value));
    number(generation, "top_p", 0, 1)
        .ifPresent(value -> metadata.put("general.sampling.top_p", value));
    number(generation, "top_k", 0, 1_000_000)
        .ifPresent(value -> metadata.put("general.sampling.top_k", value.intValue()));
  }

  private static Optional<Float> number(JsonNode json, String field, float least, float most) {
    JsonNode value = json.path(field);
    return value.isNumber() && value.floatValue() >= least && value.floatValue() <= most
        ? Optional.of(value.floatValue())
        : Optional.empty();
  }

  /** How it pools, where sentence-transformers' files say so. */
  private static void addPooling(Map<String, Object> metadata, Path folder) {
    JsonNode config = JsonFiles.readIfThere(folder.resolve("1_Pooling").resolve("config.json"));
    for (Pooling pooling : Pooling.values()) {
      String mode =
          switch (pooling) {
            case MEAN -> "mean_tokens";
            case FIRST -> "cls_token";
            case LAST -> "lasttoken";
          };
      if (config.path("pooling_mode_" + mode).asBoolean()) {
        metadata.put(Pooling.key(metadata), pooling.number());
      }
    }
  }
}

package dev.flotilla.model;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.tensor.WeightType;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * Turns a Hugging Face folder into one GGUF file that llama.cpp loads: weights, shape, tokenizer
 * and chat template.
 */
public final class GgufConverter {

  private static final int NORMAL = 1;
  private static final int CONTROL = 3;
  private static final int USER_DEFINED = 4;
  private static final int UNUSED = 5;

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
      addTokenizer(metadata, folder, config.vocabularySize());
      addPooling(metadata, folder);
      List<GgufWriter.Tensor> tensors = new ArrayList<>();
      for (Part part : ModelTensors.all(config).values()) {
        tensors.add(tensor(source, part, type));
      }
      source.requireAllUsed();
      GgufWriter.write(gguf, metadata, tensors);
    }
  }

  private static GgufWriter.Tensor tensor(HuggingFaceFolder source, Part part, WeightType type) {
    float[] computed = source.ropeFactors().get(part.name());
    GgufWriter.Rows rows =
        computed == null
            ? rows(source, part)
            : (row, values) -> System.arraycopy(computed, 0, values, 0, values.length);
    WeightType stored =
        part.vector() ? WeightType.F32 : GgufTypes.forRows(type, part.shape().getFirst());
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

  private static void addTokenizer(Map<String, Object> metadata, Path folder, int size) {
    Path file = folder.resolve("tokenizer.json");
    String where = file.toString();
    JsonNode tokenizer = JsonFiles.read(file);
    JsonNode model = tokenizer.path("model");
    if (!model.path("type").asText().equals("BPE") || !byteLevel(tokenizer)) {
      throw WeightFiles.bad(
          where,
          "not a byte-level BPE tokenizer with GPT-2's pattern",
          "Only such tokenizers are converted so far");
    }
    String[] tokens = new String[size];
    int[] types = new int[size];
    Arrays.fill(types, UNUSED);
    for (Map.Entry<String, JsonNode> entry : model.path("vocab").properties()) {
      put(where, tokens, types, entry.getValue(), entry.getKey(), NORMAL);
    }
    for (JsonNode added : tokenizer.path("added_tokens")) {
      int kind = added.path("special").asBoolean() ? CONTROL : USER_DEFINED;
      put(where, tokens, types, added.path("id"), added.path("content").asText(), kind);
    }
    for (int id = 0; id < size; id++) {
      if (types[id] == UNUSED) {
        tokens[id] = "[PAD" + id + "]";
      }
    }
    metadata.put("tokenizer.ggml.model", "gpt2");
    metadata.put("tokenizer.ggml.pre", "gpt-2");
    metadata.put("tokenizer.ggml.tokens", List.of(tokens));
    metadata.put("tokenizer.ggml.token_type", types);
    metadata.put("tokenizer.ggml.merges", merges(where, model.path("merges")));
    addSpecialTokens(metadata, folder, tokens);
    addChatTemplate(metadata, folder);
  }

  private static void put(
      String where, String[] tokens, int[] types, JsonNode id, String token, int kind) {
    if (!id.isInt() || id.asInt() < 0 || id.asInt() >= tokens.length) {
      throw WeightFiles.bad(
          where,
          "token \"" + token + "\" has the id " + id + ", outside vocab_size " + tokens.length);
    }
    if (kind == NORMAL && types[id.asInt()] == NORMAL) {
      throw WeightFiles.bad(where, "two tokens have the id " + id);
    }
    tokens[id.asInt()] = token;
    types[id.asInt()] = kind;
  }

  private static boolean byteLevel(JsonNode tokenizer) {
    JsonNode pre = tokenizer.path("pre_tokenizer");
    if (pre.path("type").asText().equals("Sequence") && pre.path("pretokenizers").size() == 1) {
      pre = pre.path("pretokenizers").path(0);
    }
    return pre.path("type").asText().equals("ByteLevel")
        && pre.path("use_regex").asBoolean(true)
        && !pre.path("add_prefix_space").asBoolean(true);
  }

  /** Merges are pairs, as lists in newer files and joined by a space in older ones. */
  private static List<String> merges(String where, JsonNode merges) {
    List<String> joined = new ArrayList<>();
    for (JsonNode merge : merges) {
      if (merge.isArray() && merge.size() == 2) {
        joined.add(merge.path(0).asText() + " " + merge.path(1).asText());
      } else if (merge.isTextual()) {
        joined.add(merge.asText());
      } else {
        throw WeightFiles.bad(where, "merge " + joined.size() + " is " + merge);
      }
    }
    return joined;
  }

  private static void addSpecialTokens(Map<String, Object> metadata, Path folder, String[] tokens) {
    JsonNode config = JsonFiles.read(folder.resolve("config.json"));
    JsonNode generation = optional(folder.resolve("generation_config.json"));
    JsonNode tokenizer = optional(folder.resolve("tokenizer_config.json"));
    for (String kind : List.of("bos", "eos", "pad", "unk")) {
      String field = kind + "_token";
      tokenId(generation.path(field + "_id"), tokens.length)
          .or(() -> tokenId(config.path(field + "_id"), tokens.length))
          .or(() -> tokenId(tokenizer.path(field), tokens))
          .ifPresent(id -> metadata.put("tokenizer.ggml." + longName(kind) + "_token_id", id));
    }
    metadata.put("tokenizer.ggml.add_bos_token", tokenizer.path("add_bos_token").asBoolean(false));
    metadata.put("tokenizer.ggml.add_eos_token", tokenizer.path("add_eos_token").asBoolean(false));
  }

  private static String longName(String kind) {
    return switch (kind) {
      case "pad" -> "padding";
      case "unk" -> "unknown";
      default -> kind;
    };
  }

  private static Optional<Integer> tokenId(JsonNode value, int size) {
    JsonNode id = value.isArray() ? value.path(0) : value;
    return id.isInt() && id.asInt() >= 0 && id.asInt() < size
        ? Optional.of(id.asInt())
        : Optional.empty();
  }

  private static Optional<Integer> tokenId(JsonNode value, String[] tokens) {
    String content = value.isObject() ? value.path("content").asText() : value.asText();
    int id = content.isEmpty() ? -1 : Arrays.asList(tokens).indexOf(content);
    return id < 0 ? Optional.empty() : Optional.of(id);
  }

  private static void addChatTemplate(Map<String, Object> metadata, Path folder) {
    Path file = folder.resolve("chat_template.jinja");
    JsonNode inConfig = optional(folder.resolve("tokenizer_config.json")).path("chat_template");
    try {
      if (Files.exists(file)) {
        metadata.put("tokenizer.chat_template", Files.readString(file));
      } else if (inConfig.isTextual()) {
        metadata.put("tokenizer.chat_template", inConfig.asText());
      }
    } catch (IOException e) {
      throw WeightFiles.failure("read", file, e);
    }
  }

  /** How it pools, where sentence-transformers' files say so. */
  private static void addPooling(Map<String, Object> metadata, Path folder) {
    JsonNode config = optional(folder.resolve("1_Pooling").resolve("config.json"));
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

  private static JsonNode optional(Path file) {
    return Files.exists(file) ? JsonFiles.read(file) : Json.MAPPER.createObjectNode();
  }
}

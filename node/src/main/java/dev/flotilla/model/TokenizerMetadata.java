package dev.flotilla.model;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.text.Tokenizer;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * The tokenizer and the chat template of a Hugging Face folder as metadata of a GGUF file: as
 * llama.cpp wants them, and as the whole {@code tokenizer.json} beside them where that says more.
 */
final class TokenizerMetadata {

  private static final int NORMAL = 1;
  private static final int UNKNOWN = 2;
  private static final int CONTROL = 3;
  private static final int USER_DEFINED = 4;
  private static final int UNUSED = 5;
  private static final int BYTE = 6;

  private TokenizerMetadata() {}

  /**
   * Adds all that the folder's files say of text.
   *
   * @param size how many tokens the model has
   * @throws FlotillaException {@code NOT_FOUND} or {@code BAD_FILE}
   */
  static void add(Map<String, Object> metadata, Path folder, int size) {
    Path file = folder.resolve("tokenizer.json");
    String where = file.toString();
    JsonNode tokenizer = JsonFiles.read(file);
    JsonNode model = tokenizer.path("model");
    boolean pieces = model.path("byte_fallback").asBoolean();
    if (!model.path("type").asText().equals("BPE") || (!pieces && !hasByteLevel(tokenizer))) {
      throw WeightFiles.bad(
          where,
          "neither a byte-level BPE tokenizer nor one of pieces with bytes to fall back to",
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
    List<String> merges = merges(where, model.path("merges"));
    if (pieces) {
      markPieces(model, tokens, types);
      metadata.put("tokenizer.ggml.model", "llama");
      metadata.put("tokenizer.ggml.scores", scores(tokens, merges));
      metadata.put("tokenizer.ggml.add_space_prefix", prependsSpace(tokenizer));
    } else {
      metadata.put("tokenizer.ggml.model", "gpt2");
      metadata.put("tokenizer.ggml.pre", preTokenizer(tokenizer));
      metadata.put("tokenizer.ggml.merges", merges);
    }
    if (!translates(tokenizer)) {
      metadata.put(Tokenizer.GGUF_JSON, tokenizer.toString());
    }
    metadata.put("tokenizer.ggml.tokens", List.of(tokens));
    metadata.put("tokenizer.ggml.token_type", types);
    addSpecialTokens(metadata, folder, tokens, tokenizer.path("post_processor"));
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

  private static boolean hasByteLevel(JsonNode tokenizer) {
    return tokenizer.path("pre_tokenizer").findValuesAsText("type").contains("ByteLevel");
  }

  /**
   * The name that llama.cpp has for the way of cutting text; one that it refuses if it has none.
   */
  private static String preTokenizer(JsonNode tokenizer) {
    return Tokenizer.ggufPreTokenizer(tokenizer.path("pre_tokenizer")).orElse("huggingface");
  }

  /** Whether the file's other metadata say all that the tokenizer does. */
  private static boolean translates(JsonNode tokenizer) {
    return preTokenizer(tokenizer).equals("gpt-2") && tokenizer.path("normalizer").isEmpty();
  }

  private static void markPieces(JsonNode model, String[] tokens, int[] types) {
    String unknown = model.path("unk_token").asText("");
    for (int id = 0; id < tokens.length; id++) {
      if (tokens[id].equals(unknown)) {
        types[id] = UNKNOWN;
      } else if (types[id] == NORMAL && tokens[id].matches("<0x[0-9A-F]{2}>")) {
        types[id] = BYTE;
      }
    }
  }

  /** SentencePiece joins what scores best: what was merged first. */
  private static float[] scores(String[] tokens, List<String> merges) {
    Map<String, Integer> ranks = new HashMap<>();
    for (String merge : merges) {
      int space = merge.indexOf(' ', 1);
      String joined = merge.substring(0, space) + merge.substring(space + 1);
      ranks.putIfAbsent(joined, ranks.size());
    }
    float[] scores = new float[tokens.length];
    for (int id = 0; id < tokens.length; id++) {
      scores[id] = -ranks.getOrDefault(tokens[id], merges.size());
    }
    return scores;
  }

  private static boolean prependsSpace(JsonNode tokenizer) {
    JsonNode pre = tokenizer.path("pre_tokenizer");
    return tokenizer.path("normalizer").findValue("prepend") != null
        || (pre.path("type").asText().equals("Metaspace")
            && !pre.path("prepend_scheme").asText("always").equals("never"));
  }

  /** Merges are pairs, as lists in newer files and joined by a space in older ones. */
  private static List<String> merges(String where, JsonNode merges) {
    List<String> joined = new ArrayList<>();
    for (JsonNode merge : merges) {
      if (merge.isArray() && merge.size() == 2) {
        joined.add(merge.path(0).asText() + " " + merge.path(1).asText());
      } else if (merge.isTextual() && merge.asText().indexOf(' ', 1) > 0) {
        joined.add(merge.asText());
      } else {
        throw WeightFiles.bad(where, "merge " + joined.size() + " is " + merge);
      }
    }
    return joined;
  }

  private static void addSpecialTokens(
      Map<String, Object> metadata, Path folder, String[] tokens, JsonNode postProcessor) {
    JsonNode config = JsonFiles.read(folder.resolve("config.json"));
    JsonNode generation = JsonFiles.readIfThere(folder.resolve("generation_config.json"));
    JsonNode tokenizer = JsonFiles.readIfThere(folder.resolve("tokenizer_config.json"));
    for (String kind : List.of("bos", "eos", "pad", "unk")) {
      String field = kind + "_token";
      tokenId(generation.path(field + "_id"), tokens.length)
          .or(() -> tokenId(config.path(field + "_id"), tokens.length))
          .or(() -> tokenId(tokenizer.path(field), tokens))
          .ifPresent(id -> metadata.put("tokenizer.ggml." + longName(kind) + "_token_id", id));
    }
    addFurtherEnds(metadata, generation.path("eos_token_id"), tokens.length);
    boolean begins =
        metadata.get("tokenizer.ggml.bos_token_id") instanceof Integer id
            && beginsWith(postProcessor, tokens[id]);
    metadata.put("tokenizer.ggml.add_bos_token", tokenizer.path("add_bos_token").asBoolean(begins));
    metadata.put("tokenizer.ggml.add_eos_token", tokenizer.path("add_eos_token").asBoolean(false));
  }

  /** Whether a step after cutting puts a token before every text. */
  private static boolean beginsWith(JsonNode postProcessor, String token) {
    for (JsonNode template : postProcessor.findValues("single")) {
      if (template.path(0).path("SpecialToken").path("id").asText().equals(token)) {
        return true;
      }
    }
    return false;
  }

  /** Models may end at several tokens; GGUF has keys for three. */
  private static void addFurtherEnds(Map<String, Object> metadata, JsonNode ends, int size) {
    tokenId(ends.path(1), size).ifPresent(id -> metadata.put("tokenizer.ggml.eot_token_id", id));
    tokenId(ends.path(2), size).ifPresent(id -> metadata.put("tokenizer.ggml.eom_token_id", id));
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
    JsonNode inConfig =
        JsonFiles.readIfThere(folder.resolve("tokenizer_config.json")).path("chat_template");
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
}

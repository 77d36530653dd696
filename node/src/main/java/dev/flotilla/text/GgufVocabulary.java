package dev.flotilla.text;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * Translates the {@code tokenizer.ggml.*} metadata of a GGUF file into the form of a Hugging Face
 * {@code tokenizer.json}: {@code gpt2} (byte-level BPE) and {@code llama} (SentencePiece BPE).
 *
 * <p>A GGUF file names its pre-tokenizer instead of holding it ({@code tokenizer.ggml.pre}); those
 * in use by the models we run are spelled out here, and others are refused rather than guessed, as
 * a wrong one shows only as a slightly duller model.
 */
final class GgufVocabulary {

  private static final int NORMAL = 1;
  private static final int UNKNOWN = 2;
  private static final int CONTROL = 3;
  private static final int USER_DEFINED = 4;
  private static final int UNUSED = 5;
  private static final int BYTE = 6;

  private static final String CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
  private static final String TAIL = "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

  private static final String LLAMA3 =
      CONTRACTIONS
          + "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
          + TAIL;
  private static final String QWEN2 = LLAMA3.replace("\\p{N}{1,3}", "\\p{N}");

  private static final String CASED_WORDS =
      "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+%1$s"
          + "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*%1$s"
          + "|%2$s| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|"
          + TAIL;
  private static final String GPT_4O = CASED_WORDS.formatted(CONTRACTIONS + "?", "\\p{N}{1,3}");
  private static final String TEKKEN = CASED_WORDS.formatted("", "\\p{N}");

  private final Map<String, Object> metadata;
  private final String source;
  private final List<String> tokens;
  private final int[] types;

  private GgufVocabulary(Map<String, Object> metadata, String source) {
    this.metadata = metadata;
    this.source = source;
    this.tokens = strings("tokenizer.ggml.tokens");
    if (tokens.isEmpty()) {
      throw bad("it has no tokens");
    }
    this.types = types();
    for (String key :
        List.of("bos", "eos", "unknown", "padding", "eot", "eom", "separator", "cls", "mask")) {
      String name = "tokenizer.ggml." + key + "_token_id";
      if (metadata.get(name) instanceof Number id
          // 0xFFFFFFFF stands for none.
          && id.intValue() != -1
          && (id.longValue() < 0 || id.longValue() >= tokens.size())) {
        throw bad(name + " " + id + " is out of range for " + tokens.size() + " tokens");
      }
    }
  }

  /**
   * @param source what to call the file in messages
   * @throws FlotillaException {@code BAD_FILE} if the metadata are malformed or of an unknown kind
   */
  static ObjectNode tokenizerJson(Map<String, Object> metadata, String source) {
    GgufVocabulary vocabulary = new GgufVocabulary(metadata, source);
    return switch (GgufMetadata.string(metadata, "tokenizer.ggml.model").orElse("")) {
      case "gpt2" -> vocabulary.byteLevel();
      case "llama" -> vocabulary.sentencePiece();
      case String other ->
          throw vocabulary.bad("the kind '" + other + "' is unknown (gpt2 and llama are known)");
    };
  }

  private ObjectNode byteLevel() {
    String name = GgufMetadata.string(metadata, "tokenizer.ggml.pre").orElse("default");
    ObjectNode root = root();
    ObjectNode model = TokenizerJson.bpeModel();
    ArrayNode steps =
        root.putObject("pre_tokenizer").put("type", "Sequence").putArray("pretokenizers");
    switch (name) {
      case "default", "gpt-2", "gpt2", "phi-2", "jina-es", "jina-de", "gigachat" ->
          steps.add(TokenizerJson.byteLevel(true));
      case "llama-bpe", "llama3", "llama-v3", "falcon3" -> {
        split(steps, LLAMA3);
        model.put("ignore_merges", true);
      }
      case "qwen2", "stablelm2", "deepseek-r1-qwen", "megrez" -> split(steps, QWEN2);
      case "smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b" -> {
        steps.addObject().put("type", "Digits").put("individual_digits", true);
        steps.add(TokenizerJson.byteLevel(true));
      }
      case "gpt-4o", "llama4" -> split(steps, GPT_4O);
      case "tekken" -> {
        split(steps, TEKKEN);
        model.put("ignore_merges", true);
      }
      default ->
          throw new FlotillaException(
              Code.BAD_FILE,
              "the pre-tokenizer '" + name + "' of " + source + " is unknown",
              "Use the model's safetensors folder, whose tokenizer.json spells it out.");
    }
    ObjectNode vocabulary = model.putObject("vocab");
    for (int id = 0; id < tokens.size(); id++) {
      String token = tokens.get(id);
      if (types[id] == NORMAL && !ByteAlphabet.spells(token)) {
        throw bad("token " + id + " does not spell bytes; it is not valid UTF-8");
      }
      put(vocabulary, token, id);
    }
    ArrayNode merges = model.putArray("merges");
    for (String merge : strings("tokenizer.ggml.merges")) {
      // No byte's stand-in is a space, so the only one separates; a token may begin with none.
      int space = merge.indexOf(' ', 1);
      if (space < 0) {
        throw bad("merge " + merges.size() + " is not a pair");
      }
      merges.addArray().add(merge.substring(0, space)).add(merge.substring(space + 1));
    }
    root.set("decoder", TokenizerJson.byteLevel(true));
    root.set("model", model);
    return root;
  }

  /** The inverse of the names in {@link #byteLevel}. */
  static Optional<String> preTokenizerName(JsonNode preTokenizer) {
    List<JsonNode> steps = new ArrayList<>();
    if (preTokenizer.path("type").asText().equals("Sequence")) {
      preTokenizer.path("pretokenizers").forEach(steps::add);
    } else {
      steps.add(preTokenizer);
    }
    JsonNode last = steps.isEmpty() ? preTokenizer : steps.getLast();
    if (!last.path("type").asText().equals("ByteLevel")
        || last.path("add_prefix_space").asBoolean(true)) {
      return Optional.empty();
    }
    boolean words = last.path("use_regex").asBoolean(true);
    JsonNode first = steps.getFirst();
    if (steps.size() == 1) {
      return words ? Optional.of("gpt-2") : Optional.empty();
    }
    if (steps.size() > 2) {
      return Optional.empty();
    }
    if (first.path("type").asText().equals("Digits")) {
      return words && first.path("individual_digits").asBoolean()
          ? Optional.of("smollm")
          : Optional.empty();
    }
    if (words || !first.path("behavior").asText().equals("Isolated")) {
      return Optional.empty();
    }
    return switch (first.path("pattern").path("Regex").asText()) {
      case String regex when regex.equals(LLAMA3) -> Optional.of("llama-bpe");
      case String regex when regex.equals(QWEN2) -> Optional.of("qwen2");
      case String regex when regex.equals(GPT_4O) -> Optional.of("gpt-4o");
      case String regex when regex.equals(TEKKEN) -> Optional.of("tekken");
      default -> Optional.empty();
    };
  }

  private static void split(ArrayNode steps, String regex) {
    ObjectNode step = steps.addObject().put("type", "Split");
    step.putObject("pattern").put("Regex", regex);
    step.put("behavior", "Isolated").put("invert", false);
    steps.add(TokenizerJson.byteLevel(false));
  }

  private ObjectNode sentencePiece() {
    double[] scores = GgufMetadata.numbers(metadata, "tokenizer.ggml.scores");
    if (scores.length != tokens.size()) {
      throw bad("it has " + tokens.size() + " tokens but " + scores.length + " scores");
    }
    ObjectNode root = root();
    ArrayNode normalizers =
        root.putObject("normalizer").put("type", "Sequence").putArray("normalizers");
    if (GgufMetadata.flag(metadata, "tokenizer.ggml.add_space_prefix").orElse(true)) {
      normalizers.addObject().put("type", "Prepend").put("prepend", "▁");
    }
    normalizers.add(replace(" ", "▁"));
    root.putNull("pre_tokenizer");
    ArrayNode decoders = root.putObject("decoder").put("type", "Sequence").putArray("decoders");
    decoders.add(replace("▁", " "));
    decoders.addObject().put("type", "ByteFallback");
    decoders.addObject().put("type", "Fuse");
    if (!normalizers.get(0).has("pattern")) {
      decoders.addObject().put("type", "Strip").put("content", " ").put("start", 1).put("stop", 0);
    }
    ObjectNode model = TokenizerJson.bpeModel();
    model.put("byte_fallback", true).put("fuse_unk", true);
    for (int id = 0; id < tokens.size(); id++) {
      if (types[id] == UNKNOWN) {
        model.put("unk_token", tokens.get(id));
      }
    }
    ObjectNode vocabulary = model.putObject("vocab");
    for (int id = 0; id < tokens.size(); id++) {
      put(vocabulary, tokens.get(id), id);
    }
    ArrayNode merges = model.putArray("merges");
    for (Merge merge : sentencePieceMerges(scores)) {
      merges.addArray().add(tokens.get(merge.left)).add(tokens.get(merge.right));
    }
    root.set("model", model);
    return root;
  }

  private record Merge(int left, int right, double score) {}

  /**
   * SentencePiece has no list of merges: it joins the neighbours whose union has the best score.
   * Every way of cutting a piece into two pieces is therefore a merge of that piece's score.
   */
  private List<Merge> sentencePieceMerges(double[] scores) {
    Map<String, Integer> pieces = new HashMap<>();
    for (int id = 0; id < tokens.size(); id++) {
      if (types[id] == NORMAL || types[id] == USER_DEFINED || types[id] == UNUSED) {
        pieces.put(tokens.get(id), id);
      }
    }
    List<Merge> merges = new ArrayList<>();
    for (int id = 0; id < tokens.size(); id++) {
      String piece = tokens.get(id);
      if (types[id] != NORMAL || piece.length() > 128) {
        continue;
      }
      for (int cut = 1; cut < piece.length(); cut++) {
        Integer left = pieces.get(piece.substring(0, cut));
        Integer right = left == null ? null : pieces.get(piece.substring(cut));
        if (left != null && right != null) {
          merges.add(new Merge(left, right, scores[id]));
        }
      }
    }
    merges.sort(
        Comparator.comparingDouble((Merge merge) -> -merge.score)
            .thenComparingInt(Merge::left)
            .thenComparingInt(Merge::right));
    return merges;
  }

  private static ObjectNode replace(String from, String to) {
    ObjectNode step = Json.MAPPER.createObjectNode().put("type", "Replace");
    step.putObject("pattern").put("String", from);
    return step.put("content", to);
  }

  /** The root with its added tokens. */
  private ObjectNode root() {
    ObjectNode root = Json.MAPPER.createObjectNode();
    root.put("version", "1.0");
    root.putNull("truncation");
    root.putNull("padding");
    ArrayNode added = root.putArray("added_tokens");
    for (int id = 0; id < tokens.size(); id++) {
      switch (types[id]) {
        case CONTROL, UNKNOWN -> TokenizerJson.addToken(added, id, tokens.get(id), true);
        case USER_DEFINED -> TokenizerJson.addToken(added, id, tokens.get(id), false);
        default -> {}
      }
    }
    root.putNull("normalizer");
    root.putNull("post_processor");
    return root;
  }

  private void put(ObjectNode vocabulary, String token, int id) {
    if (vocabulary.has(token)) {
      throw bad("the token '" + token + "' stands twice, or is not valid UTF-8");
    }
    vocabulary.put(token, id);
  }

  private int[] types() {
    double[] numbers = GgufMetadata.numbers(metadata, "tokenizer.ggml.token_type");
    int[] result = new int[tokens.size()];
    Arrays.fill(result, NORMAL);
    if (numbers.length == 0) {
      return result;
    }
    if (numbers.length != tokens.size()) {
      throw bad("it has " + tokens.size() + " tokens but " + numbers.length + " token types");
    }
    for (int id = 0; id < result.length; id++) {
      result[id] = (int) numbers[id];
      if (result[id] < NORMAL || result[id] > BYTE) {
        throw bad("token " + id + " has the unknown type " + result[id]);
      }
    }
    return result;
  }

  private List<String> strings(String key) {
    return GgufMetadata.strings(metadata, key);
  }

  private FlotillaException bad(String what) {
    return new FlotillaException(
        Code.BAD_FILE, "the tokenizer of " + source + " is malformed: " + what, "Fetch it again.");
  }
}

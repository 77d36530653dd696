package dev.flotilla.text;

import ai.djl.huggingface.tokenizers.HuggingFaceTokenizer;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.text.SpecialTokens.SpecialToken;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.concurrent.locks.ReentrantReadWriteLock;
import java.util.function.Function;

/**
 * Text to token ids and back, by the Hugging Face library. Safe on all threads.
 *
 * <p>Special tokens are found by us ({@link SpecialTokens}), because the library would find them in
 * a user's text as well; what stands between them goes to an instance of the library that knows no
 * added tokens. Text between two special tokens is segmented as one piece, whoever wrote its parts,
 * so that a well-meaning user's ids are those of every other implementation.
 */
public final class Tokenizer implements AutoCloseable {

  /** The metadata key of a GGUF file that holds a whole tokenizer.json, where one came along. */
  public static final String GGUF_JSON = "tokenizer.huggingface.json";

  private final HuggingFaceTokenizer whole;
  private final HuggingFaceTokenizer plain;
  private final HuggingFaceTokenizer continuing;
  private final SpecialTokens specialTokens;
  private final int vocabularySize;

  /** Held for reading by every use, for writing by close: native memory must outlive its users. */
  private final ReentrantReadWriteLock lifetime = new ReentrantReadWriteLock();

  private boolean closed;

  private Tokenizer(ObjectNode json, String source) {
    TokenizerCheck.Checked checked = TokenizerCheck.check(json, source);
    vocabularySize = checked.vocabularySize();
    specialTokens = new SpecialTokens(checked.specialTokens());
    json.putNull("truncation");
    json.putNull("padding");
    whole = load(json, source);
    ObjectNode bare = json.deepCopy();
    bare.putArray("added_tokens");
    bare.putNull("post_processor");
    plain = load(bare, source);
    JsonNode preTokenizer = bare.path("pre_tokenizer");
    if (preTokenizer.path("prepend_scheme").asText().equals("first")) {
      ((ObjectNode) preTokenizer).put("prepend_scheme", "never");
      continuing = load(bare, source);
    } else {
      continuing = plain;
    }
  }

  /**
   * Reads a Hugging Face {@code tokenizer.json}.
   *
   * @throws FlotillaException {@code BAD_FILE} if it is missing or malformed
   */
  public static Tokenizer fromFile(Path tokenizerJson) {
    return fromJson(TextFiles.read(tokenizerJson), tokenizerJson.toString());
  }

  /**
   * The same, from the text of a tokenizer.json.
   *
   * @param source what to call it in messages
   * @throws FlotillaException {@code BAD_FILE} if it is malformed
   */
  public static Tokenizer fromJson(String json, String source) {
    return new Tokenizer(parsed(json, source), source);
  }

  private static ObjectNode parsed(String json, String source) {
    try {
      if (Json.MAPPER.readTree(json) instanceof ObjectNode object) {
        return object;
      }
      throw new FlotillaException(
          Code.BAD_FILE, "the tokenizer of " + source + " is no JSON object", "Fetch it again.");
    } catch (JsonProcessingException e) {
      throw new FlotillaException(
          Code.BAD_FILE,
          "the tokenizer of " + source + " is malformed: " + e.getOriginalMessage(),
          "Fetch it again.",
          e);
    }
  }

  /**
   * Reads the tokenizer.json in a GGUF file, or else its {@code tokenizer.ggml.*} metadata; see
   * {@link GgufVocabulary}.
   *
   * @param source what to call it in messages
   * @throws FlotillaException {@code BAD_FILE} if it is malformed or of an unknown kind
   */
  public static Tokenizer fromGguf(Map<String, Object> metadata, String source) {
    return new Tokenizer(ggufJson(metadata, source), source);
  }

  private static ObjectNode ggufJson(Map<String, Object> metadata, String source) {
    return metadata.get(GGUF_JSON) instanceof String json
        ? parsed(json, source)
        : GgufVocabulary.tokenizerJson(metadata, source);
  }

  /**
   * The tokens of a GGUF file by the bytes that they add to a text, for {@link TokenConstraint}.
   * Some MB, and as long as some masks to make: for models whose answers are held to grammars.
   *
   * @param source what to call the file in messages
   * @throws FlotillaException as {@link #fromGguf}, and {@code INVALID} if bytes depend on a
   *     token's neighbours (WordPiece)
   */
  public static TokenTrie tokenTrie(Map<String, Object> metadata, String source) {
    ObjectNode json = ggufJson(metadata, source);
    return new TokenTrie(
        TokenBytes.of(json, TokenizerCheck.check(json, source).vocabularySize())
            .orElseThrow(
                () ->
                    new FlotillaException(
                        Code.INVALID,
                        "the tokens of "
                            + source
                            + " have no bytes of their own, so no grammar can be held to",
                        "Leave out the grammar, or use a model that generates text.")));
  }

  /**
   * The name that GGUF has for a way of cutting text into words.
   *
   * @param preTokenizer the {@code pre_tokenizer} of a tokenizer.json with byte-level BPE
   */
  public static Optional<String> ggufPreTokenizer(JsonNode preTokenizer) {
    return GgufVocabulary.preTokenizerName(preTokenizer);
  }

  private static HuggingFaceTokenizer load(ObjectNode json, String source) {
    try {
      byte[] bytes = Json.MAPPER.writeValueAsBytes(json);
      return HuggingFaceTokenizer.newInstance(
          new ByteArrayInputStream(bytes),
          Map.of("addSpecialTokens", "false", "truncation", "false", "padding", "false"));
    } catch (IOException | RuntimeException e) {
      throw new FlotillaException(
          Code.BAD_FILE,
          "the tokenizer of " + source + " does not load: " + e.getMessage(),
          "It is damaged, or needs a newer version of the tokenizer library.",
          e);
    }
  }

  /** One more than the highest id. */
  public int vocabularySize() {
    return vocabularySize;
  }

  /** The id of a special (or otherwise added) token by its text. */
  public OptionalInt specialId(String content) {
    return specialTokens.all().stream()
        .filter(token -> token.content().equals(content))
        .mapToInt(SpecialToken::id)
        .findFirst();
  }

  /** The ids of all tokens that decoding leaves out of text. */
  public int[] specialIds() {
    return specialTokens.all().stream()
        .filter(SpecialToken::special)
        .mapToInt(SpecialToken::id)
        .toArray();
  }

  /** Encodes what a user typed: special tokens in it are text. No token is put before or after. */
  public int[] encode(String userText) {
    return encode(MarkedText.fromUser(userText));
  }

  /** Encodes text in whose trusted parts special tokens count. */
  public int[] encode(List<Segment> segments) {
    return encode(MarkedText.of(segments));
  }

  int[] encode(MarkedText text) {
    return using(
        ignored -> {
          Ids ids = new Ids();
          int gap = 0;
          int at = 0;
          while (at < text.length()) {
            SpecialToken token = specialTokens.at(text, at);
            if (token == null) {
              at++;
              continue;
            }
            int end = at;
            while (token.stripLeft() && end > gap && isWhite(text, end - 1)) {
              end--;
            }
            encodePlain(text.value(), gap, end, ids);
            ids.add(token.id());
            at += token.content().length();
            while (token.stripRight() && at < text.length() && isWhite(text, at)) {
              at++;
            }
            gap = at;
          }
          encodePlain(text.value(), gap, text.length(), ids);
          return ids.toArray();
        });
  }

  private static boolean isWhite(MarkedText text, int index) {
    return Character.isWhitespace(text.charAt(index)) || text.charAt(index) == '\u00A0';
  }

  private void encodePlain(String text, int from, int to, Ids ids) {
    if (from < to) {
      HuggingFaceTokenizer encoder = from == 0 ? plain : continuing;
      // A lone half of a surrogate pair has no UTF-8; the round trip makes it '?'.
      String part = text.substring(from, to);
      if (!TokenizerCheck.isWellFormed(part)) {
        part = new String(part.getBytes(StandardCharsets.UTF_8), StandardCharsets.UTF_8);
      }
      for (long id : encoder.encode(part, false, false).getIds()) {
        ids.add((int) id);
      }
    }
  }

  /** The text of the ids without special tokens; U+FFFD stands for bytes that are not UTF-8. */
  public String decode(int... ids) {
    return decode(ids, true);
  }

  /**
   * The text of the ids. Ids that are no token are left out.
   *
   * @param skipSpecial whether to leave out special tokens
   */
  public String decode(int[] ids, boolean skipSpecial) {
    long[] known =
        Arrays.stream(ids).filter(id -> id >= 0 && id < vocabularySize).asLongStream().toArray();
    return using(ignored -> known.length == 0 ? "" : whole.decode(known, skipSpecial));
  }

  /**
   * Decodes token by token.
   *
   * @param prompt the ids that stand before the first one, for whether it begins with a space
   */
  public StreamDecoder streamDecoder(int... prompt) {
    return new StreamDecoder(this, prompt);
  }

  /** The ids that the file's own post-processor puts around a text, such as a beginning token. */
  int[] encodeAsFile(String text) {
    return using(
        ignored ->
            Arrays.stream(whole.encode(text, true, false).getIds())
                .mapToInt(Math::toIntExact)
                .toArray());
  }

  private <T> T using(Function<Tokenizer, T> action) {
    lifetime.readLock().lock();
    try {
      if (closed) {
        throw new IllegalStateException("the tokenizer is closed");
      }
      return action.apply(this);
    } finally {
      lifetime.readLock().unlock();
    }
  }

  /** Frees the native memory, once all uses under way have ended. */
  @Override
  public void close() {
    lifetime.writeLock().lock();
    try {
      if (!closed) {
        closed = true;
        whole.close();
        plain.close();
        if (continuing != plain) {
          continuing.close();
        }
      }
    } finally {
      lifetime.writeLock().unlock();
    }
  }

  /** A growing list of ids. */
  private static final class Ids {
    private int[] values = new int[64];
    private int size;

    void add(int id) {
      if (size == values.length) {
        values = Arrays.copyOf(values, size * 2);
      }
      values[size++] = id;
    }

    int[] toArray() {
      return Arrays.copyOf(values, size);
    }
  }
}

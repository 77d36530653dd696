package dev.flotilla.text;

import com.fasterxml.jackson.databind.JsonNode;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Optional;
import java.util.function.Function;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Which bytes each token of a {@code tokenizer.json} adds to a text, by its decoder: the bytes that
 * {@link ByteAlphabet} spells ({@code ByteLevel}), or the token's own text with {@code ▁} for a
 * space and {@code <0x0A>} for a byte (SentencePiece).
 *
 * <p>Such bytes hold behind other text. Where nothing but special tokens stands before an answer,
 * SentencePiece's decoders take the space from its beginning.
 */
final class TokenBytes {

  private static final byte[] NONE = {};
  private static final Pattern BYTE = Pattern.compile("<0x([0-9A-Fa-f]{2})>");

  private TokenBytes() {}

  /**
   * The bytes by id; none for special tokens and ids without a token.
   *
   * @param size one more than the highest id
   * @return empty where a token's bytes depend on its neighbours (WordPiece)
   */
  static Optional<List<byte[]>> of(JsonNode tokenizer, int size) {
    JsonNode decoder = tokenizer.path("decoder");
    JsonNode model = tokenizer.path("model");
    Function<String, byte[]> bytes;
    if (has(decoder, "ByteLevel")) {
      bytes = TokenBytes::byteLevel;
    } else if (has(decoder, "Metaspace") || has(decoder, "Replace")) {
      boolean fallback = has(decoder, "ByteFallback");
      bytes = token -> sentencePiece(token, fallback);
    } else {
      return Optional.empty();
    }
    List<byte[]> tokens = new ArrayList<>(Collections.nCopies(size, NONE));
    JsonNode vocabulary = model.path("vocab");
    if (vocabulary.isArray()) {
      for (int id = 0; id < vocabulary.size(); id++) {
        tokens.set(id, bytes.apply(vocabulary.get(id).path(0).asText()));
      }
    } else {
      vocabulary
          .properties()
          .forEach(entry -> tokens.set(entry.getValue().asInt(), bytes.apply(entry.getKey())));
    }
    for (JsonNode token : tokenizer.path("added_tokens")) {
      tokens.set(
          token.path("id").asInt(),
          token.path("special").asBoolean() ? NONE : bytes.apply(token.path("content").asText()));
    }
    return Optional.of(List.copyOf(tokens));
  }

  /** Whether a decoder is of a type, or a sequence with one of it. */
  private static boolean has(JsonNode decoder, String type) {
    if (decoder.path("type").asText().equals(type)) {
      return true;
    }
    for (JsonNode step : decoder.path("decoders")) {
      if (step.path("type").asText().equals(type)) {
        return true;
      }
    }
    return false;
  }

  private static byte[] byteLevel(String token) {
    if (!ByteAlphabet.spells(token)) {
      return token.getBytes(StandardCharsets.UTF_8);
    }
    byte[] bytes = new byte[token.length()];
    for (int i = 0; i < bytes.length; i++) {
      bytes[i] = ByteAlphabet.byteOf(token.charAt(i));
    }
    return bytes;
  }

  private static byte[] sentencePiece(String token, boolean fallback) {
    Matcher matcher = BYTE.matcher(token);
    return fallback && matcher.matches()
        ? new byte[] {(byte) Integer.parseInt(matcher.group(1), 16)}
        : token.replace('▁', ' ').getBytes(StandardCharsets.UTF_8);
  }
}

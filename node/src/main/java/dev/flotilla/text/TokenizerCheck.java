package dev.flotilla.text;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.text.SpecialTokens.SpecialToken;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

/**
 * Refuses malformed tokenizers before the native library sees them: its own errors are late, or
 * panics.
 */
final class TokenizerCheck {

  /** Ten times the largest vocabulary in use. */
  private static final int TOKENS_MAX = 4_000_000;

  private final String source;
  private final BitSet ids = new BitSet();
  private final List<SpecialToken> specialTokens = new ArrayList<>();

  private TokenizerCheck(String source) {
    this.source = source;
  }

  /** What a well-formed tokenizer.json holds. */
  record Checked(int vocabularySize, List<SpecialToken> specialTokens) {}

  /**
   * @param source what to call the tokenizer in messages
   * @throws FlotillaException {@code BAD_FILE} if it is malformed
   */
  static Checked check(JsonNode tokenizer, String source) {
    TokenizerCheck check = new TokenizerCheck(source);
    JsonNode model = tokenizer.path("model");
    JsonNode vocabulary = model.path("vocab");
    switch (model.path("type").asText(vocabulary.isArray() ? "Unigram" : "BPE")) {
      case "BPE" -> {
        check.vocabulary(vocabulary);
        check.merges(model);
      }
      case "WordPiece", "WordLevel" -> check.vocabulary(vocabulary);
      case "Unigram" -> check.unigram(model);
      case String other -> throw check.bad("its model '" + other + "' is of no known kind");
    }
    check.addedTokens(tokenizer.path("added_tokens"));
    int count = check.ids.cardinality();
    int size = check.ids.length();
    if (count == 0) {
      throw check.bad("it has no tokens");
    }
    // Gaps happen (ids reserved between the model's tokens and the added ones), but not most of it.
    if (size > 2 * count + 1024) {
      throw check.bad("the id " + (size - 1) + " is out of range for " + count + " tokens");
    }
    return new Checked(size, List.copyOf(check.specialTokens));
  }

  private void vocabulary(JsonNode vocabulary) {
    if (!vocabulary.isObject()) {
      throw bad("it has no vocabulary");
    }
    vocabulary
        .properties()
        .forEach(
            entry -> {
              wellFormed(entry.getKey());
              claim(entry.getValue(), entry.getKey());
            });
  }

  private void merges(JsonNode model) {
    JsonNode vocabulary = model.path("vocab");
    String prefix = model.path("continuing_subword_prefix").asText("");
    int rank = 0;
    for (JsonNode merge : model.path("merges")) {
      String left;
      String right;
      if (merge.isArray() && merge.size() == 2) {
        left = merge.get(0).asText();
        right = merge.get(1).asText();
      } else {
        String text = merge.asText("");
        int space = text.indexOf(' ');
        if (space < 0 || space != text.lastIndexOf(' ')) {
          throw bad("merge " + rank + " is not a pair");
        }
        left = text.substring(0, space);
        right = text.substring(space + 1);
      }
      boolean continues = !prefix.isEmpty() && right.startsWith(prefix);
      String joined = left + (continues ? right.substring(prefix.length()) : right);
      // A merge that yields one of its own parts would never end.
      if (left.isEmpty() || right.isEmpty() || joined.equals(left) || joined.equals(right)) {
        throw bad("merge " + rank + " ('" + left + "', '" + right + "') runs in a circle");
      }
      for (String token : List.of(left, right, joined)) {
        if (!vocabulary.has(token)) {
          throw bad("merge " + rank + " names '" + token + "', which is no token");
        }
      }
      rank++;
    }
  }

  private void unigram(JsonNode model) {
    int id = 0;
    Set<String> seen = new HashSet<>();
    for (JsonNode entry : model.path("vocab")) {
      if (!entry.isArray() || entry.size() != 2 || !entry.get(1).isNumber()) {
        throw bad("token " + id + " is not a pair of text and score");
      }
      wellFormed(entry.get(0).asText());
      if (!seen.add(entry.get(0).asText())) {
        throw bad("the token '" + entry.get(0).asText() + "' stands twice");
      }
      ids.set(id++);
    }
    JsonNode unknown = model.path("unk_id");
    if (unknown.isNumber() && (unknown.asLong() < 0 || unknown.asLong() >= id)) {
      throw bad("the id " + unknown + " of its unknown token is out of range");
    }
  }

  private void addedTokens(JsonNode added) {
    BitSet addedIds = new BitSet();
    Set<String> contents = new HashSet<>();
    for (JsonNode token : added) {
      String content = token.path("content").asText("");
      wellFormed(content);
      if (content.isEmpty() || !contents.add(content)) {
        throw bad("the added token '" + content + "' is empty or stands twice");
      }
      int id = id(token.path("id"), content);
      if (addedIds.get(id)) {
        throw bad("two added tokens have the id " + id);
      }
      addedIds.set(id);
      ids.set(id);
      specialTokens.add(
          new SpecialToken(
              id,
              content,
              token.path("special").asBoolean(),
              token.path("lstrip").asBoolean(),
              token.path("rstrip").asBoolean(),
              token.path("single_word").asBoolean()));
    }
  }

  private void claim(JsonNode value, String token) {
    int id = id(value, token);
    if (ids.get(id)) {
      throw bad("two tokens have the id " + id + ", one of them '" + token + "'");
    }
    ids.set(id);
  }

  private int id(JsonNode value, String token) {
    if (!value.isIntegralNumber() || value.asLong() < 0 || value.asLong() >= TOKENS_MAX) {
      throw bad("the id " + value + " of the token '" + token + "' is out of range");
    }
    return value.asInt();
  }

  private void wellFormed(String token) {
    if (!isWellFormed(token)) {
      throw bad("a token is not valid UTF-8");
    }
  }

  /** Whether the string has no half of a surrogate pair, which no UTF-8 spells. */
  static boolean isWellFormed(String text) {
    for (int i = 0; i < text.length(); i++) {
      char c = text.charAt(i);
      if (Character.isHighSurrogate(c)) {
        if (i + 1 == text.length() || !Character.isLowSurrogate(text.charAt(++i))) {
          return false;
        }
      } else if (Character.isLowSurrogate(c)) {
        return false;
      }
    }
    return true;
  }

  private FlotillaException bad(String what) {
    return new FlotillaException(
        Code.BAD_FILE, "the tokenizer of " + source + " is malformed: " + what, "Fetch it again.");
  }
}

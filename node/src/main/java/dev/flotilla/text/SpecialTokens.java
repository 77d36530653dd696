package dev.flotilla.text;

import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * Finds the tokens that stand outside the model's own segmentation ("added tokens"): leftmost
 * first, of those the longest, as the Hugging Face library does. Tokens of white space count
 * everywhere; all others count only where every character of them is trusted.
 */
final class SpecialTokens {

  /**
   * @param special whether decoding may leave it out
   * @param stripLeft whether it swallows the white space before it
   * @param stripRight whether it swallows the white space after it
   * @param singleWord whether it counts only between characters that are not of words
   */
  record SpecialToken(
      int id,
      String content,
      boolean special,
      boolean stripLeft,
      boolean stripRight,
      boolean singleWord) {}

  private static final class Node {
    final Map<Character, Node> next = new HashMap<>();
    @Nullable SpecialToken token;
  }

  private final Node root = new Node();
  private final List<SpecialToken> tokens;

  SpecialTokens(List<SpecialToken> tokens) {
    this.tokens = List.copyOf(tokens);
    for (SpecialToken token : tokens) {
      Node node = root;
      for (int i = 0; i < token.content().length(); i++) {
        node = node.next.computeIfAbsent(token.content().charAt(i), c -> new Node());
      }
      node.token = token;
    }
  }

  List<SpecialToken> all() {
    return tokens;
  }

  /** The longest token that starts at the index, or null. */
  @Nullable SpecialToken at(MarkedText text, int index) {
    SpecialToken longest = null;
    Node node = root;
    for (int i = index; i < text.length(); i++) {
      Node next = node.next.get(text.charAt(i));
      if (next == null) {
        break;
      }
      node = next;
      SpecialToken token = node.token;
      if (token != null && counts(token, text, index, i + 1)) {
        longest = token;
      }
    }
    return longest;
  }

  private static boolean counts(SpecialToken token, MarkedText text, int from, int to) {
    if (!token.content().isBlank() && !text.isTrusted(from, to)) {
      return false;
    }
    return !token.singleWord() || (!isWord(text, from - 1) && !isWord(text, to));
  }

  private static boolean isWord(MarkedText text, int index) {
    return index >= 0
        && index < text.length()
        && (Character.isLetterOrDigit(text.charAt(index)) || text.charAt(index) == '_');
  }
}

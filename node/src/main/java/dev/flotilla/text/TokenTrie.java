package dev.flotilla.text;

import java.util.Arrays;
import java.util.List;
import java.util.stream.IntStream;

/**
 * The tokens of a vocabulary by their bytes, as a prefix tree: what is wrong with a beginning is
 * wrong with all tokens that begin so. One for a model, whatever the grammars. Immutable; safe on
 * all threads.
 *
 * <p>The nodes lie in the order of a walk, children behind their parent, so that a walk is one pass
 * over arrays, and leaving out a subtree is a jump.
 */
public final class TokenTrie {

  private final byte[][] tokens;
  private final int nodes;

  /** The byte by which a node is reached from its parent. */
  private final byte[] label;

  /** How many bytes lead to a node. */
  private final int[] depth;

  /** The first node behind a node's subtree. */
  private final int[] behind;

  /** The tokens that end at node n: those from firstToken[n] to firstToken[n+1] of ids. */
  private final int[] firstToken;

  private final int[] ids;
  private final int depthMax;

  /**
   * @param tokens the bytes of each token, by id; none for tokens that are no text (special tokens,
   *     ids without a token). Not copied; must not change
   */
  public TokenTrie(List<byte[]> tokens) {
    this.tokens = tokens.toArray(byte[][]::new);
    ids =
        IntStream.range(0, this.tokens.length)
            .filter(id -> this.tokens[id].length > 0)
            .boxed()
            .sorted((a, b) -> Arrays.compareUnsigned(this.tokens[a], this.tokens[b]))
            .mapToInt(Integer::intValue)
            .toArray();
    int size = 0;
    int longest = 0;
    byte[] previous = {};
    for (int id : ids) {
      size += this.tokens[id].length - common(previous, this.tokens[id]);
      longest = Math.max(longest, this.tokens[id].length);
      previous = this.tokens[id];
    }
    nodes = size;
    depthMax = longest;
    label = new byte[size];
    depth = new int[size];
    behind = new int[size];
    firstToken = new int[size + 1];
    int[] open = new int[longest];
    int opened = 0;
    int next = 0;
    previous = new byte[0];
    for (int i = 0; i < ids.length; i++) {
      byte[] token = this.tokens[ids[i]];
      int common = common(previous, token);
      while (opened > common) {
        behind[open[--opened]] = next;
      }
      for (int at = common; at < token.length; at++) {
        label[next] = token[at];
        depth[next] = at + 1;
        firstToken[next] = i;
        open[opened++] = next++;
      }
      previous = token;
    }
    while (opened > 0) {
      behind[open[--opened]] = next;
    }
    firstToken[size] = ids.length;
  }

  private static int common(byte[] a, byte[] b) {
    int mismatch = Arrays.mismatch(a, b);
    return mismatch < 0 ? a.length : mismatch;
  }

  /** One more than the highest id. */
  public int vocabularySize() {
    return tokens.length;
  }

  /** The bytes of a token, none if it is no text or no token. */
  byte[] bytes(int id) {
    return id >= 0 && id < tokens.length ? tokens[id] : new byte[0];
  }

  int nodes() {
    return nodes;
  }

  int depthMax() {
    return depthMax;
  }

  byte label(int node) {
    return label[node];
  }

  int depth(int node) {
    return depth[node];
  }

  int behind(int node) {
    return behind[node];
  }

  /** Puts the tokens that end at a node into a bit set. */
  void collect(int node, long[] words) {
    for (int i = firstToken[node]; i < firstToken[node + 1]; i++) {
      words[ids[i] >> 6] |= 1L << ids[i];
    }
  }
}

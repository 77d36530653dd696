package dev.flotilla.serve;

import java.util.ArrayDeque;
import java.util.Arrays;
import java.util.Deque;
import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.Map;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/**
 * Who has which blocks of a replica's KV cache, and which blocks hold the beginning of a text that
 * may come again: paging and prefix sharing (Kwon et al., vLLM, 2023). One ledger, at the head,
 * speaks for the caches of all stages; these only follow the numbers that steps carry.
 *
 * <p>A full block is known by its tokens, by how many of them are a prompt's (these were computed
 * by another route than the rest), and by the block before it: so a text's blocks form a path in a
 * tree, and a path found again holds exactly what would be computed again. Keys are compared, not
 * only hashed. A block that is not full is never shared, so none is ever written by two sequences,
 * and nothing has to be copied.
 *
 * <p>A block is <em>held</em> by any number of sequences. One that nobody holds but that is known
 * stays, until its memory is wanted: who was held longest ago goes first, and the end of a text
 * before its beginning.
 *
 * <p>What is known was not always computed yet, only scheduled: stages run steps in their order, so
 * it is there before a later step looks at it.
 */
final class BlockLedger {

  /** No text before. */
  static final long ROOT = 0;

  /** The tokens of a block behind another one. */
  private record Key(long parent, int prompt, int[] tokens) {

    @Override
    public boolean equals(Object other) {
      return other instanceof Key key
          && parent == key.parent
          && prompt == key.prompt
          && Arrays.equals(tokens, key.tokens);
    }

    @Override
    public int hashCode() {
      return (Long.hashCode(parent) * 31 + prompt) * 31 + Arrays.hashCode(tokens);
    }
  }

  /**
   * A known block.
   *
   * @param text names its tokens and all before them; never given twice
   */
  record Known(int block, long text) {}

  private final int[] holders;
  private final @Nullable Key[] keys;
  private final Deque<Integer> blank = new ArrayDeque<>();

  /** Known blocks that nobody holds, who was held longest ago first. */
  private final LinkedHashSet<Integer> idle = new LinkedHashSet<>();

  private final Map<Key, Known> known = new HashMap<>();
  private long lastText = ROOT;

  BlockLedger(int blocks) {
    holders = new int[blocks];
    keys = new Key[blocks];
    clear();
  }

  /** Forgets everything: the caches are empty. */
  void clear() {
    Arrays.fill(holders, 0);
    Arrays.fill(keys, null);
    blank.clear();
    idle.clear();
    known.clear();
    for (int block = 0; block < holders.length; block++) {
      blank.addLast(block);
    }
  }

  int blocks() {
    return holders.length;
  }

  /** Blocks that can be had: those that nobody holds. */
  int available() {
    return blank.size() + idle.size();
  }

  /** Blocks that sequences hold. */
  int held() {
    return holders.length - available();
  }

  /** Blocks that are kept only because their text may come again. */
  int idle() {
    return idle.size();
  }

  /** A block for whoever asks, who holds it then; some is available. */
  int take() {
    Integer block = blank.pollFirst();
    if (block == null) {
      block = idle.removeFirst();
      known.remove(keys[block]);
      keys[block] = null;
    }
    holders[block] = 1;
    return block;
  }

  /**
   * The known block with a text, which the caller holds then.
   *
   * @param parent the text before
   * @param tokens the block's first is at {@code from}
   * @param prompt how many tokens from the first one of all are a prompt's
   */
  Optional<Known> find(long parent, int[] tokens, int from, int prompt) {
    Known found = known.get(key(parent, tokens, from, prompt));
    if (found != null && holders[found.block()]++ == 0) {
      idle.remove(found.block());
    }
    return Optional.ofNullable(found);
  }

  /**
   * Makes known what a held block contains.
   *
   * @return the text up to its end; another block may have had it already, and goes on having it
   */
  long publish(long parent, int block, int[] tokens, int from, int prompt) {
    assert holders[block] > 0 && keys[block] == null : "block " + block;
    Key key = key(parent, tokens, from, prompt);
    Known other = known.get(key);
    if (other != null) {
      return other.text();
    }
    keys[block] = key;
    known.put(key, new Known(block, ++lastText));
    return lastText;
  }

  private static Key key(long parent, int[] tokens, int from, int prompt) {
    int size = Scheduler.BLOCK;
    return new Key(
        parent, Math.clamp(prompt - from, 0, size), Arrays.copyOfRange(tokens, from, from + size));
  }

  /** A sequence lets go of the first so many blocks of its list. */
  void release(int[] blocks, int count) {
    for (int i = count - 1; i >= 0; i--) {
      int block = blocks[i];
      assert holders[block] > 0 : "block " + block + " is held by nobody";
      if (--holders[block] == 0) {
        if (keys[block] == null) {
          blank.addLast(block);
        } else {
          idle.addLast(block);
        }
      }
    }
  }
}

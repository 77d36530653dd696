package dev.flotilla.serve;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.Deque;
import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.function.BiConsumer;
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
 * <p>A block may also be <em>kept</em>: a copy of what a request has in another replica's cache, so
 * that the request can go on here ({@link KeptBlocks}). Kept blocks outlive idle ones, but give way
 * to whoever runs here: the one that was copied last goes first, for it is the end of a text.
 *
 * <p>What is known was not always computed yet, only scheduled: stages run steps in their order, so
 * it is there before a later step looks at it.
 */
final class BlockLedger {

  /** No text before. */
  static final long ROOT = 0;

  /**
   * The tokens of a block behind another one.
   *
   * @param parent the text before
   * @param prompt how many of the tokens are a prompt's
   */
  record Key(long parent, int prompt, int[] tokens) {

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

  /** Hears what becomes of blocks. */
  interface Watcher {

    /** A known block, which nobody held, or which was not known, is held now. */
    default void held(Known known, Key key) {}

    /** Nobody holds it any more. */
    default void left(Known known) {}

    /** A kept block's memory was wanted. */
    default void lost(int block) {}
  }

  private final int[] holders;

  /** For how many other replicas each block is kept. */
  private final int[] keeps;

  private final @Nullable Key[] keys;
  private final List<Watcher> watchers = new ArrayList<>();
  private final Deque<Integer> blank = new ArrayDeque<>();

  /** Known blocks that nobody holds, who was held longest ago first. */
  private final LinkedHashSet<Integer> idle = new LinkedHashSet<>();

  /** Kept blocks that nobody holds, who is to go first at the end. */
  private final LinkedHashSet<Integer> kept = new LinkedHashSet<>();

  private final Map<Key, Known> known = new HashMap<>();
  private long lastText = ROOT;

  BlockLedger(int blocks) {
    holders = new int[blocks];
    keeps = new int[blocks];
    keys = new Key[blocks];
    clear();
  }

  void watch(Watcher watcher) {
    watchers.add(watcher);
  }

  /** Forgets everything: the caches are empty. */
  void clear() {
    Arrays.fill(holders, 0);
    Arrays.fill(keeps, 0);
    Arrays.fill(keys, null);
    blank.clear();
    idle.clear();
    kept.clear();
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
    return blank.size() + idle.size() + kept.size();
  }

  /** Blocks that can be had without a loss to requests that run, here or elsewhere. */
  int spare() {
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

  /** Blocks that are kept for other replicas' requests, and held by none here. */
  int kept() {
    return kept.size();
  }

  /** A block for whoever asks, who holds it then; some is available. */
  int take() {
    if (spare() > 0) {
      return takeSpare();
    }
    int block = kept.removeLast();
    keeps[block] = 0;
    watchers.forEach(watcher -> watcher.lost(block));
    return taken(block);
  }

  /** As above, and none that is kept; some is spare. */
  int takeSpare() {
    Integer block = blank.pollFirst();
    return taken(block != null ? block : idle.removeFirst());
  }

  private int taken(int block) {
    Key key = keys[block];
    if (key != null) {
      known.remove(key);
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
    Key key = key(parent, tokens, from, prompt);
    Known found = known.get(key);
    if (found != null && holders[found.block()]++ == 0) {
      boolean _ =
          keeps[found.block()] > 0 ? kept.remove(found.block()) : idle.remove(found.block());
      watchers.forEach(watcher -> watcher.held(found, key));
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
    Known made = made(key, block);
    watchers.forEach(watcher -> watcher.held(made, key));
    return made.text();
  }

  private Known made(Key key, int block) {
    keys[block] = key;
    Known made = new Known(block, ++lastText);
    known.put(key, made);
    return made;
  }

  /** The known block with a key. */
  Optional<Known> known(Key key) {
    return Optional.ofNullable(known.get(key));
  }

  /** What sequences hold of what is known, each text after those before it. */
  void eachHeld(BiConsumer<Known, Key> action) {
    known.entrySet().stream()
        .filter(entry -> holders[entry.getValue().block()] > 0)
        .sorted(Comparator.comparingLong(entry -> entry.getValue().text()))
        .forEach(entry -> action.accept(entry.getValue(), entry.getKey()));
  }

  /** Keeps a known block for another replica. */
  void keep(int block) {
    if (keeps[block]++ == 0 && holders[block] == 0) {
      idle.remove(block);
      kept.addLast(block);
    }
  }

  /** Another replica wants it no more. */
  void unkeep(int block) {
    if (--keeps[block] == 0 && holders[block] == 0) {
      kept.remove(block);
      idle.addLast(block);
    }
  }

  /**
   * Makes known, and keeps, what was copied into a block, which the caller holds no more. Another
   * block may have had it already: then that one is kept.
   */
  Known adopt(Key key, int block) {
    assert holders[block] == 1 && keys[block] == null : "block " + block;
    holders[block] = 0;
    Known other = known.get(key);
    if (other != null) {
      blank.addLast(block);
      keep(other.block());
      return other;
    }
    Known made = made(key, block);
    keeps[block] = 1;
    kept.addLast(block);
    return made;
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
        Key key = keys[block];
        if (key == null) {
          blank.addLast(block);
        } else {
          if (keeps[block] > 0) {
            kept.addFirst(block); // the beginning of a text comes last, and is to go last
          } else {
            idle.addLast(block);
          }
          Known left = Objects.requireNonNull(known.get(key));
          watchers.forEach(watcher -> watcher.left(left));
        }
      }
    }
  }
}

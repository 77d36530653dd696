package dev.flotilla.model;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.tensor.KvBlocks;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Deque;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Who has which blocks of a KV cache, for those who drive a slice without a scheduler. Nothing is
 * shared, and nothing is taken from a sequence before it is released.
 */
public final class Sequences {

  private static final int BLOCK = KvBlocks.POSITIONS;
  private static final int[] NONE = new int[0];

  private record Held(int length, int[] blocks) {}

  private final Deque<Integer> free = new ArrayDeque<>();
  private final Map<Long, Held> held = new HashMap<>();

  /**
   * @param blocks of the cache
   */
  public Sequences(int blocks) {
    for (int block = 0; block < blocks; block++) {
      free.add(block);
    }
  }

  /** Positions that no sequence has taken. */
  public int freePositions() {
    return free.size() * BLOCK;
  }

  /** Positions of a sequence; 0 of one that is not known. */
  public int length(long id) {
    return held(id).length();
  }

  /**
   * Rows that continue sequences, all by the route of what is generated.
   *
   * @param ids which sequence each row belongs to; those of one follow one another
   * @param positions of each row in its sequence
   * @throws FlotillaException {@code BUSY} if there is no room, {@code CONFLICT} if a row does not
   *     continue its sequence; nothing has changed then
   */
  public Rows rows(long[] ids, int[] positions) {
    Map<Long, Integer> lengths = new LinkedHashMap<>();
    for (int row = 0; row < ids.length; row++) {
      int length = lengths.computeIfAbsent(ids[row], this::length);
      if (positions[row] != length) {
        throw new FlotillaException(
            Code.CONFLICT,
            "sequence " + ids[row] + " has " + length + " positions, cannot add " + positions[row],
            "Release the sequence and replay it from its first token");
      }
      lengths.put(ids[row], length + 1);
    }
    take(lengths);
    List<Rows.Run> runs = new ArrayList<>();
    for (int row = 0; row < ids.length; ) {
      int count = 1;
      while (row + count < ids.length && ids[row + count] == ids[row]) {
        count++;
      }
      runs.add(new Rows.Run(held(ids[row]).blocks(), positions[row], count, false));
      row += count;
    }
    return new Rows(runs);
  }

  /** Rows of a prompt that continue one sequence, chunk by chunk; errors as above. */
  public Rows prompt(long id, int count) {
    int from = length(id);
    take(Map.of(id, from + count));
    List<Rows.Run> runs = new ArrayList<>();
    for (int at = from; at < from + count; ) {
      int end = Math.min(from + count, (at / Rows.CHUNK + 1) * Rows.CHUNK);
      runs.add(new Rows.Run(held(id).blocks(), at, end - at, true));
      at = end;
    }
    return new Rows(runs);
  }

  private void take(Map<Long, Integer> lengths) {
    int missing = 0;
    for (Map.Entry<Long, Integer> entry : lengths.entrySet()) {
      int has = held(entry.getKey()).blocks().length;
      missing += Math.max(0, Math.ceilDiv(entry.getValue(), BLOCK) - has);
    }
    if (missing > free.size()) {
      throw new FlotillaException(
          Code.BUSY,
          "the KV cache has "
              + free.size()
              + " free blocks of "
              + BLOCK
              + " positions, "
              + missing
              + " needed",
          "Try again when another request has ended");
    }
    lengths.forEach(this::grow);
  }

  private void grow(long id, int length) {
    int[] had = held(id).blocks();
    int[] blocks = Arrays.copyOf(had, Math.max(had.length, Math.ceilDiv(length, BLOCK)));
    for (int i = had.length; i < blocks.length; i++) {
      blocks[i] = free.remove();
    }
    held.put(id, new Held(length, blocks));
  }

  private Held held(long id) {
    return held.getOrDefault(id, new Held(0, NONE));
  }

  /** Forgets a sequence's positions from that one on. */
  public void cut(long id, int length) {
    Held had = held(id);
    if (length < had.length()) {
      int kept = Math.ceilDiv(length, BLOCK);
      for (int i = kept; i < had.blocks().length; i++) {
        free.add(had.blocks()[i]);
      }
      held.put(id, new Held(length, Arrays.copyOf(had.blocks(), kept)));
    }
  }

  /** Forgets a sequence; unknown ones are ignored. */
  public void release(long id) {
    cut(id, 0);
    held.remove(id);
  }
}

package dev.flotilla.model;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.tensor.Attention;
import dev.flotilla.tensor.KvBlocks;
import dev.flotilla.tensor.Matrix;
import dev.flotilla.tensor.SimdOps;
import java.util.ArrayDeque;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * The keys and values of every sequence that passes through a slice. Positions are handed out in
 * blocks of 32, so a sequence can grow without moving, and none is set aside for what may never
 * come.
 */
final class KvCache implements AutoCloseable {

  private static final int BLOCK = KvBlocks.POSITIONS;

  /** What a sequence has: so many positions, in these blocks. */
  private record Sequence(int length, int[] blocks) {}

  private final ModelConfig config;
  private final int firstLayer;
  private final int capacity;
  private final KvBlocks memory;
  private final ArrayDeque<Integer> free = new ArrayDeque<>();
  private final Map<Long, Sequence> sequences = new HashMap<>();

  KvCache(SimdOps ops, ModelConfig config, LayerRange range, int positions) {
    this.config = config;
    firstLayer = range.first();
    capacity = Math.ceilDiv(positions, BLOCK);
    memory =
        new KvBlocks(
            ops, range.count(), config.heads(), config.kvHeads(), config.headWidth(), capacity);
    for (int block = 0; block < capacity; block++) {
      free.add(block);
    }
  }

  int positions() {
    return capacity * BLOCK;
  }

  int freePositions() {
    return free.size() * BLOCK;
  }

  /**
   * Makes room for a step's rows.
   *
   * @return attends over what each row may see
   * @throws FlotillaException {@code BUSY} if there is no room, {@code CONFLICT} if a row does not
   *     continue its sequence; nothing has changed then
   */
  Attention<Matrix> extend(long[] ids, int[] positions) {
    Map<Long, Integer> lengths = new LinkedHashMap<>();
    for (int row = 0; row < ids.length; row++) {
      int length = lengths.computeIfAbsent(ids[row], id -> sequence(id).length());
      if (positions[row] != length) {
        throw new FlotillaException(
            Code.CONFLICT,
            "sequence " + ids[row] + " has " + length + " positions, cannot add " + positions[row],
            "Release the sequence and replay it from its first token");
      }
      lengths.put(ids[row], length + 1);
    }
    int missing = 0;
    for (Map.Entry<Long, Integer> entry : lengths.entrySet()) {
      missing += Math.ceilDiv(entry.getValue(), BLOCK) - sequence(entry.getKey()).blocks().length;
    }
    if (missing > free.size()) {
      throw new FlotillaException(
          Code.BUSY,
          "the KV cache has "
              + free.size()
              + " free blocks of 32 positions, "
              + missing
              + " needed",
          "Try again when another request has ended");
    }
    lengths.forEach(this::grow);
    int[][] tables = new int[ids.length][];
    int[] visible = new int[ids.length];
    for (int row = 0; row < ids.length; row++) {
      tables[row] = sequence(ids[row]).blocks();
      visible[row] = positions[row] + 1;
    }
    return (layer, query, key, value) -> {
      int here = layer - firstLayer;
      for (int row = 0; row < tables.length; row++) {
        int block = tables[row][positions[row] / BLOCK];
        memory.write(here, block, positions[row] % BLOCK, key, value, row);
      }
      return memory.attend(here, query, tables, visible, config.scoring(layer));
    };
  }

  private void grow(long id, int length) {
    int[] had = sequence(id).blocks();
    int[] blocks = Arrays.copyOf(had, Math.ceilDiv(length, BLOCK));
    for (int i = had.length; i < blocks.length; i++) {
      blocks[i] = free.remove();
    }
    sequences.put(id, new Sequence(length, blocks));
  }

  private Sequence sequence(long id) {
    return sequences.getOrDefault(id, new Sequence(0, new int[0]));
  }

  void release(long id) {
    for (int block : sequence(id).blocks()) {
      free.add(block);
    }
    sequences.remove(id);
  }

  @Override
  public void close() {
    memory.close();
  }
}

package dev.flotilla.tensor;

import static dev.flotilla.tensor.PackedMatrix.TILE;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.util.Arrays;

/**
 * Keys and values in blocks of 32 positions, and attention over a list of such blocks.
 *
 * <p>A block holds, for each layer and key-value head, the keys as a tile whose rows are the 32
 * positions, and the values as tiles whose rows are 32 elements each and whose columns are the
 * positions. So both products of attention are {@link Kernels#addTile}, each score and each element
 * of the result is one chain in a fixed order, and a row's result does not depend on the rows
 * beside it nor on when its keys and values came in.
 *
 * <p>Blocks are allocated at their first use and kept; which sequence owns which block is the
 * caller's business.
 */
public final class KvBlocks implements AutoCloseable {

  /** Positions of a block. */
  public static final int POSITIONS = TILE;

  private static final ValueLayout.OfFloat FLOAT =
      ValueLayout.JAVA_FLOAT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  private final SimdOps ops;
  private final int layers;
  private final int heads;
  private final int kvHeads;
  private final int headWidth;
  private final int valueTiles;
  private final Arena arena = Arena.ofShared();
  private final MemorySegment[] blocks;
  private final float[][] scores;
  private final float[][] sums;

  /**
   * @param layers how many layers share a block
   * @param capacity how many blocks there may be
   */
  public KvBlocks(SimdOps ops, int layers, int heads, int kvHeads, int headWidth, int capacity) {
    if (heads % kvHeads != 0) {
      throw new IllegalArgumentException(heads + " heads, " + kvHeads + " kv heads");
    }
    this.ops = ops;
    this.layers = layers;
    this.heads = heads;
    this.kvHeads = kvHeads;
    this.headWidth = headWidth;
    this.valueTiles = valueTiles(headWidth);
    this.blocks = new MemorySegment[capacity];
    Arrays.fill(blocks, MemorySegment.NULL);
    int threads = ops.workers().threads();
    this.scores = new float[threads][0];
    this.sums = new float[threads][heads / kvHeads * valueTiles * TILE];
  }

  private static int valueTiles(int headWidth) {
    return (headWidth + TILE - 1) / TILE;
  }

  /** Bytes of a block. */
  public static long blockBytes(int layers, int kvHeads, int headWidth) {
    return 4L * TILE * layers * kvHeads * (headWidth + (long) valueTiles(headWidth) * TILE);
  }

  private long keyTile(int layer, int kvHead) {
    return 4L * TILE * (layer * (long) kvHeads + kvHead) * (headWidth + valueTiles * TILE);
  }

  private long valueTile(int layer, int kvHead, int tile) {
    return keyTile(layer, kvHead) + 4L * TILE * (headWidth + (long) tile * TILE);
  }

  /**
   * Takes up one position's keys and values.
   *
   * @param layer counted from 0 in this cache
   * @param slot which position of the block
   * @param row which row of the two matrices {@code [rows, kvHeads · headWidth]}
   */
  public void write(int layer, int block, int slot, Matrix key, Matrix value, int row) {
    if (blocks[block].byteSize() == 0) {
      blocks[block] = arena.allocate(blockBytes(layers, kvHeads, headWidth), 64);
    }
    MemorySegment memory = blocks[block];
    int from = row * kvHeads * headWidth;
    for (int head = 0; head < kvHeads; head++) {
      long keys = keyTile(layer, head) + 4L * slot;
      for (int i = 0; i < headWidth; i++) {
        memory.set(FLOAT, keys + 4L * TILE * i, key.values()[from + i]);
      }
      for (int i = 0; i < headWidth; i++) {
        long at = valueTile(layer, head, i / TILE) + 4L * (slot * TILE + i % TILE);
        memory.set(FLOAT, at, value.values()[from + i]);
      }
      from += headWidth;
    }
  }

  /**
   * Scaled dot-product attention, Vaswani et al. 2017, with grouped queries.
   *
   * @param layer counted from 0 in this cache
   * @param query {@code [rows, heads · headWidth]}
   * @param tables the blocks that each row's sequence has, in order
   * @param lengths how many positions each row has, its own included
   * @param scoring which of them it sees, and how it weighs them
   * @return {@code [rows, heads · headWidth]}
   */
  public Matrix attend(int layer, Matrix query, int[][] tables, int[] lengths, Scoring scoring) {
    Matrix result = new Matrix(query.rows(), query.width());
    long multiplications = 0;
    for (int length : lengths) {
      multiplications += 2L * length * heads * headWidth;
    }
    ops.workers()
        .each(
            query.rows() * kvHeads,
            multiplications,
            (worker, item) -> {
              int row = item / kvHeads;
              attendGroup(
                  worker,
                  layer,
                  item % kvHeads,
                  query,
                  row,
                  tables[row],
                  lengths[row],
                  scoring,
                  result);
            });
    return result;
  }

  /**
   * One row's query heads that share a key-value head. Positions before the window cost nothing:
   * the sums begin at its first position.
   */
  private void attendGroup(
      int worker,
      int layer,
      int kvHead,
      Matrix query,
      int row,
      int[] table,
      int length,
      Scoring scoring,
      Matrix result) {
    int group = heads / kvHeads;
    int start = scoring.window() == 0 ? 0 : Math.max(0, length - scoring.window());
    int firstBlock = start / TILE;
    int skipped = firstBlock * TILE;
    int blockCount = (length + TILE - 1) / TILE - firstBlock;
    int stride = blockCount * TILE;
    int first = row * query.width() + kvHead * group * headWidth;

    float[] score = scores(worker, group * stride);
    for (int i = 0; i < blockCount; i++) {
      Kernels.addTile(
          blocks[table[firstBlock + i]],
          keyTile(layer, kvHead),
          headWidth,
          query.values(),
          first,
          headWidth,
          group,
          score,
          i * TILE,
          stride);
    }

    float[] sum = sums[worker];
    int sumStride = valueTiles * TILE;
    Arrays.fill(sum, 0);
    int seen = length - start;
    for (int i = 0; i < group; i++) {
      softmaxNumerators(score, i * stride + start - skipped, seen, scoring);
    }
    for (int i = 0; i < blockCount; i++) {
      int from = Math.max(0, start - skipped - i * TILE);
      int columns = Math.min(TILE, length - skipped - i * TILE) - from;
      for (int tile = 0; tile < valueTiles; tile++) {
        Kernels.addTile(
            blocks[table[firstBlock + i]],
            valueTile(layer, kvHead, tile) + 4L * TILE * from,
            columns,
            score,
            i * TILE + from,
            stride,
            group,
            sum,
            tile * TILE,
            sumStride);
      }
    }
    for (int i = 0; i < group; i++) {
      float total = Kernels.sum(score, i * stride + start - skipped, seen);
      for (int j = 0; j < headWidth; j++) {
        result.values()[first + i * headWidth + j] = sum[i * sumStride + j] / total;
      }
    }
  }

  private static void softmaxNumerators(float[] score, int first, int count, Scoring scoring) {
    float scale = scoring.scale();
    if (scoring.cap() > 0) {
      Kernels.softCap(score, first, count, scale, scoring.cap());
      scale = 1;
    }
    float largest = Float.NEGATIVE_INFINITY;
    for (int i = first; i < first + count; i++) {
      largest = Math.max(largest, score[i]);
    }
    Kernels.expAll(score, first, count, scale, largest * scale);
  }

  private float[] scores(int worker, int length) {
    if (scores[worker].length < length) {
      scores[worker] = new float[length + length / 4];
    } else {
      Arrays.fill(scores[worker], 0, length, 0);
    }
    return scores[worker];
  }

  /** Frees the memory. */
  @Override
  public void close() {
    arena.close();
  }
}

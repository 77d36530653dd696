package dev.flotilla.tensor;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.VectorOperators;

/**
 * Activations as numbers of 8 bits, for products with quantised weights: every 32 elements of a row
 * share a scale, their largest magnitude over 127, and are rounded to the nearest multiple of it,
 * to even between two. A row's numbers depend on nothing but the row.
 *
 * <p>Holds the rows of one product at a time, in the order that its kernel reads them in; what it
 * needs of memory grows with the largest product so far. Not thread-safe.
 */
final class QuantisedRows {

  /** Elements that share a scale. */
  static final int BLOCK = 32;

  /** Rows of the matrix unit's tiles: row counts are filled up to a multiple. */
  static final int UNIT_ROWS = 16;

  /** Up to so many rows are spread out so that one call multiplies several blocks. */
  static final int FEW = 16;

  /** Below this, a block counts as zero: its inverse scale would overflow. */
  private static final float LEAST = 0x1p-100f;

  /** Added to a small float, leaves its nearest integer in the lowest bits. */
  private static final float ROUNDER = 12582912f;

  private static final int ROUNDER_BITS = 0x4b400000;

  /** What quantising an element costs, in multiplications. */
  private static final long WORK = 16;

  private int rows;
  private int blocks;
  private float[] quants = new float[0];
  private float[] scales = new float[0];
  private int[] totals = new int[0];
  private int[] broadcasts = new int[0];
  private MemorySegment bytes = MemorySegment.NULL;

  /**
   * Takes up new rows.
   *
   * @param workers share out the rows
   */
  void set(Matrix x, Workers workers) {
    rows = x.rows();
    blocks = x.width() / BLOCK;
    if (quants.length < x.values().length) {
      quants = new float[x.values().length];
    }
    if (scales.length < rows * blocks) {
      scales = new float[rows * blocks];
      totals = new int[rows * blocks];
    }
    float[] values = x.values();
    workers.each(
        rows,
        WORK * values.length,
        (_, row) -> {
          for (int block = row * blocks; block < (row + 1) * blocks; block++) {
            quantise(values, block);
          }
        });
  }

  private void quantise(float[] values, int block) {
    var species = Kernels.F32;
    int first = BLOCK * block;
    IntVector largest = IntVector.zero(Kernels.I32);
    for (int i = first; i < first + BLOCK; i += species.length()) {
      largest =
          largest.max(
              FloatVector.fromArray(species, values, i).reinterpretAsInts().and(0x7fffffff));
    }
    float magnitude = Float.intBitsToFloat(largest.reduceLanes(VectorOperators.MAX));
    // Not turned round: what is not a number must come out as such.
    boolean zero = magnitude <= LEAST;
    float inverse = zero ? 0 : 127 / magnitude;
    scales[block] = zero ? 0 : magnitude / 127;
    IntVector total = IntVector.zero(Kernels.I32);
    for (int i = first; i < first + BLOCK; i += species.length()) {
      FloatVector shifted = FloatVector.fromArray(species, values, i).mul(inverse).add(ROUNDER);
      shifted.sub(ROUNDER).intoArray(quants, i);
      total = total.add(shifted.reinterpretAsInts().sub(ROUNDER_BITS));
    }
    totals[block] = total.reduceLanes(VectorOperators.ADD);
  }

  /** Numbers as floats: {@code [rows, columns]}. */
  float[] quants() {
    return quants;
  }

  /** {@code [rows, columns / 32]}. */
  float[] scales() {
    return scales;
  }

  /** Sums of the numbers of each block: {@code [rows, columns / 32]}. */
  int[] totals() {
    return totals;
  }

  int blocks() {
    return blocks;
  }

  int rows() {
    return rows;
  }

  /**
   * The first row as {@link IntegerKernels#oneByte} broadcasts it: for every four columns the first
   * and third, then the second and fourth, in the halves of an int each.
   */
  int[] byteBroadcasts() {
    int[] result = broadcasts();
    for (int i = 0; i < 8 * blocks; i++) {
      result[2 * i] = pair((int) quants[4 * i], (int) quants[4 * i + 2]);
      result[2 * i + 1] = pair((int) quants[4 * i + 1], (int) quants[4 * i + 3]);
    }
    return result;
  }

  /**
   * The first row as {@link IntegerKernels#oneNibble} broadcasts it. That kernel multiplies a
   * number of 16 bits {@code n0 + 16·n1 + 256·n2 + 4096·n3}, and what is left of it without its
   * lowest nibble, and so on, without masking the higher ones: their share is taken off the next
   * factor.
   */
  int[] nibbleBroadcasts() {
    int[] result = broadcasts();
    for (int block = 0; block < blocks; block++) {
      for (int i = 0; i < 4; i++) {
        int low = BLOCK * block + 4 * i;
        int high = low + 16;
        int to = 16 * block + 4 * i;
        int a0 = (int) quants[low];
        int a1 = (int) quants[high];
        int a2 = (int) quants[low + 1];
        int a3 = (int) quants[high + 1];
        int b0 = (int) quants[low + 2];
        int b1 = (int) quants[high + 2];
        int b2 = (int) quants[low + 3];
        int b3 = (int) quants[high + 3];
        result[to] = pair(a0, b0);
        result[to + 1] = pair(a1 - 16 * a0, b1 - 16 * b0);
        result[to + 2] = pair(a2 - 16 * a1, b2 - 16 * b1);
        result[to + 3] = pair(a3 - 16 * a2, b3 - 16 * b2);
      }
    }
    return result;
  }

  private int[] broadcasts() {
    if (broadcasts.length < 16 * blocks) {
      broadcasts = new int[16 * blocks];
    }
    return broadcasts;
  }

  private static int pair(int low, int high) {
    return (low & 0xffff) | high << 16;
  }

  /** Rows of a block as the matrix unit sees them, filled up. */
  int unitRows() {
    return (rows + UNIT_ROWS - 1) / UNIT_ROWS * UNIT_ROWS;
  }

  /**
   * Bytes for the matrix unit, block after block: {@code [blocks, unitRows, 32]}.
   *
   * @return their address, good until the next call
   */
  long unitBytes(Workers workers) {
    int filled = unitRows();
    long address = reserve((long) blocks * filled * BLOCK, false);
    workers.each(
        rows,
        WORK * rows * blocks * BLOCK,
        (_, row) -> {
          for (int block = 0; block < blocks; block++) {
            IntegerKernels.toBytes(
                quants,
                BLOCK * (row * blocks + block),
                address + BLOCK * ((long) block * filled + row));
          }
        });
    return address;
  }

  /**
   * Bytes of few rows for the matrix unit, so many blocks to a product: {@code [blocks / group,
   * group · rows, group · 32]}, each row with zeros in all blocks but one. A last group of fewer
   * blocks is narrower.
   *
   * @return their address, good until the next call
   */
  long spreadBytes(int group) {
    long groupBytes = (long) group * rows * group * BLOCK;
    long address = reserve(groupBytes * ((blocks + group - 1) / group), true);
    for (int block = 0; block < blocks; block++) {
      int first = block / group * group;
      int width = Math.min(group, blocks - first) * BLOCK;
      long to = address + groupBytes * (block / group);
      for (int row = 0; row < rows; row++) {
        IntegerKernels.toBytes(
            quants,
            BLOCK * (row * blocks + block),
            to + ((long) (block - first) * rows + row) * width + (long) (block - first) * BLOCK);
      }
    }
    return address;
  }

  private long reserve(long size, boolean zeroed) {
    if (bytes.byteSize() < size) {
      bytes = Arena.ofAuto().allocate(size, 64);
    } else if (zeroed) {
      bytes.asSlice(0, size).fill((byte) 0);
    }
    return bytes.address();
  }
}

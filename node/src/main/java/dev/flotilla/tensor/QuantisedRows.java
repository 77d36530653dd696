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

  /** Below this, a block counts as zero: its inverse scale would overflow. */
  private static final float LEAST = 0x1p-100f;

  /** Added to a small float and taken off again, leaves its nearest integer. */
  private static final float ROUNDER = 12582912f;

  /** What quantising an element costs, in multiplications. */
  private static final long WORK = 16;

  private int rows;
  private int blocks;
  private int allotted;
  private float[] quants = new float[0];
  private float[] scales = new float[0];
  private int[] totals = new int[0];
  private float[] minimumFactors = new float[0];
  private WeightType type = WeightType.Q8_0;
  private int[] broadcasts = new int[0];
  private MemorySegment panel = MemorySegment.NULL;

  /**
   * Takes up new rows.
   *
   * @param type of the weights that they will be multiplied with
   * @param workers share out the rows
   */
  void set(Matrix x, WeightType type, Workers workers) {
    this.type = type;
    rows = x.rows();
    blocks = x.width() / BLOCK;
    if (quants.length < x.values().length) {
      quants = new float[x.values().length];
    }
    if (scales.length < rows * blocks) {
      scales = new float[rows * blocks];
      totals = new int[2 * rows * blocks];
      minimumFactors = new float[rows * blocks];
    }
    if (MachineKernels.AVAILABLE) {
      allotted = MachineKernels.allotted(type, rows);
      long size = (BLOCK + 12L) * blocks * allotted;
      if (panel.byteSize() < size) {
        panel = Arena.ofAuto().allocate(size, 64);
      }
    }
    float[] values = x.values();
    workers.each(
        rows,
        WORK * values.length,
        (_, row) -> {
          for (int block = row * blocks; block < (row + 1) * blocks; block++) {
            quantise(values, block);
          }
          if (MachineKernels.AVAILABLE) {
            place(row);
          }
        });
    if (rows == 1 && !MachineKernels.AVAILABLE) {
      broadcast();
    }
  }

  /** Puts a row where the machine code reads it. */
  private void place(int row) {
    for (int block = 0; block < blocks; block++) {
      int from = row * blocks + block;
      long to = (long) block * allotted + row;
      Conversions.toBytes(quants, BLOCK * from, bytesAddress() + BLOCK * to);
      Conversions.set(scalesAddress() + 4 * to, Float.floatToRawIntBits(scales[from]));
      int first = totals[2 * from];
      int second = totals[2 * from + 1];
      long starts = startsAddress(0) + startBytes() * to;
      switch (type) {
        case Q8_0 -> Conversions.set(starts, -128 * (first + second));
        case Q4_0 -> Conversions.set(starts, -8 * (first + second));
        case Q6_K -> {
          Conversions.set(starts, -32 * first);
          Conversions.set(starts + 4, -32 * second);
        }
        default -> Conversions.set(starts, Float.floatToRawIntBits(minimumFactors[from]));
      }
    }
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
    int all = 0;
    for (int half = 0; half < 2; half++) {
      int from = first + BLOCK / 2 * half;
      IntVector total = IntVector.zero(Kernels.I32);
      for (int i = from; i < from + BLOCK / 2; i += species.length()) {
        FloatVector rounded =
            FloatVector.fromArray(species, values, i).mul(inverse).add(ROUNDER).sub(ROUNDER);
        rounded.intoArray(quants, i);
        total = total.add((IntVector) rounded.convert(VectorOperators.F2I, 0));
      }
      totals[2 * block + half] = total.reduceLanes(VectorOperators.ADD);
      all += totals[2 * block + half];
    }
    minimumFactors[block] = -(scales[block] * all);
  }

  /** Numbers as floats: {@code [rows, columns]}. */
  float[] quants() {
    return quants;
  }

  /** {@code [rows, columns / 32]}. */
  float[] scales() {
    return scales;
  }

  /** Sums of the numbers of each 16 columns: {@code [rows, columns / 16]}. */
  int[] totals() {
    return totals;
  }

  /**
   * What a weight's minimum is multiplied with, {@code -(scale · sum of the numbers)}: {@code
   * [rows, columns / 32]}.
   */
  float[] minimumFactors() {
    return minimumFactors;
  }

  int blocks() {
    return blocks;
  }

  int rows() {
    return rows;
  }

  /** The only row as kernels for one row broadcast it. */
  int[] broadcasts() {
    return broadcasts;
  }

  private void broadcast() {
    if (broadcasts.length < 16 * blocks) {
      broadcasts = new int[16 * blocks];
    }
    if (type == WeightType.Q4_0) {
      broadcastForNibbles();
    } else {
      broadcastForBytes();
    }
  }

  /**
   * For every four columns the first and third, then the second and fourth, in the halves of an int
   * each.
   */
  private void broadcastForBytes() {
    for (int i = 0; i < 8 * blocks; i++) {
      broadcasts[2 * i] = pair((int) quants[4 * i], (int) quants[4 * i + 2]);
      broadcasts[2 * i + 1] = pair((int) quants[4 * i + 1], (int) quants[4 * i + 3]);
    }
  }

  /**
   * The kernel multiplies a number of 16 bits {@code n0 + 16·n1 + 256·n2 + 4096·n3}, and what is
   * left of it without its lowest nibble, and so on, without masking the higher ones: their share
   * is taken off the next factor.
   */
  private void broadcastForNibbles() {
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
        broadcasts[to] = pair(a0, b0);
        broadcasts[to + 1] = pair(a1 - 16 * a0, b1 - 16 * b0);
        broadcasts[to + 2] = pair(a2 - 16 * a1, b2 - 16 * b1);
        broadcasts[to + 3] = pair(a3 - 16 * a2, b3 - 16 * b2);
      }
    }
  }

  private static int pair(int low, int high) {
    return (low & 0xffff) | high << 16;
  }

  /** Rows that each block has room for in the machine code's memory, beginning with the rows. */
  int allotted() {
    return allotted;
  }

  /** Where the machine code finds numbers: {@code [blocks, allotted, 32]} bytes. */
  long bytesAddress() {
    return panel.address();
  }

  /** Where it finds scales: {@code [blocks, allotted]} floats. */
  long scalesAddress() {
    return panel.address() + (long) BLOCK * blocks * allotted;
  }

  /**
   * Where it finds, for the given row and those after it, what its sums start at, {@code [blocks,
   * allotted]} ints, two of them side by side in Q6_K; or the factors of minima.
   */
  long startsAddress(int row) {
    return scalesAddress() + 4L * blocks * allotted + startBytes() * row;
  }

  /** From one block's to the next one's. */
  long startsStride() {
    return startBytes() * allotted;
  }

  private long startBytes() {
    return type == WeightType.Q6_K ? 8 : 4;
  }
}

package dev.flotilla.tensor;

import static dev.flotilla.tensor.PackedMatrix.GROUP;
import static dev.flotilla.tensor.PackedMatrix.TILE;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;

/**
 * {@code x · weightᵀ} for weights of 8 and 4 bits: quantises the rows once, then shares out the
 * tiles. Which kernel runs depends on the number of rows and on the machine; the bits do not (see
 * {@link IntegerKernels}).
 */
final class IntegerProducts implements AutoCloseable {

  /** Rows at a time, so that their products stay in L1. */
  private static final int UNIT_CHUNK = 64;

  /** Blocks at a time, for the same reason. */
  private static final int UNIT_BLOCKS = 4;

  /** Rows of a call that multiplies several blocks of few rows. */
  private static final int SPREAD_ROWS = 32;

  /** A thread's own memory. */
  private static final class Scratch {
    private final MemorySegment products;
    private final MemorySegment bytes;
    private final float[] scales = new float[GROUP * TILE];
    private final float[] panel = new float[32 * TILE];
    private float[] sums = new float[TILE];

    Scratch(Arena arena) {
      products = arena.allocate(4L * UNIT_CHUNK * UNIT_BLOCKS * TILE, 64);
      bytes = arena.allocate(32L * TILE * GROUP, 64);
    }

    float[] zeroedSums(int rows) {
      if (sums.length < rows * TILE) {
        sums = new float[rows * TILE];
      } else {
        Arrays.fill(sums, 0, rows * TILE, 0);
      }
      return sums;
    }
  }

  private final Workers workers;
  private final Arena arena = Arena.ofShared();
  private final Scratch[] scratch;
  private final QuantisedRows quantised = new QuantisedRows();

  IntegerProducts(Workers workers) {
    this.workers = workers;
    scratch = new Scratch[workers.threads()];
    for (int i = 0; i < scratch.length; i++) {
      scratch[i] = new Scratch(arena);
    }
  }

  /** Fills {@code result} {@code [rows, out]}. */
  void multiply(Matrix x, PackedMatrix weights, Matrix result) {
    if (x.rows() == 0) {
      return;
    }
    quantised.set(x, workers);
    long multiplications = (long) x.rows() * weights.out() * weights.in();
    workers.each(weights.tileCount(), multiplications, kernel(weights, result));
  }

  private Workers.Work kernel(PackedMatrix weights, Matrix result) {
    int rows = quantised.rows();
    long tiles = weights.tiles().address();
    if (rows == 1) {
      boolean bytes = weights.type() == WeightType.Q8_0;
      int[] x = bytes ? quantised.byteBroadcasts() : quantised.nibbleBroadcasts();
      return (worker, tile) -> {
        long address = tiles + weights.tileOffset(tile);
        float[] sums = scratch[worker].sums;
        if (bytes) {
          IntegerKernels.oneByte(
              address, quantised.blocks(), x, quantised.scales(), weights.unit(), sums);
        } else {
          IntegerKernels.oneNibble(
              address,
              quantised.blocks(),
              x,
              quantised.totals(),
              quantised.scales(),
              weights.unit(),
              sums);
        }
        copy(sums, tile, weights, result);
      };
    }
    if (!MatrixUnit.AVAILABLE) {
      return (worker, tile) -> {
        byVectors(scratch[worker], tiles + weights.tileOffset(tile), weights);
        copy(scratch[worker].sums, tile, weights, result);
      };
    }
    if (rows <= QuantisedRows.FEW) {
      int spread = Math.min(GROUP, Integer.highestOneBit(SPREAD_ROWS / rows));
      long x = quantised.spreadBytes(spread);
      return (worker, tile) -> {
        fewByUnit(scratch[worker], tiles + weights.tileOffset(tile), weights, x, spread);
        copy(scratch[worker].sums, tile, weights, result);
      };
    }
    long x = quantised.unitBytes(workers);
    return (worker, tile) -> {
      manyByUnit(scratch[worker], tiles + weights.tileOffset(tile), weights, x);
      copy(scratch[worker].sums, tile, weights, result);
    };
  }

  private void byVectors(Scratch my, long tile, PackedMatrix weights) {
    int rows = quantised.rows();
    int blocks = quantised.blocks();
    float[] sums = my.zeroedSums(rows);
    for (int first = 0; first < blocks; first += GROUP) {
      int group = Math.min(GROUP, blocks - first);
      long bytes = groupBytes(my, tile, first, group, weights);
      for (int block = 0; block < group; block++) {
        IntegerKernels.bytesToFloats(bytes + 32L * TILE * block, my.panel);
        IntegerKernels.addBlock(
            my.panel,
            quantised.quants(),
            32 * (first + block),
            32 * blocks,
            my.scales,
            TILE * block,
            quantised.scales(),
            first + block,
            blocks,
            rows,
            sums);
      }
    }
  }

  private void fewByUnit(Scratch my, long tile, PackedMatrix weights, long x, int spread) {
    int rows = quantised.rows();
    int blocks = quantised.blocks();
    float[] sums = my.zeroedSums(rows);
    long spreadBytes = 32L * spread * rows * spread;
    for (int first = 0; first < blocks; first += GROUP) {
      int group = Math.min(GROUP, blocks - first);
      long bytes = groupBytes(my, tile, first, group, weights);
      for (int block = 0; block < group; block += spread) {
        int together = Math.min(spread, group - block);
        MatrixUnit.multiply(
            together * rows,
            32 * together,
            x + spreadBytes * ((first + block) / spread),
            bytes + 32L * TILE * block,
            my.products.address());
        IntegerKernels.addProducts(
            my.products.address(),
            together,
            rows,
            my.scales,
            TILE * block,
            quantised.scales(),
            first + block,
            blocks,
            rows,
            sums,
            0);
      }
    }
  }

  private void manyByUnit(Scratch my, long tile, PackedMatrix weights, long x) {
    int rows = quantised.rows();
    int filled = quantised.unitRows();
    int blocks = quantised.blocks();
    float[] sums = my.zeroedSums(rows);
    for (int first = 0; first < blocks; first += GROUP) {
      int group = Math.min(GROUP, blocks - first);
      long bytes = groupBytes(my, tile, first, group, weights);
      for (int row = 0; row < rows; row += UNIT_CHUNK) {
        int chunk = Math.min(UNIT_CHUNK, filled - row);
        for (int block = 0; block < group; block += UNIT_BLOCKS) {
          int together = Math.min(UNIT_BLOCKS, group - block);
          for (int i = 0; i < together; i++) {
            MatrixUnit.multiply(
                chunk,
                32,
                x + 32 * ((long) (first + block + i) * filled + row),
                bytes + 32L * TILE * (block + i),
                my.products.address() + 4L * TILE * chunk * i);
          }
          IntegerKernels.addProducts(
              my.products.address(),
              together,
              chunk,
              my.scales,
              TILE * block,
              quantised.scales(),
              row * blocks + first + block,
              blocks,
              Math.min(UNIT_CHUNK, rows - row),
              sums,
              TILE * row);
        }
      }
    }
  }

  /**
   * Reads a group's scales.
   *
   * @return the address of its numbers as bytes
   */
  private static long groupBytes(
      Scratch my, long tile, int first, int group, PackedMatrix weights) {
    long at = tile + (long) TILE * weights.type().blockBytes() * first;
    IntegerKernels.scales(at, group, weights.unit(), my.scales);
    long numbers = at + 2L * TILE * group;
    if (weights.type() == WeightType.Q8_0) {
      return numbers;
    }
    IntegerKernels.nibblesToBytes(numbers, group, my.bytes.address());
    return my.bytes.address();
  }

  private void copy(float[] sums, int tile, PackedMatrix weights, Matrix result) {
    int first = tile * TILE;
    int valid = Math.min(TILE, weights.out() - first);
    for (int row = 0; row < result.rows(); row++) {
      System.arraycopy(sums, row * TILE, result.values(), row * weights.out() + first, valid);
    }
  }

  /** Frees the memory. */
  @Override
  public void close() {
    arena.close();
  }
}

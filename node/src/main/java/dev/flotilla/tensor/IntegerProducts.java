package dev.flotilla.tensor;

import static dev.flotilla.tensor.PackedMatrix.TILE;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;

/**
 * {@code x · weightᵀ} for weights of 8 and 4 bits: quantises the rows once, then shares out the
 * tiles. Which kernel runs depends on the number of rows and on the machine; the bits do not (see
 * {@link IntegerKernels}).
 */
final class IntegerProducts {

  /** Runs of tiles that a thread has in turns: in a run, memory is read without a gap. */
  private static final int RUNS = 8;

  /** Tiles whose sums fit a thread's memory. */
  private static final int TILES = 32;

  /** Bytes of tiles that are read in one call: no safepoint comes in between. */
  private static final long CALL_BYTES = 1 << 20;

  /** A thread's own memory. */
  private static final class Scratch {
    private final MemorySegment parameters;
    private final MemorySegment unitSums;
    private final float[] scales = new float[TILE];
    private final float[] panel = new float[32 * TILE];
    private MemorySegment bytes = MemorySegment.NULL;
    private float[] sums = new float[TILE];

    Scratch(Arena arena) {
      parameters = arena.allocate(MachineKernels.PARAMETERS, 64);
      unitSums = arena.allocate(4L * MachineKernels.MANY * TILE * TILES, 64);
      MachineKernels.prepare(
          parameters,
          arena.allocate(MachineKernels.SCRATCH_BYTES, MachineKernels.SCRATCH_BYTES),
          unitSums);
    }

    float[] zeroedSums(int rows) {
      if (sums.length < rows * TILE) {
        sums = new float[rows * TILE];
      } else {
        Arrays.fill(sums, 0, rows * TILE, 0);
      }
      return sums;
    }

    /**
     * Blocks of a tile as bytes.
     *
     * @return their address
     */
    long bytes(long blockAddress, int blocks, WeightType type) {
      if (type == WeightType.Q8_0) {
        return blockAddress;
      }
      long size = 34L * TILE * blocks;
      if (bytes.byteSize() < size) {
        bytes = Arena.ofAuto().allocate(size, 64);
      }
      IntegerKernels.nibblesToBytes(blockAddress, blocks, bytes.address());
      return bytes.address();
    }
  }

  private final Workers workers;
  private final Scratch[] scratch;
  private final QuantisedRows quantised = new QuantisedRows();

  /**
   * @param arena owns the threads' memory
   */
  IntegerProducts(Workers workers, Arena arena) {
    this.workers = workers;
    scratch = new Scratch[workers.threads()];
    for (int i = 0; i < scratch.length; i++) {
      scratch[i] = new Scratch(arena);
    }
  }

  /** Gives {@code [rows, out]}. */
  Matrix multiply(Matrix x, PackedMatrix weights) {
    Matrix result = new Matrix(x.rows(), weights.out());
    if (x.rows() == 0) {
      return result;
    }
    quantised.set(x, weights.type(), workers);
    if (MachineKernels.AVAILABLE) {
      for (Scratch my : scratch) {
        MachineKernels.set(my.parameters, weights, quantised);
      }
    }
    int tiles = weights.tileCount();
    int run = Math.max(1, tiles / (RUNS * workers.threads()));
    workers.each(
        (tiles + run - 1) / run,
        (long) x.rows() * weights.out() * weights.in(),
        (worker, item) -> {
          int end = Math.min(tiles, (item + 1) * run);
          multiply(scratch[worker], item * run, end, weights, result);
        });
    return result;
  }

  private void multiply(Scratch my, int first, int end, PackedMatrix weights, Matrix result) {
    int atOnce = 1;
    if (MachineKernels.AVAILABLE && !MachineKernels.byMatrixUnit(result.rows())) {
      atOnce = Math.clamp(CALL_BYTES / weights.tileOffset(1), 1, TILES);
    }
    for (int tile = first; tile < end; tile += atOnce) {
      long address = weights.tiles().address() + weights.tileOffset(tile);
      if (MachineKernels.AVAILABLE) {
        int count = Math.min(atOnce, end - tile);
        byMachineCode(my, address, tile, count, weights, result);
      } else {
        byVectors(my, address, tile, weights, result);
      }
    }
  }

  private void byVectors(Scratch my, long address, int tile, PackedMatrix weights, Matrix result) {
    if (quantised.rows() == 1) {
      oneByVectors(my, address, weights);
    } else {
      byVectors(my, address, weights);
    }
    for (int row = 0; row < result.rows(); row++) {
      System.arraycopy(
          my.sums, row * TILE, result.values(), at(row, tile, weights), valid(tile, weights));
    }
  }

  private void byMachineCode(
      Scratch my, long address, int tile, int tiles, PackedMatrix weights, Matrix result) {
    int rows = quantised.rows();
    boolean wantsBytes = MachineKernels.wantsBytes(rows);
    long from = wantsBytes ? my.bytes(address, quantised.blocks(), weights.type()) : address;
    WeightType type = wantsBytes ? WeightType.Q8_0 : weights.type();
    int atOnce = MachineKernels.atOnce(rows);
    for (int first = 0; first < rows; first += atOnce) {
      int count = Math.min(atOnce, rows - first);
      MachineKernels.multiply(my.parameters, type, from, tiles, quantised, first, count);
      for (int i = 0; i < tiles; i++) {
        copy(my, i * count, first, count, tile + i, weights, result);
      }
    }
  }

  private static void copy(
      Scratch my, int from, int first, int count, int tile, PackedMatrix weights, Matrix result) {
    for (int row = 0; row < count; row++) {
      MemorySegment.copy(
          my.unitSums,
          ValueLayout.JAVA_FLOAT,
          4L * TILE * (from + row),
          result.values(),
          at(first + row, tile, weights),
          valid(tile, weights));
    }
  }

  private void oneByVectors(Scratch my, long address, PackedMatrix weights) {
    if (weights.type() == WeightType.Q8_0) {
      IntegerKernels.oneByte(
          address,
          quantised.blocks(),
          quantised.broadcasts(),
          quantised.scales(),
          weights.unit(),
          my.sums);
    } else {
      IntegerKernels.oneNibble(
          address,
          quantised.blocks(),
          quantised.broadcasts(),
          quantised.totals(),
          quantised.scales(),
          weights.unit(),
          my.sums);
    }
  }

  private void byVectors(Scratch my, long address, PackedMatrix weights) {
    int rows = quantised.rows();
    int blocks = quantised.blocks();
    float[] sums = my.zeroedSums(rows);
    for (int block = 0; block < blocks; block++) {
      long at = address + (long) TILE * weights.type().blockBytes() * block;
      long bytes = my.bytes(at, 1, weights.type());
      IntegerKernels.scales(bytes, weights.unit(), my.scales);
      IntegerKernels.bytesToFloats(bytes + 2L * TILE, my.panel);
      IntegerKernels.addBlock(
          my.panel,
          quantised.quants(),
          32 * block,
          32 * blocks,
          my.scales,
          quantised.scales(),
          block,
          blocks,
          rows,
          sums);
    }
  }

  /** Where a row's elements of a tile begin in the result. */
  private static int at(int row, int tile, PackedMatrix weights) {
    return row * weights.out() + tile * TILE;
  }

  private static int valid(int tile, PackedMatrix weights) {
    return Math.min(TILE, weights.out() - tile * TILE);
  }
}

package dev.flotilla.tensor;

import static dev.flotilla.tensor.PackedMatrix.TILE;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;

/**
 * {@code x · weightᵀ} for quantised weights: quantises the rows once, then shares out the tiles.
 * Which kernel runs depends on the number of rows and on the machine; the bits do not (see {@link
 * IntegerKernels}).
 */
final class IntegerProducts {

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
      unitSums = arena.allocate(4L * MachineKernels.MANY * TILE * MachineKernels.TILES_AT_ONCE, 64);
      MachineKernels.prepare(
          parameters, arena.allocate(MatrixCode.SCRATCH_BYTES, MatrixCode.SCRATCH_BYTES), unitSums);
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
      Conversions.nibblesToBytes(blockAddress, blocks, bytes.address());
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
    int run = MachineKernels.run(tiles, workers.threads());
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
    if (MachineKernels.AVAILABLE && !MachineKernels.byMatrixUnit(weights.type(), result.rows())) {
      atOnce = MachineKernels.tilesAtOnce(weights);
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
    int first = tile * TILE;
    int valid = Math.min(TILE, weights.out() - first);
    for (int row = 0; row < result.rows(); row++) {
      System.arraycopy(my.sums, row * TILE, result.values(), row * weights.out() + first, valid);
    }
  }

  private void byMachineCode(
      Scratch my, long address, int tile, int tiles, PackedMatrix weights, Matrix result) {
    int rows = quantised.rows();
    boolean wantsBytes = MachineKernels.wantsBytes(weights.type(), rows);
    long from = wantsBytes ? my.bytes(address, quantised.blocks(), weights.type()) : address;
    WeightType type = wantsBytes ? WeightType.Q8_0 : weights.type();
    int atOnce = MachineKernels.atOnce(type, rows);
    for (int first = 0; first < rows; first += atOnce) {
      int count = Math.min(atOnce, rows - first);
      MachineKernels.multiply(my.parameters, type, from, tiles, quantised, first, count);
      for (int i = 0; i < tiles; i++) {
        MachineKernels.copySums(my.unitSums, i, first, count, tile + i, weights, result);
      }
    }
  }

  private void oneByVectors(Scratch my, long address, PackedMatrix weights) {
    int blocks = quantised.blocks();
    int[] x = quantised.broadcasts();
    float[] scales = quantised.scales();
    float unit = weights.unit();
    switch (weights.type()) {
      case Q8_0 -> IntegerKernels.oneByte(address, blocks, x, scales, unit, my.sums);
      case Q4_0 ->
          IntegerKernels.oneNibble(address, blocks, x, quantised.totals(), scales, unit, my.sums);
      case Q4_K, Q5_K ->
          IntegerKernels.oneWithMinima(
              weights.type(),
              address,
              blocks,
              x,
              scales,
              quantised.minimumFactors(),
              unit,
              my.sums);
      case Q6_K ->
          IntegerKernels.oneQ6(address, blocks, x, quantised.totals(), scales, unit, my.sums);
      default -> throw new IllegalStateException(weights.type() + " is not quantised");
    }
  }

  private void byVectors(Scratch my, long address, PackedMatrix weights) {
    float[] sums = my.zeroedSums(quantised.rows());
    WeightType type = weights.type();
    for (int block = 0; block < quantised.blocks(); block++) {
      if (type == WeightType.Q8_0 || type == WeightType.Q4_0) {
        long at = address + (long) TILE * type.blockBytes() * block;
        long bytes = my.bytes(at, 1, type);
        Conversions.scales(bytes, weights.unit(), my.scales);
        Conversions.bytesToFloats(bytes + 2L * TILE, my.panel);
        addBlock(my, block, 0, 32, sums);
      } else {
        long head =
            address + (long) PackedMatrix.superBytes(type) * (block / SuperBlocks.SUB_BLOCKS);
        addSubBlock(my, type, head, block, weights.unit(), sums);
      }
    }
  }

  private void addSubBlock(
      Scratch my, WeightType type, long head, int block, float unit, float[] sums) {
    long sub =
        head
            + PackedMatrix.headBytes(type)
            + (long) PackedMatrix.subBytes(type) * (block % SuperBlocks.SUB_BLOCKS);
    Conversions.subBlockToFloats(type, sub, my.panel);
    Conversions.subScales(head, sub, unit, my.scales);
    if (type == WeightType.Q6_K) {
      addBlock(my, block, 0, 16, sums);
      Conversions.subScales(head, sub + TILE, unit, my.scales);
      addBlock(my, block, 16, 16, sums);
    } else {
      addBlock(my, block, 0, 32, sums);
      Conversions.subScales(head + 2L * TILE, sub + TILE, unit, my.scales);
      IntegerKernels.addMinima(
          my.scales, quantised.minimumFactors(), block, quantised.blocks(), quantised.rows(), sums);
    }
  }

  private void addBlock(Scratch my, int block, int firstColumn, int columns, float[] sums) {
    int blocks = quantised.blocks();
    IntegerKernels.addBlock(
        my.panel,
        firstColumn,
        columns,
        quantised.quants(),
        32 * block + firstColumn,
        32 * blocks,
        my.scales,
        quantised.scales(),
        block,
        blocks,
        quantised.rows(),
        sums);
  }
}

package dev.flotilla.tensor;

import static dev.flotilla.tensor.PackedMatrix.TILE;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;

/**
 * {@code x · weightᵀ} for weights of F32, F16 and BF16: shares out the tiles. Which kernel runs
 * depends on the number of rows and on the machine; the bits do not (see {@link Kernels}).
 */
final class PlainProducts {

  /** Columns decoded at a time when several rows share them: 16 KiB, so they stay in L1. */
  private static final int PANEL_COLUMNS = 128;

  /** A thread's own memory. */
  private static final class Scratch {
    private final MemorySegment parameters;
    private final MemorySegment machineSums;
    private final MemorySegment panel;
    private float[] sums = new float[0];

    Scratch(Arena arena) {
      parameters = arena.allocate(MachineKernels.PARAMETERS, 64);
      machineSums =
          arena.allocate(4L * MachineKernels.FEW * TILE * MachineKernels.TILES_AT_ONCE, 64);
      MachineKernels.prepare(parameters, MemorySegment.NULL, machineSums);
      panel = arena.allocate(4L * PANEL_COLUMNS * TILE, 64);
    }

    float[] zeroedSums(int length) {
      if (sums.length < length) {
        sums = new float[length];
      } else {
        Arrays.fill(sums, 0, length, 0);
      }
      return sums;
    }
  }

  private final Workers workers;
  private final Scratch[] scratch;
  private MemorySegment columns = MemorySegment.NULL;

  /**
   * @param arena owns the threads' memory
   */
  PlainProducts(Workers workers, Arena arena) {
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
    if (MachineKernels.AVAILABLE) {
      place(x);
    }
    int tiles = weights.tileCount();
    int run = MachineKernels.run(tiles, workers.threads());
    workers.each(
        (tiles + run - 1) / run,
        (long) x.rows() * weights.out() * weights.in(),
        (worker, item) -> {
          int end = Math.min(tiles, (item + 1) * run);
          if (MachineKernels.AVAILABLE) {
            byMachineCode(scratch[worker], item * run, end, weights, result);
          } else {
            for (int tile = item * run; tile < end; tile++) {
              byVectors(scratch[worker], tile, x, weights, result);
            }
          }
        });
    return result;
  }

  /** Puts the rows where the machine code reads them: some of them at once, column by column. */
  private void place(Matrix x) {
    long size = 4L * x.values().length;
    if (columns.byteSize() < size) {
      columns = Arena.ofAuto().allocate(size, 64);
    }
    int width = x.width();
    for (int first = 0; first < x.rows(); first += MachineKernels.FEW) {
      int count = Math.min(MachineKernels.FEW, x.rows() - first);
      for (int row = 0; row < count; row++) {
        long to = address(first, width) + 4L * row;
        int from = (first + row) * width;
        for (int column = 0; column < width; column++) {
          Conversions.set(
              to + 4L * count * column, Float.floatToRawIntBits(x.values()[from + column]));
        }
      }
    }
  }

  private long address(int row, int width) {
    return columns.address() + 4L * row * width;
  }

  private void byMachineCode(
      Scratch my, int firstTile, int end, PackedMatrix weights, Matrix result) {
    int rows = result.rows();
    int atOnce = MachineKernels.tilesAtOnce(weights);
    for (int tile = firstTile; tile < end; tile += atOnce) {
      long from = weights.tiles().address() + weights.tileOffset(tile);
      int tiles = Math.min(atOnce, end - tile);
      for (int first = 0; first < rows; first += MachineKernels.FEW) {
        int count = Math.min(MachineKernels.FEW, rows - first);
        MachineKernels.multiplyPlain(
            my.parameters, weights, from, tiles, address(first, weights.in()), count);
        for (int i = 0; i < tiles; i++) {
          MachineKernels.copySums(my.machineSums, i, first, count, tile + i, weights, result);
        }
      }
    }
  }

  private static void byVectors(
      Scratch my, int tile, Matrix x, PackedMatrix weights, Matrix result) {
    int rows = x.rows();
    int in = weights.in();
    float[] sums = my.zeroedSums(rows * TILE);
    long offset = weights.tileOffset(tile);
    MemorySegment tiles = weights.tiles();
    switch (weights.type()) {
      case F32 -> Kernels.addTile(tiles, offset, in, x.values(), 0, in, rows, sums, 0, TILE);
      case F16, BF16 -> {
        if (rows == 1 && weights.type() == WeightType.F16) {
          Kernels.oneF16(tiles, offset, in, x.values(), 0, sums, 0);
        } else {
          byDecoded(my, offset, x, weights, sums);
        }
      }
      default -> throw new IllegalStateException(weights.type() + " is multiplied as integers");
    }
    int first = tile * TILE;
    int valid = Math.min(TILE, weights.out() - first);
    for (int row = 0; row < rows; row++) {
      System.arraycopy(sums, row * TILE, result.values(), row * weights.out() + first, valid);
    }
  }

  /** Decodes each weight once for all rows; the bits are those of decoding it for each. */
  private static void byDecoded(
      Scratch my, long offset, Matrix x, PackedMatrix weights, float[] sums) {
    int in = weights.in();
    for (int column = 0; column < in; column += PANEL_COLUMNS) {
      int count = Math.min(PANEL_COLUMNS, in - column);
      if (weights.type() == WeightType.F16) {
        Kernels.decodeF16(weights.tiles(), offset, column, count, my.panel);
      } else {
        Kernels.decodeBf16(weights.tiles(), offset, column, count, my.panel);
      }
      Kernels.addTile(my.panel, 0, count, x.values(), column, in, x.rows(), sums, 0, TILE);
    }
  }
}

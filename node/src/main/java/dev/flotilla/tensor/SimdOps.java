package dev.flotilla.tensor;

import static dev.flotilla.tensor.PackedMatrix.TILE;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;

/**
 * The arithmetic of a decoder on this machine's vector unit, for serving: no gradients, weights
 * packed outside the heap.
 *
 * <p>A row's bits depend on nothing but the row, the weights and its position: see {@link Kernels}.
 * Driven by one thread at a time, which takes part in the work.
 */
public final class SimdOps implements Ops<Matrix, Weights>, AutoCloseable {

  /** Columns decoded at a time when several rows share them: 16 KiB, so they stay in L1. */
  private static final int PANEL_COLUMNS = 128;

  private final Workers workers;
  private final Arena arena = Arena.ofShared();
  private final MemorySegment[] panels;
  private final float[][] sums;
  private RopeTable ropeTable = new RopeTable(0, 0, new int[0]);

  /**
   * @param threads how many threads compute, the caller's among them
   */
  public SimdOps(int threads) {
    workers = new Workers(threads);
    panels = new MemorySegment[threads];
    sums = new float[threads][0];
    for (int i = 0; i < threads; i++) {
      panels[i] = arena.allocate(4L * PANEL_COLUMNS * TILE, 64);
    }
  }

  Workers workers() {
    return workers;
  }

  @Override
  public Matrix embed(Weights table, int[] tokens) {
    PackedMatrix packed = matrix(table);
    Matrix result = new Matrix(tokens.length, packed.in());
    for (int row = 0; row < tokens.length; row++) {
      packed.unpackRow(tokens[row], result.values(), row * packed.in());
    }
    return result;
  }

  @Override
  public Matrix linear(Matrix x, Weights weight) {
    PackedMatrix packed = matrix(weight);
    requireWidth(x, packed.in());
    Matrix result = new Matrix(x.rows(), packed.out());
    if (x.rows() > 0) {
      long multiplications = (long) x.rows() * packed.out() * packed.in();
      workers.each(
          packed.tileCount(),
          multiplications,
          (worker, tile) -> multiplyTile(worker, tile, x, packed, result));
    }
    return result;
  }

  private void multiplyTile(int worker, int tile, Matrix x, PackedMatrix packed, Matrix result) {
    int rows = x.rows();
    float[] scratch = sums(worker, rows * TILE);
    long offset = packed.tileOffset(tile);
    MemorySegment tiles = packed.tiles();
    int in = packed.in();
    switch (packed.type()) {
      case F32 -> {
        Arrays.fill(scratch, 0, rows * TILE, 0);
        Kernels.addTile(tiles, offset, in, x.values(), 0, in, rows, scratch, 0, TILE);
      }
      case F16 -> {
        if (rows == 1) {
          Kernels.oneF16(tiles, offset, in, x.values(), 0, scratch, 0);
        } else {
          multiplyDecoded(worker, tiles, offset, x, packed.type(), scratch);
        }
      }
      case Q8_0 -> {
        if (rows == 1) {
          Kernels.oneQ8(tiles, offset, in, x.values(), 0, scratch, 0);
        } else {
          multiplyDecoded(worker, tiles, offset, x, packed.type(), scratch);
        }
      }
    }
    int first = tile * TILE;
    int valid = Math.min(TILE, packed.out() - first);
    for (int row = 0; row < rows; row++) {
      System.arraycopy(scratch, row * TILE, result.values(), row * packed.out() + first, valid);
    }
  }

  /** Decodes each weight once for all rows; the bits are those of decoding it for each. */
  private void multiplyDecoded(
      int worker, MemorySegment tiles, long offset, Matrix x, WeightType type, float[] scratch) {
    MemorySegment panel = panels[worker];
    int in = x.width();
    Arrays.fill(scratch, 0, x.rows() * TILE, 0);
    for (int column = 0; column < in; column += PANEL_COLUMNS) {
      int columns = Math.min(PANEL_COLUMNS, in - column);
      if (type == WeightType.F16) {
        Kernels.decodeF16(tiles, offset, column, columns, panel);
      } else {
        Kernels.decodeQ8(tiles, offset, column, columns, panel);
      }
      Kernels.addTile(panel, 0, columns, x.values(), column, in, x.rows(), scratch, 0, TILE);
    }
  }

  private float[] sums(int worker, int length) {
    if (sums[worker].length < length) {
      sums[worker] = new float[length];
    }
    return sums[worker];
  }

  @Override
  public Matrix rmsNorm(Matrix x, Weights gain, float epsilon) {
    float[] factors = ((Gain) gain).values();
    int width = x.width();
    requireWidth(x, factors.length);
    float[] in = x.values();
    Matrix result = new Matrix(x.rows(), width);
    float[] out = result.values();
    for (int row = 0; row < x.rows(); row++) {
      int first = row * width;
      float mean = Kernels.sumOfSquares(in, first, width) / width;
      float scale = 1 / (float) Math.sqrt(mean + epsilon);
      for (int i = 0; i < width; i++) {
        out[first + i] = in[first + i] * scale * factors[i];
      }
    }
    return result;
  }

  @Override
  public Matrix rope(Matrix x, int headWidth, int[] positions, float theta) {
    if (positions.length != x.rows() || x.width() % headWidth != 0 || headWidth % 2 != 0) {
      throw new IllegalArgumentException(
          positions.length + " positions, head width " + headWidth + " for " + shape(x));
    }
    if (!ropeTable.isFor(headWidth, theta, positions)) {
      ropeTable = new RopeTable(headWidth, theta, positions.clone());
    }
    Matrix result = new Matrix(x.rows(), x.width());
    ropeTable.rotate(x.values(), result.values(), x.width());
    return result;
  }

  @Override
  public Matrix swiGlu(Matrix gate, Matrix up) {
    requireSameShape(gate, up);
    Matrix result = new Matrix(gate.rows(), gate.width());
    float[] g = gate.values();
    float[] u = up.values();
    float[] out = result.values();
    int count = out.length;
    System.arraycopy(g, 0, out, 0, count);
    Kernels.expAll(out, 0, count, -1, 0);
    for (int i = 0; i < count; i++) {
      out[i] = g[i] / (1 + out[i]) * u[i];
    }
    return result;
  }

  @Override
  public Matrix add(Matrix a, Matrix b) {
    requireSameShape(a, b);
    Matrix result = new Matrix(a.rows(), a.width());
    float[] x = a.values();
    float[] y = b.values();
    float[] out = result.values();
    for (int i = 0; i < out.length; i++) {
      out[i] = x[i] + y[i];
    }
    return result;
  }

  /** Ends the threads and frees the scratch memory. */
  @Override
  public void close() {
    workers.close();
    arena.close();
  }

  private static PackedMatrix matrix(Weights weights) {
    return (PackedMatrix) weights;
  }

  private static void requireWidth(Matrix x, int width) {
    if (x.width() != width) {
      throw new IllegalArgumentException("width " + width + " wanted, got " + shape(x));
    }
  }

  private static void requireSameShape(Matrix a, Matrix b) {
    if (a.rows() != b.rows() || a.width() != b.width()) {
      throw new IllegalArgumentException(shape(a) + " and " + shape(b));
    }
  }

  private static String shape(Matrix x) {
    return "[" + x.rows() + ", " + x.width() + "]";
  }
}

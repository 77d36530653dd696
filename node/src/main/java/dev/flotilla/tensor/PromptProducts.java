package dev.flotilla.tensor;

import static dev.flotilla.tensor.PackedMatrix.TILE;
import static dev.flotilla.tensor.PromptKernels.BLOCK;
import static dev.flotilla.tensor.PromptKernels.BLOCK_BYTES;
import static dev.flotilla.tensor.PromptKernels.ROWS;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/**
 * {@code x · weightᵀ} for a prompt's rows by {@link PromptKernels}. Blocked so that the rows that
 * are worked on, and a decoded tile of weights, stay in a core's second-level cache.
 */
final class PromptProducts implements AutoCloseable {

  /** Columns of a tile that are decoded at a time, in blocks. */
  private static final int PANEL_BLOCKS = 64;

  /** Rows that a decoded tile is used for. */
  private static final int PANEL_ROWS = 256;

  /** What rounding an element costs, in multiplications. */
  private static final long WORK = 8;

  /** A thread's own memory. */
  private static final class Scratch {
    private final MemorySegment parameters;
    private final MemorySegment panel;
    private final float[] sums = new float[ROWS * TILE];

    Scratch(Arena arena) {
      parameters = arena.allocate(PromptKernels.PARAMETERS, 64);
      panel = arena.allocate((long) BLOCK_BYTES * PANEL_BLOCKS, 64);
      PromptKernels.prepare(parameters);
    }
  }

  private final Workers workers;
  private final Arena arena = Arena.ofShared();
  private final Scratch[] scratch;

  /** Rows in bf16: {@code [rows / 32, columns / 32, 32, 32]}. */
  private MemorySegment left = MemorySegment.NULL;

  PromptProducts(Workers workers) {
    this.workers = workers;
    scratch = new Scratch[workers.threads()];
    for (int i = 0; i < scratch.length; i++) {
      scratch[i] = new Scratch(arena);
    }
  }

  /** Fills {@code result} {@code [rows, out]}. */
  void multiply(Matrix x, PackedMatrix weights, Matrix result) {
    int rows = x.rows();
    int blocks = x.width() / BLOCK;
    long size = (long) BLOCK_BYTES * blocks * ((rows + ROWS - 1) / ROWS);
    if (left.byteSize() < size) {
      left = Arena.ofAuto().allocate(size, 64);
    }
    workers.each(
        rows,
        WORK * rows * x.width(),
        (_, row) -> {
          long to = left(row / ROWS, 0, blocks) + 2L * BLOCK * (row % ROWS);
          for (int block = 0; block < blocks; block++) {
            IntegerKernels.toBf16(
                x.values(), row * x.width() + BLOCK * block, to + (long) BLOCK_BYTES * block);
          }
        });
    for (int row = 0; row < rows; row += PANEL_ROWS) {
      for (int block = 0; block < blocks; block += PANEL_BLOCKS) {
        int firstRow = row;
        int firstBlock = block;
        int endRow = Math.min(rows, row + PANEL_ROWS);
        int count = Math.min(PANEL_BLOCKS, blocks - block);
        workers.each(
            weights.tileCount(),
            (long) (endRow - row) * count * BLOCK * weights.out(),
            (worker, tile) ->
                multiply(
                    scratch[worker], tile, firstRow, endRow, firstBlock, count, weights, result));
      }
    }
  }

  private void multiply(
      Scratch my,
      int tile,
      int firstRow,
      int endRow,
      int firstBlock,
      int count,
      PackedMatrix weights,
      Matrix result) {
    int blocks = weights.in() / BLOCK;
    long from =
        weights.tiles().address()
            + weights.tileOffset(tile)
            + (long) TILE * weights.type().blockBytes() * firstBlock;
    PromptKernels.decode(my.parameters, weights, from, count, my.panel.address());
    int valid = Math.min(TILE, weights.out() - tile * TILE);
    MemorySegment values = MemorySegment.ofArray(result.values());
    for (int row = firstRow; row < endRow; row += ROWS) {
      int rows = Math.min(ROWS, endRow - row);
      int at = row * weights.out() + tile * TILE;
      boolean whole = valid == TILE;
      if (!whole) {
        copy(result.values(), at, weights.out(), my.sums, 0, TILE, rows, valid);
      }
      PromptKernels.multiply(
          my.parameters,
          rows,
          left(row / ROWS, firstBlock, blocks),
          count,
          my.panel.address(),
          firstBlock > 0,
          whole ? values.asSlice(4L * at) : MemorySegment.ofArray(my.sums),
          whole ? 4L * weights.out() : 4L * TILE);
      if (!whole) {
        copy(my.sums, 0, TILE, result.values(), at, weights.out(), rows, valid);
      }
    }
  }

  private static void copy(
      float[] from, int at, int stride, float[] to, int toAt, int toStride, int rows, int count) {
    for (int row = 0; row < rows; row++) {
      System.arraycopy(from, at + row * stride, to, toAt + row * toStride, count);
    }
  }

  private long left(int rowBlock, int block, int blocks) {
    return left.address() + BLOCK_BYTES * ((long) rowBlock * blocks + block);
  }

  /** Frees the memory. */
  @Override
  public void close() {
    arena.close();
  }
}

package dev.flotilla.tensor;

import static dev.flotilla.tensor.PackedMatrix.TILE;
import static dev.flotilla.tensor.PromptKernels.BLOCK;
import static dev.flotilla.tensor.PromptKernels.BLOCK_BYTES;
import static dev.flotilla.tensor.PromptKernels.ROWS;
import static dev.flotilla.tensor.PromptKernels.SUMS_BYTES;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.List;

/**
 * {@code x · weightᵀ} for a prompt's rows by {@link PromptKernels}. Blocked so that the rows that
 * are worked on stay in a core's second-level cache, and what is decoded of the weights in its
 * first. A feed-forward part's inner activations are made from the sums of its two products while
 * these are in the cache, and never leave bf16.
 */
final class PromptProducts {

  /** Columns that are worked on for all tiles before the next ones, in blocks. */
  private static final int PANEL_BLOCKS = 64;

  /** Columns of a tile that are decoded at a time, in blocks: 16 KiB. */
  private static final int CHUNK_BLOCKS = 8;

  /** Rows that decoded columns are used for. */
  private static final int PANEL_ROWS = 256;

  /** What rounding an element costs, in multiplications. */
  private static final long WORK = 8;

  /** A thread's own memory. */
  private static final class Scratch {
    private final MemorySegment parameters;
    private final MemorySegment chunk;
    private final MemorySegment sums;
    private final float[] gate = new float[ROWS * TILE];
    private final float[] up = new float[ROWS * TILE];
    private final float[] power = new float[ROWS * TILE];

    Scratch(Arena arena) {
      parameters = arena.allocate(PromptKernels.PARAMETERS, 64);
      chunk = arena.allocate((long) BLOCK_BYTES * CHUNK_BLOCKS, 64);
      sums = arena.allocate(2L * SUMS_BYTES * (PANEL_ROWS / ROWS), 64);
      PromptKernels.prepare(parameters);
    }
  }

  /** Memory that grows. */
  private static final class Growing {
    private MemorySegment memory = MemorySegment.NULL;

    long address(long size) {
      if (memory.byteSize() < size) {
        memory = Arena.ofAuto().allocate(size, 64);
      }
      return memory.address();
    }
  }

  /** What becomes of the sums of a tile's products with some rows, up to 32 of them. */
  @FunctionalInterface
  private interface Finish {

    /**
     * @param sums address of {@code [32, 32]} sums of the first matrix
     * @param next how much further those of the second lie
     */
    void run(Scratch my, int tile, int firstRow, int rows, long sums, long next);
  }

  private final Workers workers;
  private final Scratch[] scratch;
  private final Growing input = new Growing();
  private final Growing inner = new Growing();
  private final Growing stored = new Growing();

  /**
   * @param arena owns the threads' memory
   */
  PromptProducts(Workers workers, Arena arena) {
    this.workers = workers;
    scratch = new Scratch[workers.threads()];
    for (int i = 0; i < scratch.length; i++) {
      scratch[i] = new Scratch(arena);
    }
  }

  /**
   * A product with one matrix.
   *
   * @return {@code [rows, out]}
   */
  Matrix multiply(Matrix x, PackedMatrix weights) {
    return multiply(rounded(x), x.rows(), weights);
  }

  /**
   * A feed-forward part.
   *
   * @return {@code [rows, down.out]}
   */
  Matrix feedForward(Matrix x, Ops.FeedForward<PackedMatrix> part, Ops.Gate gate) {
    int blocks = part.down().in() / BLOCK;
    long to = inner.address(bytes(x.rows(), blocks));
    run(
        rounded(x),
        x.rows(),
        List.of(part.gate(), part.up()),
        (my, tile, firstRow, rows, sums, next) -> {
          Conversions.copy(sums, my.gate, 0, ROWS * TILE);
          Conversions.copy(sums + next, my.up, 0, ROWS * TILE);
          Gates.apply(gate, my.gate, my.up, my.power, 0, ROWS * TILE);
          long block = place(to, firstRow, tile, blocks);
          for (int row = 0; row < rows; row++) {
            Conversions.toBf16(my.power, TILE * row, block + 2L * BLOCK * row);
          }
        });
    return multiply(to, x.rows(), part.down());
  }

  /** Rows in bf16: {@code [rows / 32, columns / 32, 32, 32]}. */
  private long rounded(Matrix x) {
    int blocks = x.width() / BLOCK;
    long to = input.address(bytes(x.rows(), blocks));
    workers.each(
        x.rows(),
        WORK * x.rows() * x.width(),
        (_, row) -> {
          for (int block = 0; block < blocks; block++) {
            Conversions.toBf16(
                x.values(),
                row * x.width() + BLOCK * block,
                place(to, row, block, blocks) + 2L * BLOCK * (row % ROWS));
          }
        });
    return to;
  }

  private Matrix multiply(long left, int rows, PackedMatrix weights) {
    Matrix result = new Matrix(rows, weights.out());
    run(
        left,
        rows,
        List.of(weights),
        (_, tile, firstRow, count, sums, _) -> {
          int valid = Math.min(TILE, weights.out() - tile * TILE);
          for (int row = 0; row < count; row++) {
            int at = (firstRow + row) * weights.out() + tile * TILE;
            Conversions.copy(sums + 4L * TILE * row, result.values(), at, valid);
          }
        });
    return result;
  }

  /** Multiplies rows with matrices of the same shape. */
  private void run(long left, int rows, List<PackedMatrix> weights, Finish finish) {
    PackedMatrix first = weights.getFirst();
    int blocks = first.in() / BLOCK;
    int tiles = first.tileCount();
    long perTile = (long) SUMS_BYTES * (PANEL_ROWS / ROWS);
    boolean inPieces = blocks > PANEL_BLOCKS;
    long kept = inPieces ? stored.address(perTile * tiles * weights.size()) : 0;
    for (int row = 0; row < rows; row += PANEL_ROWS) {
      for (int block = 0; block < blocks; block += PANEL_BLOCKS) {
        int firstRow = row;
        int endRow = Math.min(rows, row + PANEL_ROWS);
        int firstBlock = block;
        int endBlock = Math.min(blocks, block + PANEL_BLOCKS);
        workers.each(
            tiles,
            (long) weights.size() * (endRow - row) * (endBlock - block) * BLOCK * first.out(),
            (worker, tile) -> {
              Scratch my = scratch[worker];
              long sums = inPieces ? kept + perTile * tile * weights.size() : my.sums.address();
              for (int i = 0; i < weights.size(); i++) {
                int rowBlocks = (endRow - firstRow + ROWS - 1) / ROWS;
                long from = place(left, firstRow, 0, blocks);
                multiply(
                    my,
                    weights.get(i),
                    tile,
                    from,
                    rowBlocks,
                    firstBlock,
                    endBlock,
                    sums + i * perTile);
              }
              for (int r = firstRow; endBlock == blocks && r < endRow; r += ROWS) {
                long at = sums + (long) SUMS_BYTES * ((r - firstRow) / ROWS);
                finish.run(my, tile, r, Math.min(ROWS, endRow - r), at, perTile);
              }
            });
      }
    }
  }

  private static void multiply(
      Scratch my,
      PackedMatrix weights,
      int tile,
      long left,
      int rowBlocks,
      int firstBlock,
      int endBlock,
      long sums) {
    int blocks = weights.in() / BLOCK;
    long address = weights.tiles().address() + weights.tileOffset(tile);
    for (int block = firstBlock; block < endBlock; block += CHUNK_BLOCKS) {
      int count = Math.min(CHUNK_BLOCKS, endBlock - block);
      PromptKernels.decode(my.parameters, weights, address, block, count, my.chunk.address());
      PromptKernels.multiply(
          my.parameters,
          left + (long) BLOCK_BYTES * block,
          (long) BLOCK_BYTES * blocks,
          rowBlocks,
          count,
          my.chunk.address(),
          block > 0,
          sums);
    }
  }

  private static long bytes(int rows, int blocks) {
    return (long) BLOCK_BYTES * blocks * ((rows + ROWS - 1) / ROWS);
  }

  /** Where a block of rows in bf16 begins. */
  private static long place(long left, int row, int block, int blocks) {
    return left + BLOCK_BYTES * ((long) (row / ROWS) * blocks + block);
  }
}

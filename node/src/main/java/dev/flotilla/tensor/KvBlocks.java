package dev.flotilla.tensor;

import static dev.flotilla.tensor.PackedMatrix.TILE;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.util.Arrays;

/**
 * Keys and values in blocks of 32 positions, and attention over a list of such blocks.
 *
 * <p>A block is laid out as {@link KvLayout} says, so that both products of attention are {@link
 * Kernels#addTile} over its tiles, decoded where they are not plain. Each score and each element of
 * the result is one chain in a fixed order, and a row's result does not depend on the rows beside
 * it nor on when its keys and values came in.
 *
 * <p>Rows that follow one another and have the same list are worked on together, so that a tile is
 * decoded once for several of them.
 *
 * <p>Blocks are allocated at their first use and kept; which sequence owns which block is the
 * caller's business.
 */
public final class KvBlocks implements AutoCloseable {

  /** Positions of a block. */
  public static final int POSITIONS = TILE;

  /** Rows of one sequence that are worked on together. */
  private static final int BUNDLE = 32;

  /** The same where there are many scores to keep for each. */
  private static final int BUNDLE_FAR = 8;

  /** Scores of a bundle beyond which it is a small one: 1 MiB. */
  private static final int SCORES = 1 << 18;

  private final SimdOps ops;
  private final KvLayout layout;
  private final int heads;
  private final int kvHeads;
  private final int headWidth;
  private final int valueTiles;
  private final Arena arena = Arena.ofShared();
  private final MemorySegment[] blocks;
  private final Scratch[] scratch;

  /** What one thread works in. */
  private static final class Scratch {
    final MemorySegment plain;
    final float[] queries;
    final float[] sums;
    float[] scores = new float[0];

    Scratch(MemorySegment plain, int queries, int sums) {
      this.plain = plain;
      this.queries = new float[queries];
      this.sums = new float[sums];
    }

    /** That many zeros. */
    float[] scores(int length) {
      if (scores.length < length) {
        scores = new float[length + length / 4];
      } else {
        Arrays.fill(scores, 0, length, 0);
      }
      return scores;
    }
  }

  /**
   * @param heads of queries
   * @param capacity how many blocks there may be
   */
  public KvBlocks(SimdOps ops, KvLayout layout, int heads, int capacity) {
    if (heads % layout.kvHeads() != 0) {
      throw new IllegalArgumentException(heads + " heads, " + layout.kvHeads() + " kv heads");
    }
    this.ops = ops;
    this.layout = layout;
    this.heads = heads;
    this.kvHeads = layout.kvHeads();
    this.headWidth = layout.headWidth();
    this.valueTiles = layout.valueTiles();
    this.blocks = new MemorySegment[capacity];
    Arrays.fill(blocks, MemorySegment.NULL);
    int rows = BUNDLE * (heads / kvHeads);
    this.scratch = new Scratch[ops.workers().threads()];
    for (int i = 0; i < scratch.length; i++) {
      scratch[i] =
          new Scratch(
              arena.allocate(4L * TILE * TILE * valueTiles, 64),
              rows * headWidth,
              rows * valueTiles * TILE);
    }
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
      blocks[block] = arena.allocate(layout.blockBytes(), 64);
    }
    MemorySegment memory = blocks[block];
    for (int head = 0; head < kvHeads; head++) {
      int from = (row * kvHeads + head) * headWidth;
      writeKey(memory, layout.keys(layer, head), slot, key.values(), from);
      for (int tile = 0; tile < valueTiles; tile++) {
        int count = Math.min(TILE, headWidth - tile * TILE);
        long at = layout.values(layer, head, tile);
        writeValues(memory, at, slot, value.values(), from + tile * TILE, count);
      }
    }
  }

  private void writeKey(MemorySegment memory, long tile, int slot, float[] key, int from) {
    switch (layout.type()) {
      case F32 -> {
        for (int i = 0; i < headWidth; i++) {
          memory.set(KvKernels.FLOAT, tile + 4L * (slot + TILE * i), key[from + i]);
        }
      }
      case F16 -> {
        for (int i = 0; i < headWidth; i++) {
          KvKernels.putHalf(memory, tile + 2L * (slot + TILE * i), key[from + i]);
        }
      }
      case Q8_0 -> {
        for (int i = 0; i < headWidth; i += TILE) {
          long square = tile + (long) KvLayout.SQUARE_BYTES * (i / TILE);
          int count = Math.min(TILE, headWidth - i);
          long quants = square + 2L * TILE + slot;
          KvKernels.putQuants(memory, square + 2L * slot, quants, TILE, key, from + i, count);
        }
      }
    }
  }

  private void writeValues(
      MemorySegment memory, long tile, int slot, float[] values, int from, int count) {
    switch (layout.type()) {
      case F32 -> {
        for (int i = 0; i < count; i++) {
          memory.set(KvKernels.FLOAT, tile + 4L * (slot * TILE + i), values[from + i]);
        }
      }
      case F16 -> {
        for (int i = 0; i < count; i++) {
          KvKernels.putHalf(memory, tile + 2L * (slot * TILE + i), values[from + i]);
        }
      }
      case Q8_0 -> {
        long quants = tile + 2L * TILE + (long) TILE * slot;
        KvKernels.putQuants(memory, tile + 2L * slot, quants, 1, values, from, count);
      }
    }
  }

  /**
   * Reads what some layers keep in a block that has been written to, as it lies in memory.
   *
   * @param layer the first, counted from 0 in this cache
   * @param count how many layers
   * @param to takes up {@code count} times {@link KvLayout#layerBytes()}
   */
  public void read(int block, int layer, int count, ByteBuffer to) {
    MemorySegment layers = layers(block, layer, count);
    MemorySegment.ofBuffer(to).copyFrom(layers);
    to.position(to.position() + (int) layers.byteSize());
  }

  /**
   * Writes what some layers are to keep in a block: what {@link #read} gave, of this or of another
   * cache of the same shape and type.
   *
   * @param layer the first, counted from 0 in this cache
   * @param count how many layers
   * @param from has {@code count} times {@link KvLayout#layerBytes()}
   */
  public void write(int block, int layer, int count, ByteBuffer from) {
    if (blocks[block].byteSize() == 0) {
      blocks[block] = arena.allocate(layout.blockBytes(), 64);
    }
    layers(block, layer, count).copyFrom(MemorySegment.ofBuffer(from));
  }

  private MemorySegment layers(int block, int layer, int count) {
    long bytes = layout.layerBytes();
    return blocks[block].asSlice(bytes * layer, bytes * count);
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
    int[] firsts = bundles(tables, lengths);
    ops.workers()
        .each(
            (firsts.length - 1) * kvHeads,
            multiplications,
            (worker, item) -> {
              int first = firsts[item / kvHeads];
              int rows = firsts[item / kvHeads + 1] - first;
              new Group(scratch[worker], layer, item % kvHeads, scoring, first, rows)
                  .attend(query, tables[first], lengths, result);
            });
    return result;
  }

  /** The first row of each bundle, and the number of rows. */
  private int[] bundles(int[][] tables, int[] lengths) {
    int[] firsts = new int[tables.length + 1];
    int far = SCORES / (BUNDLE * (heads / kvHeads));
    int count = 0;
    int first = 0;
    for (int row = 1; row <= tables.length; row++) {
      if (row == tables.length
          || !Arrays.equals(tables[row], tables[first])
          || row - first >= (lengths[row] > far ? BUNDLE_FAR : BUNDLE)) {
        firsts[count++] = first;
        first = row;
      }
    }
    firsts[count] = tables.length;
    return Arrays.copyOf(firsts, count + 1);
  }

  /** The query heads that share a key-value head, of some rows of one sequence. */
  private final class Group {
    private final Scratch scratch;
    private final int layer;
    private final int kvHead;
    private final Scoring scoring;
    private final int firstRow;
    private final int rows;
    private final int perRow = heads / kvHeads;

    Group(Scratch scratch, int layer, int kvHead, Scoring scoring, int firstRow, int rows) {
      this.scratch = scratch;
      this.layer = layer;
      this.kvHead = kvHead;
      this.scoring = scoring;
      this.firstRow = firstRow;
      this.rows = rows;
    }

    private int start(int length) {
      return scoring.window() == 0 ? 0 : Math.max(0, length - scoring.window());
    }

    /** Blocks before all windows cost nothing: the sums begin at a window's first position. */
    void attend(Matrix query, int[] table, int[] lengths, Matrix result) {
      int skippedBlocks = start(least(lengths)) / TILE;
      int blockCount = (most(lengths) + TILE - 1) / TILE - skippedBlocks;
      int skipped = skippedBlocks * TILE;
      int stride = blockCount * TILE;
      float[] score = scratch.scores(rows * perRow * stride);
      int column = kvHead * perRow * headWidth;
      for (int r = 0; r < rows; r++) {
        int from = (firstRow + r) * query.width() + column;
        int count = perRow * headWidth;
        System.arraycopy(query.values(), from, scratch.queries, r * count, count);
      }
      for (int i = 0; i < blockCount; i++) {
        addScores(blocks[table[skippedBlocks + i]], score, i * TILE, stride);
      }
      for (int r = 0; r < rows; r++) {
        int start = start(lengths[firstRow + r]);
        for (int i = r * perRow; i < (r + 1) * perRow; i++) {
          int seen = lengths[firstRow + r] - start;
          softmaxNumerators(score, i * stride + start - skipped, seen, scoring);
        }
      }
      Arrays.fill(scratch.sums, 0);
      for (int i = 0; i < blockCount; i++) {
        addValues(
            blocks[table[skippedBlocks + i]], score, i * TILE, stride, skipped + i * TILE, lengths);
      }
      for (int r = 0; r < rows; r++) {
        int start = start(lengths[firstRow + r]);
        int to = (firstRow + r) * query.width() + column;
        for (int i = 0; i < perRow; i++) {
          int group = r * perRow + i;
          int first = group * stride + start - skipped;
          float total = Kernels.sum(score, first, lengths[firstRow + r] - start);
          for (int j = 0; j < headWidth; j++) {
            result.values()[to + i * headWidth + j] =
                scratch.sums[group * valueTiles * TILE + j] / total;
          }
        }
      }
    }

    private int least(int[] lengths) {
      int least = lengths[firstRow];
      for (int r = 1; r < rows; r++) {
        least = Math.min(least, lengths[firstRow + r]);
      }
      return least;
    }

    private int most(int[] lengths) {
      int most = lengths[firstRow];
      for (int r = 1; r < rows; r++) {
        most = Math.max(most, lengths[firstRow + r]);
      }
      return most;
    }

    /** Scores of all rows at the 32 positions of a block. */
    private void addScores(MemorySegment block, float[] score, int at, int stride) {
      long keys = layout.keys(layer, kvHead);
      MemorySegment tile = block;
      long from = keys;
      switch (layout.type()) {
        case F32 -> {}
        case F16 -> {
          KvKernels.decodeHalves(block, keys, TILE * headWidth, scratch.plain);
          tile = scratch.plain;
          from = 0;
        }
        case Q8_0 -> {
          for (int i = 0; i < valueTiles; i++) {
            long square = keys + (long) KvLayout.SQUARE_BYTES * i;
            KvKernels.decodeRowScaled(block, square, scratch.plain, 4L * TILE * TILE * i);
          }
          tile = scratch.plain;
          from = 0;
        }
      }
      Kernels.addTile(
          tile, from, headWidth, scratch.queries, 0, headWidth, rows * perRow, score, at, stride);
    }

    /** Adds what each row sees of a block's values; {@code position} is the block's first. */
    private void addValues(
        MemorySegment block, float[] score, int at, int stride, int position, int[] lengths) {
      for (int tile = 0; tile < valueTiles; tile++) {
        long values = layout.values(layer, kvHead, tile);
        MemorySegment plain = block;
        long from = values;
        switch (layout.type()) {
          case F32 -> {}
          case F16 -> {
            KvKernels.decodeHalves(block, values, TILE * TILE, scratch.plain);
            plain = scratch.plain;
            from = 0;
          }
          case Q8_0 -> {
            KvKernels.decodeColumnScaled(block, values, 0, TILE, scratch.plain);
            plain = scratch.plain;
            from = 0;
          }
        }
        for (int r = 0; r < rows; ) {
          int length = lengths[firstRow + r];
          int first = Math.clamp(start(length) - position, 0, TILE);
          int end = Math.clamp(length - position, 0, TILE);
          int same = 1;
          while (r + same < rows && seesAlike(lengths, r + same, position, first, end)) {
            same++;
          }
          if (first < end) {
            Kernels.addTile(
                plain,
                from + 4L * TILE * first,
                end - first,
                score,
                r * perRow * stride + at + first,
                stride,
                same * perRow,
                scratch.sums,
                (r * perRow * valueTiles + tile) * TILE,
                valueTiles * TILE);
          }
          r += same;
        }
      }
    }

    private boolean seesAlike(int[] lengths, int r, int position, int first, int end) {
      int length = lengths[firstRow + r];
      return Math.clamp(start(length) - position, 0, TILE) == first
          && Math.clamp(length - position, 0, TILE) == end;
    }
  }

  private static void softmaxNumerators(float[] score, int first, int count, Scoring scoring) {
    float scale = scoring.scale();
    if (scoring.cap() > 0) {
      Kernels.softCap(score, first, count, scale, scoring.cap());
      scale = 1;
    }
    Kernels.expAll(score, first, count, scale, Kernels.most(score, first, count) * scale);
  }

  /** Frees the memory. */
  @Override
  public void close() {
    arena.close();
  }
}

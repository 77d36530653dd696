package dev.flotilla.tensor;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.util.function.IntUnaryOperator;

/**
 * A weight matrix {@code [out, in]} outside the heap, in the order in which the kernels read it.
 *
 * <p>Rows are grouped in tiles of 32, the last one filled up with zero rows. Within a tile, columns
 * follow one another, each with the values of its 32 rows side by side: so rows sit in the lanes of
 * a vector, one activation is broadcast to all of them, and each row's sum is a single chain in the
 * order of the columns, whatever the vector width or the number of activations. The size is that of
 * the file, but for the filling and some bytes of Q4_K and Q5_K.
 *
 * <p>Quantised weights are multiplied as integers ({@link IntegerKernels}). Every 32 columns of
 * Q8_0 and Q4_0 begin with the rows' scales; then come their numbers, four columns of a row side by
 * side, for that is what integer units take. Numbers of 4 bits lie two in a byte: columns 0 to 15
 * of a block in the lower halves, 16 to 31 in the upper ones. Scales are halves, multiplied by a
 * power of two that makes the largest one of the matrix nearly the largest half: small ones would
 * be denormal, and slow.
 *
 * <p>In the K-quants, every 256 columns begin with the rows' half-precision scales (and minima);
 * then every 32 columns have the rows' small scales, their minima (the scales of the second 16
 * columns in Q6_K), the lower 4 bits as in Q4_0, and the bits above those, of columns that are four
 * apart in a byte: of eight columns in Q5_K; in Q6_K of four, the first 16 columns' before the
 * others'.
 */
public final class PackedMatrix implements Weights {

  /** Rows of a tile. */
  static final int TILE = 32;

  /** What packing an element costs, in multiplications. */
  private static final long WORK = 16;

  /** Largest exponent of a half. */
  private static final int HALF_EXPONENT = 15;

  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfInt INT =
      ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  private final WeightType type;
  private final int out;
  private final int in;
  private final long tileBytes;
  private final MemorySegment tiles;

  /** The exponent that scales are raised by. */
  private final int raised;

  private PackedMatrix(
      WeightType type, int out, int in, long tileBytes, MemorySegment tiles, int raised) {
    this.type = type;
    this.out = out;
    this.in = in;
    this.tileBytes = tileBytes;
    this.tiles = tiles;
    this.raised = raised;
  }

  /**
   * Packs rows.
   *
   * @param source the rows one after another, as a file has them
   * @param sourceRow which row of the source becomes the given row
   * @param arena owns the packed memory
   */
  public static PackedMatrix pack(
      WeightType type,
      int out,
      int in,
      MemorySegment source,
      IntUnaryOperator sourceRow,
      Arena arena) {
    return pack(type, out, in, source, sourceRow, arena, Workers.ALONE);
  }

  static PackedMatrix pack(
      WeightType type,
      int out,
      int in,
      MemorySegment source,
      IntUnaryOperator sourceRow,
      Arena arena,
      Workers workers) {
    if (out < 1 || in < 1 || in % type.blockElements() != 0) {
      throw new IllegalArgumentException(type + " [" + out + ", " + in + "]");
    }
    long rowBytes = type.bytes(in);
    if (source.byteSize() != rowBytes * out) {
      throw new IllegalArgumentException(
          source.byteSize() + " bytes for " + type + " [" + out + ", " + in + "]");
    }
    long tileBytes = tileBytes(type, in);
    MemorySegment tiles = SystemCalls.allocate(tileBytes * ((out + TILE - 1) / TILE), arena);
    int raised = type.integers() ? raised(type, source) : 0;
    PackedMatrix packed = new PackedMatrix(type, out, in, tileBytes, tiles, raised);
    workers.each(
        packed.tileCount(),
        WORK * out * in,
        (_, tile) -> {
          for (int row = tile * TILE; row < Math.min(out, (tile + 1) * TILE); row++) {
            packed.packRow(row, source, rowBytes * sourceRow.applyAsInt(row));
          }
        });
    return packed;
  }

  private static int raised(WeightType type, MemorySegment source) {
    float largest = 0;
    boolean blocks = type == WeightType.Q8_0 || type == WeightType.Q4_0;
    for (long at = 0; at < source.byteSize(); at += type.blockBytes()) {
      short scale = blocks ? source.get(SHORT, at) : SuperBlocks.scale(type, source, at);
      largest = Math.max(largest, Math.abs(Blocks.halfToFloat(scale)));
      if (type == WeightType.Q4_K || type == WeightType.Q5_K) {
        float minimum = Blocks.halfToFloat(SuperBlocks.minimum(source, at));
        largest = Math.max(largest, Math.abs(minimum));
      }
    }
    return largest == 0 ? 0 : HALF_EXPONENT - Math.getExponent(largest);
  }

  /** Bytes of so many columns, whole blocks, of all rows of a tile. */
  static long tileBytes(WeightType type, int columns) {
    long blockBytes =
        type.blockElements() == SuperBlocks.ELEMENTS
            ? superBytes(type)
            : (long) TILE * type.blockBytes();
    return blockBytes * (columns / type.blockElements());
  }

  /** Bytes of 32 columns of a K-quant, for all rows of a tile. */
  static int subBytes(WeightType type) {
    return TILE * (2 + 16 + highBytes(type));
  }

  /** Bytes of 256 columns of a K-quant, for all rows of a tile. */
  static int superBytes(WeightType type) {
    return headBytes(type) + 8 * subBytes(type);
  }

  /** Bytes before the first 32 columns of a K-quant. */
  static int headBytes(WeightType type) {
    return TILE * (type == WeightType.Q6_K ? 2 : 4);
  }

  /** Bytes of the bits above the lowest 4, of 32 columns and one row. */
  private static int highBytes(WeightType type) {
    return switch (type) {
      case Q5_K -> 4;
      case Q6_K -> 8;
      default -> 0;
    };
  }

  private void packRow(int row, MemorySegment source, long from) {
    long tile = tileOffset(row / TILE);
    int lane = row % TILE;
    switch (type) {
      case F32 -> {
        for (int column = 0; column < in; column++) {
          int bits = source.get(INT, from + 4L * column);
          tiles.set(INT, tile + 4L * (column * (long) TILE + lane), bits);
        }
      }
      case F16, BF16 -> {
        for (int column = 0; column < in; column++) {
          short bits = source.get(SHORT, from + 2L * column);
          tiles.set(SHORT, tile + 2L * (column * (long) TILE + lane), bits);
        }
      }
      case Q8_0 -> {
        for (int block = 0; block < in / 32; block++) {
          long read = from + 34L * block;
          packScale(source.get(SHORT, read), scales(tile, block) + 2L * lane);
          copyFours(source, read + 2, 8, numbers(tile, block) + 4L * lane);
        }
      }
      case Q4_0 -> {
        for (int block = 0; block < in / 32; block++) {
          long read = from + 18L * block;
          packScale(source.get(SHORT, read), scales(tile, block) + 2L * lane);
          copyFours(source, read + 2, 4, numbers(tile, block) + 4L * lane);
        }
      }
      case Q4_K, Q5_K, Q6_K -> {
        for (int block = 0; block < in / SuperBlocks.ELEMENTS; block++) {
          long read = from + (long) type.blockBytes() * block;
          packSuper(source, read, tile + (long) superBytes(type) * block, lane);
        }
      }
    }
  }

  /** Numbers of four columns, side by side here and there. */
  private void copyFours(MemorySegment source, long read, int fours, long write) {
    for (int i = 0; i < fours; i++) {
      tiles.set(INT, write + inBlock(4 * i), source.get(INT, read + 4L * i));
    }
  }

  private void packScale(short half, long at) {
    float raisedScale = Math.scalb(Blocks.halfToFloat(half), raised);
    tiles.set(SHORT, at, Float.floatToFloat16(raisedScale));
  }

  /** Where in a block a column's bytes begin. */
  private static long inBlock(int column) {
    return 4L * TILE * (column / 4) + column % 4;
  }

  /** Where a block's scales begin. */
  private long scales(long tile, int block) {
    return tile + (long) TILE * type.blockBytes() * block;
  }

  /** Where a block's numbers begin. */
  private long numbers(long tile, int block) {
    return scales(tile, block) + 2L * TILE;
  }

  private void packSuper(MemorySegment source, long read, long write, int lane) {
    boolean six = type == WeightType.Q6_K;
    packScale(SuperBlocks.scale(type, source, read), write + 2L * lane);
    if (!six) {
      packScale(SuperBlocks.minimum(source, read), write + 2L * (TILE + lane));
    }
    for (int sub = 0; sub < 8; sub++) {
      long at = write + headBytes(type) + (long) subBytes(type) * sub;
      int scale = SuperBlocks.subScale(type, source, read, six ? 2 * sub : sub);
      int second =
          six
              ? SuperBlocks.subScale(type, source, read, 2 * sub + 1)
              : SuperBlocks.subMinimum(source, read, sub);
      tiles.set(ValueLayout.JAVA_BYTE, at + lane, (byte) scale);
      tiles.set(ValueLayout.JAVA_BYTE, at + TILE + lane, (byte) second);
      at += 4L * lane;
      for (int i = 0; i < 32; i++) {
        int quant = SuperBlocks.quant(type, source, read, 32 * sub + i);
        or(at + 2L * TILE + inBlock(i % 16), (quant & 15) << (4 * (i / 16)));
        if (type != WeightType.Q4_K) {
          or(at + above(type, i), (quant >> 4) << aboveShift(type, i));
        }
      }
    }
  }

  /** Where in a sub-block, lane 0, the byte with a column's bits above the lower 4 is. */
  private static long above(WeightType type, int column) {
    int ints = type == WeightType.Q6_K ? column / 16 : 0;
    return TILE * (18L + 4L * ints) + column % 4;
  }

  private static int aboveShift(WeightType type, int column) {
    return type == WeightType.Q6_K ? column % 16 / 4 * 2 : column / 4;
  }

  private void or(long at, int bits) {
    int there = tiles.get(ValueLayout.JAVA_BYTE, at);
    tiles.set(ValueLayout.JAVA_BYTE, at, (byte) (there | bits));
  }

  /** Reads one row back in full precision. */
  void unpackRow(int row, float[] values, int first) {
    if (row < 0 || row >= out) {
      throw new IndexOutOfBoundsException("row " + row + " of " + out);
    }
    long tile = tileOffset(row / TILE);
    int lane = row % TILE;
    for (int column = 0; column < in; column++) {
      values[first + column] =
          switch (type) {
            case F32 ->
                Float.intBitsToFloat(tiles.get(INT, tile + 4L * (column * (long) TILE + lane)));
            case F16 ->
                Blocks.halfToFloat(tiles.get(SHORT, tile + 2L * (column * (long) TILE + lane)));
            case Q8_0 -> {
              long at = numbers(tile, column / 32) + 4L * lane + inBlock(column % 32);
              yield tiles.get(ValueLayout.JAVA_BYTE, at) * scale(tile, lane, column);
            }
            case BF16 ->
                Float.intBitsToFloat(
                    tiles.get(SHORT, tile + 2L * (column * (long) TILE + lane)) << 16);
            case Q4_0 -> {
              long at = numbers(tile, column / 32) + 4L * lane + inBlock(column % 16);
              int pair = tiles.get(ValueLayout.JAVA_BYTE, at);
              int quant = (column % 32 < 16 ? pair : pair >> 4) & 15;
              yield (quant - 8) * scale(tile, lane, column);
            }
            case Q4_K, Q5_K, Q6_K -> unpackSuper(tile, lane, column);
          };
    }
  }

  private float scale(long tile, int lane, int column) {
    return lowered(tiles.get(SHORT, scales(tile, column / 32) + 2L * lane));
  }

  private float lowered(short half) {
    return Math.scalb(Blocks.halfToFloat(half), -raised);
  }

  private float unpackSuper(long tile, int lane, int column) {
    long block = tile + (long) superBytes(type) * (column / SuperBlocks.ELEMENTS);
    long at =
        block + headBytes(type) + (long) subBytes(type) * (column % SuperBlocks.ELEMENTS / 32);
    int i = column % 32;
    int pair = tiles.get(ValueLayout.JAVA_BYTE, at + 2L * TILE + 4L * lane + inBlock(i % 16));
    int quant = (i < 16 ? pair : pair >> 4) & 15;
    if (type != WeightType.Q4_K) {
      int bits = tiles.get(ValueLayout.JAVA_BYTE, at + 4L * lane + above(type, i));
      quant |= ((bits >> aboveShift(type, i)) & (type == WeightType.Q6_K ? 3 : 1)) << 4;
    }
    float scale = lowered(tiles.get(SHORT, block + 2L * lane));
    int first = tiles.get(ValueLayout.JAVA_BYTE, at + lane);
    int second = tiles.get(ValueLayout.JAVA_BYTE, at + TILE + lane);
    if (type == WeightType.Q6_K) {
      return (quant - 32) * (scale * (i < 16 ? first : second));
    }
    float minimum = lowered(tiles.get(SHORT, block + 2L * (TILE + lane))) * second;
    return quant * (scale * first) - minimum;
  }

  /** How elements are stored. */
  public WeightType type() {
    return type;
  }

  /** Rows: elements of a result. */
  public int out() {
    return out;
  }

  /** Columns: elements of an activation. */
  public int in() {
    return in;
  }

  @Override
  public long bytes() {
    return tiles.byteSize();
  }

  int tileCount() {
    return (out + TILE - 1) / TILE;
  }

  long tileOffset(int tile) {
    return tileBytes * tile;
  }

  /**
   * What makes a scale of the bits of a half shifted left by 13, read as single precision: see
   * {@link Blocks#halfToFloat}.
   */
  float unit() {
    return Math.scalb(0x1p112f, -raised);
  }

  MemorySegment tiles() {
    return tiles;
  }
}

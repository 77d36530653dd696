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
 * order of the columns, whatever the vector width or the number of activations. In Q8_0, every 32
 * columns are preceded by the 32 rows' scales. The size is that of the file, but for the filling.
 */
public final class PackedMatrix implements Weights {

  /** Rows of a tile. */
  static final int TILE = 32;

  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfInt INT =
      ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  private final WeightType type;
  private final int out;
  private final int in;
  private final long tileBytes;
  private final MemorySegment tiles;

  private PackedMatrix(WeightType type, int out, int in, long tileBytes, MemorySegment tiles) {
    this.type = type;
    this.out = out;
    this.in = in;
    this.tileBytes = tileBytes;
    this.tiles = tiles;
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
    if (out < 1 || in < 1 || in % type.blockElements() != 0) {
      throw new IllegalArgumentException(type + " [" + out + ", " + in + "]");
    }
    long rowBytes = type.bytes(in);
    if (source.byteSize() != rowBytes * out) {
      throw new IllegalArgumentException(
          source.byteSize() + " bytes for " + type + " [" + out + ", " + in + "]");
    }
    long tileBytes = rowBytes * TILE;
    MemorySegment tiles = arena.allocate(tileBytes * ((out + TILE - 1) / TILE), 64);
    PackedMatrix packed = new PackedMatrix(type, out, in, tileBytes, tiles);
    for (int row = 0; row < out; row++) {
      packed.packRow(row, source, rowBytes * sourceRow.applyAsInt(row));
    }
    return packed;
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
      case F16 -> {
        for (int column = 0; column < in; column++) {
          short bits = source.get(SHORT, from + 2L * column);
          tiles.set(SHORT, tile + 2L * (column * (long) TILE + lane), bits);
        }
      }
      case Q8_0 -> {
        for (int block = 0; block < in / 32; block++) {
          long read = from + 34L * block;
          long write = tile + 34L * TILE * block;
          tiles.set(SHORT, write + 2L * lane, source.get(SHORT, read));
          for (int column = 0; column < 32; column++) {
            byte quant = source.get(ValueLayout.JAVA_BYTE, read + 2 + column);
            tiles.set(
                ValueLayout.JAVA_BYTE, write + 2L * TILE + (long) column * TILE + lane, quant);
          }
        }
      }
    }
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
              long block = tile + 34L * TILE * (column / 32);
              float scale = Blocks.halfToFloat(tiles.get(SHORT, block + 2L * lane));
              long quant = block + 2L * TILE + (column % 32) * (long) TILE + lane;
              yield tiles.get(ValueLayout.JAVA_BYTE, quant) * scale;
            }
          };
    }
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

  MemorySegment tiles() {
    return tiles;
  }
}

package dev.flotilla.tensor;

import static dev.flotilla.tensor.PackedMatrix.TILE;

/**
 * Where what lies in a block of 32 positions: for each layer and key-value head the keys as a tile
 * whose rows are the positions, then the values as tiles whose rows are 32 elements each and whose
 * columns are the positions. Columns follow one another, each with its 32 rows side by side.
 *
 * <p>In Q8_0 a tile is cut into squares of 32 by 32, each with 32 half-precision scales before its
 * quants: of keys one per row, of values one per column, for either way a scale belongs to 32
 * elements of one position.
 *
 * @param layers how many layers share a block
 */
public record KvLayout(KvType type, int layers, int kvHeads, int headWidth) {

  /** Which of the ways in which blocks have been laid out this is: another way has another. */
  public static final int VERSION = 1;

  /** Scales and quants of 32 positions and 32 elements. */
  static final int SQUARE_BYTES = 2 * TILE + TILE * TILE;

  /** Tiles of values per head, the last one filled up. */
  int valueTiles() {
    return (headWidth + TILE - 1) / TILE;
  }

  private long keyBytes() {
    return switch (type) {
      case F32 -> 4L * TILE * headWidth;
      case F16 -> 2L * TILE * headWidth;
      case Q8_0 -> (long) SQUARE_BYTES * valueTiles();
    };
  }

  private long valueTileBytes() {
    return switch (type) {
      case F32 -> 4L * TILE * TILE;
      case F16 -> 2L * TILE * TILE;
      case Q8_0 -> SQUARE_BYTES;
    };
  }

  private long headBytes() {
    return keyBytes() + valueTiles() * valueTileBytes();
  }

  /** Bytes of a block. */
  public long blockBytes() {
    return layerBytes() * layers;
  }

  /** Bytes that a layer takes of a block; the layers lie one after the other. */
  public long layerBytes() {
    return headBytes() * kvHeads;
  }

  /** Bytes that a position takes. */
  public long positionBytes() {
    return blockBytes() / TILE;
  }

  /** Where the keys of a layer and head begin. */
  long keys(int layer, int kvHead) {
    return headBytes() * (layer * (long) kvHeads + kvHead);
  }

  /** Where a tile of values begins. */
  long values(int layer, int kvHead, int tile) {
    return keys(layer, kvHead) + keyBytes() + tile * valueTileBytes();
  }
}

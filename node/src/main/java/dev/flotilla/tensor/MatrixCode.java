package dev.flotilla.tensor;

import static dev.flotilla.tensor.Assembler.R11;
import static dev.flotilla.tensor.Assembler.R8;
import static dev.flotilla.tensor.Assembler.R9;
import static dev.flotilla.tensor.Assembler.RAX;
import static dev.flotilla.tensor.Assembler.RCX;
import static dev.flotilla.tensor.Assembler.RDI;
import static dev.flotilla.tensor.Assembler.RDX;
import static dev.flotilla.tensor.Assembler.RSI;
import static dev.flotilla.tensor.Assembler.at;
import static dev.flotilla.tensor.MachineKernels.AHEAD;
import static dev.flotilla.tensor.MachineKernels.BLOCKS;
import static dev.flotilla.tensor.MachineKernels.EIGHTS;
import static dev.flotilla.tensor.MachineKernels.HALF_MASK;
import static dev.flotilla.tensor.MachineKernels.LAST_NIBBLES;
import static dev.flotilla.tensor.MachineKernels.LAST_PRODUCT;
import static dev.flotilla.tensor.MachineKernels.MASK;
import static dev.flotilla.tensor.MachineKernels.ROWS;
import static dev.flotilla.tensor.MachineKernels.ROWS_STRIDE;
import static dev.flotilla.tensor.MachineKernels.ROW_SCALES;
import static dev.flotilla.tensor.MachineKernels.SCALES_STRIDE;
import static dev.flotilla.tensor.MachineKernels.SCRATCH;
import static dev.flotilla.tensor.MachineKernels.SUMS;
import static dev.flotilla.tensor.MachineKernels.TILES;
import static dev.flotilla.tensor.MachineKernels.UNIT;
import static dev.flotilla.tensor.MachineKernels.WEIGHTS;
import static dev.flotilla.tensor.MachineKernels.ZEROS;
import static dev.flotilla.tensor.PackedMatrix.TILE;

/** Writes functions of {@link MachineKernels} for the matrix unit: many rows by one tile. */
final class MatrixCode {

  /** How many blocks lie between two stages. */
  static final int DISTANCE = 4;

  /** What a stage leaves of a block for the next one: at most 12 rows twice. */
  private static final int SLOT = 2048;

  private static final int RING = 2 * DISTANCE * SLOT;

  /** A ring of sums, and one of bytes. */
  static final int SCRATCH_BYTES = 2 * RING;

  private static final int EIGHTS_REGISTER = 28;
  private static final int MASK_REGISTER = 29;
  private static final int UNIT_REGISTER = 30;
  private static final int HALF_BITS_REGISTER = 31;

  private MatrixCode() {}

  /**
   * Rows by a tile on the matrix unit. Stages follow one another at some distance in blocks, for
   * what a tile leaves in memory cannot be read at once: nibbles become bytes, the unit multiplies,
   * the vector unit adds the sums. Up to 12 rows have all their sums in registers; 16 go through
   * the tile's memory twice, 16 of its rows at a time.
   */
  static byte[] function(WeightType type, int rows) {
    boolean nibbles = type == WeightType.Q4_0;
    int blockBytes = TILE * type.blockBytes();
    Assembler a = new Assembler();
    a.configureTiles(at(RDI, TILES + 64 * (rows / 4 - 1)));
    a.broadcast(HALF_BITS_REGISTER, at(RDI, HALF_MASK));
    a.broadcast(UNIT_REGISTER, at(RDI, UNIT));
    if (nibbles) {
      a.broadcast(MASK_REGISTER, at(RDI, MASK));
      a.broadcast(EIGHTS_REGISTER, at(RDI, EIGHTS));
    }
    a.loadConstant(R9, QuantisedRows.BLOCK);
    a.load(R11, at(RDI, SCRATCH));
    int[][] passes = rows <= 12 ? new int[][] {{0, 1}} : new int[][] {{0}, {1}};
    int products = nibbles ? DISTANCE : 0;
    int sums = products + DISTANCE;
    for (int[] halves : passes) {
      a.load(RAX, at(RDI, WEIGHTS));
      a.move(RCX, RAX);
      a.load(RSI, at(RDI, ROWS));
      a.load(RDX, at(RDI, ROW_SCALES));
      a.loadConstant(R8, 0);
      for (int sum = 0; sum < halves.length * rows; sum++) {
        a.zero(sum);
      }
      int block = a.here();
      a.compare(R8, at(RDI, BLOCKS));
      int none = a.jumpAheadUnlessLess();
      if (halves[0] == 0) {
        for (int line = 0; line < blockBytes; line += 64) {
          a.prefetch(at(RAX, AHEAD + line));
        }
      }
      if (nibbles) {
        unpackBlock(a);
      } else {
        multiplyBlock(a, halves, RAX, 2 * TILE);
      }
      a.addConstant(RAX, blockBytes);
      a.land(none);
      a.xorConstant(R11, RING / 2);
      if (nibbles) {
        a.compareConstant(R8, products);
        int early = a.jumpAheadIfLess();
        a.compare(R8, at(RDI, LAST_PRODUCT));
        int late = a.jumpAheadUnlessLess();
        multiplyBlock(a, halves, R11, RING);
        a.land(early);
        a.land(late);
        a.xorConstant(R11, RING / 2);
      }
      a.compareConstant(R8, sums);
      int early = a.jumpAheadIfLess();
      addBlock(a, rows, halves);
      a.addConstant(RCX, blockBytes);
      a.land(early);
      if (!nibbles) {
        a.xorConstant(R11, RING / 2);
      }
      a.addConstant(R11, SLOT);
      a.andConstant(R11, ~RING);
      a.addConstant(R8, 1);
      a.compare(R8, at(RDI, nibbles ? LAST_NIBBLES : LAST_PRODUCT));
      a.jumpIfLess(block);
      a.load(RAX, at(RDI, SUMS));
      for (int half : halves) {
        for (int row = 0; row < rows; row++) {
          a.storeVector(
              at(RAX, 4 * TILE * row + 64 * half), sum(row, half - halves[0], halves.length));
        }
      }
    }
    a.releaseTiles();
    a.leave();
    return a.code();
  }

  private static int sum(int row, int half, int halves) {
    return halves * row + half;
  }

  /** Nibbles, less 8, as bytes. */
  private static void unpackBlock(Assembler a) {
    int low = 24;
    int high = 25;
    for (int line = 0; line < 16 * TILE; line += 64) {
      a.loadVector(high, at(RAX, 2 * TILE + line));
      a.and(low, high, MASK_REGISTER);
      a.shiftRight(high, high, 4);
      a.and(high, high, MASK_REGISTER);
      a.subtractBytes(low, low, EIGHTS_REGISTER);
      a.subtractBytes(high, high, EIGHTS_REGISTER);
      a.storeVector(at(R11, RING + line), low);
      a.storeVector(at(R11, RING + 16 * TILE + line), high);
    }
  }

  private static void multiplyBlock(Assembler a, int[] halves, int base, int offset) {
    int left = 2;
    int right = 3;
    a.loadTile(left, at(RSI, 0), R9, 1);
    for (int half : halves) {
      int sums = half - halves[0];
      // To zero a tile costs the product that follows three times its time.
      a.repeatIntoTile(sums, at(RDI, ZEROS));
      a.loadTile(right + sums, at(base, offset + 64 * half), R9, 4);
      a.addTileProducts(sums, left, right + sums);
      a.storeTile(at(R11, SLOT / 2 * sums), R9, 2, sums);
    }
    a.add(RSI, at(RDI, ROWS_STRIDE));
  }

  private static void addBlock(Assembler a, int rows, int[] halves) {
    int scale = 24;
    for (int half : halves) {
      VectorCode.scale(a, scale, at(RCX, 32 * half), HALF_BITS_REGISTER, UNIT_REGISTER);
      for (int row = 0; row < rows; row++) {
        int ints = 25;
        int both = 26;
        a.intsToFloats(ints, at(R11, SLOT / 2 * (half - halves[0]) + 64 * row));
        a.multiplyByOne(both, scale, at(RDX, 4 * row));
        a.addProduct(sum(row, half - halves[0], halves.length), ints, both);
      }
    }
    a.add(RDX, at(RDI, SCALES_STRIDE));
  }
}

package dev.flotilla.tensor;

import static dev.flotilla.tensor.Assembler.R10;
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
import static dev.flotilla.tensor.MachineKernels.FEW;
import static dev.flotilla.tensor.MachineKernels.HALF_MASK;
import static dev.flotilla.tensor.MachineKernels.HEADS;
import static dev.flotilla.tensor.MachineKernels.HIGH_MASK;
import static dev.flotilla.tensor.MachineKernels.MASK;
import static dev.flotilla.tensor.MachineKernels.ROWS;
import static dev.flotilla.tensor.MachineKernels.ROWS_STRIDE;
import static dev.flotilla.tensor.MachineKernels.ROW_SCALES;
import static dev.flotilla.tensor.MachineKernels.SCALES_STRIDE;
import static dev.flotilla.tensor.MachineKernels.STARTS;
import static dev.flotilla.tensor.MachineKernels.STARTS_STRIDE;
import static dev.flotilla.tensor.MachineKernels.SUMS;
import static dev.flotilla.tensor.MachineKernels.SUMS_END;
import static dev.flotilla.tensor.MachineKernels.UNIT;
import static dev.flotilla.tensor.MachineKernels.WEIGHTS;
import static dev.flotilla.tensor.PackedMatrix.TILE;

/**
 * Writes functions of {@link MachineKernels} for the vector unit: some rows, at most {@link
 * MachineKernels#FEW}, by tiles that follow one another, in one pass over their memory. Every row
 * has its 32 sums of a tile in two registers.
 */
final class VectorCode {

  /** Bytes of the rows that a tile of F16 or BF16 has in a column. */
  private static final int SHORTS = 2 * TILE;

  private VectorCode() {}

  static byte[] function(WeightType type, int rows) {
    return switch (type) {
      case F32, F16, BF16 -> plain(type, rows);
      case Q8_0, Q4_0 -> blocks(type, rows);
      case Q4_K, Q5_K, Q6_K -> superBlocks(type, rows);
    };
  }

  /** One chain of products and sums, column by column. */
  private static byte[] plain(WeightType type, int rows) {
    int columnBytes = TILE * type.blockBytes();
    Assembler a = new Assembler();
    int weight = 16;
    a.load(RAX, at(RDI, WEIGHTS));
    a.load(R11, at(RDI, SUMS));
    int tile = a.here();
    beginTile(a, rows);
    int column = a.here();
    for (int line = 0; line < columnBytes; line += 64) {
      a.prefetch(at(RAX, AHEAD + line));
    }
    for (int half = 0; half < 2; half++) {
      switch (type) {
        case F16 -> a.loadHalves(weight + half, at(RAX, SHORTS / 2 * half));
        case BF16 -> {
          a.loadUnsignedShorts(weight + half, at(RAX, SHORTS / 2 * half));
          a.shiftLeft(weight + half, weight + half, 16);
        }
        default -> a.loadVector(weight + half, at(RAX, 64 * half));
      }
      for (int row = 0; row < rows; row++) {
        a.addProductByOne(2 * row + half, weight + half, at(RSI, 4 * row));
      }
    }
    a.addConstant(RAX, columnBytes);
    a.addConstant(RSI, 4 * rows);
    a.addConstant(R10, -1);
    a.jumpIfNotZero(column);
    storeSums(a, rows, tile);
    return a.code();
  }

  /**
   * As many rows by some tiles, in one pass over their memory. Of products of unsigned and signed
   * bytes the weights are the unsigned side: bytes with 128 added, nibbles as they are; what that
   * adds to a sum, 128 or 8 times the total of the row's numbers, is taken off where the sum
   * starts. Upper nibbles are multiplied where they are, 16 times too large, and have a sum of
   * their own while there are registers for it.
   */
  private static byte[] blocks(WeightType type, int rows) {
    boolean bytes = type == WeightType.Q8_0;
    boolean apart = !bytes && rows <= FEW / 2;
    Assembler a = new Assembler();
    int ints = 16;
    int upper = apart ? ints + FEW / 2 : ints;
    int low = 24;
    int high = 25;
    int scale = 26;
    int both = 27;
    int upperMask = 28;
    int unit = 29;
    int halfBits = 30;
    int mask = 31;
    a.load(RAX, at(RDI, WEIGHTS));
    a.load(R8, at(RDI, ROWS_STRIDE));
    a.load(R9, at(RDI, SCALES_STRIDE));
    a.load(R11, at(RDI, SUMS));
    a.broadcast(mask, at(RDI, MASK));
    a.broadcast(halfBits, at(RDI, HALF_MASK));
    a.broadcast(unit, at(RDI, UNIT));
    if (apart) {
      a.shiftLeft(upperMask, mask, 4);
    }
    int blockBytes = TILE * type.blockBytes();
    int tile = a.here();
    beginTile(a, rows);
    a.load(RDX, at(RDI, ROW_SCALES));
    a.load(RCX, at(RDI, STARTS));
    int block = a.here();
    for (int line = 0; line < blockBytes; line += 64) {
      a.prefetch(at(RAX, AHEAD + line));
    }
    for (int half = 0; half < 2; half++) {
      for (int row = 0; row < rows; row++) {
        a.broadcast(ints + row, at(RCX, 4 * row));
        if (apart) {
          a.zero(upper + row);
        }
      }
      for (int at = 2 * TILE + 64 * half; at < blockBytes; at += 4 * TILE) {
        int column = (at - 2 * TILE) / (4 * TILE) * 4;
        if (bytes) {
          a.xor(low, mask, at(RAX, at));
        } else {
          a.and(low, mask, at(RAX, at));
          if (apart) {
            a.and(high, upperMask, at(RAX, at));
          } else {
            a.loadVector(high, at(RAX, at));
            a.shiftRight(high, high, 4);
            a.and(high, high, mask);
          }
        }
        for (int row = 0; row < rows; row++) {
          a.addProducts(ints + row, low, at(RSI, QuantisedRows.BLOCK * row + column));
        }
        for (int row = 0; row < rows && !bytes; row++) {
          a.addProducts(upper + row, high, at(RSI, QuantisedRows.BLOCK * row + column + 16));
        }
      }
      scale(a, scale, at(RAX, 32 * half), halfBits, unit);
      for (int row = 0; row < rows; row++) {
        if (apart) {
          a.shiftRightSigned(upper + row, upper + row, 4);
          a.addInts(ints + row, ints + row, upper + row);
        }
        a.intsToFloats(ints + row, ints + row);
        a.multiplyByOne(both, scale, at(RDX, 4 * row));
        a.addProduct(2 * row + half, ints + row, both);
      }
    }
    a.addConstant(RAX, blockBytes);
    a.add(RSI, R8);
    a.add(RDX, R9);
    a.add(RCX, R9);
    a.addConstant(R10, -1);
    a.jumpIfNotZero(block);
    storeSums(a, rows, tile);
    return a.code();
  }

  /** 16 weights' scales, from halves. */
  static void scale(Assembler a, int scale, Assembler.Address halves, int halfBits, int unit) {
    a.loadShorts(scale, halves);
    a.shiftLeft(scale, scale, 13);
    a.and(scale, scale, halfBits);
    a.multiply(scale, scale, unit);
  }

  /**
   * K-quants. Numbers are unsigned; those of Q6_K are 32 too large, which is taken off where a sum
   * of products starts. What all sub-blocks have in common, their scale and minimum in single
   * precision, is put down in memory at the beginning of a super-block.
   */
  private static byte[] superBlocks(WeightType type, int rows) {
    boolean six = type == WeightType.Q6_K;
    Assembler a = new Assembler();
    int ints = 16;
    int low = 24;
    int high = 25;
    int scale = 26;
    int both = 27;
    int bits = 28;
    int minimum = 29;
    int highMask = 30;
    int mask = 31;
    a.load(RAX, at(RDI, WEIGHTS));
    a.load(R11, at(RDI, SUMS));
    a.load(R9, at(RDI, ROWS_STRIDE));
    a.broadcast(mask, at(RDI, MASK));
    a.broadcast(highMask, at(RDI, HIGH_MASK));
    int tile = a.here();
    beginTile(a, rows);
    a.load(RDX, at(RDI, ROW_SCALES));
    a.load(RCX, at(RDI, STARTS));
    int block = a.here();
    int headBytes = PackedMatrix.headBytes(type);
    for (int line = 0; line < headBytes; line += 64) {
      a.prefetch(at(RAX, AHEAD + line));
    }
    a.broadcast(low, at(RDI, HALF_MASK));
    a.broadcast(high, at(RDI, UNIT));
    for (int vector = 0; vector < headBytes / 32; vector++) {
      scale(a, scale, at(RAX, 32 * vector), low, high);
      a.storeVector(at(RDI, HEADS + 64 * vector), scale);
    }
    a.addConstant(RAX, headBytes);
    a.loadConstant(R8, SuperBlocks.SUB_BLOCKS);
    int sub = a.here();
    int subBytes = PackedMatrix.subBytes(type);
    for (int line = 0; line < subBytes; line += 64) {
      a.prefetch(at(RAX, AHEAD + line));
    }
    for (int half = 0; half < 2; half++) {
      for (int upper = 0; upper < (six ? 2 : 1); upper++) {
        for (int row = 0; row < rows; row++) {
          if (six) {
            a.broadcast(ints + row, at(RCX, 8 * row + 4 * upper));
          } else {
            a.zero(ints + row);
          }
        }
        if (type != WeightType.Q4_K) {
          a.loadVector(bits, at(RAX, 18 * TILE + 4 * TILE * upper + 64 * half));
        }
        for (int group = 0; group < 4; group++) {
          int numbers = 2 * TILE + 4 * TILE * group + 64 * half;
          if (upper == 0) {
            a.and(low, mask, at(RAX, numbers));
            setHighBits(a, type, low, bits, both, highMask, six ? 2 * group : group);
          }
          if (upper == 1 || !six) {
            a.loadVector(high, at(RAX, numbers));
            a.shiftRight(high, high, 4);
            a.and(high, high, mask);
            setHighBits(a, type, high, bits, both, highMask, six ? 2 * group : group + 4);
          }
          for (int row = 0; row < rows; row++) {
            int x = QuantisedRows.BLOCK * row + 4 * group;
            if (upper == 0) {
              a.addProducts(ints + row, low, at(RSI, x));
            }
            if (upper == 1 || !six) {
              a.addProducts(ints + row, high, at(RSI, x + 16));
            }
          }
        }
        a.loadBytes(scale, at(RAX, TILE * upper + 16 * half));
        a.intsToFloats(scale, scale);
        a.multiply(scale, scale, at(RDI, HEADS + 64 * half));
        if (!six) {
          a.loadBytes(minimum, at(RAX, TILE + 16 * half));
          a.intsToFloats(minimum, minimum);
          a.multiply(minimum, minimum, at(RDI, HEADS + 128 + 64 * half));
        }
        for (int row = 0; row < rows; row++) {
          a.intsToFloats(ints + row, ints + row);
          a.multiplyByOne(both, scale, at(RDX, 4 * row));
          a.addProduct(2 * row + half, ints + row, both);
          if (!six) {
            a.addProductByOne(2 * row + half, minimum, at(RCX, 4 * row));
          }
        }
      }
    }
    a.addConstant(RAX, subBytes);
    a.add(RSI, R9);
    a.add(RDX, at(RDI, SCALES_STRIDE));
    a.add(RCX, at(RDI, STARTS_STRIDE));
    a.addConstant(R8, -1);
    a.jumpIfNotZero(sub);
    a.addConstant(R10, -1);
    a.jumpIfNotZero(block);
    storeSums(a, rows, tile);
    return a.code();
  }

  /**
   * Puts the bits above the lower four into numbers.
   *
   * @param bits of eight columns with a bit each, or of four with two
   * @param from the lowest of them, in every byte
   */
  static void setHighBits(
      Assembler a, WeightType type, int numbers, int bits, int shifted, int mask, int from) {
    if (type == WeightType.Q4_K) {
      return;
    }
    if (from < 4) {
      a.shiftLeft(shifted, bits, 4 - from);
    } else if (from > 4) {
      a.shiftRight(shifted, bits, from - 4);
    }
    a.orBoth(numbers, from == 4 ? bits : shifted, mask);
  }

  private static void beginTile(Assembler a, int rows) {
    a.load(R10, at(RDI, BLOCKS));
    a.load(RSI, at(RDI, ROWS));
    for (int sum = 0; sum < 2 * rows; sum++) {
      a.zero(sum);
    }
  }

  private static void storeSums(Assembler a, int rows, int nextTile) {
    for (int sum = 0; sum < 2 * rows; sum++) {
      a.storeVector(at(R11, 64 * sum), sum);
    }
    a.addConstant(R11, 4 * TILE * rows);
    a.compare(R11, at(RDI, SUMS_END));
    a.jumpIfLess(nextTile);
    a.leave();
  }
}

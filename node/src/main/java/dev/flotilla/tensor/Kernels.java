package dev.flotilla.tensor;

import static dev.flotilla.tensor.PackedMatrix.TILE;
import static java.nio.ByteOrder.LITTLE_ENDIAN;

import java.lang.foreign.MemorySegment;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.ShortVector;
import jdk.incubator.vector.VectorOperators;
import jdk.incubator.vector.VectorShape;
import jdk.incubator.vector.VectorSpecies;

/**
 * The inner loops, on the Vector API.
 *
 * <p>One rule makes their results the same on every machine: a lane is an output row, and its sum
 * is the chain {@code sum = fma(weight, activation, sum)} over the columns in order, from zero,
 * with {@code weight} the decoded value rounded to single precision. Nothing is summed across
 * lanes, so vector width does not matter; rows of activations never meet, so neither does the
 * batch.
 *
 * <p>Bodies are written out rather than shared through helpers: a helper that takes or returns
 * vectors is not always inlined, and then every vector is an object (a loss of 2 to 5 times that no
 * test would notice).
 */
final class Kernels {

  static final VectorSpecies<Float> F32 = floats();
  private static final int LANES = F32.length();
  static final VectorSpecies<Integer> I32 =
      VectorSpecies.of(int.class, VectorShape.forBitSize(32 * LANES));
  static final VectorSpecies<Short> I16 =
      VectorSpecies.of(short.class, VectorShape.forBitSize(16 * LANES));

  private static final int PAIR = 2 * LANES;

  /** As many floats as a sum has chains, or half of them. */
  private static final VectorSpecies<Float> EIGHT =
      LANES >= 8 ? FloatVector.SPECIES_256 : FloatVector.SPECIES_128;

  private static final float LOG2_E = 0x1.715476p0f;
  private static final float LN2_HIGH = 0x1.63p-1f;
  private static final float LN2_LOW = -0x1.bd0106p-13f;
  private static final float ROUNDER = 12582912f;
  private static final float EXP_LEAST = -0x1.5d51ecp6f;
  private static final float EXP_MOST = 88f;

  /** Coefficients of the powers of the rest. */
  private static final float EXP_7 = 0x1.a0d2cep-13f;

  private static final float EXP_6 = 0x1.6e879cp-10f;
  private static final float EXP_5 = 0x1.11121p-7f;
  private static final float EXP_4 = 0x1.555382p-5f;
  private static final float EXP_3 = 0x1.555554p-3f;
  private static final float EXP_2 = 0x1.0p-1f;

  private Kernels() {}

  /** A tile of 32 rows must be a whole number of vector pairs. */
  private static VectorSpecies<Float> floats() {
    int bits = FloatVector.SPECIES_PREFERRED.vectorBitSize();
    return bits >= 512
        ? FloatVector.SPECIES_512
        : bits >= 256 ? FloatVector.SPECIES_256 : FloatVector.SPECIES_128;
  }

  /** How many rows a vector holds here; only speed depends on it. */
  static int lanes() {
    return LANES;
  }

  /**
   * Adds the products of rows of activations with one tile of plain columns.
   *
   * @param tile columns of 32 floats
   * @param x row {@code r} starts at {@code xOffset + r · xStride}
   * @param sums row {@code r} has 32 sums at {@code sumOffset + r · sumStride}
   */
  static void addTile(
      MemorySegment tile,
      long tileOffset,
      int columns,
      float[] x,
      int xOffset,
      int xStride,
      int rows,
      float[] sums,
      int sumOffset,
      int sumStride) {
    for (int lane = 0; lane < TILE; lane += PAIR) {
      long from = tileOffset + 4L * lane;
      int row = 0;
      for (; row + 4 <= rows; row += 4) {
        addFour(
            tile,
            from,
            columns,
            x,
            xOffset + row * xStride,
            xStride,
            sums,
            sumOffset + row * sumStride + lane,
            sumStride);
      }
      for (; row < rows; row++) {
        addOne(
            tile,
            from,
            columns,
            x,
            xOffset + row * xStride,
            sums,
            sumOffset + row * sumStride + lane);
      }
    }
  }

  private static void addFour(
      MemorySegment tile,
      long from,
      int columns,
      float[] x,
      int x0,
      int xStride,
      float[] sums,
      int s0,
      int sumStride) {
    int x1 = x0 + xStride;
    int x2 = x1 + xStride;
    int x3 = x2 + xStride;
    int s1 = s0 + sumStride;
    int s2 = s1 + sumStride;
    int s3 = s2 + sumStride;
    FloatVector a0 = FloatVector.fromArray(F32, sums, s0);
    FloatVector b0 = FloatVector.fromArray(F32, sums, s0 + LANES);
    FloatVector a1 = FloatVector.fromArray(F32, sums, s1);
    FloatVector b1 = FloatVector.fromArray(F32, sums, s1 + LANES);
    FloatVector a2 = FloatVector.fromArray(F32, sums, s2);
    FloatVector b2 = FloatVector.fromArray(F32, sums, s2 + LANES);
    FloatVector a3 = FloatVector.fromArray(F32, sums, s3);
    FloatVector b3 = FloatVector.fromArray(F32, sums, s3 + LANES);
    for (int column = 0; column < columns; column++) {
      long at = from + 4L * TILE * column;
      FloatVector a = FloatVector.fromMemorySegment(F32, tile, at, LITTLE_ENDIAN);
      FloatVector b = FloatVector.fromMemorySegment(F32, tile, at + 4L * LANES, LITTLE_ENDIAN);
      FloatVector value = FloatVector.broadcast(F32, x[x0 + column]);
      a0 = a.fma(value, a0);
      b0 = b.fma(value, b0);
      value = FloatVector.broadcast(F32, x[x1 + column]);
      a1 = a.fma(value, a1);
      b1 = b.fma(value, b1);
      value = FloatVector.broadcast(F32, x[x2 + column]);
      a2 = a.fma(value, a2);
      b2 = b.fma(value, b2);
      value = FloatVector.broadcast(F32, x[x3 + column]);
      a3 = a.fma(value, a3);
      b3 = b.fma(value, b3);
    }
    a0.intoArray(sums, s0);
    b0.intoArray(sums, s0 + LANES);
    a1.intoArray(sums, s1);
    b1.intoArray(sums, s1 + LANES);
    a2.intoArray(sums, s2);
    b2.intoArray(sums, s2 + LANES);
    a3.intoArray(sums, s3);
    b3.intoArray(sums, s3 + LANES);
  }

  private static void addOne(
      MemorySegment tile, long from, int columns, float[] x, int x0, float[] sums, int s0) {
    FloatVector a0 = FloatVector.fromArray(F32, sums, s0);
    FloatVector b0 = FloatVector.fromArray(F32, sums, s0 + LANES);
    for (int column = 0; column < columns; column++) {
      long at = from + 4L * TILE * column;
      FloatVector a = FloatVector.fromMemorySegment(F32, tile, at, LITTLE_ENDIAN);
      FloatVector b = FloatVector.fromMemorySegment(F32, tile, at + 4L * LANES, LITTLE_ENDIAN);
      FloatVector value = FloatVector.broadcast(F32, x[x0 + column]);
      a0 = a.fma(value, a0);
      b0 = b.fma(value, b0);
    }
    a0.intoArray(sums, s0);
    b0.intoArray(sums, s0 + LANES);
  }

  /** As {@link #addTile} for one row and a tile in half precision; overwrites the sums. */
  static void oneF16(
      MemorySegment tile, long tileOffset, int columns, float[] x, int x0, float[] sums, int s0) {
    for (int lane = 0; lane < TILE; lane += PAIR) {
      FloatVector a0 = FloatVector.zero(F32);
      FloatVector b0 = FloatVector.zero(F32);
      for (int column = 0; column < columns; column++) {
        long at = tileOffset + 2L * (TILE * (long) column + lane);
        FloatVector a =
            ((IntVector)
                    ShortVector.fromMemorySegment(I16, tile, at, LITTLE_ENDIAN)
                        .convertShape(VectorOperators.S2I, I32, 0))
                .lanewise(VectorOperators.LSHL, 13)
                .and(0x8fffe000)
                .reinterpretAsFloats()
                .mul(0x1p112f);
        FloatVector b =
            ((IntVector)
                    ShortVector.fromMemorySegment(I16, tile, at + 2L * LANES, LITTLE_ENDIAN)
                        .convertShape(VectorOperators.S2I, I32, 0))
                .lanewise(VectorOperators.LSHL, 13)
                .and(0x8fffe000)
                .reinterpretAsFloats()
                .mul(0x1p112f);
        FloatVector value = FloatVector.broadcast(F32, x[x0 + column]);
        a0 = a.fma(value, a0);
        b0 = b.fma(value, b0);
      }
      a0.intoArray(sums, s0 + lane);
      b0.intoArray(sums, s0 + lane + LANES);
    }
  }

  /** Decodes columns of a half-precision tile to plain ones. */
  static void decodeF16(
      MemorySegment tile, long tileOffset, int firstColumn, int columns, MemorySegment plain) {
    long from = tileOffset + 2L * TILE * firstColumn;
    for (int i = 0; i < columns * TILE; i += LANES) {
      ((IntVector)
              ShortVector.fromMemorySegment(I16, tile, from + 2L * i, LITTLE_ENDIAN)
                  .convertShape(VectorOperators.S2I, I32, 0))
          .lanewise(VectorOperators.LSHL, 13)
          .and(0x8fffe000)
          .reinterpretAsFloats()
          .mul(0x1p112f)
          .intoMemorySegment(plain, 4L * i, LITTLE_ENDIAN);
    }
  }

  /** Decodes columns of a tile in BF16 to plain ones. */
  static void decodeBf16(
      MemorySegment tile, long tileOffset, int firstColumn, int columns, MemorySegment plain) {
    long from = tileOffset + 2L * TILE * firstColumn;
    for (int i = 0; i < columns * TILE; i += LANES) {
      ((IntVector)
              ShortVector.fromMemorySegment(I16, tile, from + 2L * i, LITTLE_ENDIAN)
                  .convertShape(VectorOperators.S2I, I32, 0))
          .lanewise(VectorOperators.LSHL, 16)
          .reinterpretAsFloats()
          .intoMemorySegment(plain, 4L * i, LITTLE_ENDIAN);
    }
  }

  /**
   * e to the x within 2 units in the last place, in operations that round the same everywhere (the
   * JDK's own may not). Range reduction and polynomial as in Cephes, Moshier 1984.
   */
  static float exp(float x) {
    float bounded = Math.max(EXP_LEAST, Math.min(EXP_MOST, x));
    float shifted = Math.fma(bounded, LOG2_E, ROUNDER);
    float power = shifted - ROUNDER;
    float rest = Math.fma(power, -LN2_HIGH, bounded);
    rest = Math.fma(power, -LN2_LOW, rest);
    float sum = EXP_7;
    sum = Math.fma(sum, rest, EXP_6);
    sum = Math.fma(sum, rest, EXP_5);
    sum = Math.fma(sum, rest, EXP_4);
    sum = Math.fma(sum, rest, EXP_3);
    sum = Math.fma(sum, rest, EXP_2);
    sum = Math.fma(sum, rest * rest, rest) + 1;
    int exponent = Float.floatToRawIntBits(shifted) << 23;
    return Float.intBitsToFloat(Float.floatToRawIntBits(sum) + exponent);
  }

  /** Replaces {@code count} values by {@code exp(value · scale - shift)}; see {@link #exp}. */
  static void expAll(float[] values, int first, int count, float scale, float shift) {
    int i = 0;
    for (; i + LANES <= count; i += LANES) {
      FloatVector bounded =
          FloatVector.fromArray(F32, values, first + i)
              .mul(scale)
              .sub(shift)
              .min(EXP_MOST)
              .max(EXP_LEAST);
      FloatVector shifted =
          bounded.fma(FloatVector.broadcast(F32, LOG2_E), FloatVector.broadcast(F32, ROUNDER));
      FloatVector power = shifted.sub(ROUNDER);
      FloatVector rest = power.fma(FloatVector.broadcast(F32, -LN2_HIGH), bounded);
      rest = power.fma(FloatVector.broadcast(F32, -LN2_LOW), rest);
      FloatVector sum = FloatVector.broadcast(F32, EXP_7);
      sum = sum.fma(rest, FloatVector.broadcast(F32, EXP_6));
      sum = sum.fma(rest, FloatVector.broadcast(F32, EXP_5));
      sum = sum.fma(rest, FloatVector.broadcast(F32, EXP_4));
      sum = sum.fma(rest, FloatVector.broadcast(F32, EXP_3));
      sum = sum.fma(rest, FloatVector.broadcast(F32, EXP_2));
      sum = sum.fma(rest.mul(rest), rest).add(1);
      sum.reinterpretAsInts()
          .add(shifted.reinterpretAsInts().lanewise(VectorOperators.LSHL, 23))
          .reinterpretAsFloats()
          .intoArray(values, first + i);
    }
    for (; i < count; i++) {
      values[first + i] = exp(values[first + i] * scale - shift);
    }
  }

  /**
   * Replaces {@code count} values by {@code cap · tanh(value · scale / cap)}, with {@code tanh(x) =
   * 1 - 2 / (exp(2x) + 1)}: within 2^-23 of the cap.
   */
  static void softCap(float[] values, int first, int count, float scale, float cap) {
    expAll(values, first, count, 2 * scale / cap, 0);
    for (int i = first; i < first + count; i++) {
      values[i] = cap * (1 - 2 / (values[i] + 1));
    }
  }

  /** The largest of some values, or minus infinity of none. */
  static float most(float[] values, int first, int count) {
    FloatVector most = FloatVector.broadcast(F32, Float.NEGATIVE_INFINITY);
    int i = first;
    int end = first + count;
    for (; i + LANES <= end; i += LANES) {
      most = most.max(FloatVector.fromArray(F32, values, i));
    }
    float result = most.reduceLanes(VectorOperators.MAX);
    for (; i < end; i++) {
      result = Math.max(result, values[i]);
    }
    return result;
  }

  /** The sum in one fixed order: eight chains, over every eighth element, then a tree. */
  static float sum(float[] values, int first, int count) {
    float[] chains = new float[8];
    int end = first + count / 8 * 8;
    for (int lane = 0; lane < 8; lane += EIGHT.length()) {
      FloatVector chain = FloatVector.zero(EIGHT);
      for (int i = first + lane; i < end; i += 8) {
        chain = chain.add(FloatVector.fromArray(EIGHT, values, i));
      }
      chain.intoArray(chains, lane);
    }
    for (int i = end; i < first + count; i++) {
      chains[0] += values[i];
    }
    return tree(chains);
  }

  private static float tree(float[] chains) {
    return ((chains[0] + chains[1]) + (chains[2] + chains[3]))
        + ((chains[4] + chains[5]) + (chains[6] + chains[7]));
  }

  /** The sum of squares, in the order of {@link #sum}. */
  static float sumOfSquares(float[] values, int first, int count) {
    float[] chains = new float[8];
    int end = first + count / 8 * 8;
    for (int lane = 0; lane < 8; lane += EIGHT.length()) {
      FloatVector chain = FloatVector.zero(EIGHT);
      for (int i = first + lane; i < end; i += 8) {
        FloatVector value = FloatVector.fromArray(EIGHT, values, i);
        chain = value.fma(value, chain);
      }
      chain.intoArray(chains, lane);
    }
    for (int i = end; i < first + count; i++) {
      chains[0] = Math.fma(values[i], values[i], chains[0]);
    }
    return tree(chains);
  }
}

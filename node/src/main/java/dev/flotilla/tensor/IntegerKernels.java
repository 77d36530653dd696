package dev.flotilla.tensor;

import static dev.flotilla.tensor.PackedMatrix.TILE;
import static java.nio.ByteOrder.LITTLE_ENDIAN;

import java.lang.foreign.MemorySegment;
import jdk.incubator.vector.ByteVector;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.ShortVector;
import jdk.incubator.vector.VectorOperators;
import jdk.incubator.vector.VectorSpecies;

/**
 * Products of activations of 8 bits with quantised weights. Within a block of columns that share a
 * scale everything is an integer, so any kernel, of any width, on any unit, has the same sum;
 * across blocks, a row's result is the chain {@code sum = fma(block's sum, weight's scale ·
 * activation's scale, sum)} in the order of the blocks, from zero. In Q4_K and Q5_K each link is
 * followed by {@code sum = fma(weight's minimum, -(activation's scale · sum of its numbers), sum)}.
 * Blocks have 32 columns, and 16 in Q6_K. These sentences are the contract; the rest is speed.
 *
 * <p>Memory is read by its address: a bounds check per load costs more than the load. Bodies are
 * written out for the reason that {@link Kernels} gives.
 *
 * <p>Weights lie as {@link PackedMatrix} says: every vector of ints has four columns of as many
 * rows as it has lanes.
 */
final class IntegerKernels {

  private static final VectorSpecies<Float> F32 = Kernels.F32;
  private static final VectorSpecies<Integer> I32 = Kernels.I32;
  private static final VectorSpecies<Short> I16 = Kernels.I16;
  private static final int LANES = F32.length();
  private static final VectorSpecies<Byte> I8 = Conversions.I8;
  private static final MemorySegment MEMORY = Conversions.MEMORY;

  private IntegerKernels() {}

  /**
   * One row by one tile of bytes.
   *
   * @param tile its address
   * @param x broadcasts of the row: {@link QuantisedRows#broadcasts}
   * @param unit {@link PackedMatrix#unit}
   * @param sums 32 of them, overwritten
   */
  static void oneByte(long tile, int blocks, int[] x, float[] scales, float unit, float[] sums) {
    for (int lane = 0; lane < TILE; lane += 2 * LANES) {
      FloatVector sumA = FloatVector.zero(F32);
      FloatVector sumB = FloatVector.zero(F32);
      for (int block = 0; block < blocks; block++) {
        long base = tile + 34L * TILE * block;
        long quants = base + 2L * TILE + 4L * lane;
        int from = 16 * block;
        IntVector a = IntVector.zero(I32);
        IntVector b = IntVector.zero(I32);
        for (int k = 0; k < 8; k++) {
          ShortVector x0 = IntVector.broadcast(I32, x[from + 2 * k]).reinterpretAsShorts();
          ShortVector x1 = IntVector.broadcast(I32, x[from + 2 * k + 1]).reinterpretAsShorts();
          ShortVector v =
              IntVector.fromMemorySegment(I32, MEMORY, quants + 4L * TILE * k, LITTLE_ENDIAN)
                  .reinterpretAsShorts();
          IntVector sum =
              v.lanewise(VectorOperators.LSHL, 8)
                  .lanewise(VectorOperators.ASHR, 8)
                  .mul(x0)
                  .add(v.lanewise(VectorOperators.ASHR, 8).mul(x1))
                  .reinterpretAsInts();
          // Two products fit in 16 bits, three do not.
          a =
              a.add(sum.lanewise(VectorOperators.ASHR, 16))
                  .add(sum.lanewise(VectorOperators.LSHL, 16).lanewise(VectorOperators.ASHR, 16));
          v =
              IntVector.fromMemorySegment(
                      I32, MEMORY, quants + 4L * TILE * k + 4L * LANES, LITTLE_ENDIAN)
                  .reinterpretAsShorts();
          sum =
              v.lanewise(VectorOperators.LSHL, 8)
                  .lanewise(VectorOperators.ASHR, 8)
                  .mul(x0)
                  .add(v.lanewise(VectorOperators.ASHR, 8).mul(x1))
                  .reinterpretAsInts();
          b =
              b.add(sum.lanewise(VectorOperators.ASHR, 16))
                  .add(sum.lanewise(VectorOperators.LSHL, 16).lanewise(VectorOperators.ASHR, 16));
        }
        float scale = scales[block] * unit;
        long half = base + 2L * lane;
        FloatVector aScale =
            ((IntVector)
                    ShortVector.fromMemorySegment(I16, MEMORY, half, LITTLE_ENDIAN)
                        .convertShape(VectorOperators.S2I, I32, 0))
                .lanewise(VectorOperators.LSHL, 13)
                .and(0x8fffe000)
                .reinterpretAsFloats()
                .mul(scale);
        FloatVector bScale =
            ((IntVector)
                    ShortVector.fromMemorySegment(I16, MEMORY, half + 2L * LANES, LITTLE_ENDIAN)
                        .convertShape(VectorOperators.S2I, I32, 0))
                .lanewise(VectorOperators.LSHL, 13)
                .and(0x8fffe000)
                .reinterpretAsFloats()
                .mul(scale);
        sumA = ((FloatVector) a.convert(VectorOperators.I2F, 0)).fma(aScale, sumA);
        sumB = ((FloatVector) b.convert(VectorOperators.I2F, 0)).fma(bScale, sumB);
      }
      sumA.intoArray(sums, lane);
      sumB.intoArray(sums, lane + LANES);
    }
  }

  /**
   * One row by one tile of nibbles, each less 8.
   *
   * @param x broadcasts of the row: {@link QuantisedRows#broadcasts}
   * @param totals sums of the row's numbers, for each 16
   */
  static void oneNibble(
      long tile, int blocks, int[] x, int[] totals, float[] scales, float unit, float[] sums) {
    for (int lane = 0; lane < TILE; lane += 2 * LANES) {
      FloatVector sumA = FloatVector.zero(F32);
      FloatVector sumB = FloatVector.zero(F32);
      for (int block = 0; block < blocks; block++) {
        long base = tile + 18L * TILE * block;
        long quants = base + 2L * TILE + 4L * lane;
        int from = 16 * block;
        // 16 products of at most 15 · 127 fit in 16 bits.
        ShortVector a = IntVector.zero(I32).reinterpretAsShorts();
        ShortVector b = IntVector.zero(I32).reinterpretAsShorts();
        for (int k = 0; k < 4; k++) {
          ShortVector x0 = IntVector.broadcast(I32, x[from + 4 * k]).reinterpretAsShorts();
          ShortVector x1 = IntVector.broadcast(I32, x[from + 4 * k + 1]).reinterpretAsShorts();
          ShortVector x2 = IntVector.broadcast(I32, x[from + 4 * k + 2]).reinterpretAsShorts();
          ShortVector x3 = IntVector.broadcast(I32, x[from + 4 * k + 3]).reinterpretAsShorts();
          ShortVector v =
              IntVector.fromMemorySegment(I32, MEMORY, quants + 4L * TILE * k, LITTLE_ENDIAN)
                  .reinterpretAsShorts();
          a =
              a.add(v.mul(x0))
                  .add(v.lanewise(VectorOperators.LSHR, 4).mul(x1))
                  .add(v.lanewise(VectorOperators.LSHR, 8).mul(x2))
                  .add(v.lanewise(VectorOperators.LSHR, 12).mul(x3));
          v =
              IntVector.fromMemorySegment(
                      I32, MEMORY, quants + 4L * TILE * k + 4L * LANES, LITTLE_ENDIAN)
                  .reinterpretAsShorts();
          b =
              b.add(v.mul(x0))
                  .add(v.lanewise(VectorOperators.LSHR, 4).mul(x1))
                  .add(v.lanewise(VectorOperators.LSHR, 8).mul(x2))
                  .add(v.lanewise(VectorOperators.LSHR, 12).mul(x3));
        }
        int eights = 8 * (totals[2 * block] + totals[2 * block + 1]);
        IntVector aSum = a.reinterpretAsInts();
        aSum =
            aSum.lanewise(VectorOperators.LSHL, 16)
                .lanewise(VectorOperators.ASHR, 16)
                .add(aSum.lanewise(VectorOperators.ASHR, 16))
                .sub(eights);
        IntVector bSum = b.reinterpretAsInts();
        bSum =
            bSum.lanewise(VectorOperators.LSHL, 16)
                .lanewise(VectorOperators.ASHR, 16)
                .add(bSum.lanewise(VectorOperators.ASHR, 16))
                .sub(eights);
        float scale = scales[block] * unit;
        long half = base + 2L * lane;
        FloatVector aScale =
            ((IntVector)
                    ShortVector.fromMemorySegment(I16, MEMORY, half, LITTLE_ENDIAN)
                        .convertShape(VectorOperators.S2I, I32, 0))
                .lanewise(VectorOperators.LSHL, 13)
                .and(0x8fffe000)
                .reinterpretAsFloats()
                .mul(scale);
        FloatVector bScale =
            ((IntVector)
                    ShortVector.fromMemorySegment(I16, MEMORY, half + 2L * LANES, LITTLE_ENDIAN)
                        .convertShape(VectorOperators.S2I, I32, 0))
                .lanewise(VectorOperators.LSHL, 13)
                .and(0x8fffe000)
                .reinterpretAsFloats()
                .mul(scale);
        sumA = ((FloatVector) aSum.convert(VectorOperators.I2F, 0)).fma(aScale, sumA);
        sumB = ((FloatVector) bSum.convert(VectorOperators.I2F, 0)).fma(bScale, sumB);
      }
      sumA.intoArray(sums, lane);
      sumB.intoArray(sums, lane + LANES);
    }
  }

  /**
   * One row by one tile of Q4_K or Q5_K.
   *
   * @param blocks of 32 columns
   * @param x broadcasts of the row: {@link QuantisedRows#broadcasts}
   * @param least {@link QuantisedRows#minimumFactors}
   */
  static void oneWithMinima(
      WeightType type,
      long tile,
      int blocks,
      int[] x,
      float[] scales,
      float[] least,
      float unit,
      float[] sums) {
    boolean five = type == WeightType.Q5_K;
    int highMask = five ? 0x01010101 : 0;
    long highOffset = (five ? 18L : 2L) * TILE;
    long superBytes = PackedMatrix.superBytes(type);
    long subBytes = PackedMatrix.subBytes(type);
    for (int lane = 0; lane < TILE; lane += LANES) {
      FloatVector sum = FloatVector.zero(F32);
      for (int block = 0; block < blocks; block++) {
        long head = tile + superBytes * (block / 8);
        long sub = head + PackedMatrix.headBytes(type) + subBytes * (block % 8);
        IntVector bits =
            IntVector.fromMemorySegment(I32, MEMORY, sub + highOffset + 4L * lane, LITTLE_ENDIAN);
        IntVector dot = IntVector.zero(I32);
        for (int upper = 0; upper < 2; upper++) {
          // 8 products of at most 31 · 127 fit in 16 bits.
          ShortVector part = IntVector.zero(I32).reinterpretAsShorts();
          for (int group = 0; group < 4; group++) {
            int from = 16 * block + 2 * (4 * upper + group);
            ShortVector x0 = IntVector.broadcast(I32, x[from]).reinterpretAsShorts();
            ShortVector x1 = IntVector.broadcast(I32, x[from + 1]).reinterpretAsShorts();
            ShortVector four =
                IntVector.fromMemorySegment(
                        I32, MEMORY, sub + 4L * TILE * group + 2L * TILE + 4L * lane, LITTLE_ENDIAN)
                    .lanewise(VectorOperators.LSHR, 4 * upper)
                    .and(0x0f0f0f0f)
                    .or(
                        bits.lanewise(VectorOperators.LSHR, 4 * upper + group)
                            .and(highMask)
                            .lanewise(VectorOperators.LSHL, 4))
                    .reinterpretAsShorts();
            part =
                part.add(four.and((short) 0xff).mul(x0))
                    .add(four.lanewise(VectorOperators.LSHR, 8).mul(x1));
          }
          IntVector two = part.reinterpretAsInts();
          dot =
              dot.add(two.lanewise(VectorOperators.ASHR, 16))
                  .add(two.lanewise(VectorOperators.LSHL, 16).lanewise(VectorOperators.ASHR, 16));
        }
        FloatVector scale =
            ((IntVector)
                    ShortVector.fromMemorySegment(I16, MEMORY, head + 2L * lane, LITTLE_ENDIAN)
                        .convertShape(VectorOperators.S2I, I32, 0))
                .lanewise(VectorOperators.LSHL, 13)
                .and(0x8fffe000)
                .reinterpretAsFloats()
                .mul(unit)
                .mul(
                    ByteVector.fromMemorySegment(I8, MEMORY, sub + lane, LITTLE_ENDIAN)
                        .convertShape(VectorOperators.B2F, F32, 0))
                .mul(scales[block]);
        FloatVector minimum =
            ((IntVector)
                    ShortVector.fromMemorySegment(
                            I16, MEMORY, head + 2L * (TILE + lane), LITTLE_ENDIAN)
                        .convertShape(VectorOperators.S2I, I32, 0))
                .lanewise(VectorOperators.LSHL, 13)
                .and(0x8fffe000)
                .reinterpretAsFloats()
                .mul(unit)
                .mul(
                    ByteVector.fromMemorySegment(I8, MEMORY, sub + TILE + lane, LITTLE_ENDIAN)
                        .convertShape(VectorOperators.B2F, F32, 0));
        sum = ((FloatVector) dot.convert(VectorOperators.I2F, 0)).fma(scale, sum);
        sum = minimum.fma(FloatVector.broadcast(F32, least[block]), sum);
      }
      sum.intoArray(sums, lane);
    }
  }

  /**
   * One row by one tile of Q6_K.
   *
   * @param blocks of 32 columns
   * @param x broadcasts of the row: {@link QuantisedRows#broadcasts}
   * @param totals sums of the row's numbers, for each 16
   */
  static void oneQ6(
      long tile, int blocks, int[] x, int[] totals, float[] scales, float unit, float[] sums) {
    long superBytes = PackedMatrix.superBytes(WeightType.Q6_K);
    long subBytes = PackedMatrix.subBytes(WeightType.Q6_K);
    for (int lane = 0; lane < TILE; lane += LANES) {
      FloatVector sum = FloatVector.zero(F32);
      for (int block = 0; block < blocks; block++) {
        long head = tile + superBytes * (block / 8);
        long sub = head + 2L * TILE + subBytes * (block % 8);
        FloatVector all =
            ((IntVector)
                    ShortVector.fromMemorySegment(I16, MEMORY, head + 2L * lane, LITTLE_ENDIAN)
                        .convertShape(VectorOperators.S2I, I32, 0))
                .lanewise(VectorOperators.LSHL, 13)
                .and(0x8fffe000)
                .reinterpretAsFloats()
                .mul(unit);
        for (int upper = 0; upper < 2; upper++) {
          IntVector bits =
              IntVector.fromMemorySegment(
                  I32, MEMORY, sub + (18L + 4L * upper) * TILE + 4L * lane, LITTLE_ENDIAN);
          IntVector dot = IntVector.broadcast(I32, -32 * totals[2 * block + upper]);
          for (int group = 0; group < 4; group++) {
            int from = 16 * block + 2 * (4 * upper + group);
            ShortVector x0 = IntVector.broadcast(I32, x[from]).reinterpretAsShorts();
            ShortVector x1 = IntVector.broadcast(I32, x[from + 1]).reinterpretAsShorts();
            ShortVector four =
                IntVector.fromMemorySegment(
                        I32, MEMORY, sub + 4L * TILE * group + 2L * TILE + 4L * lane, LITTLE_ENDIAN)
                    .lanewise(VectorOperators.LSHR, 4 * upper)
                    .and(0x0f0f0f0f)
                    .or(
                        bits.lanewise(VectorOperators.LSHR, 2 * group)
                            .and(0x03030303)
                            .lanewise(VectorOperators.LSHL, 4))
                    .reinterpretAsShorts();
            IntVector two =
                four.and((short) 0xff)
                    .mul(x0)
                    .add(four.lanewise(VectorOperators.LSHR, 8).mul(x1))
                    .reinterpretAsInts();
            dot =
                dot.add(two.lanewise(VectorOperators.ASHR, 16))
                    .add(two.lanewise(VectorOperators.LSHL, 16).lanewise(VectorOperators.ASHR, 16));
          }
          FloatVector scale =
              all.mul(
                      ByteVector.fromMemorySegment(
                              I8, MEMORY, sub + (long) TILE * upper + lane, LITTLE_ENDIAN)
                          .convertShape(VectorOperators.B2F, F32, 0))
                  .mul(scales[block]);
          sum = ((FloatVector) dot.convert(VectorOperators.I2F, 0)).fma(scale, sum);
        }
      }
      sum.intoArray(sums, lane);
    }
  }

  /**
   * Adds the products of rows with one block of a tile, in floats that are integers: exact, for
   * they stay below 2^24.
   *
   * @param panel columns of 32
   * @param firstColumn of the panel
   * @param columns of the panel
   * @param x numbers of the rows: row {@code r} starts at {@code xOffset + r · xStride}
   * @param scales of the weights: 32
   * @param xScales row {@code r} has its own at {@code scaleOffset + r · scaleStride}
   * @param sums row {@code r} has 32 at {@code 32 · r}
   */
  static void addBlock(
      float[] panel,
      int firstColumn,
      int columns,
      float[] x,
      int xOffset,
      int xStride,
      float[] scales,
      float[] xScales,
      int scaleOffset,
      int scaleStride,
      int rows,
      float[] sums) {
    for (int lane = 0; lane < TILE; lane += 2 * LANES) {
      FloatVector aScale = FloatVector.fromArray(F32, scales, lane);
      FloatVector bScale = FloatVector.fromArray(F32, scales, lane + LANES);
      int row = 0;
      for (; row + 4 <= rows; row += 4) {
        int x0 = xOffset + row * xStride;
        int x1 = x0 + xStride;
        int x2 = x1 + xStride;
        int x3 = x2 + xStride;
        FloatVector a0 = FloatVector.zero(F32);
        FloatVector b0 = FloatVector.zero(F32);
        FloatVector a1 = FloatVector.zero(F32);
        FloatVector b1 = FloatVector.zero(F32);
        FloatVector a2 = FloatVector.zero(F32);
        FloatVector b2 = FloatVector.zero(F32);
        FloatVector a3 = FloatVector.zero(F32);
        FloatVector b3 = FloatVector.zero(F32);
        for (int column = 0; column < columns; column++) {
          FloatVector a = FloatVector.fromArray(F32, panel, TILE * (firstColumn + column) + lane);
          FloatVector b =
              FloatVector.fromArray(F32, panel, TILE * (firstColumn + column) + lane + LANES);
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
        int at = TILE * row + lane;
        int s = scaleOffset + row * scaleStride;
        FloatVector scale = FloatVector.broadcast(F32, xScales[s]);
        a0.fma(aScale.mul(scale), FloatVector.fromArray(F32, sums, at)).intoArray(sums, at);
        b0.fma(bScale.mul(scale), FloatVector.fromArray(F32, sums, at + LANES))
            .intoArray(sums, at + LANES);
        at += TILE;
        scale = FloatVector.broadcast(F32, xScales[s + scaleStride]);
        a1.fma(aScale.mul(scale), FloatVector.fromArray(F32, sums, at)).intoArray(sums, at);
        b1.fma(bScale.mul(scale), FloatVector.fromArray(F32, sums, at + LANES))
            .intoArray(sums, at + LANES);
        at += TILE;
        scale = FloatVector.broadcast(F32, xScales[s + 2 * scaleStride]);
        a2.fma(aScale.mul(scale), FloatVector.fromArray(F32, sums, at)).intoArray(sums, at);
        b2.fma(bScale.mul(scale), FloatVector.fromArray(F32, sums, at + LANES))
            .intoArray(sums, at + LANES);
        at += TILE;
        scale = FloatVector.broadcast(F32, xScales[s + 3 * scaleStride]);
        a3.fma(aScale.mul(scale), FloatVector.fromArray(F32, sums, at)).intoArray(sums, at);
        b3.fma(bScale.mul(scale), FloatVector.fromArray(F32, sums, at + LANES))
            .intoArray(sums, at + LANES);
      }
      for (; row < rows; row++) {
        int x0 = xOffset + row * xStride;
        FloatVector a0 = FloatVector.zero(F32);
        FloatVector b0 = FloatVector.zero(F32);
        for (int column = 0; column < columns; column++) {
          FloatVector value = FloatVector.broadcast(F32, x[x0 + column]);
          a0 =
              FloatVector.fromArray(F32, panel, TILE * (firstColumn + column) + lane)
                  .fma(value, a0);
          b0 =
              FloatVector.fromArray(F32, panel, TILE * (firstColumn + column) + lane + LANES)
                  .fma(value, b0);
        }
        int at = TILE * row + lane;
        FloatVector scale = FloatVector.broadcast(F32, xScales[scaleOffset + row * scaleStride]);
        a0.fma(aScale.mul(scale), FloatVector.fromArray(F32, sums, at)).intoArray(sums, at);
        b0.fma(bScale.mul(scale), FloatVector.fromArray(F32, sums, at + LANES))
            .intoArray(sums, at + LANES);
      }
    }
  }

  /**
   * Adds what the minima of one block of Q4_K or Q5_K come to.
   *
   * @param minima 32
   * @param least row {@code r} has its factor at {@code offset + r · stride}: {@link
   *     QuantisedRows#minimumFactors}
   */
  static void addMinima(
      float[] minima, float[] least, int offset, int stride, int rows, float[] sums) {
    for (int row = 0; row < rows; row++) {
      FloatVector factor = FloatVector.broadcast(F32, least[offset + row * stride]);
      for (int lane = 0; lane < TILE; lane += LANES) {
        int at = TILE * row + lane;
        FloatVector.fromArray(F32, minima, lane)
            .fma(factor, FloatVector.fromArray(F32, sums, at))
            .intoArray(sums, at);
      }
    }
  }
}

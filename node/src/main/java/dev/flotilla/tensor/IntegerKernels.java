package dev.flotilla.tensor;

import static dev.flotilla.tensor.PackedMatrix.TILE;
import static java.nio.ByteOrder.LITTLE_ENDIAN;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import jdk.incubator.vector.ByteVector;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.ShortVector;
import jdk.incubator.vector.VectorOperators;
import jdk.incubator.vector.VectorShape;
import jdk.incubator.vector.VectorSpecies;

/**
 * Products of activations of 8 bits with quantised weights. Within a block of 32 columns everything
 * is an integer, so any kernel, of any width, on any unit, has the same sum; across blocks, a row's
 * result is the chain {@code sum = fma(block's sum, weight's scale · activation's scale, sum)} in
 * the order of the blocks, from zero. These two sentences are the contract; the rest is speed.
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
  private static final VectorSpecies<Byte> I8 =
      VectorSpecies.of(byte.class, VectorShape.forBitSize(Math.max(64, 8 * LANES)));

  /** All of memory: offsets are addresses. */
  @SuppressWarnings("restricted") // the launcher grants native access
  private static final MemorySegment MEMORY = MemorySegment.NULL.reinterpret(Long.MAX_VALUE);

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
   * @param totals sums of the row's numbers, block by block
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
        int eights = 8 * totals[block];
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
   * A block's 32 scales in single precision.
   *
   * @param from address of their halves
   */
  static void scales(long from, float unit, float[] scales) {
    for (int i = 0; i < TILE; i += LANES) {
      ((IntVector)
              ShortVector.fromMemorySegment(I16, MEMORY, from + 2L * i, LITTLE_ENDIAN)
                  .convertShape(VectorOperators.S2I, I32, 0))
          .lanewise(VectorOperators.LSHL, 13)
          .and(0x8fffe000)
          .reinterpretAsFloats()
          .mul(unit)
          .intoArray(scales, i);
    }
  }

  /** Blocks of one tile of nibbles as blocks of a tile of bytes, with the same scales. */
  static void nibblesToBytes(long tile, int blocks, long to) {
    for (int block = 0; block < blocks; block++) {
      long from = tile + 18L * TILE * block;
      long at = to + 34L * TILE * block;
      for (int i = 0; i < 2 * TILE; i += 4 * LANES) {
        IntVector.fromMemorySegment(I32, MEMORY, from + i, LITTLE_ENDIAN)
            .intoMemorySegment(MEMORY, at + i, LITTLE_ENDIAN);
      }
      from += 2L * TILE;
      at += 2L * TILE;
      for (int i = 0; i < 16 * TILE; i += 4 * LANES) {
        IntVector both = IntVector.fromMemorySegment(I32, MEMORY, from + i, LITTLE_ENDIAN);
        both.and(0x0f0f0f0f)
            .reinterpretAsBytes()
            .sub((byte) 8)
            .intoMemorySegment(MEMORY, at + i, LITTLE_ENDIAN);
        both.lanewise(VectorOperators.LSHR, 4)
            .and(0x0f0f0f0f)
            .reinterpretAsBytes()
            .sub((byte) 8)
            .intoMemorySegment(MEMORY, at + 16L * TILE + i, LITTLE_ENDIAN);
      }
    }
  }

  /** Bytes of one block of a tile as floats, column by column: 32 columns of 32. */
  static void bytesToFloats(long from, float[] panel) {
    for (int k = 0; k < 8; k++) {
      for (int lane = 0; lane < TILE; lane += LANES) {
        IntVector four =
            IntVector.fromMemorySegment(I32, MEMORY, from + 4L * (TILE * k + lane), LITTLE_ENDIAN);
        int to = 4 * TILE * k + lane;
        ((FloatVector)
                four.lanewise(VectorOperators.LSHL, 24)
                    .lanewise(VectorOperators.ASHR, 24)
                    .convert(VectorOperators.I2F, 0))
            .intoArray(panel, to);
        ((FloatVector)
                four.lanewise(VectorOperators.LSHL, 16)
                    .lanewise(VectorOperators.ASHR, 24)
                    .convert(VectorOperators.I2F, 0))
            .intoArray(panel, to + TILE);
        ((FloatVector)
                four.lanewise(VectorOperators.LSHL, 8)
                    .lanewise(VectorOperators.ASHR, 24)
                    .convert(VectorOperators.I2F, 0))
            .intoArray(panel, to + 2 * TILE);
        ((FloatVector) four.lanewise(VectorOperators.ASHR, 24).convert(VectorOperators.I2F, 0))
            .intoArray(panel, to + 3 * TILE);
      }
    }
  }

  /**
   * Adds the products of rows with one block of a tile, in floats that are integers: exact, for
   * they stay below 2^24.
   *
   * @param panel 32 columns of 32
   * @param x numbers of the rows: row {@code r} starts at {@code xOffset + r · xStride}
   * @param scales of the weights: 32
   * @param xScales row {@code r} has its own at {@code scaleOffset + r · scaleStride}
   * @param sums row {@code r} has 32 at {@code 32 · r}
   */
  static void addBlock(
      float[] panel,
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
        for (int column = 0; column < 32; column++) {
          FloatVector a = FloatVector.fromArray(F32, panel, TILE * column + lane);
          FloatVector b = FloatVector.fromArray(F32, panel, TILE * column + lane + LANES);
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
        for (int column = 0; column < 32; column++) {
          FloatVector value = FloatVector.broadcast(F32, x[x0 + column]);
          a0 = FloatVector.fromArray(F32, panel, TILE * column + lane).fma(value, a0);
          b0 = FloatVector.fromArray(F32, panel, TILE * column + lane + LANES).fma(value, b0);
        }
        int at = TILE * row + lane;
        FloatVector scale = FloatVector.broadcast(F32, xScales[scaleOffset + row * scaleStride]);
        a0.fma(aScale.mul(scale), FloatVector.fromArray(F32, sums, at)).intoArray(sums, at);
        b0.fma(bScale.mul(scale), FloatVector.fromArray(F32, sums, at + LANES))
            .intoArray(sums, at + LANES);
      }
    }
  }

  /** Floats from memory to an array; runs of whole vectors, or fewer than one. */
  static void copy(long from, float[] to, int first, int count) {
    int i = 0;
    for (; i + LANES <= count; i += LANES) {
      FloatVector.fromMemorySegment(F32, MEMORY, from + 4L * i, LITTLE_ENDIAN)
          .intoArray(to, first + i);
    }
    for (; i < count; i++) {
      to[first + i] = MEMORY.get(ValueLayout.JAVA_FLOAT, from + 4L * i);
    }
  }

  static void set(long address, int value) {
    MEMORY.set(ValueLayout.JAVA_INT, address, value);
  }

  /** 32 numbers, floats that are small integers, as bytes. */
  static void toBytes(float[] quants, int first, long to) {
    if (LANES < 8) {
      for (int i = 0; i < QuantisedRows.BLOCK; i++) {
        MEMORY.set(ValueLayout.JAVA_BYTE, to + i, (byte) quants[first + i]);
      }
      return;
    }
    for (int i = 0; i < QuantisedRows.BLOCK; i += LANES) {
      ((ByteVector)
              FloatVector.fromArray(F32, quants, first + i)
                  .convertShape(VectorOperators.F2B, I8, 0))
          .intoMemorySegment(MEMORY, to + i, LITTLE_ENDIAN);
    }
  }

  /** 32 numbers rounded to the upper halves of single precision, to even between two. */
  static void toBf16(float[] values, int first, long to) {
    for (int i = 0; i < 32; i += LANES) {
      FloatVector value = FloatVector.fromArray(F32, values, first + i);
      IntVector bits = value.reinterpretAsInts();
      IntVector rounded =
          bits.lanewise(VectorOperators.LSHR, 16)
              .and(1)
              .add(0x7fff)
              .add(bits)
              .blend(0x7fc00000, value.test(VectorOperators.IS_NAN).cast(I32))
              .lanewise(VectorOperators.LSHR, 16);
      ((ShortVector) rounded.convertShape(VectorOperators.I2S, I16, 0))
          .intoMemorySegment(MEMORY, to + 2L * i, LITTLE_ENDIAN);
    }
  }
}

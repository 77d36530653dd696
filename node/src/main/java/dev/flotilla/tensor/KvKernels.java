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
 * Takes keys and values into tiles of a {@link KvLayout}, and decodes such tiles to plain columns.
 * A decoded value is rounded to single precision, so that attention gives the same bits on every
 * machine; see {@link Kernels}.
 */
final class KvKernels {

  private static final int LANES = Kernels.lanes();
  private static final VectorSpecies<Float> F32 =
      VectorSpecies.of(float.class, VectorShape.forBitSize(32 * LANES));
  private static final VectorSpecies<Integer> I32 =
      VectorSpecies.of(int.class, VectorShape.forBitSize(32 * LANES));
  private static final VectorSpecies<Short> I16 =
      VectorSpecies.of(short.class, VectorShape.forBitSize(16 * LANES));

  /** Two vectors' worth: the narrowest shape is 64 bits. */
  private static final VectorSpecies<Byte> I8 =
      VectorSpecies.of(byte.class, VectorShape.forBitSize(16 * LANES));

  private static final int PAIR = 2 * LANES;

  static final ValueLayout.OfFloat FLOAT =
      ValueLayout.JAVA_FLOAT_UNALIGNED.withOrder(LITTLE_ENDIAN);
  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(LITTLE_ENDIAN);

  private static final float HALF_MOST = 65_504;
  private static final float QUANT_MOST = 127;

  private KvKernels() {}

  /** The nearest half-precision number; beyond the largest one, that. */
  static short half(float value) {
    return Float.floatToFloat16(Math.clamp(value, -HALF_MOST, HALF_MOST));
  }

  static void putHalf(MemorySegment memory, long at, float value) {
    memory.set(SHORT, at, half(value));
  }

  /**
   * Quantises up to 32 elements of one position.
   *
   * @param scaleAt where their scale goes
   * @param firstAt where the first quant goes; the next ones are {@code stride} bytes apart
   */
  static void putQuants(
      MemorySegment memory,
      long scaleAt,
      long firstAt,
      int stride,
      float[] values,
      int from,
      int count) {
    float largest = 0;
    for (int i = from; i < from + count; i++) {
      largest = Math.max(largest, Math.abs(values[i]));
    }
    float scale = largest / QUANT_MOST;
    memory.set(SHORT, scaleAt, half(scale));
    float inverse = scale == 0 ? 0 : 1 / scale;
    for (int i = 0; i < count; i++) {
      float quant = Math.clamp(values[from + i] * inverse, -QUANT_MOST, QUANT_MOST);
      memory.set(ValueLayout.JAVA_BYTE, firstAt + (long) i * stride, (byte) Math.rint(quant));
    }
  }

  /** Half precision to single: {@code count} values, a multiple of 32. */
  static void decodeHalves(MemorySegment tile, long from, int count, MemorySegment plain) {
    for (int i = 0; i < count; i += LANES) {
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

  /** A square whose rows have the scales, to 32 plain columns at {@code to}. */
  static void decodeRowScaled(MemorySegment tile, long from, MemorySegment plain, long to) {
    for (int lane = 0; lane < TILE; lane += PAIR) {
      FloatVector aScale =
          ((IntVector)
                  ShortVector.fromMemorySegment(I16, tile, from + 2L * lane, LITTLE_ENDIAN)
                      .convertShape(VectorOperators.S2I, I32, 0))
              .lanewise(VectorOperators.LSHL, 13)
              .and(0x8fffe000)
              .reinterpretAsFloats()
              .mul(0x1p112f);
      FloatVector bScale =
          ((IntVector)
                  ShortVector.fromMemorySegment(
                          I16, tile, from + 2L * (lane + LANES), LITTLE_ENDIAN)
                      .convertShape(VectorOperators.S2I, I32, 0))
              .lanewise(VectorOperators.LSHL, 13)
              .and(0x8fffe000)
              .reinterpretAsFloats()
              .mul(0x1p112f);
      for (int column = 0; column < TILE; column++) {
        ByteVector quants =
            ByteVector.fromMemorySegment(
                I8, tile, from + 2L * TILE + TILE * (long) column + lane, LITTLE_ENDIAN);
        long at = to + 4L * (TILE * (long) column + lane);
        ((FloatVector) quants.convertShape(VectorOperators.B2F, F32, 0))
            .mul(aScale)
            .intoMemorySegment(plain, at, LITTLE_ENDIAN);
        ((FloatVector) quants.convertShape(VectorOperators.B2F, F32, 1))
            .mul(bScale)
            .intoMemorySegment(plain, at + 4L * LANES, LITTLE_ENDIAN);
      }
    }
  }

  /** A square whose columns have the scales: some of its columns to plain ones, from 0. */
  static void decodeColumnScaled(
      MemorySegment tile, long from, int first, int columns, MemorySegment plain) {
    for (int i = 0; i < columns; i++) {
      int column = first + i;
      float scale = Float.float16ToFloat(tile.get(SHORT, from + 2L * column));
      for (int lane = 0; lane < TILE; lane += PAIR) {
        ByteVector quants =
            ByteVector.fromMemorySegment(
                I8, tile, from + 2L * TILE + TILE * (long) column + lane, LITTLE_ENDIAN);
        long at = 4L * (TILE * (long) i + lane);
        ((FloatVector) quants.convertShape(VectorOperators.B2F, F32, 0))
            .mul(scale)
            .intoMemorySegment(plain, at, LITTLE_ENDIAN);
        ((FloatVector) quants.convertShape(VectorOperators.B2F, F32, 1))
            .mul(scale)
            .intoMemorySegment(plain, at + 4L * LANES, LITTLE_ENDIAN);
      }
    }
  }
}

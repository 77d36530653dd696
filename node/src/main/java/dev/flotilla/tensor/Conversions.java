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
 * Numbers from one form to another, between arrays and memory that is read by its address: a bounds
 * check per load costs more than the load.
 */
final class Conversions {

  private static final VectorSpecies<Float> F32 = Kernels.F32;
  private static final VectorSpecies<Integer> I32 = Kernels.I32;
  private static final VectorSpecies<Short> I16 = Kernels.I16;
  private static final int LANES = F32.length();

  /** As many as there are floats; the narrowest shape is 64 bits. */
  static final VectorSpecies<Byte> I8 =
      VectorSpecies.of(byte.class, VectorShape.forBitSize(Math.max(64, 8 * LANES)));

  /** All of memory: offsets are addresses. */
  @SuppressWarnings("restricted") // the launcher grants native access
  static final MemorySegment MEMORY = MemorySegment.NULL.reinterpret(Long.MAX_VALUE);

  private Conversions() {}

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

  /** Numbers of 32 columns of a K-quant as floats, column by column: 32 columns of 32. */
  static void subBlockToFloats(WeightType type, long sub, float[] panel) {
    boolean six = type == WeightType.Q6_K;
    int highMask = six ? 0x03030303 : type == WeightType.Q5_K ? 0x01010101 : 0;
    int less = six ? 32 : 0;
    for (int upper = 0; upper < 2; upper++) {
      long high = sub + (type == WeightType.Q4_K ? 2L : six ? 18L + 4L * upper : 18L) * TILE;
      for (int group = 0; group < 4; group++) {
        int shift = six ? 2 * group : 4 * upper + group;
        int to = TILE * (16 * upper + 4 * group);
        for (int lane = 0; lane < TILE; lane += LANES) {
          IntVector four =
              IntVector.fromMemorySegment(
                      I32, MEMORY, sub + 2L * TILE + 4L * (TILE * group + lane), LITTLE_ENDIAN)
                  .lanewise(VectorOperators.LSHR, 4 * upper)
                  .and(0x0f0f0f0f)
                  .or(
                      IntVector.fromMemorySegment(I32, MEMORY, high + 4L * lane, LITTLE_ENDIAN)
                          .lanewise(VectorOperators.LSHR, shift)
                          .and(highMask)
                          .lanewise(VectorOperators.LSHL, 4));
          for (int i = 0; i < 4; i++) {
            ((FloatVector)
                    four.lanewise(VectorOperators.LSHR, 8 * i)
                        .and(0xff)
                        .sub(less)
                        .convert(VectorOperators.I2F, 0))
                .intoArray(panel, to + TILE * i + lane);
          }
        }
      }
    }
  }

  /**
   * 32 scales or minima of a sub-block in single precision.
   *
   * @param halves address of what the super-block has of them
   * @param bytes address of the sub-block's
   */
  static void subScales(long halves, long bytes, float unit, float[] scales) {
    for (int i = 0; i < TILE; i += LANES) {
      ((IntVector)
              ShortVector.fromMemorySegment(I16, MEMORY, halves + 2L * i, LITTLE_ENDIAN)
                  .convertShape(VectorOperators.S2I, I32, 0))
          .lanewise(VectorOperators.LSHL, 13)
          .and(0x8fffe000)
          .reinterpretAsFloats()
          .mul(unit)
          .mul(
              ByteVector.fromMemorySegment(I8, MEMORY, bytes + i, LITTLE_ENDIAN)
                  .convertShape(VectorOperators.B2F, F32, 0))
          .intoArray(scales, i);
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

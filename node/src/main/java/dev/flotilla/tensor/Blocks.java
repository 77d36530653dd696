package dev.flotilla.tensor;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;

/**
 * Rows of weights as files hold them: encoding, decoding, and the arithmetic of one element, which
 * every kernel repeats exactly.
 */
public final class Blocks {

  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfFloat FLOAT =
      ValueLayout.JAVA_FLOAT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  private Blocks() {}

  /**
   * Encodes {@code count} values, a whole number of blocks, at {@code offset}. Q8_0 as in ggml: the
   * scale is the largest magnitude over 127, and values round half away from zero. Q4_0 as in ggml:
   * the scale makes the value of the largest magnitude -8.
   */
  public static void encode(
      WeightType type, float[] values, int first, int count, MemorySegment target, long offset) {
    switch (type) {
      case F32 -> {
        for (int i = 0; i < count; i++) {
          target.set(FLOAT, offset + 4L * i, values[first + i]);
        }
      }
      case F16 -> {
        for (int i = 0; i < count; i++) {
          target.set(SHORT, offset + 2L * i, Float.floatToFloat16(values[first + i]));
        }
      }
      case Q8_0 -> {
        for (int block = 0; block < count / 32; block++) {
          encodeQ8(values, first + 32 * block, target, offset + 34L * block);
        }
      }
      case BF16 -> {
        for (int i = 0; i < count; i++) {
          target.set(SHORT, offset + 2L * i, floatToBrain(values[first + i]));
        }
      }
      case Q4_0 -> {
        for (int block = 0; block < count / 32; block++) {
          encodeQ4(values, first + 32 * block, target, offset + 18L * block);
        }
      }
      case Q4_K, Q5_K, Q6_K -> {
        for (int block = 0; block < count / SuperBlocks.ELEMENTS; block++) {
          int from = first + SuperBlocks.ELEMENTS * block;
          SuperBlocks.encode(type, values, from, target, offset + type.blockBytes() * (long) block);
        }
      }
    }
  }

  private static void encodeQ8(float[] values, int first, MemorySegment target, long offset) {
    float largest = 0;
    for (int i = 0; i < 32; i++) {
      largest = Math.max(largest, Math.abs(values[first + i]));
    }
    float scale = largest / 127;
    float inverse = scale == 0 ? 0 : 1 / scale;
    target.set(SHORT, offset, Float.floatToFloat16(scale));
    for (int i = 0; i < 32; i++) {
      float scaled = values[first + i] * inverse;
      int rounded = (int) (scaled + Math.copySign(0.5f, scaled));
      target.set(ValueLayout.JAVA_BYTE, offset + 2 + i, (byte) rounded);
    }
  }

  private static void encodeQ4(float[] values, int first, MemorySegment target, long offset) {
    float largest = 0;
    for (int i = 0; i < 32; i++) {
      float value = values[first + i];
      largest = Math.abs(value) > Math.abs(largest) ? value : largest;
    }
    float scale = largest / -8;
    float inverse = scale == 0 ? 0 : 1 / scale;
    target.set(SHORT, offset, Float.floatToFloat16(scale));
    for (int i = 0; i < 16; i++) {
      int low = Math.min(15, (int) (values[first + i] * inverse + 8.5f));
      int high = Math.min(15, (int) (values[first + 16 + i] * inverse + 8.5f));
      target.set(ValueLayout.JAVA_BYTE, offset + 2 + i, (byte) (low | high << 4));
    }
  }

  /** Rounds to the nearest, to even between two; not for NaN. */
  static short floatToBrain(float value) {
    int bits = Float.floatToRawIntBits(value);
    return (short) ((bits + 0x7fff + (bits >>> 16 & 1)) >>> 16);
  }

  /** Decodes {@code count} values, a whole number of blocks, from {@code offset}. */
  public static void decode(
      WeightType type, MemorySegment source, long offset, float[] values, int first, int count) {
    switch (type) {
      case F32 -> {
        for (int i = 0; i < count; i++) {
          values[first + i] = source.get(FLOAT, offset + 4L * i);
        }
      }
      case F16 -> {
        for (int i = 0; i < count; i++) {
          values[first + i] = halfToFloat(source.get(SHORT, offset + 2L * i));
        }
      }
      case Q8_0 -> {
        for (int i = 0; i < count; i++) {
          long block = offset + 34L * (i / 32);
          float scale = halfToFloat(source.get(SHORT, block));
          values[first + i] = source.get(ValueLayout.JAVA_BYTE, block + 2 + i % 32) * scale;
        }
      }
      case BF16 -> {
        for (int i = 0; i < count; i++) {
          values[first + i] = Float.intBitsToFloat(source.get(SHORT, offset + 2L * i) << 16);
        }
      }
      case Q4_0 -> {
        for (int i = 0; i < count; i++) {
          long block = offset + 18L * (i / 32);
          float scale = halfToFloat(source.get(SHORT, block));
          values[first + i] = (fourBits(source, block + 2, i % 32) - 8) * scale;
        }
      }
      case Q4_K, Q5_K, Q6_K -> {
        for (int i = 0; i < count; i++) {
          long block = offset + type.blockBytes() * (long) (i / SuperBlocks.ELEMENTS);
          values[first + i] = SuperBlocks.value(type, source, block, i % SuperBlocks.ELEMENTS);
        }
      }
    }
  }

  /** Of 32 numbers of 4 bits in 16 bytes, the first 16 in their lower halves. */
  static int fourBits(MemorySegment source, long offset, int i) {
    int pair = source.get(ValueLayout.JAVA_BYTE, offset + i % 16);
    return (i < 16 ? pair : pair >> 4) & 15;
  }

  /**
   * Half to single precision in the steps that the vector kernels take: exact for every finite
   * value; infinities and NaN, which weights never are, become large finite numbers.
   */
  static float halfToFloat(short half) {
    return Float.intBitsToFloat((half << 13) & 0x8fffe000) * 0x1p112f;
  }
}

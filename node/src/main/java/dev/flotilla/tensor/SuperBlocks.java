package dev.flotilla.tensor;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;

/**
 * The blocks of 256 that ggml calls K-quants, as files have them: a half-precision scale over
 * smaller scales, one for every 32 elements (16 in {@code Q6_K}), each element a small number times
 * its scale, less its minimum in {@code Q4_K} and {@code Q5_K}.
 *
 * <p>Encoding takes each sub-block's range as it is; programs that search for better scales lose
 * less.
 */
final class SuperBlocks {

  /** Elements of a block. */
  static final int ELEMENTS = 256;

  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  /** Runs of 32 elements. */
  static final int SUB_BLOCKS = 8;

  /** Where parts of a block begin: Q4_K and Q5_K. */
  private static final int MINIMUM = 2;

  private static final int SCALES = 4;
  private static final int QUANTS = 16;
  private static final int Q5_HIGH = 16;
  private static final int Q5_QUANTS = 48;

  /** Where parts of a block begin: Q6_K. */
  private static final int Q6_HIGH = 128;

  private static final int Q6_SCALES = 192;
  private static final int Q6_SCALE = 208;

  private SuperBlocks() {}

  /** The scale over all, as half-precision bits. */
  static short scale(WeightType type, MemorySegment from, long block) {
    return from.get(SHORT, block + (type == WeightType.Q6_K ? Q6_SCALE : 0));
  }

  /** The scale over all minima, as half-precision bits; not in Q6_K. */
  static short minimum(MemorySegment from, long block) {
    return from.get(SHORT, block + MINIMUM);
  }

  /** The scale of 32 elements, or of 16 in Q6_K. */
  static int subScale(WeightType type, MemorySegment from, long block, int sub) {
    if (type == WeightType.Q6_K) {
      return from.get(ValueLayout.JAVA_BYTE, block + Q6_SCALES + sub);
    }
    int low = unsigned(from, block + SCALES + (sub < 4 ? sub : sub + 4));
    return sub < 4 ? low & 63 : (low & 15) | (unsigned(from, block + SCALES + sub - 4) >> 6) << 4;
  }

  /** The minimum of 32 elements; not in Q6_K. */
  static int subMinimum(MemorySegment from, long block, int sub) {
    int at = unsigned(from, block + SCALES + sub + 4);
    return sub < 4 ? at & 63 : (at >> 4) | (unsigned(from, block + SCALES + sub) >> 6) << 4;
  }

  /** The number that stands for an element: 0 to 15, 31 or 63. */
  static int quant(WeightType type, MemorySegment from, long block, int i) {
    if (type == WeightType.Q6_K) {
      int half = i / 128;
      int within = i % 128;
      int low = unsigned(from, block + 64L * half + within % 64);
      int high = unsigned(from, block + Q6_HIGH + 32L * half + within % 32);
      return (within < 64 ? low & 15 : low >> 4) | ((high >> (2 * (within / 32))) & 3) << 4;
    }
    int sub = i / 32;
    long quants = block + (type == WeightType.Q5_K ? Q5_QUANTS : QUANTS);
    int pair = unsigned(from, quants + 32L * (sub / 2) + i % 32);
    int low = sub % 2 == 0 ? pair & 15 : pair >> 4;
    return type == WeightType.Q5_K
        ? low | (unsigned(from, block + Q5_HIGH + i % 32) >> sub & 1) << 4
        : low;
  }

  private static int unsigned(MemorySegment from, long at) {
    return Byte.toUnsignedInt(from.get(ValueLayout.JAVA_BYTE, at));
  }

  /** One element's value, in the steps that the kernels take. */
  static float value(WeightType type, MemorySegment from, long block, int i) {
    float all = Blocks.halfToFloat(scale(type, from, block));
    int quant = quant(type, from, block, i);
    if (type == WeightType.Q6_K) {
      return (quant - 32) * (all * subScale(type, from, block, i / 16));
    }
    float minimum = Blocks.halfToFloat(minimum(from, block)) * subMinimum(from, block, i / 32);
    return quant * (all * subScale(type, from, block, i / 32)) - minimum;
  }

  /** Encodes 256 values. */
  static void encode(WeightType type, float[] values, int first, MemorySegment to, long block) {
    to.asSlice(block, type.blockBytes()).fill((byte) 0);
    if (type == WeightType.Q6_K) {
      encodeSix(values, first, to, block);
    } else {
      encodeWithMinima(type, values, first, to, block);
    }
  }

  private static void encodeWithMinima(
      WeightType type, float[] values, int first, MemorySegment to, long block) {
    int most = type == WeightType.Q5_K ? 31 : 15;
    float[] scales = new float[SUB_BLOCKS];
    float[] minima = new float[SUB_BLOCKS];
    float largestScale = 0;
    float largestMinimum = 0;
    for (int sub = 0; sub < SUB_BLOCKS; sub++) {
      float low = 0;
      float high = 0;
      for (int i = 0; i < 32; i++) {
        low = Math.min(low, values[first + 32 * sub + i]);
        high = Math.max(high, values[first + 32 * sub + i]);
      }
      scales[sub] = (high - low) / most;
      minima[sub] = -low;
      largestScale = Math.max(largestScale, scales[sub]);
      largestMinimum = Math.max(largestMinimum, minima[sub]);
    }
    short scale = Float.floatToFloat16(largestScale / 63);
    short minimum = Float.floatToFloat16(largestMinimum / 63);
    to.set(SHORT, block, scale);
    to.set(SHORT, block + MINIMUM, minimum);
    for (int sub = 0; sub < SUB_BLOCKS; sub++) {
      int subScale = nearest(scales[sub], Blocks.halfToFloat(scale), 0, 63);
      int subMinimum = nearest(minima[sub], Blocks.halfToFloat(minimum), 0, 63);
      putScales(to, block + SCALES, sub, subScale, subMinimum);
      float step = Blocks.halfToFloat(scale) * subScale;
      float lowest = Blocks.halfToFloat(minimum) * subMinimum;
      for (int i = 0; i < 32; i++) {
        int quant = nearest(values[first + 32 * sub + i] + lowest, step, 0, most);
        long quants = block + (most == 31 ? Q5_QUANTS : QUANTS);
        or(to, quants + 32L * (sub / 2) + i, (quant & 15) << (4 * (sub % 2)));
        if (most == 31) {
          or(to, block + Q5_HIGH + i, (quant >> 4) << sub);
        }
      }
    }
  }

  /** Twelve bytes hold eight pairs of 6 bits: the last four pairs' upper bits fill up the first. */
  private static void putScales(MemorySegment to, long at, int sub, int scale, int minimum) {
    if (sub < 4) {
      or(to, at + sub, scale);
      or(to, at + sub + 4, minimum);
    } else {
      or(to, at + sub + 4, (scale & 15) | (minimum & 15) << 4);
      or(to, at + sub - 4, (scale >> 4) << 6);
      or(to, at + sub, (minimum >> 4) << 6);
    }
  }

  private static void encodeSix(float[] values, int first, MemorySegment to, long block) {
    float[] scales = new float[16];
    float largest = 0;
    for (int sub = 0; sub < 16; sub++) {
      float most = 0;
      for (int i = 0; i < 16; i++) {
        float value = values[first + 16 * sub + i];
        most = Math.abs(value) > Math.abs(most) ? value : most;
      }
      scales[sub] = most / -32;
      largest = Math.abs(scales[sub]) > Math.abs(largest) ? scales[sub] : largest;
    }
    short scale = Float.floatToFloat16(largest / -128);
    to.set(SHORT, block + Q6_SCALE, scale);
    for (int sub = 0; sub < 16; sub++) {
      int subScale = nearest(scales[sub], Blocks.halfToFloat(scale), -128, 127);
      to.set(ValueLayout.JAVA_BYTE, block + Q6_SCALES + sub, (byte) subScale);
      float step = Blocks.halfToFloat(scale) * subScale;
      for (int i = 16 * sub; i < 16 * sub + 16; i++) {
        int quant = nearest(values[first + i], step, -32, 31) + 32;
        int half = i / 128;
        int within = i % 128;
        or(to, block + 64L * half + within % 64, (quant & 15) << (within < 64 ? 0 : 4));
        or(to, block + Q6_HIGH + 32L * half + within % 32, (quant >> 4) << (2 * (within / 32)));
      }
    }
  }

  private static int nearest(float value, float step, int least, int most) {
    return step == 0 ? 0 : Math.clamp(Math.round(value / step), least, most);
  }

  private static void or(MemorySegment to, long at, int bits) {
    to.set(ValueLayout.JAVA_BYTE, at, (byte) (to.get(ValueLayout.JAVA_BYTE, at) | bits));
  }
}

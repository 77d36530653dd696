package dev.flotilla.tensor;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Random;

/** The kernels' contract in the plainest code: what every vector kernel must equal, bit for bit. */
final class ScalarReference {

  private ScalarReference() {}

  /** One chain per output, over the columns in order. */
  static Matrix linear(Matrix x, float[] weights, int out) {
    Matrix result = new Matrix(x.rows(), out);
    for (int row = 0; row < x.rows(); row++) {
      for (int o = 0; o < out; o++) {
        float sum = 0;
        for (int column = 0; column < x.width(); column++) {
          sum =
              Math.fma(weights[o * x.width() + column], x.values()[row * x.width() + column], sum);
        }
        result.values()[row * out + o] = sum;
      }
    }
    return result;
  }

  /** Products of quantised weights as {@link IntegerKernels} promises them. */
  static Matrix integerLinear(Matrix x, WeightType type, MemorySegment weights, int out) {
    Matrix result = new Matrix(x.rows(), out);
    int length = type == WeightType.Q6_K ? 16 : 32;
    for (int row = 0; row < x.rows(); row++) {
      for (int o = 0; o < out; o++) {
        float sum = 0;
        for (int column = 0; column < x.width(); column += length) {
          float largest = 0;
          for (int i = column / 32 * 32; i < column / 32 * 32 + 32; i++) {
            largest = Math.max(largest, Math.abs(x.values()[row * x.width() + i]));
          }
          int element = o * x.width() + column;
          long block = (long) type.blockBytes() * (element / type.blockElements());
          int first = element % type.blockElements();
          int products = 0;
          int total = 0;
          for (int i = 0; i < length; i++) {
            float value = x.values()[row * x.width() + column + i];
            int rounded = largest == 0 ? 0 : (int) Math.rint(value * (127 / largest));
            products += rounded * number(type, weights, block, first + i);
            total += rounded;
          }
          float xScale = largest / 127;
          sum = Math.fma((float) products, scale(type, weights, block, first) * xScale, sum);
          if (type == WeightType.Q4_K || type == WeightType.Q5_K) {
            float minimum =
                Float.float16ToFloat(SuperBlocks.minimum(weights, block))
                    * SuperBlocks.subMinimum(weights, block, first / 32);
            sum = Math.fma(minimum, -(xScale * total), sum);
          }
        }
        result.values()[row * out + o] = sum;
      }
    }
    return result;
  }

  private static float scale(WeightType type, MemorySegment weights, long block, int first) {
    return switch (type) {
      case Q8_0, Q4_0 -> Float.float16ToFloat(weights.get(ValueLayout.JAVA_SHORT_UNALIGNED, block));
      default ->
          Float.float16ToFloat(SuperBlocks.scale(type, weights, block))
              * SuperBlocks.subScale(
                  type, weights, block, first / (type == WeightType.Q6_K ? 16 : 32));
    };
  }

  private static int number(WeightType type, MemorySegment weights, long block, int i) {
    return switch (type) {
      case Q8_0 -> weights.get(ValueLayout.JAVA_BYTE, block + 2 + i);
      case Q4_0 -> Blocks.fourBits(weights, block + 2, i) - 8;
      case Q6_K -> SuperBlocks.quant(type, weights, block, i) - 32;
      default -> SuperBlocks.quant(type, weights, block, i);
    };
  }

  /** What {@code SimdOps.linear} must equal. */
  static Matrix linear(Matrix x, WeightType type, MemorySegment weights, int out) {
    return type.integers()
        ? integerLinear(x, type, weights, out)
        : linear(x, decode(type, weights, out * x.width()), out);
  }

  /** Attention in the order that {@link KvBlocks} promises, for one row and one head. */
  static float[] attend(float[] query, float[][] keys, float[][] values, float scale, float cap) {
    int width = query.length;
    float[] scores = new float[keys.length];
    float largest = Float.NEGATIVE_INFINITY;
    for (int t = 0; t < keys.length; t++) {
      for (int i = 0; i < width; i++) {
        scores[t] = Math.fma(keys[t][i], query[i], scores[t]);
      }
      if (cap > 0) {
        scores[t] = cap * (1 - 2 / (Kernels.exp(scores[t] * (2 * scale / cap)) + 1));
      }
      largest = Math.max(largest, scores[t]);
    }
    for (int t = 0; t < keys.length; t++) {
      float factor = cap > 0 ? 1 : scale;
      scores[t] = Kernels.exp(scores[t] * factor - largest * factor);
    }
    float total = Kernels.sum(scores, 0, scores.length);
    float[] result = new float[width];
    for (int i = 0; i < width; i++) {
      float sum = 0;
      for (int t = 0; t < keys.length; t++) {
        sum = Math.fma(values[t][i], scores[t], sum);
      }
      result[i] = sum / total;
    }
    return result;
  }

  static float[] random(Random random, int count) {
    float[] values = new float[count];
    for (int i = 0; i < count; i++) {
      values[i] = (float) random.nextGaussian();
    }
    return values;
  }

  static MemorySegment encode(WeightType type, float[] values, Arena arena) {
    MemorySegment bytes = arena.allocate(type.bytes(values.length));
    Blocks.encode(type, values, 0, values.length, bytes, 0);
    return bytes;
  }

  /** What is left of values after encoding. */
  static float[] decode(WeightType type, MemorySegment bytes, int count) {
    float[] values = new float[count];
    Blocks.decode(type, bytes, 0, values, 0, count);
    return values;
  }
}

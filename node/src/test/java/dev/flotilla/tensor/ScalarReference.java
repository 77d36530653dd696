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
    int blocks = x.width() / 32;
    int blockBytes = type.blockBytes();
    for (int row = 0; row < x.rows(); row++) {
      for (int o = 0; o < out; o++) {
        float sum = 0;
        for (int block = 0; block < blocks; block++) {
          int first = row * x.width() + 32 * block;
          float largest = 0;
          for (int i = 0; i < 32; i++) {
            largest = Math.max(largest, Math.abs(x.values()[first + i]));
          }
          long at = (long) blockBytes * (o * blocks + block);
          int products = 0;
          for (int i = 0; i < 32; i++) {
            float scaled = largest == 0 ? 0 : x.values()[first + i] * (127 / largest);
            products += (int) Math.rint(scaled) * number(type, weights, at, i);
          }
          float scale = Float.float16ToFloat(weights.get(ValueLayout.JAVA_SHORT_UNALIGNED, at));
          sum = Math.fma((float) products, scale * (largest / 127), sum);
        }
        result.values()[row * out + o] = sum;
      }
    }
    return result;
  }

  private static int number(WeightType type, MemorySegment weights, long block, int i) {
    if (type == WeightType.Q8_0) {
      return weights.get(ValueLayout.JAVA_BYTE, block + 2 + i);
    }
    return Blocks.fourBits(weights, block + 2, i) - 8;
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

package dev.flotilla.tensor;

import static org.assertj.core.api.Assertions.assertThat;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Random;
import org.junit.jupiter.api.Test;

class BlocksTest {

  private final float[] values = ScalarReference.random(new Random(3), 32 * 1000);

  @Test
  void q8IsWithinHalfAStepOfEachValue() {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment bytes = ScalarReference.encode(WeightType.Q8_0, values, arena);
      float[] decoded = ScalarReference.decode(WeightType.Q8_0, bytes, values.length);
      for (int block = 0; block < 1000; block++) {
        float largest = 0;
        for (int i = 0; i < 32; i++) {
          largest = Math.max(largest, Math.abs(values[32 * block + i]));
        }
        for (int i = 32 * block; i < 32 * block + 32; i++) {
          // Half a step, and the scale's own rounding to half precision at 127 steps.
          float bound = largest / 127 * 0.5f + largest * 0x1p-11f + 1e-7f;
          assertThat(Math.abs(decoded[i] - values[i])).isLessThanOrEqualTo(bound);
        }
      }
    }
  }

  @Test
  void q8OfZerosIsZeroAndRoundsHalfAwayFromZero() {
    float[] block = new float[32];
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment zeros = ScalarReference.encode(WeightType.Q8_0, block, arena);
      assertThat(ScalarReference.decode(WeightType.Q8_0, zeros, 32)).containsOnly(0);
      block[0] = 127;
      block[1] = 2.5f;
      block[2] = -2.5f;
      MemorySegment bytes = ScalarReference.encode(WeightType.Q8_0, block, arena);
      assertThat(ScalarReference.decode(WeightType.Q8_0, bytes, 32)).startsWith(127, 3, -3, 0);
    }
  }

  @Test
  void f32IsExactAndF16IsTheNearestHalf() {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment single = ScalarReference.encode(WeightType.F32, values, arena);
      assertThat(ScalarReference.decode(WeightType.F32, single, values.length)).isEqualTo(values);
      MemorySegment half = ScalarReference.encode(WeightType.F16, values, arena);
      float[] decoded = ScalarReference.decode(WeightType.F16, half, values.length);
      for (int i = 0; i < values.length; i++) {
        assertThat(decoded[i]).isEqualTo(Float.float16ToFloat(Float.floatToFloat16(values[i])));
      }
    }
  }

  @Test
  void everyFiniteHalfDecodesExactly() {
    for (int bits = 0; bits < 0x10000; bits++) {
      short half = (short) bits;
      if ((bits & 0x7c00) != 0x7c00) {
        assertThat(Blocks.halfToFloat(half)).isEqualTo(Float.float16ToFloat(half));
      }
    }
  }
}

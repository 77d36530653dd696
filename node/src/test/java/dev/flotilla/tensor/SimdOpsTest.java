package dev.flotilla.tensor;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

class SimdOpsTest {

  private static final long SEED = 20261124;

  @ParameterizedTest
  @EnumSource(WeightType.class)
  void linearEqualsTheScalarOrderBitForBitOverOddSizes(WeightType type) {
    Random random = new Random(SEED);
    int[] columns =
        switch (type.blockElements()) {
          case 1 -> new int[] {1, 7, 33, 128, 259};
          case 32 -> new int[] {32, 96, 160, 256, 416, 736};
          default -> new int[] {256, 512, 768};
        };
    try (Arena arena = Arena.ofConfined();
        SimdOps ops = new SimdOps(1)) {
      for (int in : columns) {
        for (int out : new int[] {1, 5, 31, 32, 33, 64, 70}) {
          MemorySegment bytes =
              ScalarReference.encode(type, ScalarReference.random(random, out * in), arena);
          PackedMatrix packed = PackedMatrix.pack(type, out, in, bytes, row -> row, arena);
          for (int rows : new int[] {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16, 17, 31, 64, 65, 130}) {
            Matrix x = new Matrix(rows, in, ScalarReference.random(random, rows * in));
            assertThat(ops.linear(x, packed).values())
                .as("seed %d, %s [%d, %d], %d rows", SEED, type, out, in, rows)
                .isEqualTo(ScalarReference.linear(x, type, bytes, out).values());
          }
        }
      }
    }
  }

  @ParameterizedTest
  @EnumSource(WeightType.class)
  void linearDoesNotDependOnTheNumberOfThreads(WeightType type) {
    Random random = new Random(SEED);
    int out = 1100;
    int in = 1024;
    try (Arena arena = Arena.ofShared();
        SimdOps one = new SimdOps(1);
        SimdOps three = new SimdOps(3)) {
      MemorySegment bytes =
          ScalarReference.encode(type, ScalarReference.random(random, out * in), arena);
      PackedMatrix packed = PackedMatrix.pack(type, out, in, bytes, row -> row, arena);
      for (int rows : new int[] {1, 2, 6}) {
        Matrix x = new Matrix(rows, in, ScalarReference.random(random, rows * in));
        assertThat(three.linear(x, packed).values()).isEqualTo(one.linear(x, packed).values());
      }
    }
  }

  @ParameterizedTest
  @EnumSource(WeightType.class)
  void embeddingReadsBackWhatWasPackedAndFollowsTheRowOrder(WeightType type) {
    int out = 45;
    int in = Math.max(64, type.blockElements());
    try (Arena arena = Arena.ofConfined();
        SimdOps ops = new SimdOps(1)) {
      MemorySegment bytes =
          ScalarReference.encode(type, ScalarReference.random(new Random(SEED), out * in), arena);
      float[] decoded = ScalarReference.decode(type, bytes, out * in);
      PackedMatrix reversed = PackedMatrix.pack(type, out, in, bytes, row -> out - 1 - row, arena);
      Matrix rows = ops.embed(reversed, new int[] {0, 44, 17});
      assertThat(Arrays.copyOfRange(rows.values(), 0, in))
          .isEqualTo(Arrays.copyOfRange(decoded, 44 * in, 45 * in));
      assertThat(Arrays.copyOfRange(rows.values(), in, 2 * in))
          .isEqualTo(Arrays.copyOfRange(decoded, 0, in));
      assertThat(Arrays.copyOfRange(rows.values(), 2 * in, 3 * in))
          .isEqualTo(Arrays.copyOfRange(decoded, 27 * in, 28 * in));
    }
  }

  @Test
  void rmsNormMatchesItsFormula() {
    Random random = new Random(SEED);
    for (int width : new int[] {1, 7, 8, 61, 256}) {
      Matrix x = new Matrix(3, width, ScalarReference.random(random, 3 * width));
      float[] gain = ScalarReference.random(random, width);
      try (SimdOps ops = new SimdOps(1)) {
        float[] result = ops.rmsNorm(x, new Gain(gain), 1e-5f).values();
        for (int row = 0; row < 3; row++) {
          double squares = 0;
          for (int i = 0; i < width; i++) {
            squares += Math.pow(x.values()[row * width + i], 2);
          }
          for (int i = 0; i < width; i++) {
            double wanted =
                x.values()[row * width + i] / Math.sqrt(squares / width + 1e-5) * gain[i];
            assertThat((double) result[row * width + i])
                .isCloseTo(wanted, within(1e-6 + 1e-6 * Math.abs(wanted)));
          }
        }
      }
    }
  }

  @Test
  void ropeTurnsEachPairByItsPositionTimesItsFrequency() {
    int headWidth = 8;
    int[] positions = {0, 3, 1000};
    Matrix x = new Matrix(3, 16, ScalarReference.random(new Random(SEED), 48));
    try (SimdOps ops = new SimdOps(1)) {
      float[] result = ops.rope(x, Rope.plain(headWidth, 10000), positions).values();
      for (int row = 0; row < 3; row++) {
        for (int head = 0; head < 2; head++) {
          for (int i = 0; i < 4; i++) {
            int first = row * 16 + head * 8 + i;
            double angle = positions[row] * Math.pow(10000, -2.0 * i / headWidth);
            double a = x.values()[first];
            double b = x.values()[first + 4];
            assertThat((double) result[first])
                .isCloseTo(a * Math.cos(angle) - b * Math.sin(angle), within(1e-4));
            assertThat((double) result[first + 4])
                .isCloseTo(b * Math.cos(angle) + a * Math.sin(angle), within(1e-4));
          }
        }
      }
      assertThat(ops.rope(x, Rope.plain(headWidth, 10000), new int[] {0, 0, 0}).values())
          .isEqualTo(x.values());
    }
  }

  @Test
  void swiGluMatchesItsFormulaAndTheSameBitsAtEveryLength() {
    float[] gate = ScalarReference.random(new Random(SEED), 101);
    gate[0] = -200;
    gate[1] = 200;
    float[] up = ScalarReference.random(new Random(SEED + 1), 101);
    try (SimdOps ops = new SimdOps(1)) {
      float[] result = ops.swiGlu(new Matrix(1, 101, gate), new Matrix(1, 101, up)).values();
      for (int i = 0; i < 101; i++) {
        double wanted = gate[i] / (1 + Math.exp(-gate[i])) * up[i];
        assertThat((double) result[i]).isCloseTo(wanted, within(1e-6 + 1e-6 * Math.abs(wanted)));
      }
      for (int length = 1; length < 101; length++) {
        Matrix g = new Matrix(1, length, Arrays.copyOf(gate, length));
        Matrix u = new Matrix(1, length, Arrays.copyOf(up, length));
        assertThat(ops.swiGlu(g, u).values()).isEqualTo(Arrays.copyOf(result, length));
      }
    }
  }

  @Test
  void expStaysWithinTwoUnitsInTheLastPlaceAndEqualsItsVectorForm() {
    Random random = new Random(SEED);
    float[] x = new float[100_003];
    for (int i = 0; i < x.length; i++) {
      x[i] = random.nextFloat() * 174 - 87;
    }
    float[] vector = x.clone();
    Kernels.expAll(vector, 0, vector.length, 1, 0);
    for (int i = 0; i < x.length; i++) {
      float scalar = Kernels.exp(x[i]);
      assertThat(vector[i]).isEqualTo(scalar);
      double wanted = Math.exp(x[i]);
      assertThat(Math.abs(scalar - wanted)).isLessThanOrEqualTo(2 * Math.ulp((float) wanted));
    }
    assertThat(Kernels.exp(0)).isEqualTo(1);
    assertThat(Kernels.exp(-1000)).isBetween(0f, 1e-37f);
  }
}

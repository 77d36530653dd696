package dev.flotilla.tensor;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

class PromptProductsTest {

  private static final long SEED = 20261130;

  private final Random random = new Random(SEED);

  @ParameterizedTest
  @EnumSource(names = "F32", mode = EnumSource.Mode.EXCLUDE)
  void areThoseOfNumbersRoundedToBf16(WeightType type) {
    assumeTrue(PromptKernels.AVAILABLE, "no matrix unit here");
    try (Arena arena = Arena.ofShared();
        Workers workers = new Workers(2);
        Arena own = Arena.ofShared()) {
      PromptProducts products = new PromptProducts(workers, own);
      for (int[] shape : new int[][] {{32, 32}, {33, 96}, {70, 256}, {64, 2112}, {70, 4128}}) {
        int out = shape[0];
        int block = type.blockElements();
        int in = (shape[1] + block - 1) / block * block;
        MemorySegment bytes =
            ScalarReference.encode(type, ScalarReference.random(random, out * in), arena);
        float[] decoded = ScalarReference.decode(type, bytes, out * in);
        PackedMatrix packed = PackedMatrix.pack(type, out, in, bytes, row -> row, arena);
        for (int rows : new int[] {1, 7, 16, 17, 32, 33, 130, 256, 257, 300}) {
          Matrix x = new Matrix(rows, in, ScalarReference.random(random, rows * in));
          Matrix result = products.multiply(x, packed);
          for (int row : new int[] {0, rows / 2, rows - 1}) {
            for (int i = 0; i < out; i++) {
              double sum = 0;
              double size = 0;
              for (int k = 0; k < in; k++) {
                double product =
                    (double) bf16(x.values()[row * in + k]) * bf16(decoded[i * in + k]);
                sum += product;
                size += Math.abs(product);
              }
              assertThat((double) result.values()[row * out + i])
                  .as("seed %d, %s [%d, %d], %d rows", SEED, type, out, in, rows)
                  .isCloseTo(sum, within(1e-6 * size + 1e-9));
            }
            float[] itself = Arrays.copyOfRange(x.values(), row * in, (row + 1) * in);
            Matrix alone = products.multiply(new Matrix(1, in, itself), packed);
            assertThat(alone.values())
                .as("seed %d, a row alone and among %d", SEED, rows)
                .isEqualTo(Arrays.copyOfRange(result.values(), row * out, (row + 1) * out));
          }
        }
      }
    }
  }

  @Test
  void rowsOfPromptsAndOthersInOneProductKeepTheirRoutes() {
    int out = 70;
    int in = 96;
    try (Arena arena = Arena.ofShared();
        SimdOps ops = new SimdOps(2)) {
      MemorySegment bytes =
          ScalarReference.encode(WeightType.Q8_0, ScalarReference.random(random, out * in), arena);
      PackedMatrix packed = PackedMatrix.pack(WeightType.Q8_0, out, in, bytes, row -> row, arena);
      Matrix x = new Matrix(5, in, ScalarReference.random(random, 5 * in));
      float[] generated = ops.linear(x, packed).values();
      ops.promptRows(new boolean[] {true, true, true, true, true});
      float[] prompt = ops.linear(x, packed).values();
      boolean[] mixed = {false, true, true, false, true};
      ops.promptRows(mixed);
      float[] both = ops.linear(x, packed).values();
      for (int row = 0; row < 5; row++) {
        assertThat(Arrays.copyOfRange(both, row * out, (row + 1) * out))
            .as("seed %d, row %d", SEED, row)
            .isEqualTo(
                Arrays.copyOfRange(mixed[row] ? prompt : generated, row * out, (row + 1) * out));
      }
      ops.promptRows(new boolean[0]);
      assertThat(ops.linear(x, packed).values()).isEqualTo(generated);
    }
  }

  @ParameterizedTest
  @EnumSource(Ops.Gate.class)
  void aFeedForwardPartHasTheBitsOfItsProductsOneByOne(Ops.Gate gate) {
    assumeTrue(PromptKernels.AVAILABLE, "no matrix unit here: it is made of those products");
    try (Arena arena = Arena.ofShared();
        SimdOps ops = new SimdOps(2)) {
      for (int[] shape : new int[][] {{32, 32}, {64, 96}, {2112, 64}, {96, 2112}}) {
        int width = shape[0];
        int inner = shape[1];
        PackedMatrix opening = matrix(WeightType.Q8_0, inner, width, arena);
        PackedMatrix up = matrix(WeightType.Q4_0, inner, width, arena);
        PackedMatrix down = matrix(WeightType.Q8_0, width, inner, arena);
        for (int rows : new int[] {1, 33, 257}) {
          Matrix x = new Matrix(rows, width, ScalarReference.random(random, rows * width));
          boolean[] prompts = new boolean[rows];
          for (int row = 0; row < rows; row++) {
            prompts[row] = row % 3 != 1;
          }
          ops.promptRows(prompts);
          Matrix g = ops.linear(x, opening);
          Matrix u = ops.linear(x, up);
          Matrix gated = gate == Ops.Gate.SWIGLU ? ops.swiGlu(g, u) : ops.geGlu(g, u);
          assertThat(ops.feedForward(x, new Ops.FeedForward<>(opening, up, down), gate).values())
              .as("seed %d, %d rows, [%d, %d]", SEED, rows, width, inner)
              .isEqualTo(ops.linear(gated, down).values());
        }
      }
    }
  }

  /** Each expert gets some prompts' rows and some others; a row alone has the same bits. */
  @Test
  void mixturesKeepTheRoutesOfTheirRows() {
    int width = 64;
    int rows = 40;
    try (Arena arena = Arena.ofShared();
        SimdOps ops = new SimdOps(2)) {
      List<Ops.FeedForward<Weights>> experts = new ArrayList<>();
      for (int e = 0; e < 4; e++) {
        experts.add(
            new Ops.FeedForward<>(
                matrix(WeightType.Q8_0, 96, width, arena),
                matrix(WeightType.Q8_0, 96, width, arena),
                matrix(WeightType.Q8_0, width, 96, arena)));
      }
      Matrix x = new Matrix(rows, width, ScalarReference.random(random, rows * width));
      Matrix scores = new Matrix(rows, 4, ScalarReference.random(random, rows * 4));
      boolean[] prompts = new boolean[rows];
      for (int row = 0; row < rows; row++) {
        prompts[row] = row % 3 == 0;
      }
      ops.promptRows(prompts);
      float[] all = ops.mixture(x, scores, 2, experts).values();
      for (int row = 0; row < rows; row++) {
        ops.promptRows(new boolean[] {prompts[row]});
        float[] alone =
            ops.mixture(
                    new Matrix(1, width, part(x.values(), row, width)),
                    new Matrix(1, 4, part(scores.values(), row, 4)),
                    2,
                    experts)
                .values();
        assertThat(part(all, row, width)).as("seed %d, row %d", SEED, row).isEqualTo(alone);
      }
    }
  }

  private static float[] part(float[] values, int row, int width) {
    return Arrays.copyOfRange(values, row * width, (row + 1) * width);
  }

  private PackedMatrix matrix(WeightType type, int out, int in, Arena arena) {
    MemorySegment bytes =
        ScalarReference.encode(type, ScalarReference.random(random, out * in), arena);
    return PackedMatrix.pack(type, out, in, bytes, row -> row, arena);
  }

  private static float bf16(float value) {
    int bits = Float.floatToRawIntBits(value);
    return Float.intBitsToFloat((bits + 0x7fff + (bits >>> 16 & 1)) & 0xffff0000);
  }
}

package dev.flotilla.tensor;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Test;

/** Both backends mean the same by each operation. */
class BackendsTest {

  private static final long SEED = 20261125;
  private static final int ROWS = 5;

  private final Random random = new Random(SEED);

  private Matrix random(int width) {
    return new Matrix(ROWS, width, ScalarReference.random(random, ROWS * width));
  }

  private static Tensor tensor(Matrix matrix) {
    return torch.tensor(matrix.values()).view(matrix.rows(), matrix.width());
  }

  private static void assertSame(String what, Matrix simd, Tensor torch) {
    float[] other = new float[Math.toIntExact(torch.numel())];
    try (FloatPointer data = torch.contiguous().data_ptr_float()) {
      data.get(other);
    }
    assertThat(other).hasSize(simd.values().length);
    for (int i = 0; i < other.length; i++) {
      assertThat(simd.values()[i])
          .as("%s, element %d, seed %d", what, i, SEED)
          .isCloseTo(other[i], within(1e-5f + 1e-5f * Math.abs(other[i])));
    }
  }

  @Test
  void elementwiseOperationsAgree() {
    try (var _ = new PointerScope();
        TorchOps libtorch = new TorchOps();
        SimdOps simd = new SimdOps(1)) {
      Matrix a = random(96);
      Matrix b = random(96);
      for (int i = 0; i < a.values().length; i++) {
        a.values()[i] *= i % 7;
      }
      float[] gain = ScalarReference.random(random, 96);
      float[] headGain = ScalarReference.random(random, 32);
      Tensor x = tensor(a);
      Tensor y = tensor(b);
      assertSame("swiGlu", simd.swiGlu(a, b), libtorch.swiGlu(x, y));
      assertSame("geGlu", simd.geGlu(a, b), libtorch.geGlu(x, y));
      assertSame("scale", simd.scale(a, 1.7f), libtorch.scale(x, 1.7f));
      assertSame("softCap", simd.softCap(a, 3), libtorch.softCap(x, 3));
      // Exact to a share of the cap, not of the value.
      assertSame(
          "softCap / 30",
          simd.scale(simd.softCap(a, 300), 1f / 30),
          libtorch.scale(libtorch.softCap(x, 300), 1f / 30));
      assertSame("bias", simd.bias(a, new Gain(gain)), libtorch.bias(x, torch(gain)));
      assertSame(
          "rmsNorm",
          simd.rmsNorm(a, new Gain(gain), 1e-6f),
          libtorch.rmsNorm(x, torch(gain), 1e-6f));
      assertSame(
          "rmsNorm of heads",
          simd.rmsNorm(a, new Gain(headGain), 1e-6f),
          libtorch.rmsNorm(x, torch(headGain), 1e-6f));
    }
  }

  private static Tensor torch(float[] values) {
    return torch.tensor(values);
  }

  @Test
  void ropesAgreeWholeAndInPart() {
    int[] positions = {0, 1, 17, 300, 5};
    try (var _ = new PointerScope();
        TorchOps libtorch = new TorchOps();
        SimdOps simd = new SimdOps(1)) {
      Matrix x = random(96);
      Rope whole = Rope.plain(32, 10_000);
      Rope part = new Rope(32, Rope.frequencies(20, 5000), 1.25f);
      for (Rope rope : List.of(whole, part, Rope.plain(48, 100), whole)) {
        assertSame(
            "rope", simd.rope(x, rope, positions), libtorch.rope(tensor(x), rope, positions));
      }
      Matrix turned = simd.rope(x, part, positions);
      for (int i = 20; i < 32; i++) {
        assertThat(turned.values()[96 + i]).isEqualTo(x.values()[96 + i]);
      }
    }
  }

  @Test
  void mixturesAgreeAndARowDoesNotDependOnItsNeighbours() {
    int width = 32;
    int inner = 48;
    int count = 6;
    try (var _ = new PointerScope();
        Arena arena = Arena.ofConfined();
        TorchOps libtorch = new TorchOps();
        SimdOps simd = new SimdOps(1)) {
      List<Ops.FeedForward<Weights>> ours = new ArrayList<>();
      List<Ops.FeedForward<Tensor>> theirs = new ArrayList<>();
      for (int e = 0; e < count; e++) {
        float[] gate = ScalarReference.random(random, inner * width);
        float[] up = ScalarReference.random(random, inner * width);
        float[] down = ScalarReference.random(random, width * inner);
        ours.add(
            new Ops.FeedForward<>(
                packed(gate, inner, width, arena),
                packed(up, inner, width, arena),
                packed(down, width, inner, arena)));
        theirs.add(
            new Ops.FeedForward<>(
                torch(gate).view(inner, width),
                torch(up).view(inner, width),
                torch(down).view(width, inner)));
      }
      Matrix x = simd.scale(random(width), 0.1f);
      Matrix scores = random(count);
      Matrix result = simd.mixture(x, scores, 2, ours);
      assertSame("mixture", result, libtorch.mixture(tensor(x), tensor(scores), 2, theirs));
      for (int row = 0; row < ROWS; row++) {
        Matrix alone =
            simd.mixture(
                new Matrix(
                    1, width, Arrays.copyOfRange(x.values(), row * width, (row + 1) * width)),
                new Matrix(
                    1, count, Arrays.copyOfRange(scores.values(), row * count, (row + 1) * count)),
                2,
                ours);
        assertThat(alone.values())
            .isEqualTo(Arrays.copyOfRange(result.values(), row * width, (row + 1) * width));
      }
    }
  }

  private static Weights packed(float[] values, int out, int in, Arena arena) {
    return PackedMatrix.pack(
        WeightType.F32,
        out,
        in,
        ScalarReference.encode(WeightType.F32, values, arena),
        row -> row,
        arena);
  }
}

package dev.flotilla.model;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import dev.flotilla.tensor.KvType;
import dev.flotilla.tensor.MachineLimits;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

class KernelGuardTest {

  private static final MachineLimits LIMITS = new MachineLimits(20e9, 100e9);

  @Test
  void namesTheKernelThatIsFarFromTheLimitAndNoOther() {
    // One row of Q8_0 at half of what memory gives; the compiler has lost ten times on Q4_0.
    Map<String, List<Double>> perByte = new HashMap<>();
    perByte.put("q8_0", List.of(1 / 10e9, 1 / 10e9, 1 / 10e9, 1 / 0.5e9));
    perByte.put("q4_0", List.of(1 / 1e9, 1 / 10e9, 1 / 5e9, 1 / 0.5e9));
    List<KernelGuard.Figure> figures = KernelGuard.figures(speeds(perByte), LIMITS);
    assertThat(figures).hasSize(2 * LayerSpeeds.ROWS.size() + 2);
    assertThat(figures.getFirst().share()).isCloseTo(0.5, within(1e-9));
    assertThat(figures.stream().filter(figure -> !figure.sound()))
        .singleElement()
        .satisfies(
            figure -> {
              assertThat(figure.kernel()).isEqualTo("q4_0");
              assertThat(figure.rows()).isEqualTo(1);
              assertThat(figure)
                  .hasToString(
                      "q4_0 by 1 rows: 1.0 GB/s, 0.05 of the machine's limit, at least %.2f expected",
                      figure.least());
            });
  }

  @Test
  void manyRowsAreHeldToWhatCanBeMultiplied() {
    // 512 rows of F32: 4 bytes a weight, 100 billion multiplications: 0.78 GB/s.
    double half = 1 / (0.5 * 100e9 / 512 * 4);
    Map<String, List<Double>> perByte = Map.of("f32", Collections.nCopies(4, half));
    KernelGuard.Figure last = KernelGuard.figures(speeds(perByte), LIMITS).get(3);
    assertThat(last.rows()).isEqualTo(LayerSpeeds.PROMPT);
    assertThat(last.share()).isCloseTo(0.5, within(1e-9));
  }

  @Test
  void attentionIsHeldToWhatTheCacheAndItsMultiplicationsTake() {
    // A byte for each element: 50 ps of memory for one row, 20 ps of multiplications for many.
    Map<String, List<Double>> sound = Map.of("q8_0", Collections.nCopies(4, 1e-11));
    LayerSpeeds half = new LayerSpeeds(Collections.nCopies(4, 0.0), sound, 100e-12, 40e-12, true);
    List<KernelGuard.Figure> figures = KernelGuard.figures(half, LIMITS);
    assertThat(figures.subList(4, 6))
        .allSatisfy(figure -> assertThat(figure.share()).isCloseTo(0.5, within(1e-9)))
        .allMatch(KernelGuard.Figure::sound)
        .extracting(KernelGuard.Figure::kernel)
        .containsOnly("attention over f16");
    LayerSpeeds lost = new LayerSpeeds(Collections.nCopies(4, 0.0), sound, 1000e-12, 800e-12, true);
    assertThat(KernelGuard.figures(lost, LIMITS).subList(4, 6))
        .noneMatch(KernelGuard.Figure::sound)
        .extracting(KernelGuard.Figure::rows)
        .containsExactly(1, LayerSpeeds.PROMPT);
  }

  @Test
  void attentionByItselfIsRefusedBelowItsFloorAndNotAboveIt() {
    for (KvType cache : List.of(KvType.F16, KvType.Q8_0)) {
      for (int rows : List.of(1, LayerSpeeds.PROMPT)) {
        double limit = rows == 1 ? 50e-12 : 20e-12;
        KernelGuard.Figure full = KernelGuard.attention(cache, rows, 1, limit, LIMITS);
        assertThat(full.share()).isCloseTo(1, within(1e-9));
        double least = full.least();
        assertThat(KernelGuard.attention(cache, rows, 1, limit / least * 0.99, LIMITS).sound())
            .isTrue();
        assertThat(KernelGuard.attention(cache, rows, 1, limit / least * 1.01, LIMITS).sound())
            .isFalse();
      }
    }
  }

  @Test
  void thisMachineHasLimits() {
    MachineLimits limits = MachineLimits.measure(1, System::nanoTime);
    assertThat(limits.bytesPerSecond()).isBetween(1e8, 1e13);
    assertThat(limits.multiplicationsPerSecond()).isBetween(1e8, 1e14);
  }

  private static LayerSpeeds speeds(Map<String, List<Double>> perByte) {
    return new LayerSpeeds(Collections.nCopies(4, 0.0), perByte, 0, 0, true);
  }
}

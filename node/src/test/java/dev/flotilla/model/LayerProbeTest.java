package dev.flotilla.model;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;
import org.assertj.core.data.Percentage;
import org.junit.jupiter.api.Test;

/** The probe on a clock of its own: what it runs is real, what a pass takes is the test's. */
final class LayerProbeTest {

  private static final LayerProbe.Wide SMALL = new LayerProbe.Wide(256, 4, 2, 256, 1);

  @Test
  void everyTypeIsMeasuredAtEveryNumberOfRows() {
    AtomicInteger looks = new AtomicInteger();
    // Every look at the clock is 200 ms later: a pass takes one look.
    LayerSpeeds speeds =
        new LayerProbe(1, () -> true, () -> 200_000_000L * looks.incrementAndGet(), SMALL)
            .measure()
            .orElseThrow();
    assertThat(speeds.measured()).isTrue();
    assertThat(speeds.secondsPerByte().keySet())
        .containsExactlyInAnyOrder("f32", "f16", "bf16", "q8_0", "q4_0", "q4_k", "q5_k", "q6_k");
    // Four narrow layers in a pass.
    assertThat(speeds.layerSeconds()).containsExactly(0.05, 0.05, 0.05, 0.05);
  }

  @Test
  void itEndsWhenThereIsSomethingBetterToDo() {
    AtomicInteger passes = new AtomicInteger();
    assertThat(
            new LayerProbe(1, () -> passes.incrementAndGet() < 20, System::nanoTime, SMALL)
                .measure())
        .isEmpty();
    assertThat(passes.get()).isEqualTo(20);
  }

  @Test
  void betweenMeasuredRowsAndBeyondThemAreStraightLines() {
    LayerSpeeds speeds =
        new LayerSpeeds(
            List.of(1.0, 4.0, 8.0, 512.0),
            Map.of("q8_0", List.of(1.0, 2.0, 4.0, 64.0)),
            0,
            0,
            true);
    assertThat(speeds.layer(6, Map.of())).isEqualTo(6);
    assertThat(speeds.layer(256, Map.of())).isEqualTo(256);
    assertThat(speeds.weights(2, Map.of("q8_0", 3.0)))
        .isCloseTo(4, Percentage.withPercentage(1e-9));
    assertThat(speeds.weights(2, Map.of("unheard-of", 3.0)))
        .isCloseTo(4, Percentage.withPercentage(1e-9));
    assertThatThrownBy(
            () -> new LayerSpeeds(List.of(1.0), Map.of("q8_0", List.of(1.0)), 0, 0, true))
        .isInstanceOf(IllegalArgumentException.class);
  }
}

package dev.flotilla.simulate;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.Arrays;
import java.util.Map;
import org.junit.jupiter.api.Test;

class LossesTest {

  private static final int EACH = 6;
  private static final double SECONDS_MAX = 3;

  @Test
  void aLossIsActedUponWithinThreeSecondsAndWhatIsNoneNever() {
    Losses.Times times = Losses.run(EACH);
    check(times.followers());
    check(times.leaders());
  }

  private static void check(Map<Losses.Kind, double[]> times) {
    times.forEach(
        (kind, seconds) -> {
          if (kind.lost()) {
            assertThat(seconds).as("%s", kind).hasSizeGreaterThan(EACH / 2);
            assertThat(Arrays.stream(seconds).max().orElseThrow())
                .as("%s", kind)
                .isLessThanOrEqualTo(SECONDS_MAX);
          } else {
            assertThat(seconds).as("%s", kind).isEmpty();
          }
        });
  }
}

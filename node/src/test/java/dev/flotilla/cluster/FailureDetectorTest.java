package dev.flotilla.cluster;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.Set;
import org.junit.jupiter.api.Test;

class FailureDetectorTest {

  private static final long MS = 1_000_000L;

  private final FailureDetector detector = new FailureDetector(2500 * MS, 1000 * MS, 0);
  private long nowNs;

  private void pass(long milliseconds) {
    for (long step = 0; step < milliseconds; step += 250) {
      nowNs += 250 * MS;
      detector.tick(nowNs);
    }
  }

  @Test
  void aNodeThatAnswersIsAlive() {
    detector.watch("a", true, 0);
    for (int i = 0; i < 40; i++) {
      pass(250);
      detector.answered("a", nowNs);
    }
    assertThat(detector.alive("a")).isTrue();
  }

  @Test
  void oneRefusalIsForgivenTwoInARowAreNot() {
    detector.watch("a", true, 0);
    detector.refused("a");
    assertThat(detector.alive("a")).isTrue();
    detector.answered("a", nowNs);
    detector.refused("a");
    assertThat(detector.alive("a")).isTrue();
    detector.refused("a");
    assertThat(detector.alive("a")).isFalse();
  }

  @Test
  void aPauseOfOneSecondIsNothingTwoAndAHalfAreALoss() {
    detector.watch("a", true, 0);
    pass(1000);
    assertThat(detector.alive("a")).isTrue();
    pass(1250);
    assertThat(detector.alive("a")).isTrue();
    pass(250);
    assertThat(detector.alive("a")).isFalse();
  }

  @Test
  void aLostNodeThatAnswersIsAliveAgain() {
    detector.watch("a", false, 0);
    pass(5000);
    assertThat(detector.alive("a")).isFalse();
    detector.answered("a", nowNs);
    assertThat(detector.alive("a")).isTrue();
    pass(2000);
    assertThat(detector.alive("a")).isTrue();
  }

  @Test
  void thePauseOfTheObserverIsNotHeldAgainstOthers() {
    detector.watch("a", true, 0);
    pass(500);
    nowNs += 30_000 * MS;
    detector.tick(nowNs);
    assertThat(detector.alive("a")).isTrue();
    pass(1750);
    assertThat(detector.alive("a")).isTrue();
    pass(500);
    assertThat(detector.alive("a")).isFalse();
  }

  @Test
  void whoIsNoLongerWatchedIsForgotten() {
    detector.watch("a", true, 0);
    detector.watch("b", true, 0);
    detector.keep(Set.of("b"));
    assertThat(detector.alive("a")).isFalse();
    assertThat(detector.alive("b")).isTrue();
  }
}

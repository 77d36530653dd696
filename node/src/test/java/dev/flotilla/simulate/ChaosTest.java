package dev.flotilla.simulate;

import static org.assertj.core.api.Assertions.assertThat;

import ch.qos.logback.classic.Level;
import ch.qos.logback.classic.Logger;
import ch.qos.logback.classic.spi.ILoggingEvent;
import ch.qos.logback.core.read.ListAppender;
import dev.flotilla.cluster.ClusterCore;
import dev.flotilla.cluster.Fencing;
import dev.flotilla.serve.ServingCore;
import java.util.Optional;
import java.util.stream.LongStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.slf4j.LoggerFactory;

/** How many seeds, {@code -Dflotilla.seeds=N} says. */
class ChaosTest {

  private static final long SEEDS = Long.getLong("flotilla.seeds", 100);

  @AfterEach
  void unplant() {
    System.clearProperty(ClusterCore.ACT_WHEN_DEPOSED);
    System.clearProperty(ServingCore.DOUBLE_A_TOKEN);
    System.clearProperty(Fencing.SKIP);
  }

  @Test
  void noSeedBreaksAPromiseAndNothingIsLoggedAsAnErrorOfOurs() {
    Logger logger = (Logger) LoggerFactory.getLogger("dev.flotilla");
    Level level = logger.getLevel();
    ListAppender<ILoggingEvent> errors = new ListAppender<>();
    errors.start();
    logger.setLevel(Level.ERROR);
    logger.addAppender(errors);
    Chaos.Counts sum = Chaos.Counts.NONE;
    try {
      for (long seed = 1; seed <= SEEDS; seed++) {
        Chaos.Report report = Chaos.run(seed);
        assertThat(report.failure())
            .as("seed %d; ./flotilla simulate chaos --seed %d", seed, seed)
            .isEmpty();
        assertThat(errors.list).as("seed %d", seed).isEmpty();
        sum = sum.plus(report.counts());
      }
    } finally {
      logger.detachAppender(errors);
      logger.setLevel(level);
    }
    // It is not for want of trouble that nothing broke.
    assertThat(sum.finished()).isGreaterThan(10 * SEEDS);
    assertThat(sum.held()).isGreaterThan(SEEDS);
    assertThat(sum.returned()).isGreaterThan(2 * SEEDS);
    assertThat(sum.orphaned()).isLessThan(sum.returned() / 4);
    assertThat(sum.faults()).isGreaterThan(5 * SEEDS);
    assertThat(sum.controllers()).isGreaterThan(SEEDS);
    assertThat(sum.placements()).isGreaterThan(SEEDS);
    assertThat(sum.fencedWrites()).isGreaterThan(SEEDS);
  }

  @Test
  void aSeedDoesTheSameAgain() {
    for (long seed = 1; seed <= 3; seed++) {
      Chaos.Report once = Chaos.run(seed);
      Chaos.Report again = Chaos.run(seed);
      assertThat(again).as("seed %d", seed).isEqualTo(once);
    }
    assertThat(Chaos.run(1).trace()).isNotEqualTo(Chaos.run(2).trace());
  }

  @ParameterizedTest
  @CsvSource({
    ServingCore.DOUBLE_A_TOKEN + ",came as number",
    Fencing.SKIP + ",stale token",
    ClusterCore.ACT_WHEN_DEPOSED + ",is the controller"
  })
  void aPlantedBugIsFound(String bug, String found) {
    System.setProperty(bug, "true");
    Optional<String> failure =
        LongStream.rangeClosed(1, 200)
            .mapToObj(Chaos::run)
            .flatMap(report -> report.failure().stream())
            .findFirst();
    assertThat(failure).isPresent();
    assertThat(failure.get()).contains(found);
  }
}

package dev.flotilla.cluster;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.util.concurrent.atomic.AtomicReference;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Nodes that come back from the past, or live in another time. */
class OldFolderTest {

  private static final Duration SOON = Duration.ofSeconds(20);

  @TempDir Path folder;

  private static void copy(Path from, Path to) throws IOException {
    try (Stream<Path> files = Files.walk(from)) {
      for (Path file : files.toList()) {
        Files.copy(file, to.resolve(from.relativize(file).toString()));
      }
    }
  }

  @Test
  void aFolderPutBackFromABackupIsRefusedAndItsNewerOneIsNot() throws Exception {
    try (TestNodes nodes = new TestNodes(folder)) {
      ClusterConfig config = nodes.config("founder");
      ClusterNode founder = nodes.start(config);
      ClusterNode second = nodes.joinAndStart(nodes.config("second"), config, founder.invite());
      ClusterNode third = nodes.joinAndStart(nodes.config("third"), config, founder.invite());
      // The folder of whoever was alone once has the others in it, too.
      TestNodes.await(
          "the others noted",
          SOON,
          () -> {
            var note = new FolderAge(config.dataFolder()).note();
            return note.isPresent() && note.get().peers().size() == 2;
          });
      founder.kill();
      Path backup = folder.resolve("backup");
      copy(config.dataFolder(), backup);

      nodes.start(config).kill();
      Path newer = folder.resolve("newer");
      Files.move(config.dataFolder(), newer);
      copy(backup, config.dataFolder());
      assertThatThrownBy(() -> nodes.start(config))
          .isInstanceOfSatisfying(
              FlotillaException.class,
              refused -> {
                assertThat(refused.code()).isEqualTo(Code.CONFLICT);
                assertThat(refused.remedy()).contains("join anew");
              })
          .hasMessageContaining("is older than its cluster")
          .hasMessageContaining("1 starts of node " + founder.self() + ", the cluster of 2");
      // It took no part.
      assertThat(second.raft().voters()).contains(founder.self());
      TestNodes.await("another leads", SOON, () -> second.raft().leads() || third.raft().leads());

      NodeFiles.deleteTree(config.dataFolder());
      Files.move(newer, config.dataFolder());
      assertThat(nodes.start(config).leader()).isPresent();
    }
  }

  @Test
  void whereAllWereDownNobodyKnowsBetter() throws Exception {
    try (TestNodes nodes = new TestNodes(folder)) {
      ClusterConfig config = nodes.config("only");
      nodes.start(config).kill();
      Path backup = folder.resolve("backup");
      copy(config.dataFolder(), backup);
      nodes.start(config).kill();
      NodeFiles.deleteTree(config.dataFolder());
      copy(backup, config.dataFolder());
      assertThat(nodes.start(config).leader()).isPresent();
    }
  }

  @Test
  void aClockThatIsAnHourOffIsNamedAndStopsNothing() {
    AtomicReference<Duration> ahead = new AtomicReference<>(Duration.ZERO);
    try (TestNodes nodes = new TestNodes(folder)) {
      ClusterConfig config = nodes.config("first");
      ClusterNode first = nodes.start(config);
      ClusterNode second =
          nodes.joinAndStart(
              nodes.config("second", () -> Instant.now().plus(ahead.get()), config.version()),
              config,
              first.invite());
      for (Duration off : new Duration[] {Duration.ofHours(1), Duration.ofHours(-1)}) {
        ahead.set(off);
        // Whoever leads asks the other.
        TestNodes.await(
            "a clock that is off",
            SOON,
            () -> first.clocksOff().contains(second.self()) || !second.clocksOff().isEmpty());
        second.registry().sync();
        ahead.set(Duration.ZERO);
        TestNodes.await(
            "clocks that are right",
            SOON,
            () -> first.clocksOff().isEmpty() && second.clocksOff().isEmpty());
      }
      assertThat(first.nodes()).allMatch(node -> node.state() == NodeInfo.State.UP);
    }
  }
}

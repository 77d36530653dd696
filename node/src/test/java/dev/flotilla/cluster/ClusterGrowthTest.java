package dev.flotilla.cluster;

import static dev.flotilla.cluster.TestNodes.await;
import static dev.flotilla.cluster.TestNodes.put;
import static dev.flotilla.cluster.TestNodes.value;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Whole nodes in this process: growing in place, losing any one, starting all again. */
class ClusterGrowthTest {

  private static final Registry.Key KEY = new Registry.Key("test", "x");

  @TempDir Path folder;

  private static Optional<Long> write(ClusterNode node, long epoch, String value) {
    return node.registry().commit(List.of(new Registry.Condition(KEY, epoch)), put(KEY, value));
  }

  private static boolean sees(ClusterNode node, ClusterNode other, NodeInfo.State state) {
    return node.nodes().stream()
        .anyMatch(info -> info.id().equals(other.self()) && info.state() == state);
  }

  @Test
  void growsFromOneToThreeInPlaceLosesTheFirstAndTakesItBack() {
    try (TestNodes nodes = new TestNodes(folder)) {
      ClusterConfig configA = nodes.config("a");
      ClusterNode a = nodes.start(configA);
      long first = write(a, 0, "1").orElseThrow();

      ClusterConfig configB = nodes.config("b");
      ClusterNode b = nodes.joinAndStart(configB, configA, a.invite());
      assertThat(value(b, KEY)).isEqualTo("1");
      ClusterConfig configC = nodes.config("c");
      // Any voter can admit, so the loss of the first node does not close the cluster.
      ClusterNode c = nodes.joinAndStart(configC, configB, b.invite());
      assertThat(value(c, KEY)).isEqualTo("1");
      assertThat(a.raft().voters()).containsExactlyInAnyOrder(a.self(), b.self(), c.self());
      assertThat(write(c, 0, "not on this version")).isEmpty();
      long second = write(c, first, "2").orElseThrow();
      assertThat(second).isGreaterThan(first);
      assertThat(a.nodes()).hasSize(3).allMatch(node -> node.state() == NodeInfo.State.UP);

      a.kill();
      long third = write(b, second, "3").orElseThrow();
      assertThat(third).isGreaterThan(second);
      await("a is lost", Duration.ofSeconds(5), () -> sees(c, a, NodeInfo.State.LOST));
      // That may have been decided before the third write, and c be behind.
      c.registry().sync();
      assertThat(value(c, KEY)).isEqualTo("3");

      ClusterNode again = nodes.start(configA);
      assertThat(again.self()).isEqualTo(a.self());
      assertThat(value(again, KEY)).isEqualTo("3");
      await("a is up", Duration.ofSeconds(5), () -> sees(c, again, NodeInfo.State.UP));
      assertThat(again.nodes())
          .filteredOn(node -> node.id().equals(again.self()))
          .allMatch(node -> node.incarnation() == 2);
    }
  }

  @Test
  void aFourthNodeListensAndAllFindEverythingAgainAfterARestart() throws Exception {
    try (TestNodes nodes = new TestNodes(folder)) {
      ClusterConfig configA = nodes.config("a");
      ClusterNode a = nodes.start(configA);
      ClusterConfig configB = nodes.config("b");
      ClusterNode b = nodes.joinAndStart(configB, configA, a.invite());
      ClusterConfig configC = nodes.config("c");
      ClusterNode c = nodes.joinAndStart(configC, configA, a.invite());
      ClusterConfig configD = nodes.config("d");
      ClusterNode d = nodes.joinAndStart(configD, configA, a.invite());
      assertThat(a.raft().voters()).hasSize(3).doesNotContain(d.self());
      assertThat(a.raft().members()).contains(d.self());
      long epoch = write(d, 0, "from the listener").orElseThrow();
      assertThat(value(d, KEY)).isEqualTo("from the listener");
      d.registry().sync();

      for (ClusterNode node : List.of(a, b, c, d)) {
        node.kill();
      }
      startAll(nodes, List.of(configA, configB, configC, configD));
      List<ClusterNode> again = nodes.running();
      assertThat(again).hasSize(4);
      for (ClusterNode node : again) {
        assertThat(value(node, KEY)).isEqualTo("from the listener");
        await(
            "all are up",
            Duration.ofSeconds(5),
            () -> node.nodes().stream().allMatch(info -> info.state() == NodeInfo.State.UP));
      }
      ClusterNode listener =
          again.stream().filter(node -> node.self().equals(d.self())).findFirst().orElseThrow();
      assertThat(write(listener, epoch, "again")).isPresent();
      assertThat(listener.raft().voters()).hasSize(3).doesNotContain(d.self());
    }
  }

  /** At once, since each waits for the others. */
  private static void startAll(TestNodes nodes, List<ClusterConfig> configs)
      throws InterruptedException {
    List<Thread> starts =
        configs.stream()
            .map(config -> Thread.ofVirtual().start(() -> nodes.start(config)))
            .toList();
    for (Thread start : starts) {
      start.join();
    }
  }

  private static boolean written(ClusterNode node, String value) {
    try {
      long epoch = node.registry().get(KEY).map(Registry.Entry::epoch).orElse(0L);
      return write(node, epoch, value).isPresent();
    } catch (FlotillaException notYet) {
      return false;
    }
  }

  @Test
  void aListenerThatMissedTheLeaderGoesOnListening() throws Exception {
    try (TestNodes nodes = new TestNodes(folder)) {
      ClusterConfig configA = nodes.config("a");
      ClusterNode a = nodes.start(configA);
      ClusterConfig configB = nodes.config("b");
      ClusterNode b = nodes.joinAndStart(configB, configA, a.invite());
      ClusterConfig configC = nodes.config("c");
      ClusterNode c = nodes.joinAndStart(configC, configA, a.invite());
      ClusterNode d = nodes.joinAndStart(nodes.config("d"), configA, a.invite());
      // A leader that has not let it in itself: the listener counts as caught up from then on.
      a.kill();
      await("another leader", Duration.ofSeconds(10), () -> written(d, "1"));
      ClusterNode again = nodes.start(configA);
      for (ClusterNode node : List.of(again, b, c)) {
        node.kill();
      }
      await(
          "the listener has missed the leader",
          Duration.ofSeconds(10),
          () -> d.raft().missesLeader());
      startAll(nodes, List.of(configA, configB, configC));
      await("the listener follows", Duration.ofSeconds(10), () -> written(d, "2"));
    }
  }

  @Test
  void ofTwoNodesTheOneLeftRefusesToDecideAndStillAnswersReads() {
    try (TestNodes nodes = new TestNodes(folder, new RaftRegistry.Tuning(4096, 8 << 20, 1_000))) {
      ClusterConfig configA = nodes.config("a");
      ClusterNode a = nodes.start(configA);
      ClusterNode b = nodes.joinAndStart(nodes.config("b"), configA, a.invite());
      write(a, 0, "1");
      b.registry().sync();
      a.kill();
      await("no leader", Duration.ofSeconds(6), () -> b.leader().isEmpty());
      assertThatThrownBy(() -> b.registry().commit(List.of(), put(KEY, "2")))
          .isInstanceOfSatisfying(
              FlotillaException.class,
              refused -> assertThat(refused.code()).isEqualTo(FlotillaException.Code.NO_MAJORITY));
      assertThatThrownBy(() -> b.registry().sync()).isInstanceOf(FlotillaException.class);
      assertThat(value(b, KEY)).isEqualTo("1");
    }
  }
}

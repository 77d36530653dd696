package dev.flotilla.cluster;

import static dev.flotilla.cluster.TestNodes.await;
import static dev.flotilla.cluster.TestNodes.put;
import static dev.flotilla.cluster.TestNodes.value;
import static java.util.Objects.requireNonNull;
import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.cluster.proto.MembershipGrpc;
import dev.flotilla.cluster.proto.PingRequest;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class ControllerTest {

  private static final Registry.Key KEY = new Registry.Key("test", "x");

  @TempDir Path folder;

  @Test
  void actsOnOneNodeOnlyAndADeposedOneCannotWrite() {
    try (TestNodes nodes = new TestNodes(folder)) {
      Map<String, Cluster.Leadership> leaderships = new ConcurrentHashMap<>();
      Map<String, List<NodeInfo>> alive = new ConcurrentHashMap<>();
      ClusterConfig configA = nodes.config("a");
      ClusterNode a = nodes.create(configA);
      watch(a, leaderships, alive);
      a.start();
      ClusterNode b = nodes.join(nodes.config("b"), configA, a.invite());
      watch(b, leaderships, alive);
      b.start();
      ClusterNode c = nodes.join(nodes.config("c"), configA, a.invite());
      watch(c, leaderships, alive);
      c.start();

      await("a acts", Duration.ofSeconds(5), () -> leaderships.containsKey(a.self()));
      await(
          "all are alive",
          Duration.ofSeconds(5),
          () -> alive.getOrDefault(a.self(), List.of()).size() == 3);
      assertThat(leaderships).containsOnlyKeys(a.self());
      Cluster.Leadership old = requireNonNull(leaderships.get(a.self()));
      assertThat(old.commit(List.of(), put(KEY, "by a"))).isPresent();
      // Conditions of the caller's own count as well.
      assertThat(old.commit(List.of(new Registry.Condition(KEY, 0)), put(KEY, "no"))).isEmpty();

      a.raft().handOver();
      await("another acts", Duration.ofSeconds(6), () -> leaderships.size() == 2);
      assertThat(old.commit(List.of(), put(KEY, "too late"))).isEmpty();
      ClusterNode next = leaderships.containsKey(b.self()) ? b : c;
      assertThat(
              requireNonNull(leaderships.get(next.self()))
                  .commit(List.of(), put(KEY, "by the next")))
          .isPresent();
      next.registry().sync();
      assertThat(value(next, KEY)).isEqualTo("by the next");

      // Its own channel to another member works, and says who calls.
      assertThat(
              MembershipGrpc.newBlockingStub(next.channel(a.self()))
                  .ping(PingRequest.getDefaultInstance())
                  .getNode())
          .isEqualTo(a.self());

      ClusterNode third = next == b ? c : b;
      third.kill();
      await(
          "the controller sees the loss",
          Duration.ofSeconds(4),
          () ->
              alive.getOrDefault(next.self(), List.of()).stream()
                  .noneMatch(node -> node.id().equals(third.self())));
      next.remove(third.self());
      await(
          "the removed one is no member",
          Duration.ofSeconds(6),
          () -> !next.raft().members().contains(third.self()));
      assertThat(next.nodes()).hasSize(2);
    }
  }

  private static void watch(
      ClusterNode node,
      Map<String, Cluster.Leadership> leaderships,
      Map<String, List<NodeInfo>> alive) {
    node.addReconciler(
        leadership -> {
          leaderships.put(node.self(), leadership);
          alive.put(node.self(), leadership.aliveNodes());
        });
  }

  @Test
  void aReconcilerThatFailsStopsNeitherTheOthersNorItself() {
    try (TestNodes nodes = new TestNodes(folder)) {
      ClusterNode node = nodes.create(nodes.config("a"));
      AtomicInteger failing = new AtomicInteger();
      AtomicInteger working = new AtomicInteger();
      node.addReconciler(
          leadership -> {
            failing.incrementAndGet();
            throw new IllegalStateException("expected by this test");
          });
      node.addReconciler(leadership -> working.incrementAndGet());
      node.start();
      await("two passes", Duration.ofSeconds(5), () -> working.get() >= 2 && failing.get() >= 2);
      int before = working.get();
      node.registry().commit(List.of(), put(KEY, "1"));
      await("a pass at a change", Duration.ofMillis(900), () -> working.get() > before);
    }
  }
}

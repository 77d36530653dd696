package dev.flotilla.cluster;

import static dev.flotilla.cluster.TestNodes.await;
import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.cluster.Registry.Condition;
import dev.flotilla.cluster.Registry.Key;
import dev.flotilla.cluster.Registry.Write;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class ClusterGrowthTest {

  @TempDir Path folder;

  private static Write write(Key key, String value) {
    return new Write(key, Optional.of(value.getBytes(StandardCharsets.UTF_8)));
  }

  private static String value(ClusterNode node, Key key) {
    return node.registry()
        .get(key)
        .map(entry -> new String(entry.value(), StandardCharsets.UTF_8))
        .orElse("");
  }

  @Test
  void growsFromOneToThreeInPlaceAndSurvivesLosingAnyOne() {
    try (TestNodes nodes = new TestNodes(folder)) {
      long t0 = System.nanoTime();
      ClusterConfig configA = nodes.config("a");
      ClusterNode a = nodes.start(configA);
      System.err.println("start a " + (System.nanoTime() - t0) / 1_000_000);
      Key key = new Key("test", "x");
      long first =
          a.registry()
              .commit(List.of(new Condition(key, 0)), List.of(write(key, "1")))
              .orElseThrow();
      t0 = System.nanoTime();
      ClusterConfig configB = nodes.config("b");
      ClusterNode b = nodes.joinAndStart(configB, configA, a.invite());
      System.err.println("join b " + (System.nanoTime() - t0) / 1_000_000);
      assertThat(value(b, key)).isEqualTo("1");
      t0 = System.nanoTime();
      ClusterConfig configC = nodes.config("c");
      ClusterNode c = nodes.joinAndStart(configC, configB, b.invite());
      System.err.println("join c " + (System.nanoTime() - t0) / 1_000_000);
      assertThat(value(c, key)).isEqualTo("1");
      assertThat(c.registry().commit(List.of(new Condition(key, 0)), List.of(write(key, "no"))))
          .isEmpty();
      long second =
          c.registry()
              .commit(List.of(new Condition(key, first)), List.of(write(key, "2")))
              .orElseThrow();
      assertThat(second).isGreaterThan(first);
      assertThat(a.raft().voters()).containsExactlyInAnyOrder(a.self(), b.self(), c.self());

      t0 = System.nanoTime();
      a.kill();
      long third =
          b.registry()
              .commit(List.of(new Condition(key, second)), List.of(write(key, "3")))
              .orElseThrow();
      System.err.println("commit after kill " + (System.nanoTime() - t0) / 1_000_000);
      await(
          "a is lost",
          Duration.ofSeconds(6),
          () ->
              c.nodes().stream()
                  .anyMatch(n -> n.id().equals(a.self()) && n.state() == NodeInfo.State.LOST));
      System.err.println("lost after kill " + (System.nanoTime() - t0) / 1_000_000);
      assertThat(value(c, key)).isEqualTo("3");
      t0 = System.nanoTime();
      ClusterNode again = nodes.start(configA);
      System.err.println("restart a " + (System.nanoTime() - t0) / 1_000_000);
      assertThat(value(again, key)).isEqualTo("3");
      await(
          "a is up",
          Duration.ofSeconds(6),
          () -> c.nodes().stream().allMatch(n -> n.state() == NodeInfo.State.UP));
    }
  }
}

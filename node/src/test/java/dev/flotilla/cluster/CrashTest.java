package dev.flotilla.cluster;

import static dev.flotilla.cluster.TestNodes.await;
import static dev.flotilla.cluster.TestNodes.put;
import static dev.flotilla.cluster.TestNodes.value;
import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.FlotillaException;
import java.io.BufferedReader;
import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Real processes, really killed. */
class CrashTest {

  private static final Registry.Key COUNTER = new Registry.Key("test", "counter");

  @TempDir Path folder;

  /** One node in a process of its own. Arguments: folder, port, and to join: address, token. */
  static final class Main {

    private Main() {}

    public static void main(String[] arguments) throws Exception {
      ClusterConfig config = config(Path.of(arguments[0]), Integer.parseInt(arguments[1]));
      ClusterNode node =
          arguments.length > 2
              ? ClusterNode.join(config, arguments[2], arguments[3])
              : ClusterNode.create(config);
      node.start();
      System.out.println("token " + node.invite());
      System.out.println("up " + node.self());
      Thread.sleep(Duration.ofMinutes(5));
    }
  }

  private static ClusterConfig config(Path folder, int port) {
    return new ClusterConfig(
        folder,
        String.valueOf(folder.getFileName()),
        "127.0.0.1",
        "127.0.0.1",
        port,
        TestNodes.VERSION,
        InstantSource.system(),
        Map.of());
  }

  private static Process spawn(List<String> arguments) throws IOException {
    List<String> command = new ArrayList<>();
    command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
    command.addAll(
        List.of(
            "-XX:TieredStopAtLevel=1",
            "-Xmx256m",
            "-cp",
            System.getProperty("java.class.path"),
            Main.class.getName()));
    command.addAll(arguments);
    return new ProcessBuilder(command)
        .redirectError(ProcessBuilder.Redirect.INHERIT)
        .start();
  }

  private static String awaitLine(Process process, String prefix) throws IOException {
    BufferedReader reader = process.inputReader();
    for (String line = reader.readLine(); line != null; line = reader.readLine()) {
      if (line.startsWith(prefix)) {
        return line.substring(prefix.length());
      }
    }
    throw new AssertionError("the child ended before it was up");
  }

  @Test
  void nothingThatWasAcknowledgedIsLostWhenTheLeaderIsKilledInTheMiddle() throws Exception {
    List<Process> children = new ArrayList<>();
    try (TestNodes nodes = new TestNodes(folder)) {
      int port = TestNodes.freePorts();
      Process leader = spawn(List.of(folder.resolve("a").toString(), String.valueOf(port)));
      children.add(leader);
      String token = awaitLine(leader, "token ");
      String leaderId = awaitLine(leader, "up ");
      ClusterConfig configA = config(folder.resolve("a"), port);
      ClusterNode b = nodes.joinAndStart(nodes.config("b"), configA, token);
      ClusterNode c = nodes.joinAndStart(nodes.config("c"), configA, b.invite());
      assertThat(b.leader()).contains(leaderId);

      int acknowledged = 0;
      int unknown = 0;
      long killedNs = 0;
      long longestNs = 0;
      for (int i = 0; i < 120; i++) {
        if (i == 40) {
          leader.destroyForcibly();
          killedNs = System.nanoTime();
        }
        long startNs = System.nanoTime();
        try {
          increment(b);
          acknowledged++;
        } catch (FlotillaException e) {
          unknown++;
        }
        longestNs = Math.max(longestNs, System.nanoTime() - startNs);
      }
      assertThat(killedNs).isNotZero();
      c.registry().sync();
      int counted = Integer.parseInt(value(c, COUNTER));
      assertThat(counted).isBetween(acknowledged, acknowledged + unknown);
      assertThat(acknowledged).isGreaterThan(110);
      assertThat(Duration.ofNanos(longestNs)).isLessThan(Duration.ofSeconds(8));
      await(
          "the killed one is lost",
          Duration.ofSeconds(6),
          () ->
              b.nodes().stream()
                  .anyMatch(
                      node ->
                          node.id().equals(leaderId) && node.state() == NodeInfo.State.LOST));
      Process again = spawn(List.of(folder.resolve("a").toString(), String.valueOf(port)));
      children.add(again);
      assertThat(awaitLine(again, "up ")).isEqualTo(leaderId);
      await(
          "it is back by itself",
          Duration.ofSeconds(6),
          () -> b.nodes().stream().allMatch(node -> node.state() == NodeInfo.State.UP));
    } finally {
      children.forEach(Process::destroyForcibly);
    }
  }

  private static void increment(ClusterNode node) {
    while (true) {
      node.registry().sync();
      Optional<Registry.Entry> before = node.registry().get(COUNTER);
      int next = before.isEmpty() ? 1 : 1 + Integer.parseInt(value(node, COUNTER));
      if (node.registry()
          .commit(
              List.of(
                  new Registry.Condition(
                      COUNTER, before.map(Registry.Entry::epoch).orElse(0L))),
              put(COUNTER, String.valueOf(next)))
          .isPresent()) {
        return;
      }
    }
  }
}

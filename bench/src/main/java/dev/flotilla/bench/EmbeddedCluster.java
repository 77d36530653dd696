package dev.flotilla.bench;

import dev.flotilla.app.Flotilla;
import dev.flotilla.client.Client;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/**
 * A node in this process, as a program embeds it, and further ones as processes that joined it; all
 * on loopback and on one disk. Deleted at the end.
 */
final class EmbeddedCluster implements AutoCloseable {

  private static final int FIRST_PORT = 22_000;
  private static final long START_MS_MAX = 120_000;
  private static final long SETTLE_MS = 3_000;

  private final Path folder;
  private final Flotilla flotilla;
  private final List<Process> others = new ArrayList<>();

  private EmbeddedCluster(Path folder, Flotilla flotilla) {
    this.folder = folder;
    this.flotilla = flotilla;
  }

  /** Returns when all of them serve. */
  static EmbeddedCluster start(int nodes) throws IOException, InterruptedException {
    Path folder = Files.createTempDirectory("flotilla-bench");
    Path first = prepare(folder, 1);
    int port = ShardingBench.freePorts(FIRST_PORT);
    EmbeddedCluster cluster =
        new EmbeddedCluster(folder, Flotilla.start(Flotilla.Config.of(first, port)));
    try {
      Client client = new Client("http://127.0.0.1:" + port, Client.keyIn(first));
      for (int number = 2; number <= nodes; number++) {
        String token = client.post("/api/invites", Map.of()).path("token").asText();
        cluster.join(number, port, token);
      }
      cluster.awaitAll(nodes);
      return cluster;
    } catch (IOException | InterruptedException | RuntimeException e) {
      cluster.close();
      throw e;
    }
  }

  private static Path prepare(Path folder, int number) throws IOException {
    Path its = folder.resolve("node-" + number);
    Files.createDirectories(its.resolve("logs"));
    Files.createDirectories(its.resolve("data"));
    return its;
  }

  private void join(int number, int firstPort, String token)
      throws IOException, InterruptedException {
    Path its = prepare(folder, number);
    Path said = folder.resolve("node-" + number + ".txt");
    ProcessBuilder builder =
        new ProcessBuilder(
            Path.of(System.getProperty("flotilla.home"), "flotilla").toString(),
            "up",
            "--name",
            "node-" + number,
            "--data",
            its.toString(),
            "--port",
            Integer.toString(ShardingBench.freePorts(FIRST_PORT + 100 * number)),
            "--join",
            "127.0.0.1:" + firstPort,
            "--token",
            token);
    builder.environment().put("JAVA_HOME", System.getProperty("java.home"));
    builder.environment().put("FLOTILLA_HEAP", "768m");
    builder.redirectErrorStream(true).redirectOutput(said.toFile());
    Process process = builder.start();
    others.add(process);
    long untilMs = System.currentTimeMillis() + START_MS_MAX;
    while (Files.readString(said).lines().noneMatch(line -> line.startsWith("ready "))) {
      if (!process.isAlive() || System.currentTimeMillis() > untilMs) {
        throw new IOException("node " + number + " did not start: " + Files.readString(said));
      }
      Thread.sleep(100);
    }
  }

  /** Until all know each other, and what their joining moves has come to rest. */
  private void awaitAll(int nodes) throws IOException, InterruptedException {
    long untilMs = System.currentTimeMillis() + START_MS_MAX;
    while (flotilla.blobs().nodes().stream().filter(node -> node.answers()).count() < nodes) {
      if (System.currentTimeMillis() > untilMs) {
        throw new IOException("not all of " + nodes + " nodes answer");
      }
      Thread.sleep(200);
    }
    Thread.sleep(SETTLE_MS);
  }

  /** What a program has in its hands. */
  Flotilla flotilla() {
    return flotilla;
  }

  @Override
  public void close() throws IOException {
    // First, while there is a majority to take leave of.
    flotilla.close();
    for (Process process : others) {
      process.destroyForcibly();
      process.onExit().join();
    }
    ShardingBench.delete(folder);
  }
}

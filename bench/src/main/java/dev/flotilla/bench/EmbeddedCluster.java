package dev.flotilla.bench;

import dev.flotilla.app.Flotilla;
import dev.flotilla.app.NodeProcess;
import dev.flotilla.client.Client;
import dev.flotilla.cluster.NodeFiles;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

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
  private final List<NodeProcess> others = new ArrayList<>();

  private EmbeddedCluster(Path folder, Flotilla flotilla) {
    this.folder = folder;
    this.flotilla = flotilla;
  }

  /** Returns when all of them serve. */
  static EmbeddedCluster start(int nodes) throws IOException, InterruptedException {
    Path folder = Files.createTempDirectory("flotilla-bench");
    Path first = folder.resolve("node-1");
    int port = NodeProcess.freePorts(FIRST_PORT);
    EmbeddedCluster cluster =
        new EmbeddedCluster(folder, Flotilla.start(Flotilla.Config.of(first, port)));
    try {
      Client client = new Client("http://127.0.0.1:" + port, Client.keyIn(first));
      for (int number = 2; number <= nodes; number++) {
        String name = "node-" + number;
        NodeProcess node =
            new NodeProcess(
                NodeProcess.launcher(),
                name,
                folder.resolve(name),
                port + 10 * (number - 1),
                NodeProcess.joining(client, "127.0.0.1:" + port));
        cluster.others.add(node);
        node.awaitReady();
      }
      cluster.awaitAll(nodes);
      return cluster;
    } catch (IOException | InterruptedException | RuntimeException e) {
      cluster.close();
      throw e;
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
    others.forEach(NodeProcess::kill);
    NodeFiles.deleteTree(folder);
  }
}

package dev.flotilla.app;

import dev.flotilla.client.Client;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/** A whole node in this process, reached as everyone reaches it: over HTTP. */
final class TestNode implements AutoCloseable {

  private static final ModelSources NO_HUB = ModelSources.of(Map.of(), false);

  private final Node node;
  private final Path folder;
  private final int port;

  private TestNode(Path folder, int port, Optional<Node.Join> join, ModelSources sources) {
    this.folder = folder;
    this.port = port;
    this.node =
        new Node(
            new Node.Options(
                folder, folder.getFileName().toString(), "127.0.0.1", port, false, join, sources));
    node.start();
  }

  /** A cluster of one. */
  static TestNode start(Path folder) {
    return start(folder, NO_HUB);
  }

  /** A cluster of one that pulls models from there. */
  static TestNode start(Path folder, ModelSources sources) {
    return new TestNode(folder, NodeProcess.freePorts(18_000), Optional.empty(), sources);
  }

  /** A node that joins this one's cluster. */
  TestNode join(Path itsFolder) {
    String token = client().post("/api/invites", Map.of()).path("token").asText();
    return new TestNode(
        itsFolder,
        NodeProcess.freePorts(port + 10),
        Optional.of(new Node.Join("127.0.0.1:" + port, token)),
        NO_HUB);
  }

  /** A new process, as it were, in the folder of this one, which was stopped. */
  TestNode again() {
    return new TestNode(folder, port, Optional.empty(), NO_HUB);
  }

  String url() {
    return "http://127.0.0.1:" + port;
  }

  String key() {
    return Client.keyIn(folder).orElseThrow();
  }

  /** With the admin key, which only the first node's folder holds. */
  Client client() {
    return new Client(url(), Optional.of(key()));
  }

  /** Runs a command against this node; prints to the real standard output. */
  int run(String... command) {
    List<String> all = new java.util.ArrayList<>(List.of(command));
    all.addAll(List.of("--url", url(), "--key", key()));
    return Main.run(all.toArray(String[]::new));
  }

  @Override
  public void close() {
    node.stop();
  }
}

package dev.flotilla.app;

import dev.flotilla.client.Client;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/**
 * Real nodes as processes of their own, with the classes of the tests: for what only {@code kill
 * -9} shows. None outlives the test.
 */
final class TestProcesses implements AutoCloseable {

  private final Path folder;
  private final Class<?> program;
  private final List<String> jvm;
  private final int port = NodeProcess.freePorts(18_000);
  private final List<NodeProcess> nodes = new ArrayList<>();

  /** Nodes of the product itself. */
  TestProcesses(Path folder) {
    this(folder, Main.class);
  }

  /** Nodes that have so much to compute that it is worth to compile it well. */
  static TestProcesses thatCompute(Path folder) {
    return new TestProcesses(folder, Main.class, List.of());
  }

  /**
   * Nodes of a program that embeds one.
   *
   * @param program takes the arguments of {@code up} and prints {@code ready}
   */
  TestProcesses(Path folder, Class<?> program) {
    // The optimizing compiler takes more than it gives to nodes that live for seconds.
    this(folder, program, List.of("-XX:TieredStopAtLevel=1"));
  }

  private TestProcesses(Path folder, Class<?> program, List<String> jvm) {
    this.folder = folder;
    this.program = program;
    this.jvm = jvm;
  }

  /** One more node, the first or one that joins it; when this returns, it serves. */
  NodeProcess add(String name) throws IOException, InterruptedException {
    NodeProcess node = begin(name);
    node.awaitReady();
    return node;
  }

  /** As {@link #add}, but does not wait. */
  NodeProcess begin(String name) throws IOException {
    return begin(name, port(nodes.size()), nodes.isEmpty() ? List.of() : joining());
  }

  /** One that may be refused. */
  NodeProcess begin(String name, int itsPort, List<String> more) throws IOException {
    List<String> command =
        new ArrayList<>(
            List.of(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "@" + Path.of(System.getProperty("flotilla.home"), "node", "jvm.options"),
                "-Xmx512m"));
    command.addAll(jvm);
    command.addAll(List.of("-cp", System.getProperty("java.class.path"), program.getName()));
    NodeProcess node = new NodeProcess(command, name, folder.resolve(name), itsPort, more);
    nodes.add(node);
    return node;
  }

  private List<String> joining() {
    return NodeProcess.joining(client(0), address());
  }

  /** Whom to join. */
  String address() {
    return "127.0.0.1:" + port;
  }

  /** Where the HTTP API of one is, counted from 0. */
  int port(int index) {
    return port + 10 * index;
  }

  NodeProcess node(int index) {
    return nodes.get(index);
  }

  List<NodeProcess> all() {
    return nodes;
  }

  /** A client of one, counted from 0, with the admin key, which only the first one's folder has. */
  Client client(int index) {
    Optional<String> key = Client.keyIn(nodes.getFirst().folder());
    return new Client(nodes.get(index).url(), key);
  }

  @Override
  public void close() {
    nodes.forEach(NodeProcess::kill);
  }
}

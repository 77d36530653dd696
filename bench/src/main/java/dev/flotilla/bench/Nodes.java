package dev.flotilla.bench;

import dev.flotilla.client.Client;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.stream.Stream;

/**
 * A real cluster for a measurement: nodes as processes, started by the launcher, each on a host of
 * a {@link FaultNet} where this is allowed, else all on loopback. Deleted at the end.
 */
final class Nodes implements AutoCloseable {

  private static final int PORT = 8000;
  private static final int READY_TIMEOUT_S = 90;

  /** One node: killed, stopped and continued at will. */
  final class Node {
    private final int number;
    private final Path folder;
    private final List<String> join;
    private volatile Process process;
    private volatile CompletableFuture<Void> ready = new CompletableFuture<>();

    private Node(int number, Path folder, List<String> join) throws IOException {
      this.number = number;
      this.folder = folder;
      this.join = join;
      this.process = start();
    }

    private Process start() throws IOException {
      Files.createDirectories(folder);
      List<String> command = new ArrayList<>();
      net.ifPresent(n -> command.addAll(n.on(number)));
      command.addAll(
          List.of(
              Path.of(System.getProperty("flotilla.home"), "flotilla").toString(),
              "up",
              "--name",
              "node-" + number,
              "--data",
              folder.toString(),
              "--port",
              Integer.toString(port(number))));
      net.ifPresent(n -> command.addAll(List.of("--bind", n.address(number), "--insecure-http")));
      command.addAll(join);
      ProcessBuilder builder = new ProcessBuilder(command);
      builder.environment().put("JAVA_HOME", System.getProperty("java.home"));
      builder.environment().put("FLOTILLA_HEAP", "768m");
      builder.environment().put("FLOTILLA_JVM", jvm);
      builder.redirectError(
          ProcessBuilder.Redirect.appendTo(folder.resolve("stderr.txt").toFile()));
      Process started = builder.start();
      CompletableFuture<Void> itsReady = new CompletableFuture<>();
      ready = itsReady;
      Thread.ofPlatform()
          .daemon()
          .start(
              () -> {
                try (BufferedReader lines =
                    new BufferedReader(
                        new InputStreamReader(started.getInputStream(), StandardCharsets.UTF_8))) {
                  for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                    if (line.startsWith("ready ")) {
                      itsReady.complete(null);
                    }
                  }
                } catch (IOException e) {
                  // Its end is said below.
                }
                itsReady.completeExceptionally(new IOException("ended"));
              });
      return started;
    }

    int number() {
      return number;
    }

    Path folder() {
      return folder;
    }

    String url() {
      return "http://" + host(number) + ":" + port(number);
    }

    void awaitReady() {
      try {
        ready.get(READY_TIMEOUT_S, TimeUnit.SECONDS);
      } catch (ExecutionException | TimeoutException e) {
        throw new IllegalStateException(
            "node " + number + " did not start; see " + folder.resolve("logs/node.log"), e);
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        throw new IllegalStateException(e);
      }
    }

    /** As {@code kill -9}. */
    void kill() {
      process.destroyForcibly();
      process.onExit().join();
    }

    void restart() throws IOException {
      process = start();
    }

    /** SIGSTOP: the process stands still and does not know it. */
    void pause() throws IOException {
      signal("-STOP");
    }

    void resume() throws IOException {
      signal("-CONT");
    }

    private void signal(String signal) throws IOException {
      new ProcessBuilder("kill", signal, Long.toString(process.pid())).start().onExit().join();
    }
  }

  private final Path folder;
  private final Optional<FaultNet> net;
  private final int firstPort;
  private final String jvm;
  private final List<Node> nodes = new ArrayList<>();
  private boolean kept;

  /**
   * Starts so many nodes and waits until all are ready.
   *
   * @param jvm further options of their JVMs, such as a planted fault
   */
  Nodes(int count, int firstPort, String jvm) throws IOException {
    this.folder = Files.createTempDirectory("flotilla-bench");
    this.firstPort = firstPort;
    this.jvm = jvm;
    this.net = FaultNet.isAllowed() ? Optional.of(new FaultNet(firstPort % 250)) : Optional.empty();
    try {
      for (int number = 1; number <= count; number++) {
        if (net.isPresent()) {
          net.get().add();
        }
        add(number);
      }
      nodes.forEach(Node::awaitReady);
    } catch (RuntimeException e) {
      close();
      throw e;
    }
  }

  private void add(int number) throws IOException {
    List<String> join = List.of();
    if (number > 1) {
      nodes.getFirst().awaitReady();
      String token = client(0).post("/api/invites", Map.of()).path("token").asText();
      join = List.of("--join", host(1) + ":" + port(1), "--token", token);
    }
    nodes.add(new Node(number, folder.resolve("node-" + number), join));
  }

  private String host(int number) {
    return net.map(n -> n.address(number)).orElse("127.0.0.1");
  }

  private int port(int number) {
    return net.isPresent() ? PORT : firstPort + 10 * number;
  }

  List<Node> all() {
    return nodes;
  }

  Optional<FaultNet> net() {
    return net;
  }

  /** The admin's key. */
  String key() {
    return Client.keyIn(nodes.getFirst().folder()).orElseThrow();
  }

  /** A client of one node, counted from 0. */
  Client client(int index) {
    return new Client(nodes.get(index).url(), Optional.of(key()));
  }

  /** Leaves the nodes' folders, logs among them, where they are. */
  void keepFolder() {
    kept = true;
  }

  /** Where everything lies while it runs. */
  Path folder() {
    return folder;
  }

  @Override
  public void close() {
    try {
      for (Node node : nodes) {
        node.kill();
      }
      if (net.isPresent()) {
        net.get().close();
      }
      if (!kept) {
        try (Stream<Path> tree = Files.walk(folder)) {
          for (Path path : tree.sorted((a, b) -> b.compareTo(a)).toList()) {
            Files.delete(path);
          }
        }
      }
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }
}

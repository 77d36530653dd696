package dev.flotilla.app;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.client.Client;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/**
 * A node on this machine as a process of its own, as {@code flotilla up} starts it; stopped, killed
 * and started again at will. What the demo, the benchmarks and the tests that kill nodes stand on.
 */
public final class NodeProcess implements AutoCloseable {

  private static final Duration READY_TIMEOUT = Duration.ofSeconds(90);
  private static final int STOP_TIMEOUT_S = 10;
  private static final int PORTS_PER_NODE = 10;
  private static final int NODES = 3;

  private final String name;
  private final Path folder;
  private final int port;
  private final List<String> command;
  private volatile Process process;
  private volatile CompletableFuture<Void> ready = new CompletableFuture<>();

  /**
   * Starts the process and returns at once; see {@link #awaitReady}.
   *
   * @param program what runs Flotilla, such as {@link #launcher}
   * @param more further arguments of {@code up}, such as {@link #joining}; empty for the first node
   */
  public NodeProcess(List<String> program, String name, Path folder, int port, List<String> more)
      throws IOException {
    this.name = name;
    this.folder = folder;
    this.port = port;
    Files.createDirectories(folder);
    this.command = new ArrayList<>(program);
    command.addAll(List.of("up", "--name", name, "--data", folder.toString(), "--port", "" + port));
    command.addAll(more);
    this.process = start();
  }

  /** The program itself, as people start it. */
  public static List<String> launcher() {
    return List.of(Path.of(System.getProperty("flotilla.home"), "flotilla").toString());
  }

  /**
   * The arguments with which a node joins a cluster, with a token made for it.
   *
   * @param member a client of one of its nodes
   * @param address that node's, as {@code HOST:PORT}
   */
  public static List<String> joining(Client member, String address) {
    String token = member.post("/api/invites", Map.of()).path("token").asText();
    return List.of("--join", address, "--token", token);
  }

  /** The first port at or after the one wanted from which three nodes, ten apart, find theirs. */
  public static int freePorts(int wanted) {
    int ports = NODES * PORTS_PER_NODE;
    for (int first = wanted; first < 65_000; first += ports) {
      boolean free = true;
      for (int port = first; port < first + ports && free; port++) {
        free = isFree(port);
      }
      if (free) {
        return first;
      }
    }
    throw new FlotillaException(
        Code.CONFLICT, "no free ports at or after " + wanted, "Name a first port with --port.");
  }

  private static boolean isFree(int port) {
    try (ServerSocket socket = new ServerSocket()) {
      socket.setReuseAddress(true);
      socket.bind(new InetSocketAddress(InetAddress.getLoopbackAddress(), port));
      return true;
    } catch (IOException taken) {
      return false;
    }
  }

  private Process start() throws IOException {
    ProcessBuilder builder = new ProcessBuilder(command);
    builder.environment().put("JAVA_HOME", System.getProperty("java.home"));
    builder.environment().put("FLOTILLA_HEAP", "768m");
    builder.redirectError(ProcessBuilder.Redirect.appendTo(errors().toFile()));
    Process started = builder.start();
    CompletableFuture<Void> itsReady = new CompletableFuture<>();
    ready = itsReady;
    // A platform thread: reading a pipe would hold one of the two carriers of all virtual threads.
    Thread.ofPlatform().daemon().name("node-" + name).start(() -> watch(started, itsReady));
    return started;
  }

  private static void watch(Process started, CompletableFuture<Void> itsReady) {
    try (BufferedReader lines =
        new BufferedReader(
            new InputStreamReader(started.getInputStream(), StandardCharsets.UTF_8))) {
      for (String line = lines.readLine(); line != null; line = lines.readLine()) {
        if (line.startsWith("ready ")) {
          itsReady.complete(null);
        }
      }
    } catch (IOException e) {
      itsReady.completeExceptionally(e);
    }
    itsReady.completeExceptionally(new IOException("ended before it was ready"));
  }

  /**
   * Until it serves.
   *
   * @throws FlotillaException {@code FAILED} if it ended, or does not within a minute and a half
   */
  public void awaitReady() throws InterruptedException, IOException {
    awaitReady(READY_TIMEOUT);
  }

  /**
   * Until it serves, for a machine that is busy with other things.
   *
   * @throws FlotillaException {@code FAILED} if it ended, or does not within {@code limit}
   */
  public void awaitReady(Duration limit) throws InterruptedException, IOException {
    try {
      ready.get(limit.toMillis(), TimeUnit.MILLISECONDS);
    } catch (ExecutionException | TimeoutException e) {
      String said = Files.exists(errors()) ? Files.readString(errors()).strip() : "";
      throw new FlotillaException(
          Code.FAILED,
          "node " + name + " did not start" + (said.isEmpty() ? "" : ": " + said),
          "Its log is " + folder.resolve("logs/node.log"),
          e);
    }
  }

  /** What it was named. */
  public String name() {
    return name;
  }

  /** Its data folder. */
  public Path folder() {
    return folder;
  }

  /** The port of its HTTP API. */
  public int port() {
    return port;
  }

  /** Where it is reached on loopback. */
  public String url() {
    return "http://127.0.0.1:" + port;
  }

  /** Its process. */
  public long pid() {
    return process.pid();
  }

  /** The exit code, once the process has ended. */
  int awaitEnd() throws InterruptedException {
    return process.waitFor();
  }

  /** Whether its process runs, or stands still. */
  public boolean isAlive() {
    return process.isAlive();
  }

  /** Whether its process has ended within that time. */
  public boolean awaitEnd(Duration limit) throws InterruptedException {
    return process.waitFor(limit.toMillis(), TimeUnit.MILLISECONDS);
  }

  /** Asks it to stop, as {@code kill} does. */
  public void terminate() {
    process.destroy();
  }

  /** As {@code kill -9}; when this returns, it is gone. */
  public void kill() {
    process.destroyForcibly();
    process.onExit().join();
  }

  /** Starts one that has ended again, with the same arguments; see {@link #awaitReady}. */
  public void restart() throws IOException {
    process = start();
  }

  /** SIGSTOP: it stands still and does not know it. */
  public void pause() throws IOException {
    signal("-STOP");
  }

  /** SIGCONT: it goes on. */
  public void resume() throws IOException {
    signal("-CONT");
  }

  private void signal(String signal) throws IOException {
    new ProcessBuilder("kill", signal, Long.toString(pid())).start().onExit().join();
  }

  /** Stops it as it should be stopped; kills it if it does not. */
  @Override
  public void close() {
    terminate();
    try {
      if (!process.waitFor(STOP_TIMEOUT_S, TimeUnit.SECONDS)) {
        kill();
      }
    } catch (InterruptedException e) {
      process.destroyForcibly();
      Thread.currentThread().interrupt();
    }
  }

  private Path errors() {
    return folder.resolve("stderr.txt");
  }
}

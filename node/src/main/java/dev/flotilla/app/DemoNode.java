package dev.flotilla.app;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/** One {@code flotilla up} of the demo, as a process of its own. */
final class DemoNode implements AutoCloseable {

  private static final int READY_TIMEOUT_S = 60;
  private static final int STOP_TIMEOUT_S = 10;

  private final String name;
  private final Path folder;
  private final int port;
  private final Process process;
  private final CompletableFuture<Void> ready = new CompletableFuture<>();

  /**
   * Starts the process and returns at once; see {@link #awaitReady}.
   *
   * @param join further arguments of {@code up}, empty for the first node
   */
  DemoNode(String name, Path folder, int port, List<String> join) throws IOException {
    this.name = name;
    this.folder = folder;
    this.port = port;
    Files.createDirectories(folder);
    List<String> command = new ArrayList<>();
    command.add(Path.of(System.getProperty("flotilla.home"), "flotilla").toString());
    command.addAll(List.of("up", "--name", name, "--data", folder.toString(), "--port", "" + port));
    command.addAll(join);
    ProcessBuilder builder = new ProcessBuilder(command);
    builder.environment().put("JAVA_HOME", System.getProperty("java.home"));
    builder.environment().put("FLOTILLA_HEAP", "768m");
    builder.redirectError(errors().toFile());
    this.process = builder.start();
    // A platform thread: reading a pipe would hold one of the two carriers of all virtual threads.
    Thread.ofPlatform().daemon().name("demo-" + name).start(this::watch);
  }

  private void watch() {
    try (BufferedReader lines =
        new BufferedReader(
            new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8))) {
      for (String line = lines.readLine(); line != null; line = lines.readLine()) {
        if (line.startsWith("ready ")) {
          ready.complete(null);
        }
      }
    } catch (IOException e) {
      ready.completeExceptionally(e);
    }
    ready.completeExceptionally(new IOException("ended before it was ready"));
  }

  void awaitReady() throws InterruptedException, IOException {
    try {
      ready.get(READY_TIMEOUT_S, TimeUnit.SECONDS);
    } catch (java.util.concurrent.ExecutionException | TimeoutException e) {
      String said = Files.exists(errors()) ? Files.readString(errors()).strip() : "";
      throw new FlotillaException(
          Code.FAILED,
          "node " + name + " did not start" + (said.isEmpty() ? "" : ": " + said),
          "Its log is " + folder.resolve("logs/node.log"),
          e);
    }
  }

  String name() {
    return name;
  }

  Path folder() {
    return folder;
  }

  String url() {
    return "http://127.0.0.1:" + port;
  }

  long pid() {
    return process.pid();
  }

  /** As {@code kill -9} does. */
  void kill() {
    process.destroyForcibly();
  }

  @Override
  public void close() {
    process.destroy();
    try {
      if (!process.waitFor(STOP_TIMEOUT_S, TimeUnit.SECONDS)) {
        process.destroyForcibly();
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

package dev.flotilla.train;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** A worker process as its node sees it: started, listened to, and stopped for certain. */
final class WorkerProcess implements AutoCloseable {

  private static final Logger LOG = LoggerFactory.getLogger(WorkerProcess.class);

  /** What the node does with what it hears; called on one thread. */
  interface Listener {

    /** An event other than {@link WorkerEvent.Failed}. */
    void event(WorkerProcess worker, WorkerEvent event);

    /** It ended without success, unless the node had stopped it; nothing follows. */
    void failed(WorkerProcess worker, WorkerEvent.Failed failure);
  }

  private final WorkerConfig config;
  private final Process process;
  private final Listener listener;
  private volatile boolean stopped;

  private WorkerProcess(WorkerConfig config, Process process, Listener listener) {
    this.config = config;
    this.process = process;
    this.listener = listener;
  }

  /**
   * Starts a worker. Its standard error goes to {@code worker.log} in its folder.
   *
   * @throws FlotillaException {@code STORAGE} if its files cannot be written
   */
  static WorkerProcess start(WorkerConfig config, Listener listener) {
    Path folder = Path.of(config.folder());
    try {
      Files.createDirectories(folder);
      Path file = folder.resolve("worker.json");
      Files.write(file, Json.write(config));
      Files.deleteIfExists(folder.resolve("store-" + config.attempt()));
      ProcessBuilder builder = new ProcessBuilder(command(file));
      builder.environment().put("OMP_WAIT_POLICY", "PASSIVE");
      builder.environment().put("OMP_NUM_THREADS", String.valueOf(config.threads()));
      builder.environment().put("OPENBLAS_NUM_THREADS", "1");
      builder.redirectError(
          ProcessBuilder.Redirect.appendTo(folder.resolve("worker.log").toFile()));
      var worker = new WorkerProcess(config, builder.start(), listener);
      Thread.ofPlatform()
          .daemon()
          .name("worker " + config.job() + "/" + config.rank())
          .start(worker::listen);
      return worker;
    } catch (IOException e) {
      throw new FlotillaException(
          Code.STORAGE,
          "cannot start a worker in " + folder + ": " + e.getMessage(),
          "Free some space on that disk.",
          e);
    }
  }

  private static List<String> command(Path configFile) {
    List<String> command = new ArrayList<>();
    command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
    command.add("-Xmx1g");
    command.add("-XX:+UseSerialGC");
    command.add("-XX:TieredStopAtLevel=1"); // the work is in libtorch
    command.add("--enable-native-access=ALL-UNNAMED");
    command.add("-Doffline=true");
    command.add("-Dorg.bytedeco.javacpp.maxPhysicalBytes=0");
    command.add("-cp");
    command.add(System.getProperty("java.class.path"));
    command.add(TrainWorker.class.getName());
    command.add(configFile.toString());
    return command;
  }

  WorkerConfig config() {
    return config;
  }

  long pid() {
    return process.pid();
  }

  /** Answers {@link WorkerEvent.Address}. */
  void introduce(List<byte[]> peers) {
    try {
      OutputStream in = process.getOutputStream();
      in.write(Json.write(new WorkerEvent.Peers(peers)));
      in.write('\n');
      in.flush();
    } catch (IOException e) {
      LOG.info("worker {} of {} is gone: {}", config.rank(), config.job(), e.toString());
    }
  }

  private void listen() {
    WorkerEvent.Failed failure = null;
    boolean done = false;
    try (var in =
        new BufferedReader(
            new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8))) {
      for (String line = in.readLine(); line != null; line = in.readLine()) {
        if (!line.startsWith("{\"event\"")) {
          LOG.debug("worker {} of {}: {}", config.rank(), config.job(), line);
          continue;
        }
        WorkerEvent event = Json.read(line.getBytes(StandardCharsets.UTF_8), WorkerEvent.class);
        if (event instanceof WorkerEvent.Failed failed) {
          failure = failed;
        } else {
          done |= event instanceof WorkerEvent.Done;
          listener.event(this, event);
        }
      }
    } catch (FlotillaException e) {
      failure = new WorkerEvent.Failed(e.code(), e.explanation(), e.code() == Code.UNAVAILABLE);
      process.destroyForcibly();
    } catch (IOException | RuntimeException e) {
      LOG.warn("worker {} of {}: {}", config.rank(), config.job(), e.toString());
      process.destroyForcibly();
    }
    int exitCode = awaitExit();
    if (!stopped && !done) {
      listener.failed(
          this,
          failure != null
              ? failure
              : new WorkerEvent.Failed(
                  Code.FAILED,
                  "worker %d ended with exit code %d%s; see %s"
                      .formatted(
                          config.rank(),
                          exitCode,
                          exitCode > 128 ? " (signal " + (exitCode - 128) + ")" : "",
                          Path.of(config.folder()).resolve("worker.log")),
                  false));
    }
  }

  private int awaitExit() {
    try {
      if (!process.waitFor(10, TimeUnit.SECONDS)) {
        process.destroyForcibly();
      }
      return process.waitFor();
    } catch (InterruptedException e) {
      process.destroyForcibly();
      Thread.currentThread().interrupt();
      return -1;
    }
  }

  /** Kills it; the listener hears nothing more of failures. */
  @Override
  public void close() {
    stopped = true;
    process.destroyForcibly();
  }
}

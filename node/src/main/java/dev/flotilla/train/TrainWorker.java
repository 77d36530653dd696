package dev.flotilla.train;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import org.bytedeco.pytorch.global.torch;

/**
 * The main class of a training worker: a process of its own, because a native fault must not take
 * the node down.
 *
 * <p>Argument: a file with a {@link WorkerConfig}. Standard output: one {@link WorkerEvent} a line.
 * Standard input: {@link WorkerEvent.Peers}, once; when it ends, because the node closed it or
 * died, the process halts, so that no worker outlives its node.
 */
final class TrainWorker {

  /** Exit code when the node is gone. */
  private static final int ORPHANED = 3;

  private final WorkerConfig config;
  private final PrintStream out;
  private final CompletableFuture<WorkerEvent.Peers> peers = new CompletableFuture<>();

  private TrainWorker(WorkerConfig config, PrintStream out) {
    this.config = config;
    this.out = out;
  }

  /** Runs one worker to its end. */
  public static void main(String[] arguments) throws IOException {
    PrintStream out = System.out;
    System.setOut(System.err); // libraries that print must not disturb the events
    int exitCode = 0;
    try {
      var config = Json.read(Files.readAllBytes(Path.of(arguments[0])), WorkerConfig.class);
      TrainWorker worker = new TrainWorker(config, out);
      Thread.ofPlatform().daemon().name("node").start(worker::listen);
      worker.run();
    } catch (FlotillaException e) {
      exitCode = 1;
      boolean peerLost = e.code() == Code.UNAVAILABLE;
      emit(out, new WorkerEvent.Failed(e.code(), e.explanation(), peerLost));
    } catch (RuntimeException | Error e) {
      exitCode = 1;
      e.printStackTrace();
      emit(out, new WorkerEvent.Failed(Code.FAILED, e.toString(), false));
    }
    out.flush();
    // Gloo's threads would keep the process, and tearing libtorch down at exit can crash it.
    Runtime.getRuntime().halt(exitCode);
  }

  private void listen() {
    try (var in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8))) {
      for (String line = in.readLine(); line != null; line = in.readLine()) {
        peers.complete(Json.read(line.getBytes(StandardCharsets.UTF_8), WorkerEvent.Peers.class));
      }
    } catch (IOException | FlotillaException e) {
      System.err.println("standard input failed: " + e);
    }
    Runtime.getRuntime().halt(ORPHANED);
  }

  private void run() {
    torch.set_num_threads(config.threads());
    try (TrainingData data = TrainingData.of(withText());
        GradientExchange exchange = meet();
        Trainer trainer =
            new Trainer(
                config.training(),
                data,
                config.rank(),
                config.worldSize(),
                exchange,
                System::nanoTime)) {
      trainer.run(
          config.reportEverySteps(),
          progress -> {
            if (config.rank() == 0) {
              emit(out, progress);
            }
          });
      HeldOutExam.Mark mark = new HeldOutExam.Mark(Double.NaN, Map.of());
      if (config.rank() == 0) {
        if (data instanceof ChatData chat) {
          var questions = SmallWorld.heldOut(config.training().seed(), config.heldOutQuestions());
          mark = HeldOutExam.mark(questions, HeldOutExam.answers(trainer.model(), chat, questions));
        }
        Checkpoint.write(
            Path.of(config.folder()).resolve(WorkerConfig.MODEL_FOLDER), trainer.model(), data);
      }
      emit(out, new WorkerEvent.Done(mark.accuracy(), mark.byKind(), cpuSeconds()));
    }
  }

  private TrainingConfig withText() {
    if (config.textFile().isEmpty()) {
      return config.training();
    }
    try {
      String file = config.textFile().get();
      return config
          .training()
          .withText(Optional.of(TrainingText.decode(Files.readAllBytes(Path.of(file)), file)));
    } catch (IOException e) {
      throw new FlotillaException(
          Code.STORAGE, "cannot read the training text: " + e.getMessage(), "Submit it again.", e);
    }
  }

  private GradientExchange meet() {
    if (config.worldSize() == 1) {
      return GradientExchange.alone();
    }
    return new GlooExchange(
        Path.of(config.folder()).resolve("store-" + config.attempt()),
        config.rank(),
        config.worldSize(),
        this::askNode);
  }

  private List<byte[]> askNode(byte[] own) {
    emit(out, new WorkerEvent.Address(own));
    try {
      return peers.join().blobs();
    } catch (CompletionException e) {
      throw new IllegalStateException(e);
    }
  }

  private static double cpuSeconds() {
    return ProcessHandle.current()
        .info()
        .totalCpuDuration()
        .map(duration -> duration.toNanos() / 1e9)
        .orElse(Double.NaN);
  }

  private static void emit(PrintStream out, WorkerEvent event) {
    synchronized (out) {
      out.println(new String(Json.write(event), StandardCharsets.UTF_8));
      out.flush();
    }
  }
}

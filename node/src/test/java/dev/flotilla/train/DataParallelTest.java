package dev.flotilla.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import dev.flotilla.Json;
import dev.flotilla.train.GradientTunnel.World;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Real worker processes, real Gloo, through the tunnel. */
class DataParallelTest {

  static final TrainingConfig TINY =
      new TrainingConfig(
          "tiny", Optional.empty(), 5, 0, 400, 32, 2, 2, 1, 64, 96, 7, 12, 3e-3, 3, 0.1, 1.0);

  @TempDir Path folder;

  private final TestTls cluster = new TestTls();

  /** What rank 0 reported. */
  private record Run(List<WorkerEvent.Progress> curve, WorkerEvent.Done done) {}

  private Run train(TrainingConfig config, int workers) throws Exception {
    World world = new World("job", workers);
    List<GradientTunnel> tunnels = new ArrayList<>();
    List<InetSocketAddress> addresses = new ArrayList<>();
    List<WorkerProcess> processes = new ArrayList<>();
    List<WorkerEvent.Progress> curve = new ArrayList<>();
    var done = new CompletableFuture<WorkerEvent.Done>();
    try {
      for (int rank = 0; rank < workers; rank++) {
        var any = new InetSocketAddress(InetAddress.getLoopbackAddress(), 0);
        tunnels.add(new GradientTunnel(cluster.node("n" + rank), any));
        addresses.add(
            new InetSocketAddress(InetAddress.getLoopbackAddress(), tunnels.get(rank).port()));
      }
      for (int rank = 0; rank < workers; rank++) {
        var session = tunnels.get(rank).open(world, rank, addresses);
        Path own = folder.resolve("w" + workers + "-" + rank);
        Optional<String> textFile = Optional.empty();
        if (config.text().isPresent()) {
          Path text = folder.resolve("text.txt");
          Files.writeString(text, config.text().get());
          textFile = Optional.of(text.toString());
        }
        var worker =
            new WorkerConfig(
                "job",
                workers,
                rank,
                workers,
                1,
                config.withText(Optional.empty()),
                textFile,
                own.toString(),
                3,
                12);
        int of = rank;
        processes.add(
            WorkerProcess.start(
                worker,
                new WorkerProcess.Listener() {
                  @Override
                  public void event(WorkerProcess process, WorkerEvent event) {
                    switch (event) {
                      case WorkerEvent.Address address ->
                          process.introduce(
                              session.exchange(address.blob(), Duration.ofSeconds(60).toNanos()));
                      case WorkerEvent.Progress progress -> curve.add(progress);
                      case WorkerEvent.Done end -> {
                        if (of == 0) {
                          done.complete(end);
                        }
                      }
                      case WorkerEvent.Failed failed -> {}
                    }
                  }

                  @Override
                  public void failed(WorkerProcess process, WorkerEvent.Failed failure) {
                    done.completeExceptionally(new IllegalStateException(failure.reason()));
                  }
                }));
      }
      return new Run(curve, done.get(90, TimeUnit.SECONDS));
    } finally {
      processes.forEach(WorkerProcess::close);
      tunnels.forEach(GradientTunnel::close);
    }
  }

  @Test
  void twoAndThreeWorkersGiveTheLossCurveOfOne() throws Exception {
    Run one = train(TINY, 1);
    assertThat(one.curve()).extracting(WorkerEvent.Progress::step).containsExactly(3, 6, 9, 12);
    assertThat(one.curve().getLast().loss()).isLessThan(one.curve().getFirst().loss());
    for (int workers = 2; workers <= 3; workers++) {
      Run several = train(TINY, workers);
      for (int i = 0; i < one.curve().size(); i++) {
        assertThat(several.curve().get(i).loss())
            .as("%d workers, point %d", workers, i)
            .isCloseTo(one.curve().get(i).loss(), within(1e-3));
      }
      assertThat(several.done().heldOutAccuracy()).isBetween(0.0, 1.0);
      assertThat(several.done().accuracyByKind()).hasSize(SmallWorld.Kind.values().length);
    }
    assertCheckpointIsComplete(folder.resolve("w3-0").resolve(WorkerConfig.MODEL_FOLDER));
  }

  private static void assertCheckpointIsComplete(Path model) throws Exception {
    assertThat(model.resolve("model.safetensors")).exists();
    for (String file :
        List.of("tokenizer.json", "chat_template.jinja", "special_tokens_map.json")) {
      assertThat(model.resolve(file)).isNotEmptyFile();
    }
    var config = Json.MAPPER.readTree(model.resolve("config.json").toFile());
    assertThat(config.get("architectures").get(0).asText()).isEqualTo("LlamaForCausalLM");
    assertThat(config.get("num_hidden_layers").asInt()).isEqualTo(2);
    var generation = Json.MAPPER.readTree(model.resolve("generation_config.json").toFile());
    assertThat(generation.get("eos_token_id").asInt()).isEqualTo(3);
    assertThat(model.resolveSibling(".model.part")).doesNotExist();
  }

  @Test
  void textGivesAValidationLoss() throws Exception {
    String text = "the quick brown fox jumps over the lazy dog, again and again. ".repeat(200);
    Run run = train(TINY.withText(Optional.of(text)), 1);
    assertThat(run.curve().getLast().validationLoss())
        .isLessThan(run.curve().getFirst().validationLoss());
    assertThat(run.done().heldOutAccuracy()).isNaN();
  }
}

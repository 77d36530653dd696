package dev.flotilla.app;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.client.Client;
import dev.flotilla.cluster.TestNodes;
import dev.flotilla.model.ModelConfig;
import dev.flotilla.model.RandomModel;
import dev.flotilla.tensor.WeightType;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * A node that serves long streams is killed with -9, while another has copies of what they have in
 * the KV cache ({@code --kv-replicas 1}): the texts are those of streams that nothing happens to,
 * and hardly a token is computed again.
 */
class KvReplicaKillTest {

  private static final String PATH = "/v1/completions";

  /** One on each of the replicas. */
  private static final int STREAMS = 2;

  private static final int TOKENS = 1000;

  /** Of each stream, when the node is killed. */
  private static final int GENERATED = 200;

  @TempDir Path folder;

  private static Map<String, Object> request(String model, int seed) {
    return Map.of(
        "model",
        model,
        "prompt",
        "The ship's log says, on page " + seed,
        "max_tokens",
        TOKENS,
        "temperature",
        1,
        "seed",
        seed,
        "cache",
        false,
        "ignore_eos",
        true,
        "stream",
        true);
  }

  private static final class Answer {
    private final StringBuilder text = new StringBuilder();
    private final AtomicInteger events = new AtomicInteger();

    synchronized void event(JsonNode event) {
      text.append(event.at("/choices/0/text").asText());
      events.incrementAndGet();
    }

    @Override
    public synchronized String toString() {
      return text.toString();
    }
  }

  /** Of one node, the sum over all that begins so; 0 where it does not answer. */
  private static double metric(Client client, String name) {
    String text;
    try {
      text = client.text("/metrics");
    } catch (FlotillaException e) {
      return 0;
    }
    return text.lines()
        .filter(line -> line.startsWith(name))
        .mapToDouble(line -> Double.parseDouble(line.substring(line.lastIndexOf(' ') + 1)))
        .sum();
  }

  private static void await(String what, List<Answer> answers, int events)
      throws InterruptedException {
    TestNodes.await(
        what,
        Duration.ofMinutes(2),
        () -> answers.stream().allMatch(answer -> answer.events.get() >= events));
  }

  @Test
  void streamsOfAKilledNodeGoOnWhereTheirCopiesAre() throws Exception {
    try (TestProcesses nodes = TestProcesses.thatCompute(folder)) {
      for (String name : List.of("first", "second", "third")) {
        nodes.add(name);
      }
      Path file = folder.resolve("random.gguf");
      RandomModel.write(
          file,
          new ModelConfig(300, 256, 6, 4, 2, 64, 512, 2048, 10_000f, 1e-5f, false),
          WeightType.Q8_0,
          3);
      // Its twin, in caches of its own, tells what an undisturbed stream gives.
      for (String model : List.of("calm", "random")) {
        nodes.client(0).post("/api/models", Map.of("name", model, "source", file.toString()));
      }
      JsonNode _ = Waiting.deployed(nodes.client(0), Map.of("model", "calm"), s -> {});
      List<String> undisturbed = new ArrayList<>();
      for (int i = 0; i < STREAMS; i++) {
        Answer answer = new Answer();
        nodes.client(1).stream(PATH, request("calm", i), answer::event);
        undisturbed.add(answer.toString());
      }
      nodes.client(0).delete("/api/deployments/calm");
      JsonNode deployed =
          Waiting.deployed(
              nodes.client(0),
              Map.of(
                  "model", "random", "replicas", 2, "stages", 1, "force", true, "kv_replicas", 1),
              s -> {});
      List<String> used = new ArrayList<>();
      deployed.path("replicas").forEach(replica -> used.add(replica.at("/stages/0/node").asText()));
      assertThat(used).doesNotHaveDuplicates().hasSize(2);
      List<String> ids = new ArrayList<>();
      for (NodeProcess node : nodes.all()) {
        ids.add(new Client(node.url(), key(nodes)).get("/api/cluster").path("self").asText());
      }
      int gateway = ids.indexOf(ids.stream().filter(id -> !used.contains(id)).findFirst().get());
      int victim = ids.indexOf(used.get(0));
      int other = ids.indexOf(used.get(1));

      List<Answer> answers = new ArrayList<>();
      List<CompletableFuture<Void>> ends = new ArrayList<>();
      for (int i = 0; i < STREAMS; i++) {
        Answer answer = new Answer();
        Map<String, Object> body = request("random", i);
        CompletableFuture<Void> end = new CompletableFuture<>();
        answers.add(answer);
        ends.add(end);
        Thread.ofPlatform()
            .daemon()
            .start(
                () -> {
                  try {
                    nodes.client(gateway).stream(PATH, body, answer::event);
                    end.complete(null);
                  } catch (Throwable e) {
                    end.completeExceptionally(e);
                  }
                });
      }
      await("streams", answers, GENERATED / 2);
      double running = metric(nodes.client(victim), "flotilla_serve_requests_running");
      await("long streams", answers, GENERATED);
      nodes.node(victim).kill();
      assertThat(ends).as("streams that ended before the kill").noneMatch(f -> f.isDone());
      for (int i = 0; i < STREAMS; i++) {
        ends.get(i).get(120, TimeUnit.SECONDS);
        assertThat(answers.get(i)).as("stream %s", i).hasToString(undisturbed.get(i));
      }
      double resumed = metric(nodes.client(gateway), "flotilla_serve_resumptions_total");
      double replayed = metric(nodes.client(other), "flotilla_serve_replayed_tokens_total");
      System.err.printf(
          "%.0f streams of %d went on elsewhere, %.0f tokens were computed again%n",
          resumed, STREAMS, replayed);
      assertThat(resumed).isEqualTo(running).isPositive();
      assertThat(replayed).as("of %d tokens each", GENERATED).isLessThan(resumed * GENERATED / 3);
      // The lost replica is placed anew, and each keeps the other's copies again.
      TestNodes.await(
          "copies of both",
          Duration.ofSeconds(60),
          () -> {
            JsonNode now = nodes.client(gateway).get("/api/deployments").path(0);
            return now.path("state").asText().equals("ready")
                && now.at("/replicas/0/copied_to").asText().equals("random-1")
                && now.at("/replicas/1/copied_to").asText().equals("random-0");
          });
    }
  }

  private static Optional<String> key(TestProcesses nodes) {
    return Client.keyIn(nodes.node(0).folder());
  }
}

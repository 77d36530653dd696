package dev.flotilla.bench;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.client.Client;
import dev.flotilla.model.ModelConfig;
import dev.flotilla.model.RandomModel;
import dev.flotilla.tensor.WeightType;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/**
 * How long a stream of a long context pauses when the node that computes it is killed with -9, with
 * a copy of its KV cache on another replica and without, and what copying costs.
 */
@Command(
    name = "failover",
    description =
        "The pause of a long stream whose node is killed, with and without --kv-replicas.",
    mixinStandardHelpOptions = true)
final class FailoverBench implements Callable<Integer> {

  private static final String PATH = "/v1/completions";
  private static final String MODEL = "random";
  private static final int FIRST_PORT = 24_000;

  /** Events of a stream before its node is killed: some tokens are a part of a character. */
  private static final int BEFORE = 60;

  private static final int TOKENS = 250;

  /** Of each stream whose speed is measured. */
  private static final int RATE_TOKENS = 400;

  private static final Duration PATIENCE = Duration.ofMinutes(2);

  @Option(
      names = "--lengths",
      split = ",",
      defaultValue = "1000,4000,7500",
      description = "Tokens of prompts (default ${DEFAULT-VALUE}).")
  private List<Integer> lengths = List.of();

  @Option(names = "--rounds", defaultValue = "2", description = "Default ${DEFAULT-VALUE}.")
  private int rounds;

  @Option(
      names = "--streams",
      split = ",",
      defaultValue = "1,4",
      description = "Of the measurement of what copying costs (default ${DEFAULT-VALUE}).")
  private List<Integer> streams = List.of();

  @Option(names = "--json", description = "Print JSON.")
  private boolean asJson;

  /**
   * @param gapMs from a token to the next before anything happened, the median
   */
  private record Pause(int length, int copies, double ms, double gapMs, double replayedTokens) {}

  private record Rate(int streams, int copies, double tokensPerSecond) {}

  private int asked;

  @Override
  public Integer call() throws Exception {
    List<Pause> pauses = new ArrayList<>();
    List<Rate> rates = new ArrayList<>();
    try (Nodes nodes = new Nodes(3, FIRST_PORT, "", false)) {
      Path file = nodes.folder().resolve(MODEL + ".gguf");
      RandomModel.write(
          file,
          new ModelConfig(300, 512, 8, 8, 4, 64, 1536, 8192, 10_000f, 1e-5f, false),
          WeightType.Q8_0,
          3);
      client(nodes, 0).post("/api/models", Map.of("name", MODEL, "source", file.toString()));
      for (int round = 0; round < rounds; round++) {
        for (int copies : new int[] {0, 1}) {
          deploy(nodes, copies);
          for (int count : streams) {
            Rate rate = new Rate(count, copies, rate(nodes, count));
            rates.add(rate);
            say("%d streams, %d copies: %.1f tokens/s", count, copies, rate.tokensPerSecond());
          }
          for (int length : lengths) {
            Pause pause = pause(nodes, length, copies);
            pauses.add(pause);
            say(
                "%d tokens, %d copies: paused %.0f ms (%.1f ms from token to token before), %.0f"
                    + " tokens computed again",
                length, copies, pause.ms(), pause.gapMs(), pause.replayedTokens());
            deploy(nodes, copies);
          }
        }
      }
    }
    if (asJson) {
      System.out.println(
          Client.snakeCase(Map.of("pauses", pauses, "rates", rates)).toPrettyString());
    }
    return 0;
  }

  private void say(String format, Object... arguments) {
    (asJson ? System.err : System.out).printf(format + "%n", arguments);
  }

  private static Client client(Nodes nodes, int index) {
    return new Client(nodes.url(index), Optional.of(nodes.key()));
  }

  private static void deploy(Nodes nodes, int copies) throws InterruptedException {
    Client client = client(nodes, 0);
    client.post(
        "/api/deployments",
        Map.of("model", MODEL, "replicas", 2, "stages", 1, "force", true, "kv_replicas", copies));
    until(
        "two replicas on two nodes",
        () -> {
          JsonNode deployment = client.get("/api/deployments").path(0);
          return deployment.path("state").asText().equals("ready")
              && replicas(nodes).stream().distinct().count() == 2;
        });
  }

  private static void until(String what, Callable<Boolean> condition) throws InterruptedException {
    long endNs = System.nanoTime() + PATIENCE.toNanos();
    while (true) {
      try {
        if (condition.call()) {
          return;
        }
      } catch (FlotillaException e) {
        // It does not answer yet, or not any more.
      } catch (Exception e) {
        throw new IllegalStateException(e);
      }
      if (System.nanoTime() > endNs) {
        throw new FlotillaException(
            FlotillaException.Code.UNAVAILABLE, "not in " + PATIENCE + ": " + what, "");
      }
      Thread.sleep(20);
    }
  }

  /** Which node each replica is on, counted from 0. */
  private static List<Integer> replicas(Nodes nodes) {
    List<String> ids = new ArrayList<>();
    for (int index = 0; index < nodes.count(); index++) {
      ids.add(client(nodes, index).get("/api/cluster").path("self").asText());
    }
    List<Integer> on = new ArrayList<>();
    for (JsonNode replica : client(nodes, 0).get("/api/deployments").path(0).path("replicas")) {
      on.add(ids.indexOf(replica.at("/stages/0/node").asText()));
    }
    return on;
  }

  private static double metric(Client client, String name) {
    return client
        .text("/metrics")
        .lines()
        .filter(line -> line.startsWith(name))
        .mapToDouble(line -> Double.parseDouble(line.substring(line.lastIndexOf(' ') + 1)))
        .sum();
  }

  /** One that no other stream has had, so that nothing of it is in a cache. */
  private Map<String, Object> request(int length, int tokens) {
    StringBuilder prompt = new StringBuilder("Page " + ++asked + " of the log: ");
    while (prompt.length() < length) {
      prompt.append((char) ('a' + (prompt.length() * 31 + asked) % 26));
    }
    Map<String, Object> body = new LinkedHashMap<>();
    body.put("model", MODEL);
    body.put("prompt", prompt.toString());
    body.put("max_tokens", tokens);
    body.put("temperature", 1);
    body.put("seed", asked);
    body.put("cache", false);
    body.put("ignore_eos", true);
    body.put("stream", true);
    return body;
  }

  private static CompletableFuture<Void> stream(
      Client client, Map<String, Object> body, Runnable onEvent) {
    CompletableFuture<Void> end = new CompletableFuture<>();
    Thread.ofPlatform()
        .daemon()
        .start(
            () -> {
              try {
                client.stream(PATH, body, event -> onEvent.run());
                end.complete(null);
              } catch (RuntimeException e) {
                end.completeExceptionally(e);
              }
            });
    return end;
  }

  private Pause pause(Nodes nodes, int length, int copies) throws Exception {
    List<Integer> on = replicas(nodes);
    int gateway = 3 - on.get(0) - on.get(1);
    List<Long> eventsNs = Collections.synchronizedList(new ArrayList<>());
    CompletableFuture<Void> end =
        stream(
            client(nodes, gateway), request(length, TOKENS), () -> eventsNs.add(System.nanoTime()));
    until("a stream under way", () -> eventsNs.size() >= BEFORE);
    int serves = 0;
    for (int i = 0; i < 2; i++) {
      serves = metric(client(nodes, on.get(i)), "flotilla_serve_requests_running") > 0 ? i : serves;
    }
    Client other = client(nodes, on.get(1 - serves));
    double before = metric(other, "flotilla_serve_replayed_tokens_total");
    long killNs = System.nanoTime();
    nodes.node(on.get(serves)).kill();
    end.get(PATIENCE.toSeconds(), TimeUnit.SECONDS);
    long pauseNs = 0;
    List<Long> gapsNs = new ArrayList<>();
    for (int i = 1; i < eventsNs.size(); i++) {
      long gapNs = eventsNs.get(i) - eventsNs.get(i - 1);
      if (eventsNs.get(i) >= killNs) {
        pauseNs = Math.max(pauseNs, gapNs);
      } else {
        gapsNs.add(gapNs);
      }
    }
    Collections.sort(gapsNs);
    double gapMs = gapsNs.get(gapsNs.size() / 2) / 1e6;
    double replayed = metric(other, "flotilla_serve_replayed_tokens_total") - before;
    nodes.node(on.get(serves)).restart();
    nodes.node(on.get(serves)).awaitReady();
    return new Pause(length, copies, pauseNs / 1e6, gapMs, replayed);
  }

  /** The sum over streams of tokens per second, each from its first event to its end. */
  private double rate(Nodes nodes, int count) throws Exception {
    List<Integer> on = replicas(nodes);
    int gateway = 3 - on.get(0) - on.get(1);
    List<AtomicLong> firstsNs = new ArrayList<>();
    List<CompletableFuture<Long>> endsNs = new ArrayList<>();
    for (int i = 0; i < count; i++) {
      AtomicLong firstNs = new AtomicLong();
      firstsNs.add(firstNs);
      endsNs.add(
          stream(
                  client(nodes, gateway),
                  request(500, RATE_TOKENS),
                  () -> firstNs.compareAndSet(0, System.nanoTime()))
              .thenApply(_ -> System.nanoTime()));
    }
    double rate = 0;
    for (int i = 0; i < count; i++) {
      long endNs = endsNs.get(i).get(PATIENCE.toSeconds(), TimeUnit.SECONDS);
      rate += RATE_TOKENS * 1e9 / (endNs - firstsNs.get(i).get());
    }
    return rate;
  }
}

package dev.flotilla.bench;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.app.NodeProcess;
import dev.flotilla.client.Client;
import dev.flotilla.cluster.NodeFiles;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/**
 * Streams over two stages, each a process pinned to a core of its own, beside one stage: on one of
 * these cores, and on both. What two cores hold together and split over two stages is the same
 * work, so the second figure shows what the pipeline keeps of it.
 */
@Command(
    name = "pipeline",
    description = "Streams over two stages pinned to a core each, beside one stage.",
    mixinStandardHelpOptions = true)
final class PipelineBench implements Callable<Integer> {

  private static final int FIRST_PORT = 24_000;
  private static final long READY_MS_MAX = 300_000;
  private static final String MODEL = "bench";

  @Option(
      names = "--model",
      required = true,
      paramLabel = "FILE",
      description = "A GGUF file; `bench make-model` writes one.")
  private Path model = Path.of("");

  @Option(names = "--streams", defaultValue = "8", description = "Default ${DEFAULT-VALUE}.")
  private int streams;

  @Option(names = "--tokens", defaultValue = "64", description = "Of each; ${DEFAULT-VALUE}.")
  private int tokens;

  @Option(names = "--rounds", defaultValue = "3", description = "Default ${DEFAULT-VALUE}.")
  private int rounds;

  @Option(names = "--kv", defaultValue = "f16", description = "Default ${DEFAULT-VALUE}.")
  private String kv = "";

  @Option(names = "--wire", defaultValue = "f32", description = "Default ${DEFAULT-VALUE}.")
  private String wire = "";

  @Option(names = "--cores", split = ",", defaultValue = "0,1", description = "Two of them.")
  private int[] cores = {};

  @Option(names = "--json", description = "Print JSON.")
  private boolean asJson;

  @Override
  public Integer call() throws Exception {
    if (!Files.isRegularFile(model) || cores.length != 2) {
      throw new FlotillaException(
          FlotillaException.Code.INVALID,
          cores.length == 2 ? "no file " + model : "two cores are wanted",
          "Give --model FILE and --cores A,B.");
    }
    Map<String, Object> figures = new LinkedHashMap<>();
    figures.put("streams", streams);
    try (Pinned pair = new Pinned(List.of("" + cores[0], "" + cores[1]))) {
      figures.put("two_stages_a_core_each", measure(pair, 2));
      figures.put("one_stage_one_core", measure(pair, 1));
    }
    try (Pinned both = new Pinned(List.of(cores[0] + "," + cores[1]))) {
      figures.put("one_stage_both_cores", measure(both, 1));
    }
    if (asJson) {
      System.out.println(Json.MAPPER.writeValueAsString(figures));
    } else {
      System.out.printf("%d streams of %d tokens, median of %d%n", streams, tokens, rounds);
      figures.forEach(
          (name, value) -> {
            if (value instanceof Double rate) {
              System.out.printf("%-24s %7.1f tokens/s%n", name.replace('_', ' '), rate);
            }
          });
    }
    return 0;
  }

  /** Nodes as processes, each on some cores. */
  private static final class Pinned implements AutoCloseable {
    private final Path folder = Files.createTempDirectory("flotilla-pipeline");
    private final List<NodeProcess> nodes = new ArrayList<>();
    private final Client client;

    Pinned(List<String> cores) throws IOException, InterruptedException {
      int port = NodeProcess.freePorts(FIRST_PORT);
      try {
        for (int i = 0; i < cores.size(); i++) {
          List<String> program = new ArrayList<>(List.of("taskset", "-c", cores.get(i)));
          program.addAll(NodeProcess.launcher());
          Path own = folder.resolve("node-" + (i + 1));
          String address = "127.0.0.1:" + port;
          List<String> more = i == 0 ? List.of() : NodeProcess.joining(client(port), address);
          nodes.add(new NodeProcess(program, "node-" + (i + 1), own, port + 10 * i, more));
          nodes.getLast().awaitReady();
        }
        client = client(port);
      } catch (IOException | InterruptedException | RuntimeException e) {
        close();
        throw e;
      }
    }

    private Client client(int port) {
      return new Client("http://127.0.0.1:" + port, Client.keyIn(nodes.getFirst().folder()));
    }

    @Override
    public void close() throws IOException {
      nodes.forEach(NodeProcess::kill);
      NodeFiles.deleteTree(folder);
    }
  }

  private double measure(Pinned nodes, int stages) throws Exception {
    Client client = nodes.client;
    boolean there = false;
    for (JsonNode each : client.get("/api/models")) {
      there |= each.path("name").asText().equals(MODEL);
    }
    if (!there) {
      client.stream(
          "/api/models",
          Map.of("name", MODEL, "source", model.toAbsolutePath().toString()),
          event -> {});
    }
    client.post(
        "/api/deployments",
        Map.of("model", MODEL, "stages", stages, "force", true, "kv", kv, "wire", wire));
    awaitStages(client, stages);
    double _ = round(client, 0);
    double[] rates = new double[rounds];
    for (int i = 0; i < rounds; i++) {
      rates[i] = round(client, i + 1);
    }
    Arrays.sort(rates);
    return rates[rounds / 2];
  }

  private static void awaitStages(Client client, int stages) throws InterruptedException {
    long untilMs = System.currentTimeMillis() + READY_MS_MAX;
    while (System.currentTimeMillis() < untilMs) {
      JsonNode deployment = client.get("/api/deployments").path(0);
      JsonNode first = deployment.path("replicas").path(0);
      if (deployment.path("state").asText().equals("ready")
          && first.path("stages").size() == stages) {
        return;
      }
      Thread.sleep(100);
    }
    throw new FlotillaException(
        FlotillaException.Code.UNAVAILABLE, "the model was not ready in time", "");
  }

  /** All streams at once; tokens a second of all together. */
  private double round(Client client, int number) throws Exception {
    try (ExecutorService pool = Executors.newFixedThreadPool(streams)) {
      long startNs = System.nanoTime();
      List<Future<Integer>> running = new ArrayList<>();
      for (int i = 0; i < streams; i++) {
        String prompt = "Stream " + i + " of round " + number + " says:";
        running.add(
            pool.submit(
                () ->
                    client
                        .post(
                            "/v1/completions",
                            Map.of(
                                "model",
                                MODEL,
                                "prompt",
                                prompt,
                                "max_tokens",
                                tokens,
                                "temperature",
                                0,
                                "ignore_eos",
                                true,
                                "cache",
                                false))
                        .path("usage")
                        .path("completion_tokens")
                        .asInt()));
      }
      int sum = 0;
      for (Future<Integer> one : running) {
        sum += one.get();
      }
      return sum / ((System.nanoTime() - startNs) / 1e9);
    }
  }
}

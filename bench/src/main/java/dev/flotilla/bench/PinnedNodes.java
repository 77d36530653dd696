package dev.flotilla.bench;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.app.NodeProcess;
import dev.flotilla.client.Client;
import dev.flotilla.cluster.NodeFiles;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.function.BooleanSupplier;
import java.util.stream.Stream;

/** A cluster of nodes, each a process pinned to some cores, that serves one model. */
final class PinnedNodes implements AutoCloseable {

  static final String MODEL = "bench";

  private static final int FIRST_PORT = 24_000;
  private static final long READY_MS_MAX = 300_000;

  private final Path folder = Files.createTempDirectory("flotilla-pinned");
  private final List<NodeProcess> nodes = new ArrayList<>();
  private final Client client;

  /**
   * @param cores of each node, as taskset takes them
   */
  PinnedNodes(List<String> cores) throws IOException, InterruptedException {
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

  Client client() {
    return client;
  }

  /** Adds the model if it is not there. */
  void add(Path model) {
    for (JsonNode each : client.get("/api/models")) {
      if (each.path("name").asText().equals(MODEL)) {
        return;
      }
    }
    client.stream(
        "/api/models",
        Map.of("name", MODEL, "source", model.toAbsolutePath().toString()),
        event -> {});
  }

  /** Serves the model on so many nodes, and returns once it answers. */
  void deploy(Path model, int count, Map<String, ?> more) throws InterruptedException {
    add(model);
    deployAdded(count, more);
  }

  /** As above, of the model that is there. */
  void deployAdded(int count, Map<String, ?> more) throws InterruptedException {
    Map<String, Object> wanted = new HashMap<>(more);
    wanted.putAll(Map.of("model", MODEL, "force", true));
    client.post("/api/deployments", wanted);
    await(
        "the model was not ready in time",
        () -> {
          JsonNode deployment = client.get("/api/deployments").path(0);
          JsonNode first = deployment.path("replicas").path(0);
          return deployment.path("state").asText().equals("ready")
              && first.path("stages").size() == count;
        });
  }

  /** Stops serving, and returns once no node does. */
  void withdraw() throws InterruptedException {
    client.delete("/api/deployments/" + MODEL);
    await("it is still served", () -> client.get("/api/deployments").isEmpty());
  }

  /** Bytes of model files that a node has on its disk. */
  long modelBytes(int node) throws IOException {
    try (Stream<Path> files = Files.walk(nodes.get(node).folder().resolve("data/models"))) {
      return files.filter(Files::isRegularFile).mapToLong(file -> file.toFile().length()).sum();
    }
  }

  static void await(String otherwise, BooleanSupplier condition) throws InterruptedException {
    long untilMs = System.currentTimeMillis() + READY_MS_MAX;
    while (!condition.getAsBoolean()) {
      if (System.currentTimeMillis() > untilMs) {
        throw new FlotillaException(FlotillaException.Code.UNAVAILABLE, otherwise, "");
      }
      Thread.sleep(100);
    }
  }

  /** Continues all prompts at once, each by so many tokens; returns seconds until all are done. */
  double seconds(List<String> prompts, int tokens) throws Exception {
    return seconds(prompts, tokens, prompt -> complete(prompt, tokens));
  }

  /** Continues a prompt and says by how many tokens. */
  interface Completion {
    int of(String prompt) throws Exception;
  }

  /** As above, of whatever continues prompts. */
  static double seconds(List<String> prompts, int tokens, Completion completion) throws Exception {
    try (ExecutorService pool = Executors.newFixedThreadPool(prompts.size())) {
      long startNs = System.nanoTime();
      List<Future<Integer>> running = new ArrayList<>();
      for (String prompt : prompts) {
        running.add(pool.submit(() -> completion.of(prompt)));
      }
      for (Future<Integer> one : running) {
        if (one.get() != tokens) {
          throw new IllegalStateException(one.get() + " tokens instead of " + tokens);
        }
      }
      return (System.nanoTime() - startNs) / 1e9;
    }
  }

  private int complete(String prompt, int tokens) {
    return client
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
        .asInt();
  }

  @Override
  public void close() throws IOException {
    nodes.forEach(NodeProcess::kill);
    NodeFiles.deleteTree(folder);
  }
}

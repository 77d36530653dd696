package dev.flotilla.app;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.IoReason;
import dev.flotilla.Json;
import dev.flotilla.client.Client;
import dev.flotilla.cluster.NodeFiles;
import dev.flotilla.train.TrainingConfig;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * The whole path of the product on one machine: three nodes join, train a model together, split it,
 * serve it, and lose one of them while streams run. Each step prints its figures and checks what it
 * claims.
 */
final class Demo implements AutoCloseable {

  private static final int PORTS_PER_NODE = 10;
  private static final int NODES = 3;
  private static final int STREAMS = 4;
  private static final int STREAM_TOKENS = 100;
  private static final int KILL_AT_PIECES = 24;
  private static final double WANTED_ACCURACY = 0.95;

  private final long seed;
  private final Optional<Path> text;
  private final int firstPort;
  private final Path folder;
  private final List<NodeProcess> nodes = new ArrayList<>();
  private final Map<String, Object> report = new LinkedHashMap<>();
  private final List<String> failures = new ArrayList<>();
  private final long begunNs = System.nanoTime();

  Demo(int port, long seed, Optional<Path> text) throws IOException {
    this.seed = seed;
    this.text = text;
    this.firstPort = NodeProcess.freePorts(port);
    this.folder = Files.createTempDirectory("flotilla-demo");
    Runtime.getRuntime().addShutdownHook(new Thread(this::interrupted, "demo-stop"));
  }

  /** Runs every step; whether all of them held. */
  boolean run() throws IOException, InterruptedException, ExecutionException {
    TrainingConfig config =
        (text.isPresent()
                ? TrainingConfig.text(TextFiles.read(text.get()))
                : TrainingConfig.smallWorld())
            .withSeed(seed);
    DemoQuestions questions =
        text.isPresent()
            ? DemoQuestions.ofText(config.model(), text.get())
            : DemoQuestions.ofSmallWorld(config.model(), seed);
    System.out.println("Flotilla demo: three nodes, one machine, data in " + folder);

    Client client = startNodes();
    JsonNode job = train(client, config);
    if (text.isEmpty()) {
      check(
          job.path("held_out_accuracy").asDouble() >= WANTED_ACCURACY,
          "held-out accuracy in the trainer is below " + percent(WANTED_ACCURACY));
    }

    deploy(client, config.model(), 1);
    DemoQuestions.Answers whole = questions.ask(client);
    step("Serving", "on one node: %s", describe(questions, whole));
    report.put("one_stage", figures(whole));

    JsonNode split = deploy(client, config.model(), NODES);
    DemoQuestions.Answers apart = questions.ask(client);
    step("Splitting", "%s", placement(client, split));
    more("%s; %s", describe(questions, apart), sameAs(apart, whole, "on one node"));
    report.put("three_stages", figures(apart));

    loseOne(client, config.model(), questions);
    DemoQuestions.Answers after = questions.ask(client);
    more("%s; %s", describe(questions, after), sameAs(after, whole, "before"));
    report.put("after_loss", figures(after));
    double remembered = counted(client, "flotilla_response_cache_total{result=\"hit\"");
    check(remembered == 0, "%.0f answers came from the response cache".formatted(remembered));

    finish(client);
    return failures.isEmpty();
  }

  private Client startNodes() throws IOException, InterruptedException {
    long begun = System.nanoTime();
    NodeProcess first = start("one", List.of());
    first.awaitReady();
    Client client = new Client(first.url(), Client.keyIn(first.folder()));
    for (String name : List.of("two", "three")) {
      start(name, NodeProcess.joining(client, "127.0.0.1:" + firstPort));
    }
    for (NodeProcess node : nodes) {
      node.awaitReady();
    }
    double seconds = (System.nanoTime() - begun) / 1e9;
    List<String> described = new ArrayList<>();
    for (JsonNode node : client.get("/api/cluster").path("nodes")) {
      described.add(node.path("name").asText() + " at " + node.path("address").asText());
    }
    check(described.size() == NODES, "the cluster has " + described.size() + " nodes, not 3");
    step(
        "Nodes",
        "%d joined in %.1f s: %s",
        described.size(),
        seconds,
        String.join(", ", described));
    report.put("nodes", described.size());
    report.put("nodes_joined_seconds", seconds);
    return client;
  }

  private NodeProcess start(String name, List<String> join) throws IOException {
    NodeProcess node =
        new NodeProcess(
            NodeProcess.launcher(),
            name,
            folder.resolve(name),
            firstPort + nodes.size() * PORTS_PER_NODE,
            join);
    nodes.add(node);
    return node;
  }

  private JsonNode train(Client client, TrainingConfig config) throws InterruptedException {
    long begun = System.nanoTime();
    String id = client.post("/api/training", Client.snakeCase(config)).path("id").asText();
    JsonNode job = TrainingProgress.follow(client, id);
    double seconds = (System.nanoTime() - begun) / 1e9;
    JsonNode curve = job.path("curve");
    double firstLoss = curve.path(0).path("loss").asDouble();
    double lastLoss = curve.path(curve.size() - 1).path("loss").asDouble();
    double tokensPerSecond = median(curve, "tokens_per_second");
    step(
        "Training",
        "%d steps over %d nodes in %.0f s: loss %.2f to %.3f, %,.0f tokens/s",
        job.path("steps").asInt(),
        job.path("nodes").size(),
        seconds,
        firstLoss,
        lastLoss,
        tokensPerSecond);
    report.put("training_nodes", job.path("nodes").size());
    report.put("training_seconds", seconds);
    report.put("training_steps", job.path("steps").asInt());
    report.put("first_loss", firstLoss);
    report.put("last_loss", lastLoss);
    report.put("training_tokens_per_second", tokensPerSecond);
    if (text.isPresent()) {
      double validation = lastValidationLoss(curve);
      more("validation loss %.3f per token", validation);
      report.put("validation_loss", validation);
    } else {
      double accuracy = job.path("held_out_accuracy").asDouble();
      more("held-out accuracy in the trainer: %s", percent(accuracy));
      report.put("trainer_accuracy", accuracy);
    }
    return job;
  }

  private JsonNode deploy(Client client, String model, int stages) throws InterruptedException {
    return Waiting.deployed(
        client,
        Map.of("model", model, "replicas", 1, "stages", stages, "force", true),
        state -> {});
  }

  private void loseOne(Client client, String model, DemoQuestions questions)
      throws InterruptedException, ExecutionException {
    List<DemoStream> undisturbed = streams(client, questions, () -> {});
    DemoStream one =
        DemoStream.read(client, questions.endpoint(0), streamBody(questions, 0), () -> {});
    more(
        "one stream: first token after %.0f ms, then %.0f tokens/s",
        one.firstTokenMs(), one.tokensPerSecond());
    report.put("first_token_ms", one.firstTokenMs());
    report.put("stream_tokens_per_second", one.tokensPerSecond());

    NodeProcess victim = stageHolder(client, model, nodes.subList(1, nodes.size()));
    double resumedBefore = resumptions(client);
    CountDownLatch killed = new CountDownLatch(1);
    AtomicInteger pieces = new AtomicInteger();
    List<DemoStream> disturbed =
        streams(
            client,
            questions,
            () -> {
              if (pieces.incrementAndGet() == KILL_AT_PIECES) {
                victim.kill();
                killed.countDown();
              }
            });
    check(
        killed.getCount() == 0,
        "the streams had " + pieces + " pieces, too few to lose a node in their middle");
    double resumed = resumptions(client) - resumedBefore;
    check(resumed > 0, "no stream had to go on elsewhere: all had ended when the node was lost");
    double pauseMs = 0;
    int equal = 0;
    long tokens = 0;
    for (int i = 0; i < STREAMS; i++) {
      pauseMs = Math.max(pauseMs, disturbed.get(i).longestGapMs());
      equal += disturbed.get(i).text().equals(undisturbed.get(i).text()) ? 1 : 0;
      tokens += disturbed.get(i).tokens();
    }
    check(equal == STREAMS, (STREAMS - equal) + " streams differ after the loss");
    step(
        "Losing one",
        "killed node %s (kill -9) under %d streams: %.0f went on elsewhere after %.2f s, no error;"
            + " %d of %d texts equal the undisturbed ones (%d tokens)",
        victim.name(),
        STREAMS,
        resumed,
        pauseMs / 1e3,
        equal,
        STREAMS,
        tokens);
    report.put("killed", victim.name());
    report.put("streams", STREAMS);
    report.put("streams_resumed", resumed);
    report.put("streams_equal", equal);
    report.put("pause_ms", pauseMs);
    more("now %s", placement(client, Waiting.find(client, model)));
  }

  /** How many requests that came in at the client's node had to go on on another replica. */
  private static double resumptions(Client client) {
    return counted(client, "flotilla_serve_resumptions_total");
  }

  /** The sum of the counters whose lines start so, at the client's node. */
  private static double counted(Client client, String start) {
    return client
        .text("/metrics")
        .lines()
        .filter(line -> line.startsWith(start))
        .mapToDouble(line -> Double.parseDouble(line.substring(line.lastIndexOf(' ') + 1)))
        .sum();
  }

  /** Half of them greedy, half of them seeded. */
  private List<DemoStream> streams(Client client, DemoQuestions questions, Runnable onPiece)
      throws InterruptedException, ExecutionException {
    List<Future<DemoStream>> running = new ArrayList<>();
    try (ExecutorService threads = Executors.newVirtualThreadPerTaskExecutor()) {
      for (int i = 0; i < STREAMS; i++) {
        int index = i;
        running.add(
            threads.submit(
                () ->
                    DemoStream.read(
                        client, questions.endpoint(index), streamBody(questions, index), onPiece)));
      }
    }
    List<DemoStream> streams = new ArrayList<>();
    for (Future<DemoStream> stream : running) {
      streams.add(stream.get());
    }
    return streams;
  }

  private Map<String, Object> streamBody(DemoQuestions questions, int index) {
    Map<String, Object> body = new HashMap<>(questions.body(index));
    body.put("temperature", index % 2 == 0 ? 0.9 : 0);
    body.put("seed", seed + index);
    body.put("max_tokens", STREAM_TOKENS);
    // An answer is a few tokens; a stream long enough to be cut in its middle goes on past its end.
    body.put("ignore_eos", true);
    return body;
  }

  /** Which layers are on which node, by the nodes' names. */
  private static String placement(Client client, JsonNode deployment) {
    String placement = PsCommand.placement(deployment.path("replicas").path(0));
    for (JsonNode node : client.get("/api/cluster").path("nodes")) {
      placement = placement.replace(node.path("id").asText(), node.path("name").asText());
    }
    return placement;
  }

  /** Of these nodes, the one with the last stage that any of them has. */
  static NodeProcess stageHolder(Client client, String model, List<NodeProcess> among) {
    JsonNode stages = Waiting.find(client, model).path("replicas").path(0).path("stages");
    Map<String, String> names = new HashMap<>();
    for (JsonNode node : client.get("/api/cluster").path("nodes")) {
      names.put(node.path("id").asText(), node.path("name").asText());
    }
    for (int i = stages.size() - 1; i >= 0; i--) {
      String name = names.get(stages.path(i).path("node").asText());
      for (NodeProcess node : among) {
        if (node.name().equals(name)) {
          return node;
        }
      }
    }
    throw new IllegalStateException("no other node holds a stage of " + model + ": " + stages);
  }

  private void finish(Client client) {
    double seconds = (System.nanoTime() - begunNs) / 1e9;
    report.put("seconds", seconds);
    report.put("failures", failures);
    report.put("held", failures.isEmpty());
    System.out.println();
    if (failures.isEmpty()) {
      System.out.printf(Locale.ROOT, "All steps held, in %.0f s.%n", seconds);
    } else {
      failures.forEach(failure -> System.out.println("NOT HELD: " + failure));
    }
    String key = Client.keyIn(nodes.getFirst().folder()).orElse("");
    System.out.println("Console: " + client.base() + "#key=" + key);
  }

  void writeReport(Path file) throws IOException {
    Path whole = file.toAbsolutePath();
    if (whole.getParent() != null) {
      Files.createDirectories(whole.getParent());
    }
    Files.writeString(
        whole, Json.MAPPER.writerWithDefaultPrettyPrinter().writeValueAsString(report) + "\n");
  }

  /** Until Ctrl-C. */
  void stayUp() throws InterruptedException {
    System.out.println("The nodes stay up until Ctrl-C.");
    new CountDownLatch(1).await();
  }

  @Override
  public synchronized void close() throws IOException {
    if (closed) {
      return;
    }
    closed = true;
    stop();
    if (failures.isEmpty()) {
      NodeFiles.deleteTree(folder);
    } else {
      System.err.println("flotilla: the nodes' logs are kept in " + folder);
    }
  }

  /** What was thrown is a step that did not hold: the logs and the report stay. */
  void failed(Exception e) {
    failures.add(e instanceof FlotillaException known ? known.explanation() : String.valueOf(e));
    report.put("failures", failures);
    report.put("held", false);
  }

  private synchronized void stop() {
    try (ExecutorService threads = Executors.newVirtualThreadPerTaskExecutor()) {
      nodes.forEach(node -> threads.execute(node::close));
      threads.shutdown();
      threads.awaitTermination(30, TimeUnit.SECONDS);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
    nodes.clear();
  }

  /** Ctrl-C. */
  private void interrupted() {
    try {
      close();
    } catch (IOException e) {
      System.err.println("flotilla: cannot delete " + folder + ": " + IoReason.of(e));
    }
  }

  private int stepNumber;
  private boolean closed;

  private void step(String name, String format, Object... values) {
    stepNumber++;
    System.out.printf("%n%d  %-12s", stepNumber, name);
    System.out.printf(Locale.ROOT, format + "%n", values);
  }

  private void more(String format, Object... values) {
    System.out.printf(Locale.ROOT, " ".repeat(15) + format + "%n", values);
  }

  private void check(boolean holds, String otherwise) {
    if (!holds) {
      failures.add(otherwise);
    }
  }

  private String describe(DemoQuestions questions, DemoQuestions.Answers answers) {
    String right =
        text.isPresent()
            ? questions.count() + " places continued"
            : percent(answers.accuracy())
                + " of "
                + questions.count()
                + " held-out questions right";
    return String.format(
        Locale.ROOT, "%s, %.0f tokens/s, 16 at once", right, answers.tokensPerSecond());
  }

  private String sameAs(DemoQuestions.Answers answers, DemoQuestions.Answers others, String where) {
    long differing = answers.differing(others);
    check(differing == 0, differing + " answers differ from those " + where);
    return differing == 0 ? "each answer as " + where : differing + " answers differ!";
  }

  private Map<String, Object> figures(DemoQuestions.Answers answers) {
    Map<String, Object> figures = new LinkedHashMap<>();
    if (text.isEmpty()) {
      figures.put("accuracy", answers.accuracy());
      check(
          answers.accuracy() >= WANTED_ACCURACY,
          "held-out accuracy as served is " + percent(answers.accuracy()));
    }
    figures.put("questions", answers.texts().size());
    figures.put("tokens_per_second", answers.tokensPerSecond());
    return figures;
  }

  private static String percent(double share) {
    return String.format(Locale.ROOT, "%.1f%%", share * 100);
  }

  private static double median(JsonNode curve, String field) {
    List<Double> values = new ArrayList<>();
    curve.forEach(point -> values.add(point.path(field).asDouble()));
    values.sort(null);
    return values.isEmpty() ? 0 : values.get(values.size() / 2);
  }

  private static double lastValidationLoss(JsonNode curve) {
    double last = Double.NaN;
    for (JsonNode point : curve) {
      if (point.path("validation_loss").isNumber()) {
        last = point.path("validation_loss").asDouble();
      }
    }
    return last;
  }
}

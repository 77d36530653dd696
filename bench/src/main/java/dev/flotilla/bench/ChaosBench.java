package dev.flotilla.bench;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.client.Client;
import dev.flotilla.model.ModelConfig;
import dev.flotilla.model.RandomModel;
import dev.flotilla.tensor.WeightType;
import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.TreeMap;
import java.util.concurrent.Callable;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.stream.IntStream;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/**
 * Streams under faults: clients read streams from a real cluster, on and on, while its nodes are
 * killed, paused, restarted, badly connected and out of disk. What they have in the end is compared
 * with what they have of a cluster that nothing happens to.
 */
@Command(
    name = "chaos",
    description = "Streams under faults; exit code 0 if none was lost and none has another text.",
    mixinStandardHelpOptions = true)
final class ChaosBench implements Callable<Integer> {

  private static final String PATH = "/v1/completions";
  private static final List<String> FAULTS =
      List.of("kill", "pause", "lossy", "slow", "disk", "restart");
  private static final int TOKENS = 900;
  private static final int PAUSE_MS_MAX = 1000;

  /** Both have texts of more than {@link #TOKENS} bytes only; each byte is a token. */
  private static final String GRAMMAR = "root ::= ([a-m]{3,7} [0-9] | \"-\" [A-Z]* \" \"){500}";

  private static final Map<String, Object> SCHEMA =
      Map.of("type", "array", "items", Map.of("type", "integer"), "minItems", 1000);

  private static final Duration PATIENCE = Duration.ofMinutes(2);
  private static final double FINISHED_SHARE_MIN = 0.999;

  /** Of all that were asked for while a majority was there. */
  private static final double REFUSED_SHARE_MAX = 0.01;

  private static final double KILLED_PAUSE_S_MAX = 3;

  @Option(names = "--minutes", defaultValue = "2", description = "How long (${DEFAULT-VALUE}).")
  private double minutes;

  @Option(names = "--nodes", defaultValue = "3", description = "How many (${DEFAULT-VALUE}).")
  private int count;

  @Option(names = "--clients", defaultValue = "4", description = "How many (${DEFAULT-VALUE}).")
  private int clientCount;

  @Option(names = "--seed", description = "Of the clients and the faults; printed.")
  private long seed = System.nanoTime() & 0xffff;

  @Option(
      names = "--fault",
      split = ",",
      description =
          "Only these: kill, pause, lossy, slow, disk, restart; or isolate, pair, one-way; or majority"
              + " and all, which are killed at once.")
  private List<String> wanted = List.of();

  @Option(names = "--keep", description = "Keep the nodes' logs whatever comes of it.")
  private boolean keep;

  @Option(names = "--json", description = "Print JSON.")
  private boolean asJson;

  private long beganNs = System.nanoTime();

  /** What is asked for, and what comes of it undisturbed. */
  private record Question(Map<String, Object> body, StreamText answer) {}

  /** A stream that did not come to its end, and why. */
  private record Unfinished(Pauses.Track track, String why) {

    static Map<String, Integer> reasons(List<Unfinished> all) {
      Map<String, Integer> reasons = new TreeMap<>();
      all.forEach(one -> reasons.merge(one.why(), 1, Integer::sum));
      return reasons;
    }
  }

  /** What became of the streams; guarded by this. */
  private static final class Results {
    final List<Pauses.Track> tracks = new ArrayList<>();
    final Map<StreamText.Verdict, Integer> verdicts = new TreeMap<>();
    final List<Unfinished> refused = new ArrayList<>();
    final List<Unfinished> lost = new ArrayList<>();
    final List<String> wrong = new ArrayList<>();

    synchronized void finished(
        Pauses.Track track, StreamText.Verdict verdict, StreamText answer, Question question) {
      tracks.add(track);
      verdicts.merge(verdict, 1, Integer::sum);
      if (verdict != StreamText.Verdict.EQUAL) {
        wrong.add(verdict + " of " + question.body() + ": " + answer + " / " + question.answer());
      }
    }

    synchronized void failed(Pauses.Track track, FlotillaException why) {
      boolean taken = track.begun() || why.code() == FlotillaException.Code.FAILED;
      if (taken) {
        tracks.add(track);
      }
      (taken ? lost : refused).add(new Unfinished(track, why.explanation()));
    }

    /** What no client should meet. */
    synchronized void broke(Pauses.Track track, RuntimeException why) {
      tracks.add(track);
      lost.add(new Unfinished(track, why.toString()));
    }

    synchronized int started() {
      return tracks.size();
    }

    synchronized int verdict(StreamText.Verdict verdict) {
      return verdicts.getOrDefault(verdict, 0);
    }
  }

  @Override
  public Integer call() throws Exception {
    Faults.check(wanted);
    try (Nodes nodes = new Nodes(count, 22_000, "", true)) {
      say(
          "seed %d, %d nodes, %s, %d clients, %.1f min",
          seed,
          count,
          nodes.spoilable() ? "network namespaces" : "loopback (no bad cables and disks: no root)",
          clientCount,
          minutes);
      serve(nodes);
      List<Question> questions = questions(nodes);
      Results results = new Results();
      List<Faults.Fault> faults = new ArrayList<>();
      Random random = new Random(seed);
      Faults coming =
          new Faults(
              nodes,
              count,
              random,
              wanted.isEmpty() ? FAULTS : wanted,
              fault -> say("%6.1f s  %s", (System.nanoTime() - beganNs) / 1e9, fault));
      boolean well = false;
      try {
        run(nodes, questions, results, coming, faults, random);
        boolean healed = allServeSoon(nodes);
        if (!healed) {
          say("missed: not all nodes and models were well again in %d s", PATIENCE.toSeconds());
        }
        well = report(nodes, questions.size(), results, coming, faults) && healed;
      } finally {
        if (!well || keep) {
          nodes.keepFolder();
          say("the nodes' logs are kept in %s", nodes.folder());
        }
      }
      return well ? 0 : 1;
    }
  }

  /** One model in two whole replicas, and one that is cut over two nodes. */
  private static void serve(Nodes nodes) throws IOException, InterruptedException {
    Client client = client(nodes, 0);
    for (String model : List.of("whole", "split")) {
      Path file = nodes.folder().resolve(model + ".gguf");
      RandomModel.write(
          file,
          new ModelConfig(300, 64, 3, 4, 2, 16, 128, 1024, 10_000f, 1e-5f, false),
          WeightType.Q8_0,
          model.hashCode());
      client.stream("/api/models", Map.of("name", model, "source", file.toString()), event -> {});
      boolean whole = model.equals("whole");
      client.post(
          "/api/deployments",
          Map.of(
              "model", model, "replicas", whole ? 2 : 1, "stages", whole ? 1 : 2, "force", true));
    }
    if (!allServeSoon(nodes)) {
      throw new FlotillaException(
          FlotillaException.Code.UNAVAILABLE, "the models were not ready in time", "");
    }
  }

  private static Client client(Nodes nodes, int index) {
    return new Client(nodes.url(index), Optional.of(nodes.key()));
  }

  /** Whether each node says that it is well, and that both models are ready. */
  private static boolean allServe(Nodes nodes) {
    for (int index = 0; index < nodes.count(); index++) {
      try {
        Client client = client(nodes, index);
        JsonNode _ = client.get("/health");
        JsonNode deployments = client.get("/api/deployments");
        if (deployments.size() < 2) {
          return false;
        }
        for (JsonNode each : deployments) {
          if (!each.path("state").asText().equals("ready")) {
            return false;
          }
        }
      } catch (FlotillaException e) {
        return false;
      }
    }
    return true;
  }

  private static boolean allServeSoon(Nodes nodes) throws InterruptedException {
    long untilNs = System.nanoTime() + PATIENCE.toNanos();
    boolean all = allServe(nodes);
    while (!all && System.nanoTime() < untilNs) {
      Thread.sleep(200);
      all = allServe(nodes);
    }
    return all;
  }

  private static List<Question> questions(Nodes nodes) {
    List<Question> questions = new ArrayList<>();
    Client client = client(nodes, 0);
    for (String model : List.of("whole", "split")) {
      for (Map<String, Object> sampling :
          List.<Map<String, Object>>of(
              Map.of("temperature", 0),
              Map.of("temperature", 1, "seed", 7),
              Map.of("temperature", 1, "seed", 8, "n", 2),
              Map.of("temperature", 1, "seed", 9, "stop", "zq"),
              Map.of("temperature", 0, "json_schema", SCHEMA, "ignore_eos", false),
              Map.of(
                  "temperature", 1, "seed", 10, "n", 2, "grammar", GRAMMAR, "ignore_eos", false))) {
        Map<String, Object> body = new HashMap<>();
        body.put("model", model);
        body.put("prompt", "The ship's log of " + model + " says");
        body.put("max_tokens", TOKENS);
        body.put("ignore_eos", true);
        body.put("stream", true);
        body.put("cache", false);
        body.put("stream_options", Map.of("include_usage", true));
        body.putAll(sampling);
        StreamText answer = new StreamText();
        client.stream(PATH, body, answer::add);
        questions.add(new Question(body, answer));
      }
    }
    return questions;
  }

  private void run(
      Nodes nodes,
      List<Question> questions,
      Results results,
      Faults coming,
      List<Faults.Fault> faults,
      Random random)
      throws IOException, InterruptedException {
    AtomicBoolean stop = new AtomicBoolean();
    List<Thread> clients = new ArrayList<>();
    List<String> urls = IntStream.range(0, count).mapToObj(nodes::url).toList();
    for (int number = 0; number < clientCount; number++) {
      Random choosing = new Random(seed + 1 + number);
      clients.add(
          Thread.ofPlatform()
              .name("client-" + number)
              .start(() -> ask(nodes, urls, questions, results, choosing, stop)));
    }
    beganNs = System.nanoTime();
    long endNs = beganNs + (long) (minutes * 60e9);
    try {
      Thread.sleep(2_000);
      while (System.nanoTime() < endNs) {
        faults.add(coming.next());
        Thread.sleep(1_000 + random.nextInt(4_000));
      }
    } finally {
      stop.set(true);
      for (Thread client : clients) {
        client.join();
      }
    }
  }

  /** A client's life: one stream after the other, each at some node first. */
  private static void ask(
      Nodes nodes,
      List<String> urls,
      List<Question> questions,
      Results results,
      Random random,
      AtomicBoolean stop) {
    List<Client> clients =
        IntStream.range(0, urls.size())
            .mapToObj(index -> client(nodes, index).knowing(urls))
            .toList();
    try {
      while (!stop.get()) {
        Question question = questions.get(random.nextInt(questions.size()));
        int first = random.nextInt(clients.size());
        Pauses.Track track =
            new Pauses.Track(
                "%s, asked at node-%d".formatted(question.body().get("model"), first + 1),
                System.nanoTime());
        StreamText answer = new StreamText();
        try {
          clients.get(first).stream(
              PATH,
              question.body(),
              event -> {
                track.event(System.nanoTime());
                answer.add(event);
              });
          track.ended(System.nanoTime());
          results.finished(track, answer.beside(question.answer()), answer, question);
        } catch (FlotillaException e) {
          track.ended(System.nanoTime());
          results.failed(track, e);
        } catch (RuntimeException e) {
          track.ended(System.nanoTime());
          results.broke(track, e);
        }
        Thread.sleep(random.nextInt(PAUSE_MS_MAX));
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  /** How many answers the ledger has, once it has as many as there should be; or at last. */
  private static long paid(Nodes nodes, long wanted) throws InterruptedException {
    long untilNs = System.nanoTime() + Duration.ofSeconds(30).toNanos();
    long paid = -1;
    while (paid != wanted && System.nanoTime() < untilNs) {
      try {
        paid = 0;
        for (JsonNode row : client(nodes, 0).get("/api/usage?by=model").path("rows")) {
          paid += row.path("requests").asLong();
        }
      } catch (FlotillaException e) {
        paid = -1;
      }
      Thread.sleep(200);
    }
    return paid;
  }

  private boolean report(
      Nodes nodes, int undisturbed, Results results, Faults coming, List<Faults.Fault> faults)
      throws InterruptedException {
    int started = results.started();
    int equal = results.verdict(StreamText.Verdict.EQUAL);
    int wrong = results.wrong.size();
    List<Faults.Fault> majorities = faults.stream().filter(Faults.Fault::tookMajority).toList();
    List<Unfinished> excused =
        results.lost.stream().filter(one -> one.track().met(majorities)).toList();
    List<Unfinished> refused =
        results.refused.stream().filter(one -> !one.track().met(majorities)).toList();
    int counted = started - excused.size();
    double share = counted == 0 ? 0 : (double) equal / counted;
    double refusedShare = (double) refused.size() / Math.max(1, counted + refused.size());
    long finished = (long) equal + wrong;
    long paid = paid(nodes, finished + undisturbed) - undisturbed;
    Map<String, Pauses.Figures> pauses = Pauses.of(faults, results.tracks);
    ObjectNode report =
        Json.MAPPER
            .createObjectNode()
            .put("seed", seed)
            .put("nodes", count)
            .put("streams_started", started)
            .put("finished_identical", equal)
            .put("finished_share", share)
            .put("lost_tokens", results.verdict(StreamText.Verdict.LOST))
            .put("doubled_tokens", results.verdict(StreamText.Verdict.DOUBLED))
            .put("different", results.verdict(StreamText.Verdict.DIFFERS))
            .put("not_finished", results.lost.size() - excused.size())
            .put("lost_with_a_majority", excused.size())
            .put("refused_with_a_majority_there", refused.size())
            .put("in_the_ledger", paid)
            .put("slowest_return_s", coming.slowestReturnNs() / 1e9);
    say(
        "%d streams started; %d finished with the right text (%.2f%%); lost tokens %d, doubled %d,"
            + " other text %d, not finished %d and %d that lost a majority; in the ledger %d",
        started,
        equal,
        100 * share,
        results.verdict(StreamText.Verdict.LOST),
        results.verdict(StreamText.Verdict.DOUBLED),
        results.verdict(StreamText.Verdict.DIFFERS),
        results.lost.size() - excused.size(),
        excused.size(),
        paid);
    results.wrong.forEach(text -> say("  wrong: %.6000s", text));
    Unfinished.reasons(results.lost)
        .forEach((why, times) -> say("  not finished, %d times: %s", times, why));
    ObjectNode refusals = report.putObject("not_taken");
    Unfinished.reasons(results.refused)
        .forEach(
            (why, times) -> {
              refusals.put(why, times);
              say("  not taken, %d times: %s", times, why);
            });
    say("fault     times  streams  paused > 0.2 s   p50      p99      max, in seconds");
    ObjectNode byKind = report.putObject("pauses");
    pauses.forEach(
        (kind, figures) -> {
          byKind.set(kind, Client.snakeCase(figures));
          say(
              "%-8s %6d %8d %15d %8.2f %8.2f %8.2f",
              kind,
              figures.faults(),
              figures.streams(),
              figures.seen(),
              figures.p50S(),
              figures.p99S(),
              figures.maxS());
        });
    Pauses.longerThan(KILLED_PAUSE_S_MAX, faults, results.tracks, beganNs)
        .forEach(pause -> say("  paused by %s", pause));
    coming.helped().forEach(node -> say("helped: %s", node));
    report.putPOJO("helped", coming.helped());
    say("the slowest node served again %.1f s after its new start", coming.slowestReturnNs() / 1e9);
    if (asJson) {
      System.out.println(report.toPrettyString());
    }
    double killedS = pauses.containsKey("kill") ? pauses.get("kill").p99S() : 0;
    if (killedS > KILLED_PAUSE_S_MAX) {
      say("missed: p99 of the pause of a killed node is %.2f s, not 3", killedS);
    }
    if (refusedShare > REFUSED_SHARE_MAX) {
      say("missed: %d were refused while a majority was there", refused.size());
    }
    boolean right = wrong == 0 && coming.helped().isEmpty();
    // What was lost with a majority may have been paid for.
    boolean ledger = paid >= finished && paid <= finished + excused.size();
    return right && ledger && share >= FINISHED_SHARE_MIN && refusedShare <= REFUSED_SHARE_MAX;
  }

  private void say(String format, Object... arguments) {
    (asJson ? System.err : System.out).printf(format + "%n", arguments);
  }
}

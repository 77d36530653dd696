package dev.flotilla.app;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.client.Client;
import dev.flotilla.cluster.TestNodes;
import dev.flotilla.model.ModelConfig;
import dev.flotilla.model.RandomModel;
import dev.flotilla.tensor.WeightType;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * Of the nodes that streams are read from, two are restarted, one after the other, and then one is
 * killed with -9; their clients read on at the others. What they have in the end is what a client
 * has whose node lived.
 */
class GatewayKillTest {

  private static final String PATH = "/v1/completions";
  private static final String RESPONSES = "/v1/responses";
  private static final int TOKENS = 900;
  private static final int BEFORE = 25;
  private static final long PAUSE_MS = 300;

  /** Both have texts of more than {@link #TOKENS} bytes only; each byte is a token. */
  private static final String GRAMMAR = "root ::= ([a-m]{3,7} [0-9] | \"-\" [A-Z]* \" \"){500}";

  private static final Map<String, Object> SCHEMA =
      Map.of("type", "array", "items", Map.of("type", "integer"), "minItems", 1000);

  @TempDir Path folder;

  private static Map<String, Object> request(Object... more) {
    return body(
        more,
        Map.of(
            "prompt",
            "The ship's log says",
            "max_tokens",
            TOKENS,
            "cache",
            false,
            "stream_options",
            Map.of("include_usage", true)));
  }

  private static Map<String, Object> response(Object... more) {
    return body(more, Map.of("input", "The ship's log says", "max_output_tokens", TOKENS));
  }

  private static Map<String, Object> body(Object[] more, Map<String, Object> first) {
    Map<String, Object> body = new HashMap<>(first);
    body.putAll(Map.of("model", "random", "ignore_eos", true, "stream", true));
    for (int i = 0; i < more.length; i += 2) {
      body.put(String.valueOf(more[i]), more[i + 1]);
    }
    return body;
  }

  private static String path(Map<String, Object> body) {
    return body.containsKey("input") ? RESPONSES : PATH;
  }

  /** The streams that are under way when the node dies. */
  private static final List<Map<String, Object>> REQUESTS =
      List.of(
          request("temperature", 0),
          request("temperature", 1, "seed", 7),
          request("temperature", 1, "seed", 8, "n", 2),
          request("temperature", 1, "seed", 9, "stop", "zq"),
          request("temperature", 1, "seed", 5, "n", 2, "ignore_eos", false, "grammar", GRAMMAR),
          response(
              "temperature",
              0,
              "ignore_eos",
              false,
              "text",
              Map.of("format", Map.of("type", "json_schema", "name", "list", "schema", SCHEMA))),
          response("temperature", 1, "seed", 7));

  /** What comes of a stream, event by event. */
  private static final class Answer {
    final Map<Integer, StringBuilder> texts = new TreeMap<>();
    String usage = "";
    String response = "";
    int events;

    synchronized void event(JsonNode event) {
      assertThat(event.path("sequence_number").asInt(events)).isEqualTo(events);
      events++;
      if (event.has("delta")) {
        texts.computeIfAbsent(0, i -> new StringBuilder()).append(event.path("delta").asText());
      }
      response = event.path("response").path("id").asText(response);
      usage += event.path("response").path("usage").path("total_tokens").asText();
      for (JsonNode choice : event.path("choices")) {
        texts
            .computeIfAbsent(choice.path("index").asInt(), i -> new StringBuilder())
            .append(choice.path("text").asText())
            .append(choice.path("finish_reason").isTextual() ? "|" : "");
      }
      if (event.has("usage")) {
        usage += event.path("usage");
      }
    }

    synchronized int events() {
      return events;
    }

    @Override
    public synchronized String toString() {
      return texts + usage;
    }
  }

  private static boolean last(JsonNode event) {
    return List.of("response.completed", "response.incomplete")
        .contains(event.path("type").asText());
  }

  /** A client that knows nothing but HTTP and how a stream is gone on with. */
  private static void raw(
      List<String> urls, String key, Map<String, Object> body, Answer answer, Runnable onEvent)
      throws Exception {
    String lastId = "";
    try (HttpClient http = HttpClient.newHttpClient()) {
      for (int attempt = 0; attempt < 200; attempt++) {
        String url = urls.get(attempt % urls.size()) + path(body);
        HttpRequest.Builder request =
            HttpRequest.newBuilder(
                    URI.create(
                        answer.response.isEmpty()
                            ? url
                            : url
                                + "/"
                                + answer.response
                                + "?stream=true&starting_after="
                                + (answer.events() - 1)))
                .header("Authorization", "Bearer " + key);
        if (answer.response.isEmpty()) {
          request.POST(HttpRequest.BodyPublishers.ofByteArray(Json.write(body)));
          if (!lastId.isEmpty()) {
            request.header("Last-Event-ID", lastId);
          }
        }
        try {
          HttpResponse<Stream<String>> response =
              http.send(request.build(), HttpResponse.BodyHandlers.ofLines());
          try (Stream<String> lines = response.body()) {
            if (response.statusCode() == 200) {
              String id = lastId;
              for (Iterator<String> each = lines.iterator(); each.hasNext(); ) {
                String line = each.next();
                if (line.equals("data: [DONE]")) {
                  return;
                }
                if (line.startsWith("id: ")) {
                  id = line.substring(4);
                } else if (line.startsWith("data: ")) {
                  JsonNode event = Json.MAPPER.readTree(line.substring(6));
                  if (event.has("error")) {
                    break;
                  }
                  answer.event(event);
                  lastId = id;
                  onEvent.run();
                  if (last(event)) {
                    return;
                  }
                }
              }
            } else {
              assertThat(response.statusCode()).as(String.join("", lines.toList())).isEqualTo(503);
            }
          }
        } catch (IOException | UncheckedIOException broken) {
          assertThat(answer.events()).as("%s", broken).isPositive();
        }
        TimeUnit.MILLISECONDS.sleep(100);
      }
    }
    throw new AssertionError("no end of the stream after " + answer.events());
  }

  @Test
  void streamsOfNodesThatStopOrAreKilledAreReadToTheirEndAtOthers() throws Exception {
    try (TestProcesses nodes = TestProcesses.thatCompute(folder)) {
      for (String name : List.of("first", "second", "third")) {
        nodes.add(name);
      }
      String key = Client.keyIn(nodes.node(0).folder()).orElseThrow();
      Path file = folder.resolve("random.gguf");
      RandomModel.write(
          file,
          new ModelConfig(300, 64, 3, 4, 2, 16, 128, 1024, 10_000f, 1e-5f, false),
          WeightType.Q8_0,
          3);
      Client second = new Client(nodes.node(1).url(), Optional.of(key));
      second.post("/api/models", Map.of("name", "random", "source", file.toString()));
      Waiting.deployed(
          second, Map.of("model", "random", "replicas", 2, "stages", 1, "force", true), s -> {});

      List<String> undisturbed = new ArrayList<>();
      for (Map<String, Object> body : REQUESTS) {
        Answer answer = new Answer();
        second.stream(path(body), body, answer::event);
        undisturbed.add(answer.toString());
        if (body.containsKey("grammar")) {
          assertThat(answer.texts.values())
              .allSatisfy(
                  text ->
                      assertThat(text.toString().replace("|", ""))
                          .matches("([a-m]{3,7}[0-9]|-[A-Z]* )*([a-m]*|-[A-Z]*)"));
        }
      }

      int restarted = restartUnderLoad(nodes, key, undisturbed);
      // Before the kill: what a killed node has not shipped yet is counted when it is back.
      TestNodes.await(
          "every answer of the restarts in the ledger",
          Duration.ofSeconds(60),
          () -> requests(second) == REQUESTS.size() + restarted);

      CountDownLatch enough = new CountDownLatch(2 * REQUESTS.size());
      List<Answer> answers = new ArrayList<>();
      List<CompletableFuture<Void>> ends = new ArrayList<>();
      List<String> urls = nodes.all().stream().map(NodeProcess::url).toList();
      for (int i = 0; i < 2 * REQUESTS.size(); i++) {
        Map<String, Object> body = REQUESTS.get(i / 2);
        Answer answer = new Answer();
        answers.add(answer);
        Runnable onEvent =
            () -> {
              if (answer.events() == BEFORE) {
                enough.countDown();
              }
            };
        boolean ours = i % 2 == 0;
        CompletableFuture<Void> end = new CompletableFuture<>();
        ends.add(end);
        Thread.ofPlatform()
            .daemon()
            .start(
                () -> {
                  try {
                    if (ours) {
                      new Client(nodes.node(0).url(), Optional.of(key))
                          .stream(
                              path(body),
                              body,
                              event -> {
                                answer.event(event);
                                onEvent.run();
                              });
                    } else {
                      raw(urls, key, body, answer, onEvent);
                    }
                    end.complete(null);
                  } catch (Throwable e) {
                    end.completeExceptionally(e);
                  }
                });
      }
      assertThat(enough.await(60, TimeUnit.SECONDS)).as("streams under way").isTrue();
      int ended = (int) ends.stream().filter(CompletableFuture::isDone).count();
      nodes.node(0).kill();
      assertThat(ended).as("streams that ended before the kill").isZero();
      for (int i = 0; i < ends.size(); i++) {
        ends.get(i).get(120, TimeUnit.SECONDS);
        assertThat(answers.get(i)).as("stream %s", i).hasToString(undisturbed.get(i / 2));
      }
      for (Answer answer : answers) {
        if (!answer.response.isEmpty()) {
          JsonNode stored = second.get(RESPONSES + "/" + answer.response);
          assertThat(stored.path("status").asText()).isEqualTo("incomplete");
          assertThat(stored.at("/output/0/content/0/text").asText())
              .isEqualTo(answer.texts.get(0).toString());
        }
      }
      // Each is paid for once: those undisturbed, and those that two nodes answered.
      TestNodes.await(
          "every answer in the ledger",
          Duration.ofSeconds(60),
          () -> requests(second) == 3L * REQUESTS.size() + restarted);
    }
  }

  /**
   * All but the first told to stop (SIGTERM) and started again, one node after the other, while
   * three clients ask on and on, each at a node of its own first. Not one stream fails, or has
   * another text.
   *
   * @return how many streams there were
   */
  private static int restartUnderLoad(TestProcesses nodes, String key, List<String> undisturbed)
      throws Exception {
    AtomicBoolean enough = new AtomicBoolean();
    AtomicInteger streams = new AtomicInteger();
    Set<NodeProcess> answered = ConcurrentHashMap.newKeySet();
    List<CompletableFuture<Void>> ends = new ArrayList<>();
    for (NodeProcess node : nodes.all()) {
      CompletableFuture<Void> end = new CompletableFuture<>();
      ends.add(end);
      Thread.ofPlatform()
          .daemon()
          .start(
              () -> {
                try {
                  Client client = new Client(node.url(), Optional.of(key));
                  while (!enough.get()) {
                    int which = streams.getAndIncrement() % REQUESTS.size();
                    Answer answer = new Answer();
                    Map<String, Object> body = REQUESTS.get(which);
                    client.stream(path(body), body, answer::event);
                    assertThat(answer).hasToString(undisturbed.get(which));
                    answered.add(node);
                    // Time for the node that starts: two cores may be all there is.
                    TimeUnit.MILLISECONDS.sleep(PAUSE_MS);
                  }
                  end.complete(null);
                } catch (Throwable e) {
                  end.completeExceptionally(e);
                }
              });
    }
    // A client that never reached its node would know of no other.
    TestNodes.await(
        "each client's first answer",
        Duration.ofSeconds(60),
        () -> answered.size() == nodes.all().size());
    for (NodeProcess node : nodes.all().subList(1, nodes.all().size())) {
      int before = streams.get();
      node.terminate();
      assertThat(node.awaitEnd()).isZero();
      node.restart();
      node.awaitReady();
      TestNodes.await(
          "both replicas ready, and streams",
          Duration.ofSeconds(60),
          () -> {
            ends.stream()
                .filter(CompletableFuture::isCompletedExceptionally)
                .forEach(CompletableFuture::join);
            return ready(node, key) && streams.get() > before + 6;
          });
    }
    enough.set(true);
    for (CompletableFuture<Void> end : ends) {
      end.get(120, TimeUnit.SECONDS);
    }
    return streams.get();
  }

  private static boolean ready(NodeProcess node, String key) {
    try {
      JsonNode deployment =
          new Client(node.url(), Optional.of(key)).get("/api/deployments").path(0);
      return deployment.path("state").asText().equals("ready");
    } catch (FlotillaException e) {
      return false;
    }
  }

  private static long requests(Client client) {
    return client.get("/api/usage?by=model").path("rows").path(0).path("requests").asLong();
  }
}

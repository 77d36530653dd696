package dev.flotilla.gateway;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.cluster.FakeCluster;
import dev.flotilla.cluster.FakeRegistry;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.serve.Deployments.ModelView;
import dev.flotilla.serve.GenerationRequest;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.TreeMap;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Clients that lose their connection, or their node, and come back to this one or another. */
@Timeout(60)
class StreamResumeTest {

  private static final String CHAT = "/v1/chat/completions";
  private static final String COMPLETIONS = "/v1/completions";

  private final List<TestGateway> gateways = new ArrayList<>();
  private String key = "";

  @BeforeEach
  void start() {
    FakeRegistry registry = new FakeRegistry();
    List<NodeInfo> nodes =
        Stream.of("node-a", "node-b", "node-c")
            .map(name -> FakeCluster.node(name, NodeInfo.State.UP))
            .toList();
    for (NodeInfo node : nodes) {
      gateways.add(new TestGateway(GatewayConfig.Limits.DEFAULTS, 0, registry, node.id(), nodes));
    }
    for (TestGateway from : gateways) {
      gateways.forEach(to -> from.cluster.connect(to.cluster));
      from.generator.answer = StreamResumeTest::text;
      from.generator.delayMs = 2;
    }
    key = gateways.getFirst().key;
  }

  /** A text that follows from the request: of one to four bytes a character, each a token. */
  private static int[] text(GenerationRequest request) {
    Random random = new Random(request.sampling().seed());
    StringBuilder text = new StringBuilder();
    String[] pieces = {"a", "b ", "é", "日", "😀", "STO"};
    for (int i = 0; i < 60; i++) {
      text.append(pieces[random.nextInt(pieces.length)]);
    }
    return TestText.tokens(text.append(" STOP and more").toString());
  }

  @AfterEach
  void stop() {
    // What was not read to its end would be waited for.
    gateways.forEach(gateway -> gateway.http.shutdownNow());
    gateways.forEach(TestGateway::close);
  }

  private void kill(int index) {
    gateways.get(index).gateway.close();
    gateways.get(index).cluster.close();
  }

  /** What a client has of a stream. */
  private static final class Read {
    final List<String> events = new ArrayList<>();
    String lastId = "";
    boolean done;

    /** Reads on till the end, or till there are so many events. */
    void read(Iterator<String> lines, int eventsMax) {
      String id = lastId;
      try {
        while (events.size() < eventsMax && lines.hasNext()) {
          String line = lines.next();
          if (line.startsWith("id: ")) {
            id = line.substring(4);
          } else if (line.equals("data: [DONE]")) {
            done = true;
          } else if (line.startsWith("data: ")) {
            events.add(line.substring(6));
            lastId = id;
          }
        }
      } catch (UncheckedIOException e) {
        done = false; // its node died
      }
    }

    /** The text of each choice, with its end. */
    Map<Integer, String> texts() {
      Map<Integer, String> texts = new TreeMap<>();
      for (String event : events) {
        JsonNode data = Json.read(event.getBytes(StandardCharsets.UTF_8), JsonNode.class);
        for (JsonNode choice : data.path("choices")) {
          String piece =
              choice.path("text").asText()
                  + choice.path("delta").path("content").asText()
                  + (choice.path("delta").has("role") ? "<" : "")
                  + (choice.path("finish_reason").isTextual()
                      ? "|" + choice.path("finish_reason").asText()
                      : "");
          texts.merge(choice.path("index").asInt(), piece, String::concat);
        }
        if (data.has("usage")) {
          texts.merge(-1, data.path("usage").toString(), String::concat);
        }
      }
      return texts;
    }
  }

  private HttpResponse<Stream<String>> post(
      int gateway, String path, String body, String lastId, String withKey) {
    HttpRequest.Builder request =
        HttpRequest.newBuilder(gateways.get(gateway).uri(path))
            .header("Authorization", "Bearer " + withKey)
            .POST(BodyPublishers.ofString(body));
    if (!lastId.isEmpty()) {
      request.header("Last-Event-ID", lastId);
    }
    try {
      return gateways.get(gateway).http.send(request.build(), BodyHandlers.ofLines());
    } catch (IOException | InterruptedException e) {
      throw new AssertionError(e);
    }
  }

  private HttpResponse<Stream<String>> post(int gateway, String path, String body, String lastId) {
    return post(gateway, path, body, lastId, key);
  }

  private static String chat(String more) {
    return "{\"model\":\"tiny\",\"stream\":true,\"cache\":false,"
        + "\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]"
        + more
        + "}";
  }

  private Read whole(String path, String body) {
    Read read = new Read();
    read.read(post(2, path, body, "").body().iterator(), Integer.MAX_VALUE);
    assertThat(read.done).isTrue();
    return read;
  }

  private static final String PLAIN = ",\"seed\":11";
  private static final String STOPS = ",\"seed\":12,\"stop\":\"STOP\"";
  private static final String THREE =
      ",\"seed\":13,\"n\":3,\"stop\":[\"STOP\",\"zzz\"],\"stream_options\":{\"include_usage\":true}";
  private static final String SHORT = ",\"seed\":14,\"n\":2,\"max_completion_tokens\":70";

  @ParameterizedTest
  @ValueSource(strings = {PLAIN, STOPS, THREE, SHORT})
  void aStreamCutAnywhereAndAsOftenAsNotIsTheSame(String more) {
    Read expected = whole(CHAT, chat(more));
    long seed = System.nanoTime();
    Random random = new Random(seed);
    for (int round = 0; round < 4; round++) {
      Read read = new Read();
      int cuts = 0;
      while (!read.done) {
        int gateway = random.nextInt(3);
        HttpResponse<Stream<String>> response = post(gateway, CHAT, chat(more), read.lastId);
        assertThat(response.statusCode()).as("seed %s", seed).isEqualTo(200);
        try (Stream<String> lines = response.body()) {
          int some = cuts < 20 ? read.events.size() + 1 + random.nextInt(20) : Integer.MAX_VALUE;
          read.read(lines.iterator(), some);
        }
        cuts++;
      }
      assertThat(read.texts()).as("seed %s, round %s", seed, round).isEqualTo(expected.texts());
      assertThat(read.events).as("seed %s", seed).hasSameSizeAs(expected.events);
      assertThat(cuts).isGreaterThan(3);
    }
  }

  @Test
  void aStreamWhoseGatewayDiesGoesOnAtAnother() {
    for (String more : List.of(PLAIN, THREE)) {
      Read expected = whole(CHAT, chat(more));
      Read read = new Read();
      Iterator<String> lines = post(0, CHAT, chat(more), "").body().iterator();
      read.read(lines, 50);
      if (more.equals(THREE)) {
        kill(0);
        read.read(lines, Integer.MAX_VALUE); // what was under way
      }
      assertThat(read.done).isFalse();
      HttpResponse<Stream<String>> rest = post(1, CHAT, chat(more), read.lastId);
      assertThat(rest.statusCode()).isEqualTo(200);
      read.read(rest.body().iterator(), Integer.MAX_VALUE);
      assertThat(read.done).isTrue();
      assertThat(read.texts()).isEqualTo(expected.texts());
    }
    assertThat(gateways.get(1).generator.requests).isNotEmpty();
  }

  @Test
  void completionsGoOnToo() {
    String body =
        "{\"model\":\"tiny\",\"prompt\":[\"one\",\"two\"],\"echo\":true,\"n\":2,\"seed\":5,"
            + "\"max_tokens\":100,\"stream\":true,\"cache\":false}";
    Read expected = whole(COMPLETIONS, body);
    assertThat(expected.texts()).hasSize(4);
    Read read = new Read();
    read.read(post(0, COMPLETIONS, body, "").body().iterator(), 90);
    read.read(post(1, COMPLETIONS, body, read.lastId).body().iterator(), 200);
    read.read(post(2, COMPLETIONS, body, read.lastId).body().iterator(), Integer.MAX_VALUE);
    assertThat(read.done).isTrue();
    assertThat(read.texts()).isEqualTo(expected.texts());
  }

  @Test
  void whoHasAllButTheEndGetsTheEnd() {
    Read read = whole(CHAT, chat(THREE));
    HttpResponse<Stream<String>> again = post(0, CHAT, chat(THREE), read.lastId);
    assertThat(again.body().filter(line -> !line.isEmpty())).containsExactly("data: [DONE]");
  }

  @Test
  void aRequestThatDrawsItsOwnSeedGoesOnWithThatSeed() {
    Read read = new Read();
    read.read(post(0, CHAT, chat(""), "").body().iterator(), 30);
    GenerationRequest begun = gateways.get(0).generator.requests.getFirst();
    read.read(post(1, CHAT, chat(""), read.lastId).body().iterator(), Integer.MAX_VALUE);
    assertThat(read.texts().get(0))
        .isEqualTo("<" + new String(bytes(text(begun)), StandardCharsets.UTF_8) + "|stop");
    GenerationRequest gone = gateways.get(1).generator.requests.getFirst();
    assertThat(gone).usingRecursiveComparison().isEqualTo(begun);
  }

  private static byte[] bytes(int[] tokens) {
    byte[] bytes = new byte[tokens.length];
    for (int i = 0; i < tokens.length; i++) {
      bytes[i] = (byte) tokens[i];
    }
    return bytes;
  }

  @Test
  void theFormerConnectionIsToldAndItsWorkStops() throws Exception {
    gateways.getFirst().generator.answer = r -> new int[0];
    gateways.get(1).generator.answer = r -> new int[0];
    gateways.getFirst().generator.delayMs = 50; // so that it cannot reach its end meanwhile
    Read first = new Read();
    HttpResponse<Stream<String>> former = post(0, CHAT, chat(PLAIN), "");
    Iterator<String> lines = former.body().iterator();
    first.read(lines, 5);
    HttpResponse<Stream<String>> later = post(1, CHAT, chat(PLAIN), first.lastId);
    first.read(lines, Integer.MAX_VALUE);
    assertThat(first.events.getLast()).contains("another connection");
    assertThat(first.done).isFalse();
    assertThat(TestGateway.soon(() -> gateways.getFirst().generator.running.get() == 0)).isTrue();
    later.body().close();
    assertThat(TestGateway.soon(() -> gateways.get(1).generator.running.get() == 0)).isTrue();
  }

  @Test
  void aRequestThatIsRefusedLeavesTheConnectionThatReads() {
    Read expected = whole(CHAT, chat(THREE));
    for (int wrongAt : new int[] {0, 1, 2}) {
      Read read = new Read();
      Iterator<String> lines = post(0, CHAT, chat(THREE), "").body().iterator();
      read.read(lines, 30);
      String answer = read.lastId.substring(0, read.lastId.indexOf(':'));
      List<HttpResponse<Stream<String>>> refused =
          List.of(
              post(wrongAt, COMPLETIONS, chat(THREE), read.lastId),
              post(wrongAt, CHAT, chat(THREE), answer + ":1.2"),
              post(wrongAt, CHAT, chat(THREE), answer + ":1.2.99999"),
              post(wrongAt, CHAT, chat(THREE).replace("tiny", "gone"), read.lastId));
      assertThat(refused).extracting(HttpResponse::statusCode).containsExactly(400, 400, 400, 404);
      refused.forEach(response -> response.body().close());
      read.read(lines, Integer.MAX_VALUE);
      assertThat(read.done).as("refused by %d", wrongAt).isTrue();
      assertThat(read.texts()).isEqualTo(expected.texts());
    }
  }

  @Test
  void onlyTheKeyThatBeganAStreamGoesOnWithIt() throws Exception {
    String other = "fk-other";
    gateways.getFirst().addKey("other", other);
    Read read = new Read();
    read.read(post(0, CHAT, chat(PLAIN), "").body().iterator(), 5);
    for (int gateway : List.of(0, 1)) {
      HttpResponse<Stream<String>> refused = post(gateway, CHAT, chat(PLAIN), read.lastId, other);
      assertThat(refused.statusCode()).isEqualTo(404);
      assertThat(String.join("", refused.body().toList()))
          .contains("stream_not_found", "Last-Event-ID", "begin anew");
    }
    HttpResponse<Stream<String>> mine = post(1, CHAT, chat(PLAIN), read.lastId);
    assertThat(mine.statusCode()).isEqualTo(200);
    mine.body().close();
  }

  @Test
  void whatIsNoPlaceInTheStreamIsRefused() {
    Read read = whole(CHAT, chat(PLAIN));
    String answer = read.lastId.substring(0, read.lastId.indexOf(':'));
    for (String wrong :
        List.of(
            "x",
            "5",
            answer,
            answer + ":",
            answer + ":1.x",
            answer + ":1.2",
            answer + ":99999",
            answer + ":190",
            answer + ":-1",
            answer + ":3+",
            answer + ":3 4")) {
      HttpResponse<Stream<String>> refused = post(0, CHAT, chat(PLAIN), wrong);
      assertThat(refused.statusCode()).as(wrong).isEqualTo(400);
      assertThat(String.join("", refused.body().toList()))
          .as(wrong)
          .contains("invalid_last_event_id", "Last-Event-ID");
    }
    // Not the request that began it.
    assertThat(post(0, COMPLETIONS, chat(PLAIN), read.lastId).statusCode()).isEqualTo(400);
    String whole = chat(PLAIN).replace("\"stream\":true,", "");
    assertThat(post(0, CHAT, whole, read.lastId).statusCode()).isEqualTo(400);
    assertThat(post(0, CHAT, chat(PLAIN), "node-z-1:3").statusCode()).isEqualTo(404);
    // Another model under the same name.
    ModelView before = gateways.getFirst().deployments.models.removeFirst();
    gateways
        .getFirst()
        .deployments
        .models
        .add(
            new ModelView(
                before.name(),
                "sha256:other",
                before.bytes(),
                before.createdAtMs(),
                before.config()));
    assertThat(post(0, CHAT, chat(PLAIN), read.lastId).statusCode()).isEqualTo(409);
  }

  @Test
  void aFailureInTheStreamLeavesItToBeGoneOnWith() {
    Read expected = whole(CHAT, chat(PLAIN));
    gateways.getFirst().generator.failAfter = 40;
    gateways.getFirst().generator.failure =
        Optional.of(
            new FlotillaException(
                FlotillaException.Code.UNAVAILABLE, "this node stops", "Ask another node."));
    Read read = new Read();
    read.read(post(0, CHAT, chat(PLAIN), "").body().iterator(), Integer.MAX_VALUE);
    assertThat(read.events.removeLast()).contains("this node stops");
    read.read(post(1, CHAT, chat(PLAIN), read.lastId).body().iterator(), Integer.MAX_VALUE);
    assertThat(read.texts()).isEqualTo(expected.texts());
  }
}

package dev.flotilla.gateway;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.Json;
import dev.flotilla.cluster.FakeCluster;
import dev.flotilla.cluster.FakeRegistry;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.serve.GenerationRequest;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.ConcurrentHashMap;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Responses over three gateways with one store. */
@Timeout(60)
class ResponsesApiTest {

  private static final String PATH = "/v1/responses";
  private static final String PLAIN = ",\"seed\":11";
  private static final String STOPS = ",\"seed\":12,\"stop\":\"STOP\"";
  private static final String SHORT = ",\"seed\":14,\"max_output_tokens\":70";

  private final Map<String, byte[]> stored = new ConcurrentHashMap<>();
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
      gateways.add(
          new TestGateway(GatewayConfig.Limits.DEFAULTS, 0, registry, node.id(), nodes, stored));
    }
    for (TestGateway from : gateways) {
      gateways.forEach(to -> from.cluster.connect(to.cluster));
      from.generator.answer = ResponsesApiTest::text;
      from.generator.delayMs = 2;
    }
    key = gateways.getFirst().key;
  }

  @AfterEach
  void stop() {
    gateways.forEach(gateway -> gateway.http.shutdownNow());
    gateways.forEach(TestGateway::close);
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

  private static String body(String more) {
    return "{\"model\":\"tiny\",\"input\":\"Hi\"" + more + "}";
  }

  private static String streamed(String more) {
    return body(",\"stream\":true" + more);
  }

  /** What a client has of a response. */
  private static final class Read {
    final List<JsonNode> events = new ArrayList<>();

    void read(Iterator<String> lines, int eventsMax) {
      String type = "";
      try {
        while (events.size() < eventsMax && lines.hasNext()) {
          String line = lines.next();
          if (line.startsWith("event: ")) {
            type = line.substring(7);
          } else if (line.startsWith("data: ")) {
            JsonNode event =
                Json.read(line.substring(6).getBytes(StandardCharsets.UTF_8), JsonNode.class);
            assertThat(event.path("type").asText()).isEqualTo(type);
            events.add(event);
          }
        }
      } catch (UncheckedIOException e) {
        assertThat(done()).isFalse(); // its node died
      }
    }

    boolean done() {
      return !events.isEmpty()
          && List.of("response.completed", "response.incomplete")
              .contains(events.getLast().path("type").asText());
    }

    String id() {
      return events.getFirst().path("response").path("id").asText();
    }

    int last() {
      return events.getLast().path("sequence_number").asInt();
    }

    /** All events but for what differs between responses. */
    List<String> shown() {
      return events.stream()
          .map(event -> event.toString().replaceAll("(resp|msg)_[0-9a-f]+", "ID"))
          .toList();
    }

    JsonNode response() {
      return events.getLast().path("response");
    }
  }

  private HttpResponse<Stream<String>> open(int gateway, String path, String body) {
    var request = gateways.get(gateway).request(path);
    request.setHeader("Authorization", "Bearer " + key);
    if (!body.isEmpty()) {
      request.POST(BodyPublishers.ofString(body));
    }
    try {
      return gateways.get(gateway).http.send(request.build(), BodyHandlers.ofLines());
    } catch (IOException | InterruptedException e) {
      throw new AssertionError(e);
    }
  }

  private HttpResponse<Stream<String>> rest(int gateway, Read read) {
    return open(gateway, PATH + "/" + read.id() + "?stream=true&starting_after=" + read.last(), "");
  }

  private Read whole(String body) {
    Read read = new Read();
    read.read(open(2, PATH, body).body().iterator(), Integer.MAX_VALUE);
    assertThat(read.done()).isTrue();
    return read;
  }

  private HttpResponse<String> send(int gateway, String method, String path, String body) {
    return gateways
        .get(gateway)
        .send(
            gateways
                .get(gateway)
                .request(path)
                .setHeader("Authorization", "Bearer " + key)
                .method(method, BodyPublishers.ofString(body))
                .build());
  }

  private JsonNode json(int gateway, String method, String path, String body) {
    HttpResponse<String> response = send(gateway, method, path, body);
    assertThat(response.statusCode()).as(response.body()).isEqualTo(200);
    return TestGateway.json(response);
  }

  private void refused(int status, String code, String body, String param) {
    HttpResponse<String> response = send(0, "POST", PATH, body);
    assertThat(response.statusCode()).as(body + response.body()).isEqualTo(status);
    JsonNode error = TestGateway.json(response).path("error");
    assertThat(error.path("code").asText()).as(body).isEqualTo(code);
    assertThat(error.path("param").asText()).as(body).isEqualTo(param);
  }

  @Test
  void aResponseIsWhatItsEventsSayAndIsStored() {
    for (String more : List.of(PLAIN, STOPS, SHORT)) {
      JsonNode atOnce = json(0, "POST", PATH, body(more + ",\"metadata\":{\"a\":\"b\"}"));
      assertThat(atOnce.path("object").asText()).isEqualTo("response");
      boolean shortened = more.equals(SHORT);
      assertThat(atOnce.path("status").asText()).isEqualTo(shortened ? "incomplete" : "completed");
      assertThat(atOnce.at("/incomplete_details/reason").asText())
          .isEqualTo(shortened ? "max_output_tokens" : "");
      assertThat(atOnce.at("/metadata/a").asText()).isEqualTo("b");
      String text = atOnce.at("/output/0/content/0/text").asText();
      Read events = whole(streamed(more));
      StringBuilder deltas = new StringBuilder();
      events.events.forEach(event -> deltas.append(event.path("delta").asText()));
      assertThat(deltas).hasToString(text);
      assertThat(events.response().at("/output/0/content/0/text").asText()).isEqualTo(text);
      assertThat(events.response().path("usage")).isEqualTo(atOnce.path("usage"));
      assertThat(events.events.stream().map(e -> e.path("sequence_number").asInt()))
          .containsExactlyElementsOf(IntStream.range(0, events.events.size()).boxed().toList());
      assertThat(events.events.stream().map(e -> e.path("type").asText()).distinct())
          .containsExactly(
              "response.created",
              "response.in_progress",
              "response.output_item.added",
              "response.content_part.added",
              "response.output_text.delta",
              "response.output_text.done",
              "response.content_part.done",
              "response.output_item.done",
              shortened ? "response.incomplete" : "response.completed");
      for (JsonNode response : List.of(atOnce, events.response())) {
        String path = PATH + "/" + response.path("id").asText();
        assertThat(json(1, "GET", path, "")).isEqualTo(response);
      }
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {PLAIN, STOPS, SHORT})
  void aResponseCutAnywhereAndAsOftenAsNotIsTheSame(String more) {
    Read expected = whole(streamed(more));
    long seed = System.nanoTime();
    Random random = new Random(seed);
    for (int round = 0; round < 3; round++) {
      Read read = new Read();
      int cuts = 0;
      while (!read.done()) {
        int gateway = random.nextInt(3);
        HttpResponse<Stream<String>> response =
            read.events.isEmpty() ? open(gateway, PATH, streamed(more)) : rest(gateway, read);
        assertThat(response.statusCode()).as("seed %s", seed).isEqualTo(200);
        try (Stream<String> lines = response.body()) {
          int some = cuts < 20 ? read.events.size() + 1 + random.nextInt(20) : Integer.MAX_VALUE;
          read.read(lines.iterator(), some);
        }
        cuts++;
      }
      assertThat(read.shown()).as("seed %s, round %s", seed, round).isEqualTo(expected.shown());
      assertThat(cuts).isGreaterThan(3);
    }
  }

  @Test
  void aResponseWhoseGatewayDiesGoesOnAtAnother() {
    Read expected = whole(streamed(PLAIN));
    Read read = new Read();
    Iterator<String> lines = open(0, PATH, streamed(PLAIN)).body().iterator();
    read.read(lines, 50);
    gateways.getFirst().gateway.close();
    gateways.getFirst().cluster.close();
    read.read(lines, Integer.MAX_VALUE); // what was under way
    assertThat(read.done()).isFalse();
    JsonNode meanwhile = json(2, "GET", PATH + "/" + read.id(), "");
    assertThat(meanwhile.path("status").asText()).isEqualTo("in_progress");
    read.read(rest(1, read).body().iterator(), Integer.MAX_VALUE);
    assertThat(read.done()).isTrue();
    assertThat(read.shown()).isEqualTo(expected.shown());
    assertThat(json(2, "GET", PATH + "/" + read.id(), "")).isEqualTo(read.response());
  }

  @Test
  void aStoredResponseIsSentAgainFromAnyEventOnWithoutItsModel() {
    Read expected = whole(streamed(PLAIN));
    gateways.forEach(gateway -> gateway.deployments.models.clear());
    // As it is when nobody keeps it in memory any more.
    Read again = new Read();
    JsonNode atOnce = expected.response();
    stored.put("resp_2", stored.get(expected.id()));
    again.read(open(0, PATH + "/resp_2?stream=true", "").body().iterator(), Integer.MAX_VALUE);
    assertThat(again.shown()).isEqualTo(expected.shown());
    Read end = new Read();
    end.read(
        open(0, PATH + "/resp_2?stream=true&starting_after=" + (expected.last() - 1), "")
            .body()
            .iterator(),
        Integer.MAX_VALUE);
    assertThat(end.events).hasSize(1);
    assertThat(end.response()).isEqualTo(atOnce);
    assertThat(
            open(0, PATH + "/resp_2?stream=true&starting_after=" + expected.last(), "")
                .body()
                .toList())
        .isEmpty();
    assertThat(
            send(0, "GET", PATH + "/resp_2?stream=true&starting_after=" + (1 + expected.last()), "")
                .statusCode())
        .isEqualTo(400);
  }

  @Test
  void aConversationGoesOnFromAStoredResponse() {
    JsonNode first = json(0, "POST", PATH, body(PLAIN + ",\"instructions\":\"Be brief.\""));
    String said = first.at("/output/0/content/0/text").asText();
    JsonNode second =
        json(
            1,
            "POST",
            PATH,
            body(PLAIN + ",\"previous_response_id\":\"" + first.path("id").asText() + "\""));
    assertThat(second.path("previous_response_id")).isEqualTo(first.path("id"));
    assertThat(second.path("instructions").isNull()).isTrue();
    GenerationRequest asked = gateways.get(1).generator.requests.getLast();
    String messages =
        "[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\",\"content\":"
            + Json.MAPPER.valueToTree(said)
            + "},{\"role\":\"user\",\"content\":\"Hi\"}]";
    json(
        2,
        "POST",
        "/v1/chat/completions",
        "{\"model\":\"tiny\",\"cache\":false,\"seed\":1,\"messages\":" + messages + "}");
    assertThat(asked.prompt()).isEqualTo(gateways.get(2).generator.requests.getLast().prompt());
    refused(
        400,
        "previous_response_not_found",
        body(",\"previous_response_id\":\"resp_1\""),
        "previous_response_id");
  }

  @Test
  void whatIsNotStoredIsNotThereAndWhatIsDeletedIsGone() {
    JsonNode once = json(0, "POST", PATH, body(",\"store\":false" + PLAIN));
    assertThat(stored).isEmpty();
    String path = PATH + "/" + once.path("id").asText();
    assertThat(send(0, "GET", path, "").statusCode()).isEqualTo(404);
    Read read = whole(streamed(PLAIN));
    String mine = PATH + "/" + read.id();
    JsonNode deleted = json(1, "DELETE", mine, "");
    assertThat(deleted.path("deleted").asBoolean()).isTrue();
    assertThat(deleted.path("id").asText()).isEqualTo(read.id());
    for (String gone : List.of(mine, mine + "?stream=true")) {
      assertThat(send(2, "GET", gone, "").statusCode()).as(gone).isEqualTo(404);
    }
    assertThat(send(0, "DELETE", mine, "").statusCode()).isEqualTo(404);
    // One that runs ends.
    Read running = new Read();
    Iterator<String> lines = open(0, PATH, streamed(PLAIN)).body().iterator();
    running.read(lines, 20);
    json(1, "DELETE", PATH + "/" + running.id(), "");
    running.read(lines, Integer.MAX_VALUE);
    assertThat(running.done()).isFalse();
    assertThat(running.events.getLast().path("type").asText()).isEqualTo("error");
    assertThat(send(2, "GET", PATH + "/" + running.id(), "").statusCode()).isEqualTo(404);
    assertThat(stored).isEmpty();
  }

  @Test
  void nobodyElseFindsIt() throws Exception {
    gateways.getFirst().addKey("other", "fk-other");
    Read complete = whole(streamed(PLAIN));
    Read running = new Read();
    HttpResponse<Stream<String>> mine = open(0, PATH, streamed(PLAIN));
    running.read(mine.body().iterator(), 10);
    String before = key;
    key = "fk-other";
    for (Read read : List.of(complete, running)) {
      String path = PATH + "/" + read.id();
      assertThat(send(0, "GET", path, "").statusCode()).isEqualTo(404);
      assertThat(send(1, "GET", path + "?stream=true", "").statusCode()).isEqualTo(404);
      assertThat(send(1, "DELETE", path, "").statusCode()).isEqualTo(404);
      refused(
          400,
          "previous_response_not_found",
          body(",\"previous_response_id\":\"" + read.id() + "\""),
          "previous_response_id");
    }
    key = before;
    assertThat(send(2, "GET", PATH + "/" + complete.id(), "").statusCode()).isEqualTo(200);
    mine.body().close();
  }

  @Test
  void aFormatIsHeldToAndSaid() {
    String format =
        """
        {"type":"json_schema","name":"x","schema":{"enum":["yes","no"]},"strict":true}""";
    JsonNode response = json(0, "POST", PATH, body(",\"text\":{\"format\":" + format + "}"));
    assertThat(response.at("/text/format").toString()).isEqualTo(format);
    assertThat(gateways.getFirst().generator.requests.getLast().grammar().orElseThrow())
        .contains("yes");
  }

  @Test
  void whatIsWrongOrNotSupportedIsNamed() {
    String unsupported = "unsupported_parameter";
    refused(400, unsupported, body(",\"background\":true"), "background");
    refused(400, unsupported, body(",\"tools\":[{\"type\":\"web_search\"}]"), "tools");
    refused(400, unsupported, body(",\"truncation\":\"auto\""), "truncation");
    refused(400, unsupported, body(",\"reasoning\":{\"effort\":\"low\"}"), "reasoning");
    refused(
        400,
        "missing_required_parameter",
        body(",\"text\":{\"format\":{\"type\":\"json_schema\",\"name\":\"x\"}}"),
        "text.format.schema");
    refused(
        400, unsupported, body(",\"text\":{\"format\":{\"type\":\"xml\"}}"), "text.format.type");
    refused(400, unsupported, body(",\"text\":{\"verbosity\":\"low\"}"), "text.verbosity");
    refused(400, unsupported, body(",\"conversation\":\"c\""), "conversation");
    refused(400, "invalid_value", body(",\"max_output_tokens\":0"), "max_output_tokens");
    refused(400, "invalid_value", body(",\"temperature\":3"), "temperature");
    refused(400, "invalid_value", body(",\"metadata\":{\"a\":1}"), "metadata");
    refused(400, "missing_required_parameter", "{\"model\":\"tiny\"}", "input");
    refused(400, "invalid_value", "{\"model\":\"tiny\",\"input\":[]}", "input");
    refused(
        400,
        unsupported,
        "{\"model\":\"tiny\",\"input\":[{\"type\":\"function_call_output\"}]}",
        "input[0].type");
    refused(
        400,
        unsupported,
        "{\"model\":\"tiny\",\"input\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_image\"}]}]}",
        "input[0].content[0].type");
    refused(404, "model_not_found", "{\"model\":\"none\",\"input\":\"x\"}", "model");
    // What changes nothing is taken.
    json(
        0,
        "POST",
        PATH,
        body(
            ",\"background\":false,\"tools\":[],\"tool_choice\":\"auto\",\"truncation\":\"disabled\""
                + ",\"text\":{\"format\":{\"type\":\"text\"}},\"include\":[],\"user\":\"u\""
                + ",\"reasoning\":{\"effort\":null},\"top_logprobs\":0,\"service_tier\":\"auto\""));
    Read read = whole(streamed(PLAIN));
    String path = PATH + "/" + read.id();
    assertThat(send(0, "POST", path + "/cancel", "").body()).contains("background");
    assertThat(send(0, "POST", PATH + "/resp_1/cancel", "").statusCode()).isEqualTo(404);
    for (String query :
        List.of(
            "?starting_after=3",
            "?stream=yes",
            "?stream=true&starting_after=x",
            "?stream=true&starting_after=-1",
            "?stream=true&starting_after=99999")) {
      assertThat(send(1, "GET", path + query, "").statusCode()).as(query).isEqualTo(400);
    }
    for (String id : List.of("resp_1", "x", "..%2f", "resp_" + "a".repeat(1000))) {
      assertThat(send(1, "GET", PATH + "/" + id, "").statusCode()).as(id).isEqualTo(404);
    }
  }
}

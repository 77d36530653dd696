package dev.flotilla.client;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Executors;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Nodes that say what a test tells them to, and break off. */
@Timeout(60)
class EventReaderTest {

  /** What a node does with its requests, one after the other; the last one comes again. */
  private static final class Node implements AutoCloseable {
    final List<String> asked = new CopyOnWriteArrayList<>();
    private final HttpServer server;
    private final List<String> answers;
    private final CountDownLatch released = new CountDownLatch(1);

    Node(String... answers) throws IOException {
      this.answers = List.of(answers);
      server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
      server.setExecutor(Executors.newVirtualThreadPerTaskExecutor());
      server.createContext("/v1/chat", this::answer);
      server.createContext("/api/models", this::answer);
      server.createContext("/v1/responses", this::answer);
      server.start();
    }

    private void answer(HttpExchange exchange) throws IOException {
      byte[] _ = exchange.getRequestBody().readAllBytes();
      String lastId = exchange.getRequestHeaders().getFirst("Last-Event-ID");
      String rest =
          exchange.getRequestMethod().equals("GET") ? exchange.getRequestURI().toString() : "";
      asked.add(lastId == null ? rest : lastId);
      String answer = answers.get(Math.min(asked.size(), answers.size()) - 1);
      int status = Integer.parseInt(answer.substring(0, 3));
      exchange.sendResponseHeaders(status, 0);
      exchange.getResponseBody().write(answer.substring(3).getBytes(StandardCharsets.UTF_8));
      exchange.getResponseBody().flush();
      if (answer.contains("HANG")) {
        hang();
      }
      if (!answer.contains("CUT")) {
        exchange.getResponseBody().close();
      }
      exchange.close();
    }

    private void hang() {
      try {
        released.await();
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
      }
    }

    String url() {
      return "http://127.0.0.1:" + server.getAddress().getPort();
    }

    @Override
    public void close() {
      released.countDown();
      server.stop(0);
    }
  }

  private final List<AutoCloseable> open = new ArrayList<>();
  private final List<Integer> events = new ArrayList<>();

  private Node node(String... answers) throws IOException {
    Node node = new Node(answers);
    open.add(node);
    return node;
  }

  @AfterEach
  void stop() throws Exception {
    for (AutoCloseable each : open) {
      each.close();
    }
  }

  private static String events(int from, int to) {
    StringBuilder text = new StringBuilder("200");
    for (int i = from; i < to; i++) {
      text.append("id: x:" + i + "\ndata: {\"n\":" + i + "}\n\n: a comment\n\n");
    }
    return text.toString();
  }

  private static final String DONE = "data: [DONE]\n\n";

  private static String error(String code) {
    return "data: {\"error\":{\"message\":\"as it is\",\"code\":\"" + code + "\"}}\n\n";
  }

  private void read(Node... nodes) {
    List<String> others = new ArrayList<>();
    for (Node node : nodes) {
      others.add(node.url());
    }
    new Client(others.removeFirst(), Optional.of("k"))
        .knowing(others).stream(
            "/v1/chat", Map.of("stream", true), e -> events.add(e.path("n").asInt()));
  }

  private void refused(Code code, Node... nodes) {
    assertThatThrownBy(() -> read(nodes))
        .isInstanceOfSatisfying(
            FlotillaException.class, e -> assertThat(e.code()).as("%s", e).isEqualTo(code));
  }

  @Test
  void aStreamThatBreaksOffIsReadOnAtTheNextNode() throws Exception {
    // The event that is cut has no place yet.
    Node first = node(events(0, 3) + "id: x:3\ndata: {\"n\":CUT", "503{}");
    Node second = node(events(3, 5) + "CUT", "503{}");
    Node third = node("503{}", events(5, 8) + DONE);
    read(first, second, third);
    assertThat(events).containsExactly(0, 1, 2, 3, 4, 5, 6, 7);
    assertThat(first.asked).startsWith("");
    assertThat(second.asked).startsWith("x:2");
    assertThat(third.asked).startsWith("x:4");
  }

  @Test
  void aStreamThatEndsWithoutItsLastWordIsNotAtItsEnd() throws Exception {
    Node only = node(events(0, 2), events(2, 3) + DONE);
    read(only);
    assertThat(events).containsExactly(0, 1, 2);
    assertThat(only.asked).containsExactly("", "x:1");
  }

  @Test
  void aNodeThatFallsSilentInTheMiddleIsLeftForTheNext() throws Exception {
    Node first = node(events(0, 3) + ": HANG\n\n");
    Node second = node(events(3, 5) + DONE);
    URI last =
        new EventReader(
                HttpClient.newHttpClient(),
                new EventReader.ByLastEventId(
                    (node, path) -> HttpRequest.newBuilder(node.resolve(path)),
                    "/v1/chat",
                    new byte[0]),
                (status, body) -> new FlotillaException(Code.FAILED, status + body, ""),
                (node, e) -> new FlotillaException(Code.UNAVAILABLE, String.valueOf(e), "", e),
                new LinkedHashSet<>(List.of(URI.create(first.url()), URI.create(second.url()))),
                Duration.ofMillis(300),
                e -> events.add(e.path("n").asInt()))
            .read();
    assertThat(last).hasToString(second.url());
    assertThat(events).containsExactly(0, 1, 2, 3, 4);
    assertThat(second.asked).containsExactly("x:2");
  }

  @Test
  void aNodeThatStopsSaysSoAndAnotherGoesOn() throws Exception {
    read(node(events(0, 2) + error("unavailable")), node(events(2, 3) + DONE));
    assertThat(events).containsExactly(0, 1, 2);
  }

  @Test
  void whatWillNotChangeIsNotTriedAgain() throws Exception {
    Node taken = node(events(0, 2) + error("conflict"));
    refused(Code.CONFLICT, taken, node("200"));
    assertThat(taken.asked).hasSize(1);
    refused(Code.NOT_FOUND, node(events(0, 1) + "CUT"), node("404{}"));
    refused(Code.INVALID, node("400{}"), node("200"));
    refused(Code.BUSY, node("429{}"), node("200"));
  }

  /** Such as the progress of an import, which another node would begin from the start. */
  @Test
  void whatCannotBeToldFromWhatComesAgainIsNotAskedForAgain() throws Exception {
    String progress = "200data: {\"n\":1}\n\n";
    for (String end : List.of("CUT", error("unavailable"))) {
      Node other = node("200" + DONE);
      events.clear();
      refused(Code.UNAVAILABLE, node(progress + end), other);
      assertThat(events).containsExactly(1);
      assertThat(other.asked).isEmpty();
    }
  }

  @Test
  void workOfOneNodeStaysThereAndFailsAsItSays() throws Exception {
    Node other = node("200" + DONE);
    Node broken =
        node(
            "200data: {\"error\":{\"message\":\"no model\",\"code\":\"bad_file\",\"status\":400}}\n\n");
    Node away = node("503{}");
    for (Node node : List.of(broken, away)) {
      Client client = new Client(node.url(), Optional.of("k")).knowing(List.of(other.url()));
      assertThatThrownBy(() -> client.stream("/api/models", Map.of(), e -> {}))
          .isInstanceOfSatisfying(
              FlotillaException.class,
              e ->
                  assertThat(e.code()).isEqualTo(node == broken ? Code.INVALID : Code.UNAVAILABLE));
      assertThat(node.asked).hasSize(1);
    }
    assertThat(other.asked).isEmpty();
  }

  @Test
  void aNodeThatIsAwayIsPassedOver() throws Exception {
    Node gone = node("200");
    gone.close();
    Node there = node(events(0, 1) + DONE);
    read(gone, there);
    assertThat(events).containsExactly(0);
    assertThat(there.asked).containsExactly("");
    there.close();
    refused(Code.UNAVAILABLE, gone, there);
    assertThatThrownBy(() -> read(gone)).hasMessageContaining("cannot reach a node at");
  }

  @Test
  void aStreamThatBreaksBeforeItsFirstEventHasFailedAndWasNotRefused() throws Exception {
    Node broken = node("200CUT");
    refused(Code.FAILED, broken, node("503{}"));
    refused(Code.UNAVAILABLE, node("503{}"));
    read(broken, node(events(0, 1) + DONE));
    assertThat(events).containsExactly(0);
  }

  private static String numbered(int from, int to) {
    StringBuilder text = new StringBuilder("200");
    for (int i = from; i < to; i++) {
      String type = i == 0 ? "response.created" : i == 7 ? "response.completed" : "delta";
      text.append("event: " + type + "\ndata: {\"type\":\"" + type + "\",\"sequence_number\":" + i);
      text.append(i == 0 || i == 7 ? ",\"response\":{\"id\":\"resp_x\"}" : "").append("}\n\n");
    }
    return text.toString();
  }

  @Test
  void aResponseIsReadOnFromItsLastNumberAndEndsWithItsLastEvent() throws Exception {
    Node first = node(numbered(0, 3) + "event: delta\ndata: {\"sequenceCUT", "503{}");
    Node second = node(numbered(3, 5) + error("unavailable"), "503{}");
    Node third = node("503{}", numbered(5, 8));
    new Client(first.url(), Optional.of("k"))
        .knowing(List.of(second.url(), third.url())).stream(
            "/v1/responses",
            Map.of("stream", true),
            e -> events.add(e.path("sequence_number").asInt()));
    assertThat(events).containsExactly(0, 1, 2, 3, 4, 5, 6, 7);
    assertThat(first.asked).startsWith("");
    assertThat(second.asked).startsWith("/v1/responses/resp_x?stream=true&starting_after=2");
    assertThat(third.asked).startsWith("/v1/responses/resp_x?stream=true&starting_after=4");
  }
}

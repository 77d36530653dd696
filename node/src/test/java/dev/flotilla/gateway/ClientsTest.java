package dev.flotilla.gateway;

import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.serve.Deployments.StageView;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.http.HttpClient;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** Well-behaved and ill-behaved clients, over HTTP/1.1 and HTTP/2. */
class ClientsTest {

  private static final String CHAT =
      "{\"model\":\"tiny\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}";
  private static final String STREAM =
      "{\"model\":\"tiny\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}";
  private static final String PATH = "/v1/chat/completions";

  private TestGateway gateway;

  @BeforeEach
  void start() {
    gateway = new TestGateway(TestGateway.SHORT);
  }

  @AfterEach
  void stop() {
    gateway.close();
  }

  private String head(String requestLine, String... more) {
    return requestLine
        + "\r\nHost: localhost\r\nAuthorization: Bearer "
        + gateway.key
        + "\r\n"
        + String.join("", Stream.of(more).map(h -> h + "\r\n").toList())
        + "\r\n";
  }

  private String post(String body) {
    return head("POST " + PATH + " HTTP/1.1", "Content-Length: " + body.length()) + body;
  }

  @Test
  void theJdkClientAtItsDefaultsSendsItsBody() {
    HttpResponse<String> known =
        gateway.send(gateway.request(PATH).POST(BodyPublishers.ofString(CHAT)).build());
    assertThat(known.statusCode()).as(known.body()).isEqualTo(200);
    HttpResponse<String> chunked =
        gateway.send(
            gateway
                .request(PATH)
                .POST(
                    BodyPublishers.ofInputStream(
                        () -> new ByteArrayInputStream(CHAT.getBytes(StandardCharsets.UTF_8))))
                .build());
    assertThat(chunked.statusCode()).as(chunked.body()).isEqualTo(200);
    assertThat(chunked.version()).isEqualTo(HttpClient.Version.HTTP_1_1);
  }

  @Test
  void http2WithoutUpgradeWorksWithManyStreams() throws Exception {
    // The JDK's client speaks HTTP/2 at once only over TLS, so the frames here are made by hand.
    try (RawHttp2 client = new RawHttp2(gateway.gateway.port(), gateway.key)) {
      gateway.generator.delayMs = 5;
      for (int i = 0; i < 200; i++) {
        client.post(1 + 2 * i, PATH, CHAT);
      }
      for (int i = 0; i < 200; i++) {
        assertThat(client.body(1 + 2 * i)).contains("Hello!");
      }
    }
  }

  @Test
  void aStormOfStreamResetsEndsTheConnection() throws Exception {
    gateway.generator.answer = r -> new int[0];
    gateway.generator.delayMs = 5;
    try (RawHttp2 client = new RawHttp2(gateway.gateway.port(), gateway.key)) {
      assertThat(client.resetStorm(PATH, STREAM, 3000)).isTrue();
    }
    assertThat(TestGateway.soon(() -> gateway.generator.running.get() == 0)).isTrue();
    gateway.generator.answer = r -> TestText.tokens("ok");
    assertThat(gateway.post(PATH, CHAT).statusCode()).isEqualTo(200);
  }

  @Test
  void aClientThatResetsAStreamStopsItsWork() throws Exception {
    gateway.generator.answer = r -> new int[0];
    gateway.generator.delayMs = 5;
    try (RawHttp2 client = new RawHttp2(gateway.gateway.port(), gateway.key)) {
      client.post(1, PATH, STREAM);
      client.awaitData(1);
      client.reset(1);
      assertThat(TestGateway.soon(() -> gateway.generator.running.get() == 0)).isTrue();
    }
  }

  @Test
  void aClientThatLeavesStopsItsWorkWhetherItStreamsOrNot() throws Exception {
    gateway.generator.answer = r -> new int[0];
    gateway.generator.delayMs = 20;
    longContext();
    for (String body : List.of(STREAM, CHAT)) {
      for (boolean reset : List.of(true, false)) {
        RawHttp client = new RawHttp(gateway.gateway.port()).send(post(body));
        assertThat(TestGateway.soon(() -> gateway.generator.running.get() == 1)).isTrue();
        if (body.equals(STREAM)) {
          client.readUntil("content");
        }
        int before = gateway.generator.emitted.get();
        if (reset) {
          client.abort();
        } else {
          client.close();
        }
        assertThat(TestGateway.soon(() -> gateway.generator.running.get() == 0)).isTrue();
        assertThat(gateway.generator.emitted.get() - before)
            .as("steps after leaving")
            .isLessThan(20);
      }
    }
  }

  @Test
  void aThousandClientsThatLeaveFreeEverything() throws Exception {
    gateway.generator.answer = r -> new int[0];
    gateway.generator.delayMs = 2;
    for (int round = 0; round < 10; round++) {
      List<RawHttp> clients = new ArrayList<>();
      for (int i = 0; i < 100; i++) {
        clients.add(new RawHttp(gateway.gateway.port()).send(post(STREAM)));
      }
      for (RawHttp client : clients) {
        client.readUntil("content");
        client.abort();
      }
    }
    assertThat(TestGateway.soon(() -> gateway.generator.running.get() == 0)).isTrue();
    assertThat(TestGateway.soon(() -> gateway.gateway.requestsRunning() == 0)).isTrue();
  }

  @Test
  void pipelinedRequestsAreAnsweredInTurn() throws Exception {
    gateway.generator.delayMs = 10;
    try (RawHttp client = new RawHttp(gateway.gateway.port())) {
      client.send(post(CHAT));
      assertThat(TestGateway.soon(() -> gateway.generator.running.get() == 1)).isTrue();
      client.send(head("GET /v1/models HTTP/1.1"));
      client.send(head("GET /health HTTP/1.1", "Connection: close"));
      assertThat(client.readToEnd())
          .containsSubsequence("Hello!", "owned_by", "{\"status\":\"ok\"}");
    }
  }

  private void longContext() {
    gateway.deployments.models.clear();
    gateway.deployments.deployments.clear();
    gateway.deployments.add("tiny", 100_000_000, List.of(new StageView("node-a", 0, 0)));
  }

  @Test
  void aReaderThatStopsReadingIsDroppedAndOthersAreNot() throws Exception {
    longContext();
    gateway.generator.answer = r -> new int[0];
    gateway.generator.delayMs = 1;
    gateway.generator.tokensPerPause = 10;
    try (RawHttp stalled = new RawHttp(gateway.gateway.port()).send(post(STREAM));
        RawHttp reading = new RawHttp(gateway.gateway.port()).send(post(STREAM))) {
      stalled.readUntil("content");
      AtomicBoolean enough = new AtomicBoolean();
      Thread reader =
          Thread.startVirtualThread(
              () -> {
                try {
                  while (!enough.get()) {
                    reading.readUntil("\n");
                  }
                } catch (IOException e) {
                  throw new UncheckedIOException(e);
                }
              });
      assertThat(TestGateway.soon(() -> gateway.generator.requests.size() == 2)).isTrue();
      assertThat(TestGateway.soon(() -> gateway.generator.running.get() == 1)).isTrue();
      assertThat(stalled.closedWithin(5000)).isTrue();
      assertThat(reader.isAlive()).isTrue();
      assertThat(gateway.generator.running.get()).isEqualTo(1);
      enough.set(true);
      reader.join();
    }
    assertThat(TestGateway.soon(() -> gateway.generator.running.get() == 0)).isTrue();
  }

  @Test
  void aDrippingHeaderIsCut() throws Exception {
    long start = System.nanoTime();
    try (RawHttp client = new RawHttp(gateway.gateway.port())) {
      client.send("GET /health HTTP/1.1\r\n");
      Thread dripping =
          Thread.startVirtualThread(
              () -> {
                try {
                  for (char c : "X-Slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaa".toCharArray()) {
                    client.send(String.valueOf(c));
                    Thread.sleep(100);
                  }
                } catch (Exception e) {
                  // The server has closed, as it should.
                  return;
                }
              });
      assertThat(gateway.get("/v1/models").statusCode()).isEqualTo(200);
      assertThat(client.readToEnd()).startsWith("HTTP/1.1 408").contains("\"error\"");
      dripping.join();
    }
    assertThat(Duration.ofNanos(System.nanoTime() - start)).isLessThan(Duration.ofSeconds(3));
  }

  @Test
  void aDrippingBodyIsCut() throws Exception {
    try (RawHttp client = new RawHttp(gateway.gateway.port())) {
      client.send(head("POST " + PATH + " HTTP/1.1", "Content-Length: 1000"));
      Thread dripping =
          Thread.startVirtualThread(
              () -> {
                try {
                  for (int i = 0; i < 40; i++) {
                    client.send(" ");
                    Thread.sleep(100);
                  }
                } catch (Exception e) {
                  return;
                }
              });
      assertThat(client.readToEnd()).startsWith("HTTP/1.1 408").contains("\"error\"");
      dripping.join();
    }
  }

  @Test
  void aConnectionThatSaysNothingIsClosed() throws Exception {
    try (RawHttp client = new RawHttp(gateway.gateway.port())) {
      assertThat(client.closedWithin(5000)).isTrue();
    }
  }

  @Test
  void aGenerationLongerThanTheIdleTimeOutIsDelivered() {
    gateway.generator.delayMs = 2500;
    gateway.generator.answer = r -> TestText.tokens("x");
    assertThat(gateway.post(PATH, CHAT).body()).contains("\"content\":\"x\"");
    HttpResponse<String> stream = gateway.post(PATH, STREAM);
    assertThat(stream.body().lines().filter(l -> l.startsWith(": "))).hasSizeGreaterThan(4);
    assertThat(stream.body()).contains("\"content\":\"x\"").endsWith("data: [DONE]\n\n");
  }

  @Test
  void aBodyBeyondTheBoundIsRefusedEarly() throws Exception {
    try (RawHttp client = new RawHttp(gateway.gateway.port())) {
      client.send(head("POST " + PATH + " HTTP/1.1", "Content-Length: 10000000000"));
      assertThat(client.readToEnd()).startsWith("HTTP/1.1 413").contains("200000 bytes");
    }
    HttpResponse<String> chunked =
        gateway.send(
            gateway
                .request(PATH)
                .POST(
                    BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(new byte[250_000])))
                .build());
    assertThat(chunked.statusCode()).isEqualTo(413);
    HttpResponse<String> packed =
        gateway.send(
            gateway
                .request(PATH)
                .header("Content-Encoding", "gzip")
                .POST(BodyPublishers.ofString(CHAT))
                .build());
    assertThat(packed.statusCode()).isEqualTo(415);
  }

  @Test
  void aBodyThatNobodyReadsKeepsTheConnectionForTheNextRequest() throws Exception {
    // Java's client sends the body after the header, and the answer may be there between.
    try (RawHttp client = new RawHttp(gateway.gateway.port())) {
      for (int i = 0; i < 3; i++) {
        client.send(head("POST /api/nothing HTTP/1.1", "Content-Length: 2"));
        Thread.sleep(50);
        client.send("{}");
        assertThat(client.readUntil("}}"))
            .startsWith("HTTP/1.1 404")
            .doesNotContain("Connection: close");
      }
    }
  }

  @Test
  void aBodyThatNobodyReadsAndThatDoesNotComeEndsTheConnectionAsTheAnswerSays() throws Exception {
    try (RawHttp client = new RawHttp(gateway.gateway.port())) {
      client.send(head("POST /api/nothing HTTP/1.1", "Content-Length: 2"));
      assertThat(client.readToEnd()).contains("HTTP/1.1 404", "Connection: close");
    }
  }

  @Test
  void malformedHeadersAreRefusedAndTheConnectionClosed() throws Exception {
    List<String> bad =
        List.of(
            head("POST " + PATH + " HTTP/1.1", "Content-Length: 5", "Transfer-Encoding: chunked"),
            head("POST " + PATH + " HTTP/1.1", "Content-Length: 5", "Content-Length: 6"),
            head("GET /health HTTP/1.1", "X-Bare: a\rb"),
            head("GET /health HTTP/1.1", "X-Nul: a\0b"),
            head("GET /health HTTP/1.1", "X Space: a"),
            head("GET /health HTTP/1.1", " folded: a"),
            "GET /health HTTP/1.1\r\n\r\n",
            "GET /%2e%2e/x HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
            "\0\1\2\3\r\n\r\n");
    for (String request : bad) {
      try (RawHttp client = new RawHttp(gateway.gateway.port()).send(request)) {
        assertThat(client.readToEnd()).as(request).startsWith("HTTP/1.1 400");
      }
    }
    try (RawHttp client =
        new RawHttp(gateway.gateway.port())
            .send(head("GET /health HTTP/1.1", "X-Long: " + "a".repeat(100_000)))) {
      assertThat(client.readToEnd()).startsWith("HTTP/1.1 431").contains("\"error\":{\"message\"");
    }
  }

  @Test
  void moreRequestsThanTheBoundAreAskedToComeAgain() throws Exception {
    gateway.generator.answer = r -> new int[0];
    gateway.generator.delayMs = 50;
    List<RawHttp> clients = new ArrayList<>();
    for (int i = 0; i < TestGateway.SHORT.requests(); i++) {
      clients.add(new RawHttp(gateway.gateway.port()).send(post(STREAM)));
    }
    assertThat(
            TestGateway.soon(() -> gateway.generator.running.get() == TestGateway.SHORT.requests()))
        .isTrue();
    HttpResponse<String> response = gateway.post(PATH, CHAT);
    assertThat(response.statusCode()).isEqualTo(429);
    assertThat(response.headers().firstValue("Retry-After")).isPresent();
    for (RawHttp client : clients) {
      client.close();
    }
    assertThat(TestGateway.soon(() -> gateway.generator.running.get() == 0)).isTrue();
  }

  @Test
  void drainingRefusesNewWorkAndWaitsForTheRest() throws Exception {
    gateway.generator.delayMs = 60;
    CompletableFuture<HttpResponse<String>> running =
        gateway.http.sendAsync(
            gateway.request(PATH).POST(BodyPublishers.ofString(CHAT)).build(),
            BodyHandlers.ofString());
    assertThat(TestGateway.soon(() -> gateway.generator.running.get() == 1)).isTrue();
    gateway.gateway.startDraining();
    assertThat(gateway.gateway.awaitIdle(Duration.ofMillis(10))).isFalse();
    HttpResponse<String> refused = gateway.post(PATH, CHAT);
    assertThat(refused.statusCode()).isEqualTo(503);
    assertThat(refused.headers().firstValue("Retry-After")).isPresent();
    HttpResponse<String> health = gateway.get("/health");
    assertThat(health.statusCode()).isEqualTo(503);
    assertThat(health.body()).contains("draining");
    assertThat(gateway.gateway.awaitIdle(Duration.ofSeconds(5))).isTrue();
    assertThat(running.get().body()).contains("Hello!");
  }

  @Test
  void closingStopsWhatStillRuns() throws Exception {
    gateway.generator.answer = r -> new int[0];
    gateway.generator.delayMs = 5;
    try (RawHttp client = new RawHttp(gateway.gateway.port()).send(post(CHAT))) {
      assertThat(TestGateway.soon(() -> gateway.generator.running.get() == 1)).isTrue();
      gateway.gateway.close();
      assertThat(TestGateway.soon(() -> gateway.generator.running.get() == 0)).isTrue();
      client.readToEnd();
    }
  }
}

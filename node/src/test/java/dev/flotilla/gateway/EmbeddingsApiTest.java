package dev.flotilla.gateway;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.JsonNode;
import com.openai.client.OpenAIClient;
import com.openai.client.okhttp.OpenAIOkHttpClient;
import com.openai.errors.BadRequestException;
import com.openai.errors.NotFoundException;
import com.openai.models.embeddings.CreateEmbeddingResponse;
import com.openai.models.embeddings.EmbeddingCreateParams;
import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.cluster.TestNodes;
import dev.flotilla.model.Pooling;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class EmbeddingsApiTest {

  private static final String PATH = "/v1/embeddings";

  private TestGateway gateway;

  @BeforeEach
  void start() {
    gateway = new TestGateway();
  }

  @AfterEach
  void stop() {
    gateway.close();
  }

  private JsonNode post(Object input, Object... more) {
    HttpResponse<String> response = gateway.post(PATH, body(input, more));
    assertThat(response.statusCode()).as(response.body()).isEqualTo(200);
    return TestGateway.json(response);
  }

  private static String body(Object input, Object... more) {
    Map<String, Object> body = new java.util.HashMap<>(Map.of("model", "tiny", "input", input));
    for (int i = 0; i < more.length; i += 2) {
      body.put(String.valueOf(more[i]), more[i + 1]);
    }
    return new String(Json.write(body), java.nio.charset.StandardCharsets.UTF_8);
  }

  private static float[] floats(JsonNode embedding) {
    float[] vector = new float[embedding.size()];
    for (int i = 0; i < vector.length; i++) {
      vector[i] = embedding.get(i).floatValue();
    }
    return vector;
  }

  private static float[] of(String text) {
    return FakeEmbedder.vector(TestText.tokens(text));
  }

  @Test
  void openAisClientGetsTheVectorsItAskedFor() {
    OpenAIClient client =
        OpenAIOkHttpClient.builder()
            .baseUrl(gateway.uri("/v1").toString())
            .apiKey(gateway.key)
            .maxRetries(0)
            .responseValidation(true)
            .build();
    try {
      CreateEmbeddingResponse answer =
          client
              .embeddings()
              .create(
                  EmbeddingCreateParams.builder()
                      .model("tiny")
                      .inputOfArrayOfStrings(List.of("one", "another"))
                      .build());
      assertThat(answer.model()).isEqualTo("tiny");
      assertThat(answer.usage().promptTokens()).isEqualTo(10);
      assertThat(answer.usage().totalTokens()).isEqualTo(10);
      assertThat(answer.data()).hasSize(2);
      for (int i = 0; i < 2; i++) {
        float[] wanted = of(List.of("one", "another").get(i));
        List<Float> vector = answer.data().get(i).embedding();
        assertThat(answer.data().get(i).index()).isEqualTo(i);
        assertThat(vector).hasSize(FakeEmbedder.WIDTH);
        for (int j = 0; j < wanted.length; j++) {
          assertThat(vector.get(j)).isEqualTo(wanted[j]);
        }
      }
      assertThatThrownBy(
              () ->
                  client
                      .embeddings()
                      .create(EmbeddingCreateParams.builder().model("none").input("a").build()))
          .isInstanceOf(NotFoundException.class)
          .hasMessageContaining("tiny");
      assertThatThrownBy(
              () ->
                  client
                      .embeddings()
                      .create(EmbeddingCreateParams.builder().model("tiny").input("").build()))
          .isInstanceOf(BadRequestException.class)
          .hasMessageContaining("input must not be empty");
    } finally {
      client.close();
    }
  }

  @Test
  void textsComeAsStringsOrTokensAndVectorsAsNumbersOrBase64() {
    JsonNode one = post("Hi");
    assertThat(one.path("object").asText()).isEqualTo("list");
    assertThat(one.path("data")).hasSize(1);
    assertThat(one.path("data").path(0).path("object").asText()).isEqualTo("embedding");
    assertThat(floats(one.path("data").path(0).path("embedding"))).isEqualTo(of("Hi"));
    assertThat(one.path("usage").path("prompt_tokens").asInt()).isEqualTo(2);
    assertThat(post(List.of(72, 105))).isEqualTo(one);
    JsonNode two = post(List.of(List.of(72, 105), List.of(72, 111)), "encoding_format", "base64");
    assertThat(two.path("data")).hasSize(2);
    byte[] bytes = Base64.getDecoder().decode(two.path("data").path(1).path("embedding").asText());
    float[] vector = new float[bytes.length / 4];
    ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(vector);
    assertThat(vector).isEqualTo(of("Ho"));
    assertThat(gateway.embedder.requests).allMatch(r -> r.pooling() == Pooling.MEAN);
  }

  @Test
  void fewerDimensionsAreTheFirstOnesOfLengthOne() {
    float[] whole = of("Hi");
    float[] some = floats(post("Hi", "dimensions", 10).path("data").path(0).path("embedding"));
    assertThat(some).hasSize(10);
    double length = 0;
    for (int i = 0; i < 10; i++) {
      length += (double) some[i] * some[i];
      assertThat((double) some[i] / some[0]).isCloseTo((double) whole[i] / whole[0], within(1e-5));
    }
    assertThat(length).isCloseTo(1, within(1e-6));
  }

  @Test
  void whatTheModelsFileSaysOfPoolingCounts() {
    gateway.deployments.metadata.put("general.architecture", "llama");
    gateway.deployments.metadata.put("llama.pooling_type", 3L);
    assertThat(post("Hi").path("data")).hasSize(1);
    assertThat(gateway.embedder.requests.getFirst().pooling()).isEqualTo(Pooling.LAST);
  }

  @Test
  void aRankingModelDoesNotEmbed() {
    gateway.deployments.metadata.put("general.architecture", "llama");
    gateway.deployments.metadata.put("llama.pooling_type", 4L);
    HttpResponse<String> refused = gateway.post(PATH, body("Hi"));
    assertThat(refused.statusCode()).isEqualTo(400);
    assertThat(refused.body()).contains("tiny is not made to embed");
  }

  @Test
  void manyTextsKeepTheirOrderAndEqualOnesAreComputedOnce() {
    List<String> texts = new ArrayList<>();
    for (int i = 0; i < 200; i++) {
      texts.add("text " + i % 50);
    }
    JsonNode answer = post(texts);
    for (int i = 0; i < 200; i++) {
      JsonNode one = answer.path("data").path(i);
      assertThat(one.path("index").asInt()).isEqualTo(i);
      assertThat(floats(one.path("embedding"))).isEqualTo(of(texts.get(i)));
    }
    assertThat(gateway.embedder.requests).hasSize(50);
    assertThat(gateway.embedder.runningMost.get()).isBetween(2, 16);
  }

  @Test
  void aTextThatIsBeingComputedIsWaitedForUnlessTheClientWantsItsOwn() throws Exception {
    gateway.embedder.gate = new CountDownLatch(1);
    List<CompletableFuture<JsonNode>> asking = new ArrayList<>();
    for (int i = 0; i < 8; i++) {
      asking.add(CompletableFuture.supplyAsync(() -> post("the same"), TestNodes.MEANWHILE));
    }
    assertThat(
            TestGateway.soon(
                () -> gateway.get("/metrics").body().contains("result=\"shared\"} 7.0")))
        .isTrue();
    CompletableFuture<JsonNode> own =
        CompletableFuture.supplyAsync(() -> post("the same", "cache", false), TestNodes.MEANWHILE);
    assertThat(TestGateway.soon(() -> gateway.embedder.requests.size() == 2)).isTrue();
    gateway.embedder.gate.countDown();
    for (CompletableFuture<JsonNode> one : asking) {
      assertThat(one.get()).isEqualTo(own.get());
    }
    assertThat(gateway.embedder.requests).hasSize(2);
  }

  @Test
  void workStopsWhenTheLastClientThatWantsItHasLeft() throws Exception {
    gateway.embedder.gate = new CountDownLatch(1);
    String body = body(Collections.nCopies(3, "the same"));
    String request =
        "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "
            + gateway.key
            + "\r\nContent-Length: "
            + body.length()
            + "\r\n\r\n"
            + body;
    RawHttp first = new RawHttp(gateway.gateway.port()).send(request);
    assertThat(TestGateway.soon(() -> gateway.embedder.running.get() == 1)).isTrue();
    RawHttp second = new RawHttp(gateway.gateway.port()).send(request);
    assertThat(
            TestGateway.soon(
                () -> gateway.get("/metrics").body().contains("result=\"shared\"} 1.0")))
        .isTrue();
    first.close();
    assertThat(TestGateway.soon(() -> gateway.gateway.requestsRunning() == 1)).isTrue();
    assertThat(gateway.embedder.running.get()).isEqualTo(1);
    second.abort();
    assertThat(TestGateway.soon(() -> gateway.embedder.running.get() == 0)).isTrue();
    assertThat(TestGateway.soon(() -> gateway.gateway.requestsRunning() == 0)).isTrue();
    gateway.embedder.gate = new CountDownLatch(0);
    assertThat(post("the same").path("data")).hasSize(1);
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "{\"model\":\"tiny\"} | input | input is required",
        "{\"input\":\"a\"} | model | model is required",
        "{\"model\":\"tiny\",\"input\":[]} | input | must not be empty",
        "{\"model\":\"tiny\",\"input\":[\"a\",\"\"]} | input[1] | must not be empty",
        "{\"model\":\"tiny\",\"input\":[[]]} | input[0] | must not be empty",
        "{\"model\":\"tiny\",\"input\":[1,257]} | input | token id below 257",
        "{\"model\":\"tiny\",\"input\":[\"a\",3]} | input[1] | string or an array",
        "{\"model\":\"tiny\",\"input\":{}} | input | string or an array",
        "{\"model\":\"tiny\",\"input\":\"a\",\"dimensions\":65} | dimensions | from 1 to 64",
        "{\"model\":\"tiny\",\"input\":\"a\",\"dimensions\":0} | dimensions | from 1 to 64",
        "{\"model\":\"tiny\",\"input\":\"a\",\"encoding_format\":\"hex\"} | encoding_format | base64",
        "{\"model\":\"tiny\",\"input\":\"a\",\"cache\":1} | cache | true or false",
      })
  void whatCannotBeIsRefusedByName(String body, String param, String says) {
    HttpResponse<String> response = gateway.post(PATH, body);
    assertThat(response.statusCode()).as(response.body()).isEqualTo(400);
    JsonNode error = TestGateway.json(response).path("error");
    assertThat(error.path("param").asText()).isEqualTo(param);
    assertThat(error.path("message").asText()).contains(says);
    assertThat(gateway.embedder.requests).isEmpty();
  }

  @Test
  void tooMuchIsRefusedWithTheBound() {
    JsonNode longText = refused(400, body("x".repeat(201)));
    assertThat(longText.path("code").asText()).isEqualTo("context_length_exceeded");
    assertThat(longText.path("message").asText()).contains("201 tokens").contains("200");
    assertThat(post("x".repeat(200)).path("data")).hasSize(1);
    assertThat(refused(400, body(Collections.nCopies(2049, "a"))).path("message").asText())
        .contains("at most 2048");
    assertThat(
            refused(400, body(Collections.nCopies(2000, "x".repeat(160)))).path("message").asText())
        .contains("320000 tokens");
  }

  private JsonNode refused(int status, String body) {
    HttpResponse<String> response = gateway.post(PATH, body);
    assertThat(response.statusCode()).as(response.body()).isEqualTo(status);
    return TestGateway.json(response).path("error");
  }

  @Test
  void whatGoesWrongWhileComputingIsTheAnswersError() throws Exception {
    FlotillaException busy =
        new FlotillaException(FlotillaException.Code.BUSY, "all queues are full", "Wait.");
    gateway.embedder.failure = Optional.of(busy);
    assertThat(refused(429, body(List.of("a", "b"))).path("message").asText())
        .contains("queues are full");
    gateway.embedder.failure = Optional.empty();
    gateway.embedder.refusal =
        Optional.of(
            new FlotillaException(FlotillaException.Code.UNAVAILABLE, "none is ready", "Wait."));
    assertThat(refused(503, body(List.of("a", "b"))).path("message").asText())
        .contains("none is ready");
    gateway.embedder.refusal = Optional.empty();
    assertThat(post(List.of("a", "b")).path("data")).hasSize(2);
    assertThat(TestGateway.soon(() -> gateway.embedder.running.get() == 0)).isTrue();
  }

  @Test
  void onlyAPostWithAKeyIsAnswered() {
    assertThat(gateway.get(PATH).statusCode()).isEqualTo(405);
    HttpResponse<String> without =
        gateway.send(
            java.net.http.HttpRequest.newBuilder(gateway.uri(PATH))
                .POST(java.net.http.HttpRequest.BodyPublishers.ofString(body("a")))
                .build());
    assertThat(without.statusCode()).isEqualTo(401);
  }
}

package dev.flotilla.app;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.client.Client;
import dev.flotilla.client.Models;
import dev.flotilla.cluster.TestNodes;
import dev.flotilla.model.ModelConfig;
import dev.flotilla.model.RandomModel;
import dev.flotilla.tensor.WeightType;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.MethodOrderer;
import org.junit.jupiter.api.Order;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestMethodOrder;
import org.junit.jupiter.api.io.TempDir;

/** Embeddings and their cache through two whole nodes. */
@TestMethodOrder(MethodOrderer.OrderAnnotation.class)
class EmbeddingsTest {

  private static final int WIDTH = 64;

  @TempDir static Path folder;
  private static TestNode one;
  private static TestNode two;

  @BeforeAll
  static void start() throws Exception {
    one = TestNode.start(folder.resolve("one"));
    two = one.join(folder.resolve("two"));
    add(3);
    deploy(2);
  }

  @AfterAll
  static void stop() {
    two.close();
    one.close();
  }

  private static void add(long seed) {
    Path file = folder.resolve(seed + ".gguf");
    RandomModel.write(
        file,
        new ModelConfig(300, WIDTH, 2, 4, 2, 16, 128, 256, 10_000f, 1e-5f, false),
        WeightType.Q8_0,
        seed);
    one.client().post("/api/models", Map.of("name", "random", "source", file.toString()));
  }

  private static void deploy(int stages) throws Exception {
    Waiting.deployed(
        one.client(),
        Map.of("model", "random", "replicas", 1, "stages", stages, "force", true),
        s -> {});
  }

  private static Client client(TestNode node) {
    return new Client(node.url(), Optional.of(one.key()));
  }

  private static Client.Answer ask(TestNode node, Object input, Object... more) {
    Map<String, Object> body = new HashMap<>(Map.of("model", "random", "input", input));
    for (int i = 0; i < more.length; i += 2) {
      body.put(String.valueOf(more[i]), more[i + 1]);
    }
    return client(node)
        .exchange(
            "POST", "/v1/embeddings", Map.of("Content-Type", "application/json"), Json.write(body));
  }

  private static String mark(Client.Answer answer) {
    return answer.header("x-flotilla-cache").orElse("none");
  }

  private static JsonNode data(Client.Answer answer) {
    return Json.read(answer.body(), JsonNode.class).path("data");
  }

  /** Of all nodes. */
  private static double metric(String name) {
    double sum = 0;
    for (TestNode node : List.of(one, two)) {
      String text =
          new String(
              client(node).exchange("GET", "/metrics", Map.of(), new byte[0]).body(),
              StandardCharsets.UTF_8);
      for (String line : text.split("\n")) {
        if (line.startsWith(name)) {
          sum += Double.parseDouble(line.substring(line.lastIndexOf(' ') + 1));
        }
      }
    }
    return sum;
  }

  private static void awaitHit(TestNode node, Object input) {
    TestNodes.await("a hit", Duration.ofSeconds(20), () -> mark(ask(node, input)).equals("hit"));
  }

  @Test
  @Order(1)
  void aHitIsTheSameBytesOnEveryNodeAndCostsNoForwardPass() {
    List<String> texts = List.of("the ship's log", "the harbour", "the ship's log");
    awaitHit(two, "another text"); // a node opens the cache at its first request
    awaitHit(one, texts);
    double rows = metric("flotilla_serve_rows_total");
    double hits = metric("flotilla_embedding_cache_total{result=\"hit\"");
    Client.Answer hit = ask(one, texts);
    Client.Answer elsewhere = ask(two, texts);
    assertThat(mark(hit)).isEqualTo("hit");
    assertThat(mark(elsewhere)).isEqualTo("hit");
    assertThat(metric("flotilla_serve_rows_total")).isEqualTo(rows);
    assertThat(metric("flotilla_embedding_cache_total{result=\"hit\"")).isEqualTo(hits + 4);
    Client.Answer fresh = ask(one, texts, "cache", false);
    assertThat(mark(fresh)).isEqualTo("none");
    assertThat(metric("flotilla_serve_rows_total")).isGreaterThan(rows);
    assertThat(hit.body()).isEqualTo(fresh.body()).isEqualTo(elsewhere.body());
    assertThat(data(fresh)).hasSize(3);
    assertThat(data(fresh).path(0).path("embedding"))
        .isEqualTo(data(fresh).path(2).path("embedding"))
        .isNotEqualTo(data(fresh).path(1).path("embedding"))
        .hasSize(WIDTH);
    // Fewer dimensions are cut from what is kept.
    assertThat(mark(ask(one, texts, "dimensions", 8))).isEqualTo("hit");
    assertThat(mark(ask(one, List.of("the harbour", "something new")))).isEqualTo("partial");
  }

  @Test
  @Order(2)
  void javaAndTheShellGetTheSameVectors() {
    Models models = new Models(client(two));
    List<float[]> vectors = models.embed("random", List.of("a", "b"));
    assertThat(vectors).hasSize(2);
    JsonNode numbers = data(ask(one, List.of("a", "b"))).path(1).path("embedding");
    double squares = 0;
    for (int i = 0; i < WIDTH; i++) {
      assertThat(vectors.get(1)[i]).isEqualTo(numbers.path(i).floatValue());
      squares += (double) vectors.get(1)[i] * vectors.get(1)[i];
    }
    assertThat(squares).isBetween(1 - 1e-6, 1 + 1e-6);
    assertThat(one.run("embed", "random", "a", "b")).isZero();
    assertThat(one.run("embed", "--json", "random", "a")).isZero();
    assertThat(one.run("embed", "none", "a")).isEqualTo(1);
    assertThatThrownBy(() -> models.embed("random", List.of("")))
        .isInstanceOf(FlotillaException.class)
        .hasMessageContaining("must not be empty");
  }

  @Test
  @Order(3)
  void oneStageGivesTheBytesOfTwoAndManyAtOnceThoseOfOne() throws Exception {
    List<String> texts = new ArrayList<>();
    for (int i = 0; i < 40; i++) {
      texts.add("text " + i + " says " + "much ".repeat(i % 30));
    }
    byte[] split = ask(one, texts, "cache", false).body();
    one.client().delete("/api/deployments/random");
    deploy(1);
    assertThat(ask(two, texts, "cache", false).body()).isEqualTo(split);
    for (int i = 0; i < texts.size(); i += 13) {
      assertThat(data(ask(one, texts.get(i), "cache", false)).path(0).path("embedding"))
          .isEqualTo(Json.read(split, JsonNode.class).path("data").path(i).path("embedding"));
    }
  }

  private static void put(String path, Map<String, Object> body) {
    client(two).exchange("PUT", path, Map.of("Content-Type", "application/json"), Json.write(body));
  }

  @Test
  @Order(4)
  void documentsAndQueriesGetTheirVectorsFromAModel() {
    Client client = client(two);
    put(
        "/api/indexes/ships/documents/a",
        Map.of("text", "the grey ship", "embed", "random", "fields", Map.of("year", 1912)));
    client.post(
        "/api/indexes/ships/documents?refresh=true",
        Map.of(
            "documents",
            List.of(
                Map.of("id", "b", "text", "a yellow lighthouse", "embed", "random"),
                Map.of("id", "c", "text", "without a vector"))));
    JsonNode vector = client.get("/api/indexes/ships/documents/a").path("vector");
    assertThat(vector).hasSize(WIDTH);
    JsonNode wanted = data(ask(one, "the grey ship")).path(0).path("embedding");
    for (int i = 0; i < WIDTH; i++) {
      assertThat(vector.path(i).floatValue()).isEqualTo(wanted.path(i).floatValue());
    }
    assertThat(client.get("/api/indexes/ships/documents/c").path("vector")).isEmpty();
    JsonNode found =
        client.post(
            "/api/indexes/ships/search",
            Map.of("query", "a yellow lighthouse", "embed", "random", "k", 1));
    assertThat(found.path("hits").path(0).path("id").asText()).as("%s", found).isEqualTo("b");
    assertThat(one.run("search", "ships", "--embed", "random", "grey", "ship")).isZero();
    assertThatThrownBy(
            () -> put("/api/indexes/ships/documents/d", Map.of("text", "x", "embed", "none")))
        .isInstanceOf(FlotillaException.class)
        .hasMessageContaining("none");
    assertThatThrownBy(
            () -> put("/api/indexes/ships/documents/d", Map.of("text", "", "embed", "random")))
        .hasMessageContaining("no text to embed");
    assertThatThrownBy(
            () ->
                put(
                    "/api/indexes/ships/documents/d",
                    Map.of("text", "x", "embed", "random", "vector", List.of(1, 2))))
        .hasMessageContaining("in place of a vector");
    assertThatThrownBy(() -> client.get("/api/indexes/ships/documents/d"))
        .hasMessageContaining("no document");
  }

  private static JsonNode ended(String id) {
    Client client = client(one);
    TestNodes.await(
        "the job's end",
        Duration.ofSeconds(60),
        () ->
            List.of("done", "failed")
                .contains(client.get("/api/jobs/" + id).path("state").asText()));
    return client.get("/api/jobs/" + id);
  }

  private static String submit(Map<String, Object> input) {
    return client(one)
        .post("/api/jobs", Map.of("job", "embed", "input", input))
        .path("id")
        .asText();
  }

  @Test
  @Order(5)
  void aJobEmbedsABlobOfTextsIntoAnIndex() throws Exception {
    StringBuilder lines = new StringBuilder();
    for (int i = 0; i < 300; i++) {
      lines.append(
          i % 3 == 0
              ? "{\"id\": \"doc-" + i + "\", \"text\": \"text " + i + "\"}\n"
              : "plain text " + i % 50 + "\n");
    }
    lines.append("long ".repeat(300)).append("\n\n");
    Path file = folder.resolve("texts");
    java.nio.file.Files.writeString(file, lines);
    String blob;
    try (var content = java.nio.file.Files.newInputStream(file)) {
      blob = new dev.flotilla.client.HttpBlobs(client(one)).put("texts", content).digest();
    }
    JsonNode job =
        ended(
            submit(Map.of("blob", blob, "split_bytes", 2000, "model", "random", "index", "bulk")));
    assertThat(job.path("state").asText()).as("%s", job).isEqualTo("done");
    Map<String, Long> rows = new HashMap<>();
    for (JsonNode row : job.path("result")) {
      rows.put(row.path("key").asText(), row.path("value").asLong());
    }
    assertThat(rows).as("%s", job).containsEntry("documents", 300L).containsEntry("too_long", 1L);
    assertThat(rows.get("tokens")).isPositive();
    // A hundred with ids of their own; of the plain ones, equal lines are one document.
    TestNodes.await(
        "all documents",
        Duration.ofSeconds(20),
        () -> client(one).get("/api/indexes/bulk").path("documents").asInt() == 150);
    JsonNode vector = client(two).get("/api/indexes/bulk/documents/doc-3").path("vector");
    assertThat(vector.path(0).floatValue())
        .isEqualTo(data(ask(one, "text 3")).path(0).path("embedding").path(0).floatValue());
    JsonNode bad =
        ended(
            submit(Map.of("lines", List.of("{\"text\": 1}"), "model", "random", "index", "bulk")));
    assertThat(bad.path("state").asText()).isEqualTo("failed");
    assertThat(bad.path("reason").asText()).contains("is not a document");
    assertThatThrownBy(
            () -> submit(Map.of("lines", List.of("a"), "model", "none", "index", "bulk")))
        .isInstanceOf(FlotillaException.class)
        .hasMessageContaining("no model none");
  }

  @Test
  @Order(9)
  void otherWeightsUnderTheSameNameAreAnotherModel() throws Exception {
    awaitHit(one, "the ship's log");
    JsonNode before = data(ask(one, "the ship's log"));
    one.client().delete("/api/deployments/random");
    one.client().delete("/api/models/random");
    add(4);
    deploy(1);
    Client.Answer other = ask(one, "the ship's log");
    assertThat(mark(other)).isEqualTo("miss");
    assertThat(data(other)).isNotEqualTo(before);
    JsonNode usage = one.client().get("/api/usage?by=model").path("rows").path(0);
    assertThat(usage.path("cached_requests").asInt()).isPositive();
  }
}

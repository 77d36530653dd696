package dev.flotilla.app;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.client.HttpSearchIndexes;
import dev.flotilla.data.search.IndexDocument;
import dev.flotilla.data.search.IndexField;
import dev.flotilla.data.search.IndexSettings;
import dev.flotilla.data.search.SearchFilter;
import dev.flotilla.data.search.SearchIndex;
import dev.flotilla.data.search.SearchIndex.Visibility;
import dev.flotilla.data.search.SearchRequest;
import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Search as people and programs reach it: over HTTP and from the command line. */
class SearchHttpTest {

  @TempDir static Path folder;

  private static TestNode node;

  @BeforeAll
  static void start() {
    node = TestNode.start(folder.resolve("node"));
  }

  @AfterAll
  static void stop() {
    node.close();
  }

  private static SearchIndex index(String name) {
    return new HttpSearchIndexes(node.client()).index(name);
  }

  private static HttpResponse<String> send(String method, String path, String body)
      throws Exception {
    try (HttpClient client = HttpClient.newHttpClient()) {
      return client.send(
          HttpRequest.newBuilder(URI.create(node.url() + path))
              .header("Authorization", "Bearer " + node.key())
              .header("Content-Type", "application/json")
              .method(method, HttpRequest.BodyPublishers.ofString(body))
              .build(),
          HttpResponse.BodyHandlers.ofString());
    }
  }

  private static String printed(int code, String... command) {
    PrintStream out = System.out;
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    System.setOut(new PrintStream(bytes, true, StandardCharsets.UTF_8));
    try {
      assertThat(node.run(command)).isEqualTo(code);
    } finally {
      System.setOut(out);
    }
    return bytes.toString(StandardCharsets.UTF_8);
  }

  @Test
  void theContractsTwoRoutesStoreAndFind() throws Exception {
    var put =
        send(
            "PUT",
            "/api/indexes/contract/documents/a%20b%C3%A9?refresh=true",
            """
            {"text": "Call me Ishmael", "vector": [1, 0, 0.5], "fields": {"year": 1851}}""");
    assertThat(put.statusCode()).as(put.body()).isEqualTo(200);
    assertThat(Json.MAPPER.readTree(put.body()).path("searchable").asBoolean()).isTrue();
    var found =
        send(
            "POST",
            "/api/indexes/contract/search",
            """
            {"query": "ishmael", "vector": [1, 0, 0.4], "k": 3, "filter": {"year": 1851}}""");
    assertThat(found.statusCode()).as(found.body()).isEqualTo(200);
    JsonNode answer = Json.MAPPER.readTree(found.body());
    assertThat(answer.path("partial").asBoolean()).isFalse();
    assertThat(answer.path("hits").path(0).path("id").asText()).isEqualTo("a bé");
    assertThat(answer.path("hits").path(0).path("score").asDouble()).isEqualTo(2.0 / 61);
    assertThat(answer.path("hits").path(0).path("fields").path("year").asLong()).isEqualTo(1851);
  }

  @Test
  void whatIsWrongIsSaidWithItsPlace() throws Exception {
    index("typed")
        .put(
            List.of(IndexDocument.ofText("1", "word").with("year", 1851L).withVector(1, 2)),
            Visibility.SEARCHABLE);
    for (Map.Entry<String, String> wrong :
        Map.of(
                "{\"query\": \"(whale\"}", "character 7",
                "{\"query\": \"whale AND\"}", "character 10",
                "{\"query\": \"colour:red\"}", "colour",
                "{\"query\": \"year:soon\"}", "year",
                "{\"vector\": [1]}", "dimensions",
                "{\"vector\": [1, 1e39]}", "vector[1]",
                "{\"k\": 0}", "k must",
                "{\"filtr\": {}}", "filtr",
                "{\"filter\": {\"year\": \"soon\"}}", "year",
                "{\"search_after\": \"x\"}", "search_after")
            .entrySet()) {
      var response = send("POST", "/api/indexes/typed/search", wrong.getKey());
      assertThat(response.statusCode()).as(wrong.getKey()).isEqualTo(400);
      assertThat(response.body()).as(wrong.getKey()).contains(wrong.getValue());
    }
    var conflict =
        send("PUT", "/api/indexes/typed/documents/2", "{\"fields\": {\"year\": \"soon\"}}");
    assertThat(conflict.statusCode()).isEqualTo(400);
    assertThat(conflict.body()).contains("year").contains("long");
    assertThat(send("POST", "/api/indexes/none/search", "{}").statusCode()).isEqualTo(404);
    assertThat(send("POST", "/api/indexes/..x/search", "{}").statusCode()).isEqualTo(400);
    assertThat(
            send("POST", "/api/indexes/typed/search", "{\"query\":\"" + "a ".repeat(6000) + "\"}")
                .statusCode())
        .isEqualTo(413);
    assertThat(
            send(
                    "PUT",
                    "/api/indexes/typed/documents/3",
                    "{\"text\":\"" + "a ".repeat(600_000) + "\"}")
                .statusCode())
        .isEqualTo(413);
  }

  @Test
  void theClientDoesAllThatTheIndexDoes() {
    SearchIndex books = index("books");
    IndexSettings settings =
        IndexSettings.DEFAULTS
            .withAnalyzer("english")
            .withFields(Map.of("title", new IndexField(IndexField.Type.TEXT)));
    books.create(settings);
    assertThat(books.settings()).isEqualTo(settings);
    assertThatThrownBy(() -> books.create(settings))
        .isInstanceOfSatisfying(
            FlotillaException.class, e -> assertThat(e.code()).isEqualTo(Code.CONFLICT));
    IndexDocument moby =
        IndexDocument.ofText("m/1", "The whales were swimming.")
            .with("title", "Moby Dick")
            .with("year", 1851L)
            .with("tags", List.of("sea", "novel"))
            .withVector(0.25f, 1);
    books.put(List.of(moby, IndexDocument.ofText("e", "Emma")), Visibility.SEARCHABLE);
    assertThat(books.document("m/1").orElseThrow().document()).isEqualTo(moby);
    assertThat(books.document("e").orElseThrow().document())
        .isEqualTo(IndexDocument.ofText("e", "Emma"));
    assertThat(books.document("none")).isEmpty();
    var answer =
        books.search(
            SearchRequest.of("title:moby swims whale")
                .withFilter(SearchFilter.is("tags", "sea"))
                .withHighlight("text", "title"));
    assertThat(answer.ids()).containsExactly("m/1");
    assertThat(answer.hits().getFirst().highlights())
        .containsEntry("text", "The <em>whales</em> were <em>swimming</em>.")
        .containsEntry("title", "<em>Moby</em> Dick");
    assertThat(answer.hits().getFirst().fields()).isEqualTo(moby.fields());
    assertThat(books.stats().documents()).isEqualTo(2);
    assertThat(books.delete(List.of("m/1", "none"), Visibility.SEARCHABLE)).hasSize(1);
    assertThat(books.search(SearchRequest.all()).ids()).containsExactly("e");
    books.drop();
    assertThatThrownBy(books::stats)
        .isInstanceOfSatisfying(
            FlotillaException.class, e -> assertThat(e.code()).isEqualTo(Code.NOT_FOUND));
    books.create(settings);
    assertThat(books.document("e")).isEmpty();
  }

  @Test
  void theCommandLineKeepsAndSearchesAnIndex() throws Exception {
    assertThat(printed(0, "search", "create", "talks", "--settings", "{\"analyzer\": \"chinese\"}"))
        .contains("made talks");
    Path file = folder.resolve("talks.jsonl");
    Files.writeString(
        file,
        """
        {"id": "1", "text": "我喜欢在北京的公园里散步", "fields": {"year": 2024}}
        {"id": "2", "text": "上海的天气很好", "fields": {"year": 2025}}
        """);
    assertThat(printed(0, "search", "put", "talks", "--file", file.toString(), "--refresh"))
        .contains("stored 2");
    assertThat(
            printed(
                0,
                "search",
                "put",
                "talks",
                "--id",
                "3",
                "--text",
                "北京的冬天",
                "--fields",
                "{\"year\": 2026}",
                "--refresh"))
        .contains("stored 1");
    assertThat(printed(0, "search", "talks", "北京")).contains("北京").doesNotContain("上海");
    JsonNode answer =
        Json.MAPPER.readTree(
            printed(
                0,
                "search",
                "talks",
                "北京",
                "-k",
                "5",
                "--filter",
                "{\"year\": {\"gt\": 2025}}",
                "--json"));
    assertThat(answer.path("hits")).hasSize(1);
    assertThat(answer.path("hits").path(0).path("id").asText()).isEqualTo("3");
    assertThat(printed(0, "search", "stats", "talks")).contains("3 documents").contains("ready");
    assertThat(printed(0, "search", "rm", "talks", "3")).contains("removed 1");
    assertThat(printed(0, "search", "stats")).contains("talks");
    assertThat(printed(0, "search", "rm", "talks")).contains("removed talks");
    assertThat(printed(1, "search", "talks", "北京")).isEmpty();
  }
}

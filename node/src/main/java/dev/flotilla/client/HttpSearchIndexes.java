package dev.flotilla.client;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.Json;
import dev.flotilla.data.search.IndexDocument;
import dev.flotilla.data.search.IndexSettings;
import dev.flotilla.data.search.SearchAnswer;
import dev.flotilla.data.search.SearchIndex;
import dev.flotilla.data.search.SearchIndexes;
import dev.flotilla.data.search.SearchRequest;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/** A cluster's search indexes through a node's HTTP API. */
public final class HttpSearchIndexes implements SearchIndexes {

  private final Client client;

  /** Through this client. */
  public HttpSearchIndexes(Client client) {
    this.client = client;
  }

  @Override
  public List<String> names() {
    List<String> names = new ArrayList<>();
    client.get("/api/indexes").path("indexes").forEach(name -> names.add(name.asText()));
    return names;
  }

  @Override
  public SearchIndex index(String name) {
    return new HttpIndex(name);
  }

  private final class HttpIndex implements SearchIndex {

    private final String name;
    private final String path;

    HttpIndex(String name) {
      this.name = name;
      this.path = "/api/indexes/" + Client.encode(name);
    }

    @Override
    public String name() {
      return name;
    }

    @Override
    public void create(IndexSettings settings) {
      var _ = client.post("/api/indexes", settings.toJson().put("name", name));
    }

    @Override
    public void drop() {
      client.delete(path);
    }

    @Override
    public IndexSettings settings() {
      return IndexSettings.fromJson(client.get(path).path("settings"));
    }

    private static String refresh(Visibility visibility) {
      return visibility == Visibility.SEARCHABLE ? "?refresh=true" : "";
    }

    @Override
    public List<Receipt> put(List<IndexDocument> documents, Visibility visibility) {
      ObjectNode body = Json.MAPPER.createObjectNode();
      ArrayNode all = body.putArray("documents");
      documents.forEach(document -> all.add(document.toJson().put("id", document.id())));
      return receipts(client.post(path + "/documents" + refresh(visibility), body));
    }

    @Override
    public List<Receipt> delete(List<String> ids, Visibility visibility) {
      ObjectNode body = Json.MAPPER.createObjectNode();
      ArrayNode all = body.putArray("ids");
      ids.forEach(all::add);
      return receipts(client.post(path + "/documents/delete" + refresh(visibility), body));
    }

    private static List<Receipt> receipts(JsonNode answer) {
      List<Receipt> receipts = new ArrayList<>();
      for (JsonNode one : answer.path("receipts")) {
        receipts.add(
            new Receipt(
                one.path("id").asText(),
                one.path("shard").asInt(),
                one.path("sequence").asLong(),
                one.path("searchable").asBoolean()));
      }
      return receipts;
    }

    @Override
    public Optional<Stored> document(String id) {
      ObjectNode body = Json.MAPPER.createObjectNode();
      body.putArray("ids").add(id);
      JsonNode found = client.post(path + "/documents/get", body).path("documents");
      if (!(found.path(0) instanceof ObjectNode document)) {
        return Optional.empty();
      }
      long sequence = document.path("sequence").asLong();
      document.remove(List.of("id", "sequence"));
      return Optional.of(new Stored(IndexDocument.fromJson(id, document), sequence));
    }

    @Override
    public SearchAnswer search(SearchRequest request) {
      return SearchAnswer.fromJson(client.post(path + "/search", request.toJson()));
    }

    @Override
    public Stats stats() {
      JsonNode stats = client.get(path);
      List<ShardStats> shards = new ArrayList<>();
      for (JsonNode shard : stats.path("shards")) {
        List<ReplicaStats> replicas = new ArrayList<>();
        for (JsonNode one : shard.path("replicas")) {
          replicas.add(
              new ReplicaStats(
                  one.path("node").asText(),
                  one.path("state").asText(),
                  one.path("searchable").asLong(),
                  one.path("documents").asLong(),
                  one.path("bytes").asLong(),
                  one.path("segments").asInt()));
        }
        shards.add(
            new ShardStats(
                shard.path("shard").asInt(),
                shard.path("sequence").asLong(),
                shard.path("documents").asLong(),
                replicas));
      }
      return new Stats(
          name,
          IndexSettings.fromJson(stats.path("settings")),
          stats.path("documents").asLong(),
          shards);
    }
  }
}

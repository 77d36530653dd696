package dev.flotilla.gateway;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.Json;
import dev.flotilla.StaleReads;
import dev.flotilla.data.search.IndexDocument;
import dev.flotilla.data.search.IndexSettings;
import dev.flotilla.data.search.SearchAnswer;
import dev.flotilla.data.search.SearchIndex;
import dev.flotilla.data.search.SearchIndex.Visibility;
import dev.flotilla.data.search.SearchIndexes;
import dev.flotilla.data.search.SearchRequest;
import dev.flotilla.gateway.GatewayHandler.Access;
import dev.flotilla.gateway.GatewayHandler.Route;
import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * Search indexes over HTTP, under {@code /api/indexes}.
 *
 * <p>A write answers once a majority has it; with {@code ?refresh=true} once it can be found. An id
 * in a path cannot hold a slash or a percent sign; the forms with many documents take any.
 */
final class SearchApi {

  private static final int IDS_MAX = 1000;

  private final SearchIndexes indexes;

  private final TextVectors vectors;

  SearchApi(GatewayServices services, TextVectors vectors) {
    this.vectors = vectors;
    this.indexes = services.data().search();
  }

  List<Route> routes() {
    return List.of(
        Route.of("GET", "/api/indexes", Access.KEY, this::list),
        Route.of("POST", "/api/indexes", Access.WORK, this::create),
        Route.named("GET", "/api/indexes/*", Access.KEY, this::stats),
        Route.named("DELETE", "/api/indexes/*", Access.WORK, this::drop),
        Route.named("POST", "/api/indexes/*/search", Access.KEY, this::search),
        Route.named("POST", "/api/indexes/*/documents", Access.WORK, this::putMany)
            .query("refresh")
            .fields("documents"),
        Route.named("POST", "/api/indexes/*/documents/delete", Access.WORK, this::deleteMany)
            .query("refresh")
            .fields("ids"),
        Route.named("POST", "/api/indexes/*/documents/get", Access.KEY, this::documents)
            .fields("ids"),
        new Route("PUT", "/api/indexes/*/documents/*", Access.WORK, this::put).query("refresh"),
        new Route("GET", "/api/indexes/*/documents/*", Access.KEY, this::document),
        new Route("DELETE", "/api/indexes/*/documents/*", Access.WORK, this::delete)
            .query("refresh"));
  }

  /** {@code → {"indexes":[NAME,…]}}. */
  private void list(Exchange exchange) {
    ObjectNode body = Json.MAPPER.createObjectNode();
    ArrayNode names = body.putArray("indexes");
    indexes.names().forEach(names::add);
    exchange.send(200, body);
  }

  /** {@code {"name", and settings} → settings}; 409 if it is there. */
  private void create(Exchange exchange) {
    Fields fields = Fields.read(exchange.body());
    String name = fields.requiredText("name");
    ObjectNode settings = fields.tree().deepCopy();
    settings.remove("name");
    SearchIndex index = indexes.index(name);
    index.create(IndexSettings.fromJson(settings));
    exchange.send(201, index.settings().toJson().put("name", name));
  }

  /** A body whose fields are checked where it is understood. */
  private static JsonNode json(Exchange exchange) {
    return Fields.read(exchange.body()).tree();
  }

  /** {@code → {"name","documents","settings","shards":[{"shard","sequence","replicas"}]}}. */
  private void stats(Exchange exchange, String index) {
    SearchIndex.Stats stats = indexes.index(index).stats();
    ObjectNode body = Json.MAPPER.createObjectNode();
    body.put("name", stats.name()).put("documents", stats.documents());
    body.set("settings", stats.settings().toJson());
    body.set("shards", Json.MAPPER.valueToTree(stats.shards()));
    exchange.send(200, body);
  }

  private void drop(Exchange exchange, String index) {
    indexes.index(index).drop();
    exchange.send(200, Json.MAPPER.createObjectNode().put("deleted", true));
  }

  /** As JSON of a {@link SearchRequest}; {@code "embed"} names the model of the query's vector. */
  private void search(Exchange exchange, String index) throws InterruptedException {
    JsonNode body = json(exchange);
    embed(exchange, List.of(body), "query");
    SearchRequest request = SearchRequest.fromJson(body);
    SearchAnswer answer = indexes.index(index).search(request);
    if (answer.stale()) {
      exchange.putHeader(StaleReads.HEADER, "true");
    }
    exchange.send(200, answer.toJson());
  }

  private static Visibility visibility(Exchange exchange) {
    Optional<String> refresh = exchange.query("refresh");
    if (refresh.isPresent() && !List.of("true", "false", "").contains(refresh.get())) {
      throw ApiError.invalid("refresh", "refresh must be true or false.");
    }
    return refresh.isPresent() && !refresh.get().equals("false")
        ? Visibility.SEARCHABLE
        : Visibility.DURABLE;
  }

  private static ObjectNode receipt(SearchIndex.Receipt receipt) {
    return Json.MAPPER
        .createObjectNode()
        .put("id", receipt.id())
        .put("shard", receipt.shard())
        .put("sequence", receipt.sequence())
        .put("searchable", receipt.searchable());
  }

  private static ObjectNode receipts(List<SearchIndex.Receipt> receipts) {
    ObjectNode body = Json.MAPPER.createObjectNode();
    ArrayNode all = body.putArray("receipts");
    receipts.forEach(one -> all.add(receipt(one)));
    return body;
  }

  /** Puts the vector of its text into each object that names a model under {@code "embed"}. */
  private void embed(Exchange exchange, List<? extends JsonNode> objects, String text)
      throws InterruptedException {
    Map<String, List<ObjectNode>> byModel = new LinkedHashMap<>();
    for (JsonNode one : objects) {
      if (!(one instanceof ObjectNode object) || !object.hasNonNull("embed")) {
        continue;
      }
      JsonNode model = object.remove("embed");
      if (!model.isTextual() || object.hasNonNull("vector")) {
        throw ApiError.invalid("embed", "embed must name a model, in place of a vector.");
      }
      byModel.computeIfAbsent(model.textValue(), m -> new ArrayList<>()).add(object);
    }
    for (Map.Entry<String, List<ObjectNode>> entry : byModel.entrySet()) {
      List<String> texts = entry.getValue().stream().map(o -> o.path(text).asText()).toList();
      List<float[]> embedded = vectors.embed(exchange, entry.getKey(), texts);
      for (int i = 0; i < embedded.size(); i++) {
        ArrayNode vector = entry.getValue().get(i).putArray("vector");
        for (float number : embedded.get(i)) {
          vector.add(number);
        }
      }
    }
  }

  /**
   * {@code {"text","vector","fields"} → {"id","shard","sequence","searchable"}}; {@code "embed"} in
   * place of the vector names the model that makes it of the text.
   */
  private void put(Exchange exchange, List<String> path) throws InterruptedException {
    JsonNode body = json(exchange);
    embed(exchange, List.of(body), "text");
    IndexDocument document = IndexDocument.fromJson(id(path), body);
    exchange.send(
        200,
        receipt(
            indexes.index(path.get(0)).put(List.of(document), visibility(exchange)).getFirst()));
  }

  /** {@code {"documents":[{"id","text","vector","fields"},…]} → {"receipts":[…]}}. */
  private void putMany(Exchange exchange, String index) throws InterruptedException {
    JsonNode documents = exchange.json().tree().path("documents");
    if (!documents.isArray() || documents.isEmpty()) {
      throw ApiError.invalid("documents", "documents must be an array of documents, one at least.");
    }
    embed(exchange, documents.valueStream().toList(), "text");
    List<IndexDocument> all = new ArrayList<>();
    for (JsonNode one : documents) {
      String at = "documents[" + all.size() + "]";
      if (!(one instanceof ObjectNode object) || !object.path("id").isTextual()) {
        throw ApiError.invalid(at + ".id", at + ".id must be a string.");
      }
      String id = object.remove("id").textValue();
      all.add(IndexDocument.fromJson(id, object));
    }
    exchange.send(200, receipts(indexes.index(index).put(all, visibility(exchange))));
  }

  /** {@code {"ids":[…]} → {"receipts":[…]}}, of those that were there. */
  private void deleteMany(Exchange exchange, String index) {
    List<String> ids = ids(exchange);
    exchange.send(200, receipts(indexes.index(index).delete(ids, visibility(exchange))));
  }

  private static List<String> ids(Exchange exchange) {
    JsonNode ids = exchange.json().tree().path("ids");
    List<String> all = new ArrayList<>();
    for (JsonNode id : ids) {
      if (!id.isTextual()) {
        throw ApiError.invalid("ids[" + all.size() + "]", "ids must be an array of strings.");
      }
      all.add(id.textValue());
    }
    if (!ids.isArray() || all.size() > IDS_MAX) {
      throw ApiError.invalid("ids", "ids must be an array of at most " + IDS_MAX + " strings.");
    }
    return all;
  }

  /** {@code {"ids":[…]} → {"documents":[{"id","sequence","text","vector","fields"}]}}. */
  private void documents(Exchange exchange, String index) {
    ObjectNode body = Json.MAPPER.createObjectNode();
    ArrayNode all = body.putArray("documents");
    SearchIndex from = indexes.index(index);
    for (String id : ids(exchange)) {
      from.document(id).ifPresent(stored -> all.add(document(id, stored)));
    }
    exchange.send(200, body);
  }

  private static ObjectNode document(String id, SearchIndex.Stored stored) {
    ObjectNode body =
        Json.MAPPER.createObjectNode().put("id", id).put("sequence", stored.sequence());
    body.setAll(stored.document().toJson());
    return body;
  }

  /** The server decodes letters of the path, but not signs such as a space. */
  private static String id(List<String> path) {
    return URLDecoder.decode(path.get(1).replace("+", "%2B"), StandardCharsets.UTF_8);
  }

  private static ApiError noDocument(String id) {
    return ApiError.of(404, "not_found", "There is no document " + id + ".");
  }

  /** {@code → {"id","sequence","text","vector","fields"}}. */
  private void document(Exchange exchange, List<String> path) {
    SearchIndex.Stored stored =
        indexes.index(path.get(0)).document(id(path)).orElseThrow(() -> noDocument(id(path)));
    exchange.send(200, document(id(path), stored));
  }

  private void delete(Exchange exchange, List<String> path) {
    List<SearchIndex.Receipt> deleted =
        indexes.index(path.get(0)).delete(List.of(id(path)), visibility(exchange));
    if (deleted.isEmpty()) {
      throw noDocument(id(path));
    }
    exchange.send(200, receipt(deleted.getFirst()));
  }
}

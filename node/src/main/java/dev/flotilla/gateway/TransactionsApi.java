package dev.flotilla.gateway;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.data.sql.Sagas;
import dev.flotilla.data.sql.Sql;
import dev.flotilla.data.sql.TransactionJson;
import dev.flotilla.data.sql.Transactions;
import dev.flotilla.data.sql.Transactions.Options;
import dev.flotilla.data.sql.Transactions.Step;
import dev.flotilla.gateway.GatewayHandler.Access;
import dev.flotilla.gateway.GatewayHandler.Route;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.TreeMap;

/**
 * Transactions over HTTP; steps and views look as {@link TransactionJson} says.
 *
 * <pre>
 * POST /api/transactions {"steps":[…],"mode","timeout_ms","id"} → {"id","results","repeated"}
 * GET  /api/transactions → {"transactions":[…]}, without steps; GET /api/transactions/{id}
 * POST /api/transactions/begin {"mode","timeout_ms"} → {"id"}, open on this node
 * POST /api/transactions/{id}/steps (a step) → its result
 * POST /api/transactions/{id}/commit, …/rollback
 * GET  /api/sagas/{id} → {"id","saga","state","steps_done","results","error","updated_at_ms"}
 * POST /api/sagas {"saga","id","parameters"}
 * </pre>
 */
final class TransactionsApi {

  private final GatewayServices services;

  TransactionsApi(GatewayServices services) {
    this.services = services;
  }

  List<Route> routes() {
    return List.of(
        Route.of("POST", "/api/transactions", Access.WORK, this::run),
        Route.of("GET", "/api/transactions", Access.KEY, this::list),
        Route.of("POST", "/api/transactions/begin", Access.WORK, this::begin),
        Route.named("GET", "/api/transactions/*", Access.KEY, this::find),
        Route.named("POST", "/api/transactions/*/steps", Access.KEY, this::step),
        Route.named("POST", "/api/transactions/*/commit", Access.KEY, this::commit),
        Route.named("POST", "/api/transactions/*/rollback", Access.KEY, this::rollback),
        Route.of("POST", "/api/sagas", Access.WORK, this::startSaga),
        Route.named("GET", "/api/sagas/*", Access.KEY, this::saga));
  }

  private Transactions transactions() {
    return services.data().transactions();
  }

  private static Options options(Fields fields) {
    return new Options(
        TransactionJson.mode(fields.text("mode").orElse("pessimistic")),
        Duration.ofMillis(
            fields.integer("timeout_ms", 10_000, 100, (int) Sql.TIMEOUT_MAX.toMillis())));
  }

  private void run(Exchange exchange) {
    Fields fields = exchange.json();
    JsonNode sent =
        fields
            .node("steps")
            .filter(JsonNode::isArray)
            .orElseThrow(() -> ApiError.invalid("steps", "steps must be an array."));
    List<Step> steps = new ArrayList<>();
    sent.forEach(step -> steps.add(TransactionJson.step(step)));
    exchange.send(
        200, TransactionJson.toJson(transactions().run(options(fields), steps, fields.text("id"))));
  }

  private void list(Exchange exchange) {
    ObjectNode body = Json.MAPPER.createObjectNode();
    ArrayNode all = body.putArray("transactions");
    for (Transactions.View view : transactions().list()) {
      ObjectNode json = TransactionJson.toJson(view);
      json.remove(List.of("steps", "participants"));
      all.add(json);
    }
    exchange.send(200, body);
  }

  private void find(Exchange exchange, String id) {
    exchange.send(
        200,
        TransactionJson.toJson(
            transactions()
                .find(id)
                .orElseThrow(() -> notFound("there is no transaction " + id + " any more"))));
  }

  private static FlotillaException notFound(String message) {
    return new FlotillaException(
        FlotillaException.Code.NOT_FOUND,
        message,
        "An open one is known to the node that began it; an ended one for about an hour.");
  }

  private void begin(Exchange exchange) {
    exchange.send(
        200,
        Json.MAPPER
            .createObjectNode()
            .put("id", transactions().begin(options(exchange.json())).id()));
  }

  private Transactions.Session session(String id) {
    return transactions()
        .session(id)
        .orElseThrow(() -> notFound("there is no open transaction " + id + " on this node"));
  }

  private void step(Exchange exchange, String id) {
    Step step = TransactionJson.step(Json.read(exchange.body(), JsonNode.class));
    exchange.send(200, TransactionJson.toJson(session(id).step(step)));
  }

  private void commit(Exchange exchange, String id) {
    session(id).commit();
    exchange.send(200, Json.MAPPER.createObjectNode().put("id", id).put("state", "committed"));
  }

  private void rollback(Exchange exchange, String id) {
    session(id).rollback();
    exchange.send(200, Json.MAPPER.createObjectNode().put("id", id).put("state", "rolled_back"));
  }

  private void startSaga(Exchange exchange) {
    Fields fields = exchange.json();
    String id = fields.requiredText("id");
    Map<String, String> parameters = new TreeMap<>();
    fields
        .node("parameters")
        .ifPresent(
            node ->
                node.properties().forEach(p -> parameters.put(p.getKey(), p.getValue().asText())));
    services.data().sagas().start(fields.requiredText("saga"), id, parameters);
    saga(exchange, id);
  }

  private void saga(Exchange exchange, String id) {
    Sagas.View view =
        services
            .data()
            .sagas()
            .find(id)
            .orElseThrow(
                () ->
                    new FlotillaException(
                        FlotillaException.Code.NOT_FOUND,
                        "there is no saga " + id,
                        "An ended one is known for a day."));
    ObjectNode json =
        Json.MAPPER
            .createObjectNode()
            .put("id", view.id())
            .put("saga", view.saga())
            .put("state", view.state().name().toLowerCase(Locale.ROOT))
            .put("steps_done", view.stepsDone())
            .put("error", view.error())
            .put("updated_at_ms", view.updatedAtMs());
    json.set("parameters", Json.MAPPER.valueToTree(view.parameters()));
    json.set("results", Json.MAPPER.valueToTree(view.results()));
    exchange.send(200, json);
  }
}

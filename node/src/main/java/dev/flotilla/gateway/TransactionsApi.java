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
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;

/**
 * Transactions over HTTP; steps and views look as {@link TransactionJson} says.
 *
 * <pre>
 * POST /api/transactions {"steps":[…],"mode","timeout_ms","id"} → {"id","results","repeated"}
 * GET  /api/transactions → {"transactions":[…]}, without steps; GET /api/transactions/{id}
 * POST /api/transactions/begin {"mode","timeout_ms","id"} → {"id","repeated"}, open on this node
 * POST /api/transactions/{id}/steps (a step) → its result
 * POST /api/transactions/{id}/commit, …/rollback
 * GET  /api/sagas/{id}?wait_ms= → {"id","saga","state","steps_done","results","error","updated_at_ms"}
 * POST /api/sagas {"saga","id","parameters"}
 * </pre>
 *
 * <p>While a transaction is open, what is asked of caches, queues and {@code /api/sql} with its id
 * in the header {@value #PART_OF} is a part of it.
 */
final class TransactionsApi {

  private static final String PART_OF = "X-Flotilla-Transaction";
  private static final int WAIT_MS_MAX = 20_000;

  private final GatewayServices services;

  TransactionsApi(GatewayServices services) {
    this.services = services;
  }

  List<Route> routes() {
    return List.of(
        Route.of("POST", "/api/transactions", Access.WORK, this::run)
            .fields("steps", "mode", "timeout_ms", "id"),
        Route.of("GET", "/api/transactions", Access.KEY, this::list),
        Route.of("POST", "/api/transactions/begin", Access.WORK, this::begin)
            .fields("mode", "timeout_ms", "id"),
        Route.named("GET", "/api/transactions/*", Access.KEY, this::find),
        Route.named("POST", "/api/transactions/*/steps", Access.KEY, this::step),
        Route.named("POST", "/api/transactions/*/commit", Access.KEY, this::commit),
        Route.named("POST", "/api/transactions/*/rollback", Access.KEY, this::rollback),
        Route.of("POST", "/api/sagas", Access.WORK, this::startSaga)
            .fields("saga", "id", "parameters"),
        Route.named("GET", "/api/sagas/*", Access.KEY, this::saga).query("wait_ms"));
  }

  /** The same route, whose requests may be parts of open transactions. */
  static Route takingPart(GatewayServices services, Route route) {
    return route.doing(
        (exchange, segments) -> {
          Optional<String> id = exchange.header(PART_OF);
          if (id.isEmpty()) {
            route.action().run(exchange, segments);
            return;
          }
          boolean interrupted =
              session(services, id.get())
                  .call(
                      () -> {
                        try {
                          route.action().run(exchange, segments);
                          return false;
                        } catch (InterruptedException e) {
                          return true;
                        }
                      });
          if (interrupted) {
            throw new InterruptedException();
          }
        });
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
        fields.node("steps").orElseThrow(() -> ApiError.missing("steps", ", as an array"));
    if (!sent.isArray()) {
      throw ApiError.invalid("steps", "steps must be an array.");
    }
    List<Step> steps = TransactionJson.steps(sent);
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
    Fields fields = exchange.json();
    Options options = options(fields);
    Optional<String> mine = fields.text("id");
    Optional<Transactions.Session> session =
        mine.isPresent()
            ? transactions().beginOnce(mine.get(), options)
            : Optional.of(transactions().begin(options));
    exchange.send(
        200,
        Json.MAPPER
            .createObjectNode()
            .put("id", session.map(Transactions.Session::id).orElseGet(mine::orElseThrow))
            .put("repeated", session.isEmpty()));
  }

  private Transactions.Session session(String id) {
    return session(services, id);
  }

  private static Transactions.Session session(GatewayServices services, String id) {
    return services
        .data()
        .transactions()
        .session(id)
        .orElseThrow(() -> notFound("there is no open transaction " + id + " on this node"));
  }

  private void step(Exchange exchange, String id) {
    Step step = TransactionJson.step(Fields.read(exchange.body()).tree());
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
            node -> {
              if (!node.isObject()) {
                throw ApiError.invalid("parameters", "parameters must be an object of strings.");
              }
              node.properties().forEach(p -> parameters.put(p.getKey(), p.getValue().asText()));
            });
    services.data().sagas().start(fields.requiredText("saga"), id, parameters);
    exchange.send(200, json(saga(id)));
  }

  private Sagas.View saga(String id) {
    return services
        .data()
        .sagas()
        .find(id)
        .orElseThrow(
            () ->
                new FlotillaException(
                    FlotillaException.Code.NOT_FOUND,
                    "there is no saga " + id,
                    "An ended one is known for a day."));
  }

  private void saga(Exchange exchange, String id) throws InterruptedException {
    Sagas.View view = saga(id);
    long waitMs = exchange.query("wait_ms").map(TransactionsApi::waitMs).orElse(0L);
    if (waitMs > 0) {
      view = services.data().sagas().await(id, Duration.ofMillis(waitMs));
    }
    exchange.send(200, json(view));
  }

  private static long waitMs(String text) {
    if (!text.matches("\\d{1,6}") || Long.parseLong(text) > WAIT_MS_MAX) {
      throw ApiError.invalid("wait_ms", "wait_ms must be from 0 to " + WAIT_MS_MAX + ".");
    }
    return Long.parseLong(text);
  }

  private static ObjectNode json(Sagas.View view) {
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
    return json;
  }
}

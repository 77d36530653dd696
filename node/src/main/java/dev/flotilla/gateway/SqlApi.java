package dev.flotilla.gateway;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.Json;
import dev.flotilla.data.sql.Migration;
import dev.flotilla.data.sql.Sql;
import dev.flotilla.data.sql.SqlResult;
import dev.flotilla.data.sql.SqlValues;
import dev.flotilla.gateway.GatewayHandler.Access;
import dev.flotilla.gateway.GatewayHandler.Route;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;

/**
 * The database over HTTP.
 *
 * <pre>
 * POST /api/sql {"statement","arguments","rows_max","timeout_ms","allow_stale"}
 *   → {"columns":[{"name","type"}],"rows":[[…]],"updated","truncated"}
 * POST /api/sql/describe {"statement"} → {"columns"}, without running it
 * GET  /api/sql/tables → {"tables":[{"name","columns":[{"name","type","nullable","key"}]}]}
 * GET  /api/sql/migrations → {"applied":[{"version","name","checksum","applied_at_ms"}]}
 * POST /api/sql/migrations {"migrations":[{"version","name","script"}]} → what was applied now
 * </pre>
 */
final class SqlApi {

  private final GatewayServices services;

  SqlApi(GatewayServices services) {
    this.services = services;
  }

  List<Route> routes() {
    return List.of(
        TransactionsApi.takingPart(
                services, Route.of("POST", "/api/sql", Access.WORK, this::execute))
            .fields("statement", "arguments", "rows_max", "timeout_ms", "allow_stale"),
        Route.of("POST", "/api/sql/describe", Access.KEY, this::describe).fields("statement"),
        Route.of("GET", "/api/sql/tables", Access.KEY, this::tables),
        Route.of("GET", "/api/sql/migrations", Access.KEY, this::migrations),
        Route.of("POST", "/api/sql/migrations", Access.WORK, this::migrate).fields("migrations"));
  }

  private void execute(Exchange exchange) {
    Fields fields = exchange.json();
    Sql.Request request = request(fields);
    exchange.maybeStale(fields, () -> execute(exchange, request));
  }

  private void execute(Exchange exchange, Sql.Request request) {
    Sql.Cancel cancel = new Sql.Cancel();
    exchange.send(
        200,
        SqlValues.toJson(
            cancellable(exchange, cancel, () -> services.data().sql().execute(request, cancel))));
  }

  /** Runs it, and stops it when the client goes. */
  static <T> T cancellable(
      Exchange exchange, Sql.Cancel cancel, java.util.function.Supplier<T> run) {
    try (DisconnectWatch _ = DisconnectWatch.open(exchange.request(), cancel::cancel)) {
      return run.get();
    }
  }

  static Sql.Request request(Fields fields) {
    return new Sql.Request(
        fields.requiredText("statement"),
        arguments(fields),
        fields.integer("rows_max", Sql.ROWS, 1, Sql.ROWS_MAX),
        Duration.ofMillis(
            fields.integer("timeout_ms", 30_000, 1, (int) Sql.TIMEOUT_MAX.toMillis())));
  }

  static List<@Nullable Object> arguments(Fields fields) {
    List<@Nullable Object> arguments = new ArrayList<>();
    fields
        .node("arguments")
        .ifPresent(
            node -> {
              if (!node.isArray()) {
                throw ApiError.invalid("arguments", "arguments must be an array.");
              }
              node.forEach(each -> arguments.add(SqlValues.argument(each)));
            });
    return arguments;
  }

  private void describe(Exchange exchange) {
    exchange.send(
        200,
        SqlValues.toJson(
            new SqlResult(
                services.data().sql().describe(exchange.json().requiredText("statement")),
                List.of(),
                0,
                false)));
  }

  private void tables(Exchange exchange) {
    exchange.send(200, list("tables", services.data().sql().tables(), SqlApi::json));
  }

  private void migrations(Exchange exchange) {
    exchange.send(200, list("applied", services.data().sql().migrations(), SqlApi::json));
  }

  private void migrate(Exchange exchange) {
    JsonNode sent =
        exchange
            .json()
            .node("migrations")
            .filter(JsonNode::isArray)
            .orElseThrow(() -> ApiError.invalid("migrations", "migrations must be an array."));
    List<Migration> migrations = new ArrayList<>();
    for (JsonNode each : sent) {
      Fields fields =
          Fields.of(each, "migrations[" + migrations.size() + "]")
              .only("version", "name", "script");
      migrations.add(
          new Migration(
              fields.requiredInteger("version", 0, Long.MAX_VALUE),
              fields.requiredText("name"),
              fields.requiredText("script")));
    }
    exchange.send(200, list("applied", services.data().sql().migrate(migrations), SqlApi::json));
  }

  private static JsonNode json(Sql.Table table) {
    ObjectNode json = Json.MAPPER.createObjectNode().put("name", table.name());
    ArrayNode columns = json.putArray("columns");
    for (Sql.TableColumn column : table.columns()) {
      columns
          .addObject()
          .put("name", column.name())
          .put("type", column.type())
          .put("nullable", column.nullable())
          .put("key", column.key());
    }
    return json;
  }

  private static JsonNode json(Migration.Applied applied) {
    return Json.MAPPER
        .createObjectNode()
        .put("version", applied.version())
        .put("name", applied.name())
        .put("checksum", applied.checksum())
        .put("applied_at_ms", applied.appliedAtMs());
  }

  private static <T> ObjectNode list(String name, List<T> all, Function<T, JsonNode> json) {
    ObjectNode body = Json.MAPPER.createObjectNode();
    ArrayNode array = body.putArray(name);
    all.forEach(each -> array.add(json.apply(each)));
    return body;
  }
}

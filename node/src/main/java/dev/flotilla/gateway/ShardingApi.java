package dev.flotilla.gateway;

import com.fasterxml.jackson.annotation.JsonInclude;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.PropertyNamingStrategies;
import dev.flotilla.Json;
import dev.flotilla.data.sql.Sharding;
import dev.flotilla.gateway.GatewayHandler.Access;
import dev.flotilla.gateway.GatewayHandler.Route;
import java.util.ArrayList;
import java.util.List;

/**
 * How tables are spread over the nodes.
 *
 * <ul>
 *   <li>{@code GET /api/sharding} → the sharded tables: {@code
 *       [{"table","strategy","column","spread","partitions","shards":[{"values","nodes"}],
 *       "colocated_with","moving"}]}; {@code POST /api/sharding {"statement"}} runs one of its
 *       statements
 *   <li>{@code POST /api/sql/explain {"statement","arguments"}} → {@code
 *       {"tables":[{"table","strategy","shards","partitions_touched","partitions","whole",
 *       "nodes":[{"node","partitions"}]}],"plan"}}
 *   <li>{@code GET /api/tables/{t}/skew} → {@code {"table","rows","bytes","imbalance",
 *       "partition_imbalance","nodes","partitions","hottest"}}
 *   <li>{@code POST /api/tables/{t}/split {"at"}}, {@code POST /api/tables/{t}/move
 *       {"shard","nodes"}}: the table as it is when that is done
 * </ul>
 */
final class ShardingApi {

  private static final ObjectMapper SNAKE_CASE =
      Json.MAPPER
          .copy()
          .setPropertyNamingStrategy(PropertyNamingStrategies.SNAKE_CASE)
          .setDefaultPropertyInclusion(JsonInclude.Include.NON_ABSENT);

  private final Sharding sharding;

  ShardingApi(GatewayServices services) {
    this.sharding = services.data().sharding();
  }

  List<Route> routes() {
    return List.of(
        Route.of("GET", "/api/sharding", Access.KEY, this::tables),
        Route.of("POST", "/api/sharding", Access.WORK, this::execute).fields("statement"),
        Route.of("POST", "/api/sql/explain", Access.KEY, this::explain)
            .fields("statement", "arguments"),
        Route.named("GET", "/api/tables/*/sharding", Access.KEY, this::table),
        Route.named("GET", "/api/tables/*/skew", Access.KEY, this::skew),
        Route.named("POST", "/api/tables/*/split", Access.WORK, this::split).fields("at"),
        Route.named("POST", "/api/tables/*/move", Access.WORK, this::move)
            .fields("shard", "nodes"));
  }

  private static void send(Exchange exchange, Object value) {
    exchange.send(200, SNAKE_CASE.<JsonNode>valueToTree(value));
  }

  private void tables(Exchange exchange) {
    send(exchange, sharding.tables());
  }

  private void table(Exchange exchange, String name) {
    send(exchange, sharding.table(name));
  }

  private void execute(Exchange exchange) {
    sharding.execute(exchange.json().requiredText("statement"));
    send(exchange, sharding.tables());
  }

  private void explain(Exchange exchange) {
    Fields fields = exchange.json();
    List<Object> arguments = new ArrayList<>();
    fields
        .node("arguments")
        .ifPresent(
            array -> {
              for (JsonNode each : array) {
                arguments.add(
                    each.isIntegralNumber()
                        ? (Object) each.longValue()
                        : each.isNumber()
                            ? (Object) each.doubleValue()
                            : each.isBoolean() ? (Object) each.booleanValue() : each.asText());
              }
            });
    send(exchange, sharding.explain(fields.requiredText("statement"), arguments));
  }

  private void skew(Exchange exchange, String name) {
    send(exchange, sharding.skew(name));
  }

  private void split(Exchange exchange, String name) {
    JsonNode at =
        exchange
            .json()
            .node("at")
            .filter(JsonNode::isValueNode)
            .orElseThrow(() -> ApiError.missing("at", ", as a value of the column"));
    sharding.split(name, at.asText());
    send(exchange, sharding.table(name));
  }

  private void move(Exchange exchange, String name) {
    Fields fields = exchange.json();
    int shard = (int) fields.requiredInteger("shard", 0, 100_000);
    List<String> nodes = new ArrayList<>();
    fields.node("nodes").ifPresent(array -> array.forEach(each -> nodes.add(each.asText())));
    sharding.move(name, shard, nodes);
    send(exchange, sharding.table(name));
  }
}

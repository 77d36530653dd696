package dev.flotilla.gateway;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.Json;
import dev.flotilla.data.Backups;
import dev.flotilla.gateway.GatewayHandler.Access;
import dev.flotilla.gateway.GatewayHandler.Route;
import java.time.Duration;
import java.time.Instant;
import java.util.List;

/**
 * Backups of the data grid over HTTP.
 *
 * <pre>
 * POST /api/backups {"name","folder"} → {"name","folder","points_ms":[…]}
 * POST /api/backups/{name}/points {} → the same, with one point more
 * GET  /api/backups → [{"name","folder","points_ms","restorable":{"from_ms","to_ms","trouble"}}]
 * POST /api/backups/{name}/restore {"folder","at_ms"} → {"name","point_ms"}
 * DELETE /api/backups/{name} → {"name","state":"deleted"}
 * POST /api/backup-prunes {"older_than_ms","bytes_max"} → {"deleted":[names]}
 * </pre>
 */
final class BackupsApi {

  private final GatewayServices services;

  BackupsApi(GatewayServices services) {
    this.services = services;
  }

  List<Route> routes() {
    return List.of(
        Route.of("GET", "/api/backups", Access.KEY, this::list),
        Route.of("POST", "/api/backups", Access.WORK, this::create).fields("name", "folder"),
        Route.named("DELETE", "/api/backups/*", Access.WORK, this::delete),
        Route.of("POST", "/api/backup-prunes", Access.WORK, this::prune)
            .fields("older_than_ms", "bytes_max"),
        Route.named("POST", "/api/backups/*/points", Access.WORK, this::addPoint),
        Route.named("POST", "/api/backups/*/restore", Access.WORK, this::restore)
            .fields("folder", "at_ms"));
  }

  private Backups backups() {
    return services.data().backups();
  }

  private void list(Exchange exchange) {
    ArrayNode list = Json.MAPPER.createArrayNode();
    backups().list().forEach(backup -> list.add(node(backup)));
    exchange.send(200, list);
  }

  private void create(Exchange exchange) {
    Fields fields = exchange.json();
    exchange.send(200, node(backups().create(fields.requiredText("name"), fields.text("folder"))));
  }

  private void addPoint(Exchange exchange, String name) {
    exchange.send(200, node(backups().addPoint(name)));
  }

  private void delete(Exchange exchange, String name) {
    backups().delete(name);
    exchange.send(200, Json.MAPPER.createObjectNode().put("name", name).put("state", "deleted"));
  }

  private void prune(Exchange exchange) {
    Fields fields = exchange.json();
    ObjectNode answer = Json.MAPPER.createObjectNode();
    ArrayNode deleted = answer.putArray("deleted");
    backups()
        .prune(
            fields.integer("older_than_ms", 0, Long.MAX_VALUE).map(Duration::ofMillis),
            fields.integer("bytes_max", 0, Long.MAX_VALUE))
        .forEach(deleted::add);
    exchange.send(200, answer);
  }

  private void restore(Exchange exchange, String name) {
    Fields fields = exchange.json();
    Instant point =
        backups()
            .restore(
                name,
                fields.text("folder"),
                fields.integer("at_ms", 0, Long.MAX_VALUE).map(Instant::ofEpochMilli));
    exchange.send(
        200,
        Json.MAPPER.createObjectNode().put("name", name).put("point_ms", point.toEpochMilli()));
  }

  private static ObjectNode node(Backups.Backup backup) {
    ObjectNode node = Json.MAPPER.createObjectNode().put("name", backup.name());
    backup.folder().ifPresent(folder -> node.put("folder", folder));
    ArrayNode points = node.putArray("points_ms");
    backup.points().forEach(point -> points.add(point.toEpochMilli()));
    backup
        .anyMoment()
        .ifPresent(
            moments ->
                node.putObject("restorable")
                    .put("from_ms", moments.from().toEpochMilli())
                    .put("to_ms", moments.to().toEpochMilli())
                    .put("trouble", moments.trouble()));
    ArrayNode without = node.putArray("without");
    backup.without().forEach(without::add);
    return node;
  }
}

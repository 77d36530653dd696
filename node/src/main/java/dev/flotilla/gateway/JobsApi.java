package dev.flotilla.gateway;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.Json;
import dev.flotilla.data.jobs.Jobs;
import dev.flotilla.gateway.GatewayHandler.Access;
import dev.flotilla.gateway.GatewayHandler.Route;
import java.util.List;

/** Jobs over HTTP. A job that is done comes with the first rows of its result. */
final class JobsApi {

  private static final int FIRST_ROWS = 100;

  private final Jobs jobs;

  JobsApi(GatewayServices services) {
    this.jobs = services.data().jobs();
  }

  List<Route> routes() {
    return List.of(
        Route.of("GET", "/api/jobs", Access.KEY, this::list),
        Route.of("POST", "/api/jobs", Access.WORK, this::submit).fields("job", "input"),
        Route.of("GET", "/api/job-definitions", Access.KEY, this::definitions),
        Route.named("GET", "/api/jobs/*", Access.KEY, this::show),
        Route.named("GET", "/api/jobs/*/rows", Access.KEY, this::rows).query("after", "limit"),
        Route.named("DELETE", "/api/jobs/*", Access.WORK, this::cancel));
  }

  private void definitions(Exchange exchange) {
    ArrayNode all = Json.MAPPER.createArrayNode();
    jobs.definitions()
        .forEach((name, text) -> all.addObject().put("job", name).put("description", text));
    exchange.send(200, all);
  }

  private void submit(Exchange exchange) {
    Fields fields = exchange.json();
    String id =
        jobs.submit(
            fields.requiredText("job"),
            fields.node("input").orElseGet(Json.MAPPER::createObjectNode));
    exchange.send(202, Json.MAPPER.createObjectNode().put("id", id));
  }

  private void list(Exchange exchange) {
    ArrayNode all = Json.MAPPER.createArrayNode();
    jobs.list().forEach(job -> all.add(node(job)));
    exchange.send(200, all);
  }

  private void show(Exchange exchange, String id) {
    Jobs.View job = jobs.show(id);
    ObjectNode node = node(job);
    if (job.state().equals("done")) {
      node.set("result", rows(jobs.rows(id, "", FIRST_ROWS)));
    }
    exchange.send(200, node);
  }

  private static ObjectNode node(Jobs.View job) {
    ObjectNode node = Json.MAPPER.createObjectNode();
    node.put("id", job.id());
    node.put("job", job.job());
    node.put("state", job.state());
    node.put("reason", job.reason());
    node.put("coordinator", job.coordinator());
    node.put("progress", job.tasks() == 0 ? 0.0 : (double) job.done() / job.tasks());
    node.put("tasks", job.tasks());
    node.put("done", job.done());
    node.put("attempts", job.attempts());
    node.put("copies", job.copies());
    node.put("rows", job.rows());
    node.put("created_at_ms", job.createdAtMs());
    node.put("updated_at_ms", job.updatedAtMs());
    return node;
  }

  private static ArrayNode rows(List<Jobs.Row> rows) {
    ArrayNode all = Json.MAPPER.createArrayNode();
    rows.forEach(row -> all.addObject().put("key", row.key()).set("value", row.value()));
    return all;
  }

  private void rows(Exchange exchange, String id) {
    int limit;
    try {
      limit = Integer.parseInt(exchange.query("limit").orElse("1000"));
    } catch (NumberFormatException e) {
      throw ApiError.invalid("limit", "limit must be an integer.");
    }
    exchange.send(200, rows(jobs.rows(id, exchange.query("after").orElse(""), limit)));
  }

  private void cancel(Exchange exchange, String id) {
    exchange.send(200, Json.MAPPER.createObjectNode().put("id", id).put("state", jobs.cancel(id)));
  }
}

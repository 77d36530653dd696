package dev.flotilla.gateway;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.Json;
import dev.flotilla.data.usage.Usage;
import dev.flotilla.data.usage.UsageEvent;
import dev.flotilla.gateway.GatewayHandler.Access;
import dev.flotilla.gateway.GatewayHandler.Route;
import java.time.Instant;
import java.util.List;

/**
 * The usage ledger over HTTP: {@code GET /api/usage?from=&to=&by=model|key|day}, where times are
 * milliseconds since 1970, {@code 2026-11-24} or {@code 2026-11-24T10:00:00Z}, the last day and the
 * models by default; {@code POST /api/usage {"request_id","model","prompt_tokens",
 * "completion_tokens","time_ms","key","cached"}} notes a request that was not one of this API,
 * once; {@code POST /api/usage/rebuild} makes the views again from the log.
 */
final class UsageApi {

  private static final long DAY_MS = 24 * 3_600_000L;
  private static final long TOKENS_MAX = 1L << 40;
  private static final int NAME_MAX = 256;

  private final GatewayServices services;

  UsageApi(GatewayServices services) {
    this.services = services;
  }

  List<Route> routes() {
    return List.of(
        Route.of("GET", "/api/usage", Access.KEY, this::report).query("from", "to", "by"),
        Route.of("POST", "/api/usage", Access.WORK, this::append)
            .fields(
                "request_id",
                "model",
                "prompt_tokens",
                "completion_tokens",
                "time_ms",
                "key",
                "cached"),
        Route.of("POST", "/api/usage/rebuild", Access.WORK, this::rebuild));
  }

  private void report(Exchange exchange) {
    long nowMs = services.clock().millis();
    long from =
        exchange.query("from").map(text -> Times.parse("from", text)).orElse(nowMs - DAY_MS);
    long to = exchange.query("to").map(text -> Times.parse("to", text)).orElse(nowMs + 1);
    String by = exchange.query("by").orElse("model");
    Usage.Report report = services.data().usage().report(from, to, by(by));
    ObjectNode answer =
        Json.MAPPER
            .createObjectNode()
            .put("from", Instant.ofEpochMilli(report.fromMs()).toString())
            .put("to", Instant.ofEpochMilli(report.toMs()).toString())
            .put("by", by);
    ArrayNode rows = answer.putArray("rows");
    for (Usage.Row row : report.rows()) {
      rows.addObject()
          .put(by, row.group())
          .put("requests", row.requests())
          .put("prompt_tokens", row.promptTokens())
          .put("completion_tokens", row.completionTokens())
          .put("total_tokens", row.promptTokens() + row.completionTokens())
          .put("cached_requests", row.cachedRequests());
    }
    answer.put("watermark", report.watermark()).put("head", report.head());
    exchange.send(200, answer);
  }

  private static Usage.By by(String name) {
    return switch (name) {
      case "model" -> Usage.By.MODEL;
      case "key" -> Usage.By.KEY;
      case "day" -> Usage.By.DAY;
      default -> throw ApiError.invalid("by", "by must be model, key or day.");
    };
  }

  private void append(Exchange exchange) {
    Fields fields = exchange.json();
    String id = name("request_id", fields.requiredText("request_id"));
    services
        .data()
        .usage()
        .append(
            new UsageEvent(
                id,
                fields.integer("time_ms", 0, Long.MAX_VALUE).orElseGet(services.clock()::millis),
                name("key", fields.text("key").orElseGet(exchange::keyName)),
                name("model", fields.requiredText("model")),
                fields.integer("prompt_tokens", 0, TOKENS_MAX).orElse(0L),
                fields.integer("completion_tokens", 0, TOKENS_MAX).orElse(0L),
                fields.flag("cached", false)));
    exchange.send(200, Json.MAPPER.createObjectNode().put("request_id", id));
  }

  private static String name(String field, String text) {
    if (text.isEmpty() || text.length() > NAME_MAX) {
      throw ApiError.invalid(field, field + " must have from 1 to " + NAME_MAX + " characters.");
    }
    return text;
  }

  private void rebuild(Exchange exchange) {
    Usage.Rebuilt rebuilt = services.data().usage().rebuild();
    exchange.send(
        200,
        Json.MAPPER
            .createObjectNode()
            .put("segments", rebuilt.segments())
            .put("events", rebuilt.events()));
  }
}

package dev.flotilla.gateway;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.Json;
import dev.flotilla.data.log.Log;
import dev.flotilla.gateway.GatewayHandler.Access;
import dev.flotilla.gateway.GatewayHandler.Route;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.function.BooleanSupplier;

/**
 * The log of all nodes, and applications' streams.
 *
 * <ul>
 *   <li>{@code GET /api/logs?query=&from=&to=&node=&level=&limit=} → {@code
 *       {"entries":[{"time","time_ms","node","seq","level","logger","message","fields"}],"partial",
 *       "missing":[node]}}; times in milliseconds or ISO 8601. With {@code follow=true} one entry a
 *       line from now on, and empty lines where nothing happens
 *   <li>{@code GET /api/streams}; {@code GET /api/streams/{name}?from=&max=&wait_ms=} → {@code
 *       {"name","first","next","records":[{"offset","time_ms","body","text"}]}}, body in base64,
 *       text where it is UTF-8; with {@code follow=true} a record a line
 *   <li>{@code POST /api/streams/{name}} with the bytes of one record → {@code {"offset"}}; {@code
 *       POST …/batch {"records":[base64]}} → the first one's offset; {@code POST …/trim {"before"}}
 * </ul>
 */
final class LogApi {

  private final Log log;
  private final BooleanSupplier draining;

  /**
   * @param draining whether this node is stopping, so that answers without end must end
   */
  LogApi(GatewayServices services, BooleanSupplier draining) {
    this.log = services.data().log();
    this.draining = draining;
  }

  List<Route> routes() {
    return List.of(
        Route.of("GET", "/api/logs", Access.KEY, this::logs)
            .query("query", "from", "to", "node", "level", "limit", "follow"),
        Route.of("GET", "/api/streams", Access.KEY, this::streams),
        Route.named("GET", "/api/streams/*", Access.KEY, this::read)
            .query("from", "max", "wait_ms", "follow"),
        Route.named("POST", "/api/streams/*", Access.WORK, this::append),
        Route.named("POST", "/api/streams/*/batch", Access.WORK, this::batch).fields("records"),
        Route.named("POST", "/api/streams/*/trim", Access.WORK, this::trim).fields("before"));
  }

  private void logs(Exchange exchange) {
    Log.Query query =
        new Log.Query(
            exchange.query("query").orElse(""),
            time(exchange, "from"),
            time(exchange, "to"),
            exchange.query("node").filter(text -> !text.isEmpty()),
            exchange.query("level").filter(text -> !text.isEmpty()).map(LogApi::level),
            (int) number(exchange, "limit", 100));
    if (!follows(exchange)) {
      Log.Page page = log.search(query);
      ObjectNode body = Json.MAPPER.createObjectNode();
      ArrayNode entries = body.putArray("entries");
      page.entries().forEach(entry -> entries.add(json(entry)));
      body.put("partial", page.partial());
      body.set("missing", Json.MAPPER.valueToTree(page.missing()));
      exchange.send(200, body);
      return;
    }
    // A wrong query must be refused before the answer starts.
    var _ = log.search(query);
    startLines(exchange);
    log.follow(
        query,
        entry -> {
          exchange.write(false, line(entry.map(LogApi::json)));
          return !draining.getAsBoolean();
        });
    exchange.write(true, new byte[0]);
  }

  private static boolean follows(Exchange exchange) {
    return exchange.query("follow").filter(text -> !text.equals("false")).isPresent();
  }

  private static void startLines(Exchange exchange) {
    exchange.startStream("application/x-ndjson");
    exchange.write(false, line(Optional.empty()));
  }

  private static byte[] line(Optional<ObjectNode> json) {
    return (json.map(ObjectNode::toString).orElse("") + "\n").getBytes(StandardCharsets.UTF_8);
  }

  private static ObjectNode json(Log.Entry entry) {
    ObjectNode json = Json.MAPPER.createObjectNode();
    json.put("time", Instant.ofEpochMilli(entry.timeMs()).toString());
    json.put("time_ms", entry.timeMs());
    json.put("node", entry.node());
    json.put("seq", entry.seq());
    json.put("level", entry.level().name());
    json.put("logger", entry.logger());
    json.put("message", entry.message());
    json.set("fields", Json.MAPPER.valueToTree(entry.fields()));
    return json;
  }

  private static Log.Level level(String text) {
    try {
      return Log.Level.valueOf(text.toUpperCase(Locale.ROOT));
    } catch (IllegalArgumentException e) {
      throw ApiError.invalid("level", "level must be one of trace, debug, info, warn and error.");
    }
  }

  private static Optional<Long> time(Exchange exchange, String name) {
    return exchange
        .query(name)
        .filter(text -> !text.isEmpty())
        .map(text -> Times.parse(name, text));
  }

  private static long number(Exchange exchange, String name, long otherwise) {
    return exchange
        .query(name)
        .filter(text -> !text.isEmpty())
        .map(
            text -> {
              if (!text.matches("[0-9]{1,9}")) {
                throw ApiError.invalid(name, name + " must be a number that is not negative.");
              }
              return Long.parseLong(text);
            })
        .orElse(otherwise);
  }

  private void streams(Exchange exchange) {
    ArrayNode all = Json.MAPPER.createArrayNode();
    for (Log.StreamInfo each : log.streams()) {
      all.add(json(each));
    }
    exchange.send(200, all);
  }

  private static ObjectNode json(Log.StreamInfo stream) {
    return Json.MAPPER
        .createObjectNode()
        .put("name", stream.name())
        .put("first", stream.first())
        .put("next", stream.next());
  }

  private void read(Exchange exchange, String name) {
    long from = exchange.query("from").isPresent() ? longNumber(exchange, "from") : 0;
    int max = (int) number(exchange, "max", 100);
    long waitMs = number(exchange, "wait_ms", 0);
    if (!follows(exchange)) {
      List<Log.StreamRecord> records = log.read(name, from, max, waitMs);
      ObjectNode body = json(log.stream(name));
      ArrayNode array = body.putArray("records");
      records.forEach(record -> array.add(json(record)));
      exchange.send(200, body);
      return;
    }
    List<Log.StreamRecord> records = log.read(name, from, max, 0);
    startLines(exchange);
    long next = from;
    while (!draining.getAsBoolean()) {
      for (Log.StreamRecord record : records) {
        exchange.write(false, line(Optional.of(json(record))));
        next = record.offset() + 1;
      }
      if (records.isEmpty()) {
        exchange.write(false, line(Optional.empty()));
      }
      records = log.read(name, next, max, 1_000);
    }
    exchange.write(true, new byte[0]);
  }

  private static long longNumber(Exchange exchange, String name) {
    String text = exchange.query(name).orElse("");
    if (!text.matches("[0-9]{1,18}")) {
      throw ApiError.invalid(name, name + " must be a number that is not negative.");
    }
    return Long.parseLong(text);
  }

  private static ObjectNode json(Log.StreamRecord record) {
    ObjectNode json = Json.MAPPER.createObjectNode();
    json.put("offset", record.offset());
    json.put("time_ms", record.timeMs());
    json.put("body", Base64.getEncoder().encodeToString(record.body()));
    try {
      json.put(
          "text",
          StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(record.body())).toString());
    } catch (CharacterCodingException notText) {
      // The body says it all.
    }
    return json;
  }

  private void append(Exchange exchange, String name) {
    long offset = log.append(name, exchange.body());
    exchange.send(200, Json.MAPPER.createObjectNode().put("offset", offset));
  }

  private void batch(Exchange exchange, String name) {
    JsonNode records =
        exchange
            .json()
            .node("records")
            .filter(JsonNode::isArray)
            .orElseThrow(() -> ApiError.invalid("records", "records must be an array."));
    List<byte[]> bodies = new ArrayList<>();
    for (JsonNode each : records) {
      try {
        if (!each.isTextual()) {
          throw ApiError.invalid("records", "records must be an array of strings, in base64.");
        }
        bodies.add(Base64.getDecoder().decode(each.textValue()));
      } catch (IllegalArgumentException e) {
        throw ApiError.invalid("records", "records must be base64.");
      }
    }
    long offset = log.append(name, bodies);
    exchange.send(200, Json.MAPPER.createObjectNode().put("offset", offset));
  }

  private void trim(Exchange exchange, String name) {
    log.trim(name, exchange.json().requiredInteger("before", 0, Long.MAX_VALUE));
    exchange.send(200, json(log.stream(name)));
  }
}

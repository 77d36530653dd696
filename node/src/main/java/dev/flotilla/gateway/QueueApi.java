package dev.flotilla.gateway;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.Json;
import dev.flotilla.cluster.Fence;
import dev.flotilla.data.queue.Queue;
import dev.flotilla.data.queue.QueueConfig;
import dev.flotilla.data.queue.Queues;
import dev.flotilla.gateway.GatewayHandler.Access;
import dev.flotilla.gateway.GatewayHandler.Route;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Optional;

/**
 * Queues over HTTP: see {@code docs/contract.md}. A queue is made by the first message sent, and by
 * nothing else but a call that says so.
 */
final class QueueApi {

  private static final long VISIBILITY_MS = 30_000;
  private static final long MOST_DELAY_MS = 30L * 86_400_000;
  private static final int MOST_DEAD = 1_000;
  private static final List<String> MESSAGE_FIELDS =
      List.of("key", "body", "body_base64", "dedup_id", "delay_ms", "priority");

  private final GatewayServices services;

  QueueApi(GatewayServices services) {
    this.services = services;
  }

  List<Route> routes() {
    return List.of(
        Route.of("GET", "/api/queues", Access.KEY, this::list),
        Route.named("GET", "/api/queues/*", Access.KEY, this::stats),
        Route.named("POST", "/api/queues/*", Access.WORK, this::create)
            .fields("partitions", "depth_max", "attempts_max", "retention_ms", "dedup_ms"),
        Route.named("DELETE", "/api/queues/*", Access.WORK, this::delete),
        inTransactions(Route.named("POST", "/api/queues/*/messages", Access.WORK, this::send))
            .fields(
                "key",
                "body",
                "body_base64",
                "dedup_id",
                "delay_ms",
                "priority",
                "messages",
                "fence"),
        Route.named("POST", "/api/queues/*/receive", Access.WORK, this::receive)
            .fields("group", "consumer", "max", "visibility_ms", "wait_ms"),
        inTransactions(Route.named("POST", "/api/queues/*/ack", Access.KEY, this::acknowledge))
            .fields("receipts", "fence"),
        inTransactions(Route.named("POST", "/api/queues/*/nack", Access.KEY, this::giveBack))
            .fields("receipts", "delay_ms"),
        Route.named("GET", "/api/queues/*/dead", Access.KEY, this::dead),
        Route.named("POST", "/api/queues/*/redrive", Access.WORK, this::redrive).fields("max"),
        Route.named("POST", "/api/queues/*/replay", Access.WORK, this::replay)
            .fields("group", "from_ms"));
  }

  private Route inTransactions(Route route) {
    return TransactionsApi.takingPart(services, route);
  }

  private Queues queues() {
    return services.data().queues();
  }

  private Queue existing(String name) {
    return queues()
        .find(name)
        .orElseThrow(
            () ->
                ApiError.of(
                    404, "not_found", "There is no queue " + name + ". To make it, send to it."));
  }

  private void list(Exchange exchange) {
    ArrayNode names = Json.MAPPER.createArrayNode();
    queues().names().forEach(names::add);
    exchange.send(200, names);
  }

  private void create(Exchange exchange, String name) {
    Fields fields = exchange.json();
    QueueConfig usual = QueueConfig.DEFAULT;
    queues()
        .create(
            name,
            new QueueConfig(
                fields.integer("partitions", usual.partitions(), 1, 64),
                fields.integer("depth_max", 1, Long.MAX_VALUE).orElse(usual.depthMax()),
                fields.integer("attempts_max", usual.attemptsMax(), 1, 1_000_000),
                fields.integer("retention_ms", 0, Long.MAX_VALUE).orElse(usual.retentionMs()),
                fields.integer("dedup_ms", 1_000, Long.MAX_VALUE).orElse(usual.dedupMs())));
    stats(exchange, name);
  }

  private void delete(Exchange exchange, String name) {
    if (!queues().delete(name)) {
      existing(name);
    }
    exchange.send(200, Json.MAPPER.createObjectNode().put("queue", name).put("state", "deleted"));
  }

  private void send(Exchange exchange, String name) {
    Fields fields = exchange.json();
    Optional<Fence> fence = LocksApi.fence(fields);
    Optional<JsonNode> several = fields.node("messages");
    List<Queue.Outgoing> messages = new ArrayList<>();
    if (several.isPresent()) {
      if (!several.get().isArray() || several.get().isEmpty()) {
        throw ApiError.invalid("messages", "messages must be an array of objects, one at least.");
      }
      fields.only("messages", "fence");
      for (JsonNode each : several.get()) {
        messages.add(
            outgoing(Fields.of(each, "messages[" + messages.size() + "]").only(MESSAGE_FIELDS)));
      }
    } else {
      messages.add(outgoing(fields));
    }
    List<String> ids = queues().queue(name).send(messages, fence);
    ObjectNode answer = Json.MAPPER.createObjectNode();
    if (several.isPresent()) {
      ArrayNode all = answer.putArray("ids");
      ids.forEach(all::add);
    } else {
      answer.put("id", ids.getFirst());
    }
    exchange.send(200, answer);
  }

  private static Queue.Outgoing outgoing(Fields fields) {
    Optional<String> encoded = fields.text("body_base64");
    if (encoded.isPresent() && fields.node("body").isPresent()) {
      throw ApiError.invalid(
          "body", "A message has body, a text, or body_base64, bytes; this has both.");
    }
    byte[] body;
    try {
      body =
          encoded.isPresent()
              ? Base64.getDecoder().decode(encoded.get())
              : fields.requiredText("body").getBytes(StandardCharsets.UTF_8);
    } catch (IllegalArgumentException e) {
      throw ApiError.invalid("body_base64", "body_base64 is not base64.");
    }
    return new Queue.Outgoing(
        fields.text("key").orElse(""),
        body,
        fields.text("dedup_id"),
        Duration.ofMillis(fields.integer("delay_ms", 0, MOST_DELAY_MS).orElse(0L)),
        fields.integer("priority", 0, 0, 9));
  }

  private void receive(Exchange exchange, String name) throws InterruptedException {
    Fields fields = exchange.json();
    List<Queue.Message> messages =
        existing(name)
            .receive(
                fields.text("group").orElse(Queue.DEFAULT_GROUP),
                fields.text("consumer").orElse(""),
                fields.integer("max", 1, 1, Queue.BATCH_MAX),
                Duration.ofMillis(
                    fields.integer("visibility_ms", 100, 43_200_000).orElse(VISIBILITY_MS)),
                Duration.ofMillis(fields.integer("wait_ms", 0, 600_000).orElse(0L)));
    ArrayNode answer = Json.MAPPER.createArrayNode();
    for (Queue.Message message : messages) {
      ObjectNode node = answer.addObject();
      node.put("id", message.id());
      node.put("receipt", message.receipt());
      node.put("key", message.key());
      putBody(node, message.body());
      node.put("attempt", message.attempt());
    }
    exchange.send(200, answer);
  }

  private static void putBody(ObjectNode node, byte[] body) {
    try {
      node.put(
          "body", StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(body)).toString());
    } catch (CharacterCodingException notText) {
      node.put("body_base64", Base64.getEncoder().encodeToString(body));
    }
  }

  private static List<String> receipts(Fields fields) {
    List<String> receipts = new ArrayList<>();
    JsonNode node =
        fields
            .node("receipts")
            .orElseThrow(() -> ApiError.missing("receipts", ", as an array of strings"));
    if (!node.isArray()) {
      throw ApiError.invalid("receipts", "receipts must be an array.");
    }
    for (JsonNode receipt : node) {
      if (!receipt.isTextual()) {
        throw ApiError.invalid("receipts", "each receipt must be a string.");
      }
      receipts.add(receipt.asText());
    }
    return receipts;
  }

  private void acknowledge(Exchange exchange, String name) {
    Fields fields = exchange.json();
    List<String> receipts = receipts(fields);
    existing(name).acknowledge(receipts, LocksApi.fence(fields));
    exchange.send(200, Json.MAPPER.createObjectNode().put("acknowledged", receipts.size()));
  }

  private void giveBack(Exchange exchange, String name) {
    Fields fields = exchange.json();
    List<String> receipts = receipts(fields);
    existing(name)
        .giveBack(
            receipts, Duration.ofMillis(fields.integer("delay_ms", 0, MOST_DELAY_MS).orElse(0L)));
    exchange.send(200, Json.MAPPER.createObjectNode().put("given_back", receipts.size()));
  }

  private void stats(Exchange exchange, String name) {
    Queue.Stats stats = existing(name).stats();
    ObjectNode answer = Json.MAPPER.createObjectNode();
    answer.put("queue", stats.queue());
    answer.put("sent", stats.sent());
    QueueConfig config = stats.config();
    answer
        .putObject("config")
        .put("partitions", config.partitions())
        .put("depth_max", config.depthMax())
        .put("attempts_max", config.attemptsMax())
        .put("retention_ms", config.retentionMs())
        .put("dedup_ms", config.dedupMs());
    ArrayNode groups = answer.putArray("groups");
    for (Queue.GroupStats group : stats.groups()) {
      groups
          .addObject()
          .put("group", group.group())
          .put("depth", group.depth())
          .put("in_flight", group.inFlight())
          .put("dead", group.dead());
    }
    exchange.send(200, answer);
  }

  private void dead(Exchange exchange, String name) {
    ArrayNode answer = Json.MAPPER.createArrayNode();
    for (Queue.Dead dead : existing(name).dead(MOST_DEAD)) {
      ObjectNode node = answer.addObject();
      node.put("id", dead.id());
      node.put("group", dead.group());
      node.put("key", dead.key());
      putBody(node, dead.body());
      node.put("died_at_ms", dead.diedAtMs());
    }
    exchange.send(200, answer);
  }

  private void redrive(Exchange exchange, String name) {
    int again = existing(name).redrive(exchange.json().integer("max", MOST_DEAD, 1, MOST_DEAD));
    exchange.send(200, Json.MAPPER.createObjectNode().put("redriven", again));
  }

  private void replay(Exchange exchange, String name) {
    Fields fields = exchange.json();
    String group = fields.text("group").orElse(Queue.DEFAULT_GROUP);
    existing(name).replay(group, fields.integer("from_ms", 0, Long.MAX_VALUE).orElse(0L));
    exchange.send(200, Json.MAPPER.createObjectNode().put("queue", name).put("group", group));
  }
}

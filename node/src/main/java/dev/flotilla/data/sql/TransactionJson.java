package dev.flotilla.data.sql;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.UnknownFieldException;
import dev.flotilla.data.sql.Transactions.Outcome;
import dev.flotilla.data.sql.Transactions.Participant;
import dev.flotilla.data.sql.Transactions.State;
import dev.flotilla.data.sql.Transactions.Step;
import dev.flotilla.data.sql.Transactions.StepDone;
import dev.flotilla.data.sql.Transactions.StepResult;
import dev.flotilla.data.sql.Transactions.View;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/**
 * Transactions in JSON. A step is one of
 *
 * <pre>
 * {"statement","arguments"}
 * {"put":{"cache","key","value"}}    value as text, or "value_base64"
 * {"get":{"cache","key"}}
 * {"remove":{"cache","key"}}
 * {"send":{"queue","key","body"}}    body as text, or "body_base64"
 * {"ack":{"queue","receipts":[…]}}
 * </pre>
 *
 * and its result what a statement returns, or {@code {"value_base64"}}.
 */
public final class TransactionJson {

  private TransactionJson() {}

  /** The steps of a transaction as a client sends them; an error says which is wrong. */
  public static List<Step> steps(JsonNode json) {
    List<Step> steps = new ArrayList<>();
    for (JsonNode one : json) {
      try {
        steps.add(step(one));
      } catch (UnknownFieldException e) {
        throw e.in("steps[" + steps.size() + "]");
      } catch (FlotillaException e) {
        throw new FlotillaException(
            e.code(), "step " + (steps.size() + 1) + ": " + e.getMessage(), e.remedy(), e);
      }
    }
    return steps;
  }

  /** A step as a client sends it. */
  public static Step step(JsonNode json) {
    if (json.has("statement")) {
      only(json, "", "statement", "arguments");
      List<@Nullable Object> arguments = new ArrayList<>();
      JsonNode sent = json.path("arguments");
      if (!sent.isArray() && !sent.isMissingNode() && !sent.isNull()) {
        throw wrong("arguments must be an array", "");
      }
      sent.forEach(argument -> arguments.add(SqlValues.argument(argument)));
      return new Step.Statement(text(json, "statement"), arguments);
    }
    String kind = json.size() == 1 ? json.fieldNames().next() : "";
    JsonNode what = json.path(kind);
    if (json.size() == 1 && !KINDS.contains(kind)) {
      List<String> known = new ArrayList<>(KINDS);
      known.addFirst("statement");
      throw new UnknownFieldException(kind, known);
    }
    if (!KINDS.contains(kind)) {
      throw wrong(
          "it must be an object with one of statement, " + String.join(", ", KINDS),
          "Such as {\"get\":{\"cache\":\"NAME\",\"key\":\"KEY\"}}.");
    }
    if (!what.isObject()) {
      throw wrong(kind + " must be an object", "");
    }
    return switch (kind) {
      case "put" -> {
        only(what, kind, "cache", "key", "value", "value_base64");
        yield new Step.Put(
            text(what, "cache"), text(what, "key"), Optional.of(bytes(what, "value")));
      }
      case "remove" -> {
        only(what, kind, "cache", "key");
        yield new Step.Put(text(what, "cache"), text(what, "key"), Optional.empty());
      }
      case "get" -> {
        only(what, kind, "cache", "key");
        yield new Step.Get(text(what, "cache"), text(what, "key"));
      }
      case "send" -> {
        only(what, kind, "queue", "key", "body", "body_base64");
        yield new Step.Send(text(what, "queue"), text(what, "key"), bytes(what, "body"));
      }
      default -> {
        only(what, kind, "queue", "receipts");
        yield new Step.Acknowledge(text(what, "queue"), receipts(what.path("receipts")));
      }
    };
  }

  private static final List<String> KINDS = List.of("put", "get", "remove", "send", "ack");

  private static List<String> receipts(JsonNode sent) {
    List<String> receipts = new ArrayList<>();
    for (JsonNode receipt : sent) {
      if (receipt.isTextual()) {
        receipts.add(receipt.textValue());
      }
    }
    if (!sent.isArray() || receipts.isEmpty() || receipts.size() < sent.size()) {
      throw wrong("receipts must be an array of strings, one at least", "");
    }
    return receipts;
  }

  private static FlotillaException wrong(String complaint, String remedy) {
    return new FlotillaException(Code.INVALID, complaint, remedy);
  }

  private static void only(JsonNode json, String where, String... known) {
    for (Map.Entry<String, JsonNode> field : json.properties()) {
      if (!List.of(known).contains(field.getKey())) {
        UnknownFieldException unknown = new UnknownFieldException(field.getKey(), List.of(known));
        throw where.isEmpty() ? unknown : unknown.in(where);
      }
    }
  }

  private static String text(JsonNode json, String name) {
    if (!json.path(name).isTextual()) {
      throw wrong(name + " is required, as a string", "");
    }
    return json.path(name).textValue();
  }

  private static byte[] bytes(JsonNode json, String name) {
    if (!json.has(name + "_base64")) {
      return text(json, name).getBytes(StandardCharsets.UTF_8);
    }
    if (json.has(name)) {
      throw wrong("it has both " + name + " and " + name + "_base64", "Give one of them.");
    }
    try {
      return Base64.getDecoder().decode(text(json, name + "_base64"));
    } catch (IllegalArgumentException e) {
      throw new FlotillaException(Code.INVALID, name + "_base64 is not base64", "Encode it so.", e);
    }
  }

  /** The inverse of {@link #step}. */
  public static JsonNode toJson(Step step) {
    ObjectNode json = Json.MAPPER.createObjectNode();
    switch (step) {
      case Step.Statement statement -> {
        json.put("statement", statement.statement());
        ArrayNode arguments = json.putArray("arguments");
        statement.arguments().forEach(each -> arguments.add(SqlValues.argumentToJson(each)));
      }
      case Step.Put put -> {
        ObjectNode object = json.putObject(put.value().isPresent() ? "put" : "remove");
        object.put("cache", put.cache()).put("key", put.key());
        put.value().ifPresent(value -> object.put("value_base64", base64(value)));
      }
      case Step.Get get -> json.putObject("get").put("cache", get.cache()).put("key", get.key());
      case Step.Send send ->
          json.putObject("send")
              .put("queue", send.queue())
              .put("key", send.key())
              .put("body_base64", base64(send.body()));
      case Step.Acknowledge acknowledge -> {
        ArrayNode receipts =
            json.putObject("ack").put("queue", acknowledge.queue()).putArray("receipts");
        acknowledge.receipts().forEach(receipts::add);
      }
    }
    return json;
  }

  private static String base64(byte[] bytes) {
    return Base64.getEncoder().encodeToString(bytes);
  }

  /** What a step brought. */
  public static JsonNode toJson(StepResult result) {
    if (result.sql().isPresent()) {
      return SqlValues.toJson(result.sql().get());
    }
    ObjectNode json = Json.MAPPER.createObjectNode();
    result
        .value()
        .ifPresentOrElse(
            value -> json.put("value_base64", base64(value)), () -> json.putNull("value_base64"));
    return json;
  }

  /** The inverse of {@link #toJson(StepResult)}. */
  public static StepResult result(JsonNode json) {
    if (json.has("columns")) {
      return new StepResult(Optional.of(SqlValues.resultFromJson(json)), Optional.empty());
    }
    JsonNode value = json.path("value_base64");
    return new StepResult(
        Optional.empty(),
        value.isTextual()
            ? Optional.of(Base64.getDecoder().decode(value.asText()))
            : Optional.empty());
  }

  /** {@code {"id","results","repeated"}}. */
  public static ObjectNode toJson(Outcome outcome) {
    ObjectNode json = Json.MAPPER.createObjectNode().put("id", outcome.id());
    json.set("results", results(outcome.results()));
    return json.put("repeated", outcome.repeated());
  }

  static ArrayNode results(List<StepResult> results) {
    ArrayNode json = Json.MAPPER.createArrayNode();
    results.forEach(result -> json.add(toJson(result)));
    return json;
  }

  static List<StepResult> results(JsonNode json) {
    List<StepResult> results = new ArrayList<>();
    json.forEach(result -> results.add(result(result)));
    return results;
  }

  /** The inverse of {@link #toJson(Outcome)}. */
  public static Outcome outcome(JsonNode json) {
    return new Outcome(
        json.path("id").asText(), results(json.path("results")), json.path("repeated").asBoolean());
  }

  /** A transaction as seen from outside. */
  public static ObjectNode toJson(View view) {
    ObjectNode json =
        Json.MAPPER
            .createObjectNode()
            .put("id", view.id())
            .put("mode", lower(view.mode()))
            .put("state", lower(view.state()))
            .put("originator", view.originator())
            .put("started_at_ms", view.startedAtMs());
    view.endedAtMs()
        .ifPresentOrElse(at -> json.put("ended_at_ms", at), () -> json.putNull("ended_at_ms"));
    json.put("error", view.error());
    ArrayNode participants = json.putArray("participants");
    for (Participant participant : view.participants()) {
      ArrayNode partitions =
          participants.addObject().put("node", participant.node()).putArray("partitions");
      participant.partitions().forEach(partitions::add);
    }
    ArrayNode steps = json.putArray("steps");
    view.steps()
        .forEach(step -> steps.addObject().put("what", step.what()).put("at_ms", step.atMs()));
    return json;
  }

  /** The inverse of {@link #toJson(View)}. */
  public static View view(JsonNode json) {
    List<Participant> participants = new ArrayList<>();
    for (JsonNode each : json.path("participants")) {
      List<String> partitions = new ArrayList<>();
      each.path("partitions").forEach(partition -> partitions.add(partition.asText()));
      participants.add(new Participant(each.path("node").asText(), partitions));
    }
    List<StepDone> steps = new ArrayList<>();
    json.path("steps")
        .forEach(
            step ->
                steps.add(new StepDone(step.path("what").asText(), step.path("at_ms").asLong())));
    return new View(
        json.path("id").asText(),
        mode(json.path("mode").asText()),
        State.valueOf(json.path("state").asText().toUpperCase(Locale.ROOT)),
        json.path("originator").asText(),
        json.path("started_at_ms").asLong(),
        json.path("ended_at_ms").isNumber()
            ? Optional.of(json.path("ended_at_ms").asLong())
            : Optional.empty(),
        json.path("error").asText(),
        participants,
        steps);
  }

  private static String lower(Enum<?> value) {
    return value.name().toLowerCase(Locale.ROOT);
  }

  /** A mode by its name in JSON, such as {@code pessimistic}. */
  public static Transactions.Mode mode(String name) {
    for (Transactions.Mode mode : Transactions.Mode.values()) {
      if (lower(mode).equals(name)) {
        return mode;
      }
    }
    throw new FlotillaException(
        Code.INVALID,
        "there is no mode of transactions " + name,
        "Choose pessimistic, read_committed or optimistic.");
  }
}

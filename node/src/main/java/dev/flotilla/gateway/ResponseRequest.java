package dev.flotilla.gateway;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.Json;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Predicate;

/**
 * The fields of a request to {@code POST /v1/responses}.
 *
 * @param sampling what {@link GenerationOptions} reads, under the names that it knows
 * @param format what {@code text.format} asks for
 * @param messages of this request, without those of the response that it goes on from
 */
record ResponseRequest(
    String model,
    Optional<String> instructions,
    JsonNode format,
    List<Map<String, String>> messages,
    Optional<String> previous,
    Optional<Integer> maxTokens,
    ObjectNode metadata,
    boolean store,
    Fields sampling) {

  private static final int METADATA_MAX = 16;
  private static final int METADATA_KEY_MAX = 64;
  private static final int METADATA_VALUE_MAX = 512;

  /** What would change the answer and is not there, with the values that change nothing. */
  private static final Map<String, Predicate<JsonNode>> UNSUPPORTED =
      Map.ofEntries(
          Map.entry("background", ResponseRequest::isFalse),
          Map.entry("conversation", v -> false),
          Map.entry("prompt", v -> false),
          Map.entry("include", JsonNode::isEmpty),
          Map.entry("max_tool_calls", v -> true),
          Map.entry("tools", JsonNode::isEmpty),
          Map.entry("tool_choice", v -> isText(v, "auto") || isText(v, "none")),
          Map.entry("truncation", v -> isText(v, "disabled")),
          Map.entry("reasoning", ResponseRequest::isWithoutValues),
          Map.entry("top_logprobs", v -> v.isInt() && v.intValue() == 0),
          Map.entry("n", v -> v.isInt() && v.intValue() == 1));

  private static boolean isFalse(JsonNode value) {
    return value.isBoolean() && !value.booleanValue();
  }

  private static boolean isText(JsonNode value, String text) {
    return value.isTextual() && value.textValue().equals(text);
  }

  private static boolean isWithoutValues(JsonNode value) {
    return value.isObject() && value.properties().stream().allMatch(f -> f.getValue().isNull());
  }

  /** What {@link GenerationOptions} may read as it is. */
  private static final List<String> SHARED =
      List.of("temperature", "top_p", "top_k", "seed", "stop", "priority", "ignore_eos", "stream");

  /**
   * Reads and checks all but the sampling.
   *
   * @throws ApiError 400 naming the field that is wrong or not supported
   */
  static ResponseRequest read(Fields fields) {
    UNSUPPORTED.forEach(
        (name, harmless) ->
            fields
                .node(name)
                .filter(harmless.negate())
                .ifPresent(
                    value -> {
                      throw ApiError.unsupported(
                          name, name + " is not supported with this value; leave it out.");
                    }));
    Optional<Integer> maxTokens =
        fields.integer("max_output_tokens", 1, Integer.MAX_VALUE).map(Long::intValue);
    ObjectNode sampling = Json.MAPPER.createObjectNode();
    SHARED.forEach(name -> fields.node(name).ifPresent(value -> sampling.set(name, value)));
    Optional<Fields> format =
        fields.object("text").flatMap(text -> onlyFormat(text).object("format"));
    format
        .flatMap(f -> AnswerGrammar.ofFormat(f, format))
        .ifPresent(gbnf -> sampling.put("grammar", gbnf));
    Optional<String> previous = fields.text("previous_response_id");
    return new ResponseRequest(
        fields.requiredText("model"),
        fields.text("instructions"),
        format
            .map(Fields::tree)
            .orElseGet(() -> Json.MAPPER.createObjectNode().put("type", "text")),
        input(fields),
        previous,
        maxTokens,
        metadata(fields),
        fields.flag("store", true),
        Fields.whole(sampling));
  }

  private static Fields onlyFormat(Fields text) {
    text.tree()
        .fieldNames()
        .forEachRemaining(
            name -> {
              if (!name.equals("format")) {
                throw ApiError.unsupported(
                    text.path(name), text.path(name) + " is not supported; leave it out.");
              }
            });
    return text;
  }

  private static ObjectNode metadata(Fields fields) {
    ObjectNode metadata = Json.MAPPER.createObjectNode();
    Optional<JsonNode> given = fields.node("metadata");
    if (given.isEmpty()) {
      return metadata;
    }
    boolean wellFormed =
        given.get().isObject()
            && given.get().size() <= METADATA_MAX
            && given.get().properties().stream()
                .allMatch(
                    field ->
                        field.getKey().length() <= METADATA_KEY_MAX
                            && field.getValue().isTextual()
                            && field.getValue().textValue().length() <= METADATA_VALUE_MAX);
    if (!wellFormed) {
      throw ApiError.invalid(
          "metadata",
          "metadata must be an object of up to "
              + METADATA_MAX
              + " strings of up to "
              + METADATA_VALUE_MAX
              + " characters, with names of up to "
              + METADATA_KEY_MAX
              + ".");
    }
    given.get().properties().forEach(field -> metadata.set(field.getKey(), field.getValue()));
    return metadata;
  }

  private static List<Map<String, String>> input(Fields fields) {
    JsonNode input = fields.node("input").orElseThrow(() -> ApiError.missing("input"));
    if (input.isTextual()) {
      return List.of(Map.of("role", "user", "content", input.textValue()));
    }
    if (!input.isArray() || input.isEmpty()) {
      throw ApiError.invalid(
          "input", "input must be a string, or an array of at least one message.");
    }
    List<Map<String, String>> messages = new ArrayList<>();
    for (int i = 0; i < input.size(); i++) {
      String path = "input[" + i + "]";
      JsonNode item = input.get(i);
      if (!isText(item.path("type"), "message") && item.hasNonNull("type")) {
        throw ApiError.unsupported(path + ".type", "Only items of type message are supported.");
      }
      messages.add(ChatMessages.message(item, path, List.of("input_text", "output_text", "text")));
    }
    return messages;
  }

  /** The fields of the response that repeat the request. */
  ObjectNode asked(GenerationOptions options) {
    ObjectNode asked = Json.MAPPER.createObjectNode();
    instructions.ifPresentOrElse(
        text -> asked.put("instructions", text), () -> asked.putNull("instructions"));
    maxTokens.ifPresentOrElse(
        most -> asked.put("max_output_tokens", most), () -> asked.putNull("max_output_tokens"));
    asked.set("metadata", metadata);
    asked.put("parallel_tool_calls", true);
    previous.ifPresentOrElse(
        id -> asked.put("previous_response_id", id), () -> asked.putNull("previous_response_id"));
    asked.putObject("reasoning").putNull("effort").putNull("summary");
    asked.put("store", store);
    asked.put("temperature", options.sampling().temperature());
    asked.putObject("text").set("format", format);
    asked.put("tool_choice", "auto");
    asked.putArray("tools");
    asked.put("top_p", options.sampling().topP());
    asked.put("truncation", "disabled");
    return asked;
  }
}

package dev.flotilla.gateway;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.Json;
import java.util.List;
import java.util.Map;

/**
 * What a request for a response asks for beside its tokens; with them, all that makes the response.
 *
 * @param id of the response, {@code resp_…}
 * @param asked the fields of the response that repeat the request: {@code instructions}, {@code
 *     metadata} and so on
 * @param messages of the conversation up to the answer, those of earlier responses included,
 *     instructions not
 * @param store whether it is kept when it is complete
 */
record ResponseForm(
    String id, ObjectNode asked, List<Map<String, String>> messages, boolean store) {

  static final String PREFIX = "resp_";

  private static final String MESSAGE_PREFIX = "msg_";

  /** The id of its one output item. */
  String messageId() {
    return MESSAGE_PREFIX + id.substring(PREFIX.length());
  }

  private ObjectNode object(long createdS, String model, String status) {
    ObjectNode response = Json.MAPPER.createObjectNode();
    response.put("id", id);
    response.put("object", "response");
    response.put("created_at", createdS);
    response.put("status", status);
    response.put("background", false);
    response.putNull("error");
    response.putNull("incomplete_details");
    response.put("model", model);
    response.setAll(asked);
    response.putArray("output");
    response.putNull("usage");
    return response;
  }

  /** The response while it is made. */
  ObjectNode inProgress(AnswerFormat.Head head) {
    return object(head.createdS(), head.model(), "in_progress");
  }

  /**
   * The response at its end.
   *
   * @param finishReason {@code stop}, or {@code length}: then it is incomplete
   */
  ObjectNode complete(
      AnswerFormat.Head head, String text, String finishReason, int promptTokens, int tokens) {
    String status = status(finishReason);
    ObjectNode response = object(head.createdS(), head.model(), status);
    if (status.equals("incomplete")) {
      response.putObject("incomplete_details").put("reason", "max_output_tokens");
    }
    response.putArray("output").add(message(status, text));
    ObjectNode usage = response.putObject("usage");
    usage.put("input_tokens", promptTokens);
    usage.putObject("input_tokens_details").put("cached_tokens", 0);
    usage.put("output_tokens", tokens);
    usage.putObject("output_tokens_details").put("reasoning_tokens", 0);
    usage.put("total_tokens", promptTokens + tokens);
    return response;
  }

  static String status(String finishReason) {
    return finishReason.equals("length") ? "incomplete" : "completed";
  }

  /** The output item before its text. */
  ObjectNode emptyMessage() {
    ObjectNode item = item("in_progress");
    item.putArray("content");
    return item;
  }

  /** The output item with its text. */
  ObjectNode message(String status, String text) {
    ObjectNode item = item(status);
    item.putArray("content").add(part(text));
    return item;
  }

  private ObjectNode item(String status) {
    return Json.MAPPER
        .createObjectNode()
        .put("type", "message")
        .put("id", messageId())
        .put("status", status)
        .put("role", "assistant");
  }

  /** The only part of the message's content. */
  static ObjectNode part(String text) {
    ObjectNode part = Json.MAPPER.createObjectNode().put("type", "output_text").put("text", text);
    part.putArray("annotations");
    part.putArray("logprobs");
    return part;
  }
}

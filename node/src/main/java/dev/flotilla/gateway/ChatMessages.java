package dev.flotilla.gateway;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** Reads the {@code messages} of a chat request. */
final class ChatMessages {

  private static final List<String> PARTS = List.of("text");

  private ChatMessages() {}

  /**
   * Reads them as a chat template takes them: each with {@code role} and {@code content}.
   *
   * @throws ApiError 400 naming the part that is wrong, such as {@code messages[2].content}
   */
  static List<Map<String, String>> read(Fields fields) {
    JsonNode messages =
        fields
            .node("messages")
            .filter(node -> node.isArray() && !node.isEmpty())
            .orElseThrow(
                () ->
                    ApiError.invalid(
                        "messages", "messages is required, as an array of at least one message."));
    List<Map<String, String>> read = new ArrayList<>();
    for (int i = 0; i < messages.size(); i++) {
      read.add(message(messages.get(i), "messages[" + i + "]", PARTS));
    }
    return read;
  }

  /**
   * One message.
   *
   * @param parts types of the parts of its content that hold text
   */
  static Map<String, String> message(JsonNode message, String path, List<String> parts) {
    if (!message.isObject()) {
      throw ApiError.invalid(path, path + " must be an object with role and content.");
    }
    String role = message.path("role").asText();
    switch (role) {
      case "system", "user", "assistant" -> {}
      case "developer" -> role = "system";
      case "tool", "function" ->
          throw ApiError.unsupported(path + ".role", "Tools are not supported.");
      default ->
          throw ApiError.invalid(
              path + ".role", path + ".role must be system, developer, user or assistant.");
    }
    if (message.hasNonNull("tool_calls") && !message.get("tool_calls").isEmpty()) {
      throw ApiError.unsupported(path + ".tool_calls", "Tools are not supported.");
    }
    return Map.of(
        "role", role, "content", content(message.path("content"), path + ".content", parts));
  }

  private static String content(JsonNode content, String path, List<String> parts) {
    if (content.isTextual()) {
      return content.textValue();
    }
    if (!content.isArray()) {
      throw ApiError.invalid(path, path + " must be a string or an array of text parts.");
    }
    StringBuilder text = new StringBuilder();
    for (int i = 0; i < content.size(); i++) {
      JsonNode part = content.get(i);
      String partPath = path + "[" + i + "]";
      if (!parts.contains(part.path("type").asText())) {
        throw ApiError.unsupported(
            partPath + ".type",
            "Only parts of type " + String.join(", ", parts) + " are supported.");
      }
      if (!part.path("text").isTextual()) {
        throw ApiError.invalid(partPath + ".text", partPath + ".text must be a string.");
      }
      text.append(part.get("text").textValue());
    }
    return text.toString();
  }
}

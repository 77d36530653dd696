package dev.flotilla.gateway;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.Json;
import java.util.List;

/** How an answer looks on the wire: OpenAI's chat completions, or its older completions. */
sealed interface AnswerFormat {

  /** What is the same in every object of one answer. */
  record Head(String id, long createdS, String model) {

    ObjectNode object(String type) {
      ObjectNode object = Json.MAPPER.createObjectNode();
      object.put("id", id);
      object.put("object", type);
      object.put("created", createdS);
      object.put("model", model);
      return object;
    }
  }

  /** One finished choice. */
  record Choice(String text, String finishReason) {}

  /** The chunk that opens a choice. */
  ObjectNode opening(int choice);

  /** A chunk with more text. */
  ObjectNode delta(int choice, String text);

  /** The chunk that closes a choice. */
  ObjectNode closing(int choice, String finishReason);

  /** The last chunk, for clients that asked for usage. */
  ObjectNode usageChunk(int promptTokens, int completionTokens);

  /** The whole answer at once. */
  ObjectNode whole(List<Choice> choices, int promptTokens, int completionTokens);

  /** Adds a {@code usage} object. */
  static ObjectNode withUsage(ObjectNode object, int promptTokens, int completionTokens) {
    object
        .putObject("usage")
        .put("prompt_tokens", promptTokens)
        .put("completion_tokens", completionTokens)
        .put("total_tokens", promptTokens + completionTokens);
    return object;
  }

  private static ObjectNode onlyChoice(ObjectNode chunk, int choice) {
    return chunk.putArray("choices").addObject().put("index", choice);
  }

  /** {@code /v1/chat/completions}. */
  record Chat(Head head) implements AnswerFormat {

    private ObjectNode chunk() {
      return head.object("chat.completion.chunk");
    }

    @Override
    public ObjectNode opening(int choice) {
      ObjectNode chunk = chunk();
      ObjectNode only = onlyChoice(chunk, choice);
      only.putObject("delta").put("role", "assistant").put("content", "");
      only.putNull("finish_reason");
      return chunk;
    }

    @Override
    public ObjectNode delta(int choice, String text) {
      ObjectNode chunk = chunk();
      ObjectNode only = onlyChoice(chunk, choice);
      only.putObject("delta").put("content", text);
      only.putNull("finish_reason");
      return chunk;
    }

    @Override
    public ObjectNode closing(int choice, String finishReason) {
      ObjectNode chunk = chunk();
      ObjectNode only = onlyChoice(chunk, choice);
      only.putObject("delta");
      only.put("finish_reason", finishReason);
      return chunk;
    }

    @Override
    public ObjectNode usageChunk(int promptTokens, int completionTokens) {
      ObjectNode chunk = chunk();
      chunk.putArray("choices");
      return withUsage(chunk, promptTokens, completionTokens);
    }

    @Override
    public ObjectNode whole(List<Choice> choices, int promptTokens, int completionTokens) {
      ObjectNode whole = head.object("chat.completion");
      ArrayNode array = whole.putArray("choices");
      for (int i = 0; i < choices.size(); i++) {
        ObjectNode choice = array.addObject().put("index", i);
        choice.putObject("message").put("role", "assistant").put("content", choices.get(i).text());
        choice.put("finish_reason", choices.get(i).finishReason());
      }
      return withUsage(whole, promptTokens, completionTokens);
    }
  }

  /**
   * {@code /v1/completions}.
   *
   * @param echoes text to put before each choice; empty strings where none was asked for
   */
  record Completion(Head head, List<String> echoes) implements AnswerFormat {

    private ObjectNode chunk(int choice, String text) {
      ObjectNode chunk = head.object("text_completion");
      onlyChoice(chunk, choice).put("text", text).putNull("finish_reason");
      return chunk;
    }

    @Override
    public ObjectNode opening(int choice) {
      return chunk(choice, echoes.get(choice));
    }

    @Override
    public ObjectNode delta(int choice, String text) {
      return chunk(choice, text);
    }

    @Override
    public ObjectNode closing(int choice, String finishReason) {
      ObjectNode chunk = head.object("text_completion");
      onlyChoice(chunk, choice).put("text", "").put("finish_reason", finishReason);
      return chunk;
    }

    @Override
    public ObjectNode usageChunk(int promptTokens, int completionTokens) {
      ObjectNode chunk = head.object("text_completion");
      chunk.putArray("choices");
      return withUsage(chunk, promptTokens, completionTokens);
    }

    @Override
    public ObjectNode whole(List<Choice> choices, int promptTokens, int completionTokens) {
      ObjectNode whole = head.object("text_completion");
      ArrayNode array = whole.putArray("choices");
      for (int i = 0; i < choices.size(); i++) {
        array
            .addObject()
            .put("index", i)
            .put("text", echoes.get(i) + choices.get(i).text())
            .put("finish_reason", choices.get(i).finishReason());
      }
      return withUsage(whole, promptTokens, completionTokens);
    }
  }
}

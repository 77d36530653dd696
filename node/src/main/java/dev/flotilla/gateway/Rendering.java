package dev.flotilla.gateway;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.gateway.AnswerFormat.Choice;
import dev.flotilla.gateway.AnswerFormat.Head;
import java.util.List;
import java.util.Objects;
import java.util.Optional;

/**
 * How an answer is written: with its tokens, all that makes the bytes that its client reads. It
 * goes along with the answer's value, so that any node can go on writing it.
 *
 * @param endpoint of OpenAI's, which began it
 * @param form what of the model determines its tokens, as {@link ServedModel#form}
 * @param stops texts that end it
 * @param echoes what is before each choice of a completion
 * @param usage whether its client wants the figures at the end
 * @param cacheKey where it is in the cache of answers; empty if it is to be neither found nor kept
 *     there
 * @param repeated whether it came from there
 * @param response of the endpoint for responses: what makes one
 */
record Rendering(
    Endpoint endpoint,
    Head head,
    String form,
    int promptTokens,
    List<String> stops,
    List<String> echoes,
    boolean usage,
    String cacheKey,
    boolean repeated,
    Optional<ResponseForm> response) {

  /** Fills in what answers of earlier versions do not have. */
  Rendering {
    response = Objects.requireNonNullElse(response, Optional.empty());
  }

  /** Where a request came in. */
  enum Endpoint {
    CHAT,
    COMPLETIONS,
    RESPONSES
  }

  /** The same, with what the cache of answers says of it. */
  Rendering cached(String key, boolean found) {
    return new Rendering(
        endpoint, head, form, promptTokens, stops, echoes, usage, key, found, response);
  }

  /** How its chunks look; responses have events of their own. */
  AnswerFormat format() {
    return switch (endpoint) {
      case CHAT -> new AnswerFormat.Chat(head);
      case COMPLETIONS -> new AnswerFormat.Completion(head, echoes);
      case RESPONSES -> throw new IllegalStateException("a response has no chunks");
    };
  }

  /** The whole answer at once. */
  ObjectNode whole(List<Choice> choices, int tokens) {
    return response
        .map(
            form ->
                form.complete(
                    head,
                    choices.getFirst().text(),
                    choices.getFirst().finishReason(),
                    promptTokens,
                    tokens))
        .orElseGet(() -> format().whole(choices, promptTokens, tokens));
  }
}

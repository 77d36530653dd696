package dev.flotilla.gateway;

import dev.flotilla.model.Pooling;
import dev.flotilla.serve.Deployments.ModelView;
import dev.flotilla.text.ModelText;
import java.util.Map;
import java.util.Optional;

/**
 * A deployed model in use by one request, with all that is needed to talk to it.
 *
 * @param computed how, in the terms of {@code Deployments.Wanted.form}
 * @param sampling what its files recommend
 * @param pooling how it embeds; empty if it is not made to
 * @param release called when the request no longer needs the tokenizer
 */
record ServedModel(
    ModelView view,
    String computed,
    ModelText text,
    DefaultSampling sampling,
    Optional<Pooling> pooling,
    Runnable release)
    implements AutoCloseable {

  /** Sampling for requests that do not say. */
  record DefaultSampling(double temperature, double topP, int topK) {

    static DefaultSampling of(Map<String, Object> metadata) {
      return new DefaultSampling(
          number(metadata, "general.sampling.temp", 1),
          number(metadata, "general.sampling.top_p", 1),
          (int) number(metadata, "general.sampling.top_k", 0));
    }

    private static double number(Map<String, Object> metadata, String key, double otherwise) {
      return metadata.get(key) instanceof Number n ? n.doubleValue() : otherwise;
    }
  }

  @Override
  public void close() {
    release.run();
  }

  String name() {
    return view.name();
  }

  /** What of the model determines its answers: its weights, and how it computes. */
  String form() {
    return view.digest() + " " + computed;
  }

  int contextLength() {
    return view.config().contextLength();
  }

  /**
   * How many tokens can follow a prompt.
   *
   * @throws ApiError 400 if the prompt leaves no room for any
   */
  int roomAfter(int promptTokens, String param) {
    int room = contextLength() - promptTokens;
    if (room < 1) {
      throw new ApiError(
          400,
          "context_length_exceeded",
          Optional.of(param),
          "The prompt has "
              + promptTokens
              + " tokens, but the context of "
              + name()
              + " is "
              + contextLength()
              + " tokens, at least one of them for the answer. Shorten the prompt.");
    }
    return room;
  }
}

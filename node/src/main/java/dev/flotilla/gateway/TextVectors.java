package dev.flotilla.gateway;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.serve.Claim;
import dev.flotilla.serve.Priority;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Supplier;

/** Vectors for documents and queries, of texts as they are. */
final class TextVectors {

  private final ServedModels models;
  private final Embeddings embeddings;
  private final Supplier<String> ids;

  /**
   * @param ids of requests, unique in the cluster
   */
  TextVectors(ServedModels models, Embeddings embeddings, Supplier<String> ids) {
    this.models = models;
    this.embeddings = embeddings;
    this.ids = ids;
  }

  /** A model that can be used by name while this is open. */
  ServedModel open(String model) {
    return models.open(model);
  }

  /**
   * The tokens of a text.
   *
   * @throws FlotillaException {@code INVALID} if it is empty, {@code TOO_LARGE} if it does not fit
   *     the model's context
   */
  static int[] tokens(ServedModel model, String text) {
    int[] tokens = text.isEmpty() ? new int[0] : model.text().encode(text);
    if (tokens.length == 0) {
      throw new FlotillaException(Code.INVALID, "there is no text to embed", "Give some.");
    }
    if (tokens.length > model.contextLength()) {
      throw new FlotillaException(
          Code.TOO_LARGE,
          "a text has "
              + tokens.length
              + " tokens, and the context of "
              + model.name()
              + " holds "
              + model.contextLength(),
          "Cut it in pieces.");
    }
    return tokens;
  }

  /** Embeds, behind those who wait for an answer. */
  List<float[]> embed(ServedModel model, List<int[]> texts) throws InterruptedException {
    Claim claim = new Claim("", Priority.LOW);
    try (Embeddings.Task task = embeddings.task(ids.get(), model, texts, claim, true)) {
      return task.run().vectors();
    }
  }

  /** Embeds for a client, as long as it waits. */
  List<float[]> embed(Exchange exchange, String name, List<String> texts)
      throws InterruptedException {
    try (ServedModel model = open(name)) {
      List<int[]> tokens = new ArrayList<>();
      for (String text : texts) {
        tokens.add(tokens(model, text));
      }
      Claim claim = new Claim(exchange.keyName(), Priority.NORMAL);
      try (Embeddings.Task task = embeddings.task(ids.get(), model, tokens, claim, true);
          DisconnectWatch _ =
              DisconnectWatch.open(exchange.request(), () -> task.abandon("the client left"))) {
        return task.run().vectors();
      }
    }
  }
}

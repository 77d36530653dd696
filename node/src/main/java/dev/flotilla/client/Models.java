package dev.flotilla.client;

import com.fasterxml.jackson.databind.JsonNode;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Map;

/** The cluster's models, by its HTTP API. */
public final class Models {

  /**
   * A model.
   *
   * @param digest of its file, as {@code sha256:…}
   */
  public record Model(String name, String digest, long bytes, Instant createdAt) {}

  private final Client client;

  /** Through this client. */
  public Models(Client client) {
    this.client = client;
  }

  /** All of them, by name. */
  public List<Model> list() {
    List<Model> models = new ArrayList<>();
    for (JsonNode model : client.get("/api/models")) {
      models.add(
          new Model(
              model.path("name").asText(),
              model.path("digest").asText(),
              model.path("bytes").asLong(),
              Instant.ofEpochMilli(model.path("created_at_ms").asLong())));
    }
    return models;
  }

  /**
   * Adds a model from a GGUF file or a Hugging Face folder on the node that this client speaks to;
   * returns once it is there.
   *
   * @param source an absolute path on that node
   * @throws dev.flotilla.FlotillaException {@code NOT_FOUND} if there is no such file, {@code
   *     BAD_FILE} if it is not a model, {@code CONFLICT} if the name is taken
   */
  public void add(String name, String source) {
    client.post("/api/models", Map.of("name", name, "source", source));
  }

  /**
   * Embeds texts with a deployed model.
   *
   * @param texts at most 2,048, none empty, of at most 300,000 tokens in all
   * @return for each its vector {@code [width]}, of length 1
   * @throws dev.flotilla.FlotillaException {@code NOT_FOUND} if the model is not deployed, {@code
   *     INVALID} if a text does not fit its context, {@code BUSY} or {@code UNAVAILABLE} if it
   *     cannot answer now
   */
  public List<float[]> embed(String model, List<String> texts) {
    JsonNode answer =
        client.post(
            "/v1/embeddings", Map.of("model", model, "input", texts, "encoding_format", "base64"));
    List<float[]> vectors = new ArrayList<>();
    for (JsonNode one : answer.path("data")) {
      byte[] bytes = Base64.getDecoder().decode(one.path("embedding").asText());
      float[] vector = new float[bytes.length / Float.BYTES];
      ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(vector);
      vectors.add(vector);
    }
    return vectors;
  }

  /** Removes a model. */
  public void remove(String name) {
    client.delete("/api/models/" + Client.encode(name));
  }
}

package dev.flotilla.gateway;

import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.Json;
import dev.flotilla.data.usage.UsageEvent;
import dev.flotilla.gateway.Embeddings.Embedded;
import dev.flotilla.gateway.GatewayHandler.Access;
import dev.flotilla.gateway.GatewayHandler.Route;
import dev.flotilla.serve.Claim;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** OpenAI's endpoint for embeddings. */
final class EmbeddingsApi {

  private static final Logger log = LoggerFactory.getLogger(EmbeddingsApi.class);
  private static final int TEXTS_MAX = 2048;
  private static final int TOKENS_MAX = 300_000;
  private static final int PIECE_BYTES = 1 << 16;

  private final GatewayServices services;
  private final ServedModels models;
  private final Traffic traffic;
  private final Embeddings embeddings;

  EmbeddingsApi(
      GatewayServices services, ServedModels models, Traffic traffic, Embeddings embeddings) {
    this.services = services;
    this.models = models;
    this.traffic = traffic;
    this.embeddings = embeddings;
  }

  List<Route> routes() {
    return List.of(Route.of("POST", "/v1/embeddings", Access.WORK, this::embed).lenient());
  }

  /**
   * {@code {"model","input","encoding_format","dimensions","cache"} →
   * {"object","data":[{"object","index","embedding"}],"model","usage"}}.
   */
  private void embed(Exchange exchange) throws InterruptedException {
    Fields fields = exchange.json();
    try (ServedModel model = models.open(fields.requiredText("model"))) {
      boolean base64 = base64(fields);
      int dimensions = dimensions(fields, model);
      boolean cached = ResponseCache.wanted(exchange, fields);
      List<int[]> texts = texts(fields, model);
      int tokens = texts.stream().mapToInt(text -> text.length).sum();
      String id = services.newRequestId();
      Traffic.Request measured = traffic.request(tokens);
      Claim claim = new Claim(exchange.keyName(), GenerationOptions.priority(fields));
      try (Embeddings.Task task = embeddings.task(id, model, texts, claim, cached);
          DisconnectWatch _ =
              DisconnectWatch.open(
                  exchange.request(),
                  () -> {
                    task.abandon("the client left");
                    exchange.giveUp("the client left");
                  })) {
        Embedded embedded = task.run();
        boolean repeated = embedded.computed() == 0;
        services
            .data()
            .usage()
            .append(
                new UsageEvent(
                    id,
                    services.clock().millis(),
                    exchange.keyName(),
                    model.name(),
                    tokens,
                    0,
                    repeated));
        if (cached) {
          exchange.putHeader(
              ResponseCache.HEADER, repeated ? "hit" : embedded.found() > 0 ? "partial" : "miss");
        }
        send(exchange, model.name(), tokens, shortened(embedded.vectors(), dimensions), base64);
      } catch (Exchange.ClientGone e) {
        log.info("request {} dropped: {}", id, e.getMessage());
        throw e;
      } finally {
        measured.end();
      }
    }
  }

  private static boolean base64(Fields fields) {
    return switch (fields.text("encoding_format").orElse("float")) {
      case "float" -> false;
      case "base64" -> true;
      default ->
          throw ApiError.invalid("encoding_format", "encoding_format must be float or base64.");
    };
  }

  private static int dimensions(Fields fields, ServedModel model) {
    int width = model.view().config().width();
    return fields.integer("dimensions", width, 1, width);
  }

  private static List<int[]> texts(Fields fields, ServedModel model) {
    refuseEmpty(fields.node("input"));
    List<int[]> texts = TokenLists.read(fields, "input", TEXTS_MAX, model);
    long tokens = 0;
    for (int i = 0; i < texts.size(); i++) {
      int length = texts.get(i).length;
      tokens += length;
      if (length > model.contextLength()) {
        throw new ApiError(
            400,
            "context_length_exceeded",
            Optional.of(texts.size() == 1 ? "input" : "input[" + i + "]"),
            "The text has "
                + length
                + " tokens, but the context of "
                + model.name()
                + " is "
                + model.contextLength()
                + " tokens. Shorten it, or cut it in pieces.");
      }
    }
    if (tokens > TOKENS_MAX) {
      throw ApiError.invalid(
          "input",
          "input has "
              + tokens
              + " tokens in all, of at most "
              + TOKENS_MAX
              + ". Send fewer texts at once.");
    }
    return texts;
  }

  /** A text without a letter has nothing to embed, even where a tokenizer begins every text. */
  private static void refuseEmpty(Optional<JsonNode> input) {
    if (input.isEmpty()) {
      return;
    }
    if (input.get().isTextual() && input.get().textValue().isEmpty()) {
      throw ApiError.invalid("input", "input must not be empty.");
    }
    for (int i = 0; i < input.get().size(); i++) {
      if (input.get().path(i).isTextual() && input.get().path(i).textValue().isEmpty()) {
        throw ApiError.invalid("input[" + i + "]", "input[" + i + "] must not be empty.");
      }
    }
  }

  /** The first so many dimensions, of length 1 again. */
  static List<float[]> shortened(List<float[]> vectors, int dimensions) {
    return vectors.stream().map(vector -> shortened(vector, dimensions)).toList();
  }

  private static float[] shortened(float[] vector, int dimensions) {
    if (dimensions == vector.length) {
      return vector;
    }
    double squares = 0;
    for (int i = 0; i < dimensions; i++) {
      squares += (double) vector[i] * vector[i];
    }
    float[] kept = Arrays.copyOf(vector, dimensions);
    double length = Math.sqrt(squares);
    for (int i = 0; i < dimensions && length > 0; i++) {
      kept[i] = (float) (kept[i] / length);
    }
    return kept;
  }

  /** Piece by piece: as text, the vectors of one answer may take a hundred megabytes. */
  private static void send(
      Exchange exchange, String model, int tokens, List<float[]> vectors, boolean base64) {
    exchange.startStream("application/json");
    ByteArrayOutputStream piece = new ByteArrayOutputStream();
    try (JsonGenerator json = Json.MAPPER.getFactory().createGenerator(piece)) {
      json.writeStartObject();
      json.writeStringField("object", "list");
      json.writeArrayFieldStart("data");
      for (int i = 0; i < vectors.size(); i++) {
        json.writeStartObject();
        json.writeStringField("object", "embedding");
        json.writeNumberField("index", i);
        if (base64) {
          json.writeBinaryField("embedding", EmbeddingCache.bytes(vectors.get(i)));
        } else {
          json.writeArrayFieldStart("embedding");
          for (float value : vectors.get(i)) {
            json.writeNumber(value);
          }
          json.writeEndArray();
        }
        json.writeEndObject();
        json.flush();
        if (piece.size() > PIECE_BYTES) {
          exchange.write(false, piece.toByteArray());
          piece.reset();
        }
      }
      json.writeEndArray();
      json.writeStringField("model", model);
      json.writeObjectFieldStart("usage");
      json.writeNumberField("prompt_tokens", tokens);
      json.writeNumberField("total_tokens", tokens);
      json.writeEndObject();
      json.writeEndObject();
    } catch (IOException e) {
      throw new UncheckedIOException("a byte array takes all bytes", e);
    }
    exchange.write(true, piece.toByteArray());
  }
}

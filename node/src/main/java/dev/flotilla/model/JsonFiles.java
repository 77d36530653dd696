package dev.flotilla.model;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.Json;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

/** Reads the JSON files beside a model's weights. */
final class JsonFiles {

  private static final long MAX_BYTES = 256L * 1024 * 1024;

  private JsonFiles() {}

  static JsonNode read(Path file) {
    try {
      if (Files.size(file) > MAX_BYTES) {
        throw WeightFiles.bad(file.toString(), "larger than " + MAX_BYTES + " bytes");
      }
      JsonNode node = Json.MAPPER.readTree(Files.readAllBytes(file));
      if (!node.isObject()) {
        throw WeightFiles.bad(file.toString(), "not a JSON object");
      }
      return node;
    } catch (JsonProcessingException e) {
      throw WeightFiles.bad(file.toString(), "not JSON: " + reason(e));
    } catch (IOException e) {
      throw WeightFiles.failure("read", file, e);
    }
  }

  /** The same, or an empty object if there is no such file. */
  static JsonNode readIfThere(Path file) {
    return Files.exists(file) ? read(file) : Json.MAPPER.createObjectNode();
  }

  /** What is wrong, without the quoted input. */
  static String reason(IOException e) {
    return e instanceof JsonProcessingException json
        ? json.getOriginalMessage()
        : String.valueOf(e.getMessage());
  }
}

package dev.flotilla.gateway;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.Json;
import java.io.IOException;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * The fields of a JSON object that a client sent. Every complaint names its field; absent and null
 * are the same.
 */
final class Fields {

  private final JsonNode object;

  /** Where this is in the body, up to the dot; empty for the body itself. */
  private final String path;

  private Fields(JsonNode object, String path) {
    this.object = object;
    this.path = path;
  }

  private ApiError wrong(String name, String complaint) {
    return ApiError.invalid(path + name, path + name + " " + complaint);
  }

  /**
   * Reads a request body.
   *
   * @throws ApiError 400 with line and column if it is not JSON, or with the field if a number is
   *     not finite or a string is not Unicode
   */
  static Fields read(byte[] body) {
    JsonNode node;
    try {
      node = Json.MAPPER.readTree(body);
    } catch (IOException e) {
      throw ApiError.of(
          400, "invalid_json", "The body is not valid JSON: " + Json.problem(e) + ".");
    }
    if (node == null || !node.isObject()) {
      throw ApiError.of(400, "invalid_json", "The body must be a JSON object.");
    }
    checkValues(node, "");
    return new Fields(node, "");
  }

  /** A whole body whose values were checked. */
  static Fields whole(ObjectNode checked) {
    return new Fields(checked, "");
  }

  /** An object inside of a body that was read: one of an array, say. */
  static Fields of(JsonNode checked, String path) {
    if (!checked.isObject()) {
      throw ApiError.invalid(path, path + " must be an object.");
    }
    return new Fields(checked, path + ".");
  }

  /**
   * Refuses what nobody would read, so that a slip of the pen does not pass for a request.
   *
   * @throws ApiError 400 naming the field, and those that there are
   */
  Fields only(List<String> known) {
    for (Map.Entry<String, JsonNode> field : object.properties()) {
      if (!known.contains(field.getKey())) {
        throw ApiError.unknown(
            "field", path + field.getKey(), known.stream().map(name -> path + name).toList());
      }
    }
    return this;
  }

  /** As above. */
  Fields only(String... known) {
    return only(List.of(known));
  }

  /** What to call a field of it in complaints. */
  String path(String name) {
    return path + name;
  }

  /** All of it. */
  JsonNode tree() {
    return object;
  }

  /** Infinite numbers and lone surrogates pass the parser, but mean nothing. */
  private static void checkValues(JsonNode node, String path) {
    if (node.isFloatingPointNumber() && !Double.isFinite(node.doubleValue())) {
      throw ApiError.invalid(path, path + " is a number beyond the range of a double.");
    }
    if (node.isTextual() && hasLoneSurrogate(node.textValue())) {
      throw ApiError.invalid(path, path + " holds a lone surrogate, which is not Unicode text.");
    }
    if (node.isArray()) {
      for (int i = 0; i < node.size(); i++) {
        checkValues(node.get(i), path + "[" + i + "]");
      }
    }
    for (Map.Entry<String, JsonNode> field : node.properties()) {
      String name = path.isEmpty() ? field.getKey() : path + "." + field.getKey();
      if (hasLoneSurrogate(field.getKey())) {
        throw ApiError.of(400, "invalid_value", "A field's name holds a lone surrogate.");
      }
      checkValues(field.getValue(), name);
    }
  }

  private static boolean hasLoneSurrogate(String text) {
    return text.codePoints().anyMatch(c -> c >= Character.MIN_SURROGATE && c <= 0xDFFF);
  }

  /** A field's value, if it is there and not null. */
  Optional<JsonNode> node(String name) {
    JsonNode value = object.get(name);
    return value == null || value.isNull() ? Optional.empty() : Optional.of(value);
  }

  Optional<String> text(String name) {
    return node(name)
        .map(
            value -> {
              if (!value.isTextual()) {
                throw wrong(name, "must be a string.");
              }
              return value.textValue();
            });
  }

  String requiredText(String name) {
    return text(name)
        .filter(value -> !value.isEmpty())
        .orElseThrow(() -> ApiError.missing(path + name, ", as a string that is not empty"));
  }

  boolean flag(String name, boolean otherwise) {
    return node(name)
        .map(
            value -> {
              if (!value.isBoolean()) {
                throw wrong(name, "must be true or false.");
              }
              return value.booleanValue();
            })
        .orElse(otherwise);
  }

  /** An integer between two bounds, both included. */
  Optional<Long> integer(String name, long least, long most) {
    return node(name)
        .map(
            value -> {
              if (!value.isIntegralNumber()
                  || !value.canConvertToLong()
                  || value.longValue() < least
                  || value.longValue() > most) {
                throw wrong(name, "must be an integer from " + least + " to " + most + ".");
              }
              return value.longValue();
            });
  }

  /** An integer between two bounds, both included, without which nothing can be done. */
  long requiredInteger(String name, long least, long most) {
    return integer(name, least, most).orElseThrow(() -> ApiError.missing(path + name));
  }

  int integer(String name, int otherwise, int least, int most) {
    return integer(name, least, most).map(Long::intValue).orElse(otherwise);
  }

  /** A number between two bounds, both included. */
  Optional<Double> number(String name, double least, double most) {
    return node(name)
        .map(
            value -> {
              if (!value.isNumber() || value.doubleValue() < least || value.doubleValue() > most) {
                throw wrong(name, "must be a number from " + least + " to " + most + ".");
              }
              return value.doubleValue();
            });
  }

  /** An object inside this one. */
  Optional<Fields> object(String name) {
    return node(name).map(value -> of(value, path + name));
  }
}

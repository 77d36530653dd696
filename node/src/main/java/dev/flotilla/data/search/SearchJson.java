package dev.flotilla.data.search;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.UnknownFieldException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/** Reads an object of a search or of an index's settings; every complaint names its field. */
record SearchJson(JsonNode node, String path) {

  static SearchJson of(JsonNode node, String path) {
    if (!node.isObject()) {
      throw new FlotillaException(
          Code.INVALID, (path.isEmpty() ? "this" : path) + " must be a JSON object", "");
    }
    return new SearchJson(node, path);
  }

  FlotillaException wrong(String name, String complaint) {
    return new FlotillaException(Code.INVALID, at(name) + " " + complaint, "");
  }

  String at(String name) {
    return path.isEmpty() ? name : path + "." + name;
  }

  /** Refuses what nobody reads, so that a slip of the pen does not pass for an answer. */
  void only(String... known) {
    Set<String> names = Set.of(known);
    for (String name : names()) {
      if (!names.contains(name)) {
        throw new UnknownFieldException(at(name), Arrays.stream(known).map(this::at).toList());
      }
    }
  }

  List<String> names() {
    List<String> names = new ArrayList<>();
    for (Map.Entry<String, JsonNode> field : node.properties()) {
      names.add(field.getKey());
    }
    return names;
  }

  /** A string, a truth value, a long or a finite double, if it is one. */
  static Optional<Object> plain(JsonNode value) {
    if (value.isTextual()) {
      return Optional.of(value.textValue());
    }
    if (value.isBoolean()) {
      return Optional.of(value.booleanValue());
    }
    if (value.isIntegralNumber() && value.canConvertToLong()) {
      return Optional.of(value.longValue());
    }
    return value.isNumber() && Double.isFinite(value.doubleValue())
        ? Optional.of(value.doubleValue())
        : Optional.empty();
  }

  Optional<JsonNode> value(String name) {
    JsonNode value = node.get(name);
    return value == null || value.isNull() ? Optional.empty() : Optional.of(value);
  }

  Optional<String> text(String name) {
    return value(name)
        .map(
            value -> {
              if (!value.isTextual()) {
                throw wrong(name, "must be a string");
              }
              return value.textValue();
            });
  }

  List<String> texts(String name) {
    List<String> texts = new ArrayList<>();
    value(name)
        .ifPresent(
            value -> {
              if (!value.isArray()) {
                throw wrong(name, "must be an array of strings");
              }
              for (JsonNode one : value) {
                if (!one.isTextual()) {
                  throw wrong(name, "must be an array of strings");
                }
                texts.add(one.textValue());
              }
            });
    return texts;
  }

  int integer(String name, int otherwise, int least, int most) {
    return value(name)
        .map(
            value -> {
              if (!value.isIntegralNumber()
                  || !value.canConvertToInt()
                  || value.intValue() < least
                  || value.intValue() > most) {
                throw wrong(name, "must be an integer from " + least + " to " + most);
              }
              return value.intValue();
            })
        .orElse(otherwise);
  }

  boolean flag(String name, boolean otherwise) {
    return value(name)
        .map(
            value -> {
              if (!value.isBoolean()) {
                throw wrong(name, "must be true or false");
              }
              return value.booleanValue();
            })
        .orElse(otherwise);
  }

  Optional<SearchJson> object(String name) {
    return value(name).map(value -> of(value, at(name)));
  }

  <E extends Enum<E>> Optional<E> choice(String name, Class<E> type) {
    return text(name)
        .map(
            text -> {
              for (E one : type.getEnumConstants()) {
                if (one.name().toLowerCase(Locale.ROOT).equals(text)) {
                  return one;
                }
              }
              List<String> names = new ArrayList<>();
              for (E one : type.getEnumConstants()) {
                names.add(one.name().toLowerCase(Locale.ROOT));
              }
              throw wrong(name, "must be one of " + String.join(", ", names));
            });
  }

  /** A vector of finite numbers; empty if absent. */
  float[] vector(String name) {
    JsonNode value = node.get(name);
    if (value == null || value.isNull()) {
      return new float[0];
    }
    if (!value.isArray() || value.isEmpty() || value.size() > IndexSettings.DIMENSIONS_MAX) {
      throw wrong(name, "must be an array of 1 to " + IndexSettings.DIMENSIONS_MAX + " numbers");
    }
    float[] vector = new float[value.size()];
    for (int i = 0; i < vector.length; i++) {
      JsonNode one = value.get(i);
      if (!one.isNumber() || !Float.isFinite(one.floatValue())) {
        throw wrong(name + "[" + i + "]", "must be a finite number of 32 bits");
      }
      vector[i] = one.floatValue();
    }
    return vector;
  }
}

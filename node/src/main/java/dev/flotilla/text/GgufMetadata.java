package dev.flotilla.text;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.lang.reflect.Array;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;

/** Typed reading of GGUF metadata, whose arrays may be Java arrays or lists. */
final class GgufMetadata {

  private GgufMetadata() {}

  static Optional<String> string(Map<String, Object> metadata, String key) {
    return metadata.get(key) instanceof String text ? Optional.of(text) : Optional.empty();
  }

  static Optional<Boolean> flag(Map<String, Object> metadata, String key) {
    return metadata.get(key) instanceof Boolean flag ? Optional.of(flag) : Optional.empty();
  }

  /** A token id; empty if there is none, or the value that stands for none. */
  static OptionalInt id(Map<String, Object> metadata, String key) {
    return metadata.get(key) instanceof Number number && number.intValue() >= 0
        ? OptionalInt.of(number.intValue())
        : OptionalInt.empty();
  }

  /** The strings of an array; none if there is no such key. */
  static List<String> strings(Map<String, Object> metadata, String key) {
    List<String> result = new ArrayList<>();
    for (Object element : elements(metadata, key)) {
      if (!(element instanceof String text)) {
        throw wrong(key, "strings");
      }
      result.add(text);
    }
    return result;
  }

  /** The numbers of an array; none if there is no such key. */
  static double[] numbers(Map<String, Object> metadata, String key) {
    List<?> elements = elements(metadata, key);
    double[] result = new double[elements.size()];
    for (int i = 0; i < result.length; i++) {
      if (!(elements.get(i) instanceof Number number)) {
        throw wrong(key, "numbers");
      }
      result[i] = number.doubleValue();
    }
    return result;
  }

  private static List<?> elements(Map<String, Object> metadata, String key) {
    Object value = metadata.get(key);
    if (value == null) {
      return List.of();
    }
    if (value instanceof List<?> list) {
      return list;
    }
    if (!value.getClass().isArray()) {
      throw wrong(key, "an array");
    }
    List<Object> result = new ArrayList<>();
    for (int i = 0; i < Array.getLength(value); i++) {
      result.add(Array.get(value, i));
    }
    return result;
  }

  private static FlotillaException wrong(String key, String expected) {
    return new FlotillaException(
        Code.BAD_FILE,
        "the metadata " + key + " does not hold " + expected,
        "Fetch the file again.");
  }
}

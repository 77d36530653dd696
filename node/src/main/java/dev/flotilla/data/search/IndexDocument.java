package dev.flotilla.data.search;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Collection;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Objects;

/**
 * A document to be found. As JSON {@code {"text","vector","fields"}}, at most 1 MB.
 *
 * @param id 1 to 512 bytes of UTF-8
 * @param text ranked by its words; may be empty
 * @param vector finite numbers, of one length in an index; empty for none
 * @param fields by name: a String, Boolean, Long, Integer, Double, or a list of these
 */
public record IndexDocument(String id, String text, float[] vector, Map<String, Object> fields) {

  static final int BYTES_MAX = 1 << 20;
  static final int ID_BYTES_MAX = 512;

  /** Copies the fields. */
  public IndexDocument {
    fields = Collections.unmodifiableMap(new LinkedHashMap<>(fields));
    int bytes = id.getBytes(StandardCharsets.UTF_8).length;
    if (bytes == 0 || bytes > ID_BYTES_MAX) {
      throw new FlotillaException(
          Code.INVALID,
          "a document's id must have 1 to " + ID_BYTES_MAX + " bytes, not " + bytes,
          "");
    }
  }

  /** Whether there is nothing by which it could be found. */
  boolean isEmpty() {
    return text.isEmpty() && vector.length == 0 && fields.isEmpty();
  }

  /** A document of text alone. */
  public static IndexDocument ofText(String id, String text) {
    return new IndexDocument(id, text, new float[0], Map.of());
  }

  /** The same with one field more. */
  public IndexDocument with(String field, Object value) {
    Map<String, Object> all = new LinkedHashMap<>(fields);
    all.put(field, value);
    return new IndexDocument(id, text, vector, all);
  }

  /** The same with a vector. */
  public IndexDocument withVector(float... other) {
    return new IndexDocument(id, text, other, fields);
  }

  /** In the form above, without the id. */
  public ObjectNode toJson() {
    ObjectNode json = sourceJson();
    if (vector.length > 0) {
      ArrayNode numbers = json.putArray("vector");
      for (float number : vector) {
        numbers.add(number);
      }
    }
    return json;
  }

  /** What a hit shows: all but the vector. */
  ObjectNode sourceJson() {
    ObjectNode json = Json.MAPPER.createObjectNode();
    json.put("text", text);
    json.set("fields", Json.MAPPER.valueToTree(fields));
    return json;
  }

  /**
   * The inverse.
   *
   * @throws FlotillaException {@code INVALID} naming what is wrong
   */
  public static IndexDocument fromJson(String id, JsonNode json) {
    SearchJson at = SearchJson.of(json, "");
    at.only("text", "vector", "fields");
    return new IndexDocument(
        id,
        at.text("text").orElse(""),
        at.vector("vector"),
        at.object("fields").map(IndexDocument::fieldsOf).orElse(Map.of()));
  }

  private static Map<String, Object> fieldsOf(SearchJson fields) {
    Map<String, Object> values = new LinkedHashMap<>();
    for (String name : fields.names()) {
      JsonNode value = fields.node().get(name);
      if (!value.isNull()) {
        values.put(name, plain(fields, name, value));
      }
    }
    return values;
  }

  private static Object plain(SearchJson fields, String name, JsonNode value) {
    if (value.isArray()) {
      Object[] all = new Object[value.size()];
      for (int i = 0; i < all.length; i++) {
        if (value.get(i).isArray()) {
          throw fields.wrong(name, "holds an array in an array");
        }
        all[i] = plain(fields, name, value.get(i));
      }
      return java.util.List.of(all);
    }
    return SearchJson.plain(value)
        .orElseThrow(
            () ->
                fields.wrong(
                    name, "must be a string, a number, true, false, or an array of these"));
  }

  static Map<String, Object> fieldsFrom(JsonNode source) {
    JsonNode fields = source.path("fields");
    return fields.isObject()
        ? fieldsOf(new SearchJson(fields, "fields"))
        : fieldsOf(new SearchJson(JsonNodeFactory.instance.objectNode(), "fields"));
  }

  static Collection<?> values(Object value) {
    return value instanceof Collection<?> many ? many : Collections.singleton(value);
  }

  @Override
  public boolean equals(Object other) {
    return other instanceof IndexDocument that
        && id.equals(that.id)
        && text.equals(that.text)
        && Arrays.equals(vector, that.vector)
        && fields.equals(that.fields);
  }

  @Override
  public int hashCode() {
    return Objects.hash(id, text, Arrays.hashCode(vector), fields);
  }
}

package dev.flotilla.data.search;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/**
 * Which documents count at all; it adds nothing to their scores.
 *
 * <p>As JSON: {@code {"year": 1994}} equals; {@code {"year": [1994, 1995]}} is one of; {@code
 * {"year": {"gte": 1990, "lt": 2000}}} a range, with {@code gt}, {@code gte}, {@code lt}, {@code
 * lte}; {@code {"and": […]}}, {@code {"or": […]}}, {@code {"not": {…}}}, {@code {"exists":
 * "year"}}. Several in one object must all hold. A field that happens to be called {@code and},
 * {@code or}, {@code not} or {@code exists} can be written as {@code {"field": {"name": "or", "is":
 * …}}}, where {@code is} takes any of the first three forms.
 */
public sealed interface SearchFilter {

  /** Clauses in one filter, all levels counted. */
  int CLAUSES_MAX = 1024;

  /** The field has one of these values: String, Boolean, Long or Double. */
  record In(String field, List<Object> values) implements SearchFilter {
    /** Copies the values. */
    public In {
      values = List.copyOf(values);
    }
  }

  /** The field lies between; an absent bound does not bind. */
  record Range(
      String field,
      Optional<Object> least,
      boolean leastIncluded,
      Optional<Object> most,
      boolean mostIncluded)
      implements SearchFilter {}

  /** The field has any value. */
  record Exists(String field) implements SearchFilter {}

  /** All hold. */
  record And(List<SearchFilter> all) implements SearchFilter {
    /** Copies. */
    public And {
      all = List.copyOf(all);
    }
  }

  /** At least one holds. */
  record Or(List<SearchFilter> any) implements SearchFilter {
    /** Copies. */
    public Or {
      any = List.copyOf(any);
    }
  }

  /** It does not hold. */
  record Not(SearchFilter not) implements SearchFilter {}

  /** The field has this value. */
  static SearchFilter is(String field, Object value) {
    return new In(field, List.of(value));
  }

  /** In the form above. */
  default ObjectNode toJson() {
    ObjectNode json = Json.MAPPER.createObjectNode();
    switch (this) {
      case In(String field, List<Object> values) -> {
        ObjectNode one = json.putObject("field").put("name", field);
        one.set("is", Json.MAPPER.valueToTree(values.size() == 1 ? values.getFirst() : values));
      }
      case Range range -> {
        ObjectNode one = json.putObject("field").put("name", range.field).putObject("is");
        range.least.ifPresent(
            bound -> one.set(range.leastIncluded ? "gte" : "gt", Json.MAPPER.valueToTree(bound)));
        range.most.ifPresent(
            bound -> one.set(range.mostIncluded ? "lte" : "lt", Json.MAPPER.valueToTree(bound)));
      }
      case Exists(String field) -> json.put("exists", field);
      case And(List<SearchFilter> all) -> put(json.putArray("and"), all);
      case Or(List<SearchFilter> any) -> put(json.putArray("or"), any);
      case Not(SearchFilter not) -> json.set("not", not.toJson());
    }
    return json;
  }

  private static void put(ArrayNode array, List<SearchFilter> filters) {
    filters.forEach(filter -> array.add(filter.toJson()));
  }

  /**
   * The inverse.
   *
   * @throws FlotillaException {@code INVALID} naming what is wrong, {@code TOO_LARGE} for too many
   *     clauses
   */
  static SearchFilter fromJson(JsonNode json) {
    return parse(SearchJson.of(json, "filter"), new int[] {CLAUSES_MAX});
  }

  private static SearchFilter parse(SearchJson at, int[] left) {
    List<SearchFilter> all = new ArrayList<>();
    for (String name : at.names()) {
      JsonNode value = at.node().get(name);
      all.add(
          switch (name) {
            case "and" -> new And(several(at, name, value, left));
            case "or" -> new Or(several(at, name, value, left));
            case "not" -> new Not(parse(SearchJson.of(value, at.at(name)), take(left)));
            case "exists" ->
                new Exists(at.text(name).orElseThrow(() -> at.wrong(name, "must name a field")));
            case "field" -> named(at, value, left);
            default -> condition(at, name, name, value, left);
          });
    }
    take(left);
    return all.size() == 1 ? all.getFirst() : new And(all);
  }

  /** The long form, unless it is a field that is called so. */
  private static SearchFilter named(SearchJson at, JsonNode value, int[] left) {
    if (!value.has("name") || !value.has("is")) {
      return condition(at, "field", "field", value, left);
    }
    SearchJson one = SearchJson.of(value, at.at("field"));
    one.only("name", "is");
    String field = one.text("name").orElseThrow(() -> one.wrong("name", "is required"));
    return condition(one, "is", field, value.get("is"), left);
  }

  private static int[] take(int[] left) {
    if (--left[0] < 0) {
      throw new FlotillaException(
          Code.TOO_LARGE, "the filter has more than " + CLAUSES_MAX + " clauses", "");
    }
    return left;
  }

  private static List<SearchFilter> several(
      SearchJson at, String name, JsonNode value, int[] left) {
    if (!value.isArray()) {
      throw at.wrong(name, "must be an array of filters");
    }
    List<SearchFilter> filters = new ArrayList<>();
    for (int i = 0; i < value.size(); i++) {
      filters.add(parse(SearchJson.of(value.get(i), at.at(name) + "[" + i + "]"), take(left)));
    }
    return filters;
  }

  private static SearchFilter condition(
      SearchJson at, String name, String field, JsonNode value, int[] left) {
    if (value.isArray()) {
      List<Object> values = new ArrayList<>();
      for (JsonNode one : value) {
        take(left);
        values.add(plain(at, name, one));
      }
      return new In(field, values);
    }
    if (!value.isObject()) {
      return new In(field, List.of(plain(at, name, value)));
    }
    SearchJson range = SearchJson.of(value, at.at(name));
    range.only("gt", "gte", "lt", "lte");
    if (value.isEmpty()
        || (value.has("gt") && value.has("gte"))
        || (value.has("lt") && value.has("lte"))) {
      throw at.wrong(name, "must have one of gt and gte, one of lt and lte, or one of each");
    }
    return new Range(
        field,
        range.value("gt").or(() -> range.value("gte")).map(v -> plain(at, name, v)),
        value.has("gte"),
        range.value("lt").or(() -> range.value("lte")).map(v -> plain(at, name, v)),
        value.has("lte"));
  }

  private static Object plain(SearchJson at, String name, JsonNode value) {
    return SearchJson.plain(value)
        .orElseThrow(
            () -> at.wrong(name, "must be compared with a string, a finite number, true or false"));
  }
}

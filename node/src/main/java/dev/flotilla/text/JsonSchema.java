package dev.flotilla.text;

import com.fasterxml.jackson.core.JsonPointer;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.text.GrammarExpression.Range;
import java.math.BigDecimal;
import java.math.RoundingMode;
import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;

/**
 * From a JSON schema (2020-12, and what OpenAI's structured outputs take of it) to the grammar of
 * the JSON texts that validate against it.
 *
 * <p>Every text of the grammar validates; not every text that validates is of the grammar:
 *
 * <ul>
 *   <li>No white space but at most one space behind a comma or a colon, so none is endless.
 *   <li>Properties come in the schema's order, then those that are only required, then others.
 *   <li>Without {@code additionalProperties}, an object that has {@code properties} has no others,
 *       and an array that has {@code prefixItems} no more items than those and {@code minItems}.
 *   <li>Integers have 18 digits at most; other numbers 15 before the point, 15 behind it, and two
 *       of an exponent. With bounds, numbers have no exponent, and no more digits behind the point
 *       than that, together with those of the bounds before it, are 15. Values of {@code enum} and
 *       {@code const} are spelled in one way.
 *   <li>{@code maxLength}, {@code minLength}, {@code minItems} and {@code maxItems} go to 10,000.
 *   <li>Values nest about 128 deep.
 * </ul>
 *
 * <p>A keyword that would change the answer and is not supported is refused with its place in the
 * schema, as is {@code oneOf} unless its branches obviously exclude one another. A {@code format}
 * of strings is held to, as OpenAI does, or refused; beside a {@code pattern}, as zod writes it, it
 * is an annotation, as in the standard. With {@code nullable} beside {@code type}, a value may be
 * null too. A grammar cannot count names, so where names are free one may come twice.
 */
public final class JsonSchema {

  private static final int DEPTH_MAX = 100;
  private static final int ENUM_MAX = 1000;
  private static final int INTEGER_DIGITS = 18;

  /** As many as any two doubles differ in, so that no bound is crossed by rounding. */
  private static final int NUMBER_DIGITS = 15;

  /** Of a JSON pointer, for each rule keeps one. */
  private static final int PLACE_LENGTH_MAX = 4000;

  /** How much of the branches of {@code oneOf} is looked at, over the whole schema. */
  private static final int COMPARISONS_MAX = 1_000_000;

  /** What says something of a value, but not which values there are. */
  private static final Set<String> ANNOTATIONS =
      Set.of(
          "title",
          "description",
          "default",
          "example",
          "examples",
          "deprecated",
          "readOnly",
          "writeOnly",
          "$schema",
          "$id",
          "$comment",
          "$defs",
          "definitions",
          // Of OpenAPI: which property tells the branches of a oneOf apart.
          "discriminator");

  private static final Set<String> OF_STRINGS =
      Set.of("minLength", "maxLength", "pattern", "format");
  private static final Set<String> OF_NUMBERS =
      Set.of("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum");
  private static final Set<String> OF_ARRAYS =
      Set.of("items", "prefixItems", "minItems", "maxItems", "uniqueItems");
  private static final Set<String> OF_OBJECTS =
      Set.of("properties", "required", "additionalProperties", "propertyNames");
  private static final List<String> COMBINATIONS =
      List.of("$ref", "const", "enum", "anyOf", "oneOf", "allOf");
  private static final List<String> TYPES =
      List.of("object", "array", "string", "number", "integer", "boolean", "null");

  private static final String COMMA = "\",\" \" \"? ";

  /** Rules that any grammar of JSON may use, with what they use themselves. */
  private static final Map<String, String> RULES =
      Map.ofEntries(
          Map.entry(
              "json-value",
              "json-object | json-array | json-string | json-number | \"true\" | \"false\" |"
                  + " \"null\""),
          Map.entry("json-object", "\"{\" (json-member (" + COMMA + "json-member)*)? \"}\""),
          Map.entry("json-member", "json-string \":\" \" \"? json-value"),
          Map.entry("json-array", "\"[\" (json-value (" + COMMA + "json-value)*)? \"]\""),
          Map.entry("json-string", "\"\\\"\" json-char* \"\\\"\""),
          // RFC 8259, section 7; escapes of halves of surrogate pairs only as pairs.
          Map.entry(
              "json-char", "[^\"\\\\\\x00-\\x1F] | \"\\\\\" ([\"\\\\/bfnrt] | \"u\" json-escape)"),
          Map.entry(
              "json-escape",
              "[0-9a-cA-CefEF] json-hex{3} | [dD] [0-7] json-hex{2}"
                  + " | [dD] [89abAB] json-hex{2} \"\\\\u\" [dD] [c-fC-F] json-hex{2}"),
          Map.entry("json-hex", "[0-9a-fA-F]"),
          Map.entry("json-integer", "\"-\"? (\"0\" | [1-9] [0-9]{0,17})"),
          Map.entry(
              "json-number",
              "\"-\"? (\"0\" | [1-9] [0-9]{0,14}) (\".\" [0-9]{1,15})?"
                  + " ([eE] [-+]? [0-9]{1,2})?"),
          Map.entry("format-date-time", "format-date \"T\" format-time"),
          // RFC 3339; the 29th of February in leap years only.
          Map.entry(
              "format-date",
              "[0-9]{4} \"-\" ((\"0\" [13578] | \"1\" [02]) \"-\" (\"0\" [1-9] | [12] [0-9] | \"3\""
                  + " [01]) | (\"0\" [469] | \"11\") \"-\" (\"0\" [1-9] | [12] [0-9] | \"30\") |"
                  + " \"02-\" (\"0\" [1-9] | \"1\" [0-9] | \"2\" [0-8])) | ([0-9]{2} format-fourth |"
                  + " (\"00\" | format-fourth) \"00\") \"-02-29\""),
          Map.entry("format-fourth", "\"0\" [48] | [2468] [048] | [13579] [26]"),
          Map.entry(
              "format-time",
              "([01] [0-9] | \"2\" [0-3]) \":\" [0-5] [0-9] \":\" [0-5] [0-9] (\".\" [0-9]{1,9})?"
                  + " (\"Z\" | [-+] ((\"0\" [0-9] | \"1\" [0-3]) \":\" [0-5] [0-9] | \"14:00\"))"),
          Map.entry(
              "format-duration",
              "\"P\" (format-count \"W\" | format-days format-clock? | format-clock)"),
          Map.entry(
              "format-days",
              "format-count \"D\" | format-count \"M\" (format-count \"D\")? | format-count \"Y\""
                  + " (format-count \"M\" (format-count \"D\")?)?"),
          Map.entry(
              "format-clock",
              "\"T\" (format-count \"S\" | format-count \"M\" (format-count \"S\")? | format-count"
                  + " \"H\" (format-count \"M\" (format-count \"S\")?)?)"),
          Map.entry("format-count", "[0-9]{1,4}"),
          Map.entry(
              "format-uuid",
              "json-hex{8} \"-\" json-hex{4} \"-\" json-hex{4} \"-\" json-hex{4} \"-\""
                  + " json-hex{12}"),
          Map.entry("format-ipv4", "format-byte (\".\" format-byte){3}"),
          Map.entry(
              "format-byte",
              "[0-9] | [1-9] [0-9] | \"1\" [0-9]{2} | \"2\" [0-4] [0-9] | \"25\" [0-5]"),
          Map.entry("format-ipv6", "json-hex{1,4} (\":\" json-hex{1,4}){7}"),
          Map.entry("format-hostname", "format-label (\".\" format-label){0,3}"),
          Map.entry("format-label", "[a-z] ([a-z0-9] | \"-\" [a-z0-9]){0,30}"),
          Map.entry(
              "format-email",
              "format-atom (\".\" format-atom){0,2} \"@\" format-label (\".\" format-label){1,3}"),
          Map.entry("format-atom", "[A-Za-z0-9_+-]{1,20}"));

  private static final Set<String> FORMATS =
      Set.of("date-time", "date", "time", "duration", "uuid", "ipv4", "ipv6", "hostname", "email");

  private static final JsonNode ANY_NAME =
      JsonNodeFactory.instance.objectNode().put("type", "string");

  private final JsonNode root;

  /** Rules by name, in the order in which they were begun. */
  private final Map<String, String> rules = new LinkedHashMap<>();

  /** The rules of subschemas by their JSON pointers, as fragments. */
  private final Map<String, String> named = new HashMap<>();

  /** The rules of {@link #shared} by what they are. */
  private final Map<String, String> sharedRules = new HashMap<>();

  /** How many rules have been named after the same hint. */
  private final Map<String, Integer> counters = new HashMap<>();

  private int depth;
  private int comparisons;

  private JsonSchema(JsonNode root) {
    this.root = root;
  }

  /**
   * The grammar of the texts that validate against a schema.
   *
   * @throws FlotillaException {@code INVALID}, with the place in the schema, if it is malformed,
   *     has a keyword that is not supported, allows no value, or is larger than a grammar may be
   */
  public static Grammar grammar(JsonNode schema) {
    JsonSchema conversion = new JsonSchema(schema);
    conversion.rule(schema, "#");
    return conversion.grammar();
  }

  /** The grammar of any JSON object: OpenAI's {@code json_object}. */
  public static Grammar anyObject() {
    JsonSchema conversion = new JsonSchema(JsonNodeFactory.instance.objectNode());
    conversion.rules.put("root", conversion.use("json-object"));
    return conversion.grammar();
  }

  private Grammar grammar() {
    StringBuilder text = new StringBuilder();
    rules.forEach((name, body) -> text.append(name).append(" ::= ").append(body).append('\n'));
    try {
      return Grammar.parse(text.toString());
    } catch (FlotillaException e) {
      // Rules have the names of the places that they come from.
      throw new FlotillaException(
          e.code(), "the JSON schema cannot be held to: " + e.getMessage(), e.remedy(), e);
    }
  }

  private static FlotillaException refused(String path, String what) {
    String place = path.length() > 300 ? path.substring(0, 300) + "..." : path;
    return new FlotillaException(
        Code.INVALID,
        "the JSON schema cannot be held to: " + place + ": " + what,
        "Leave it out of the schema, and say it in the prompt.");
  }

  private static String below(String path, String... steps) {
    StringBuilder longer = new StringBuilder(path);
    for (String step : steps) {
      longer.append('/').append(step.replace("~", "~0").replace("/", "~1"));
    }
    return longer.toString();
  }

  /** Brings in one of {@link #RULES}, with those that it names. */
  private String use(String builtIn) {
    Deque<String> work = new ArrayDeque<>(List.of(builtIn));
    while (!work.isEmpty()) {
      String name = work.pop();
      String body = RULES.get(name);
      if (body != null && rules.putIfAbsent(name, body) == null) {
        for (String word : body.split("[^a-z0-9-]+")) {
          work.push(word);
        }
      }
    }
    return builtIn;
  }

  /** A name for a rule that is not taken, from a hint in any characters. */
  private String fresh(String hint) {
    if (rules.size() >= GbnfParser.RULES_MAX) {
      throw refused("#", "it takes more than " + GbnfParser.RULES_MAX + " rules");
    }
    String end = hint.substring(Math.max(0, hint.length() - 40));
    String name = end.replaceAll("[^A-Za-z0-9]+", "-").replaceAll("^-|-$", "");
    if (name.isEmpty()) {
      name = "x";
    }
    String unique = name;
    while (rules.containsKey(unique) || RULES.containsKey(unique)) {
      unique = name + "-" + counters.merge(name, 1, Integer::sum);
    }
    rules.put(unique, "");
    return unique;
  }

  /** A rule for an expression, the same for the same one. */
  String shared(String hint, String expression) {
    String name = sharedRules.get(expression);
    if (name == null) {
      name = fresh(hint);
      sharedRules.put(expression, name);
      rules.put(name, expression);
    }
    return name;
  }

  /** An expression without alternatives at its top, as it is or by a rule if it is long. */
  private String brief(String hint, String expression) {
    return expression.length() < 200 ? expression : shared(hint, expression);
  }

  /** The name of a subschema's rule. */
  private String rule(JsonNode schema, String path) {
    String name = named.get(path);
    if (name == null) {
      if (++depth > DEPTH_MAX) {
        throw refused(path, "it is nested more than " + DEPTH_MAX + " deep");
      }
      if (path.length() > PLACE_LENGTH_MAX) {
        throw refused(
            path, "it stands behind names of more than " + PLACE_LENGTH_MAX + " characters");
      }
      name = fresh(path.equals("#") ? "root" : path);
      named.put(path, name);
      rules.put(name, expression(schema, path));
      depth--;
    }
    return name;
  }

  private String expression(JsonNode schema, String path) {
    if (schema.isBoolean()) {
      if (schema.asBoolean()) {
        return use("json-value");
      }
      throw refused(path, "it allows no value");
    }
    if (!schema.isObject()) {
      throw refused(path, "a schema is an object, true or false");
    }
    Set<String> says = new LinkedHashSet<>();
    for (Map.Entry<String, JsonNode> entry : schema.properties()) {
      String keyword = entry.getKey();
      if (ANNOTATIONS.contains(keyword) || keyword.startsWith("x-")) {
        continue;
      }
      if (!keyword.equals("type")
          && !keyword.equals("nullable")
          && !COMBINATIONS.contains(keyword)
          && !OF_STRINGS.contains(keyword)
          && !OF_NUMBERS.contains(keyword)
          && !OF_ARRAYS.contains(keyword)
          && !OF_OBJECTS.contains(keyword)) {
        throw refused(below(path, keyword), "'" + keyword + "' is not supported");
      }
      says.add(keyword);
    }
    for (String keyword : COMBINATIONS) {
      if (says.contains(keyword)) {
        return combination(keyword, schema, says, path);
      }
    }
    return typed(schema, says, path);
  }

  private String combination(String keyword, JsonNode schema, Set<String> says, String path) {
    for (String other : says) {
      boolean goesTogether =
          other.equals(keyword)
              || (other.equals("type") && (keyword.equals("enum") || keyword.equals("const")))
              || (other.equals("enum") && keyword.equals("const"))
              || (keyword.equals("allOf") && (other.equals("type") || OF_OBJECTS.contains(other)));
      if (!goesTogether) {
        throw refused(path, "'" + keyword + "' and '" + other + "' together are not supported");
      }
    }
    JsonNode value = schema.path(keyword);
    return switch (keyword) {
      case "$ref" -> reference(value, below(path, "$ref"));
      case "const" -> {
        if (says.contains("enum")
            && !list(schema.path("enum"), below(path, "enum")).contains(value)) {
          throw refused(below(path, "const"), "it is not in 'enum'");
        }
        yield values(List.of(value), schema, below(path, "const"));
      }
      case "enum" -> {
        List<JsonNode> values = list(value, below(path, "enum"));
        if (values.size() > ENUM_MAX) {
          throw refused(below(path, "enum"), "it has more than " + ENUM_MAX + " values");
        }
        yield values(values, schema, below(path, "enum"));
      }
      case "allOf" -> allOf(schema, says, path);
      default -> {
        List<JsonNode> branches = list(value, below(path, keyword));
        if (keyword.equals("oneOf")) {
          refuseOverlap(branches, below(path, keyword));
        }
        yield branches(branches, below(path, keyword));
      }
    };
  }

  private String branches(List<JsonNode> branches, String path) {
    List<String> names = new ArrayList<>();
    for (int i = 0; i < branches.size(); i++) {
      names.add(rule(branches.get(i), below(path, Integer.toString(i))));
    }
    return String.join(" | ", names);
  }

  private static List<JsonNode> list(JsonNode value, String path) {
    if (!value.isArray() || value.isEmpty()) {
      throw refused(path, "it is an array with something in it");
    }
    List<JsonNode> entries = new ArrayList<>();
    value.forEach(entries::add);
    return entries;
  }

  private String reference(JsonNode value, String path) {
    return rule(referred(value, path), value.asText());
  }

  /** The subschema that a {@code $ref} names. */
  private JsonNode referred(JsonNode value, String path) {
    String reference = value.asText();
    JsonNode found = root;
    if (!value.isTextual() || !(reference.equals("#") || reference.startsWith("#/"))) {
      throw refused(path, "only references into the schema itself, '#/...', are supported");
    }
    if (!reference.equals("#")) {
      try {
        String pointer = reference.substring(1);
        found = root.at(JsonPointer.compile(pointer));
        if (found.isMissingNode()) {
          // As a fragment of a URI spells it, which not all clients do.
          String decoded = URLDecoder.decode(pointer.replace("+", "%2B"), StandardCharsets.UTF_8);
          found = root.at(JsonPointer.compile(decoded));
        }
      } catch (IllegalArgumentException e) {
        throw refused(path, "'" + reference + "' is no JSON pointer");
      }
    }
    if (found.isMissingNode()) {
      throw refused(path, "'" + reference + "' is not in the schema");
    }
    return found;
  }

  /**
   * A schema behind its references: one with {@code $ref} if something stands beside it, or if they
   * run in a circle.
   */
  private JsonNode resolved(JsonNode schema) {
    JsonNode at = schema;
    for (int hops = 0; hops < 16 && at.has("$ref"); hops++) {
      for (Map.Entry<String, JsonNode> entry : at.properties()) {
        if (!entry.getKey().equals("$ref") && !ANNOTATIONS.contains(entry.getKey())) {
          return at;
        }
      }
      at = referred(at.path("$ref"), "$ref");
    }
    return at;
  }

  private String values(List<JsonNode> values, JsonNode schema, String path) {
    Set<String> texts = new LinkedHashSet<>();
    Set<String> types = schema.has("type") ? types(schema, path) : Set.copyOf(TYPES);
    for (JsonNode value : values) {
      if (hasInfinity(value)) {
        throw refused(path, "one of its numbers is too large");
      }
      if (types.contains(typeOf(value))
          || (types.contains("number") && value.isNumber())
          || (types.contains("integer") && isWhole(value))) {
        texts.add(literal(json(value), path));
      }
    }
    if (texts.isEmpty()) {
      throw refused(path, "none of its values is of the type");
    }
    return String.join(" | ", texts);
  }

  /** Whether it is a number; 1e999 is one to the reader, but has no value. */
  private static boolean isFinite(JsonNode value) {
    return value.isNumber()
        && (!value.isFloatingPointNumber() || Double.isFinite(value.doubleValue()));
  }

  private static boolean hasInfinity(JsonNode value) {
    if (value.isNumber()) {
      return !isFinite(value);
    }
    for (JsonNode inside : value) {
      if (hasInfinity(inside)) {
        return true;
      }
    }
    return false;
  }

  private static boolean isWhole(JsonNode value) {
    return isFinite(value) && value.decimalValue().stripTrailingZeros().scale() <= 0;
  }

  private static String typeOf(JsonNode value) {
    return switch (value.getNodeType()) {
      case OBJECT, POJO -> "object";
      case ARRAY -> "array";
      case BOOLEAN -> "boolean";
      case NUMBER -> isWhole(value) ? "integer" : "number";
      case NULL, MISSING -> "null";
      case STRING, BINARY -> "string";
    };
  }

  private static String json(JsonNode value) {
    try {
      return Json.MAPPER.writeValueAsString(value);
    } catch (JsonProcessingException e) {
      throw new IllegalStateException("cannot write a JSON value", e);
    }
  }

  /** A text as GBNF. */
  private static String literal(String text, String path) {
    if (!TokenizerCheck.isWellFormed(text)) {
      throw refused(path, "it has half of a surrogate pair");
    }
    StringBuilder quoted = new StringBuilder("\"");
    text.codePoints()
        .forEach(
            c -> {
              if (c == '"' || c == '\\') {
                quoted.append('\\').appendCodePoint(c);
              } else if (c < ' ') {
                quoted.append(String.format("\\x%02X", c));
              } else {
                quoted.appendCodePoint(c);
              }
            });
    return quoted.append('"').toString();
  }

  /** Objects that must all be met at once, as one. */
  private String allOf(JsonNode schema, Set<String> says, String path) {
    List<JsonNode> parts = list(schema.path("allOf"), below(path, "allOf"));
    if (parts.size() == 1 && says.size() == 1) {
      return branches(parts, below(path, "allOf"));
    }
    ObjectNode merged = JsonNodeFactory.instance.objectNode().put("type", "object");
    ObjectNode properties = JsonNodeFactory.instance.objectNode();
    Set<String> required = new LinkedHashSet<>();
    if (says.size() > 1) {
      ObjectNode rest = schema.deepCopy();
      rest.remove("allOf");
      parts.add(rest);
    }
    for (JsonNode part : parts) {
      JsonNode object = resolved(part);
      if (!object.isObject()) {
        throw refused(below(path, "allOf"), "only objects can be put together");
      }
      for (Map.Entry<String, JsonNode> entry : object.properties()) {
        String keyword = entry.getKey();
        boolean simple =
            ANNOTATIONS.contains(keyword)
                || keyword.equals("properties")
                || keyword.equals("required")
                || (keyword.equals("type") && entry.getValue().asText().equals("object"));
        if (!simple) {
          throw refused(
              below(path, "allOf"), "'" + keyword + "' in what is put together is not supported");
        }
      }
      for (Map.Entry<String, JsonNode> entry : object.path("properties").properties()) {
        JsonNode before = properties.get(entry.getKey());
        if (before != null && !before.equals(entry.getValue())) {
          throw refused(
              below(path, "allOf"),
              "the property '" + entry.getKey() + "' has two schemas, which is not supported");
        }
        properties.set(entry.getKey(), entry.getValue());
      }
      required.addAll(strings(object, "required", path));
    }
    merged.set("properties", properties);
    required.forEach(merged.putArray("required")::add);
    return object(merged, below(path, "allOf"));
  }

  private Set<String> types(JsonNode schema, String path) {
    Set<String> types = new LinkedHashSet<>();
    JsonNode value = schema.path("type");
    if (value.isTextual()) {
      types.add(value.asText());
    } else {
      list(value, below(path, "type")).forEach(type -> types.add(type.asText()));
    }
    for (String type : types) {
      if (!TYPES.contains(type)) {
        throw refused(below(path, "type"), "there is no type '" + type + "'");
      }
    }
    // Of OpenAPI; OpenAI's own client writes it for what zod calls nullable.
    if (schema.path("nullable").asBoolean()) {
      types.add("null");
    }
    return types;
  }

  private String typed(JsonNode schema, Set<String> says, String path) {
    Set<String> types = new LinkedHashSet<>();
    if (says.contains("type")) {
      types.addAll(types(schema, path));
    } else {
      for (String keyword : says) {
        if (OF_OBJECTS.contains(keyword)) {
          types.add("object");
        } else if (OF_ARRAYS.contains(keyword)) {
          types.add("array");
        } else if (OF_STRINGS.contains(keyword)) {
          types.add("string");
        } else if (OF_NUMBERS.contains(keyword)) {
          types.add("number");
        }
      }
      if (types.isEmpty()) {
        return use("json-value");
      }
    }
    if (types.contains("number")) {
      types.remove("integer");
    }
    List<String> options = new ArrayList<>();
    for (String type : types) {
      options.add(
          switch (type) {
            case "object" -> object(schema, path);
            case "array" -> array(schema, path);
            case "string" -> string(schema, path);
            case "number" -> number(schema, path);
            case "integer" -> integer(schema, path);
            case "boolean" -> "\"true\" | \"false\"";
            default -> "\"null\"";
          });
    }
    return String.join(" | ", options);
  }

  // Objects.

  private String object(JsonNode schema, String path) {
    JsonNode properties = schema.path("properties");
    if (!properties.isMissingNode() && !properties.isObject()) {
      throw refused(below(path, "properties"), "it is an object");
    }
    JsonNode propertyNames = schema.path("propertyNames");
    if (!propertyNames.isMissingNode() && !propertyNames.equals(ANY_NAME)) {
      throw refused(
          below(path, "propertyNames"), "only that they are of the type 'string' is supported");
    }
    Set<String> required = strings(schema, "required", path);
    JsonNode additional = schema.path("additionalProperties");
    boolean closed =
        additional.isMissingNode()
            ? !properties.isEmpty()
            : additional.isBoolean() && !additional.asBoolean();
    if (additional.isMissingNode() && properties.isEmpty() && required.isEmpty()) {
      return use("json-object");
    }
    List<String> members = new ArrayList<>();
    List<Boolean> optional = new ArrayList<>();
    Set<String> names = new LinkedHashSet<>();
    for (Map.Entry<String, JsonNode> entry : properties.properties()) {
      String name = entry.getKey();
      if (isNever(entry.getValue()) && !required.contains(name)) {
        continue;
      }
      String place = below(path, "properties", name);
      members.add(member(name, rule(entry.getValue(), place), place));
      optional.add(!required.contains(name));
      names.add(name);
    }
    String other = "";
    if (!closed) {
      other =
          additional.isMissingNode()
              ? use("json-value")
              : rule(additional, below(path, "additionalProperties"));
    }
    for (String name : required) {
      if (names.add(name)) {
        if (closed && !additional.isMissingNode()) {
          throw refused(
              below(path, "required"),
              "'" + name + "' is required, but is no property, and others are not allowed");
        }
        members.add(
            member(
                name, other.isEmpty() ? use("json-value") : other, below(path, "required", name)));
        optional.add(false);
      }
    }
    properties.properties().forEach(entry -> names.add(entry.getKey()));
    return "\"{\" " + members(members, optional, closed ? "" : others(names, other, path), path);
  }

  private static boolean isNever(JsonNode schema) {
    return schema.isBoolean() && !schema.asBoolean();
  }

  private static String member(String name, String value, String path) {
    return literal(json(JsonNodeFactory.instance.textNode(name)) + ":", path) + " \" \"? " + value;
  }

  /**
   * Everything behind an object's brace. The brace that closes it stands at the end of the last
   * rule, so that following them one by one nests nothing.
   *
   * @param other any other member, or empty
   */
  private String members(List<String> members, List<Boolean> optional, String other, String path) {
    // What may follow a member, from the last one forward.
    String[] rest = new String[members.size() + 1];
    rest[members.size()] = other.isEmpty() ? "\"}\"" : "(" + COMMA + other + ")* \"}\"";
    for (int i = members.size() - 1; i >= 0; i--) {
      String behind = brief(path + "-rest", rest[i + 1]);
      String with = COMMA + members.get(i) + " " + behind;
      rest[i] = optional.get(i) ? shared(path + "-rest", with + " | " + behind) : with;
    }
    int must = optional.indexOf(false);
    int from = must < 0 ? members.size() : must;
    String first;
    if (must >= 0) {
      first = members.get(must) + " " + brief(path + "-rest", rest[must + 1]);
    } else {
      first = other.isEmpty() ? "\"}\"" : "(" + other + " (" + COMMA + other + ")*)? \"}\"";
    }
    for (int i = from - 1; i >= 0; i--) {
      String behind = brief(path + "-rest", rest[i + 1]);
      first =
          shared(
              path + "-first",
              members.get(i) + " " + behind + " | " + brief(path + "-first", first));
    }
    return first;
  }

  /** A member with any name but the given ones, spelled without escapes, so that none hides. */
  private String others(Set<String> names, String value, String path) {
    if (names.isEmpty()) {
      return shared(path + "-other", use("json-string") + " \":\" \" \"? " + value);
    }
    final class Node {
      final String rule = fresh(path + "-name");
      final TreeMap<Integer, Node> next = new TreeMap<>();
      boolean taken;
    }
    Node trie = new Node();
    List<Node> nodes = new ArrayList<>(List.of(trie));
    for (String name : names) {
      if (name.codePoints().anyMatch(c -> c < ' ' || c == '"' || c == '\\')) {
        continue;
      }
      Node node = trie;
      for (int c : name.codePoints().toArray()) {
        Node next = node.next.get(c);
        if (next == null) {
          next = new Node();
          node.next.put(c, next);
          nodes.add(next);
        }
        node = next;
      }
      node.taken = true;
    }
    String character = "[^\"\\\\\\x00-\\x1F";
    String rest = shared("name-rest", character + "]* \"\\\"\"");
    for (Node node : nodes) {
      StringBuilder options = new StringBuilder(character);
      node.next.keySet().forEach(c -> options.append(escaped(c)));
      options.append("] ").append(rest);
      node.next.forEach(
          (c, next) -> options.append(" | [").append(escaped(c)).append("] ").append(next.rule));
      if (!node.taken) {
        options.append(" | \"\\\"\"");
      }
      rules.put(node.rule, options.toString());
    }
    return shared(path + "-other", "\"\\\"\" " + trie.rule + " \":\" \" \"? " + value);
  }

  /** A character as it may stand in a class. */
  private static String escaped(int codePoint) {
    return (codePoint < 128 && Character.isLetterOrDigit(codePoint))
        ? Character.toString(codePoint)
        : String.format("\\U%08X", codePoint);
  }

  /** Characters as an expression of how they are spelled in a string of JSON. */
  static String spelled(List<Range> characters) {
    StringBuilder plain = new StringBuilder();
    List<String> options = new ArrayList<>();
    for (Range range : characters) {
      int from = range.first();
      for (int c = from; c <= Math.min(range.last(), '\\'); c++) {
        if (c >= ' ' && c != '"' && c != '\\') {
          continue;
        }
        plain(from, c - 1, plain);
        from = c + 1;
        options.add(
            switch (c) {
              case '"' -> "\"\\\\\\\"\"";
              case '\\' -> "\"\\\\\\\\\"";
              case '\b' -> "\"\\\\b\"";
              case '\f' -> "\"\\\\f\"";
              case '\n' -> "\"\\\\n\"";
              case '\r' -> "\"\\\\r\"";
              case '\t' -> "\"\\\\t\"";
              default -> String.format("\"\\\\u%04x\"", c);
            });
      }
      plain(from, range.last(), plain);
    }
    if (!plain.isEmpty()) {
      options.addFirst("[" + plain + "]");
    }
    return String.join(" | ", options);
  }

  private static void plain(int first, int last, StringBuilder plain) {
    if (first <= last) {
      plain.append(escaped(first));
      if (last > first) {
        plain.append('-').append(escaped(last));
      }
    }
  }

  private static Set<String> strings(JsonNode schema, String keyword, String path) {
    Set<String> strings = new LinkedHashSet<>();
    JsonNode value = schema.path(keyword);
    if (value.isMissingNode()) {
      return strings;
    }
    boolean right = value.isArray();
    for (JsonNode entry : value) {
      right &= entry.isTextual();
      strings.add(entry.asText());
    }
    if (!right) {
      throw refused(below(path, keyword), "it is an array of strings");
    }
    return strings;
  }

  // Arrays.

  private String array(JsonNode schema, String path) {
    if (schema.path("uniqueItems").asBoolean()) {
      throw refused(below(path, "uniqueItems"), "'uniqueItems' is not supported");
    }
    int least = count(schema, "minItems", path, 0);
    int most = count(schema, "maxItems", path, Integer.MAX_VALUE);
    JsonNode items = schema.path("items");
    List<JsonNode> prefix =
        schema.has("prefixItems")
            ? list(schema.path("prefixItems"), below(path, "prefixItems"))
            : List.of();
    if (isNever(items)) {
      most = Math.min(most, prefix.size());
    } else if (items.isMissingNode() && !prefix.isEmpty()) {
      most = Math.min(most, Math.max(least, prefix.size()));
    }
    if (most < least) {
      throw refused(path, "an array of at least " + least + " and at most " + most + " is none");
    }
    if (most == 0) {
      return "\"[]\"";
    }
    // What may follow an item, from the last one forward.
    String rest = "\"]\"";
    if (most > prefix.size()) {
      String item = items.isMissingNode() ? use("json-value") : rule(items, below(path, "items"));
      int others = Math.max(0, least - prefix.size());
      String upTo = most == Integer.MAX_VALUE ? "" : Integer.toString(most - prefix.size());
      if (prefix.isEmpty()) {
        String more =
            "("
                + COMMA
                + item
                + "){"
                + Math.max(0, least - 1)
                + ","
                + (upTo.isEmpty() ? "" : most - 1)
                + "}";
        String some = item + " " + more;
        return "\"[\" " + (least == 0 ? "(" + some + ")?" : some) + " \"]\"";
      }
      rest = "(" + COMMA + item + "){" + others + "," + upTo + "} \"]\"";
    }
    for (int i = Math.min(prefix.size(), most) - 1; i >= 0; i--) {
      String item = rule(prefix.get(i), below(path, "prefixItems", Integer.toString(i)));
      String with = (i == 0 ? "" : COMMA) + item + " " + brief(path + "-rest", rest);
      rest = i < least ? with : shared(path + "-rest", with + " | \"]\"");
    }
    return "\"[\" " + rest;
  }

  private static int count(JsonNode schema, String keyword, String path, int otherwise) {
    JsonNode value = schema.path(keyword);
    if (value.isMissingNode()) {
      return otherwise;
    }
    if (!isWhole(value)
        || value.decimalValue().signum() < 0
        || value.decimalValue().compareTo(BigDecimal.valueOf(GbnfParser.REPETITION_MAX)) > 0) {
      throw refused(
          below(path, keyword), "it is a whole number from 0 to " + GbnfParser.REPETITION_MAX);
    }
    return value.decimalValue().intValueExact();
  }

  // Strings and numbers.

  private String string(JsonNode schema, String path) {
    int least = count(schema, "minLength", path, 0);
    int most = count(schema, "maxLength", path, Integer.MAX_VALUE);
    boolean counted = least > 0 || most < Integer.MAX_VALUE;
    if (most < least) {
      throw refused(path, "a string of at least " + least + " and at most " + most + " is none");
    }
    if (schema.has("pattern")) {
      String place = below(path, "pattern");
      if (counted) {
        throw refused(place, "together with a length it is not supported");
      }
      if (!schema.path("pattern").isTextual()) {
        throw refused(place, "it is a string");
      }
      String expression =
          new SchemaPattern(
                  schema.path("pattern").asText(),
                  use("json-char"),
                  characters -> shared("characters", characters),
                  what -> refused(place, what))
              .expression();
      return "\"\\\"\" (" + expression + ") \"\\\"\"";
    }
    if (schema.has("format")) {
      String format = schema.path("format").asText();
      if (!FORMATS.contains(format)) {
        throw refused(below(path, "format"), "the format '" + format + "' is not supported");
      }
      if (counted) {
        throw refused(below(path, "format"), "together with a length it is not supported");
      }
      return "\"\\\"\" " + use("format-" + format) + " \"\\\"\"";
    }
    if (!counted) {
      return use("json-string");
    }
    String upTo = most == Integer.MAX_VALUE ? "" : Integer.toString(most);
    String characters = use("json-char") + "{" + least + "," + upTo + "}";
    // Once for all properties of this length: it has a node for each character.
    return shared("string", "\"\\\"\" " + characters + " \"\\\"\"");
  }

  private String number(JsonNode schema, String path) {
    if (OF_NUMBERS.stream().noneMatch(schema::has)) {
      return use("json-number");
    }
    int digits = 1;
    for (String keyword : OF_NUMBERS) {
      if (schema.has(keyword)) {
        BigDecimal size = bound(schema, keyword, path).abs().setScale(0, RoundingMode.CEILING);
        digits = Math.max(digits, Math.min(size.precision(), NUMBER_DIGITS));
      }
    }
    return between(schema, path, NUMBER_DIGITS, NUMBER_DIGITS - digits);
  }

  private String integer(JsonNode schema, String path) {
    return OF_NUMBERS.stream().noneMatch(schema::has)
        ? use("json-integer")
        : between(schema, path, INTEGER_DIGITS, 0);
  }

  private static BigDecimal bound(JsonNode schema, String keyword, String path) {
    JsonNode value = schema.path(keyword);
    if (!isFinite(value)) {
      throw refused(below(path, keyword), "it is a number");
    }
    return value.decimalValue();
  }

  /**
   * The numbers between a schema's bounds, without exponents.
   *
   * @param digits how many there may be before the point
   * @param places how many there may be behind it
   */
  private static String between(JsonNode schema, String path, int digits, int places) {
    BigDecimal step = BigDecimal.ONE.movePointLeft(places);
    BigDecimal most = BigDecimal.TEN.pow(digits).subtract(step);
    BigDecimal least = most.negate();
    for (String keyword : OF_NUMBERS) {
      if (schema.has(keyword)) {
        BigDecimal bound = bound(schema, keyword, path);
        BigDecimal up = bound.setScale(places, RoundingMode.CEILING);
        BigDecimal down = bound.setScale(places, RoundingMode.FLOOR);
        switch (keyword) {
          case "minimum" -> least = least.max(up);
          case "exclusiveMinimum" -> least = least.max(down.add(step));
          case "maximum" -> most = most.min(down);
          default -> most = most.min(up.subtract(step));
        }
      }
    }
    if (least.compareTo(most) > 0) {
      throw refused(path, "there is no number between its bounds");
    }
    List<String> options = new ArrayList<>();
    if (least.signum() < 0) {
      // An integer's zero has no sign.
      BigDecimal nearest = most.negate().max(places == 0 ? step : BigDecimal.ZERO);
      options.add("\"-\" (" + decimals(nearest, least.negate(), places) + ")");
    }
    if (most.signum() >= 0) {
      options.add(decimals(least.max(BigDecimal.ZERO), most, places));
    }
    return String.join(" | ", options);
  }

  /** The numbers from a to b, neither negative. */
  private static String decimals(BigDecimal a, BigDecimal b, int places) {
    long from = a.longValue();
    long to = b.longValue();
    String afterFrom = behindPoint(a, places);
    String afterTo = behindPoint(b, places);
    if (places == 0) {
      return digits(from, to);
    }
    String zeros = "0".repeat(places);
    String nines = "9".repeat(places);
    if (from == to) {
      return "\"" + from + "\" " + fraction(afterFrom, afterTo);
    }
    List<String> options = new ArrayList<>();
    options.add("\"" + from + "\" " + fraction(afterFrom, nines));
    if (from + 1 < to) {
      options.add("(" + digits(from + 1, to - 1) + ") " + fraction(zeros, nines));
    }
    options.add("\"" + to + "\" " + fraction(zeros, afterTo));
    return String.join(" | ", options);
  }

  private static String behindPoint(BigDecimal number, int places) {
    BigDecimal fraction = number.remainder(BigDecimal.ONE).movePointRight(places);
    String digits = fraction.toBigInteger().toString();
    return "0".repeat(Math.max(0, places - digits.length())) + digits;
  }

  /** A point and the digits behind it, from a to b, of the same length; zeros may be left out. */
  private static String fraction(String a, String b) {
    String some = "\".\" (" + places(a, b) + ")";
    return isAll('0', a) ? "(" + some + ")?" : some;
  }

  /** At least one digit of those behind a point, from a to b. */
  private static String places(String a, String b) {
    int length = a.length();
    if (isAll('0', a) && isAll('9', b)) {
      return "[0-9]{1," + length + "}";
    }
    char x = a.charAt(0);
    char y = b.charAt(0);
    String restOfA = a.substring(1);
    String restOfB = b.substring(1);
    if (x == y) {
      return "[" + x + "]" + morePlaces(restOfA, restOfB);
    }
    String zeros = "0".repeat(length - 1);
    String nines = "9".repeat(length - 1);
    List<String> options = new ArrayList<>();
    options.add("[" + x + "]" + morePlaces(restOfA, nines));
    if (x + 1 < y) {
      options.add("[" + (char) (x + 1) + "-" + (char) (y - 1) + "]" + morePlaces(zeros, nines));
    }
    options.add("[" + y + "]" + morePlaces(zeros, restOfB));
    return String.join(" | ", options);
  }

  private static String morePlaces(String a, String b) {
    if (a.isEmpty()) {
      return "";
    }
    return " (" + places(a, b) + ")" + (isAll('0', a) ? "?" : "");
  }

  private static boolean isAll(char digit, String digits) {
    return digits.chars().allMatch(c -> c == digit);
  }

  /** The numbers from a to b, neither negative, without zeros before them. */
  private static String digits(long a, long b) {
    List<String> options = new ArrayList<>();
    long first = 0;
    long last = 9;
    for (int length = 1; length <= INTEGER_DIGITS; length++) {
      long from = Math.max(a, first);
      long to = Math.min(b, last);
      if (from <= to) {
        sameLength(Long.toString(from), Long.toString(to), "", options);
      }
      first = last + 1;
      last = last * 10 + 9;
    }
    return String.join(" | ", options);
  }

  /** The numbers between two of the same length, behind an expression. */
  private static void sameLength(String a, String b, String before, List<String> options) {
    int length = a.length();
    if (length == 0) {
      options.add(before);
      return;
    }
    char x = a.charAt(0);
    char y = b.charAt(0);
    String restOfA = a.substring(1);
    String restOfB = b.substring(1);
    if (x == y) {
      sameLength(restOfA, restOfB, before + " [" + x + "]", options);
      return;
    }
    String zeros = "0".repeat(length - 1);
    String nines = "9".repeat(length - 1);
    if (!restOfA.equals(zeros)) {
      sameLength(restOfA, nines, before + " [" + x + "]", options);
      x++;
    }
    boolean below = !restOfB.equals(nines);
    char last = below ? (char) (y - 1) : y;
    if (x <= last) {
      String any = length > 1 ? " [0-9]{" + (length - 1) + "}" : "";
      options.add(before + " [" + x + "-" + last + "]" + any);
    }
    if (below) {
      sameLength(zeros, restOfB, before + " [" + y + "]", options);
    }
  }

  // What excludes what.

  private void refuseOverlap(List<JsonNode> branches, String path) {
    for (int i = 0; i < branches.size(); i++) {
      for (int j = i + 1; j < branches.size(); j++) {
        if (!exclude(branches.get(i), branches.get(j), 8)) {
          throw refused(
              path,
              "branches "
                  + i
                  + " and "
                  + j
                  + " may both hold; use 'anyOf', or a required property with different 'const's");
        }
      }
    }
  }

  /** Whether obviously no value validates against both. */
  private boolean exclude(JsonNode a, JsonNode b, int depthLeft) {
    JsonNode first = resolved(a);
    JsonNode second = resolved(b);
    for (String list : List.of("enum", "required")) {
      comparisons += 1 + first.path(list).size() + second.path(list).size();
    }
    if (comparisons > COMPARISONS_MAX) {
      throw refused("#", "its 'oneOf's have too much to compare; use 'anyOf'");
    }
    Set<JsonNode> firstValues = finite(first);
    Set<JsonNode> secondValues = finite(second);
    if (firstValues != null && secondValues != null) {
      return firstValues.stream().noneMatch(secondValues::contains)
          && (!hasNumbers(firstValues) || !hasNumbers(secondValues));
    }
    Set<String> firstTypes = possibleTypes(first, firstValues);
    Set<String> secondTypes = possibleTypes(second, secondValues);
    if (firstTypes.stream().noneMatch(secondTypes::contains)) {
      return true;
    }
    if (!firstTypes.equals(Set.of("object")) || !secondTypes.equals(Set.of("object"))) {
      return false;
    }
    Set<String> both = new HashSet<>(strings(first, "required", "#"));
    both.retainAll(strings(second, "required", "#"));
    for (String name : both) {
      JsonNode one = first.path("properties").path(name);
      JsonNode other = second.path("properties").path(name);
      if (depthLeft > 0
          && one.isObject()
          && other.isObject()
          && exclude(one, other, depthLeft - 1)) {
        return true;
      }
    }
    return false;
  }

  private static boolean hasNumbers(Set<JsonNode> values) {
    return values.stream().anyMatch(JsonNode::isNumber);
  }

  /** The values of a schema that counts them, else null. */
  private static @Nullable Set<JsonNode> finite(JsonNode schema) {
    if (schema.has("const")) {
      return Set.of(schema.get("const"));
    }
    if (schema.path("enum").isArray()) {
      Set<JsonNode> values = new HashSet<>();
      schema.path("enum").forEach(values::add);
      return values;
    }
    return null;
  }

  /** Types that a value may have, with integers as numbers. */
  private Set<String> possibleTypes(JsonNode schema, @Nullable Set<JsonNode> values) {
    Set<String> types;
    if (values != null) {
      types = values.stream().map(JsonSchema::typeOf).collect(Collectors.toSet());
    } else if (schema.has("type")) {
      types = new HashSet<>(types(schema, "#"));
    } else {
      types = new HashSet<>(TYPES);
    }
    if (types.remove("integer")) {
      types.add("number");
    }
    return types;
  }
}

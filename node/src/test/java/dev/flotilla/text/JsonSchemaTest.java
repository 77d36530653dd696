package dev.flotilla.text;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import java.io.IOException;
import java.math.BigDecimal;
import java.math.RoundingMode;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.LocalDate;
import java.time.OffsetDateTime;
import java.util.List;
import java.util.Random;
import java.util.UUID;
import java.util.regex.Pattern;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

class JsonSchemaTest {

  /** Reads what RFC 8259 allows, names that stand twice too; nothing behind the end. */
  static final ObjectMapper LENIENT =
      new ObjectMapper().enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS);

  private static Grammar grammar(String schema) throws IOException {
    return JsonSchema.grammar(Json.MAPPER.readTree(schema));
  }

  private static boolean is(Grammar grammar, String text) {
    GrammarAutomaton automaton = grammar.automaton();
    GrammarAutomaton.Configurations at = automaton.start();
    for (byte b : text.getBytes(StandardCharsets.UTF_8)) {
      at = automaton.after(at, automaton.classOf(b));
    }
    return at.mayEnd();
  }

  private static final List<String> SCHEMAS =
      List.of(
          "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"age\":{\"type\":\"integer\"},"
              + "\"tags\":{\"type\":\"array\",\"items\":{\"type\":\"string\",\"maxLength\":5}}},"
              + "\"required\":[\"name\",\"age\",\"tags\"],\"additionalProperties\":false}",
          "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"boolean\"},\"b\":{\"type\":\"null\"},"
              + "\"c\":{\"type\":\"number\"},\"d\":{\"const\":{\"x\":[1,\"\\u00e9\\n\"]}}},\"required\":[\"c\"]}",
          "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"ab\":{\"type\":\"boolean\"}},"
              + "\"additionalProperties\":{\"type\":\"string\"}}",
          "{\"type\":\"object\",\"required\":[\"k\",\"x\"],\"properties\":{\"x\":{\"enum\":[1,\"two\",null]}},"
              + "\"additionalProperties\":true}",
          "{\"$defs\":{\"node\":{\"type\":\"object\",\"properties\":{\"value\":{\"type\":\"integer\"},"
              + "\"next\":{\"anyOf\":[{\"$ref\":\"#/$defs/node\"},{\"type\":\"null\"}]}},"
              + "\"required\":[\"value\",\"next\"],\"additionalProperties\":false}},\"$ref\":\"#/$defs/node\"}",
          "{\"type\":[\"array\",\"null\"],\"items\":{\"$ref\":\"#\"},\"minItems\":2,\"maxItems\":4}",
          "{\"type\":\"array\",\"prefixItems\":[{\"type\":\"integer\"},{\"type\":\"boolean\"},true],"
              + "\"minItems\":1,\"items\":{\"type\":\"string\"},\"maxItems\":6}",
          "{\"type\":\"array\",\"prefixItems\":[{\"type\":\"integer\"},{\"type\":\"null\"}],\"minItems\":2,"
              + "\"maxItems\":2}",
          "{\"type\":\"string\",\"minLength\":3,\"maxLength\":7}",
          "{\"type\":\"integer\",\"minimum\":-17,\"exclusiveMaximum\":2050}",
          "{\"oneOf\":[{\"type\":\"object\",\"properties\":{\"kind\":{\"const\":\"cat\"},\"lives\":{\"type\":\"integer\","
              + "\"minimum\":0,\"maximum\":9}},\"required\":[\"kind\",\"lives\"]},{\"type\":\"object\",\"properties\":"
              + "{\"kind\":{\"const\":\"dog\"}},\"required\":[\"kind\"]},{\"type\":\"string\"}]}",
          "{\"allOf\":[{\"$ref\":\"#/definitions/a\"},{\"properties\":{\"q\":{\"type\":\"boolean\"}},"
              + "\"required\":[\"q\"]}],\"definitions\":{\"a\":{\"type\":\"object\",\"properties\":"
              + "{\"p\":{\"type\":\"null\"}}}},\"properties\":{\"r\":{\"type\":\"number\"}}}",
          "{\"type\":\"object\",\"additionalProperties\":{\"type\":\"array\",\"items\":{\"type\":\"number\"}}}",
          "{\"properties\":{\"we \\\"ird\\n/~\":{\"type\":\"null\"},\"😀\":{\"type\":\"null\"}},"
              + "\"additionalProperties\":{\"type\":\"boolean\"}}",
          "{\"type\":\"array\",\"items\":false}",
          "{\"type\":[\"string\",\"integer\",\"boolean\"],\"maxLength\":2}",
          "{\"type\":\"string\",\"pattern\":\"^[A-Z]{2}-\\\\d+(\\\\.\\\\w*)?$\"}",
          "{}");

  @Test
  void whateverIsDrawnParsesAndValidates() throws IOException {
    long seed = System.nanoTime();
    Random random = new Random(seed);
    TokenConstraintTest.Vocabulary vocabulary = new TokenConstraintTest.Vocabulary(random);
    for (String schema : SCHEMAS) {
      JsonNode parsed = Json.MAPPER.readTree(schema);
      TokenConstraint constraint = vocabulary.constraint(JsonSchema.grammar(parsed));
      for (int round = 0; round < 40; round++) {
        String text =
            TokenConstraintTest.walk(constraint, vocabulary, random, random.nextInt(60)).text();
        JsonNode value = LENIENT.readTree(text);
        assertThat(validates(value, parsed, parsed))
            .as("seed %d: %s by %s", seed, text, schema)
            .isTrue();
      }
    }
  }

  /** What the specification says of the keywords of {@link #SCHEMAS}, and nothing of grammars. */
  private static boolean validates(JsonNode value, JsonNode schema, JsonNode root) {
    if (schema.isBoolean()) {
      return schema.asBoolean();
    }
    boolean valid = true;
    if (schema.has("$ref")) {
      valid &= validates(value, root.at(schema.get("$ref").asText().substring(1)), root);
    }
    if (schema.has("type")) {
      JsonNode types = schema.get("type");
      valid &=
          types.isTextual()
              ? isOf(value, types.asText())
              : elements(types).stream().anyMatch(type -> isOf(value, type.asText()));
    }
    valid &= !schema.has("const") || value.equals(schema.get("const"));
    valid &= !schema.has("enum") || elements(schema.get("enum")).contains(value);
    long anyOf = count(value, schema.path("anyOf"), root);
    valid &= !schema.has("anyOf") || anyOf > 0;
    valid &= !schema.has("oneOf") || count(value, schema.path("oneOf"), root) == 1;
    valid &= count(value, schema.path("allOf"), root) == schema.path("allOf").size();
    if (value.isObject()) {
      for (JsonNode name : schema.path("required")) {
        valid &= value.has(name.asText());
      }
      for (var member : value.properties()) {
        JsonNode property = schema.path("properties").path(member.getKey());
        if (property.isMissingNode()) {
          property = schema.path("additionalProperties");
        }
        valid &= property.isMissingNode() || validates(member.getValue(), property, root);
      }
    }
    if (value.isArray()) {
      valid &= value.size() >= schema.path("minItems").asInt(0);
      valid &= value.size() <= schema.path("maxItems").asInt(Integer.MAX_VALUE);
      for (int i = 0; i < value.size(); i++) {
        JsonNode item =
            i < schema.path("prefixItems").size()
                ? schema.path("prefixItems").get(i)
                : schema.path("items");
        valid &= item.isMissingNode() || validates(value.get(i), item, root);
      }
    }
    if (value.isTextual()) {
      int length = value.asText().codePointCount(0, value.asText().length());
      valid &= length >= schema.path("minLength").asInt(0);
      valid &= length <= schema.path("maxLength").asInt(Integer.MAX_VALUE);
      valid &=
          !schema.has("pattern")
              || Pattern.compile(schema.get("pattern").asText()).matcher(value.asText()).find();
    }
    if (value.isNumber()) {
      valid &= !schema.has("minimum") || value.asDouble() >= schema.get("minimum").asDouble();
      valid &= !schema.has("maximum") || value.asDouble() <= schema.get("maximum").asDouble();
      valid &=
          !schema.has("exclusiveMaximum")
              || value.asDouble() < schema.get("exclusiveMaximum").asDouble();
    }
    return valid;
  }

  private static long count(JsonNode value, JsonNode branches, JsonNode root) {
    return elements(branches).stream().filter(branch -> validates(value, branch, root)).count();
  }

  private static List<JsonNode> elements(JsonNode array) {
    return IntStream.range(0, array.size()).mapToObj(array::get).toList();
  }

  private static boolean isOf(JsonNode value, String type) {
    return switch (type) {
      case "object" -> value.isObject();
      case "array" -> value.isArray();
      case "string" -> value.isTextual();
      case "integer" -> value.isIntegralNumber();
      case "number" -> value.isNumber();
      case "boolean" -> value.isBoolean();
      default -> value.isNull();
    };
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '§',
      quoteCharacter = '`',
      value = {
        "{\"type\":\"boolean\"} § true § ` true`",
        "{\"type\":\"array\"} § [1, {\"a\": [\"b\",null]}] § [1 ,2]",
        "{\"type\":\"array\"} § [[],{}] § [1,  2]",
        "{\"type\":\"array\",\"minItems\":1} § [1] § []",
        "{\"type\":\"array\",\"maxItems\":0} § [] § [1]",
        "{\"type\":\"array\",\"prefixItems\":[{\"type\":\"null\"},{\"type\":\"null\"}]} § [null] § [null,null,1]",
        "{\"prefixItems\":[{\"type\":\"null\"}],\"minItems\":2} § [null,{}] § [null,{},1]",
        "{\"type\":\"string\"} § \"\\ud83d\\ude00 \\u00e9\" § \"\\ud83d\"",
        "{\"type\":\"string\"} § \"\\ud83D\\uDE00\" § \"\\ude00\"",
        "{\"type\":\"string\"} § \"\\\"\\\\\\/\\b\\f\\n\\r\\t\" § \"\\a\"",
        "{\"type\":\"string\"} § \"é😀\u007f\" § \"\t\"",
        "{\"type\":\"string\",\"maxLength\":1} § \"\\ud83d\\ude00\" § \"ab\"",
        "{\"type\":\"string\",\"maxLength\":1} § \"😀\" § \"😀😀\"",
        "{\"type\":\"string\",\"minLength\":2} § \"\\n\\n\" § \"\\n\"",
        "{\"type\":\"number\"} § -0.5e+10 § .5",
        "{\"type\":\"number\"} § 0 § 00",
        "{\"type\":\"number\"} § 100 § 1.",
        "{\"type\":\"integer\"} § -12 § 1.0",
        "{\"type\":\"integer\"} § 999999999999999999 § 1000000000000000000",
        "{\"type\":\"integer\",\"minimum\":1.5} § 2 § 1",
        "{\"type\":\"integer\",\"exclusiveMinimum\":1} § 2 § 1",
        "{\"type\":[\"integer\",\"null\"]} § null § true",
        "{\"enum\":[\"a\",2,{\"b\":[]}]} § {\"b\":[]} § 3",
        "{\"type\":\"string\",\"enum\":[\"a\",2]} § \"a\" § 2",
        "{\"const\":null} § null § 0",
        "{\"type\":\"object\"} § {\"a\": {\"b\":1}, \"c\":2} § []",
        "{\"properties\":{\"a\":{}},\"required\":[\"a\"]} § {\"a\":{}} § {}",
        "{\"properties\":{\"a\":{},\"b\":{}}} § {\"b\":1} § {\"b\":1,\"a\":1}",
        "{\"properties\":{\"a\":{},\"b\":{}}} § {} § {\"c\":1}",
        "{\"properties\":{\"a\":{},\"b\":{}}} § {\"a\":1, \"b\":1} § {,\"b\":1}",
        "{\"properties\":{\"ab\":{\"type\":\"null\"}},\"additionalProperties\":true} § {\"a\":1,\"abc\":1} § {\"ab\":1}",
        "{\"properties\":{\"ab\":{\"type\":\"null\"}},\"additionalProperties\":true} § {\"ab\":null,\"\":1} § {\"\\u0061b\":1}",
        "{\"properties\":{\"a\":{},\"no\":false}} § {\"a\":1} § {\"no\":1}",
        "{\"type\":\"string\",\"format\":\"date\"} § \"2024-02-29\" § \"2023-02-29\"",
        "{\"type\":\"string\",\"format\":\"date\"} § \"2000-02-29\" § \"1900-02-29\"",
        "{\"type\":\"string\",\"format\":\"date\"} § \"2023-12-31\" § \"2023-11-31\"",
        "{\"type\":\"string\",\"format\":\"date-time\"} § \"2023-01-01T23:59:59.5+01:00\" § \"2023-01-01T24:00:00Z\"",
        "{\"type\":\"string\",\"format\":\"ipv4\"} § \"255.0.10.99\" § \"256.0.0.1\"",
        "{\"type\":\"string\",\"format\":\"email\"} § \"a.b@c.de\" § \"a@b\"",
        "{\"type\":\"string\",\"format\":\"x\",\"pattern\":\"^a+$\"} § \"aa\" § \"ab\"",
        "{\"type\":\"string\",\"format\":\"duration\"} § \"P1Y2M3DT4H5M6S\" § \"P\"",
        "{\"type\":\"string\",\"pattern\":\"b\"} § \"abc\" § \"ac\"",
        "{\"type\":\"string\",\"pattern\":\"^a|b$\"} § \"ax\" § \"xa\"",
        "{\"type\":\"string\",\"pattern\":\"^(?:a|b){2,3}?$\"} § \"aba\" § \"abab\"",
        "{\"type\":\"string\",\"pattern\":\"^[^a\\\\s]$\"} § \"\\\"\" § \" \"",
        "{\"type\":\"string\",\"pattern\":\"^.$\"} § \"\\\\\" § \"\\n\"",
        "{\"type\":\"string\",\"pattern\":\"^\\\\/\\\\.\\\\u00e9\\\\x41$\"} § \"/.éA\" § \"/xéA\"",
        "{\"anyOf\":[{\"type\":\"null\"},{\"type\":\"array\",\"items\":{\"$ref\":\"#\"}}]} § [null,[[]]] § [1]",
        "{\"const\":\"a\",\"enum\":[\"a\"],\"type\":\"string\"} § \"a\" § \"b\"",
        "{\"type\":\"string\",\"nullable\":true} § null § 1",
        "{\"$ref\":\"#/$defs/a%20%c3%a9+\",\"$defs\":{\"a é+\":{\"type\":\"null\"}}} § null § 1",
        "{\"type\":\"string\",\"nullable\":false} § \"\" § null",
        "{\"propertyNames\":{\"type\":\"string\"},\"additionalProperties\":{\"type\":\"null\"}} § {\"a\":null} § {\"a\":1}",
        "{\"oneOf\":[{\"type\":\"null\"}],\"discriminator\":{\"propertyName\":\"k\"}} § null § 1",
        "{\"type\":\"integer\",\"minimum\":-9223372036854775808} § -999999999999999999 § 1.5",
        "{\"type\":\"number\",\"minimum\":0,\"maximum\":1} § 0.25 § 1.01",
        "{\"type\":\"number\",\"minimum\":0,\"maximum\":1} § 1.0 § 1e0",
        "{\"type\":\"number\",\"exclusiveMinimum\":0} § 0.00000000000001 § 0.0",
        "{\"title\":\"t\",\"x-mine\":1,\"default\":3,\"type\":\"null\"} § null § 3",
      })
  void aSchemaAllowsTheOneAndNotTheOther(String schema, String text, String other)
      throws IOException {
    Grammar grammar = grammar(schema);
    assertThat(is(grammar, text)).as("%s by %s", text, grammar.source()).isTrue();
    assertThat(is(grammar, other)).as("%s by %s", other, grammar.source()).isFalse();
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '§',
      quoteCharacter = '`',
      value = {
        "3 § #: a schema is an object, true or false",
        "false § #: it allows no value",
        "{\"type\":\"text\"} § #/type: there is no type 'text'",
        "{\"propertes\":{}} § #/propertes: 'propertes' is not supported",
        "{\"properties\":{\"a/b\":{\"not\":{}}}} § #/properties/a~1b/not: 'not' is not supported",
        "{\"items\":{\"uniqueItems\":true,\"type\":\"array\"}} § #/items/uniqueItems: 'uniqueItems'",
        "{\"type\":\"number\",\"minimum\":0.2,\"exclusiveMaximum\":0.2} § #: there is no number between",
        "{\"type\":\"number\",\"multipleOf\":2} § #/multipleOf: 'multipleOf' is not supported",
        "{\"type\":\"integer\",\"minimum\":2,\"maximum\":1} § #: there is no number between",
        "{\"type\":\"integer\",\"minimum\":1e999} § #/minimum: it is a number",
        "{\"type\":\"integer\",\"exclusiveMinimum\":true} § #/exclusiveMinimum: it is a number",
        "{\"minLength\":2,\"maxLength\":1} § #: a string of at least 2 and at most 1 is none",
        "{\"maxLength\":10001} § #/maxLength: it is a whole number from 0 to 10000",
        "{\"minItems\":-1} § #/minItems: it is a whole number",
        "{\"minItems\":1.5} § #/minItems: it is a whole number",
        "{\"minItems\":2,\"maxItems\":1} § #: an array of at least 2 and at most 1 is none",
        "{\"format\":\"uri\"} § #/format: the format 'uri' is not supported",
        "{\"format\":\"date\",\"maxLength\":9} § #/format: together with a length",
        "{\"pattern\":\"a\",\"maxLength\":9} § #/pattern: together with a length",
        "{\"pattern\":\"(?=a)\"} § #/pattern: from '(?=a)' on it is not supported",
        "{\"pattern\":\"a^b\"} § #/pattern: from '^b' on it is not supported",
        "{\"pattern\":\"(a)\\\\1\"} § #/pattern: from '\\1' on it is not supported",
        "{\"pattern\":\"(a\"} § #/pattern: a group has no end",
        "{\"pattern\":\"a)\"} § #/pattern: from ')' on it is not supported",
        "{\"pattern\":\"a**\"} § #/pattern: from '*' on it is not supported",
        "{\"pattern\":\"[b-a]\"} § #/pattern: a range of one of its classes is none",
        "{\"pattern\":\"[a\"} § #/pattern: it ends too early",
        "{\"pattern\":\"a{3,2}\"} § #/pattern: from '{3,2}' on it is not supported",
        "{\"pattern\":7} § #/pattern: it is a string",
        "{\"enum\":[]} § #/enum: it is an array with something in it",
        "{\"type\":\"null\",\"enum\":[1]} § #/enum: none of its values is of the type",
        "{\"enum\":[1],\"minimum\":0} § #: 'enum' and 'minimum' together are not supported",
        "{\"anyOf\":[{}],\"type\":\"null\"} § #: 'anyOf' and 'type' together are not supported",
        "{\"oneOf\":[{\"type\":\"integer\"},{\"type\":\"number\"}]} § #/oneOf: branches 0 and 1 may both hold",
        "{\"allOf\":[{\"type\":\"string\"},{}]} § #/allOf: 'type' in what is put together",
        "{\"allOf\":[{\"properties\":{\"a\":{}}},{\"properties\":{\"a\":{\"type\":\"null\"}}}]} § the property 'a' has two schemas",
        "{\"allOf\":[false,{\"properties\":{}}]} § #/allOf: only objects can be put together",
        "{\"$ref\":\"http://x/y\"} § #/$ref: only references into the schema itself",
        "{\"$ref\":\"#/$defs/x\"} § #/$ref: '#/$defs/x' is not in the schema",
        "{\"$ref\":\"#/%2\"} § #/$ref: '#/%2' is no JSON pointer",
        "{\"$ref\":\"#\"} § begins with itself",
        "{\"$defs\":{\"a\":{\"anyOf\":[{\"$ref\":\"#/$defs/a\"},{}]}},\"$ref\":\"#/$defs/a\"} § rule 'defs-a'",
        "{\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]} § never ends",
        "{\"required\":[\"a\"],\"additionalProperties\":false} § #/required: 'a' is required, but is no property",
        "{\"required\":\"a\"} § #/required: it is an array of strings",
        "{\"properties\":[]} § #/properties: it is an object",
        "{\"const\":\"\\ud83d\"} § #/const: it has half of a surrogate pair",
        "{\"const\":[1e999]} § #/const: one of its numbers is too large",
        "{\"const\":1,\"enum\":[2]} § #/const: it is not in 'enum'",
        "{\"propertyNames\":{\"maxLength\":2}} § #/propertyNames: only that they are of the type",
        "{\"allOf\":[{\"$ref\":\"#/$defs/a\",\"required\":[\"x\"]},{}],\"$defs\":{\"a\":{}}} § #/allOf: '$ref' in what is",
        "{\"oneOf\":[{\"type\":\"null\"},{\"type\":\"string\",\"nullable\":true}]} § branches 0 and 1 may both hold",
        "{\"enum\":[1],\"nullable\":true} § #: 'enum' and 'nullable' together are not supported",
      })
  void whatCannotBeHeldToIsRefusedWithItsPlace(String schema, String message) {
    assertThatThrownBy(() -> grammar(schema))
        .isInstanceOfSatisfying(
            FlotillaException.class, e -> assertThat(e.code()).isEqualTo(Code.INVALID))
        .hasMessageContaining(message);
  }

  @Test
  void tooMuchOfASchemaIsRefused() {
    String deep = "{\"type\":\"array\",\"items\":".repeat(120) + "{}" + "}".repeat(120);
    assertThatThrownBy(() -> grammar(deep)).hasMessageContaining("nested more than 100 deep");
    String values = "[0" + ",1".repeat(2000) + "]";
    assertThatThrownBy(() -> grammar("{\"enum\":" + values + "}"))
        .hasMessageContaining("more than 1000 values");
    String longer = "{\"type\":\"array\",\"maxItems\":9999,\"items\":{\"type\":\"string\"}}";
    assertThatThrownBy(
            () ->
                grammar(
                    "{\"properties\":{\"a\":{\"maxLength\":9999}"
                        + IntStream.range(0, 20)
                            .mapToObj(i -> ",\"p" + i + "\":" + longer)
                            .reduce("", String::concat)
                        + "}}"))
        .hasMessageContaining("larger than its bound");
    String longName = "{\"properties\":{\"" + "n".repeat(5000) + "\":{}}}";
    assertThatThrownBy(() -> grammar(longName)).hasMessageContaining("...: it stands behind names");
    String free =
        "{\"properties\":{\"" + "n".repeat(40_000) + "\":false},\"additionalProperties\":{}}";
    assertThatThrownBy(() -> grammar(free)).hasMessageContaining("more than 20000 rules");
  }

  @Test
  void branchesThatTakeLongToTellApartAreRefused() {
    String names =
        IntStream.range(0, 30)
            .mapToObj(i -> "\"p" + i + "\"")
            .reduce((a, b) -> a + "," + b)
            .orElseThrow();
    String schema =
        "{\"$defs\":{\"x\":{\"type\":\"object\",\"required\":["
            + names
            + "],\"properties\":{"
            + names.replaceAll("\"p[0-9]+\"", "$0:{\"\\$ref\":\"#/\\$defs/x\"}")
            + "}}},\"oneOf\":[{\"$ref\":\"#/$defs/x\"},{\"$ref\":\"#/$defs/x\"}]}";
    assertThatThrownBy(() -> grammar(schema)).hasMessageContaining("too much to compare");
  }

  @Test
  void aLengthOfManyStringsTakesTheRoomOfOne() throws IOException {
    String properties =
        IntStream.range(0, 60)
            .mapToObj(i -> "\"p" + i + "\":{\"type\":\"string\",\"maxLength\":2000}")
            .reduce((a, b) -> a + "," + b)
            .orElseThrow();
    Grammar grammar = grammar("{\"properties\":{" + properties + "}}");
    assertThat(is(grammar, "{\"p3\":\"" + "a".repeat(2000) + "\",\"p59\":\"\"}")).isTrue();
    assertThat(is(grammar, "{\"p3\":\"" + "a".repeat(2001) + "\"}")).isFalse();
  }

  @Test
  void integersAreThoseBetweenTheirBounds() throws IOException {
    long seed = System.nanoTime();
    Random random = new Random(seed);
    for (int round = 0; round < 200; round++) {
      long a = bound(random);
      long b = bound(random);
      long least = Math.min(a, b);
      long most = Math.max(a, b);
      Grammar grammar =
          grammar("{\"type\":\"integer\",\"minimum\":" + least + ",\"maximum\":" + most + "}");
      for (int i = 0; i < 60; i++) {
        long n =
            switch (i % 3) {
              case 0 -> least + random.nextInt(5) - 2;
              case 1 -> most + random.nextInt(5) - 2;
              default -> bound(random);
            };
        assertThat(is(grammar, Long.toString(n)))
            .as("seed %d: %d from %d to %d", seed, n, least, most)
            .isEqualTo(n >= least && n <= most);
      }
    }
  }

  @Test
  void numbersAreThoseBetweenTheirBounds() throws IOException {
    long seed = System.nanoTime();
    Random random = new Random(seed);
    for (int round = 0; round < 300; round++) {
      BigDecimal a = decimal(random, 3);
      BigDecimal b = decimal(random, 3);
      boolean open = random.nextBoolean() && a.compareTo(b) != 0;
      Grammar grammar =
          grammar(
              "{\"type\":\"number\",\"%s\":%s,\"%s\":%s}"
                  .formatted(
                      open ? "exclusiveMinimum" : "minimum",
                      a.min(b).toPlainString(),
                      open ? "exclusiveMaximum" : "maximum",
                      a.max(b).toPlainString()));
      for (int i = 0; i < 80; i++) {
        BigDecimal n =
            switch (i % 3) {
              case 0 -> a.add(decimal(random, 12).scaleByPowerOfTen(-random.nextInt(8)));
              case 1 -> b.setScale(random.nextInt(11), RoundingMode.HALF_UP);
              default -> decimal(random, 5);
            };
        int low = n.compareTo(a.min(b));
        int high = n.compareTo(a.max(b));
        // The digits behind the point end in time, whatever the bounds.
        if (n.scale() <= 10) {
          assertThat(is(grammar, n.toPlainString()))
              .as("seed %d: %s by %s", seed, n.toPlainString(), grammar.source())
              .isEqualTo(open ? low > 0 && high < 0 : low >= 0 && high <= 0);
        }
      }
    }
  }

  private static BigDecimal decimal(Random random, int places) {
    int scale = random.nextInt(places + 1);
    long range = (long) Math.pow(10, scale + random.nextInt(3));
    return BigDecimal.valueOf(random.nextLong(-range, range + 1), scale);
  }

  private static long bound(Random random) {
    long size = 1;
    for (int digits = random.nextInt(18); digits > 0; digits--) {
      size *= 10;
    }
    return random.nextLong(-size, size + 1) + random.nextInt(3) - 1;
  }

  @ParameterizedTest
  @ValueSource(strings = {"date", "date-time", "duration", "uuid"})
  void formatsAreWhatJavaReadsAsSuch(String format) throws IOException {
    long seed = System.nanoTime();
    Random random = new Random(seed);
    TokenConstraintTest.Vocabulary vocabulary = new TokenConstraintTest.Vocabulary(random);
    TokenConstraint constraint =
        vocabulary.constraint(grammar("{\"type\":\"string\",\"format\":\"" + format + "\"}"));
    for (int round = 0; round < 100; round++) {
      String text =
          LENIENT
              .readTree(TokenConstraintTest.walk(constraint, vocabulary, random, 50).text())
              .asText();
      Object read =
          switch (format) {
            case "date" -> LocalDate.parse(text);
            case "date-time" -> OffsetDateTime.parse(text);
            case "duration" ->
                text.contains("T")
                    ? Duration.parse("P" + text.substring(text.indexOf('T')))
                    : java.time.Period.parse(text);
            default -> UUID.fromString(text);
          };
      assertThat(read).as("seed %d: %s", seed, text).isNotNull();
    }
  }

  @Test
  void namesThatAreDeclaredAreNoOthers() throws IOException {
    Grammar grammar =
        grammar(
            "{\"properties\":{\"to\":{\"type\":\"null\"},\"tea\":{\"type\":\"null\"},\"😀é\":{\"type\":\"null\"}},"
                + "\"additionalProperties\":{\"type\":\"integer\"}}");
    for (String name : List.of("t", "te", "teas", "tom", "", "x", "😀", "😀è", "😁")) {
      assertThat(is(grammar, "{\"" + name + "\":1}")).as(name).isTrue();
    }
    for (String name : List.of("to", "tea", "😀é")) {
      assertThat(is(grammar, "{\"" + name + "\":1}")).as(name).isFalse();
      assertThat(is(grammar, "{\"" + name + "\":null}")).as(name).isTrue();
    }
  }

  @Test
  void manyOptionalPropertiesAndLongEnumsAreFine() throws IOException {
    StringBuilder schema = new StringBuilder("{\"properties\":{\"e\":{\"enum\":[0");
    for (int i = 1; i < 1000; i++) {
      schema.append(",\"value ").append(i).append('"');
    }
    schema.append("]}");
    for (int i = 0; i < 500; i++) {
      schema.append(",\"p").append(i).append("\":{\"type\":\"integer\"}");
    }
    Grammar grammar = grammar(schema.append("}}").toString());
    assertThat(is(grammar, "{\"e\":\"value 999\", \"p3\":1,\"p499\":2}")).isTrue();
    assertThat(is(grammar, "{\"p3\":1,\"p2\":2}")).isFalse();
  }
}

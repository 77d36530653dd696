package dev.flotilla.data.sql;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.sql.Timestamp;
import java.time.Duration;
import java.time.Instant;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.LocalTime;
import java.time.Period;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.UUID;
import org.jspecify.annotations.Nullable;

/**
 * SQL's values in Java and in JSON.
 *
 * <p>In JSON, BOOLEAN is true or false; TINYINT to BIGINT and finite DOUBLE and REAL are numbers;
 * VARCHAR is a string. What JSON has no form for is a string, told by its column's type: DECIMAL in
 * plain digits with its scale, VARBINARY in base64, UUID, DATE {@code 2026-01-31}, TIME {@code
 * 13:05:00.25}, TIMESTAMP {@code 2026-01-31T13:05:00.25} (without a zone), intervals in ISO 8601,
 * and the doubles {@code NaN}, {@code Infinity}, {@code -Infinity}.
 *
 * <p>An argument is one of these values of JSON, or {@code {"type":"DECIMAL","value":"1.50"}} to
 * say which it is.
 */
public final class SqlValues {

  private static final Map<String, String> TYPES =
      Map.ofEntries(
          Map.entry("java.lang.Boolean", "BOOLEAN"),
          Map.entry("java.lang.Byte", "TINYINT"),
          Map.entry("java.lang.Short", "SMALLINT"),
          Map.entry("java.lang.Integer", "INTEGER"),
          Map.entry("java.lang.Long", "BIGINT"),
          Map.entry("java.lang.Float", "REAL"),
          Map.entry("java.lang.Double", "DOUBLE"),
          Map.entry("java.math.BigDecimal", "DECIMAL"),
          Map.entry("java.lang.String", "VARCHAR"),
          Map.entry("boolean", "BOOLEAN"),
          Map.entry("byte", "TINYINT"),
          Map.entry("short", "SMALLINT"),
          Map.entry("int", "INTEGER"),
          Map.entry("long", "BIGINT"),
          Map.entry("float", "REAL"),
          Map.entry("double", "DOUBLE"),
          Map.entry("[B", "VARBINARY"),
          Map.entry("byte[]", "VARBINARY"),
          Map.entry("org.apache.calcite.avatica.util.ByteString", "VARBINARY"),
          Map.entry("java.util.UUID", "UUID"),
          Map.entry("java.sql.Date", "DATE"),
          Map.entry("java.time.LocalDate", "DATE"),
          Map.entry("java.sql.Time", "TIME"),
          Map.entry("java.time.LocalTime", "TIME"),
          Map.entry("java.sql.Timestamp", "TIMESTAMP"),
          Map.entry("java.util.Date", "TIMESTAMP"),
          Map.entry("java.time.LocalDateTime", "TIMESTAMP"),
          Map.entry("java.time.Duration", "INTERVAL DAY"),
          Map.entry("java.time.Period", "INTERVAL YEAR"),
          Map.entry("java.lang.Void", "NULL"));

  private SqlValues() {}

  /** The SQL type of what the engine holds as this class. */
  static String type(String javaClass) {
    return TYPES.getOrDefault(javaClass, "OTHER");
  }

  /** What the engine gives, as {@link SqlResult} says it. */
  static @Nullable Object fromEngine(@Nullable Object value) {
    return switch (value) {
      case null -> null;
      case Timestamp timestamp -> timestamp.toLocalDateTime();
      case java.sql.Date date -> date.toLocalDate();
      case java.sql.Time time ->
          // Time's own conversion drops the milliseconds.
          LocalTime.ofNanoOfDay(
              new Timestamp(time.getTime()).toLocalDateTime().toLocalTime().toNanoOfDay());
      case org.apache.calcite.avatica.util.ByteString bytes -> bytes.getBytes();
      default -> value;
    };
  }

  /** A caller's argument as the engine takes it. */
  static @Nullable Object toEngine(@Nullable Object argument) {
    return switch (argument) {
      case null -> null;
      case LocalDateTime time -> Timestamp.valueOf(time);
      case Instant instant -> Timestamp.valueOf(LocalDateTime.ofInstant(instant, ZoneOffset.UTC));
      case LocalDate date -> java.sql.Date.valueOf(date);
      case LocalTime time ->
          new java.sql.Time(Timestamp.valueOf(time.atDate(LocalDate.EPOCH)).getTime());
      case BigInteger number -> new BigDecimal(number);
      case Boolean _, Byte _, Short _, Integer _, Long _, Float _, Double _ -> argument;
      case BigDecimal _, String _, UUID _, byte[] _, Duration _, Period _ -> argument;
      case Timestamp _, java.sql.Date _, java.sql.Time _ -> argument;
      default ->
          throw new FlotillaException(
              Code.INVALID,
              "an argument of " + argument.getClass() + " has no type in SQL",
              "Pass a number, text, boolean, bytes, UUID, or a date or time of java.time.");
    };
  }

  /** A value as JSON. */
  public static JsonNode toJson(@Nullable Object value) {
    JsonNodeFactory json = JsonNodeFactory.instance;
    return switch (value) {
      case null -> json.nullNode();
      case Boolean flag -> json.booleanNode(flag);
      case Byte number -> json.numberNode(number.intValue());
      case Short number -> json.numberNode(number.intValue());
      case Integer number -> json.numberNode(number);
      case Long number -> json.numberNode(number);
      case Float number when Float.isFinite(number) -> json.numberNode(number);
      case Double number when Double.isFinite(number) -> json.numberNode(number);
      case BigDecimal number -> json.textNode(number.toPlainString());
      case byte[] bytes -> json.textNode(Base64.getEncoder().encodeToString(bytes));
      default -> json.textNode(value.toString());
    };
  }

  /** The inverse of {@link #toJson} for a column of this type. */
  public static @Nullable Object fromJson(JsonNode value, String type) {
    if (value.isNull()) {
      return null;
    }
    try {
      return switch (type.toUpperCase(Locale.ROOT)) {
        case "BOOLEAN" -> value.isBoolean() ? value.booleanValue() : wrong(value, type);
        case "TINYINT" -> Byte.parseByte(value.asText());
        case "SMALLINT" -> Short.parseShort(value.asText());
        case "INTEGER", "INT" -> Integer.parseInt(value.asText());
        case "BIGINT" -> Long.parseLong(value.asText());
        case "REAL" -> Float.parseFloat(value.asText());
        case "DOUBLE", "FLOAT" -> Double.parseDouble(value.asText());
        case "DECIMAL" -> new BigDecimal(value.asText());
        case "VARCHAR", "CHAR" -> value.asText();
        case "VARBINARY", "BINARY" -> Base64.getDecoder().decode(value.asText());
        case "UUID" -> UUID.fromString(value.asText());
        case "DATE" -> LocalDate.parse(value.asText());
        case "TIME" -> LocalTime.parse(value.asText());
        case "TIMESTAMP" -> LocalDateTime.parse(value.asText().replace(' ', 'T'));
        case "INTERVAL DAY" -> Duration.parse(value.asText());
        case "INTERVAL YEAR" -> Period.parse(value.asText());
        case "OTHER", "NULL" -> value.asText();
        default -> wrong(value, type);
      };
    } catch (IllegalArgumentException | java.time.DateTimeException e) {
      return wrong(value, type);
    }
  }

  private static Object wrong(JsonNode value, String type) {
    String text = value.toString();
    throw new FlotillaException(
        Code.INVALID,
        (text.length() > 100 ? text.substring(0, 100) + "…" : text) + " is not a " + type,
        "Types are BOOLEAN, TINYINT, SMALLINT, INTEGER, BIGINT, DECIMAL, REAL, DOUBLE, VARCHAR,"
            + " VARBINARY (base64), UUID, DATE, TIME and TIMESTAMP (ISO 8601).");
  }

  /** An argument as a client sends it. */
  public static @Nullable Object argument(JsonNode json) {
    if (json.isObject()) {
      JsonNode value = json.path("value");
      if (!json.path("type").isTextual() || value.isMissingNode()) {
        return wrong(json, "typed argument, which looks like {\"type\":\"DATE\",\"value\":\"…\"}");
      }
      return fromJson(value, json.path("type").textValue());
    }
    if (json.isNull()) {
      return null;
    }
    if (json.isTextual()) {
      return json.textValue();
    }
    if (json.isBoolean()) {
      return json.booleanValue();
    }
    if (json.isInt()) {
      return json.intValue();
    }
    if (json.isIntegralNumber()) {
      return json.canConvertToLong()
          ? (Object) json.longValue()
          : new BigDecimal(json.bigIntegerValue());
    }
    return json.isNumber() ? (Object) json.doubleValue() : wrong(json, "value of SQL");
  }

  /** An argument so that {@link #argument} gives it back. */
  public static JsonNode argumentToJson(@Nullable Object value) {
    if (value == null
        || value instanceof Boolean
        || value instanceof Integer
        || value instanceof String
        || (value instanceof Double number && Double.isFinite(number))) {
      return toJson(value);
    }
    Object engine = fromEngine(toEngine(value));
    String type = type(String.valueOf(engine == null ? "" : engine.getClass().getName()));
    ObjectNode typed = Json.MAPPER.createObjectNode().put("type", type);
    typed.set("value", toJson(engine));
    return typed;
  }

  /** {@code {"columns":[{"name","type"}],"rows":[[…]],"updated","truncated"}}. */
  public static ObjectNode toJson(SqlResult result) {
    ObjectNode json = Json.MAPPER.createObjectNode();
    ArrayNode columns = json.putArray("columns");
    result
        .columns()
        .forEach(
            column -> columns.addObject().put("name", column.name()).put("type", column.type()));
    ArrayNode rows = json.putArray("rows");
    for (List<@Nullable Object> row : result.rows()) {
      ArrayNode cells = rows.addArray();
      row.forEach(value -> cells.add(toJson(value)));
    }
    return json.put("updated", result.updated()).put("truncated", result.truncated());
  }

  /** The inverse of {@link #toJson(SqlResult)}. */
  public static SqlResult resultFromJson(JsonNode json) {
    List<SqlResult.Column> columns = new ArrayList<>();
    for (JsonNode column : json.path("columns")) {
      columns.add(new SqlResult.Column(column.path("name").asText(), column.path("type").asText()));
    }
    List<List<@Nullable Object>> rows = new ArrayList<>();
    for (JsonNode row : json.path("rows")) {
      List<@Nullable Object> cells = new ArrayList<>();
      for (int i = 0; i < row.size(); i++) {
        cells.add(fromJson(row.get(i), columns.get(i).type()));
      }
      rows.add(cells);
    }
    return new SqlResult(
        columns, rows, json.path("updated").asLong(), json.path("truncated").asBoolean());
  }
}

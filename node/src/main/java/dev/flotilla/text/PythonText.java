package dev.flotilla.text;

import dev.flotilla.text.PythonValue.Dict;
import dev.flotilla.text.PythonValue.Namespace;
import dev.flotilla.text.PythonValue.None;
import dev.flotilla.text.PythonValue.Sequence;
import dev.flotilla.text.PythonValue.Undefined;
import java.math.BigDecimal;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** Python's {@code str()}, {@code repr()} and {@code json.dumps()}, which keep provenance. */
final class PythonText {

  private static final int DEPTH_MAX = 200;

  private PythonText() {}

  /** Whether Python's {@code str.isspace} holds. */
  static boolean isSpace(char c) {
    return Character.isWhitespace(c) || Character.isSpaceChar(c) || c == 0x85;
  }

  static List<Object> characters(MarkedText text) {
    List<Object> result = new ArrayList<>();
    for (int i = 0; i < text.length(); ) {
      int next = i + Character.charCount(text.value().codePointAt(i));
      result.add(text.substring(i, next));
      i = next;
    }
    return result;
  }

  /** Compares by code points, as Python does; UTF-16 order differs beyond U+FFFF. */
  static int compare(String left, String right) {
    int common = Math.min(left.length(), right.length());
    for (int i = 0; i < common; i++) {
      char a = left.charAt(i);
      char b = right.charAt(i);
      if (a != b) {
        boolean bothOrNeither = Character.isSurrogate(a) == Character.isSurrogate(b);
        return bothOrNeither ? a - b : Character.isSurrogate(a) ? 1 : -1;
      }
    }
    return left.length() - right.length();
  }

  /** {@code str(value)}. */
  static MarkedText str(Object value, JinjaBudget budget) {
    return switch (value) {
      case MarkedText text -> text;
      case Undefined undefined -> MarkedText.EMPTY;
      case Sequence s -> repr(value, budget);
      case Dict d -> repr(value, budget);
      case Namespace n -> repr(value, budget);
      default -> MarkedText.trusted(scalar(value));
    };
  }

  private static String scalar(Object value) {
    return switch (value) {
      case None none -> "None";
      case Boolean b -> b ? "True" : "False";
      case Double d -> real(d);
      case Number number -> number.toString();
      case Undefined undefined -> "Undefined";
      default -> "<" + PythonValue.typeName(value) + ">";
    };
  }

  /** Python's shortest form of a float. */
  static String real(double value) {
    if (Double.isNaN(value)) {
      return "nan";
    }
    if (Double.isInfinite(value)) {
      return value > 0 ? "inf" : "-inf";
    }
    if (value == 0) {
      return 1 / value < 0 ? "-0.0" : "0.0";
    }
    BigDecimal shortest = new BigDecimal(Double.toString(value)).stripTrailingZeros();
    int exponent = shortest.precision() - shortest.scale() - 1;
    if (exponent >= -4 && exponent < 16) {
      String plain = shortest.toPlainString();
      return plain.contains(".") ? plain : plain + ".0";
    }
    String digits = shortest.unscaledValue().abs().toString();
    return (value < 0 ? "-" : "")
        + digits.charAt(0)
        + (digits.length() > 1 ? "." + digits.substring(1) : "")
        + (exponent < 0 ? "e-" : "e+")
        + (Math.abs(exponent) < 10 ? "0" : "")
        + Math.abs(exponent);
  }

  /** {@code repr(value)}. */
  static MarkedText repr(Object value, JinjaBudget budget) {
    MarkedText.Builder out = new MarkedText.Builder(budget);
    repr(value, out, 0);
    return out.build();
  }

  private static void repr(Object value, MarkedText.Builder out, int depth) {
    if (depth > DEPTH_MAX) {
      throw TemplateException.limit("depth");
    }
    switch (value) {
      case MarkedText text -> quoted(text, out);
      case Sequence sequence -> {
        out.append(sequence.tuple() ? "(" : "[");
        String separator = "";
        for (Object item : sequence.items()) {
          out.append(separator);
          repr(item, out, depth + 1);
          separator = ", ";
        }
        if (sequence.tuple() && sequence.items().size() == 1) {
          out.append(",");
        }
        out.append(sequence.tuple() ? ")" : "]");
      }
      case Dict dict -> entries(dict.items(), out, depth);
      case Namespace namespace -> {
        out.append("<Namespace ");
        out.append("{");
        String separator = "";
        for (Map.Entry<String, Object> entry : namespace.attributes.entrySet()) {
          out.append(separator).append("'" + entry.getKey() + "': ");
          repr(entry.getValue(), out, depth + 1);
          separator = ", ";
        }
        out.append("}>");
      }
      default -> out.append(scalar(value));
    }
  }

  private static void entries(Map<Object, Object> items, MarkedText.Builder out, int depth) {
    out.append("{");
    String separator = "";
    for (Map.Entry<Object, Object> entry : items.entrySet()) {
      out.append(separator);
      repr(entry.getKey(), out, depth + 1);
      out.append(": ");
      repr(entry.getValue(), out, depth + 1);
      separator = ", ";
    }
    out.append("}");
  }

  private static void quoted(MarkedText text, MarkedText.Builder out) {
    String value = text.value();
    String quote = value.indexOf('\'') >= 0 && value.indexOf('"') < 0 ? "\"" : "'";
    out.append(quote);
    int clean = 0;
    for (int i = 0; i < value.length(); ) {
      int c = value.codePointAt(i);
      int next = i + Character.charCount(c);
      String escaped =
          switch (c) {
            case '\\' -> "\\\\";
            case '\n' -> "\\n";
            case '\r' -> "\\r";
            case '\t' -> "\\t";
            default -> {
              if (c == quote.charAt(0)) {
                yield "\\" + quote;
              }
              if (isPrintable(c)) {
                yield "";
              }
              yield c < 0x100
                  ? "\\x%02x".formatted(c)
                  : c < 0x10000 ? "\\u%04x".formatted(c) : "\\U%08x".formatted(c);
            }
          };
      if (!escaped.isEmpty()) {
        out.append(text, clean, i).append(escaped, text.isTrusted(i, next));
        clean = next;
      }
      i = next;
    }
    out.append(text, clean, value.length()).append(quote);
  }

  private static boolean isPrintable(int c) {
    return switch (Character.getType(c)) {
      case Character.CONTROL,
          Character.FORMAT,
          Character.SURROGATE,
          Character.PRIVATE_USE,
          Character.UNASSIGNED,
          Character.LINE_SEPARATOR,
          Character.PARAGRAPH_SEPARATOR ->
          false;
      case Character.SPACE_SEPARATOR -> c == ' ';
      default -> true;
    };
  }

  /**
   * How {@code json.dumps} writes.
   *
   * @param indent what one level is indented by; empty for all on one line
   */
  record JsonStyle(
      String indent,
      boolean pretty,
      boolean ascii,
      boolean sorted,
      String itemSeparator,
      String keySeparator) {}

  /** {@code json.dumps(value)}. */
  static MarkedText json(Object value, JsonStyle style, JinjaBudget budget) {
    MarkedText.Builder out = new MarkedText.Builder(budget);
    json(value, style, out, 0);
    return out.build();
  }

  private static void json(Object value, JsonStyle style, MarkedText.Builder out, int depth) {
    if (depth > DEPTH_MAX) {
      throw TemplateException.limit("depth");
    }
    switch (value) {
      case None none -> out.append("null");
      case Boolean b -> out.append(b ? "true" : "false");
      case Double d ->
          out.append(
              Double.isNaN(d)
                  ? "NaN"
                  : Double.isInfinite(d) ? (d > 0 ? "Infinity" : "-Infinity") : real(d));
      case Number number -> out.append(number.toString());
      case MarkedText text -> jsonString(text, style.ascii(), out);
      case Sequence sequence -> {
        out.append("[");
        boolean first = true;
        for (Object item : sequence.items()) {
          jsonSeparator(style, out, depth + 1, first);
          json(item, style, out, depth + 1);
          first = false;
        }
        jsonEnd(style, out, depth, first, "]");
      }
      case Dict dict -> {
        out.append("{");
        boolean first = true;
        List<Map.Entry<Object, Object>> entries = new ArrayList<>(dict.items().entrySet());
        if (style.sorted()) {
          entries.sort((a, b) -> PythonValue.compare(a.getKey(), b.getKey(), "<"));
        }
        for (Map.Entry<Object, Object> entry : entries) {
          jsonSeparator(style, out, depth + 1, first);
          if (entry.getKey() instanceof MarkedText key) {
            jsonString(key, style.ascii(), out);
          } else if (entry.getKey() instanceof Sequence) {
            throw TemplateException.type("keys must be str, int, float, bool or None, not tuple");
          } else {
            out.append("\"");
            json(entry.getKey(), style, out, depth + 1);
            out.append("\"");
          }
          out.append(style.keySeparator());
          json(entry.getValue(), style, out, depth + 1);
          first = false;
        }
        jsonEnd(style, out, depth, first, "}");
      }
      default ->
          throw TemplateException.type(
              "Object of type " + PythonValue.typeName(value) + " is not JSON serializable");
    }
  }

  private static void jsonSeparator(
      JsonStyle style, MarkedText.Builder out, int depth, boolean first) {
    if (!first) {
      out.append(style.itemSeparator());
    }
    jsonLine(style, out, depth);
  }

  private static void jsonEnd(
      JsonStyle style, MarkedText.Builder out, int depth, boolean empty, String bracket) {
    if (!empty) {
      jsonLine(style, out, depth);
    }
    out.append(bracket);
  }

  private static void jsonLine(JsonStyle style, MarkedText.Builder out, int depth) {
    if (style.pretty()) {
      out.append("\n");
      for (int i = 0; i < depth; i++) {
        out.append(style.indent());
      }
    }
  }

  private static void jsonString(MarkedText text, boolean ascii, MarkedText.Builder out) {
    out.append("\"");
    int clean = 0;
    for (int i = 0; i < text.length(); i++) {
      char c = text.charAt(i);
      String escaped =
          switch (c) {
            case '"' -> "\\\"";
            case '\\' -> "\\\\";
            case '\n' -> "\\n";
            case '\r' -> "\\r";
            case '\t' -> "\\t";
            case '\f' -> "\\f";
            case '\b' -> "\\b";
            default -> c < 0x20 || (ascii && c > 0x7E) ? "\\u%04x".formatted((int) c) : "";
          };
      if (!escaped.isEmpty()) {
        out.append(text, clean, i).append(escaped, text.isTrusted(i, i + 1));
        clean = i + 1;
      }
    }
    out.append(text, clean, text.length()).append("\"");
  }
}

package dev.flotilla.text;

import dev.flotilla.text.PythonValue.Arguments;
import dev.flotilla.text.PythonValue.Dict;
import dev.flotilla.text.PythonValue.Undefined;
import java.math.BigDecimal;
import java.math.RoundingMode;
import java.util.List;

/** Python's {@code %} operator on strings and {@code str.format}. */
final class PythonFormat {

  private static final int WIDTH_MAX = 1000;

  private PythonFormat() {}

  /** {@code format % arguments}. */
  static MarkedText percent(MarkedText format, List<Object> arguments, JinjaBudget budget) {
    MarkedText.Builder out = new MarkedText.Builder(budget);
    int used = 0;
    int at = 0;
    while (at < format.length()) {
      int percent = format.value().indexOf('%', at);
      if (percent < 0) {
        break;
      }
      out.append(format, at, percent);
      int i = percent + 1;
      Object named = null;
      if (i < format.length() && format.charAt(i) == '(') {
        int end = format.value().indexOf(')', i);
        if (end < 0) {
          throw new TemplateException("ValueError", "incomplete format key");
        }
        MarkedText key = format.substring(i + 1, end);
        named =
            arguments.size() == 1 && arguments.getFirst() instanceof Dict dict
                ? dict.items().get(key)
                : null;
        if (named == null) {
          throw new TemplateException("KeyError", "'" + key + "'");
        }
        used = 1;
        i = end + 1;
      }
      int specification = i;
      while (i < format.length() && "-+ #0123456789.".indexOf(format.charAt(i)) >= 0) {
        i++;
      }
      if (i == format.length()) {
        throw new TemplateException("ValueError", "incomplete format");
      }
      String flags = format.value().substring(specification, i);
      char type = format.charAt(i);
      at = i + 1;
      if (type == '%') {
        out.append("%");
        continue;
      }
      if (named == null && used == arguments.size()) {
        throw TemplateException.type("not enough arguments for format string");
      }
      Object value = named != null ? named : arguments.get(used++);
      boolean left = flags.contains("-");
      String rest = flags.replace("-", "");
      String align = left ? "<" : type == 's' || type == 'r' ? ">" : "";
      out.append(
          switch (type) {
            case 's' -> formatted(PythonText.str(value, budget), align + rest, budget);
            case 'r' -> formatted(PythonText.repr(value, budget), align + rest, budget);
            case 'd', 'i', 'u' -> formatted(truncated(value), align + rest + "d", budget);
            case 'x', 'X', 'o', 'f', 'F', 'e', 'g' -> formatted(value, align + rest + type, budget);
            default ->
                throw new TemplateException(
                    "ValueError", "unsupported format character '" + type + "'");
          });
    }
    if (used < arguments.size()
        && !(arguments.size() == 1 && arguments.getFirst() instanceof Dict)) {
      throw TemplateException.type("not all arguments converted during string formatting");
    }
    return out.append(format, at, format.length()).build();
  }

  private static Object truncated(Object value) {
    return value instanceof Double d ? (Object) d.longValue() : value;
  }

  /** {@code format.format(*arguments)}; attributes of the arguments cannot be reached. */
  static MarkedText format(MarkedText format, Arguments arguments, JinjaBudget budget) {
    MarkedText.Builder out = new MarkedText.Builder(budget);
    int automatic = 0;
    int at = 0;
    while (at < format.length()) {
      char c = format.charAt(at);
      if (c != '{' && c != '}') {
        int next = at;
        while (next < format.length() && format.charAt(next) != '{' && format.charAt(next) != '}') {
          next++;
        }
        out.append(format, at, next);
        at = next;
        continue;
      }
      if (at + 1 < format.length() && format.charAt(at + 1) == c) {
        out.append(format, at, at + 1);
        at += 2;
        continue;
      }
      int end = format.value().indexOf('}', at);
      if (c == '}' || end < 0) {
        throw new TemplateException(
            "ValueError", "Single '" + c + "' encountered in format string");
      }
      String field = format.value().substring(at + 1, end);
      at = end + 1;
      int colon = field.indexOf(':');
      String specification = colon < 0 ? "" : field.substring(colon + 1);
      String name = colon < 0 ? field : field.substring(0, colon);
      boolean repr = name.endsWith("!r");
      if (repr || name.endsWith("!s")) {
        name = name.substring(0, name.length() - 2);
      }
      Object value;
      if (name.isEmpty() || name.chars().allMatch(Character::isDigit)) {
        int index =
            name.isEmpty() ? automatic++ : name.length() > 4 ? WIDTH_MAX : Integer.parseInt(name);
        if (index >= arguments.positional().size()) {
          throw new TemplateException("IndexError", "tuple index out of range");
        }
        value = arguments.positional().get(index);
      } else {
        Object found = arguments.named().get(name);
        if (found == null) {
          throw new TemplateException("KeyError", "'" + name + "'");
        }
        value = found;
      }
      out.append(formatted(repr ? PythonText.repr(value, budget) : value, specification, budget));
    }
    return out.build();
  }

  /** {@code format(value, specification)}. */
  private static MarkedText formatted(Object value, String specification, JinjaBudget budget) {
    if (specification.isEmpty()) {
      return PythonText.str(value, budget);
    }
    if (value instanceof Undefined undefined) {
      throw undefined.error();
    }
    int at = 0;
    char fill = ' ';
    char align = 0;
    if (specification.length() > 1 && "<>^=".indexOf(specification.charAt(1)) >= 0) {
      fill = specification.charAt(0);
      align = specification.charAt(1);
      at = 2;
    } else if ("<>^=".indexOf(specification.charAt(0)) >= 0) {
      align = specification.charAt(0);
      at = 1;
    }
    String sign = "";
    while (at < specification.length() && "+- #".indexOf(specification.charAt(at)) >= 0) {
      sign =
          specification.charAt(at) == '+' || specification.charAt(at) == ' '
              ? specification.substring(at, at + 1)
              : sign;
      at++;
    }
    if (at < specification.length() && specification.charAt(at) == '0') {
      fill = align == 0 ? '0' : fill;
      align = align == 0 ? '=' : align;
      at++;
    }
    int width = 0;
    for (; at < specification.length() && Character.isDigit(specification.charAt(at)); at++) {
      width = bounded(width * 10 + specification.charAt(at) - '0');
    }
    boolean grouped = at < specification.length() && ",_".indexOf(specification.charAt(at)) >= 0;
    at += grouped ? 1 : 0;
    int precision = -1;
    if (at < specification.length() && specification.charAt(at) == '.') {
      precision = 0;
      for (at++; at < specification.length() && Character.isDigit(specification.charAt(at)); at++) {
        precision = bounded(precision * 10 + specification.charAt(at) - '0');
      }
    }
    char type = at < specification.length() ? specification.charAt(at++) : 0;
    if (at < specification.length()) {
      throw new TemplateException("ValueError", "Invalid format specifier '" + specification + "'");
    }
    boolean number = PythonValue.isNumber(value) && type != 's';
    MarkedText body;
    if (number) {
      String digits = digits(value, type, precision, grouped);
      body = MarkedText.trusted(digits.startsWith("-") ? digits : sign + digits);
    } else {
      if (type != 0 && type != 's') {
        throw new TemplateException(
            "ValueError",
            "Unknown format code '"
                + type
                + "' for object of type '"
                + PythonValue.typeName(value)
                + "'");
      }
      body = PythonText.str(value, budget);
      if (precision >= 0 && precision < body.length()) {
        body = body.substring(0, precision);
      }
    }
    int padding = Math.max(0, width - (int) PythonValue.length(body));
    int before =
        switch (align) {
          case '^' -> padding / 2;
          case '>', '=' -> padding;
          case '<' -> 0;
          default -> number ? padding : 0;
        };
    int signs = align == '=' && !body.isEmpty() && "+- ".indexOf(body.charAt(0)) >= 0 ? 1 : 0;
    return new MarkedText.Builder(budget)
        .append(body, 0, signs)
        .append(String.valueOf(fill).repeat(before))
        .append(body, signs, body.length())
        .append(String.valueOf(fill).repeat(padding - before))
        .build();
  }

  private static int bounded(int number) {
    if (number > WIDTH_MAX) {
      throw TemplateException.limit("the width of a format");
    }
    return number;
  }

  private static String digits(Object value, char type, int precision, boolean grouped) {
    char kind = type != 0 ? type : value instanceof Double ? (precision >= 0 ? 'g' : 'r') : 'd';
    String plain =
        switch (kind) {
          case 'd', 'n' -> {
            if (value instanceof Double) {
              throw new TemplateException(
                  "ValueError", "Unknown format code 'd' for object of type 'float'");
            }
            yield value instanceof Boolean b ? (b ? "1" : "0") : value.toString();
          }
          case 'x' -> Long.toHexString(PythonValue.integer(value));
          case 'X' ->
              Long.toHexString(PythonValue.integer(value)).toUpperCase(java.util.Locale.ROOT);
          case 'o' -> Long.toOctalString(PythonValue.integer(value));
          case 'b' -> Long.toBinaryString(PythonValue.integer(value));
          case 'f', 'F' -> fixed(value, precision < 0 ? 6 : precision);
          case '%' ->
              fixed(Double.parseDouble(numeral(value)) * 100, precision < 0 ? 6 : precision) + "%";
          case 'e', 'g' ->
              String.format(
                      java.util.Locale.ROOT,
                      "%." + (precision < 0 ? 6 : Math.max(precision, kind == 'g' ? 1 : 0)) + kind,
                      Double.parseDouble(numeral(value)))
                  .replaceFirst(
                      kind == 'g' && !numeral(value).contains("e") ? "(\\.\\d*?)0+$" : "$^", "$1")
                  .replaceFirst("\\.$", "");
          default -> PythonText.real(Double.parseDouble(numeral(value)));
        };
    if (!grouped) {
      return plain;
    }
    int point = plain.indexOf('.');
    StringBuilder result = new StringBuilder(plain);
    int first = plain.startsWith("-") ? 1 : 0;
    for (int i = (point < 0 ? plain.length() : point) - 3; i > first; i -= 3) {
      result.insert(i, ',');
    }
    return result.toString();
  }

  private static String numeral(Object value) {
    return value instanceof Boolean b ? (b ? "1" : "0") : value.toString();
  }

  private static String fixed(Object value, int precision) {
    double real = Double.parseDouble(numeral(value));
    if (Double.isNaN(real) || Double.isInfinite(real)) {
      return PythonText.real(real);
    }
    return new BigDecimal(real).setScale(precision, RoundingMode.HALF_EVEN).toPlainString();
  }
}

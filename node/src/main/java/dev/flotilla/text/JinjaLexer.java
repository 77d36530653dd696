package dev.flotilla.text;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;

/**
 * Cuts a template into tokens, as Jinja2 does with {@code trim_blocks} and {@code lstrip_blocks}: a
 * newline after a block tag goes, and so does white space before one on its line.
 */
final class JinjaLexer {

  enum Kind {
    DATA,
    VARIABLE_BEGIN,
    VARIABLE_END,
    BLOCK_BEGIN,
    BLOCK_END,
    NAME,
    STRING,
    INTEGER,
    FLOAT,
    OPERATOR,
    END
  }

  record Token(Kind kind, String text, int line) {
    boolean is(Kind expected, String expectedText) {
      return kind == expected && text.equals(expectedText);
    }
  }

  private static final List<String> OPERATORS =
      List.of(
          "**", "//", "==", "!=", ">=", "<=", "+", "-", "*", "/", "%", "~", "[", "]", "(", ")", "{",
          "}", ">", "<", "=", ".", ":", "|", ",", ";");

  private final String source;
  private final List<Token> tokens = new ArrayList<>();
  private int position;
  private int line = 1;
  private int linesCountedTo;

  /** Whether the last tag swallowed the end of a line, so that a tag after it begins one. */
  private boolean lineStarting = true;

  private JinjaLexer(String template) {
    String unixLines = template.replace("\r\n", "\n").replace('\r', '\n');
    source = unixLines.endsWith("\n") ? unixLines.substring(0, unixLines.length() - 1) : unixLines;
  }

  static List<Token> tokens(String template) {
    JinjaLexer lexer = new JinjaLexer(template);
    lexer.run();
    return lexer.tokens;
  }

  private void run() {
    while (position < source.length()) {
      int tag = nextTag(position);
      if (tag < 0) {
        add(Kind.DATA, source.substring(position));
        break;
      }
      char type = source.charAt(tag + 1);
      int inside = tag + 2;
      char sign = inside < source.length() ? source.charAt(inside) : ' ';
      if (sign == '-' || (sign == '+' && type != '{')) {
        inside++;
      } else {
        sign = ' ';
      }
      data(source.substring(position, tag), sign, type);
      position = inside;
      countLines(inside);
      switch (type) {
        case '#' -> comment();
        case '%' -> {
          if (!raw()) {
            tokens.add(new Token(Kind.BLOCK_BEGIN, "", line));
            expression(true);
          }
        }
        default -> {
          tokens.add(new Token(Kind.VARIABLE_BEGIN, "", line));
          expression(false);
        }
      }
    }
    tokens.add(new Token(Kind.END, "", line));
  }

  private int nextTag(int from) {
    for (int i = source.indexOf('{', from); i >= 0; i = source.indexOf('{', i + 1)) {
      if (i + 1 < source.length() && "%{#".indexOf(source.charAt(i + 1)) >= 0) {
        return i;
      }
    }
    return -1;
  }

  private void data(String text, char sign, char type) {
    String kept = text;
    if (sign == '-') {
      kept = stripRight(text);
    } else if (sign != '+' && type != '{') {
      int lineStart = text.lastIndexOf('\n') + 1;
      if ((lineStart > 0 || lineStarting) && text.substring(lineStart).isBlank()) {
        kept = text.substring(0, lineStart);
      }
    }
    add(Kind.DATA, kept);
  }

  private void add(Kind kind, String text) {
    if (!text.isEmpty()) {
      tokens.add(new Token(kind, text, line));
    }
  }

  private static String stripRight(String text) {
    int end = text.length();
    while (end > 0 && PythonText.isSpace(text.charAt(end - 1))) {
      end--;
    }
    return text.substring(0, end);
  }

  private void comment() {
    int end = source.indexOf("#}", position);
    if (end < 0) {
      throw TemplateException.syntax("Missing end of comment tag", line);
    }
    boolean strip = end > position - 1 && source.charAt(end - 1) == '-';
    boolean keep = source.charAt(end - 1) == '+';
    position = end + 2;
    endTag(strip, !keep);
  }

  /** Moves past the white space that the end of a tag swallows. */
  private void endTag(boolean strip, boolean trimNewline) {
    int start = position;
    if (strip) {
      while (position < source.length() && PythonText.isSpace(source.charAt(position))) {
        position++;
      }
    } else if (trimNewline && position < source.length() && source.charAt(position) == '\n') {
      position++;
    }
    lineStarting = position > start && source.charAt(position - 1) == '\n';
    countLines(position);
  }

  private void countLines(int to) {
    for (; linesCountedTo < to; linesCountedTo++) {
      if (source.charAt(linesCountedTo) == '\n') {
        line++;
      }
    }
  }

  /** Takes a raw block, if this tag begins one. */
  private boolean raw() {
    int at = skipSpace(position);
    if (!source.startsWith("raw", at)) {
      return false;
    }
    at = skipSpace(at + 3);
    boolean strip = at < source.length() && source.charAt(at) == '-';
    if (!source.startsWith("%}", strip ? at + 1 : at)) {
      return false;
    }
    position = (strip ? at + 1 : at) + 2;
    endTag(strip, false);
    int from = position;
    for (int tag = source.indexOf("{%", from); tag >= 0; tag = source.indexOf("{%", tag + 2)) {
      int inside = tag + 2;
      char sign = inside < source.length() ? source.charAt(inside) : ' ';
      inside = skipSpace(sign == '-' || sign == '+' ? inside + 1 : inside);
      if (!source.startsWith("endraw", inside)) {
        continue;
      }
      inside = skipSpace(inside + 6);
      boolean stripAfter = inside < source.length() && source.charAt(inside) == '-';
      inside += stripAfter ? 1 : 0;
      if (source.startsWith("%}", inside)) {
        data(source.substring(from, tag), sign, '%');
        position = inside + 2;
        endTag(stripAfter, true);
        return true;
      }
    }
    throw TemplateException.syntax("Missing end of raw directive", line);
  }

  private int skipSpace(int from) {
    int at = from;
    while (at < source.length() && PythonText.isSpace(source.charAt(at))) {
      at++;
    }
    return at;
  }

  private void expression(boolean block) {
    String end = block ? "%}" : "}}";
    Deque<String> open = new ArrayDeque<>();
    while (true) {
      position = skipSpace(position);
      countLines(position);
      if (position >= source.length()) {
        throw TemplateException.syntax("unexpected end of template", line);
      }
      if (open.isEmpty()) {
        char sign = source.charAt(position);
        boolean strip = sign == '-' && source.startsWith(end, position + 1);
        boolean keep = block && sign == '+' && source.startsWith(end, position + 1);
        if (strip || keep || source.startsWith(end, position)) {
          position += strip || keep ? 3 : 2;
          tokens.add(new Token(block ? Kind.BLOCK_END : Kind.VARIABLE_END, "", line));
          endTag(strip, block && !keep);
          return;
        }
      }
      token(open);
    }
  }

  private void token(Deque<String> open) {
    char c = source.charAt(position);
    int start = position;
    if (c == '\'' || c == '"') {
      tokens.add(new Token(Kind.STRING, string(c), line));
    } else if (c >= '0' && c <= '9') {
      number();
    } else if (Character.isUnicodeIdentifierStart(c) || c == '_') {
      while (position < source.length()
          && (Character.isUnicodeIdentifierPart(source.charAt(position))
              || source.charAt(position) == '_')) {
        position++;
      }
      tokens.add(new Token(Kind.NAME, source.substring(start, position), line));
    } else {
      String operator =
          OPERATORS.stream()
              .filter(candidate -> source.startsWith(candidate, start))
              .findFirst()
              .orElseThrow(
                  () -> TemplateException.syntax("unexpected char '" + c + "' at " + start, line));
      switch (operator) {
        case "(" -> open.push(")");
        case "[" -> open.push("]");
        case "{" -> open.push("}");
        case ")", "]", "}" -> {
          if (open.isEmpty() || !open.pop().equals(operator)) {
            throw TemplateException.syntax("unexpected '" + operator + "'", line);
          }
        }
        default -> {}
      }
      position += operator.length();
      tokens.add(new Token(Kind.OPERATOR, operator, line));
    }
  }

  private void number() {
    int start = position;
    if (source.charAt(position) == '0' && position + 1 < source.length()) {
      int radix =
          switch (source.charAt(position + 1)) {
            case 'x', 'X' -> 16;
            case 'o', 'O' -> 8;
            case 'b', 'B' -> 2;
            default -> 10;
          };
      if (radix != 10) {
        position += 2;
        digits(radix);
        String digits = source.substring(start + 2, position).replace("_", "");
        try {
          tokens.add(new Token(Kind.INTEGER, Long.toString(Long.parseLong(digits, radix)), line));
        } catch (NumberFormatException e) {
          throw TemplateException.syntax("bad number", line);
        }
        return;
      }
    }
    digits(10);
    boolean isFloat = false;
    if (position + 1 < source.length()
        && source.charAt(position) == '.'
        && Character.digit(source.charAt(position + 1), 10) >= 0) {
      isFloat = true;
      position++;
      digits(10);
    }
    if (position < source.length() && (source.charAt(position) | 0x20) == 'e') {
      int exponent = position + 1;
      if (exponent < source.length() && "+-".indexOf(source.charAt(exponent)) >= 0) {
        exponent++;
      }
      if (exponent < source.length() && Character.digit(source.charAt(exponent), 10) >= 0) {
        isFloat = true;
        position = exponent;
        digits(10);
      }
    }
    String text = source.substring(start, position).replace("_", "");
    tokens.add(new Token(isFloat ? Kind.FLOAT : Kind.INTEGER, text, line));
  }

  private void digits(int radix) {
    while (position < source.length()
        && (Character.digit(source.charAt(position), radix) >= 0
            || source.charAt(position) == '_')) {
      position++;
    }
  }

  /** Reads a string with Python's escapes. */
  private String string(char quote) {
    StringBuilder text = new StringBuilder();
    int at = position + 1;
    while (true) {
      if (at >= source.length()) {
        throw TemplateException.syntax(
            "unexpected char " + (quote == '"' ? "'\"'" : "\"'\"") + " at " + position, line);
      }
      char c = source.charAt(at++);
      if (c == quote) {
        position = at;
        return text.toString();
      }
      if (c != '\\' || at >= source.length()) {
        text.append(c);
        continue;
      }
      char escape = source.charAt(at++);
      switch (escape) {
        case '\n' -> {}
        case '\\', '\'', '"' -> text.append(escape);
        case 'n' -> text.append('\n');
        case 't' -> text.append('\t');
        case 'r' -> text.append('\r');
        case 'a' -> text.append('\u0007');
        case 'b' -> text.append('\b');
        case 'f' -> text.append('\f');
        case 'v' -> text.append('\u000B');
        case 'x' -> at = codePoint(text, at, 2);
        case 'u' -> at = codePoint(text, at, 4);
        case 'U' -> at = codePoint(text, at, 8);
        case '0', '1', '2', '3', '4', '5', '6', '7' -> {
          int value = escape - '0';
          for (int i = 0; i < 2 && at < source.length(); i++, at++) {
            int digit = Character.digit(source.charAt(at), 8);
            if (digit < 0) {
              break;
            }
            value = value * 8 + digit;
          }
          text.appendCodePoint(value);
        }
        default -> text.append('\\').append(escape);
      }
    }
  }

  private int codePoint(StringBuilder text, int from, int digits) {
    try {
      int value = Integer.parseUnsignedInt(source.substring(from, from + digits), 16);
      text.appendCodePoint(value);
    } catch (RuntimeException e) {
      throw TemplateException.syntax("truncated escape in a string", line);
    }
    return from + digits;
  }
}

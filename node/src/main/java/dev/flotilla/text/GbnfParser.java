package dev.flotilla.text;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.text.GrammarExpression.CharacterClass;
import dev.flotilla.text.GrammarExpression.Choice;
import dev.flotilla.text.GrammarExpression.Literal;
import dev.flotilla.text.GrammarExpression.Place;
import dev.flotilla.text.GrammarExpression.Range;
import dev.flotilla.text.GrammarExpression.Reference;
import dev.flotilla.text.GrammarExpression.Repeat;
import dev.flotilla.text.GrammarExpression.Rule;
import dev.flotilla.text.GrammarExpression.Sequence;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;

/**
 * Reads GBNF, the notation of llama.cpp's grammars ("GBNF Guide", {@code grammars/README.md}
 * there). Whatever that guide says of characters is here; its tokens ({@code <think>}, {@code
 * <[1000]>}) are refused, for a grammar here knows no vocabulary.
 */
final class GbnfParser {

  private static final int SOURCE_LENGTH_MAX = 1 << 18;
  static final int RULES_MAX = 20_000;
  private static final int NAME_LENGTH_MAX = 256;
  private static final int DEPTH_MAX = 64;

  /** The highest number in braces. */
  static final int REPETITION_MAX = 10_000;

  private static final List<Range> NOTHING = List.of();

  private final String source;
  private final int[] lineStarts;
  private final Map<String, Rule> rules = new LinkedHashMap<>();
  private int at;
  private int depth;

  /** The rule that is being read, for messages. */
  private String rule = "";

  private GbnfParser(String source) {
    this.source = source;
    this.lineStarts =
        IntStream.concat(
                IntStream.of(0),
                IntStream.range(0, source.length())
                    .filter(i -> source.charAt(i) == '\n')
                    .map(i -> i + 1))
            .toArray();
  }

  /**
   * The rules by their names, in the order of the text.
   *
   * @throws FlotillaException {@code INVALID} with the rule and the place, if it is malformed
   */
  static Map<String, Rule> rules(String source) {
    if (source.length() > SOURCE_LENGTH_MAX) {
      throw refused("it is longer than " + SOURCE_LENGTH_MAX + " characters");
    }
    GbnfParser parser = new GbnfParser(source);
    parser.skip(true);
    while (parser.at < source.length()) {
      parser.rule();
      parser.skip(true);
    }
    return parser.rules;
  }

  /** A grammar that cannot be used, for a reason without a place. */
  static FlotillaException refused(String why) {
    return new FlotillaException(
        Code.INVALID, "the grammar cannot be used: " + why, "Write a simpler grammar.");
  }

  private FlotillaException wrong(String what, int offset) {
    String where = rule.isEmpty() ? "" : "rule '" + rule + "', ";
    return new FlotillaException(
        Code.INVALID,
        "the grammar is malformed: " + where + place(offset) + ": " + what,
        "See \"GBNF Guide\" in llama.cpp for the notation.");
  }

  private Place place(int offset) {
    int found = Arrays.binarySearch(lineStarts, offset);
    int line = found >= 0 ? found : -found - 2;
    return new Place(line + 1, offset - lineStarts[line] + 1);
  }

  /** The next UTF-16 unit, or 0 at the end (a 0 in the text is refused wherever it matters). */
  private char peek() {
    return at < source.length() ? source.charAt(at) : 0;
  }

  private void skip(boolean newlines) {
    while (at < source.length()) {
      char c = source.charAt(at);
      if (c == '#') {
        while (at < source.length() && source.charAt(at) != '\n' && source.charAt(at) != '\r') {
          at++;
        }
      } else if (c == ' ' || c == '\t' || (newlines && (c == '\n' || c == '\r'))) {
        at++;
      } else {
        return;
      }
    }
  }

  private void rule() {
    int start = at;
    rule = "";
    String name = name();
    if (name.isEmpty()) {
      throw wrong("the name of a rule was expected", start);
    }
    rule = name;
    Place place = place(start);
    skip(false);
    if (!source.startsWith("::=", at)) {
      throw wrong("'::=' was expected", at);
    }
    at += 3;
    skip(true);
    GrammarExpression body = choice(false);
    if (at < source.length() && peek() != '\n' && peek() != '\r') {
      throw wrong("'" + Character.toString(source.codePointAt(at)) + "' was not expected", at);
    }
    if (rules.put(name, new Rule(name, body, place)) != null) {
      throw wrong("there is a rule of that name already", start);
    }
    if (rules.size() > RULES_MAX) {
      throw refused("it has more than " + RULES_MAX + " rules");
    }
  }

  private String name() {
    int start = at;
    while (isName(peek())) {
      at++;
    }
    if (at - start > NAME_LENGTH_MAX) {
      throw wrong("a rule's name is longer than " + NAME_LENGTH_MAX + " characters", start);
    }
    return source.substring(start, at);
  }

  private static boolean isName(char c) {
    return (c >= 'a' && c <= 'z')
        || (c >= 'A' && c <= 'Z')
        || (c >= '0' && c <= '9')
        || c == '-'
        || c == '_';
  }

  private GrammarExpression choice(boolean nested) {
    List<GrammarExpression> options = new ArrayList<>();
    options.add(sequence(nested));
    while (peek() == '|') {
      at++;
      skip(true);
      options.add(sequence(nested));
    }
    return options.size() == 1 ? options.getFirst() : new Choice(List.copyOf(options));
  }

  private GrammarExpression sequence(boolean nested) {
    List<GrammarExpression> parts = new ArrayList<>();
    while (at < source.length()) {
      int start = at;
      char c = peek();
      GrammarExpression part;
      if (c == '"') {
        part = literal();
      } else if (c == '[') {
        part = characterClass();
      } else if (c == '.') {
        at++;
        part = new CharacterClass(GrammarExpression.normalised(NOTHING, true));
      } else if (c == '(') {
        part = group();
      } else if (isName(c)) {
        part = new Reference(name(), place(start));
      } else if (c == '<' || c == '!') {
        throw wrong("tokens (<...>) are not supported here; write their text in quotes", start);
      } else if (c == '*' || c == '+' || c == '?' || c == '{') {
        throw wrong("there is nothing before '" + c + "' that it could repeat", start);
      } else {
        break;
      }
      skip(nested);
      parts.add(repeated(part, nested));
    }
    return parts.size() == 1 ? parts.getFirst() : new Sequence(List.copyOf(parts));
  }

  private GrammarExpression group() {
    int start = at;
    if (++depth > DEPTH_MAX) {
      throw wrong("more than " + DEPTH_MAX + " parentheses are open", start);
    }
    at++;
    skip(true);
    GrammarExpression inside = choice(true);
    if (peek() != ')') {
      throw wrong("')' was expected, for the '(' at " + place(start), at);
    }
    at++;
    depth--;
    return inside;
  }

  private GrammarExpression repeated(GrammarExpression part, boolean nested) {
    int start = at;
    GrammarExpression result =
        switch (peek()) {
          case '*' -> repeat(part, 0, GrammarExpression.UNBOUNDED);
          case '+' -> repeat(part, 1, GrammarExpression.UNBOUNDED);
          case '?' -> repeat(part, 0, 1);
          case '{' -> counted(part);
          default -> part;
        };
    if (at == start) {
      return part;
    }
    skip(nested);
    char c = peek();
    if (c == '*' || c == '+' || c == '?' || c == '{') {
      throw wrong("put what '" + c + "' repeats in parentheses", at);
    }
    return result;
  }

  private GrammarExpression repeat(GrammarExpression part, int least, int most) {
    at++;
    return new Repeat(part, least, most);
  }

  private GrammarExpression counted(GrammarExpression part) {
    int start = at;
    at++;
    skip(false);
    int least = number();
    skip(false);
    int most = least;
    if (peek() == ',') {
      at++;
      skip(false);
      most = peek() == '}' ? GrammarExpression.UNBOUNDED : number();
      skip(false);
    }
    if (peek() != '}') {
      throw wrong("'}' was expected", at);
    }
    at++;
    if (most != GrammarExpression.UNBOUNDED && most < least) {
      throw wrong("{" + least + "," + most + "} is no range", start);
    }
    return new Repeat(part, least, most);
  }

  private int number() {
    int start = at;
    int value = 0;
    while (peek() >= '0' && peek() <= '9') {
      value = value * 10 + (peek() - '0');
      at++;
      if (value > REPETITION_MAX) {
        throw wrong("nothing can be repeated more than " + REPETITION_MAX + " times", start);
      }
    }
    if (at == start) {
      throw wrong("a number was expected", start);
    }
    return value;
  }

  private GrammarExpression literal() {
    int start = at;
    at++;
    StringBuilder text = new StringBuilder();
    while (true) {
      if (at >= source.length()) {
        throw wrong("the text that begins here has no end", start);
      }
      if (peek() == '"') {
        at++;
        return new Literal(text.toString());
      }
      int offset = at;
      int codePoint = character();
      if (isSurrogate(codePoint)) {
        throw wrong("half of a surrogate pair is no character", offset);
      }
      text.appendCodePoint(codePoint);
    }
  }

  private GrammarExpression characterClass() {
    int start = at;
    at++;
    boolean negated = peek() == '^';
    if (negated) {
      at++;
    }
    List<Range> ranges = new ArrayList<>();
    while (true) {
      if (at >= source.length()) {
        throw wrong("the class that begins here has no end", start);
      }
      if (peek() == ']') {
        at++;
        break;
      }
      int offset = at;
      int first = character();
      int last = first;
      if (peek() == '-' && at + 1 < source.length() && source.charAt(at + 1) != ']') {
        at++;
        last = character();
        if (last < first) {
          throw wrong("the range ends before it begins", offset);
        }
      }
      ranges.add(new Range(first, last));
    }
    List<Range> characters = GrammarExpression.normalised(ranges, negated);
    if (ranges.isEmpty() || characters.isEmpty()) {
      throw wrong("no character is in this class", start);
    }
    return new CharacterClass(characters);
  }

  private static boolean isSurrogate(int codePoint) {
    return codePoint >= Character.MIN_SURROGATE && codePoint <= Character.MAX_SURROGATE;
  }

  private int character() {
    int start = at;
    int codePoint = source.codePointAt(at);
    at += Character.charCount(codePoint);
    if (codePoint != '\\') {
      return codePoint;
    }
    char escape = peek();
    at++;
    return switch (escape) {
      case 'n' -> '\n';
      case 'r' -> '\r';
      case 't' -> '\t';
      case '\\', '"', '[', ']', '-' -> escape;
      case 'x' -> hexadecimal(2, start);
      case 'u' -> hexadecimal(4, start);
      case 'U' -> hexadecimal(8, start);
      default -> throw wrong("there is no such escape", start);
    };
  }

  private int hexadecimal(int digits, int start) {
    long value = 0;
    for (int i = 0; i < digits; i++, at++) {
      char c = peek();
      int digit = c < 128 ? Character.digit(c, 16) : -1;
      if (digit < 0) {
        throw wrong("this escape has " + digits + " hexadecimal digits", start);
      }
      value = value * 16 + digit;
    }
    if (value > Character.MAX_CODE_POINT) {
      throw wrong("there is no such character", start);
    }
    return (int) value;
  }
}

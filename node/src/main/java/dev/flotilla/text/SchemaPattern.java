package dev.flotilla.text;

import dev.flotilla.FlotillaException;
import dev.flotilla.text.GrammarExpression.Range;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Function;
import java.util.function.UnaryOperator;

/**
 * A JSON schema's {@code pattern} as an expression of GBNF for what stands between the quotes of a
 * string: the part of ECMA-262's regular expressions (21st section, Unicode mode) that is regular.
 * Anchors count only where an alternative begins or ends; without them anything may stand there, as
 * the specification of {@code pattern} says.
 */
final class SchemaPattern {

  private static final int DEPTH_MAX = 20;
  private static final List<Range> DIGITS = List.of(new Range('0', '9'));
  private static final List<Range> WORD =
      List.of(new Range('0', '9'), new Range('A', 'Z'), new Range('_', '_'), new Range('a', 'z'));
  private static final List<Range> SPACE =
      List.of(
          new Range('\t', '\r'),
          new Range(' ', ' '),
          new Range(0xA0, 0xA0),
          new Range(0x1680, 0x1680),
          new Range(0x2000, 0x200A),
          new Range(0x2028, 0x2029),
          new Range(0x202F, 0x202F),
          new Range(0x205F, 0x205F),
          new Range(0x3000, 0x3000),
          new Range(0xFEFF, 0xFEFF));
  private static final List<Range> LINE_ENDS =
      List.of(new Range('\n', '\n'), new Range('\r', '\r'), new Range(0x2028, 0x2029));

  private final String pattern;
  private final String anyCharacter;
  private final UnaryOperator<String> rule;
  private final Function<String, FlotillaException> refused;
  private int at;
  private int depth;

  /**
   * @param anyCharacter the rule of any character of a string
   * @param rule makes a rule of an expression; returns its name
   * @param refused makes the error of a pattern that is not supported, of what is wrong with it
   */
  SchemaPattern(
      String pattern,
      String anyCharacter,
      UnaryOperator<String> rule,
      Function<String, FlotillaException> refused) {
    this.pattern = pattern;
    this.anyCharacter = anyCharacter;
    this.rule = rule;
    this.refused = refused;
  }

  String expression() {
    if (!TokenizerCheck.isWellFormed(pattern)) {
      throw refused.apply("it has half of a surrogate pair");
    }
    List<String> options = new ArrayList<>();
    do {
      if (!options.isEmpty()) {
        at++;
      }
      boolean begins = peek() == '^';
      at += begins ? 1 : 0;
      String sequence = sequence();
      boolean ends = peek() == '$';
      at += ends ? 1 : 0;
      String anything = " " + anyCharacter + "* ";
      options.add((begins ? "" : anything) + sequence + (ends ? "" : anything));
    } while (peek() == '|');
    if (at < pattern.length()) {
      throw unsupported();
    }
    return String.join(" | ", options);
  }

  private int peek() {
    return at < pattern.length() ? pattern.codePointAt(at) : -1;
  }

  private int take() {
    int c = peek();
    if (c < 0) {
      throw refused.apply("it ends too early");
    }
    at += Character.charCount(c);
    return c;
  }

  private FlotillaException unsupported() {
    String rest = pattern.substring(at, Math.min(pattern.length(), at + 12));
    return refused.apply("from '" + rest + "' on it is not supported");
  }

  private String choice() {
    List<String> options = new ArrayList<>();
    options.add(sequence());
    while (peek() == '|') {
      at++;
      options.add(sequence());
    }
    return String.join(" | ", options);
  }

  private String sequence() {
    StringBuilder parts = new StringBuilder("\"\"");
    while (true) {
      int c = peek();
      if (c < 0 || c == '|' || c == ')' || c == '$') {
        return parts.toString();
      }
      parts.append(' ').append(repeated(atom()));
    }
  }

  private String atom() {
    int start = at;
    int c = take();
    return switch (c) {
      case '.' -> characters(LINE_ENDS, true);
      case '[' -> characterClass();
      case '(' -> group(start);
      case '\\' -> characters(set(), false);
      case '^', '*', '+', '?', '{', '}', ']' -> {
        at = start;
        throw unsupported();
      }
      default -> characters(one(c), false);
    };
  }

  private String group(int start) {
    if (peek() == '?') {
      if (!pattern.startsWith("?:", at)) {
        at = start;
        throw unsupported();
      }
      at += 2;
    }
    if (++depth > DEPTH_MAX) {
      throw refused.apply("more than " + DEPTH_MAX + " groups are open");
    }
    String inside = choice();
    if (peek() != ')') {
      throw peek() < 0 ? refused.apply("a group has no end") : unsupported();
    }
    at++;
    depth--;
    return "(" + inside + ")";
  }

  private String characters(List<Range> ranges, boolean negated) {
    List<Range> normal = GrammarExpression.normalised(ranges, negated);
    if (normal.isEmpty()) {
      throw refused.apply("no character is in one of its classes");
    }
    String expression = JsonSchema.spelled(normal);
    // One edge for each repetition, rather than all that UTF-8 takes.
    boolean large = expression.contains(" | ") || normal.getLast().last() > 0x7F;
    return large ? rule.apply(expression) : expression;
  }

  private String characterClass() {
    boolean negated = peek() == '^';
    at += negated ? 1 : 0;
    List<Range> ranges = new ArrayList<>();
    while (peek() != ']') {
      List<Range> first = member();
      if (peek() == '-' && at + 1 < pattern.length() && pattern.charAt(at + 1) != ']') {
        at++;
        List<Range> last = member();
        if (!isOne(first) || !isOne(last) || last.getFirst().first() < first.getFirst().first()) {
          throw refused.apply("a range of one of its classes is none");
        }
        ranges.add(new Range(first.getFirst().first(), last.getFirst().first()));
      } else {
        ranges.addAll(first);
      }
    }
    at++;
    return characters(ranges, negated);
  }

  private static boolean isOne(List<Range> ranges) {
    return ranges.size() == 1 && ranges.getFirst().first() == ranges.getFirst().last();
  }

  private List<Range> member() {
    int c = take();
    return c == '\\' ? set() : List.of(new Range(c, c));
  }

  /** What an escape stands for, behind its backslash. */
  private List<Range> set() {
    int start = at;
    int c = take();
    return switch (c) {
      case 'd' -> DIGITS;
      case 'D' -> GrammarExpression.normalised(DIGITS, true);
      case 'w' -> WORD;
      case 'W' -> GrammarExpression.normalised(WORD, true);
      case 's' -> SPACE;
      case 'S' -> GrammarExpression.normalised(SPACE, true);
      case 'n' -> one('\n');
      case 'r' -> one('\r');
      case 't' -> one('\t');
      case 'f' -> one('\f');
      case 'v' -> one(0x0B);
      case 'x' -> one(hexadecimal(2));
      case 'u' -> one(hexadecimal(4));
      default -> {
        if (c < 128 && !Character.isLetterOrDigit(c) && c != '_') {
          yield one(c);
        }
        at = start - 1;
        throw unsupported();
      }
    };
  }

  private static List<Range> one(int c) {
    return List.of(new Range(c, c));
  }

  private int hexadecimal(int digits) {
    int value = 0;
    for (int i = 0; i < digits; i++) {
      int c = take();
      int digit = c < 128 ? Character.digit(c, 16) : -1;
      if (digit < 0) {
        throw refused.apply("one of its escapes lacks a hexadecimal digit");
      }
      value = value * 16 + digit;
    }
    return value;
  }

  private String repeated(String atom) {
    String times;
    switch (peek()) {
      case '*', '+', '?' -> times = Character.toString(take());
      case '{' -> {
        int start = at;
        at++;
        String least = number();
        String most = least;
        if (peek() == ',') {
          at++;
          most = peek() == '}' ? "" : number();
        }
        if (peek() != '}' || (!most.isEmpty() && toInt(most) < toInt(least))) {
          at = start;
          throw unsupported();
        }
        at++;
        times = "{" + least + "," + most + "}";
      }
      default -> {
        return atom;
      }
    }
    // Lazy or not, the texts are the same.
    if (peek() == '?') {
      at++;
    }
    if (peek() == '*' || peek() == '+' || peek() == '?' || peek() == '{') {
      throw unsupported();
    }
    return atom + times;
  }

  private static int toInt(String number) {
    return Integer.parseInt(number);
  }

  private String number() {
    int start = at;
    while (peek() >= '0' && peek() <= '9') {
      at++;
    }
    String number = pattern.substring(start, at);
    if (number.isEmpty() || number.length() > 5 || toInt(number) > GbnfParser.REPETITION_MAX) {
      throw refused.apply("what is in braces is a number from 0 to " + GbnfParser.REPETITION_MAX);
    }
    return number;
  }
}

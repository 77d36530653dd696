package dev.flotilla.text;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.TreeSet;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class GrammarTest {

  private static boolean is(Grammar grammar, String text) {
    return is(grammar, text.getBytes(StandardCharsets.UTF_8));
  }

  private static boolean is(Grammar grammar, byte[] text) {
    GrammarAutomaton automaton = grammar.automaton();
    GrammarAutomaton.Configurations at = automaton.start();
    for (byte b : text) {
      at = automaton.after(at, automaton.classOf(b));
    }
    return at.mayEnd();
  }

  private static void holds(String gbnf, List<String> texts, List<String> others) {
    Grammar grammar = Grammar.parse(gbnf);
    for (String text : texts) {
      assertThat(is(grammar, text)).as("%s is '%s'", gbnf, text).isTrue();
    }
    for (String text : others) {
      assertThat(is(grammar, text)).as("%s is '%s'", gbnf, text).isFalse();
    }
    assertThat(Grammar.parse(grammar.source()).source()).isEqualTo(gbnf);
  }

  @Test
  void aLiteralIsItsText() {
    holds("root ::= \"O-O\"", List.of("O-O"), List.of("", "O-", "O-O-", "o-o"));
    holds("root ::= \"\"", List.of(""), List.of("a"));
    holds("root ::= \"a\" \"b\"\"c\"", List.of("abc"), List.of("ab", "acb"));
  }

  @Test
  void escapesStandForTheirCharacters() {
    holds(
        "root ::= \"\\x41\\u00e9\\U0001F600\\n\\r\\t\\\\\\\"\\[\\]\"",
        List.of("Aé😀\n\r\t\\\"[]"),
        List.of("A"));
    holds("root ::= [\\x41-\\x43\\]\\-\\\\]", List.of("A", "B", "C", "]", "-", "\\"), List.of("D"));
  }

  @Test
  void classesHaveRangesNegationAndLiteralHyphens() {
    holds("root ::= [a-cx]", List.of("a", "b", "c", "x"), List.of("d", "", "ab", "-"));
    holds("root ::= [a-]", List.of("a", "-"), List.of("b"));
    holds("root ::= [-+]", List.of("-", "+"), List.of(","));
    holds("root ::= [^a-c\\n]", List.of("d", "é", "😀", "\u0000"), List.of("b", "\n", ""));
    holds("root ::= [ぁ-ゟ]+", List.of("ひらがな"), List.of("カ", "a"));
    holds("root ::= [^\"]", List.of("'"), List.of("\""));
    holds("root ::= .", List.of("a", "\n", "é", "語", "😀"), List.of("", "ab"));
  }

  @Test
  void whatIsRepeatedIsCounted() {
    holds("root ::= \"ab\"*", List.of("", "ab", "abab"), List.of("a", "aba"));
    holds("root ::= [ab]+", List.of("a", "abba"), List.of("", "c"));
    holds("root ::= \"a\"? \"b\"", List.of("b", "ab"), List.of("a", "aab"));
    holds("root ::= \"a\"{2}", List.of("aa"), List.of("a", "aaa"));
    holds("root ::= \"a\"{2,}", List.of("aa", "aaaaa"), List.of("a"));
    holds("root ::= \"a\"{1,3}", List.of("a", "aa", "aaa"), List.of("", "aaaa"));
    holds("root ::= \"a\"{ 0 , 2 }", List.of("", "a", "aa"), List.of("aaa"));
    holds("root ::= \"a\"{0} \"b\"", List.of("b"), List.of("ab"));
    holds("root ::= (\"a\"? \"b\"?)* \"c\"", List.of("c", "abbac"), List.of("", "ca"));
    holds("root ::= ((\"a\"*)*)*", List.of("", "aaa"), List.of("b"));
    holds("root ::= (\"\")+ (\"a\" | \"\"){3}", List.of("", "a", "aaa"), List.of("aaaa"));
    holds("root ::= \"a\" * \"b\" +", List.of("b", "aabb"), List.of("a"));
  }

  @Test
  void alternativesGroupsCommentsAndNewlinesAreReadAsInTheGuide() {
    holds(
        """
        # a list
        root ::= (
            "- "   # the sign

            item
        )+
        item ::= word |
            number
        word ::= [a-z]+ "\\n" # a comment "with quotes
        number ::=
            [0-9]+ ("." | ) "\\n"
        """,
        List.of("- a\n", "- 1\n- b\n", "- 1.\n"),
        List.of("", "- \n", "a\n"));
    holds("root ::= \"a\" | | \"b\"", List.of("a", "", "b"), List.of("ab"));
    holds("root::=a_b\r\na_b ::= \"x\"\r\n", List.of("x"), List.of("y"));
  }

  @Test
  void rulesMayReferToThemselves() {
    holds(
        "root ::= \"(\" root \")\" | \"x\"",
        List.of("x", "(x)", "((x))"),
        List.of("(x", "x)", "()", "(x))"));
    holds(
        "root ::= pair*\npair ::= \"[\" root \"]\" | \"{\" root \"}\"",
        List.of("", "[{}][]"),
        List.of("[}", "[{]}"));
  }

  @Test
  void rulesNestToABoundAndCanAlwaysBeEnded() {
    Grammar grammar =
        Grammar.parse("root ::= \"(\" (root | \"[\" odd \"]\") \")\" | \"x\"\nodd ::= root");
    int deepest = GrammarAutomaton.DEPTH_MAX;
    String open = "(".repeat(deepest);
    assertThat(is(grammar, open + "x" + ")".repeat(deepest))).isTrue();
    assertThat(is(grammar, "(" + open + "x" + ")".repeat(deepest + 1))).isFalse();
    Grammar needsTwo =
        Grammar.parse("root ::= \"(\" root \")\" | a \"!\"\na ::= b \"?\"\nb ::= \"x\"");
    assertThat(is(needsTwo, "(".repeat(deepest - 2) + "x?!" + ")".repeat(deepest - 2))).isTrue();
    GrammarAutomaton automaton = needsTwo.automaton();
    GrammarAutomaton.Configurations at = automaton.start();
    for (int i = 0; i < deepest - 2; i++) {
      at = automaton.after(at, automaton.classOf((byte) '('));
      assertThat(at.isDead()).isFalse();
    }
    assertThat(automaton.after(at, automaton.classOf((byte) '(')).isDead())
        .as("one level more could not be ended")
        .isTrue();
  }

  @Test
  void aCallAtTheEndOfARuleNestsNothing() {
    Grammar grammar = Grammar.parse("root ::= \"a\" root | (\"b\" more)\nmore ::= root | \"\"");
    assertThat(is(grammar, "a".repeat(10_000) + "ab".repeat(1000))).isTrue();
  }

  @Test
  void classesAcceptTheUtf8OfTheirCharactersAndNothingElse() {
    long seed = System.nanoTime();
    Random random = new Random(seed);
    int[] borders = {0, 0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFF, 0x10000, 0x10FFFF};
    for (int round = 0; round < 300; round++) {
      int a = codePoint(random, borders);
      int b = codePoint(random, borders);
      int first = Math.min(a, b);
      int last = Math.max(a, b);
      boolean negated = random.nextBoolean();
      if (negated && first == 0 && last == 0x10FFFF) {
        continue;
      }
      Grammar grammar =
          Grammar.parse(
              String.format("root ::= [%s\\U%08X-\\U%08X]", negated ? "^" : "", first, last));
      for (int i = 0; i < 40; i++) {
        int c =
            switch (i % 4) {
              case 0 -> Math.clamp(first + (long) random.nextInt(3) - 1, 0, 0x10FFFF);
              case 1 -> Math.clamp(last + (long) random.nextInt(3) - 1, 0, 0x10FFFF);
              case 2 -> codePoint(random, borders);
              default -> random.nextInt(0x110000);
            };
        if (c >= 0xD800 && c <= 0xDFFF) {
          continue;
        }
        assertThat(is(grammar, Character.toString(c)))
            .as("seed %d: %X in %s", seed, c, grammar.source())
            .isEqualTo((c >= first && c <= last) != negated);
      }
      for (int i = 0; i < 40; i++) {
        byte[] bytes = new byte[1 + random.nextInt(4)];
        random.nextBytes(bytes);
        String text = new String(bytes, StandardCharsets.UTF_8);
        if (!java.util.Arrays.equals(text.getBytes(StandardCharsets.UTF_8), bytes)) {
          assertThat(is(grammar, bytes)).as("seed %d: no UTF-8", seed).isFalse();
        }
      }
    }
  }

  @Test
  void aTextIsOneOfAGrammarIfItsRulesSaySo() {
    long seed = System.nanoTime();
    Random random = new Random(seed);
    for (int round = 0; round < 3000; round++) {
      int count = 1 + random.nextInt(3);
      StringBuilder gbnf = new StringBuilder();
      for (int rule = 0; rule < count; rule++) {
        gbnf.append("r").append(rule).append(" ::= ").append(choice(random, count, 2)).append('\n');
      }
      String source = gbnf.append("root ::= r0").toString();
      try {
        Grammar grammar = Grammar.parse(source);
        for (int i = 0; i < 25; i++) {
          StringBuilder text = new StringBuilder();
          for (int length = random.nextInt(7); length > 0; length--) {
            text.append("aabc".charAt(random.nextInt(4)));
          }
          assertThat(is(grammar, text.toString()))
              .as("seed %d: '%s' by %s", seed, text, source)
              .isEqualTo(new Reader(source, text.toString()).isWhole());
        }
      } catch (FlotillaException e) {
        // Left recursion, no end, or ambiguous beyond the bound.
        assertThat(e.code()).as("seed %d: %s", seed, source).isEqualTo(Code.INVALID);
      }
    }
  }

  private static String choice(Random random, int rules, int depth) {
    StringBuilder gbnf = new StringBuilder();
    for (int options = random.nextInt(3); options >= 0; options--) {
      gbnf.append(gbnf.isEmpty() ? "" : " | ");
      for (int parts = random.nextInt(4); parts > 0; parts--) {
        gbnf.append(
            switch (random.nextInt(depth > 0 ? 7 : 6)) {
              case 0 -> "\"a\"";
              case 1 -> "[bc]";
              case 2 -> "\"\"";
              case 3 -> "\"ab\"";
              case 4, 5 -> "r" + random.nextInt(rules);
              default -> "(" + choice(random, rules, depth - 1) + ")";
            });
        String[] counts = {"*", "+", "?", "{1,2}", "{2}", "", "", "", "", ""};
        gbnf.append(counts[random.nextInt(counts.length)]).append(' ');
      }
    }
    return gbnf.toString();
  }

  /** Says where an expression may end in a text, from the expression alone. */
  private static final class Reader {
    private final Map<String, GrammarExpression.Rule> rules;
    private final String text;
    private final Map<String, Set<Integer>> known = new HashMap<>();

    Reader(String source, String text) {
      this.rules = GbnfParser.rules(source);
      this.text = text;
    }

    boolean isWhole() {
      return ends(rules.get("root").body(), 0).contains(text.length());
    }

    private Set<Integer> ends(GrammarExpression expression, int from) {
      Set<Integer> ends = new TreeSet<>();
      switch (expression) {
        case GrammarExpression.Literal literal -> {
          if (text.startsWith(literal.text(), from)) {
            ends.add(from + literal.text().length());
          }
        }
        case GrammarExpression.CharacterClass characters -> {
          if (from < text.length()
              && characters.ranges().stream()
                  .anyMatch(r -> text.charAt(from) >= r.first() && text.charAt(from) <= r.last())) {
            ends.add(from + 1);
          }
        }
        case GrammarExpression.Reference reference -> {
          String key = reference.rule() + " " + from;
          if (!known.containsKey(key)) {
            known.put(key, ends(rules.get(reference.rule()).body(), from));
          }
          ends.addAll(known.get(key));
        }
        case GrammarExpression.Sequence sequence -> {
          Set<Integer> at = Set.of(from);
          for (GrammarExpression part : sequence.parts()) {
            at = allEnds(part, at);
          }
          ends.addAll(at);
        }
        case GrammarExpression.Choice choice ->
            choice.options().forEach(option -> ends.addAll(ends(option, from)));
        case GrammarExpression.Repeat repeat -> {
          Set<Integer> at = Set.of(from);
          int most = repeat.most() < 0 ? text.length() + repeat.least() : repeat.most();
          for (int times = 0; times <= most; times++) {
            if (times >= repeat.least()) {
              ends.addAll(at);
            }
            at = allEnds(repeat.body(), at);
          }
        }
      }
      return ends;
    }

    private Set<Integer> allEnds(GrammarExpression expression, Set<Integer> from) {
      Set<Integer> ends = new TreeSet<>();
      from.forEach(start -> ends.addAll(ends(expression, start)));
      return ends;
    }
  }

  private static int codePoint(Random random, int[] borders) {
    int c =
        random.nextBoolean() ? borders[random.nextInt(borders.length)] : random.nextInt(0x110000);
    return c >= 0xD800 && c <= 0xDFFF ? 'x' : c;
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '§',
      quoteCharacter = '`',
      value = {
        "`` § no rule 'root'",
        "a ::= \"x\" § no rule 'root'",
        "root § rule 'root', line 1, column 5: '::=' was expected",
        "root ::= \"x § line 1, column 10: the text that begins here has no",
        "root ::= [x § line 1, column 10: the class that begins here has no",
        "root ::= [] § no character is in this class",
        "root ::= [^\\x00-\\U0010FFFF] § no character is in this class",
        "root ::= [\\uD800-\\uDFFF] § no character is in this class",
        "root ::= \"\\uD83D\" § half of a surrogate pair",
        "root ::= [z-a] § the range ends before it begins",
        "root ::= \"\\q\" § there is no such escape",
        "root ::= \"\\x4\" § this escape has 2 hexadecimal digits",
        "root ::= \"\\U00110000\" § there is no such character",
        "root ::= (\"x\" § ')' was expected, for the '(' at line 1, column 10",
        "root ::= \"x\") § ')' was not expected",
        "root ::= * \"x\" § nothing before '*'",
        "root ::= \"x\"*? § put what '?' repeats in parentheses",
        "root ::= \"x\"{ § a number was expected",
        "root ::= \"x\"{2 § '}' was expected",
        "root ::= \"x\"{3,2} § {3,2} is no range",
        "root ::= \"x\"{10001} § more than 10000 times",
        "root ::= \"x\"{99999999999} § more than 10000 times",
        "root ::= <think> \"x\" § tokens (<...>) are not supported",
        "root ::= !<[7]> § tokens (<...>) are not supported",
        "root ::= \"x\" & \"y\" § '&' was not expected",
        "root ::= \"x\" other § rule 'root', line 1, column 14: it names 'other', which is no rule",
        "root ::= root \"x\" | \"y\" § rule 'root', line 1, column 1: it begins with itself (left recursion)",
        "root ::= \"x\"? root \"y\" | \"\" § begins with itself (left recursion)",
        "root ::= \"x\" root § rule 'root', line 1, column 1: it never ends",
        "root ::= (\"x\"? \"y\"?){9000} § too many ways",
        "root ::= ((\"x\"{9}){999}){999} § rule 'root', line 1, column 1: it makes the grammar larger",
      })
  void whatIsWrongIsNamedWithItsRuleAndPlace(String gbnf, String message) {
    assertThatThrownBy(() -> Grammar.parse(gbnf))
        .isInstanceOfSatisfying(
            FlotillaException.class, e -> assertThat(e.code()).isEqualTo(Code.INVALID))
        .hasMessageContaining(message);
  }

  @Test
  void rulesThatBeginWithEachOtherOrStandTwiceAreRefused() {
    assertThatThrownBy(() -> Grammar.parse("root ::= a \"x\"\na ::= b\nb ::= \"\" a | \"y\""))
        .hasMessageContaining("rule 'a', line 2, column 1: it begins with itself, by way of 'b'");
    assertThatThrownBy(() -> Grammar.parse("root ::= \"x\"\n\nroot ::= \"y\""))
        .hasMessageContaining("rule 'root', line 3, column 1: there is a rule of that name");
    assertThatThrownBy(() -> Grammar.parse("root ::= " + "(".repeat(65) + "\"x\""))
        .hasMessageContaining("more than 64 parentheses are open");
    assertThatThrownBy(() -> Grammar.parse("root ::= \"" + "x".repeat(1 << 20) + "\""))
        .hasMessageContaining("longer than");
    assertThatThrownBy(() -> Grammar.parse("root ::= " + "x".repeat(257)))
        .hasMessageContaining("column 10: a rule's name is longer than 256");
  }

  @Test
  void aRuleThatNestsDeeperThanTheBoundIsRefused() {
    StringBuilder chain = new StringBuilder("root ::= a0 \".\"\n");
    for (int i = 0; i < 200; i++) {
      chain.append("a").append(i).append(" ::= a").append(i + 1).append(" \".\"\n");
    }
    chain.append("a200 ::= \"x\"");
    assertThatThrownBy(() -> Grammar.parse(chain.toString()))
        .hasMessageContaining("needs rules nested more than 128 deep");
  }
}

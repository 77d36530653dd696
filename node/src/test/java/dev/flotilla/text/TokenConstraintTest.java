package dev.flotilla.text;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.text.TokenConstraint.State;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;

class TokenConstraintTest {

  /** Every byte by itself, pieces of JSON and of words, characters cut in two, special tokens. */
  static final class Vocabulary {
    final List<byte[]> tokens = new ArrayList<>();
    final int[] ends;
    final int special;
    final TokenTrie trie;

    Vocabulary(Random random) {
      for (int b = 0; b < 256; b++) {
        tokens.add(new byte[] {(byte) b});
      }
      special = tokens.size();
      tokens.add(new byte[0]);
      String pieces =
          "{\" \"} \": \", \": {} [] }} ]} \", , : true false null tr ue {\"na me\": 12 00 .5 e+ \\u"
              + " \\\" \\n \\\\ -1 ]]]} \"\" 😀 é 語 語é \": \"x\", 2024- -02 T1 :00 ab abc abcd xyz";
      for (String piece : pieces.split(" ")) {
        tokens.add(piece.getBytes(StandardCharsets.UTF_8));
      }
      tokens.add(": ".getBytes(StandardCharsets.UTF_8));
      tokens.add("\", \"".getBytes(StandardCharsets.UTF_8));
      byte[] smile = "😀".getBytes(StandardCharsets.UTF_8);
      tokens.add(new byte[] {smile[0], smile[1]});
      tokens.add(new byte[] {smile[2], smile[3]});
      tokens.add(new byte[] {smile[3], '"'});
      tokens.add("abc".getBytes(StandardCharsets.UTF_8)); // a second id of the same bytes
      for (int i = 0; i < 200; i++) {
        StringBuilder word = new StringBuilder();
        for (int length = 1 + random.nextInt(4); length >= 0; length--) {
          word.append("abcdefnrtu01258{}[],:\"\\ -.".charAt(random.nextInt(26)));
        }
        tokens.add(word.toString().getBytes(StandardCharsets.UTF_8));
      }
      ends = new int[] {tokens.size(), tokens.size() + 1};
      tokens.add(new byte[0]);
      tokens.add("</s>".getBytes(StandardCharsets.UTF_8)); // an end that has a text
      trie = new TokenTrie(tokens);
    }

    TokenConstraint constraint(Grammar grammar) {
      return new TokenConstraint(grammar, trie, ends);
    }

    boolean isEnd(int id) {
      return id == ends[0] || id == ends[1];
    }
  }

  /** What a random walk came to. */
  record Walk(List<Integer> tokens, String text) {}

  /**
   * Draws from the masks until an end token. What ends a text soon is preferred once it has become
   * long: an end, then what closes, then the rest.
   */
  static Walk walk(
      TokenConstraint constraint, Vocabulary vocabulary, Random random, int soonAfter) {
    List<Integer> tokens = new ArrayList<>();
    ByteArrayOutputStream text = new ByteArrayOutputStream();
    State state = constraint.start();
    while (true) {
      TokenMask mask = constraint.allowed(state);
      assertThat(mask.count()).as("of %s", text).isPositive();
      assertThat(mask.contains(vocabulary.ends[0])).isEqualTo(constraint.mayEnd(state));
      assertThat(mask.contains(vocabulary.special)).isFalse();
      int token = drawn(mask, vocabulary, random, tokens.size() >= soonAfter);
      state = constraint.after(state, token);
      tokens.add(token);
      if (vocabulary.isEnd(token)) {
        assertThat(constraint.allowed(state).count()).isEqualTo(vocabulary.ends.length);
        return new Walk(tokens, text.toString(StandardCharsets.UTF_8));
      }
      text.writeBytes(vocabulary.tokens.get(token));
      assertThat(tokens.size()).as("%s", text).isLessThan(50_000);
    }
  }

  private static int drawn(TokenMask mask, Vocabulary vocabulary, Random random, boolean soon) {
    if (soon) {
      if (mask.contains(vocabulary.ends[0])) {
        return vocabulary.ends[0];
      }
      for (char c : "\"}]le0".toCharArray()) {
        if (mask.contains(c)) {
          return c;
        }
      }
      for (int b = 0; b < 256; b++) {
        if (mask.contains(b) && b != '[' && b != '{' && b != '\\') {
          return b;
        }
      }
      return mask.contains('[') ? '[' : mask.contains('{') ? '{' : '\\';
    }
    int id = random.nextInt(vocabulary.tokens.size());
    while (!mask.contains(id)) {
      id = (id + 1) % vocabulary.tokens.size();
    }
    return id;
  }

  private static final List<String> GRAMMARS =
      List.of(
          "root ::= [a-d]{1,40} (\"{\" root \"}\")? \"é\"?",
          "root ::= (\"😀\" | \"語é\" | [^a-z\"])*",
          "root ::= \"true\" | \"tr\" [a-z]* | \"\"",
          "root ::= line+\nline ::= word (\" \" word){0,3} \"\\n\"\nword ::= [a-z]{1,5} | \"\\\\u\" [0-9]{4}",
          JsonSchema.anyObject().source());

  @Test
  void aMaskHasExactlyTheTokensThatTheGrammarTakesByteForByte() {
    long seed = System.nanoTime();
    Random random = new Random(seed);
    Vocabulary vocabulary = new Vocabulary(random);
    for (String gbnf : GRAMMARS) {
      Grammar grammar = Grammar.parse(gbnf);
      TokenConstraint constraint = vocabulary.constraint(grammar);
      State state = constraint.start();
      GrammarAutomaton automaton = grammar.automaton();
      GrammarAutomaton.Configurations at = automaton.start();
      for (int step = 0; step < 40; step++) {
        TokenMask mask = constraint.allowed(state);
        for (int id = 0; id < vocabulary.tokens.size(); id++) {
          byte[] bytes = vocabulary.tokens.get(id);
          boolean expected =
              vocabulary.isEnd(id)
                  ? at.mayEnd()
                  : bytes.length > 0 && !after(automaton, at, bytes).isDead();
          assertThat(mask.contains(id))
              .as("seed %d, %s, step %d, token %d", seed, gbnf, step, id)
              .isEqualTo(expected);
          State before = state;
          int token = id;
          if (!expected) {
            assertThatThrownBy(() -> constraint.after(before, token))
                .isInstanceOfSatisfying(
                    FlotillaException.class, e -> assertThat(e.code()).isEqualTo(Code.INVALID));
          }
        }
        int token = drawn(mask, vocabulary, random, false);
        if (vocabulary.isEnd(token)) {
          break;
        }
        state = constraint.after(state, token);
        at = after(automaton, at, vocabulary.tokens.get(token));
      }
    }
  }

  private static GrammarAutomaton.Configurations after(
      GrammarAutomaton automaton, GrammarAutomaton.Configurations from, byte[] bytes) {
    GrammarAutomaton.Configurations at = from;
    for (byte b : bytes) {
      at = automaton.after(at, automaton.classOf(b));
    }
    return at;
  }

  @Test
  void idsOutsideTheVocabularyAreNeverAllowed() {
    Vocabulary vocabulary = new Vocabulary(new Random(1));
    TokenConstraint constraint = vocabulary.constraint(Grammar.parse("root ::= .*"));
    for (int id : new int[] {-1, vocabulary.tokens.size(), Integer.MAX_VALUE, vocabulary.special}) {
      assertThat(constraint.allowed(constraint.start()).contains(id)).isFalse();
      assertThatThrownBy(() -> constraint.after(constraint.start(), id))
          .hasMessageContaining("does not allow token " + id);
    }
    assertThatThrownBy(() -> new TokenConstraint(Grammar.parse("root ::= \"\""), vocabulary.trie))
        .isInstanceOf(IllegalArgumentException.class);
    assertThatThrownBy(
            () -> new TokenConstraint(Grammar.parse("root ::= \"\""), vocabulary.trie, 100_000))
        .isInstanceOf(IllegalArgumentException.class);
  }

  @Test
  void whereOnlyTheEndIsPossibleOnlyEndTokensAreAllowed() {
    Vocabulary vocabulary = new Vocabulary(new Random(1));
    TokenConstraint constraint = vocabulary.constraint(Grammar.parse("root ::= \"a\"?"));
    assertThat(constraint.mayEnd(constraint.start())).isTrue();
    assertThat(constraint.allowed(constraint.start()).count()).isEqualTo(1 + 2);
    State full = constraint.after(constraint.start(), 'a');
    assertThat(constraint.allowed(full).count()).isEqualTo(2);
    assertThat(constraint.allowed(full).contains(vocabulary.ends[1])).isTrue();
    TokenConstraint more = vocabulary.constraint(Grammar.parse("root ::= \"ab\""));
    assertThat(more.mayEnd(more.after(more.start(), 'a'))).isFalse();
    assertThatThrownBy(() -> more.after(more.start(), vocabulary.ends[0]))
        .isInstanceOf(FlotillaException.class);
    TokenConstraint marks = vocabulary.constraint(Grammar.parse("root ::= \"</s>\"{2}"));
    assertThat(marks.allowed(marks.start()).contains(vocabulary.ends[1]))
        .as("an end token is no text, whatever it is spelled like")
        .isFalse();
  }

  @Test
  void charactersMayBeCutBetweenTokens() {
    Vocabulary vocabulary = new Vocabulary(new Random(1));
    TokenConstraint constraint = vocabulary.constraint(Grammar.parse("root ::= \"é\" [☀-🙏]+"));
    byte[] text = "é😀".getBytes(StandardCharsets.UTF_8);
    State state = constraint.start();
    for (byte b : text) {
      assertThat(constraint.mayEnd(state)).isFalse();
      assertThat(constraint.allowed(state).contains(b & 0xFF)).isTrue();
      assertThat(constraint.allowed(state).contains('a')).isFalse();
      state = constraint.after(state, b & 0xFF);
    }
    assertThat(constraint.mayEnd(state)).isTrue();
    assertThat(constraint.allowed(state).contains('(')).isFalse();
  }

  @Test
  void aTextThatGoesOnElsewhereIsHeldToTheSame() {
    long seed = System.nanoTime();
    Random random = new Random(seed);
    Vocabulary vocabulary = new Vocabulary(random);
    TokenConstraint here = vocabulary.constraint(JsonSchema.anyObject());
    Walk walk = walk(here, vocabulary, random, 60);
    TokenConstraint there = vocabulary.constraint(Grammar.parse(JsonSchema.anyObject().source()));
    State a = here.start();
    State b = there.start();
    for (int token : walk.tokens()) {
      a = here.after(a, token);
      b = there.after(b, token);
      assertThat(there.allowed(b)).as("seed %d", seed).isEqualTo(here.allowed(a));
      assertThat(b).isEqualTo(a).hasSameHashCodeAs(a);
    }
  }

  @Test
  void whatWasForgottenIsMadeAgainTheSame() {
    Vocabulary vocabulary = new Vocabulary(new Random(1));
    Grammar grammar =
        Grammar.parse("root ::= a{9000} a{9000} \"b\" a{9000} \"c\"\na ::= \"a\" | \"d\"");
    TokenConstraint constraint = vocabulary.constraint(grammar);
    TokenMask first = constraint.allowed(constraint.start());
    State state = constraint.start();
    List<State> kept = new ArrayList<>();
    for (int i = 0; i < 27_001; i++) {
      state = constraint.after(state, i == 18_000 ? 'b' : 'a');
      if (i % 1000 == 0) {
        kept.add(state);
      }
    }
    assertThat(constraint.allowed(state).contains('c')).isTrue();
    assertThat(constraint.allowed(constraint.start())).isEqualTo(first);
    assertThat(constraint.allowed(constraint.after(kept.get(18), 'a')).contains('d')).isTrue();
    assertThat(constraint.allowed(kept.get(17)).contains('b')).isFalse();
  }

  @Test
  void aVocabularyThatCannotSpellTheTextIsAnError() {
    TokenTrie letters =
        new TokenTrie(
            List.of(new byte[] {'a'}, new byte[] {'b'}, new byte[0], new byte[] {'a', 'b'}));
    TokenConstraint constraint = new TokenConstraint(Grammar.parse("root ::= \"ac\""), letters, 2);
    State state = constraint.after(constraint.start(), 0);
    assertThatThrownBy(() -> constraint.allowed(state))
        .isInstanceOfSatisfying(
            FlotillaException.class, e -> assertThat(e.code()).isEqualTo(Code.INVALID))
        .hasMessageContaining("no token with which this text");
  }

  @Test
  void aMaskThatWouldCostTooMuchIsRefusedWhateverIsRemembered() {
    List<byte[]> tokens = new ArrayList<>();
    tokens.add(new byte[0]);
    for (int i = 0; i < 400_000; i++) {
      tokens.add(Integer.toString(i + 1_000_000).getBytes(StandardCharsets.UTF_8));
    }
    StringBuilder palindrome = new StringBuilder("root ::= [0-9]?");
    for (int digit = 0; digit < 10; digit++) {
      palindrome.append(" | \"%d\" root \"%d\"".formatted(digit, digit));
    }
    TokenTrie trie = new TokenTrie(tokens);
    TokenConstraint constraint = new TokenConstraint(Grammar.parse(palindrome.toString()), trie, 0);
    for (int round = 0; round < 2; round++) {
      assertThatThrownBy(() -> constraint.allowed(constraint.start()))
          .hasMessageContaining("too much work");
      for (int id = 1; id < tokens.size(); id += 7) {
        constraint.after(constraint.start(), id);
      }
    }
    TokenConstraint ambiguous =
        new TokenConstraint(Grammar.parse("root ::= ([0-9]?){900}"), trie, 0);
    assertThat(ambiguous.allowed(ambiguous.start()).count()).isEqualTo(tokens.size());
  }

  @Test
  void manyWaysThatEachHaveManyEdgesAreRefused() {
    StringBuilder gbnf =
        new StringBuilder("root ::= (\"b\"?){900} \"a\" (value?){900}\nvalue ::= ");
    for (int i = 0; i < 2000; i++) {
      gbnf.append(i == 0 ? "" : " | ").append("\"x").append(i).append('"');
    }
    TokenConstraint constraint =
        new Vocabulary(new Random(1)).constraint(Grammar.parse(gbnf.toString()));
    State state = constraint.after(constraint.start(), 'a');
    assertThatThrownBy(() -> constraint.allowed(state)).hasMessageContaining("too many ways");
  }

  @Test
  void anAnswerOfTheGrammarOfAnyObjectIsAnObject() throws IOException {
    long seed = System.nanoTime();
    Random random = new Random(seed);
    Vocabulary vocabulary = new Vocabulary(random);
    TokenConstraint constraint = vocabulary.constraint(JsonSchema.anyObject());
    for (int round = 0; round < 60; round++) {
      String text = walk(constraint, vocabulary, random, random.nextInt(80)).text();
      JsonNode value = JsonSchemaTest.LENIENT.readTree(text);
      assertThat(value.isObject()).as("seed %d: %s", seed, text).isTrue();
    }
  }
}

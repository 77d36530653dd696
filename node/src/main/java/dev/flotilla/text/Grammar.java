package dev.flotilla.text;

import dev.flotilla.FlotillaException;

/**
 * Which texts an answer may be: a context-free grammar. Immutable; safe on all threads.
 *
 * <p>Its text is GBNF, llama.cpp's notation ("GBNF Guide", {@code grammars/README.md} there), with
 * the rule {@code root} for the whole answer:
 *
 * <pre>
 * root ::= "[" (number ("," number)*)? "]"   # a list
 * number ::= "-"? [0-9]{1,6}
 * </pre>
 *
 * <p>What differs from llama.cpp: tokens ({@code <think>}) are refused; so is a second rule of a
 * name, a rule that never ends ({@code a ::= "x" a}), and a repetition right behind a repetition
 * ({@code "x"*?}). Characters are those of well-formed UTF-8, so {@code .} and negated classes have
 * no halves of surrogate pairs. Rules nest 128 deep at most (calls at the end of a rule count as
 * none), so that no answer nests without bound; what would lead deeper is not allowed, and whatever
 * has begun can be ended.
 */
public final class Grammar {

  private final String source;
  private final GrammarAutomaton automaton;

  private Grammar(String source) {
    this.source = source;
    this.automaton = GrammarAutomaton.of(GbnfParser.rules(source));
  }

  /**
   * Reads a grammar.
   *
   * @throws FlotillaException {@code INVALID}, with the rule and the place, if it is malformed,
   *     larger than the bounds, names a rule that is not there, has a rule that begins with itself
   *     (left recursion) or one that never ends
   */
  public static Grammar parse(String gbnf) {
    return new Grammar(gbnf);
  }

  /** Its GBNF: {@link #parse} makes the same grammar of it, wherever it is sent. */
  public String source() {
    return source;
  }

  GrammarAutomaton automaton() {
    return automaton;
  }
}

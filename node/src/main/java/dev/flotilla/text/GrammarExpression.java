package dev.flotilla.text;

import java.util.ArrayList;
import java.util.List;

/** One part of a rule of a {@link Grammar}, as its text has it. */
sealed interface GrammarExpression {

  /** The bound of {@link Repeat} that is none. */
  int UNBOUNDED = -1;

  /**
   * Where something stands in a grammar's text; both count from 1.
   *
   * @param column in UTF-16 units
   */
  record Place(int line, int column) {
    @Override
    public String toString() {
      return "line " + line + ", column " + column;
    }
  }

  /** A rule: a name for an expression. */
  record Rule(String name, GrammarExpression body, Place place) {}

  /** A text, which may be empty. */
  record Literal(String text) implements GrammarExpression {}

  /** One code point, in one of the ranges. */
  record CharacterClass(List<Range> ranges) implements GrammarExpression {}

  /** Code points from first to last, both included. */
  record Range(int first, int last) {}

  /** Whatever the named rule is. */
  record Reference(String rule, Place place) implements GrammarExpression {}

  /** One part after the other. */
  record Sequence(List<GrammarExpression> parts) implements GrammarExpression {}

  /** Any one of the options. */
  record Choice(List<GrammarExpression> options) implements GrammarExpression {}

  /**
   * @param most how often at most, or {@link #UNBOUNDED}
   */
  record Repeat(GrammarExpression body, int least, int most) implements GrammarExpression {}

  /**
   * The code points in the ranges, or all others, as sorted ranges that do not touch. Halves of
   * surrogate pairs are no characters and never among them.
   */
  static List<Range> normalised(List<Range> ranges, boolean negated) {
    List<Range> sorted = new ArrayList<>(ranges);
    sorted.sort(java.util.Comparator.comparingInt(Range::first).thenComparingInt(Range::last));
    List<Range> merged = new ArrayList<>();
    for (Range range : sorted) {
      Range last = merged.isEmpty() ? null : merged.getLast();
      if (last != null && range.first() <= last.last() + 1) {
        merged.set(merged.size() - 1, new Range(last.first(), Math.max(last.last(), range.last())));
      } else {
        merged.add(range);
      }
    }
    if (negated) {
      List<Range> others = new ArrayList<>();
      int from = 0;
      for (Range range : merged) {
        if (range.first() > from) {
          others.add(new Range(from, range.first() - 1));
        }
        from = range.last() + 1;
      }
      if (from <= Character.MAX_CODE_POINT) {
        others.add(new Range(from, Character.MAX_CODE_POINT));
      }
      merged = others;
    }
    List<Range> characters = new ArrayList<>();
    for (Range range : merged) {
      if (range.first() < Character.MIN_SURROGATE) {
        characters.add(
            new Range(range.first(), Math.min(range.last(), Character.MIN_SURROGATE - 1)));
      }
      if (range.last() > Character.MAX_SURROGATE) {
        characters.add(
            new Range(Math.max(range.first(), Character.MAX_SURROGATE + 1), range.last()));
      }
    }
    return List.copyOf(characters);
  }
}

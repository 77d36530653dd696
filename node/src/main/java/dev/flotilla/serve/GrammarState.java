package dev.flotilla.serve;

import dev.flotilla.FlotillaException;
import dev.flotilla.text.TokenConstraint;
import dev.flotilla.text.TokenMask;

/**
 * Where an answer has got to in the grammar that it is held to. It follows from the grammar and the
 * tokens so far, so it is the same on any node. Immutable.
 *
 * @param allowed the tokens that may come next
 */
record GrammarState(TokenConstraint constraint, TokenConstraint.State state, TokenMask allowed) {

  /**
   * Behind an answer's first tokens.
   *
   * @param tokens the answer's are those from {@code from} on
   * @throws FlotillaException {@code INVALID} if the grammar does not allow them, or leaves too
   *     many ways open behind them
   */
  static GrammarState of(TokenConstraint constraint, int[] tokens, int from) {
    TokenConstraint.State state = constraint.start();
    for (int i = from; i < tokens.length; i++) {
      state = constraint.after(state, tokens[i]);
    }
    return new GrammarState(constraint, state, constraint.allowed(state));
  }

  /**
   * With one token more, which is none that ends the answer.
   *
   * @throws FlotillaException as above
   */
  GrammarState after(int token) {
    TokenConstraint.State next = constraint.after(state, token);
    return new GrammarState(constraint, next, constraint.allowed(next));
  }
}

package dev.flotilla.serve;

import dev.flotilla.FlotillaException;
import dev.flotilla.text.TokenConstraint;
import dev.flotilla.text.TokenMask;

/**
 * Where an answer has got to in the grammar that it is held to. It follows from the grammar and the
 * tokens so far, so it is the same on any node. Immutable.
 */
record GrammarState(TokenConstraint constraint, TokenConstraint.State state) {

  /**
   * Behind an answer's first tokens.
   *
   * @param tokens the answer's are those from {@code from} on
   * @throws FlotillaException {@code INVALID} if the grammar does not allow them, or as {@link
   *     #allowed}
   */
  static GrammarState of(TokenConstraint constraint, int[] tokens, int from) {
    GrammarState reached = new GrammarState(constraint, constraint.start());
    for (int i = from; i < tokens.length; i++) {
      reached = reached.after(tokens[i]);
    }
    TokenMask _ = reached.allowed();
    return reached;
  }

  /**
   * With one token more, which is none that ends the answer.
   *
   * @throws FlotillaException {@code INVALID} if it is not allowed
   */
  GrammarState after(int token) {
    return new GrammarState(constraint, constraint.after(state, token));
  }

  /**
   * The tokens that may come next; remembered for a while.
   *
   * @throws FlotillaException {@code INVALID} if the grammar leaves too many ways open here
   */
  TokenMask allowed() {
    return constraint.allowed(state);
  }
}

package dev.flotilla.train;

/**
 * One row of a training batch. All arrays have the context's length.
 *
 * @param tokens what the model reads
 * @param positions of each token in its document
 * @param documents which document of this sequence each token belongs to, from 0
 * @param targets the token to predict after each one, or {@link #NO_TARGET}
 */
record Sequence(int[] tokens, int[] positions, int[] documents, int[] targets) {

  /** Marks a token after which nothing is to be learned. */
  static final int NO_TARGET = -1;

  int length() {
    return tokens.length;
  }
}

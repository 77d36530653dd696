package dev.flotilla.serve;

/**
 * The hidden states of one text, as far as they are computed, on their way to become its embedding:
 * their mean, brought to length 1.
 *
 * <p>Sums are of double precision and run in the order of the positions, one per element: how the
 * text was cut into steps, and what else was in them, changes no bit. Of the mean only the
 * direction is left in the end, so the sum does as well.
 */
final class PooledStates {

  private final double[] sums;

  /**
   * @param width elements of a hidden state
   */
  PooledStates(int width) {
    sums = new double[width];
  }

  /** Adds states {@code [rows, width]}, which follow those added before. */
  void add(float[] states) {
    for (int from = 0; from < states.length; from += sums.length) {
      for (int i = 0; i < sums.length; i++) {
        sums[i] += states[from + i];
      }
    }
  }

  /** The embedding {@code [width]}; empty if it is not a number, or has no direction. */
  float[] direction() {
    double squares = 0;
    for (double sum : sums) {
      squares += sum * sum;
    }
    double length = Math.sqrt(squares);
    if (!(length > 0 && length < Double.POSITIVE_INFINITY)) {
      return new float[0];
    }
    float[] direction = new float[sums.length];
    for (int i = 0; i < sums.length; i++) {
      direction[i] = (float) (sums[i] / length);
    }
    return direction;
  }
}

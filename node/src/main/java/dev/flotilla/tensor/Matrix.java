package dev.flotilla.tensor;

/**
 * Activations on the heap: one row per token.
 *
 * @param rows how many tokens
 * @param width elements of a row
 * @param values {@code [rows, width]}, row after row; shared, not copied
 */
public record Matrix(int rows, int width, float[] values) {

  public Matrix {
    if ((long) rows * width != values.length) {
      throw new IllegalArgumentException(rows + " x " + width + " is not " + values.length);
    }
  }

  /** All zero. */
  public Matrix(int rows, int width) {
    this(rows, width, new float[Math.multiplyExact(rows, width)]);
  }
}

package dev.flotilla.tensor;

/**
 * The arithmetic of a decoder-only transformer, so that an architecture is defined once and runs on
 * any backend.
 *
 * <p>An activation is a matrix {@code [rows, width]}: one row per token. A row's result must not
 * depend on the rows beside it.
 *
 * @param <T> the backend's activations
 * @param <W> the backend's weights: matrices {@code [out, in]}, tables {@code [vocabulary, width]},
 *     gains {@code [width]}
 */
public interface Ops<T, W> {

  /** Looks up one row of the table per token: {@code [tokens.length, width]}. */
  T embed(W table, int[] tokens);

  /** {@code x · weightᵀ}: {@code [rows, in]} by {@code [out, in]} gives {@code [rows, out]}. */
  T linear(T x, W weight);

  /**
   * Root-mean-square normalisation, Zhang and Sennrich 2019: {@code x / sqrt(mean(x²) + epsilon) ·
   * gain}.
   */
  T rmsNorm(T x, W gain, float epsilon);

  /**
   * Rotary position embedding, Su et al. 2021, in the half-split layout of Hugging Face: within
   * each head, element {@code i} pairs with element {@code i + headWidth / 2}.
   *
   * @param x {@code [rows, heads · headWidth]}
   * @param positions the absolute position of each row
   * @param theta the base of the frequencies
   */
  T rope(T x, int headWidth, int[] positions, float theta);

  /** {@code silu(gate) · up}, element by element: the gate of SwiGLU, Shazeer 2020. */
  T swiGlu(T gate, T up);

  /** {@code a + b}, element by element. */
  T add(T a, T b);
}

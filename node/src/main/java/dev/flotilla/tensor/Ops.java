package dev.flotilla.tensor;

import java.util.List;

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

  /** {@code x + bias}, the same {@code bias} for every row: {@code [rows, width]}. */
  T bias(T x, W bias);

  /**
   * Root-mean-square normalisation, Zhang and Sennrich 2019: {@code x / sqrt(mean(x²) + epsilon) ·
   * gain}, over every run of as many elements as the gain has: a whole row, or each head of it.
   */
  T rmsNorm(T x, W gain, float epsilon);

  /**
   * Turns pairs of elements by angles that grow with the position; see {@link Rope}.
   *
   * @param x {@code [rows, heads · headWidth]}
   * @param positions the absolute position of each row
   */
  T rope(T x, Rope rope, int[] positions);

  /** {@code silu(gate) · up}, element by element: the gate of SwiGLU, Shazeer 2020. */
  T swiGlu(T gate, T up);

  /**
   * {@code gelu(gate) · up}, element by element: the gate of GeGLU, Shazeer 2020, with GELU by its
   * tanh formula, Hendrycks and Gimpel 2016.
   */
  T geGlu(T gate, T up);

  /** {@code a + b}, element by element. */
  T add(T a, T b);

  /** {@code x · factor}, element by element. */
  T scale(T x, float factor);

  /** {@code cap · tanh(x / cap)}, element by element: Bello et al. 2016, in Gemma 2. */
  T softCap(T x, float cap);

  /**
   * A mixture of experts, Shazeer et al. 2017: each row goes through the {@code used} experts with
   * its highest scores, and their results are added with weights: the softmax of those scores. An
   * expert is a feed-forward part with {@link #swiGlu}.
   *
   * @param scores {@code [rows, experts.size()]}
   */
  T mixture(T x, T scores, int used, List<FeedForward<W>> experts);

  /** {@code down(gated(gate(x), up(x)))}, with {@link #swiGlu} or {@link #geGlu}. */
  default T feedForward(T x, FeedForward<W> part, Gate gate) {
    T opening = linear(x, part.gate());
    T up = linear(x, part.up());
    T inner =
        switch (gate) {
          case SWIGLU -> swiGlu(opening, up);
          case GEGLU -> geGlu(opening, up);
        };
    return linear(inner, part.down());
  }

  /** The matrices of a feed-forward part, two of them {@code [inner, width]}, one the other way. */
  record FeedForward<W>(W gate, W up, W down) {}

  /** What is between the matrices of a feed-forward part. */
  enum Gate {
    SWIGLU,
    GEGLU
  }
}

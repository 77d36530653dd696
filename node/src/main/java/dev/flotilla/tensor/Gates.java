package dev.flotilla.tensor;

/** The gates of feed-forward parts, element by element. */
final class Gates {

  private static final float GELU_SLOPE = 0.7978846f;
  private static final float GELU_CUBE = 0.044715f;

  private Gates() {}

  /**
   * {@code silu(g) · u} is {@code g / (1 + exp(-g)) · u}; {@code gelu(g) = g · (1 + tanh(v)) / 2}
   * is {@code g / (1 + exp(-2v))}.
   *
   * @param out is written from {@code first} to {@code end}, from the same elements of the others
   */
  static void apply(Ops.Gate gate, float[] g, float[] u, float[] out, int first, int end) {
    int count = end - first;
    switch (gate) {
      case SWIGLU -> {
        System.arraycopy(g, first, out, first, count);
        Kernels.expAll(out, first, count, -1, 0);
      }
      case GEGLU -> {
        for (int i = first; i < end; i++) {
          out[i] = GELU_SLOPE * (g[i] + GELU_CUBE * g[i] * g[i] * g[i]);
        }
        Kernels.expAll(out, first, count, -2, 0);
      }
    }
    for (int i = first; i < end; i++) {
      out[i] = g[i] / (1 + out[i]) * u[i];
    }
  }
}

package dev.flotilla.model;

import dev.flotilla.tensor.Attention;
import dev.flotilla.tensor.Ops;
import dev.flotilla.tensor.Rope;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.function.UnaryOperator;

/**
 * One layer in one step: the pieces that architectures are written in, with the layer's weights by
 * their names in GGUF.
 *
 * @param <T> the backend's activations
 * @param <W> the backend's weights
 */
final class Block<T, W> {

  private final ModelConfig config;
  private final Ops<T, W> ops;
  private final int layer;
  private final Map<String, W> weights;
  private final Rope rope;
  private final int[] positions;
  private final Attention<T> attention;
  private final UnaryOperator<T> joined;

  /**
   * @param joined adds up a product with what other machines have of it
   */
  Block(
      ModelConfig config,
      Ops<T, W> ops,
      int layer,
      Map<String, W> weights,
      Rope rope,
      int[] positions,
      Attention<T> attention,
      UnaryOperator<T> joined) {
    this.config = config;
    this.ops = ops;
    this.layer = layer;
    this.weights = weights;
    this.rope = rope;
    this.positions = positions;
    this.attention = attention;
    this.joined = joined;
  }

  /** The layer's index in the whole model. */
  int layer() {
    return layer;
  }

  /** Normalises whole rows, or each head where the gain is as wide as a head. */
  T norm(T x, String gain) {
    return ops.rmsNorm(x, weight(gain + ".weight"), config.rmsEpsilon());
  }

  /** Multiplies by a matrix, and adds its bias where it has one. */
  T linear(T x, String matrix) {
    T product = ops.linear(x, weight(matrix + ".weight"));
    if (TensorShare.isSummed(matrix)) {
      product = joined.apply(product);
    }
    W bias = weights.get(matrix + ".bias");
    return bias == null ? product : ops.bias(product, bias);
  }

  /** Turns heads by their positions. */
  T rope(T heads) {
    return ops.rope(heads, rope, positions);
  }

  /** What the queries find in all that they may see, {@code [rows, heads · headWidth]}. */
  T attend(T query, T key, T value) {
    return attention.attend(layer, query, key, value);
  }

  T add(T a, T b) {
    return ops.add(a, b);
  }

  /** The feed-forward part: {@code ffn_gate}, {@code ffn_up}, {@code ffn_down}. */
  T feedForward(T x, Ops.Gate gate) {
    return joined.apply(ops.feedForward(x, part(""), gate));
  }

  /**
   * SwiGLU feed-forward parts, a few of which each row goes through, as the router's scores say.
   */
  T mixture(T x, T scores) {
    int count = config.variant().experts();
    List<Ops.FeedForward<W>> experts = new ArrayList<>(count);
    for (int e = 0; e < count; e++) {
      experts.add(part("." + e));
    }
    return joined.apply(ops.mixture(x, scores, config.variant().expertsUsed(), experts));
  }

  private Ops.FeedForward<W> part(String number) {
    return new Ops.FeedForward<>(
        weight("ffn_gate" + number + ".weight"),
        weight("ffn_up" + number + ".weight"),
        weight("ffn_down" + number + ".weight"));
  }

  private W weight(String name) {
    W weight = weights.get(name);
    if (weight == null) {
      throw new IllegalStateException("no weight " + name + " in layer " + layer);
    }
    return weight;
  }
}

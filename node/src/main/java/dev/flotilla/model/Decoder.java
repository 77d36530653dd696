package dev.flotilla.model;

import dev.flotilla.tensor.Attention;
import dev.flotilla.tensor.Ops;
import dev.flotilla.tensor.Rope;
import java.util.List;
import java.util.Map;
import java.util.function.UnaryOperator;

/**
 * A decoder-only transformer: an embedding, blocks as its architecture defines them, a norm and an
 * output matrix. For training and for serving.
 *
 * <p>Holds any run of consecutive layers; the first one also needs the embedding, the last one the
 * output.
 *
 * @param <T> the backend's activations
 * @param <W> the backend's weights
 */
public final class Decoder<T, W> {

  private final ModelConfig config;
  private final Definition definition;
  private final Ops<T, W> ops;
  private final int firstLayer;
  private final List<Map<String, W>> blocks;
  private final Rope rope;
  private final Rope localRope;
  private final UnaryOperator<T> joined;

  /** All of its layers' heads are here. */
  public Decoder(
      ModelConfig config,
      Ops<T, W> ops,
      int firstLayer,
      List<Map<String, W>> blocks,
      float[] ropeFactors) {
    this(config, ops, firstLayer, blocks, ropeFactors, UnaryOperator.identity());
  }

  /**
   * @param config the whole model's, with the heads and the feed-forward elements that are here
   * @param firstLayer the index, in the whole model, of {@code blocks.get(0)}
   * @param blocks each layer's weights by their names in GGUF, such as {@code attn_q.weight}
   * @param ropeFactors what to divide rotary frequencies by, where the model has such a tensor
   * @param joined adds up a product with what other machines have of it; twice in a layer
   */
  Decoder(
      ModelConfig config,
      Ops<T, W> ops,
      int firstLayer,
      List<Map<String, W>> blocks,
      float[] ropeFactors,
      UnaryOperator<T> joined) {
    this.config = config;
    this.joined = joined;
    this.definition = config.architecture().definition();
    this.ops = ops;
    this.firstLayer = firstLayer;
    this.blocks = List.copyOf(blocks);
    Variant variant = config.variant();
    int turned = variant.ropeWidth() > 0 ? variant.ropeWidth() : config.headWidth();
    rope = variant.stretch().rope(config.headWidth(), turned, config.ropeTheta(), ropeFactors);
    localRope =
        variant.localRopeTheta() > 0
            ? Rope.plain(config.headWidth(), variant.localRopeTheta())
            : rope;
  }

  /** Token ids to hidden states {@code [tokens.length, width]}. */
  public T embed(W table, int[] tokens) {
    float scale = definition.embeddingScale(config);
    T rows = ops.embed(table, tokens);
    return scale == 1 ? rows : ops.scale(rows, scale);
  }

  /**
   * Hidden states {@code [rows, width]} through the layers held here; {@code positions} has one
   * entry per row.
   */
  public T layers(T hidden, int[] positions, Attention<T> attention) {
    for (int i = 0; i < blocks.size(); i++) {
      int layer = firstLayer + i;
      Rope turn = config.windowed(layer) ? localRope : rope;
      hidden =
          definition.block(
              new Block<>(config, ops, layer, blocks.get(i), turn, positions, attention, joined),
              hidden);
    }
    return hidden;
  }

  /** Hidden states after the last norm, {@code [rows, width]}. */
  public T normalised(T hidden, W finalNorm) {
    return ops.rmsNorm(hidden, finalNorm, config.rmsEpsilon());
  }

  /** Hidden states to logits {@code [rows, vocabularySize]}. */
  public T logits(T hidden, W finalNorm, W output) {
    T logits = ops.linear(normalised(hidden, finalNorm), output);
    float cap = config.variant().logitCap();
    return cap > 0 ? ops.softCap(logits, cap) : logits;
  }
}

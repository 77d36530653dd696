package dev.flotilla.model;

import dev.flotilla.tensor.Attention;
import dev.flotilla.tensor.Ops;
import java.util.List;

/**
 * The Llama architecture, Touvron et al. 2023: pre-normalised blocks of grouped-query attention
 * with rotary positions, and a SwiGLU feed-forward part. Defined here once, for training and for
 * serving.
 *
 * <p>Holds any run of consecutive layers; the first one also needs the embedding, the last one the
 * output.
 *
 * @param <T> the backend's activations
 * @param <W> the backend's weights
 */
public final class Llama<T, W> {

  /** The weights of one block; names as in Hugging Face's {@code model.layers.N}. */
  public record Block<W>(
      W inputNorm, W query, W key, W value, W output, W postAttentionNorm, W gate, W up, W down) {}

  private final ModelConfig config;
  private final Ops<T, W> ops;
  private final int firstLayer;
  private final List<Block<W>> blocks;

  /**
   * @param firstLayer the index, in the whole model, of {@code blocks.get(0)}
   */
  public Llama(ModelConfig config, Ops<T, W> ops, int firstLayer, List<Block<W>> blocks) {
    this.config = config;
    this.ops = ops;
    this.firstLayer = firstLayer;
    this.blocks = List.copyOf(blocks);
  }

  /** Token ids to hidden states {@code [tokens.length, width]}. */
  public T embed(W table, int[] tokens) {
    return ops.embed(table, tokens);
  }

  /**
   * Hidden states {@code [rows, width]} through the layers held here; {@code positions} has one
   * entry per row.
   */
  public T layers(T hidden, int[] positions, Attention<T> attention) {
    for (int i = 0; i < blocks.size(); i++) {
      hidden = block(firstLayer + i, blocks.get(i), hidden, positions, attention);
    }
    return hidden;
  }

  /** Hidden states after the last norm, {@code [rows, width]}. */
  public T normalised(T hidden, W finalNorm) {
    return ops.rmsNorm(hidden, finalNorm, config.rmsEpsilon());
  }

  /** Hidden states to logits {@code [rows, vocabularySize]}. */
  public T logits(T hidden, W finalNorm, W output) {
    return ops.linear(normalised(hidden, finalNorm), output);
  }

  private T block(int layer, Block<W> w, T hidden, int[] positions, Attention<T> attention) {
    T x = ops.rmsNorm(hidden, w.inputNorm(), config.rmsEpsilon());
    T query = ops.rope(ops.linear(x, w.query()), config.headWidth(), positions, config.ropeTheta());
    T key = ops.rope(ops.linear(x, w.key()), config.headWidth(), positions, config.ropeTheta());
    T value = ops.linear(x, w.value());
    T attended = attention.attend(layer, query, key, value);
    hidden = ops.add(hidden, ops.linear(attended, w.output()));
    T y = ops.rmsNorm(hidden, w.postAttentionNorm(), config.rmsEpsilon());
    T inner = ops.swiGlu(ops.linear(y, w.gate()), ops.linear(y, w.up()));
    return ops.add(hidden, ops.linear(inner, w.down()));
  }
}

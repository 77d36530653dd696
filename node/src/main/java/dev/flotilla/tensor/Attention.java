package dev.flotilla.tensor;

/**
 * Causal grouped-query attention over what each row may see. Training sees the rows of its own
 * batch; serving sees a KV cache. The caller makes one for a batch, which fixes which sequence and
 * position each row has.
 *
 * @param <T> the backend's activations
 */
@FunctionalInterface
public interface Attention<T> {

  /**
   * Attends in one layer; a cache takes up {@code key} and {@code value} first.
   *
   * @param layer the layer's index in the whole model
   * @param query {@code [rows, heads · headWidth]}, already rotated
   * @param key {@code [rows, kvHeads · headWidth]}, already rotated
   * @param value {@code [rows, kvHeads · headWidth]}
   * @return {@code [rows, heads · headWidth]}
   */
  T attend(int layer, T query, T key, T value);
}

package dev.flotilla.model;

/**
 * A run of a model's layers, ready to run on this machine, with the KV cache of every sequence that
 * passes through it. The slice with layer 0 also embeds; the one with the last layer also computes
 * logits and what embeddings are pooled from.
 *
 * <p>Not thread-safe: one stage thread drives it. A row's bits depend on nothing but its own
 * sequence: not on the rows beside it, the number of threads, how rows were cut into calls, or how
 * the layers are cut into slices.
 */
public interface LayerSlice extends AutoCloseable {

  /** The whole model's shape. */
  ModelConfig config();

  /** Which layers are here. */
  LayerRange range();

  /** Bytes that the packed weights take. */
  long weightBytes();

  /** Positions that the KV cache holds over all sequences. */
  int cachePositions();

  /** Positions of the KV cache that are free. */
  int freePositions();

  /**
   * Embeds token ids.
   *
   * @return hidden states {@code [tokens.length, width]}, row after row
   */
  float[] embed(int[] tokens);

  /**
   * Runs the layers over a step's rows and adds their keys and values to the cache. Rows of one
   * sequence come in the order of their positions, and continue where the cache of that sequence
   * ends.
   *
   * @param hidden {@code [rows, width]}, overwritten with the result
   * @param sequences which sequence each row belongs to
   * @param positions the position of each row in its sequence
   * @throws dev.flotilla.FlotillaException {@code BUSY} if the cache is full; nothing has changed
   *     then
   */
  void forward(float[] hidden, long[] sequences, int[] positions);

  /**
   * Logits of the rows asked for.
   *
   * @param hidden {@code [rows, width]}
   * @param rows indexes of the rows wanted
   * @return {@code [rows.length, vocabularySize]}, row after row
   */
  float[] logits(float[] hidden, int[] rows);

  /**
   * Hidden states of the rows asked for, after the model's last norm: what an embedding is pooled
   * from.
   *
   * @param hidden {@code [rows, width]}
   * @param rows indexes of the rows wanted
   * @return {@code [rows.length, width]}, row after row
   */
  float[] normalised(float[] hidden, int[] rows);

  /** Forgets a sequence and frees its positions; unknown ones are ignored. */
  void release(long sequence);

  /** Frees the weights and the cache. */
  @Override
  void close();
}

package dev.flotilla.plan;

import dev.flotilla.model.ModelConfig;

/**
 * What a model costs a machine that holds a part of it.
 *
 * @param config the model's shape
 * @param layerBytes packed weights of the largest layer
 * @param embeddingBytes the embedding table, needed by the first stage; looked up, not streamed
 * @param headBytes the output matrix, needed by the last stage and streamed for every token
 * @param besideBytes what the first stage's machine holds besides: a draft model
 * @param kvBytesPerLayer the KV cache of one layer, for all positions that a replica holds
 */
public record Footprint(
    ModelConfig config,
    long layerBytes,
    long embeddingBytes,
    long headBytes,
    long besideBytes,
    long kvBytesPerLayer) {

  /** Without anything beside it. */
  public Footprint(
      ModelConfig config,
      long layerBytes,
      long embeddingBytes,
      long headBytes,
      long kvBytesPerLayer) {
    this(config, layerBytes, embeddingBytes, headBytes, 0, kvBytesPerLayer);
  }

  /** The same with something beside the first stage. */
  public Footprint beside(long bytes) {
    return new Footprint(config, layerBytes, embeddingBytes, headBytes, bytes, kvBytesPerLayer);
  }

  /** Weights and KV cache of the whole model on one machine. */
  public long totalBytes() {
    return stageBytes(config.layers(), true, true);
  }

  /** Weights and KV cache of one stage. */
  public long stageBytes(int layers, boolean first, boolean last) {
    return layers * (layerBytes + kvBytesPerLayer) + endBytes(first, last);
  }

  /** Memory beyond the layers themselves; a tied output matrix is held once. */
  long endBytes(boolean first, boolean last) {
    if (first && last && config.tiedEmbeddings()) {
      return besideBytes + Math.max(embeddingBytes, headBytes);
    }
    return (first ? besideBytes + embeddingBytes : 0) + (last ? headBytes : 0);
  }

  /** Bytes of a hidden state between two stages. */
  long hiddenBytes() {
    return 4L * config.width();
  }
}

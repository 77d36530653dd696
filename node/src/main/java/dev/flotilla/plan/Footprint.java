package dev.flotilla.plan;

import dev.flotilla.model.ModelConfig;
import java.util.HashMap;
import java.util.Map;

/**
 * What a model costs a machine that holds a part of it.
 *
 * @param config the model's shape
 * @param layerBytes packed weights of the largest layer
 * @param embeddingBytes the embedding table, needed by the first stage; looked up, not streamed
 * @param headBytes the output matrix, needed by the last stage and streamed for every token
 * @param besideBytes what the first stage's machine holds besides: a draft model
 * @param kvBytesPerLayer the KV cache of one layer, for all positions that a replica holds
 * @param streams what is read for a step
 */
public record Footprint(
    ModelConfig config,
    long layerBytes,
    long embeddingBytes,
    long headBytes,
    long besideBytes,
    long kvBytesPerLayer,
    Streams streams) {

  /**
   * The weights that a step reads, in bytes by the label of their type.
   *
   * @param layer of a layer, the mean of all, without its experts
   * @param experts of all experts of a layer
   * @param head of the output matrix
   */
  public record Streams(
      Map<String, Long> layer, Map<String, Long> experts, Map<String, Long> head) {

    /** Copies them. */
    public Streams {
      layer = Map.copyOf(layer);
      experts = Map.copyOf(experts);
      head = Map.copyOf(head);
    }

    /** Of a type that is not known, and without experts. */
    static Streams unknown(long layerBytes, long headBytes) {
      return new Streams(Map.of("", layerBytes), Map.of(), Map.of("", headBytes));
    }
  }

  /** Without anything beside it, and of a type that is not known. */
  public Footprint(
      ModelConfig config,
      long layerBytes,
      long embeddingBytes,
      long headBytes,
      long kvBytesPerLayer) {
    this(
        config,
        layerBytes,
        embeddingBytes,
        headBytes,
        0,
        kvBytesPerLayer,
        Streams.unknown(layerBytes, headBytes));
  }

  /** The same with something beside the first stage. */
  public Footprint beside(long bytes) {
    return new Footprint(
        config, layerBytes, embeddingBytes, headBytes, bytes, kvBytesPerLayer, streams);
  }

  /** The same where it is known what a step reads. */
  public Footprint with(Streams known) {
    return new Footprint(
        config, layerBytes, embeddingBytes, headBytes, besideBytes, kvBytesPerLayer, known);
  }

  /** Weights and KV cache of the whole model on one machine. */
  public long totalBytes() {
    return stageBytes(config.layers(), true, true);
  }

  /** Weights and KV cache of one stage. */
  public long stageBytes(int layers, boolean first, boolean last) {
    return layers * (layerBytes + kvBytesPerLayer) + endBytes(first, last);
  }

  /**
   * Weights and KV cache of a rank that has so many heads of keys and values, and so many elements
   * of the feed-forward part, of every layer.
   */
  public long rankBytes(boolean first, int heads, int inner) {
    return rankWeightBytes(first, heads, inner) + rankKvBytes(heads);
  }

  long rankWeightBytes(boolean first, int heads, int inner) {
    double share = layerShare(heads, inner);
    return (long) Math.ceil(share * layerBytes * config.layers())
        + (first ? endBytes(true, true) : 0);
  }

  long rankKvBytes(int heads) {
    return kvBytesPerLayer * config.layers() * heads / config.kvHeads();
  }

  /** The part of a layer's weights in some of its heads and feed-forward elements. */
  double layerShare(int heads, int inner) {
    double attention = 2.0 * (config.heads() + config.kvHeads()) * config.headWidth();
    double forward = 3.0 * config.feedForward() * Math.max(1, config.variant().experts());
    return (attention * heads / config.kvHeads() + forward * inner / config.feedForward())
        / (attention + forward);
  }

  /** Memory beyond the layers themselves; a tied output matrix is held once. */
  long endBytes(boolean first, boolean last) {
    if (first && last && config.tiedEmbeddings()) {
      return besideBytes + Math.max(embeddingBytes, headBytes);
    }
    return (first ? besideBytes + embeddingBytes : 0) + (last ? headBytes : 0);
  }

  /** Bytes of so many rows' hidden states between two stages. */
  double hiddenBytes(int rows) {
    return 4.0 * config.width() * rows;
  }

  /**
   * What a step of some rows reads of a layer. Of experts it reads those that any of its rows was
   * sent to; rows are taken to choose independently of each other.
   */
  Map<String, Double> layerRead(int rows) {
    Map<String, Double> read = new HashMap<>();
    streams.layer().forEach((type, bytes) -> read.merge(type, (double) bytes, Double::sum));
    int experts = config.variant().experts();
    double share =
        experts == 0
            ? 1
            : 1 - Math.pow(1 - (double) config.variant().expertsUsed() / experts, rows);
    streams.experts().forEach((type, bytes) -> read.merge(type, bytes * share, Double::sum));
    return read;
  }

  /** What is read for logits. */
  Map<String, Double> headRead() {
    Map<String, Double> read = new HashMap<>();
    streams.head().forEach((type, bytes) -> read.put(type, (double) bytes));
    return read;
  }

  /** Elements of a block of the weights' types: what columns are cut by. */
  int blockElements() {
    boolean super256 = streams.layer().keySet().stream().anyMatch(type -> type.endsWith("_k"));
    return super256 || streams.experts().keySet().stream().anyMatch(type -> type.endsWith("_k"))
        ? 256
        : 32;
  }

  /** Elements of all query heads. */
  int queryWidth() {
    return config.heads() * config.headWidth();
  }
}

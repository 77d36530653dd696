package dev.flotilla.plan;

import java.util.List;

/**
 * How the heads and the feed-forward part of every layer of one replica are shared out over
 * machines, and how fast that is predicted to be; the figures are those of {@link Plan}.
 *
 * @param ranks the first one also has the embedding and the output
 */
public record TensorPlan(
    List<Rank> ranks,
    double tokensPerSecond,
    double pipelinedTokensPerSecond,
    double firstTokenSeconds) {

  /**
   * A machine's share.
   *
   * @param heads of keys and values, with the query heads that read them
   * @param inner elements of the feed-forward part
   * @param weightBytes that it takes there; a draft model included
   * @param stepSeconds of one stream's step, without waiting for others
   */
  public record Rank(
      String machine, int heads, int inner, long weightBytes, long kvBytes, double stepSeconds) {

    /** Weights and KV cache. */
    public long bytes() {
      return weightBytes + kvBytes;
    }
  }
}

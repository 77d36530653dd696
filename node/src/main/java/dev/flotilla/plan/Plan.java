package dev.flotilla.plan;

import dev.flotilla.model.LayerRange;
import java.util.List;

/**
 * Where the layers of one replica go, and how fast that is predicted to be.
 *
 * @param stages in the order in which a token passes them; together they hold every layer once
 * @param tokensPerSecond of one stream alone: the sum of all stages and hops
 * @param pipelinedTokensPerSecond of {@link Planner#STREAMS} streams together: bounded by the
 *     slowest stage
 * @param slowestSeconds of the step of one group of these streams, in the slowest stage
 * @param firstTokenSeconds until the first token of a prompt of {@link Planner#PROMPT} tokens that
 *     comes alone
 */
public record Plan(
    List<PlannedStage> stages,
    double tokensPerSecond,
    double pipelinedTokensPerSecond,
    double slowestSeconds,
    double firstTokenSeconds) {

  /**
   * A run of layers on a machine.
   *
   * @param weightBytes that it takes there; a draft model included
   * @param kvBytes of its KV cache
   * @param stepSeconds of one stream's step in it
   */
  public record PlannedStage(
      String machine, LayerRange layers, long weightBytes, long kvBytes, double stepSeconds) {

    /** Weights and KV cache. */
    public long bytes() {
      return weightBytes + kvBytes;
    }
  }
}

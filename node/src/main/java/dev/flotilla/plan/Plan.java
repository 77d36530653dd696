package dev.flotilla.plan;

import dev.flotilla.model.LayerRange;
import java.util.List;

/**
 * Where the layers of one replica go, and how fast that is predicted to be.
 *
 * @param stages in the order in which a token passes them; together they hold every layer once
 * @param tokensPerSecond of one stream alone: the sum of all stages and hops
 * @param pipelinedTokensPerSecond of at least as many streams as stages: bounded by the slowest
 */
public record Plan(
    List<PlannedStage> stages, double tokensPerSecond, double pipelinedTokensPerSecond) {

  /**
   * A run of layers on a machine.
   *
   * @param bytes weights and KV cache that it takes there
   */
  public record PlannedStage(String machine, LayerRange layers, long bytes) {}
}

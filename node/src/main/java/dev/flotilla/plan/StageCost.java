package dev.flotilla.plan;

/**
 * What a model's layers take on one machine, in seconds, for each of the figures that a plan is
 * judged by.
 *
 * @param oneLayer a step of one stream in a layer
 * @param oneHead its output matrix
 * @param oneHop its hidden state's way out and its token's way back, as this machine's link has it
 * @param manyLayer a step of one of the groups that several streams are shared out in
 * @param manyHead its output matrix
 * @param manyHop its hidden states' way out and its tokens' way back
 * @param promptLayer a step of a prompt
 * @param promptHop its hidden states' way
 */
record StageCost(
    double oneLayer,
    double oneHead,
    double oneHop,
    double manyLayer,
    double manyHead,
    double manyHop,
    double promptLayer,
    double promptHop) {

  /** Layers on the machine, and its link's part of the hops beside it. */
  double one(int layers, boolean first, boolean last) {
    return layers * oneLayer + (last ? oneHead : 0) + hops(first, last) * oneHop;
  }

  double many(int layers, boolean last) {
    return layers * manyLayer + (last ? manyHead : 0);
  }

  /** Whether no figure that decides between cuts is worse here. */
  boolean noWorse(StageCost other) {
    return oneLayer <= other.oneLayer
        && oneHead <= other.oneHead
        && oneHop <= other.oneHop
        && manyLayer <= other.manyLayer
        && manyHead <= other.manyHead;
  }

  /** A hop has two ends, and each of the two machines stands for one half of it. */
  static double hops(boolean first, boolean last) {
    return (first ? 0 : 0.5) + (last ? 0 : 0.5);
  }

  /**
   * @param groups that several streams are shared out in: one only where there is one stage
   */
  static StageCost of(Footprint model, Machine machine, int groups) {
    int rows = Math.ceilDiv(Planner.STREAMS, groups);
    int chunk = Planner.promptRows(groups);
    return new StageCost(
        layer(model, machine, 1, false),
        machine.speeds().weights(1, model.headRead()),
        hop(model, machine, 1),
        layer(model, machine, rows, false),
        machine.speeds().weights(rows, model.headRead()),
        hop(model, machine, rows),
        layer(model, machine, chunk, true),
        hop(model, machine, chunk));
  }

  private static double layer(Footprint model, Machine machine, int rows, boolean prompt) {
    int seen = prompt ? Planner.PROMPT / 2 : Planner.PROMPT;
    return machine.speeds().layer(rows, model.layerRead(rows))
        + machine.speeds().attention(rows, seen, model.queryWidth(), prompt);
  }

  private static double hop(Footprint model, Machine machine, int rows) {
    return 2 * machine.linkLatencySeconds()
        + model.hiddenBytes(rows) / machine.linkBytesPerSecond();
  }
}

package dev.flotilla.plan;

import dev.flotilla.model.ModelConfig;
import dev.flotilla.plan.TensorPlan.Rank;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.IntToDoubleFunction;
import java.util.stream.IntStream;

/**
 * Shares out a model's heads and feed-forward elements over ranks, so that the slowest has as
 * little to do as can be: unit by unit, each to the rank that is then done first. After attention
 * and after the feed-forward part the ranks wait for each other, so the two are shared out apart.
 */
final class TensorShares {

  private final Footprint model;
  private final List<Machine> machines;
  private final ModelConfig config;
  private final int headUnit;
  private final int innerUnit;

  /**
   * @param machines by rank
   */
  TensorShares(Footprint model, List<Machine> machines) {
    this.model = model;
    this.machines = machines;
    this.config = model.config();
    this.headUnit = headUnit(model);
    this.innerUnit = innerUnit(model);
  }

  /** Key and value heads whose columns are whole blocks; what the last rank has may be fewer. */
  static int headUnit(Footprint model) {
    ModelConfig config = model.config();
    int columns = config.heads() / config.kvHeads() * config.headWidth();
    int unit = 1;
    while (unit < config.kvHeads() && unit * columns % model.blockElements() != 0) {
      unit++;
    }
    return unit;
  }

  static int innerUnit(Footprint model) {
    return Math.min(model.blockElements(), model.config().feedForward());
  }

  /** Over how many machines the model can be shared out at most. */
  static int ranksMax(Footprint model) {
    return Math.min(
        Math.ceilDiv(model.config().kvHeads(), headUnit(model)),
        Math.ceilDiv(model.config().feedForward(), innerUnit(model)));
  }

  /** The plan, if memory allows one. */
  Optional<TensorPlan> plan() {
    int[] heads = shared(config.kvHeads(), headUnit);
    int[] inner = shared(config.feedForward(), innerUnit);
    for (int rank = 0; rank < machines.size(); rank++) {
      if (heads[rank] == 0
          || inner[rank] == 0
          || model.rankBytes(rank == 0, heads[rank], inner[rank])
              > machines.get(rank).memoryBytes()) {
        return Optional.empty();
      }
    }
    return Optional.of(predict(heads, inner));
  }

  private int[] shared(int total, int unit) {
    int ranks = machines.size();
    int[] counts = new int[ranks];
    Arrays.fill(counts, unit);
    // What is no whole unit lies at the end.
    counts[ranks - 1] = total % unit == 0 ? unit : total % unit;
    for (int left = total - Arrays.stream(counts).sum(); left > 0; left -= unit) {
      int best = -1;
      for (int rank = 0; rank < ranks; rank++) {
        boolean fits = counts[rank] + unit <= total * largestShare(rank);
        if (fits
            && (best < 0
                || (counts[rank] + unit) * perLayer(rank, 1)
                    < (counts[best] + unit) * perLayer(best, 1))) {
          best = rank;
        }
      }
      if (best < 0) {
        return new int[ranks]; // no room
      }
      counts[best] += unit;
    }
    return counts;
  }

  /** Of every layer, by memory. */
  private double largestShare(int rank) {
    double room = machines.get(rank).memoryBytes() - fixedBytes(rank);
    return room / (config.layers() * (double) (model.layerBytes() + model.kvBytesPerLayer()));
  }

  private long fixedBytes(int rank) {
    return rank == 0 ? model.endBytes(true, true) : 0;
  }

  /** Of a step through a whole layer's weights, without what a layer takes whatever its size. */
  private double perLayer(int rank, int rows) {
    return machines.get(rank).speeds().weights(rows, model.layerRead(rows));
  }

  private TensorPlan predict(int[] heads, int[] inner) {
    double one = seconds(heads, inner, 1, false, 1);
    double many = seconds(heads, inner, Planner.STREAMS, false, Planner.STREAMS);
    double prompt = seconds(heads, inner, Planner.promptRows(1), true, 1);
    List<Rank> ranks = new ArrayList<>();
    for (int rank = 0; rank < machines.size(); rank++) {
      double step =
          config.layers()
              * (layer(rank, heads[rank], 0, 1, false) + layer(rank, 0, inner[rank], 1, false));
      ranks.add(
          new Rank(
              machines.get(rank).id(),
              heads[rank],
              inner[rank],
              model.rankWeightBytes(rank == 0, heads[rank], inner[rank]),
              model.rankKvBytes(heads[rank]),
              step));
    }
    return new TensorPlan(List.copyOf(ranks), 1 / one, Planner.STREAMS / many, prompt);
  }

  /** Half of what a layer takes whatever its size, and a share's weights and attention. */
  private double layer(int rank, int heads, int inner, int rows, boolean prompt) {
    double share = model.layerShare(heads, inner);
    int seen = prompt ? rows / 2 : Planner.PROMPT;
    Machine machine = machines.get(rank);
    return machine.speeds().layer(rows, Map.of()) / 2
        + share * perLayer(rank, rows)
        + machine
            .speeds()
            .attention(rows, seen, model.queryWidth() * heads / config.kvHeads(), prompt);
  }

  private double seconds(int[] heads, int[] inner, int rows, boolean prompt, int drawn) {
    double attention = slowest(rank -> layer(rank, heads[rank], 0, rows, prompt));
    double forward = slowest(rank -> layer(rank, 0, inner[rank], rows, prompt));
    int ways = machines.size() == 2 ? 1 : 2;
    double way =
        slowest(
            rank ->
                machines.get(rank).linkLatencySeconds()
                    + model.hiddenBytes(rows)
                        * (machines.size() - 1)
                        / machines.get(rank).linkBytesPerSecond());
    return config.layers() * (attention + forward + 2 * ways * way)
        + way
        + machines.getFirst().speeds().weights(drawn, model.headRead());
  }

  private double slowest(IntToDoubleFunction seconds) {
    return IntStream.range(0, machines.size()).mapToDouble(seconds).max().orElseThrow();
  }
}

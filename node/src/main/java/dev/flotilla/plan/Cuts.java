package dev.flotilla.plan;

import dev.flotilla.model.LayerRange;
import dev.flotilla.plan.Plan.PlannedStage;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import java.util.Optional;
import java.util.TreeSet;

/**
 * All ways to cut a model into a given number of stages for some machines, and the best of them by
 * one measure under a bound on another. Exact: dynamic programming over the machines, in a fixed
 * order, with the layers covered so far, the stages so far, and whether the first and the last
 * stage are given out. Which machines hold what between the two ends makes no difference to any
 * figure.
 */
final class Cuts {

  private static final int FIRST = 1;
  private static final int LAST = 2;
  private static final int BOTH = FIRST | LAST;

  /** Of equally fast cuts, the one with fewer stages. */
  private static final double STAGE_SECONDS = 1e-12;

  /** Layers on a machine. */
  record Share(int machine, int layers) {}

  /**
   * A cut.
   *
   * @param seconds of one stream's step
   */
  record Cut(List<Share> shares, double seconds) {}

  /**
   * A machine and what a cut can know of it.
   *
   * @param middle layers that there is room for; {@code first}, {@code last} and {@code whole} with
   *     what the ends take
   */
  private record Costed(
      Machine machine, StageCost cost, int middle, int first, int last, int whole) {

    boolean noWorse(Costed other) {
      return middle >= other.middle
          && first >= other.first
          && last >= other.last
          && whole >= other.whole
          && cost.noWorse(other.cost);
    }
  }

  private final Footprint model;
  private final List<Machine> machines;
  private final List<StageCost> costs;
  private final int layers;

  /**
   * @param groups how many groups of streams are on their way at once
   * @param stagesMax no cut into more stages will be asked for
   */
  Cuts(Footprint model, List<Machine> machines, int groups, int stagesMax) {
    this.model = model;
    this.layers = model.config().layers();
    List<Costed> costed =
        machines.stream()
            .map(
                m ->
                    new Costed(
                        m,
                        StageCost.of(model, m, groups),
                        room(m, false, false),
                        room(m, true, false),
                        room(m, false, true),
                        room(m, true, true)))
            .sorted(
                Comparator.comparingDouble((Costed c) -> c.cost().oneLayer())
                    .thenComparing(c -> c.machine().id()))
            .toList();
    costed = best(costed, stagesMax);
    this.machines = costed.stream().map(Costed::machine).toList();
    this.costs = costed.stream().map(Costed::cost).toList();
  }

  /**
   * Leaves out each machine beside which there are as many that are no worse in anything as there
   * are stages: whatever cut has it, one of them is free and takes its place. So of thousands of
   * machines a few are looked at closely, and nothing is lost.
   */
  private List<Costed> best(List<Costed> sorted, int stagesMax) {
    if (sorted.size() <= stagesMax) {
      return sorted;
    }
    List<Costed> kept = new ArrayList<>();
    for (Costed one : sorted) {
      int better = 0;
      for (int i = 0; i < kept.size() && better < stagesMax; i++) {
        better += kept.get(i).noWorse(one) ? 1 : 0;
      }
      if (better < stagesMax) {
        kept.add(one);
      }
    }
    return kept;
  }

  /** The machine that is fastest alone, of those that hold everything. */
  Optional<Cut> alone() {
    Optional<Cut> best = Optional.empty();
    for (int i = 0; i < machines.size(); i++) {
      double seconds = costs.get(i).one(layers, true, true);
      if (capacity(i, true, true, Double.POSITIVE_INFINITY) >= layers
          && (best.isEmpty() || seconds < best.get().seconds())) {
        best = Optional.of(new Cut(List.of(new Share(i, layers)), seconds));
      }
    }
    return best;
  }

  /** The cut into two or more stages in which one stream is fastest. */
  Optional<Cut> fastest() {
    return least(0, Double.POSITIVE_INFINITY);
  }

  /** Whether there is a cut into so many stages. */
  boolean possible(int stages) {
    return (stages == 1 ? alone() : least(stages, Double.POSITIVE_INFINITY)).isPresent();
  }

  /**
   * Of the cuts into so many stages, two or more, in which one stream's step takes no longer than
   * given, the one whose slowest stage is fastest for several streams; of those, the one that is
   * fastest for one.
   */
  Optional<Cut> balanced(int stages, double secondsMax) {
    double[] bounds = stageTimes();
    int low = 0;
    int high = bounds.length - 1;
    if (high < 0 || within(stages, bounds[high], secondsMax).isEmpty()) {
      return Optional.empty();
    }
    while (low < high) {
      int middle = (low + high) >>> 1;
      if (within(stages, bounds[middle], secondsMax).isPresent()) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return within(stages, bounds[low], secondsMax);
  }

  private Optional<Cut> within(int stages, double bound, double secondsMax) {
    return least(stages, bound).filter(cut -> cut.seconds() <= secondsMax);
  }

  /** Every time that any stage could take. */
  private double[] stageTimes() {
    TreeSet<Double> times = new TreeSet<>();
    for (StageCost cost : costs) {
      for (int count = 1; count <= layers; count++) {
        times.add(cost.many(count, false));
        times.add(cost.many(count, true));
      }
    }
    return times.stream().mapToDouble(Double::doubleValue).toArray();
  }

  /** How many layers a machine can hold in memory. */
  private int room(Machine machine, boolean first, boolean last) {
    long room = machine.memoryBytes() - model.endBytes(first, last);
    long perLayer = Math.max(1, model.layerBytes() + model.kvBytesPerLayer());
    return (int) Math.clamp(Math.floorDiv(room, perLayer), 0L, (long) layers);
  }

  /** How many layers a machine can hold in memory and run within the time. */
  private int capacity(int machine, boolean first, boolean last, double bound) {
    int count = room(machines.get(machine), first, last);
    while (count > 0 && costs.get(machine).many(count, last) > bound) {
      count--;
    }
    return count;
  }

  /**
   * The cut in which one stream is fastest, of those where no stage takes longer than the bound.
   *
   * @param stages how many, two or more; 0 for any number from two on
   */
  private Optional<Cut> least(int stages, double bound) {
    int counted = stages == 0 ? 0 : 1;
    int states = (stages + 1) * (layers + 1) * 4;
    double[] seconds = new double[states];
    Arrays.fill(seconds, Double.POSITIVE_INFINITY);
    seconds[0] = 0;
    int[][] choices = new int[machines.size()][];
    for (int i = 0; i < machines.size(); i++) {
      double[] next = seconds.clone();
      int[] choice = new int[states];
      for (int role : new int[] {0, FIRST, LAST}) {
        int most = capacity(i, role == FIRST, role == LAST, bound);
        for (int count = 1; count <= most; count++) {
          double more = costs.get(i).one(count, role == FIRST, role == LAST) + STAGE_SECONDS;
          for (int from = 0; from < states; from++) {
            int flags = from & BOTH;
            int covered = (from >> 2) % (layers + 1) + count;
            int stage = (from >> 2) / (layers + 1) + counted;
            if (seconds[from] == Double.POSITIVE_INFINITY
                || (flags & role) != 0
                || covered > layers
                || stage > stages) {
              continue;
            }
            int to = state(stage, covered, flags | role);
            if (seconds[from] + more < next[to]) {
              next[to] = seconds[from] + more;
              choice[to] = count * 4 + role;
            }
          }
        }
      }
      choices[i] = choice;
      seconds = next;
    }
    int end = state(stages, layers, BOTH);
    return seconds[end] == Double.POSITIVE_INFINITY
        ? Optional.empty()
        : Optional.of(new Cut(traced(choices, stages, counted), seconds[end]));
  }

  private int state(int stage, int covered, int flags) {
    return ((stage * (layers + 1) + covered) << 2) | flags;
  }

  private List<Share> traced(int[][] choices, int stages, int counted) {
    List<Share> middle = new ArrayList<>();
    Optional<Share> first = Optional.empty();
    Optional<Share> last = Optional.empty();
    int stage = stages;
    int covered = layers;
    int flags = BOTH;
    for (int i = choices.length - 1; i >= 0; i--) {
      int choice = choices[i][state(stage, covered, flags)];
      if (choice == 0) {
        continue;
      }
      Share share = new Share(i, choice / 4);
      switch (choice & BOTH) {
        case FIRST -> first = Optional.of(share);
        case LAST -> last = Optional.of(share);
        default -> middle.addFirst(share);
      }
      covered -= share.layers();
      stage -= counted;
      flags &= ~(choice & BOTH);
    }
    List<Share> shares = new ArrayList<>(List.of(first.orElseThrow()));
    shares.addAll(middle);
    shares.add(last.orElseThrow());
    return shares;
  }

  /** What a cut is predicted to do. */
  Plan predict(Cut cut) {
    List<PlannedStage> stages = new ArrayList<>();
    double one = 0;
    double round = 0;
    double slowest = 0;
    double prompt = 0;
    double slowestPrompt = 0;
    int next = 0;
    int last = cut.shares().size() - 1;
    for (int i = 0; i <= last; i++) {
      Share share = cut.shares().get(i);
      StageCost cost = costs.get(share.machine());
      int count = share.layers();
      double hops = StageCost.hops(i == 0, i == last);
      one += cost.one(count, i == 0, i == last);
      round += cost.many(count, i == last) + hops * cost.manyHop();
      slowest = Math.max(slowest, cost.many(count, i == last));
      double promptStep = count * cost.promptLayer();
      prompt += promptStep + hops * cost.promptHop() + (i == last ? cost.oneHead() : 0);
      double behind = last == 0 ? 0 : cost.promptHop();
      slowestPrompt = Math.max(slowestPrompt, Math.max(promptStep, behind));
      long kv = count * model.kvBytesPerLayer();
      stages.add(
          new PlannedStage(
              machines.get(share.machine()).id(),
              new LayerRange(next, next + count - 1),
              model.stageBytes(count, i == 0, i == last) - kv,
              kv,
              count * cost.oneLayer() + (i == last ? cost.oneHead() : 0)));
      next += count;
    }
    // Its steps follow one another: the others behind the first, as fast as the slowest stage or
    // link is.
    int promptSteps = Planner.PROMPT / Planner.promptRows(stages.size());
    prompt += (promptSteps - 1) * slowestPrompt;
    // Of several groups each goes round the stages; a stage works on one at a time.
    int groups = Planner.groups(stages.size());
    double cycle = Math.max(groups * slowest, round);
    return new Plan(List.copyOf(stages), 1 / one, Planner.STREAMS / cycle, slowest, prompt);
  }
}

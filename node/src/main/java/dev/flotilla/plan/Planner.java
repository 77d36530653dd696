package dev.flotilla.plan;

import dev.flotilla.FlotillaException;
import dev.flotilla.model.LayerSpeeds;
import dev.flotilla.model.Rows;
import dev.flotilla.plan.Cuts.Cut;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/**
 * Cuts a model into runs of layers for machines of different speed and memory.
 *
 * <p>Decoding reads every weight once per step, so a stage takes what its machine measured for so
 * many bytes of their type, at so many rows. One stream waits for all stages and hops in turn;
 * several streams overlap, and the slowest stage bounds them.
 *
 * <p>Splitting never makes a single stream faster than the same machine alone, it makes models fit
 * and lets several streams overlap. Hence without a wanted number of stages, the number with the
 * fastest single stream is taken, which drops machines that would slow it down, and of its cuts the
 * one whose slowest stage is fastest, if a single stream loses no more than a twentieth by it. With
 * a wanted number of stages, the cut whose slowest stage is fastest; if a single stream is slower
 * in it than on one machine, it needs {@code force}.
 *
 * <p>Deterministic: the order of the machines given does not matter. Exact: no cut is better.
 */
public final class Planner {

  /** Tokens of the prompt that first tokens are predicted for; decoding goes on behind it. */
  public static final int PROMPT = LayerSpeeds.PROMPT;

  /** Streams together that a pipeline's tokens per second are predicted for. */
  public static final int STREAMS = 8;

  /** What a single stream may lose to balance. */
  private static final double BALANCE = 1.05;

  private static final double TOLERANCE = 1e-9;

  private Planner() {}

  /** A prompt that comes alone is computed in steps of so many rows, which follow one another. */
  static int promptRows(int stages) {
    return stages == 1 ? PROMPT : Rows.CHUNK;
  }

  /** Groups that streams are shared out in: one for each stage, and none is empty. */
  static int groups(int stages) {
    return Math.min(stages, STREAMS);
  }

  /**
   * Plans one replica.
   *
   * @param machines candidates, each id once
   * @param stages over how many of them; 0 takes what is fastest for one stream
   * @param force accept a wanted split that is slower than one machine
   * @throws FlotillaException {@code UNAVAILABLE} if memory or machines do not suffice, {@code
   *     INVALID} for a split that cannot be or is slower than one machine
   */
  public static Plan plan(Footprint model, List<Machine> machines, int stages, boolean force) {
    int layers = model.config().layers();
    if (stages < 0 || stages > layers) {
      throw new FlotillaException(
          FlotillaException.Code.INVALID,
          "the model has " + layers + " layers and cannot be split into " + stages + " stages",
          "Ask for 1 to " + layers + " stages, or 0 to leave it to the planner.");
    }
    if (stages > machines.size()) {
      throw new FlotillaException(
          FlotillaException.Code.UNAVAILABLE,
          stages + " stages are wanted and " + machines.size() + " machines are there",
          "Add machines, or ask for fewer stages.");
    }
    Optional<Plan> alone = alone(model, machines);
    if (stages == 1 || (stages == 0 && machines.size() < 2)) {
      return alone.orElseThrow(() -> tooLittleMemory(model, machines, stages));
    }
    if (stages == 0) {
      Optional<Plan> split = fastest(model, machines);
      return split
          .filter(some -> alone.isEmpty() || slower(alone.get(), some))
          .or(() -> alone)
          .orElseThrow(() -> tooLittleMemory(model, machines, 0));
    }
    Plan split =
        balanced(model, machines, stages)
            .orElseThrow(() -> tooLittleMemory(model, machines, stages));
    if (!force && alone.isPresent() && slower(split, alone.get())) {
      throw refused(split, alone.get());
    }
    return split;
  }

  /**
   * Shares out every layer of a replica over several machines: the fastest of those that memory
   * allows.
   *
   * @param ranks over how many, 2 or more
   * @param force accept what is slower than one machine
   * @throws FlotillaException {@code UNAVAILABLE} if memory or machines do not suffice, {@code
   *     INVALID} if the heads do not allow it, or it is slower than one machine
   */
  public static TensorPlan tensor(
      Footprint model, List<Machine> machines, int ranks, boolean force) {
    int most = TensorShares.ranksMax(model);
    if (ranks < 2 || ranks > most) {
      throw new FlotillaException(
          FlotillaException.Code.INVALID,
          String.format(
              Locale.ROOT,
              "the model has %d heads of keys and values, and cannot be shared out over %d machines",
              model.config().kvHeads(),
              ranks),
          most < 2
              ? "Leave --tensor out, or split its layers with --stages."
              : "Ask for 2 to " + most + ", or split its layers with --stages.");
    }
    List<Machine> sorted =
        machines.stream()
            .sorted(
                Comparator.comparingDouble((Machine m) -> StageCost.of(model, m, 1).oneLayer())
                    .thenComparing(Machine::id))
            .toList();
    if (sorted.size() < ranks) {
      throw new FlotillaException(
          FlotillaException.Code.UNAVAILABLE,
          ranks + " machines are wanted and " + sorted.size() + " are there",
          "Add machines, or ask for fewer.");
    }
    Optional<TensorPlan> best = Optional.empty();
    for (int first = 0; first + ranks <= sorted.size(); first++) {
      for (int lead = 0; lead < ranks; lead++) {
        List<Machine> chosen = new ArrayList<>(sorted.subList(first, first + ranks));
        chosen.addFirst(chosen.remove(lead));
        Optional<TensorPlan> plan = new TensorShares(model, chosen).plan();
        if (plan.isPresent()
            && (best.isEmpty() || plan.get().tokensPerSecond() > best.get().tokensPerSecond())) {
          best = plan;
        }
      }
    }
    TensorPlan plan = best.orElseThrow(() -> tooLittleMemory(model, machines, ranks));
    Optional<Plan> alone = alone(model, machines);
    if (!force
        && alone.isPresent()
        && plan.tokensPerSecond() < alone.get().tokensPerSecond() * (1 - TOLERANCE)) {
      throw new FlotillaException(
          FlotillaException.Code.INVALID,
          String.format(
              Locale.ROOT,
              "%d machines that share out every layer are predicted to give one stream %.1f"
                  + " tokens/s, and %s alone %.1f (%d streams together: %.1f and %.1f)",
              ranks,
              plan.tokensPerSecond(),
              alone.get().stages().getFirst().machine(),
              alone.get().tokensPerSecond(),
              STREAMS,
              plan.pipelinedTokensPerSecond(),
              alone.get().pipelinedTokensPerSecond()),
          "Leave --tensor out, or force it (--force).");
    }
    return plan;
  }

  private static boolean slower(Plan plan, Plan other) {
    return plan.tokensPerSecond() < other.tokensPerSecond() * (1 - TOLERANCE);
  }

  private static Optional<Plan> alone(Footprint model, List<Machine> machines) {
    Cuts cuts = new Cuts(model, machines, 1, 1);
    return cuts.alone().map(cuts::predict);
  }

  private static Optional<Plan> balanced(Footprint model, List<Machine> machines, int stages) {
    Cuts cuts = new Cuts(model, machines, groups(stages), stages);
    return cuts.balanced(stages, Double.POSITIVE_INFINITY).map(cuts::predict);
  }

  private static Optional<Plan> fastest(Footprint model, List<Machine> machines) {
    Optional<Cut> fastest = new Cuts(model, machines, 1, model.config().layers()).fastest();
    if (fastest.isEmpty()) {
      return Optional.empty();
    }
    int stages = fastest.get().shares().size();
    Cuts cuts = new Cuts(model, machines, groups(stages), stages);
    return cuts.balanced(stages, fastest.get().seconds() * BALANCE).map(cuts::predict);
  }

  private static FlotillaException refused(Plan split, Plan alone) {
    return new FlotillaException(
        FlotillaException.Code.INVALID,
        String.format(
            Locale.ROOT,
            "%d stages are predicted to give one stream %.1f tokens/s, and %s alone %.1f (%d streams"
                + " together: %.1f and %.1f)",
            split.stages().size(),
            split.tokensPerSecond(),
            alone.stages().getFirst().machine(),
            alone.tokensPerSecond(),
            STREAMS,
            split.pipelinedTokensPerSecond(),
            alone.pipelinedTokensPerSecond()),
        "Leave the number of stages to the planner, or force the split (--force).");
  }

  /**
   * Plans several replicas, each on machines that no earlier one uses where such suffice; otherwise
   * on what memory the others leave.
   *
   * @throws FlotillaException as {@link #plan}, if not all fit
   */
  public static List<Plan> replicas(
      Footprint model, List<Machine> machines, int stages, int replicas, boolean force) {
    List<Plan> plans = new ArrayList<>();
    Map<String, Long> used = new HashMap<>();
    for (int i = 0; i < replicas; i++) {
      Plan plan = another(model, machines, used, stages, force);
      plan.stages().forEach(s -> used.merge(s.machine(), s.bytes(), Long::sum));
      plans.add(plan);
    }
    return plans;
  }

  /**
   * Plans one more replica beside those that are there; see {@link #replicas}.
   *
   * @param used bytes that other replicas take, by machine
   */
  public static Plan another(
      Footprint model, List<Machine> machines, Map<String, Long> used, int stages, boolean force) {
    List<Machine> unused = machines.stream().filter(m -> !used.containsKey(m.id())).toList();
    List<Machine> left =
        machines.stream().map(m -> m.minus(used.getOrDefault(m.id(), 0L))).toList();
    int enough = Math.max(1, stages);
    if (unused.size() >= enough && new Cuts(model, unused, 1, enough).possible(enough)) {
      return plan(model, unused, stages, force);
    }
    return plan(model, left, stages, force);
  }

  /** As {@link #another}, with every layer shared out; see {@link #tensor}. */
  public static TensorPlan anotherTensor(
      Footprint model, List<Machine> machines, Map<String, Long> used, int ranks) {
    List<Machine> unused = machines.stream().filter(m -> !used.containsKey(m.id())).toList();
    try {
      return tensor(model, unused, ranks, true);
    } catch (FlotillaException e) {
      return tensor(
          model,
          machines.stream().map(m -> m.minus(used.getOrDefault(m.id(), 0L))).toList(),
          ranks,
          true);
    }
  }

  private static FlotillaException tooLittleMemory(
      Footprint model, List<Machine> machines, int stages) {
    Set<String> ids = new HashSet<>();
    long memory = 0;
    for (Machine machine : machines) {
      if (ids.add(machine.id())) {
        memory += machine.memoryBytes();
      }
    }
    return new FlotillaException(
        FlotillaException.Code.UNAVAILABLE,
        String.format(
            Locale.ROOT,
            "the model needs %.1f MB for weights and KV cache, and its layers do not fit the %.1f"
                + " MB that are free on %d machines%s",
            model.totalBytes() / 1e6,
            memory / 1e6,
            ids.size(),
            stages == 0 ? "" : " in " + stages + " stages"),
        "Add a machine, stop another deployment, or use a smaller or more quantised model.");
  }
}

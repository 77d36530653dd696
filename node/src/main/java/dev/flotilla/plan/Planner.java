package dev.flotilla.plan;

import dev.flotilla.FlotillaException;
import dev.flotilla.model.LayerRange;
import dev.flotilla.plan.Plan.PlannedStage;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;

/**
 * Cuts a model into runs of layers for machines of different speed and memory.
 *
 * <p>Decoding streams every weight once per step, so a stage takes {@code bytes / bandwidth}. One
 * stream waits for all stages and hops in turn; several streams overlap, and the slowest stage
 * bounds them. For a given number of stages the planner makes the slowest stage as fast as memory
 * allows: for a time T, each machine can hold a known number of layers, so the machines with most
 * capacity are taken, and the least T that suffices is found by bisection over the finitely many
 * times that any stage could take. Layers to spare are taken off the slowest machines.
 *
 * <p>Splitting never makes a single stream faster than the same machine alone, it makes models fit.
 * Hence without a wanted number of stages, the plan with the fastest single stream wins, which
 * drops machines that would slow it down; and a wanted split that is slower than one machine needs
 * {@code force}. Throughput is better had by replicas.
 *
 * <p>Deterministic: the order of the machines given does not matter.
 */
public final class Planner {

  private static final double TOLERANCE = 1e-9;

  private Planner() {}

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
    List<Machine> sorted =
        machines.stream()
            .sorted(
                Comparator.comparingDouble((Machine m) -> -m.weightBytesPerSecond())
                    .thenComparing(Machine::id))
            .toList();
    if (stages > sorted.size()) {
      throw new FlotillaException(
          FlotillaException.Code.UNAVAILABLE,
          stages + " stages are wanted and " + sorted.size() + " machines are there",
          "Add machines, or ask for fewer stages.");
    }
    if (stages == 0) {
      return fastest(model, sorted).orElseThrow(() -> tooLittleMemory(model, sorted, 0));
    }
    Plan split =
        balanced(model, sorted, stages).orElseThrow(() -> tooLittleMemory(model, sorted, stages));
    Optional<Plan> alone = balanced(model, sorted, 1);
    if (!force
        && alone.isPresent()
        && split.tokensPerSecond() < alone.get().tokensPerSecond() * (1 - TOLERANCE)) {
      throw new FlotillaException(
          FlotillaException.Code.INVALID,
          String.format(
              Locale.ROOT,
              "%d stages are predicted to give one stream %.1f tokens/s, and %s alone %.1f",
              stages,
              split.tokensPerSecond(),
              alone.get().stages().get(0).machine(),
              alone.get().tokensPerSecond()),
          "Leave the number of stages to the planner, or force the split.");
    }
    return split;
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
    if (unused.size() >= enough && balanced(model, unused, stages == 0 ? 1 : stages).isPresent()) {
      return plan(model, unused, stages, force);
    }
    return plan(model, left, stages, force);
  }

  private static Optional<Plan> fastest(Footprint model, List<Machine> machines) {
    Optional<Plan> best = Optional.empty();
    for (int k = 1; k <= Math.min(machines.size(), model.config().layers()); k++) {
      Optional<Plan> candidate = balanced(model, machines, k);
      if (candidate.isPresent()
          && (best.isEmpty()
              || candidate.get().tokensPerSecond()
                  > best.get().tokensPerSecond() * (1 + TOLERANCE))) {
        best = candidate;
      }
    }
    return best;
  }

  /** The plan of {@code k} stages whose slowest stage is fastest, if memory allows any. */
  private static Optional<Plan> balanced(Footprint model, List<Machine> machines, int k) {
    if (k > machines.size()) {
      return Optional.empty();
    }
    double[] times = possibleStageTimes(model, machines);
    int low = 0;
    int high = times.length - 1;
    if (high < 0 || cut(model, machines, k, times[high]).isEmpty()) {
      return Optional.empty();
    }
    while (low < high) {
      int middle = (low + high) >>> 1;
      if (cut(model, machines, k, times[middle]).isPresent()) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return cut(model, machines, k, times[low]).map(cut -> predict(model, cut));
  }

  private static double[] possibleStageTimes(Footprint model, List<Machine> machines) {
    TreeSet<Double> times = new TreeSet<>();
    for (double speed :
        new TreeSet<>(machines.stream().map(Machine::weightBytesPerSecond).toList())) {
      for (int count = 1; count <= model.config().layers(); count++) {
        times.add(seconds(model, count, false, speed));
        times.add(seconds(model, count, true, speed));
      }
    }
    return times.stream().mapToDouble(Double::doubleValue).toArray();
  }

  private static double seconds(Footprint model, int layers, boolean last, double speed) {
    return (layers * model.layerBytes() + (last ? model.headBytes() : 0)) / speed;
  }

  /** How many layers a machine can hold in memory and run within the time. */
  private static int capacity(
      Footprint model, Machine machine, boolean first, boolean last, double seconds) {
    long room = machine.memoryBytes() - model.endBytes(first, last);
    long perLayer = Math.max(1, model.layerBytes() + model.kvBytesPerLayer());
    int count = (int) Math.max(0, Math.min(model.config().layers(), room / perLayer));
    while (count > 0 && seconds(model, count, last, machine.weightBytesPerSecond()) > seconds) {
      count--;
    }
    return count;
  }

  private record Share(Machine machine, int layers) {}

  /** A cut into {@code k} stages of which none takes longer, if there is one. */
  private static Optional<List<Share>> cut(
      Footprint model, List<Machine> machines, int k, double seconds) {
    int layers = model.config().layers();
    if (k == 1) {
      return machines.stream()
          .filter(m -> capacity(model, m, true, true, seconds) >= layers)
          .findFirst()
          .map(m -> List.of(new Share(m, layers)));
    }
    int n = machines.size();
    int[] middle = new int[n];
    Integer[] byCapacity = new Integer[n];
    for (int i = 0; i < n; i++) {
      middle[i] = capacity(model, machines.get(i), false, false, seconds);
      byCapacity[i] = i;
    }
    Arrays.sort(byCapacity, Comparator.comparingInt((Integer i) -> -middle[i]));
    int bestTotal = layers - 1;
    List<Share> best = List.of();
    for (int first = 0; first < n; first++) {
      int firstCapacity = capacity(model, machines.get(first), true, false, seconds);
      for (int last = 0; last < n && firstCapacity > 0; last++) {
        int lastCapacity =
            last == first ? 0 : capacity(model, machines.get(last), false, true, seconds);
        if (lastCapacity == 0) {
          continue;
        }
        List<Share> shares = new ArrayList<>();
        shares.add(new Share(machines.get(first), firstCapacity));
        int total = firstCapacity + lastCapacity;
        for (int i : byCapacity) {
          if (i != first && i != last && shares.size() < k - 1 && middle[i] > 0) {
            shares.add(new Share(machines.get(i), middle[i]));
            total += middle[i];
          }
        }
        shares.add(new Share(machines.get(last), lastCapacity));
        if (shares.size() == k && total > bestTotal) {
          bestTotal = total;
          best = shares;
        }
      }
    }
    return best.isEmpty() ? Optional.empty() : Optional.of(trimmed(best, bestTotal - layers));
  }

  /** Takes layers to spare off the slowest machines, and leaves each at least one. */
  private static List<Share> trimmed(List<Share> shares, int spare) {
    List<Share> result = new ArrayList<>(shares);
    List<Integer> slowestFirst = new ArrayList<>();
    for (int i = 0; i < shares.size(); i++) {
      slowestFirst.add(i);
    }
    // Of equally fast ones the last gives first: it also has the output matrix to stream.
    Collections.reverse(slowestFirst);
    slowestFirst.sort(
        Comparator.comparingDouble(i -> shares.get(i).machine().weightBytesPerSecond()));
    while (spare > 0) {
      int before = spare;
      // One layer from each in turn among the equally slow ones keeps them even.
      double slowest =
          slowestFirst.stream()
              .filter(i -> result.get(i).layers() > 1)
              .mapToDouble(i -> result.get(i).machine().weightBytesPerSecond())
              .min()
              .orElseThrow();
      int most =
          result.stream()
              .filter(s -> s.machine().weightBytesPerSecond() == slowest)
              .mapToInt(Share::layers)
              .max()
              .orElseThrow();
      for (int i : slowestFirst) {
        Share share = result.get(i);
        if (spare == before
            && share.layers() == most
            && share.machine().weightBytesPerSecond() == slowest) {
          result.set(i, new Share(share.machine(), share.layers() - 1));
          spare--;
        }
      }
    }
    return result;
  }

  private static Plan predict(Footprint model, List<Share> shares) {
    List<PlannedStage> stages = new ArrayList<>();
    double sum = 0;
    double slowest = 0;
    int next = 0;
    for (int i = 0; i < shares.size(); i++) {
      Machine machine = shares.get(i).machine();
      int count = shares.get(i).layers();
      boolean first = i == 0;
      boolean last = i == shares.size() - 1;
      double stage = seconds(model, count, last, machine.weightBytesPerSecond());
      // The hidden state goes on, and the token comes back through the same stages.
      double hop =
          last
              ? 0
              : 2 * machine.linkLatencySeconds()
                  + model.hiddenBytes() / machine.linkBytesPerSecond();
      sum += stage + hop;
      slowest = Math.max(slowest, stage);
      long bytes = model.stageBytes(count, first, last);
      stages.add(new PlannedStage(machine.id(), new LayerRange(next, next + count - 1), bytes));
      next += count;
    }
    return new Plan(List.copyOf(stages), 1 / sum, 1 / slowest);
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

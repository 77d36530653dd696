package dev.flotilla.plan;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;
import static org.assertj.core.data.Percentage.withPercentage;

import dev.flotilla.FlotillaException;
import dev.flotilla.model.Architecture;
import dev.flotilla.model.LayerSpeeds;
import dev.flotilla.model.ModelConfig;
import dev.flotilla.model.Stretch;
import dev.flotilla.model.Variant;
import dev.flotilla.plan.Plan.PlannedStage;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.Set;
import org.junit.jupiter.api.Test;

final class PlannerTest {

  private static final long MB = 1_000_000;

  private static Footprint model(int layers, long layerBytes, long endBytes) {
    ModelConfig config =
        new ModelConfig(1000, 256, layers, 4, 2, 64, 512, 512, 10_000f, 1e-5f, false);
    return new Footprint(config, layerBytes, endBytes, endBytes, layerBytes / 10);
  }

  private static List<Integer> counts(Plan plan) {
    return plan.stages().stream().map(s -> s.layers().count()).toList();
  }

  @Test
  void oneMachineThatHoldsItAllIsChosenOverASplit() {
    Plan plan =
        Planner.plan(
            model(12, 10 * MB, MB),
            List.of(
                new Machine("a", 1000 * MB, 1e9),
                new Machine("b", 1000 * MB, 2e9),
                new Machine("c", 1000 * MB, 1e9)),
            0,
            false);
    assertThat(plan.stages()).extracting(PlannedStage::machine).containsExactly("b");
  }

  @Test
  void aModelTooBigForOneMachineIsSplitAndASlowMachineIsDropped() {
    Plan plan =
        Planner.plan(
            model(12, 10 * MB, MB),
            List.of(
                new Machine("a", 90 * MB, 1e9),
                new Machine("b", 90 * MB, 1e9),
                new Machine("slow", 90 * MB, 1e7)),
            0,
            false);
    assertThat(plan.stages()).extracting(PlannedStage::machine).containsExactlyInAnyOrder("a", "b");
    assertThat(counts(plan)).containsExactly(6, 6);
  }

  @Test
  void aWantedSplitThatIsSlowerThanOneMachineNeedsForce() {
    List<Machine> machines =
        List.of(
            new Machine("a", 1000 * MB, 1e9),
            new Machine("b", 1000 * MB, 1e9),
            new Machine("c", 1000 * MB, 1e9));
    Footprint model = model(6, 10 * MB, MB);
    assertThatThrownBy(() -> Planner.plan(model, machines, 3, false))
        .isInstanceOfSatisfying(
            FlotillaException.class,
            e -> assertThat(e.code()).isEqualTo(FlotillaException.Code.INVALID))
        .hasMessageContaining("tokens/s");
    assertThat(counts(Planner.plan(model, machines, 3, true))).containsExactly(2, 2, 2);
  }

  @Test
  void layersFollowSpeed() {
    Plan plan =
        Planner.plan(
            model(30, 10 * MB, 0),
            List.of(new Machine("a", 1000 * MB, 2e9), new Machine("b", 1000 * MB, 1e9)),
            2,
            true);
    assertThat(plan.stages()).hasSize(2);
    for (PlannedStage stage : plan.stages()) {
      assertThat(stage.layers().count()).isEqualTo(stage.machine().equals("a") ? 20 : 10);
    }
  }

  @Test
  void tooLittleMemorySaysHowMuchIsNeededAndThere() {
    assertThatThrownBy(
            () ->
                Planner.plan(
                    model(12, 10 * MB, MB),
                    List.of(new Machine("a", 50 * MB, 1e9), new Machine("b", 50 * MB, 1e9)),
                    0,
                    true))
        .isInstanceOfSatisfying(
            FlotillaException.class,
            e -> assertThat(e.code()).isEqualTo(FlotillaException.Code.UNAVAILABLE))
        .hasMessageContaining("134.0 MB")
        .hasMessageContaining("100.0 MB");
  }

  @Test
  void replicasTakeDisjointMachinesWhileTheyLast() {
    List<Machine> machines = new ArrayList<>();
    for (int i = 0; i < 4; i++) {
      machines.add(new Machine("m" + i, 1000 * MB, 1e9));
    }
    List<Plan> plans = Planner.replicas(model(8, 10 * MB, MB), machines, 2, 2, true);
    Set<String> used = new HashSet<>();
    plans.forEach(p -> p.stages().forEach(s -> assertThat(used.add(s.machine())).isTrue()));
    // A third one shares machines, and its memory is counted beside theirs.
    assertThat(Planner.replicas(model(8, 10 * MB, MB), machines, 2, 3, true)).hasSize(3);
    assertThatThrownBy(() -> Planner.replicas(model(8, 100 * MB, MB), machines, 2, 9, true))
        .isInstanceOf(FlotillaException.class);
  }

  @Test
  void anyPlanHoldsEveryLayerOnceWithinMemoryWhateverTheOrderOfTheMachines() {
    long seed = System.nanoTime();
    Random random = new Random(seed);
    for (int round = 0; round < 400; round++) {
      int layers = 1 + random.nextInt(40);
      Footprint model = model(layers, (1 + random.nextInt(20)) * MB, (1 + random.nextInt(30)) * MB);
      List<Machine> machines = new ArrayList<>();
      int count = 1 + random.nextInt(7);
      for (int i = 0; i < count; i++) {
        machines.add(
            new Machine("m" + i, random.nextInt(600) * MB, 1e8 * (1 + random.nextInt(30))));
      }
      int stages = random.nextInt(Math.min(layers, count) + 1);
      String what = "seed " + seed + " round " + round;
      Plan plan;
      try {
        plan = Planner.plan(model, machines, stages, true);
      } catch (FlotillaException e) {
        assertThat(e.code()).as(what).isEqualTo(FlotillaException.Code.UNAVAILABLE);
        continue; // the test below tries all cuts
      }
      int next = 0;
      for (PlannedStage stage : plan.stages()) {
        assertThat(stage.layers().first()).as(what).isEqualTo(next);
        next = stage.layers().last() + 1;
        Machine machine =
            machines.stream().filter(m -> m.id().equals(stage.machine())).findFirst().orElseThrow();
        assertThat(stage.bytes()).as(what).isLessThanOrEqualTo(machine.memoryBytes());
      }
      assertThat(next).as(what).isEqualTo(layers);
      assertThat(plan.stages().stream().map(PlannedStage::machine).distinct().count())
          .as(what)
          .isEqualTo(plan.stages().size());
      if (stages > 0) {
        assertThat(plan.stages()).as(what).hasSize(stages);
      }
      Collections.shuffle(machines, random);
      assertThat(Planner.plan(model, machines, stages, true)).as(what).isEqualTo(plan);
    }
  }

  /** What any cut of the model does, found by trying all of them. */
  private record Tried(double oneSeconds, double slowestSeconds) {}

  private static List<Tried> all(Footprint model, List<Machine> machines, int k) {
    List<Tried> tried = new ArrayList<>();
    cut(model, machines, k, new ArrayList<>(), new ArrayList<>(), tried);
    return tried;
  }

  private static void cut(
      Footprint model,
      List<Machine> machines,
      int k,
      List<Machine> chosen,
      List<Integer> layers,
      List<Tried> tried) {
    int covered = layers.stream().mapToInt(Integer::intValue).sum();
    if (chosen.size() == k) {
      if (covered == model.config().layers()) {
        judge(model, chosen, layers).ifPresent(tried::add);
      }
      return;
    }
    for (Machine machine : machines) {
      if (!chosen.contains(machine)) {
        for (int count = 1; covered + count <= model.config().layers(); count++) {
          chosen.add(machine);
          layers.add(count);
          cut(model, machines, k, chosen, layers, tried);
          chosen.removeLast();
          layers.removeLast();
        }
      }
    }
  }

  /** The formulas of the planner's documentation, written out. */
  private static Optional<Tried> judge(
      Footprint model, List<Machine> chosen, List<Integer> layers) {
    int k = chosen.size();
    int rows = Math.ceilDiv(Planner.STREAMS, Math.min(k, Planner.STREAMS));
    double one = 0;
    double slowest = 0;
    for (int i = 0; i < k; i++) {
      Machine m = chosen.get(i);
      boolean last = i == k - 1;
      if (model.stageBytes(layers.get(i), i == 0, last) > m.memoryBytes()) {
        return Optional.empty();
      }
      one += layers.get(i) * layer(model, m, 1) + (last ? head(model, m, 1) : 0);
      slowest =
          Math.max(
              slowest, layers.get(i) * layer(model, m, rows) + (last ? head(model, m, rows) : 0));
      if (!last) {
        one += (hop(model, m) + hop(model, chosen.get(i + 1))) / 2;
      }
    }
    return Optional.of(new Tried(one, slowest));
  }

  private static double layer(Footprint model, Machine m, int rows) {
    return m.speeds().layer(rows, Map.of("", (double) model.layerBytes()))
        + m.speeds().attention(rows, Planner.PROMPT, 256, false);
  }

  private static double head(Footprint model, Machine m, int rows) {
    return m.speeds().weights(rows, Map.of("", (double) model.headBytes()));
  }

  private static double hop(Footprint model, Machine m) {
    return 2 * m.linkLatencySeconds() + 4.0 * model.config().width() / m.linkBytesPerSecond();
  }

  private static Machine machine(String id, Random random) {
    double bandwidth = 1e9 * (1 + random.nextInt(20));
    LayerSpeeds speeds =
        new LayerSpeeds(
            List.of(1e-5, 2e-5, 3e-5, 3e-4),
            Map.of(
                "",
                List.of(
                    1 / bandwidth,
                    (1 + random.nextDouble()) / bandwidth,
                    (2 + random.nextDouble()) / bandwidth,
                    (9 + random.nextInt(40)) / bandwidth)),
            1e-11,
            1e-12,
            true);
    return new Machine(
        id,
        random.nextInt(160) * MB,
        speeds,
        1e-5 * (1 + random.nextInt(100)),
        1e8 * (1 + random.nextInt(20)));
  }

  @Test
  void noCutIsBetterAndAMachineMoreMakesNoPredictionSlower() {
    long seed = System.nanoTime();
    Random random = new Random(seed);
    for (int round = 0; round < 300; round++) {
      String what = "seed " + seed + " round " + round;
      Footprint model =
          model(1 + random.nextInt(6), (1 + random.nextInt(40)) * MB, random.nextInt(50) * MB + 1);
      List<Machine> machines = new ArrayList<>();
      int count = 1 + random.nextInt(5);
      for (int i = 0; i < count; i++) {
        machines.add(machine("m" + i, random));
      }
      double best = Double.POSITIVE_INFINITY;
      for (int k = 1; k <= Math.min(count, model.config().layers()); k++) {
        List<Tried> tried = all(model, machines, k);
        Optional<Plan> plan = planned(model, machines, k);
        assertThat(plan.isPresent()).as(what).isEqualTo(!tried.isEmpty());
        if (plan.isEmpty()) {
          continue;
        }
        best = Math.min(best, tried.stream().mapToDouble(Tried::oneSeconds).min().orElseThrow());
        boolean alone = k == 1;
        double slowest = tried.stream().mapToDouble(Tried::slowestSeconds).min().orElseThrow();
        double one =
            tried.stream()
                .filter(t -> alone || t.slowestSeconds() <= slowest * (1 + 1e-9))
                .mapToDouble(Tried::oneSeconds)
                .min()
                .orElseThrow();
        assertThat(1 / plan.get().tokensPerSecond()).as(what).isCloseTo(one, withPercentage(1e-4));
        assertThat(plan.get().pipelinedTokensPerSecond())
            .as(what)
            .isLessThanOrEqualTo(
                Planner.STREAMS / (Planner.groups(k) * slowest) * (k == 1 ? 1e9 : 1 + 1e-9));
      }
      Optional<Plan> free = planned(model, machines, 0);
      assertThat(free.isPresent()).as(what).isEqualTo(best < Double.POSITIVE_INFINITY);
      if (free.isPresent()) {
        assertThat(1 / free.get().tokensPerSecond())
            .as(what)
            .isLessThanOrEqualTo(best * 1.05 + 1e-9);
      }
      List<Machine> more = new ArrayList<>(machines);
      more.add(machine("more", random));
      for (int k = 0; k <= Math.min(count, model.config().layers()); k++) {
        Optional<Plan> before = planned(model, machines, k);
        if (before.isPresent()) {
          Plan after = planned(model, more, k).orElseThrow();
          if (k < 2) {
            assertThat(after.tokensPerSecond())
                .as(what)
                .isGreaterThanOrEqualTo(
                    before.get().tokensPerSecond() / (k == 0 ? 1.05 : 1) * (1 - 1e-9));
          } else {
            assertThat(after.slowestSeconds())
                .as(what)
                .isLessThanOrEqualTo(before.get().slowestSeconds() * (1 + 1e-9));
          }
        }
      }
    }
  }

  private static Optional<Plan> planned(Footprint model, List<Machine> machines, int stages) {
    try {
      return Optional.of(Planner.plan(model, machines, stages, true));
    } catch (FlotillaException e) {
      assertThat(e.code()).isEqualTo(FlotillaException.Code.UNAVAILABLE);
      return Optional.empty();
    }
  }

  @Test
  void predictionsAreWhatTheMeasuredSpeedsAddUpTo() {
    LayerSpeeds speeds =
        new LayerSpeeds(
            List.of(0.001, 0.002, 0.003, 0.05),
            Map.of("", List.of(1e-9, 2e-9, 3e-9, 33e-9)),
            0,
            0,
            true);
    List<Machine> machines =
        List.of(
            new Machine("a", 1000 * MB, speeds, 0.001, 1e9),
            new Machine("b", 1000 * MB, speeds, 0.001, 1e9));
    Footprint model = model(4, 10 * MB, 5 * MB);
    Plan one = Planner.plan(model, machines, 1, false);
    // Four layers of 1 ms and 10 MB at 1 ns a byte, and 5 MB of output.
    assertThat(one.tokensPerSecond()).isCloseTo(1 / 0.049, withPercentage(0.01));
    // The same for eight rows: 3 ms and 3 ns.
    assertThat(one.pipelinedTokensPerSecond()).isCloseTo(8 / 0.147, withPercentage(0.01));
    Plan two = Planner.plan(model, machines, 2, true);
    double hop = 2 * 0.001 + 1024 / 1e9;
    assertThat(two.tokensPerSecond()).isCloseTo(1 / (0.049 + hop), withPercentage(0.01));
    // Two groups of four rows; the stage with the output takes 2 * (2 + 20) + 10 ms.
    assertThat(two.pipelinedTokensPerSecond()).isCloseTo(8 / (2 * 0.054), withPercentage(0.01));
    // A prompt's step: 50 ms and 33 ns.
    double layer = 0.05 + 10e6 * 33e-9;
    assertThat(one.firstTokenSeconds()).isCloseTo(4 * layer + 0.005, withPercentage(0.01));
    // On two stages four steps of 128 rows, which lie between 8 and 512, follow one another.
    double share = (128 - 8) / (512 - 8.0);
    double chunk = 0.003 + share * 0.047 + 10e6 * (3e-9 + share * 30e-9);
    double chunkHop = 2 * 0.001 + 128 * 1024 / 1e9;
    assertThat(two.firstTokenSeconds())
        .isCloseTo((4 + 3 * 2) * chunk + chunkHop + 0.005, withPercentage(0.01));
    // A link that is slower than a stage sets the pace.
    List<Machine> far =
        List.of(
            new Machine("a", 1000 * MB, speeds, 0.001, 1e5),
            new Machine("b", 1000 * MB, speeds, 0.001, 1e5));
    double slowHop = 2 * 0.001 + 128 * 1024 / 1e5;
    assertThat(Planner.plan(model, far, 2, true).firstTokenSeconds())
        .isCloseTo(4 * chunk + 4 * slowHop + 0.005, withPercentage(0.01));
  }

  @Test
  void ofExpertsAStepReadsThoseThatItsRowsAreSentTo() {
    Variant mixture = new Variant(0, 0, 0, 0, Stretch.NONE, 0, 0, 0, 8, 2);
    ModelConfig config =
        new ModelConfig(
            Architecture.QWEN3_MOE, 1000, 256, 4, 4, 2, 64, 512, 512, 1e4f, 1e-5f, false, mixture);
    Footprint model =
        new Footprint(config, 90 * MB, MB, MB, MB)
            .with(
                new Footprint.Streams(
                    Map.of("q8_0", 10 * MB), Map.of("q4_0", 80 * MB), Map.of("q8_0", MB)));
    assertThat(model.layerRead(1)).isEqualTo(Map.of("q8_0", 10e6, "q4_0", 20e6));
    assertThat(model.layerRead(8).get("q4_0"))
        .isCloseTo(80e6 * (1 - Math.pow(0.75, 8)), within(1.0));
  }

  @Test
  void sharesOfLayersAreWholeUnitsWithinMemoryAndFollowSpeed() {
    long seed = System.nanoTime();
    Random random = new Random(seed);
    for (int round = 0; round < 300; round++) {
      String what = "seed " + seed + " round " + round;
      int kvHeads = 1 + random.nextInt(8);
      int inner = 32 * (1 + random.nextInt(30));
      ModelConfig config =
          new ModelConfig(1000, 256, 4, 2 * kvHeads, kvHeads, 64, inner, 512, 1e4f, 1e-5f, false);
      Footprint model = new Footprint(config, 40 * MB, 5 * MB, 5 * MB, 4 * MB);
      List<Machine> machines = new ArrayList<>();
      for (int i = 0; i < 5; i++) {
        machines.add(machine("m" + i, random));
      }
      int ranks = 2 + random.nextInt(4);
      TensorPlan plan;
      try {
        plan = Planner.tensor(model, machines, ranks, true);
      } catch (FlotillaException e) {
        boolean tooMany = ranks > Math.min(kvHeads, inner / 32);
        assertThat(e.code())
            .as(what)
            .isEqualTo(
                tooMany ? FlotillaException.Code.INVALID : FlotillaException.Code.UNAVAILABLE);
        continue;
      }
      assertThat(plan.ranks()).as(what).hasSize(ranks);
      assertThat(plan.ranks().stream().mapToInt(TensorPlan.Rank::heads).sum())
          .as(what)
          .isEqualTo(kvHeads);
      assertThat(plan.ranks().stream().mapToInt(TensorPlan.Rank::inner).sum())
          .as(what)
          .isEqualTo(inner);
      for (TensorPlan.Rank rank : plan.ranks()) {
        Machine machine =
            machines.stream().filter(m -> m.id().equals(rank.machine())).findFirst().orElseThrow();
        assertThat(rank.bytes()).as(what).isLessThanOrEqualTo(machine.memoryBytes());
        assertThat(rank.heads()).as(what).isPositive();
        assertThat(rank.inner() % 32).as(what).isZero();
      }
    }
    // Twice as fast, twice as much.
    ModelConfig config = new ModelConfig(1000, 256, 4, 12, 6, 64, 960, 512, 1e4f, 1e-5f, false);
    TensorPlan plan =
        Planner.tensor(
            new Footprint(config, 40 * MB, 5 * MB, 5 * MB, 4 * MB),
            List.of(new Machine("a", 1000 * MB, 2e9), new Machine("b", 1000 * MB, 1e9)),
            2,
            true);
    assertThat(plan.ranks().getFirst().heads()).isEqualTo(4);
    assertThat(plan.ranks().getFirst().inner()).isEqualTo(640);
  }
}

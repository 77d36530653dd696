package dev.flotilla.plan;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import dev.flotilla.model.ModelConfig;
import dev.flotilla.plan.Plan.PlannedStage;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashSet;
import java.util.List;
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
        assertThat(fitsSomehow(model, machines, stages)).as(what).isFalse();
        continue;
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

  /** Whether any choice of machines holds it: tries every ordered pair for the two ends. */
  private static boolean fitsSomehow(Footprint model, List<Machine> machines, int stages) {
    int most = stages == 0 ? machines.size() : stages;
    for (int k = stages == 0 ? 1 : stages; k <= most; k++) {
      if (fits(model, machines, k, new ArrayList<>())) {
        return true;
      }
    }
    return false;
  }

  private static boolean fits(
      Footprint model, List<Machine> machines, int k, List<Machine> chosen) {
    if (chosen.size() == k) {
      int total = 0;
      for (int i = 0; i < k; i++) {
        long room = chosen.get(i).memoryBytes() - model.endBytes(i == 0, i == k - 1);
        long layers = Math.floorDiv(room, model.layerBytes() + model.kvBytesPerLayer());
        if (layers < 1) {
          return false;
        }
        total += (int) layers;
      }
      return total >= model.config().layers() && k <= model.config().layers();
    }
    for (Machine machine : machines) {
      if (!chosen.contains(machine)) {
        chosen.add(machine);
        boolean found = fits(model, machines, k, chosen);
        chosen.remove(chosen.size() - 1);
        if (found) {
          return true;
        }
      }
    }
    return false;
  }
}

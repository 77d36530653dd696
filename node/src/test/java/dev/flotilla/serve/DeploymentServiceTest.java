package dev.flotilla.serve;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.FakeCluster;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.cluster.Registry;
import dev.flotilla.model.KvFormat;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.InstantSource;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.Test;

/** The controller's decisions alone, on a registry in memory and a clock that the test turns. */
final class DeploymentServiceTest {

  private static final long MB = 1_000_000;

  private final FakeWorld world = new FakeWorld();
  private final AtomicLong nowNs = new AtomicLong();
  private Optional<DeploymentService> made = Optional.empty();

  private DeploymentService service() {
    return made.orElseThrow();
  }

  private FakeCluster leader() {
    return world.node("a");
  }

  private void nodes(long memoryBytes, String... ids) {
    for (String id : ids) {
      world.addWithoutController(id, memoryBytes);
    }
    ModelStore store = new ModelStore(leader(), Path.of("unused"), 1, InstantSource.system());
    made = Optional.of(new DeploymentService(leader(), store::metadata, nowNs::get));
    ModelRecord model =
        new ModelRecord(
            "m",
            "d".repeat(64),
            "",
            100 * MB,
            0,
            ToySlice.CONFIG,
            10 * MB,
            MB,
            MB,
            null,
            List.of("a"));
    write(ModelRecord.key("m"), model);
  }

  private void write(Registry.Key key, Object value) {
    leader().commit(List.of(), List.of(new Registry.Write(key, Optional.of(Json.write(value)))));
  }

  private void pass(double seconds) {
    nowNs.addAndGet((long) (seconds * 1e9));
    service().reconcile(leader());
  }

  private List<String> placedOn(String replica) {
    return Placement.of(world.registry(), replica).orElseThrow().placement().stages().stream()
        .map(Deployments.StageView::node)
        .toList();
  }

  private static Deployments.Wanted wanted(int replicas, int stages) {
    return new Deployments.Wanted("m", replicas, stages, "least_load", true, Engine.DEFAULT);
  }

  @Test
  void aDeploymentIsPlacedAndRemoved() {
    nodes(1000 * MB, "a", "b", "c");
    service().deploy(wanted(1, 3));
    pass(0);
    assertThat(placedOn("m-0")).containsExactlyInAnyOrder("a", "b", "c");
    assertThat(service().list().get(0).state()).isEqualTo("loading");
    long epoch = Placement.of(world.registry(), "m-0").orElseThrow().epoch();
    write(ReplicaStatus.key("m-0"), new ReplicaStatus(epoch, "ready", ""));
    assertThat(service().list().get(0).state()).isEqualTo("ready");
    pass(1);
    assertThat(Placement.of(world.registry(), "m-0").orElseThrow().epoch()).isEqualTo(epoch);
    service().remove("m");
    pass(1);
    assertThat(world.registry().list(Placement.KIND)).isEmpty();
    assertThat(world.registry().list(ReplicaStatus.KIND)).isEmpty();
    assertThatThrownBy(() -> service().remove("m")).isInstanceOf(FlotillaException.class);
  }

  @Test
  void aSlowerSplitIsRefusedWithoutForceAndThePlanSaysWhatItCosts() {
    nodes(1000 * MB, "a", "b", "c");
    assertThatThrownBy(
            () ->
                service()
                    .deploy(new Deployments.Wanted("m", 1, 3, "least_load", false, Engine.DEFAULT)))
        .hasMessageContaining("tokens/s");
    assertThat(world.registry().list(DeploymentService.KIND)).isEmpty();
    Map<String, Object> plan = service().plan("m", 3, Engine.DEFAULT);
    assertThat((List<?>) plan.get("stages")).hasSize(3);
    assertThat((double) plan.get("predicted_tokens_per_second"))
        .isLessThan((double) ((Map<?, ?>) plan.get("one_node")).get("predicted_tokens_per_second"));
    // Left to the planner, one node is enough.
    service().deploy(new Deployments.Wanted("m", 1, 0, "least_load", false, Engine.DEFAULT));
    pass(0);
    assertThat(placedOn("m-0")).hasSize(1);
  }

  private static Deployments.Wanted copied(int replicas, int tensor, int copies) {
    return new Deployments.Wanted(
        "m", replicas, 0, tensor, "least_load", true, Engine.DEFAULT, copies);
  }

  @Test
  void copiesOfTheKvCacheThatNobodyCouldKeepAreRefused() {
    nodes(1000 * MB, "a", "b", "c");
    assertThatThrownBy(() -> service().deploy(copied(2, 1, 2)))
        .hasMessageContaining("2 copies of the KV cache are out of range");
    assertThatThrownBy(() -> service().deploy(copied(1, 1, 1)))
        .hasMessageContaining("kept by another replica, and 1 replica is wanted");
    assertThatThrownBy(() -> service().deploy(copied(2, 2, 1)))
        .hasMessageContaining("is not copied");
    assertThat(world.registry().list(DeploymentService.KIND)).isEmpty();
    service().deploy(copied(2, 1, 1));
    // Records of earlier versions do not have it.
    assertThat(
            Json.read(
                    "{\"model\":\"m\",\"replicas\":2,\"routing\":\"least_load\"}"
                        .getBytes(StandardCharsets.UTF_8),
                    Deployments.Wanted.class)
                .kvReplicas())
        .isZero();
  }

  @Test
  void replicasThatAreApartStayThoughNeitherCanKeepTheOthersCopies() {
    nodes(1000 * MB, "a", "b", "c", "d");
    Engine rounded = new Engine(KvFormat.F16, WireType.BF16, false, "");
    service().deploy(new Deployments.Wanted("m", 2, 2, 1, "least_load", true, rounded, 1));
    int last = ToySlice.CONFIG.layers() - 1;
    place("m-0", rounded, 1, last, "a", "b");
    place("m-1", rounded, 2, last, "c", "d");
    ready("m-0");
    ready("m-1");
    for (int i = 0; i < 30; i++) {
      pass(1);
      assertThat(world.registry().list(Placement.KIND)).hasSize(2);
      assertThat(placedOn("m-0")).containsExactly("a", "b");
      assertThat(placedOn("m-1")).containsExactly("c", "d");
    }
  }

  private void place(
      String replica, Engine engine, int cut, int lastLayer, String first, String second) {
    write(
        Placement.key(replica),
        new Placement(
            replica,
            "m",
            "d".repeat(64),
            0,
            engine,
            List.of(
                new Deployments.StageView(first, 0, cut - 1),
                new Deployments.StageView(second, cut, lastLayer))));
  }

  @Test
  void replicasThatAreOnOneNodeGoApartWhenAnotherIsThereSoThatTheyKeepEachOthersCopies() {
    nodes(1000 * MB, "a");
    service().deploy(copied(2, 1, 1));
    pass(0);
    assertThat(placedOn("m-0")).containsExactly("a");
    assertThat(placedOn("m-1")).containsExactly("a");
    ready("m-0");
    ready("m-1");
    assertThat(service().list().get(0).state()).isEqualTo("degraded");
    assertThat(service().list().get(0).reason())
        .contains("m-0: its KV cache is copied nowhere")
        .contains("m-1: its KV cache is copied nowhere");
    world.addWithoutController("b", 1000 * MB);
    pass(1);
    assertThat(Placement.of(world.registry(), "m-1b")).isEmpty();
    pass(10);
    assertThat(placedOn("m-1b")).containsExactly("b");
    assertThat(Placement.of(world.registry(), "m-0b")).isEmpty();
    ready("m-1b");
    pass(1);
    assertThat(Placement.of(world.registry(), "m-1")).isEmpty();
    pass(20);
    assertThat(placedOn("m-0")).containsExactly("a");
    assertThat(placedOn("m-1b")).containsExactly("b");
    assertThat(service().list().get(0).state()).isEqualTo("ready");
    assertThat(service().list().get(0).replicas().get(1).copiedTo()).isEqualTo("m-0");
  }

  @Test
  void tooLittleMemoryIsTheReasonUntilANodeIsAdded() {
    nodes(30 * MB, "a", "b");
    service().deploy(wanted(1, 0));
    pass(0);
    assertThat(world.registry().list(Placement.KIND)).isEmpty();
    assertThat(service().list().get(0).state()).isEqualTo("loading");
    assertThat(service().list().get(0).reason()).contains("MB").contains("Add a machine");
    world.addWithoutController("c", 100 * MB);
    pass(0);
    assertThat(placedOn("m-0")).isNotEmpty();
  }

  @Test
  void whatKeysAndValuesTakeIsCountedByTheirFormatAndADraftModelBesideThem() {
    nodes(MB, "a");
    ModelRecord model = ModelRecord.existing(world.registry(), "m");
    long kvF32 = model.footprint(KvFormat.F32).kvBytesPerLayer();
    assertThat(model.footprint(KvFormat.F16).kvBytesPerLayer()).isEqualTo(kvF32 / 2);
    assertThat(model.footprint(KvFormat.Q8_0).kvBytesPerLayer()).isLessThan(kvF32 / 2);
    long bytes = model.footprint(KvFormat.F16).totalBytes();
    world.addWithoutController("b", bytes);
    for (KvFormat kv : List.of(KvFormat.F32, KvFormat.F16)) {
      Engine engine = new Engine(kv, WireType.F32, false, "");
      service().deploy(new Deployments.Wanted("m", 1, 1, "least_load", true, engine));
      pass(0);
      assertThat(world.registry().list(Placement.KIND)).hasSize(kv == KvFormat.F32 ? 0 : 1);
    }
    write(
        ModelRecord.key("small"),
        new ModelRecord(
            "small", "digest", "manifest", 1, 1, model.config(), 1, 1, 1, null, List.of("a")));
    Engine drafted = new Engine(KvFormat.F16, WireType.F32, false, "small");
    service().deploy(new Deployments.Wanted("m", 1, 1, "least_load", true, drafted));
    pass(0);
    assertThat(service().list().getFirst().reason()).contains("MB that are free");
  }

  @Test
  void aLostNodesLayersMoveAtOnceAndReturnWhenEnoughNodesAreStable() {
    nodes(1000 * MB, "a", "b", "c");
    service().deploy(wanted(1, 3));
    pass(0);
    world.notice("b", NodeInfo.State.LOST);
    pass(0.1);
    assertThat(placedOn("m-0")).containsExactlyInAnyOrder("a", "c");
    world.notice("b", NodeInfo.State.UP);
    pass(1);
    pass(9);
    assertThat(placedOn("m-0")).hasSize(2);
    pass(1.1);
    assertThat(placedOn("m-0")).hasSize(3);
    world.notice("c", NodeInfo.State.DRAINING);
    pass(1);
    assertThat(placedOn("m-0")).containsExactlyInAnyOrder("a", "b");
  }

  private void ready(String slot) {
    long epoch = Placement.of(world.registry(), slot).orElseThrow().epoch();
    write(ReplicaStatus.key(slot), new ReplicaStatus(epoch, ReplicaStatus.READY, ""));
  }

  private List<String> slots() {
    return world.registry().list(Placement.KIND).stream().map(e -> e.key().name()).toList();
  }

  private String state() {
    return service().list().getFirst().state();
  }

  private List<String> shownOn() {
    return service().list().getFirst().replicas().getFirst().stages().stream()
        .map(Deployments.StageView::node)
        .toList();
  }

  @Test
  void whatAnswersIsLoadedElsewhereBeforeItLeavesItsNode() {
    nodes(1000 * MB, "a", "b");
    service().deploy(wanted(1, 1));
    pass(0);
    ready("m-0");
    String from = placedOn("m-0").getFirst();
    String to = from.equals("a") ? "b" : "a";
    world.notice(from, NodeInfo.State.DRAINING);
    pass(1);
    assertThat(slots()).containsExactly("m-0", "m-0b");
    assertThat(placedOn("m-0")).containsExactly(from);
    assertThat(placedOn("m-0b")).containsExactly(to);
    assertThat(state()).isEqualTo("ready");
    assertThat(shownOn()).containsExactly(from);
    assertThat(service().list().getFirst().reason()).contains("is being loaded on " + to);
    pass(60);
    assertThat(slots()).hasSize(2);
    ready("m-0b");
    assertThat(shownOn()).containsExactly(to);
    pass(1);
    assertThat(slots()).containsExactly("m-0b");
    assertThat(world.registry().list(ReplicaStatus.KIND)).hasSize(1);
    assertThat(state()).isEqualTo("ready");
    assertThat(service().list().getFirst().reason()).isEmpty();
    // And back again.
    world.notice(from, NodeInfo.State.UP);
    world.notice(to, NodeInfo.State.DRAINING);
    pass(1);
    assertThat(placedOn("m-0")).containsExactly(from);
    // It changed its mind, and what was begun is in nobody's way.
    world.notice(to, NodeInfo.State.UP);
    world.notice(from, NodeInfo.State.LOST);
    pass(1);
    assertThat(slots()).containsExactly("m-0b");
    assertThat(placedOn("m-0b")).containsExactly(to);
  }

  @Test
  void whatIsLostWhileItMovesIsWhereItWasToGo() {
    nodes(1000 * MB, "a", "b", "c");
    service().deploy(wanted(1, 1));
    pass(0);
    ready("m-0");
    String from = placedOn("m-0").getFirst();
    world.notice(from, NodeInfo.State.DRAINING);
    pass(1);
    String to = placedOn("m-0b").getFirst();
    world.notice(to, NodeInfo.State.LOST);
    pass(1);
    assertThat(slots()).containsExactly("m-0");
    pass(1);
    String third = placedOn("m-0b").getFirst();
    assertThat(third).isNotIn(from, to);
    world.notice(from, NodeInfo.State.LOST);
    pass(1);
    assertThat(slots()).containsExactly("m-0b");
    assertThat(placedOn("m-0b")).containsExactly(third);
    service().remove("m");
    pass(1);
    assertThat(slots()).isEmpty();
    assertThat(world.registry().list(ReplicaStatus.KIND)).isEmpty();
  }

  @Test
  void withoutMemoryForTwoTheSecondIsInThePlaceOfTheFirst() {
    nodes(MB, "a");
    long bytes = ModelRecord.existing(world.registry(), "m").footprint(KvFormat.F16).totalBytes();
    world.addWithoutController("b", bytes * 5 / 4);
    world.addWithoutController("c", bytes * 5 / 4);
    service().deploy(wanted(1, 2));
    pass(0);
    ready("m-0");
    assertThat(placedOn("m-0")).containsExactlyInAnyOrder("b", "c");
    world.notice("c", NodeInfo.State.DRAINING);
    pass(1);
    assertThat(slots()).containsExactly("m-0");
    assertThat(placedOn("m-0")).containsExactly("b");
    ready("m-0");
    assertThat(state()).isEqualTo("degraded");
  }

  @Test
  void anotherEngineAndMoreStagesAreLoadedBesideWhatAnswers() {
    nodes(1000 * MB, "a", "b", "c");
    service().deploy(wanted(1, 1));
    pass(0);
    ready("m-0");
    service().deploy(wanted(1, 3));
    pass(0);
    assertThat(placedOn("m-0")).hasSize(1);
    assertThat(placedOn("m-0b")).hasSize(3);
    assertThat(state()).isEqualTo("degraded");
    ready("m-0b");
    pass(0);
    assertThat(slots()).containsExactly("m-0b");
    Engine exact = new Engine(KvFormat.F32, WireType.F32, false, "");
    service().deploy(new Deployments.Wanted("m", 1, 3, "least_load", true, exact));
    pass(0);
    assertThat(slots()).hasSize(2);
    ready("m-0");
    pass(0);
    assertThat(slots()).containsExactly("m-0");
    assertThat(Placement.of(world.registry(), "m-0").orElseThrow().placement().engine())
        .isEqualTo(exact);
  }

  @Test
  void replicasAreOnDisjointNodesAndNewOnesComeAndGo() {
    nodes(1000 * MB, "a", "b", "c", "d");
    service().deploy(wanted(2, 2));
    pass(0);
    Set<String> used = new HashSet<>(placedOn("m-0"));
    used.addAll(placedOn("m-1"));
    assertThat(used).hasSize(4);
    service().deploy(wanted(1, 2));
    pass(0);
    assertThat(world.registry().list(Placement.KIND)).hasSize(1);
    service().deploy(wanted(1, 4));
    pass(0);
    assertThat(placedOn("m-0")).hasSize(4);
    service().deploy(wanted(1, 1));
    pass(0);
    assertThat(placedOn("m-0")).hasSize(1);
  }

  @Test
  void nodesThatComeAndGoNeverMakeItSwing() {
    nodes(1000 * MB, "a", "b", "c", "d", "e");
    service().deploy(wanted(2, 2));
    pass(0);
    long seed = System.nanoTime();
    Random random = new Random(seed);
    for (int i = 0; i < 500; i++) {
      String node = List.of("b", "c", "d", "e").get(random.nextInt(4));
      boolean lost = random.nextBoolean();
      world.notice(node, lost ? NodeInfo.State.LOST : NodeInfo.State.UP);
      List<Registry.Entry> before = world.registry().list(Placement.KIND);
      pass(random.nextDouble() * 3);
      List<Registry.Entry> after = world.registry().list(Placement.KIND);
      String what = "seed " + seed + " step " + i;
      for (Registry.Entry entry : after) {
        Placement placement = Json.read(entry.value(), Placement.class);
        Set<String> alive = new HashSet<>();
        leader().aliveNodes().forEach(n -> alive.add(n.id()));
        assertThat(placement.stages()).as(what).allMatch(s -> alive.contains(s.node()));
        // A move has a reason: a node was lost, or stages were missing.
        before.stream()
            .filter(b -> b.key().equals(entry.key()) && b.epoch() != entry.epoch())
            .map(b -> Json.read(b.value(), Placement.class))
            .forEach(
                old ->
                    assertThat(
                            !old.stages().stream().allMatch(s -> alive.contains(s.node()))
                                || placement.stages().size() > old.stages().size())
                        .as(what)
                        .isTrue());
      }
      List<Registry.Entry> settled = world.registry().list(Placement.KIND);
      pass(0);
      assertThat(world.registry().list(Placement.KIND)).as(what).isEqualTo(settled);
    }
  }

  @Test
  void aControllerThatWasReplacedWritesNothing() {
    nodes(1000 * MB, "a", "b");
    service().deploy(wanted(1, 1));
    Cluster.Leadership deposed =
        new Cluster.Leadership() {
          @Override
          public List<NodeInfo> aliveNodes() {
            return leader().aliveNodes();
          }

          @Override
          public Optional<Long> commit(
              List<Registry.Condition> conditions, List<Registry.Write> writes) {
            return Optional.empty();
          }
        };
    service().reconcile(deposed);
    assertThat(world.registry().list(Placement.KIND)).isEmpty();
  }
}

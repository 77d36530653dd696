package dev.flotilla.serve;

import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.Fence;
import dev.flotilla.cluster.Fencing;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.cluster.Registry;
import dev.flotilla.plan.Footprint;
import dev.flotilla.plan.Machine;
import dev.flotilla.plan.Plan;
import dev.flotilla.plan.Planner;
import dev.flotilla.plan.TensorPlan;
import dev.flotilla.serve.Placement.Placed;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import java.util.function.LongSupplier;
import java.util.stream.Collectors;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Deployments: what is wanted (registry kind {@code deployment}), and the controller's part that
 * turns it into placements.
 *
 * <p>The controller places what has no placement; places anew, on the nodes that answer, what has a
 * stage on a node that does not; and returns to the wanted number of stages when enough nodes have
 * answered for ten seconds on end, or to nodes of its own where copies of its KV cache are wanted.
 * A placement whose nodes all answer is never moved for speed, so it cannot swing to and fro.
 *
 * <p>What answers is moved by a second placement beside it, where memory allows: the first one is
 * taken away only when the second is ready. So a drained node, another engine or another split
 * leave no moment in which nobody answers.
 */
final class DeploymentService implements Deployments, Cluster.Reconciler {

  static final String KIND = "deployment";
  static final String LEAST_LOAD = "least_load";
  static final String ROUND_ROBIN = "round_robin";

  private static final Logger log = LoggerFactory.getLogger(DeploymentService.class);
  private static final long STABLE_NS = TimeUnit.SECONDS.toNanos(10);
  private static final int MAX_REPLICAS = 64;

  /** The controller has moved by then what it can of a node that is drained. */
  private static final long DECISION_NS = TimeUnit.SECONDS.toNanos(3);

  private static final long LOOK_NS = TimeUnit.MILLISECONDS.toNanos(50);

  private final Cluster cluster;
  private final Function<String, Map<String, Object>> metadata;
  private final LongSupplier nanoTime;

  /** Since when each node has answered without a break; of the controller's thread. */
  private final Map<String, Long> answeringSinceNs = new HashMap<>();

  /**
   * @param metadata of a model, by its name
   */
  DeploymentService(
      Cluster cluster, Function<String, Map<String, Object>> metadata, LongSupplier nanoTime) {
    this.cluster = cluster;
    this.metadata = metadata;
    this.nanoTime = nanoTime;
  }

  static Registry.Key key(String model) {
    return new Registry.Key(KIND, model);
  }

  static Optional<Wanted> wanted(Registry registry, String model) {
    return registry.get(key(model)).map(e -> Json.read(e.value(), Wanted.class));
  }

  /**
   * What one look at the cluster found.
   *
   * @param nodes that may be used
   * @param ids of those on which what is placed may stay
   * @param answering ids of those on which what is placed answers, if it is ready
   */
  private record Pass(
      List<NodeInfo> nodes, Set<String> ids, Set<String> answering, Occupancy occupancy) {}

  // What is wanted.

  @Override
  public List<String> modelsOnlyOn(String node) {
    List<String> others =
        cluster.nodes().stream()
            .filter(n -> n.state() != NodeInfo.State.LOST && !n.id().equals(node))
            .map(NodeInfo::id)
            .toList();
    return ModelRecord.all(cluster.registry()).stream()
        .filter(m -> m.holders().contains(node) && m.holders().stream().noneMatch(others::contains))
        .map(ModelRecord::name)
        .toList();
  }

  @Override
  public List<String> drain(String node, Duration patience) throws InterruptedException {
    List<String> before = replicasOn(node);
    cluster.drain(node, true);
    long startNs = nanoTime.getAsLong();
    long noticedNs = Long.MAX_VALUE;
    while (true) {
      long nowNs = nanoTime.getAsLong();
      boolean noticed = up().stream().noneMatch(n -> n.id().equals(node));
      noticedNs = noticed ? Math.min(noticedNs, nowNs) : noticedNs;
      List<String> left = replicasOn(node);
      boolean settled =
          left.isEmpty()
              ? before.stream().allMatch(this::serves)
              : nowNs - noticedNs > DECISION_NS && left.stream().noneMatch(this::moves);
      if ((noticed && settled) || nowNs - startNs > patience.toNanos()) {
        return left.stream().map(Placement::replicaOf).distinct().toList();
      }
      cluster.threads().sleep(LOOK_NS);
    }
  }

  private List<String> replicasOn(String node) {
    return Placement.all(cluster.registry()).stream()
        .map(Placed::placement)
        .filter(placement -> placement.stages().stream().anyMatch(s -> s.node().equals(node)))
        .map(Placement::replica)
        .toList();
  }

  /** Whether another placement of the same replica is being loaded. */
  private boolean moves(String slot) {
    return Placement.of(cluster.registry(), Placement.otherSlot(slot)).isPresent();
  }

  /** Whether it is ready, or there no more: another is in its place, or it is wanted no more. */
  private boolean serves(String replica) {
    return Placement.of(cluster.registry(), replica)
        .map(placed -> ReplicaStatus.ready(cluster.registry(), replica, placed.epoch()))
        .orElse(true);
  }

  @Override
  public List<ModelView> models() {
    return ModelRecord.all(cluster.registry()).stream()
        .map(m -> new ModelView(m.name(), m.digest(), m.bytes(), m.createdAtMs(), m.config()))
        .toList();
  }

  @Override
  public Map<String, Object> metadata(String model) {
    return metadata.apply(model);
  }

  @Override
  public void deploy(Wanted wanted, Optional<Fence> fence) {
    ModelRecord model = ModelRecord.existing(cluster.registry(), wanted.model());
    if (wanted.replicas() < 1 || wanted.replicas() > MAX_REPLICAS) {
      throw new FlotillaException(
          FlotillaException.Code.INVALID,
          wanted.replicas() + " replicas are out of range",
          "Ask for 1 to " + MAX_REPLICAS + ".");
    }
    if (!Set.of(LEAST_LOAD, ROUND_ROBIN).contains(wanted.routing())) {
      throw new FlotillaException(
          FlotillaException.Code.INVALID,
          "unknown routing " + wanted.routing(),
          "Use " + LEAST_LOAD + " or " + ROUND_ROBIN + ".");
    }
    if (!wanted.engine().draft().isEmpty()) {
      checkDraft(model, wanted.engine().draft());
    }
    if (wanted.tensor() > 1 && wanted.stages() > 1) {
      throw new FlotillaException(
          FlotillaException.Code.INVALID,
          "stages and tensor are both wanted; a replica is split one way or the other",
          "Leave --stages or --tensor out.");
    }
    checkCopies(wanted);
    Footprint footprint = footprint(model.name(), wanted.engine());
    try {
      if (wanted.tensor() > 1) {
        Planner.tensor(footprint, machines(up()), wanted.tensor(), wanted.force());
      } else {
        Planner.plan(footprint, machines(up()), wanted.stages(), wanted.force());
      }
    } catch (FlotillaException e) {
      // Too little memory or too few nodes may change; a split that is no good does not.
      if (e.code() == FlotillaException.Code.INVALID) {
        throw e;
      }
    }
    Optional<Long> _ =
        Fencing.commit(
            cluster.registry(),
            "deployment " + wanted.model(),
            fence,
            List.of(),
            List.of(new Registry.Write(key(wanted.model()), Optional.of(Json.write(wanted)))));
    log.info("deployment {} is wanted: {}", wanted.model(), wanted);
  }

  @Override
  public void remove(String model, Optional<Fence> fence) {
    if (cluster.registry().get(key(model)).isEmpty()) {
      throw new FlotillaException(
          FlotillaException.Code.NOT_FOUND,
          "no deployment of model " + model,
          "`flotilla ps` lists what is deployed.");
    }
    Optional<Long> _ =
        Fencing.commit(
            cluster.registry(),
            "deployment " + model,
            fence,
            List.of(),
            List.of(new Registry.Write(key(model), Optional.empty())));
    log.info("deployment {} is wanted no more", model);
  }

  @Override
  public Map<String, Object> plan(String model, int stages, Engine engine) {
    Footprint footprint = footprint(model, engine);
    List<NodeInfo> up = up();
    List<Machine> machines = machines(up);
    Plan plan = Planner.plan(footprint, machines, stages, true);
    Set<String> used =
        plan.stages().stream().map(Plan.PlannedStage::machine).collect(Collectors.toSet());
    Map<String, Object> result = planned(model, machines, used);
    result.putAll(describe(plan, up));
    result.put("left_out", leftOut(up, used));
    result.put("one_node", alone(footprint, machines, up));
    return result;
  }

  @Override
  public Map<String, Object> tensorPlan(String model, int ranks, Engine engine) {
    Footprint footprint = footprint(model, engine);
    List<NodeInfo> up = up();
    List<Machine> machines = machines(up);
    TensorPlan plan = Planner.tensor(footprint, machines, ranks, true);
    Set<String> used =
        plan.ranks().stream().map(TensorPlan.Rank::machine).collect(Collectors.toSet());
    Map<String, Object> result = planned(model, machines, used);
    List<Map<String, Object>> views = new ArrayList<>();
    for (TensorPlan.Rank rank : plan.ranks()) {
      Map<String, Object> view = new LinkedHashMap<>();
      view.put("node", rank.machine());
      view.put("name", node(up, rank.machine()).name());
      view.put("kv_heads", rank.heads());
      view.put("inner", rank.inner());
      view.put("bytes", rank.bytes());
      view.put("weight_bytes", rank.weightBytes());
      view.put("kv_bytes", rank.kvBytes());
      view.put("memory_bytes", memoryBytes(up, rank.machine()));
      view.put("predicted_step_ms", rank.stepSeconds() * 1e3);
      views.add(view);
    }
    result.put("ranks", views);
    result.put("predicted_tokens_per_second", plan.tokensPerSecond());
    result.put("predicted_pipelined_tokens_per_second", plan.pipelinedTokensPerSecond());
    result.put("predicted_first_token_ms", plan.firstTokenSeconds() * 1e3);
    result.put("left_out", leftOut(up, used));
    result.put("one_node", alone(footprint, machines, up));
    return result;
  }

  private static Map<String, Object> planned(
      String model, List<Machine> machines, Set<String> used) {
    Map<String, Object> result = new LinkedHashMap<>();
    result.put("model", model);
    result.put("prompt_tokens", Planner.PROMPT);
    result.put("streams", Planner.STREAMS);
    result.put(
        "measured",
        machines.stream().filter(m -> used.contains(m.id())).allMatch(m -> m.speeds().measured()));
    return result;
  }

  private static List<String> leftOut(List<NodeInfo> up, Set<String> used) {
    return up.stream().filter(node -> !used.contains(node.id())).map(NodeInfo::name).toList();
  }

  private static Map<String, Object> alone(
      Footprint footprint, List<Machine> machines, List<NodeInfo> up) {
    try {
      return describe(Planner.plan(footprint, machines, 1, true), up);
    } catch (FlotillaException e) {
      return Map.of("reason", e.explanation());
    }
  }

  private static NodeInfo node(List<NodeInfo> nodes, String id) {
    return nodes.stream().filter(node -> node.id().equals(id)).findFirst().orElseThrow();
  }

  private static long memoryBytes(List<NodeInfo> nodes, String id) {
    return NodeProfile.machine(node(nodes, id)).map(Machine::memoryBytes).orElse(0L);
  }

  private Footprint footprint(String model, Engine engine) {
    return new Occupancy(cluster.registry())
        .footprint(ModelRecord.existing(cluster.registry(), model), engine);
  }

  /** Refuses copies of KV caches that nobody could keep. */
  private static void checkCopies(Wanted wanted) {
    if (wanted.kvReplicas() < 0 || wanted.kvReplicas() > 1) {
      throw new FlotillaException(
          FlotillaException.Code.INVALID,
          wanted.kvReplicas() + " copies of the KV cache are out of range",
          "Ask for 0, or for 1, on another replica.");
    }
    if (wanted.kvReplicas() > 0 && wanted.replicas() < 2) {
      throw new FlotillaException(
          FlotillaException.Code.INVALID,
          "a copy of the KV cache is kept by another replica, and 1 replica is wanted",
          "Ask for 2 replicas or more, or for no copy.");
    }
    if (wanted.kvReplicas() > 0 && wanted.tensor() > 1) {
      throw new FlotillaException(
          FlotillaException.Code.INVALID,
          "the KV cache of a replica whose layers are shared out (tensor) is not copied",
          "Leave --kv-replicas or --tensor out.");
    }
  }

  /** Refuses a draft model that cannot guess for another. */
  private void checkDraft(ModelRecord model, String name) {
    ModelRecord draft = ModelRecord.existing(cluster.registry(), name);
    int words = model.config().vocabularySize();
    if (draft.config().vocabularySize() != words || draft.name().equals(model.name())) {
      throw new FlotillaException(
          FlotillaException.Code.INVALID,
          draft.name().equals(model.name())
              ? "a model cannot be its own draft"
              : "the draft model "
                  + name
                  + " has "
                  + draft.config().vocabularySize()
                  + " tokens, and "
                  + model.name()
                  + " has "
                  + words,
          "Choose a smaller model of the same family, with the same tokenizer.");
    }
  }

  private static Map<String, Object> describe(Plan plan, List<NodeInfo> nodes) {
    List<Map<String, Object>> stages = new ArrayList<>();
    for (Plan.PlannedStage stage : plan.stages()) {
      Map<String, Object> view = new LinkedHashMap<>();
      view.put("node", stage.machine());
      view.put("name", node(nodes, stage.machine()).name());
      view.put("first_layer", stage.layers().first());
      view.put("last_layer", stage.layers().last());
      view.put("bytes", stage.bytes());
      view.put("weight_bytes", stage.weightBytes());
      view.put("kv_bytes", stage.kvBytes());
      view.put("memory_bytes", memoryBytes(nodes, stage.machine()));
      view.put("predicted_step_ms", stage.stepSeconds() * 1e3);
      stages.add(view);
    }
    Map<String, Object> view = new LinkedHashMap<>();
    view.put("stages", stages);
    view.put("predicted_tokens_per_second", plan.tokensPerSecond());
    view.put("predicted_pipelined_tokens_per_second", plan.pipelinedTokensPerSecond());
    view.put("predicted_first_token_ms", plan.firstTokenSeconds() * 1e3);
    return view;
  }

  private List<NodeInfo> up() {
    return cluster.nodes().stream().filter(n -> n.state() == NodeInfo.State.UP).toList();
  }

  private static List<Machine> machines(List<NodeInfo> nodes) {
    return nodes.stream().flatMap(node -> NodeProfile.machine(node).stream()).toList();
  }

  // What is there.

  @Override
  public List<DeploymentView> list() {
    Set<String> answering =
        ids(cluster.nodes().stream().filter(n -> n.state() != NodeInfo.State.LOST).toList());
    Pass pass = new Pass(up(), answering, answering, new Occupancy(cluster.registry()));
    return cluster.registry().list(KIND).stream()
        .map(e -> view(Json.read(e.value(), Wanted.class), pass))
        .toList();
  }

  private DeploymentView view(Wanted wanted, Pass pass) {
    Registry registry = cluster.registry();
    List<ReplicaView> replicas = new ArrayList<>();
    List<String> reasons = new ArrayList<>();
    int ready = 0;
    int failed = 0;
    boolean shorter = false;
    boolean other = false;
    List<Placed> answering = new ArrayList<>();
    for (int i = 0; i < wanted.replicas(); i++) {
      String id = Placement.replicaId(wanted.model(), i);
      List<Placed> slots = Placement.ofReplica(registry, id);
      if (slots.isEmpty()) {
        String obstacle = obstacle(wanted, id, pass);
        reasons.add(id + (obstacle.isEmpty() ? " is about to be placed" : ": " + obstacle));
        continue;
      }
      Placed newest = slots.getLast();
      Placed placed =
          slots.reversed().stream()
              .filter(p -> status(wanted, p, pass).state().equals(ReplicaStatus.READY))
              .findFirst()
              .orElse(newest);
      Placement placement = placed.placement();
      ReplicaStatus status = status(wanted, placed, pass);
      replicas.add(new ReplicaView(id, status.state(), placed.epoch(), placement.stages()));
      if (!placed.equals(newest)) {
        String reason = status(wanted, newest, pass).reason();
        reasons.add(
            id
                + " is being loaded on "
                + newest.placement().stages().stream()
                    .map(StageView::node)
                    .collect(Collectors.joining(", "))
                + " and answers where it was meanwhile"
                + (reason.isEmpty() ? "" : ": " + reason));
      }
      if (!placement.engine().equals(wanted.engine())) {
        other = true;
        String obstacle = obstacle(wanted, placement.replica(), pass);
        reasons.add(
            id
                + " still runs as it was wanted before"
                + (obstacle.isEmpty() ? "" : ", for " + obstacle));
      }
      if (status.state().equals(ReplicaStatus.READY)) {
        ready++;
        answering.add(placed);
        if (placement.stages().size() < wanted.nodesOfReplica()) {
          shorter = true;
          reasons.add(
              String.format(
                  "%s: runs in %d %s instead of %d until enough nodes have answered for %d s",
                  id,
                  placement.stages().size(),
                  wanted.tensor() > 1 ? "ranks" : "stages",
                  wanted.nodesOfReplica(),
                  TimeUnit.NANOSECONDS.toSeconds(STABLE_NS)));
        }
      } else {
        failed += status.state().equals(ReplicaStatus.FAILED) ? 1 : 0;
        reasons.add(
            id
                + " is "
                + status.state()
                + (status.reason().isEmpty() ? "" : ": " + status.reason()));
      }
    }
    boolean bare = false;
    for (Placed placed : wanted.kvReplicas() > 0 ? answering : List.<Placed>of()) {
      String id = Placement.replicaOf(placed.placement().replica());
      Optional<Placed> target = CopyTarget.of(placed.placement(), answering);
      if (target.isPresent()) {
        String keeper = Placement.replicaOf(target.get().placement().replica());
        replicas.replaceAll(view -> view.id().equals(id) ? view.copiedTo(keeper) : view);
      } else {
        bare = true;
        reasons.add(
            id + ": its KV cache is copied nowhere, for no other replica is ready on other nodes");
      }
    }
    String state =
        ready == 0 && failed == replicas.size() && failed > 0
            ? "failed"
            : ready == 0
                ? "loading"
                : ready < wanted.replicas() || shorter || other || bare ? "degraded" : "ready";
    return new DeploymentView(wanted.model(), state, String.join("; ", reasons), wanted, replicas);
  }

  private ReplicaStatus status(Wanted wanted, Placed placed, Pass pass) {
    String replica = placed.placement().replica();
    for (StageView stage : placed.placement().stages()) {
      if (!pass.ids().contains(stage.node())) {
        String obstacle = obstacle(wanted, replica, pass);
        return new ReplicaStatus(
            placed.epoch(),
            ReplicaStatus.LOADING,
            "node "
                + stage.node()
                + " does not answer"
                + (obstacle.isEmpty() ? "" : ", and " + obstacle));
      }
    }
    return ReplicaStatus.of(cluster.registry(), replica)
        .filter(s -> s.epoch() == placed.epoch())
        .orElse(new ReplicaStatus(placed.epoch(), ReplicaStatus.LOADING, ""));
  }

  /** Why no plan can be made now; empty if one can. */
  private String obstacle(Wanted wanted, String replica, Pass pass) {
    Optional<ModelRecord> model = ModelRecord.of(cluster.registry(), wanted.model());
    if (model.isEmpty()) {
      return "the model is not there";
    }
    try {
      Plan _ =
          Planner.another(
              pass.occupancy().footprint(model.get(), wanted.engine()),
              pass.occupancy().machines(pass.nodes()),
              pass.occupancy().beside(replica),
              0,
              true);
      return "";
    } catch (FlotillaException e) {
      return e.explanation();
    }
  }

  // The controller's part.

  @Override
  public void reconcile(Cluster.Leadership leadership) {
    List<NodeInfo> answering = leadership.aliveNodes();
    List<NodeInfo> alive =
        answering.stream().filter(n -> n.state() != NodeInfo.State.DRAINING).toList();
    notice(alive);
    Pass pass = new Pass(alive, ids(alive), ids(answering), new Occupancy(cluster.registry()));
    List<Registry.Entry> entries = cluster.registry().list(KIND);
    Map<String, Wanted> wanted = new TreeMap<>();
    entries.forEach(e -> wanted.put(e.key().name(), Json.read(e.value(), Wanted.class)));
    for (Placed placed : Placement.all(cluster.registry())) {
      if (!isWanted(placed.placement(), wanted)) {
        unplace(leadership, placed, List.of(), pass);
      }
    }
    for (Registry.Entry entry : entries) {
      String name = entry.key().name();
      Wanted deployment = Objects.requireNonNull(wanted.get(name));
      Optional<ModelRecord> model = ModelRecord.of(cluster.registry(), name);
      for (int i = 0; model.isPresent() && i < deployment.replicas(); i++) {
        place(leadership, deployment, entry.epoch(), model.get(), i, pass);
      }
    }
  }

  private void notice(List<NodeInfo> alive) {
    long nowNs = nanoTime.getAsLong();
    Set<String> ids = ids(alive);
    answeringSinceNs.keySet().retainAll(ids);
    ids.forEach(id -> answeringSinceNs.putIfAbsent(id, nowNs));
  }

  private static Set<String> ids(List<NodeInfo> nodes) {
    return nodes.stream().map(NodeInfo::id).collect(Collectors.toSet());
  }

  private static boolean isWanted(Placement placement, Map<String, Wanted> wanted) {
    Wanted deployment = wanted.get(placement.model());
    for (int i = 0; deployment != null && i < deployment.replicas(); i++) {
      if (Placement.replicaOf(placement.replica())
          .equals(Placement.replicaId(placement.model(), i))) {
        return true;
      }
    }
    return false;
  }

  /**
   * Takes a placement away.
   *
   * @param because what else must still be so
   */
  private void unplace(
      Cluster.Leadership leadership, Placed placed, List<Registry.Condition> because, Pass pass) {
    String slot = placed.placement().replica();
    List<Registry.Condition> conditions = new ArrayList<>(because);
    conditions.add(new Registry.Condition(Placement.key(slot), placed.epoch()));
    leadership
        .commit(
            conditions,
            List.of(
                new Registry.Write(Placement.key(slot), Optional.empty()),
                new Registry.Write(ReplicaStatus.key(slot), Optional.empty())))
        .ifPresent(
            epoch -> {
              pass.occupancy().remove(slot);
              log.info(
                  "replica {} is {} (epoch {})",
                  slot,
                  because.isEmpty() ? "wanted no more" : "no more: another is in its place",
                  epoch);
            });
  }

  private void place(
      Cluster.Leadership leadership,
      Wanted wanted,
      long wantedEpoch,
      ModelRecord model,
      int number,
      Pass pass) {
    String replica = Placement.replicaId(model.name(), number);
    List<Placed> slots = Placement.ofReplica(cluster.registry(), replica);
    Decision decision = new Decision(leadership, wanted, wantedEpoch, model, pass);
    if (slots.size() == 2) {
      decision.move(slots.getFirst(), slots.getLast());
    } else if (slots.size() == 1) {
      decision.keepOrMove(slots.getFirst());
    } else {
      decision.bestPlan(replica).ifPresent(plan -> decision.write(replica, Optional.empty(), plan));
    }
  }

  /** What is decided of one replica in one pass. */
  private final class Decision {
    private final Cluster.Leadership leadership;
    private final Wanted wanted;
    private final long wantedEpoch;
    private final ModelRecord model;
    private final Pass pass;

    Decision(
        Cluster.Leadership leadership,
        Wanted wanted,
        long wantedEpoch,
        ModelRecord model,
        Pass pass) {
      this.leadership = leadership;
      this.wanted = wanted;
      this.wantedEpoch = wantedEpoch;
      this.model = model;
      this.pass = pass;
    }

    private boolean answers(Placed placed) {
      return placed.placement().stages().stream().allMatch(s -> pass.answering().contains(s.node()))
          && ReplicaStatus.ready(cluster.registry(), placed.placement().replica(), placed.epoch());
    }

    private boolean stays(Placed placed) {
      return holds(placed.placement(), model, wanted, pass.ids());
    }

    /** It is where it should be, or goes there. */
    void keepOrMove(Placed now) {
      String slot = now.placement().replica();
      // The planner's own choice, where an operator has just asked for that.
      boolean anew = wanted.nodesOfReplica() == 0 && wantedEpoch > now.epoch();
      boolean longer = stays(now) && !anew;
      String beside = Placement.otherSlot(slot);
      Optional<Layout> second =
          !answers(now)
              ? Optional.empty()
              : longer
                  ? longerPlan(beside, now).or(() -> apartPlan(beside, now))
                  : bestPlan(beside);
      if (second.isPresent()) {
        write(beside, Optional.empty(), second.get());
        return;
      }
      (longer ? longerPlan(slot, now) : bestPlan(slot))
          .ifPresent(plan -> write(slot, Optional.of(now), plan));
    }

    /** There are two of it; the second is to take over from the first. */
    void move(Placed first, Placed second) {
      boolean over =
          stays(second)
              ? answers(second) || !answers(first)
              : answers(second) && !(stays(first) && answers(first));
      if (over) {
        takeAway(first, second);
      } else if (!stays(second)) {
        // Such as when a node that was to have it is lost.
        takeAway(second, first);
      }
    }

    private void takeAway(Placed which, Placed other) {
      unplace(
          leadership,
          which,
          List.of(
              new Registry.Condition(Placement.key(other.placement().replica()), other.epoch())),
          pass);
    }

    /** Places it in a slot. */
    void write(String slot, Optional<Placed> now, Layout layout) {
      Placement placement =
          new Placement(
              slot,
              model.name(),
              model.digest(),
              model.cachePositions(),
              wanted.engine(),
              layout.stages(),
              layout.tensor());
      leadership
          .commit(
              List.of(
                  new Registry.Condition(Placement.key(slot), now.map(Placed::epoch).orElse(0L)),
                  new Registry.Condition(key(model.name()), wantedEpoch)),
              List.of(new Registry.Write(Placement.key(slot), Optional.of(Json.write(placement)))))
          .ifPresent(
              epoch -> {
                pass.occupancy().place(placement);
                log.info("replica {} is placed (epoch {}): {}", slot, epoch, placement);
              });
    }

    /** The plan nearest to what is wanted that the nodes allow. */
    Optional<Layout> bestPlan(String slot) {
      int stages = possibleStages(wanted, pass.nodes().size());
      Optional<Layout> plan = tryPlan(slot, model, wanted, pass, pass.nodes(), stages);
      while (plan.isEmpty() && stages > 1) {
        plan = tryPlan(slot, model, wanted, pass, pass.nodes(), --stages);
      }
      return plan;
    }

    /**
     * A plan on nodes that no other replica has, for one that is where another one is, so that
     * neither can keep copies for the other: the one with the greater number goes.
     */
    private Optional<Layout> apartPlan(String slot, Placed now) {
      if (wanted.kvReplicas() == 0) {
        return Optional.empty();
      }
      List<Placed> others = new ArrayList<>();
      for (int i = 0; i < wanted.replicas(); i++) {
        if (i != now.placement().number()) {
          others.addAll(
              Placement.ofReplica(cluster.registry(), Placement.replicaId(model.name(), i)));
        }
      }
      boolean last =
          others.stream().anyMatch(o -> o.placement().number() < now.placement().number());
      Set<String> taken =
          others.stream()
              .flatMap(other -> other.placement().stages().stream().map(StageView::node))
              .collect(Collectors.toSet());
      boolean apart =
          now.placement().stages().stream().map(StageView::node).noneMatch(taken::contains);
      if (!last || apart || CopyTarget.of(now.placement(), others).isPresent()) {
        return Optional.empty();
      }
      List<NodeInfo> candidates =
          pass.nodes().stream().filter(n -> !taken.contains(n.id()) && steady(n)).toList();
      int stages = possibleStages(wanted, candidates.size());
      return candidates.isEmpty() || stages < wanted.nodesOfReplica()
          ? Optional.empty()
          : tryPlan(slot, model, wanted, pass, candidates, stages);
    }

    /**
     * A plan with more of the wanted stages, over nodes that have answered for a while; over all if
     * an operator has just changed what is wanted.
     */
    private Optional<Layout> longerPlan(String slot, Placed now) {
      List<StageView> present = now.placement().stages();
      if (present.size() >= possibleStages(wanted, pass.nodes().size())) {
        return Optional.empty();
      }
      boolean wantedChanged = wantedEpoch > now.epoch();
      Set<String> there = present.stream().map(StageView::node).collect(Collectors.toSet());
      List<NodeInfo> candidates =
          pass.nodes().stream()
              .filter(n -> wantedChanged || there.contains(n.id()) || steady(n))
              .toList();
      int stages = possibleStages(wanted, candidates.size());
      return stages > present.size()
          ? tryPlan(slot, model, wanted, pass, candidates, stages)
          : Optional.empty();
    }
  }

  private boolean steady(NodeInfo node) {
    long nowNs = nanoTime.getAsLong();
    return nowNs - answeringSinceNs.getOrDefault(node.id(), nowNs) >= STABLE_NS;
  }

  /** Whether a placement can stay: every node answers, and it is not longer than wanted. */
  private static boolean holds(
      Placement placement, ModelRecord model, Wanted wanted, Set<String> ids) {
    return placement.digest().equals(model.digest())
        && placement.engine().equals(wanted.engine())
        && placement.stages().stream().allMatch(s -> ids.contains(s.node()))
        && (wanted.nodesOfReplica() == 0 || placement.stages().size() <= wanted.nodesOfReplica())
        && (placement.stages().size() == 1
            || placement.tensor().isEmpty() == (wanted.tensor() == 1));
  }

  private static int possibleStages(Wanted wanted, int nodes) {
    return Math.min(wanted.nodesOfReplica(), nodes);
  }

  /**
   * Where a replica goes.
   *
   * @param tensor what each node has of every layer; empty where it has all of its layers
   */
  private record Layout(List<StageView> stages, List<Placement.Share> tensor) {

    static Layout of(Plan plan) {
      return new Layout(
          plan.stages().stream()
              .map(s -> new StageView(s.machine(), s.layers().first(), s.layers().last()))
              .toList(),
          List.of());
    }

    static Layout of(TensorPlan plan, int layers) {
      return new Layout(
          plan.ranks().stream().map(r -> new StageView(r.machine(), 0, layers - 1)).toList(),
          plan.ranks().stream().map(r -> new Placement.Share(r.heads(), r.inner())).toList());
    }
  }

  private Optional<Layout> tryPlan(
      String replica,
      ModelRecord model,
      Wanted wanted,
      Pass pass,
      List<NodeInfo> nodes,
      int count) {
    Footprint footprint = pass.occupancy().footprint(model, wanted.engine());
    List<Machine> machines = pass.occupancy().machines(nodes);
    Map<String, Long> used = pass.occupancy().beside(replica);
    try {
      return Optional.of(
          wanted.tensor() > 1 && count > 1
              ? Layout.of(
                  Planner.anotherTensor(footprint, machines, used, count), model.config().layers())
              : Layout.of(Planner.another(footprint, machines, used, count, true)));
    } catch (FlotillaException e) {
      log.debug("replica {} cannot be placed on {} nodes: {}", replica, count, e.explanation());
      return Optional.empty(); // views say why
    }
  }
}

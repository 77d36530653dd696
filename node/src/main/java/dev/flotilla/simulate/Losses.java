package dev.flotilla.simulate;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.Json;
import dev.flotilla.cluster.Registry;
import dev.flotilla.serve.Deployments;
import dev.flotilla.serve.Engine;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.BooleanSupplier;
import java.util.stream.IntStream;

/**
 * One loss at a time, in a cluster of five that is otherwise well: how long until the controller
 * has acted, and which troubles are none, so that it must not act.
 */
public final class Losses {

  private static final int NODES = 5;
  private static final int VOTERS = 3;
  private static final long PATIENCE_NS = 60 * World.S;

  /** What happens to a node. */
  public enum Kind {
    /** Its process is killed. */
    KILLED,
    /** Its machine loses power. */
    POWER_LOST,
    /** Its process stands still, for good. */
    STOPPED,
    /** Nothing comes through to it and from it. */
    CUT_OFF,
    /** What it sends does not arrive. */
    CUT_OUTWARD,
    /** Its process stands still for a second, as for garbage collection. */
    PAUSED_1_S,
    /** Its ways are slow: up to 0.3 s each way. */
    SLOW;

    /** Whether it must be taken for lost. */
    boolean lost() {
      return this != PAUSED_1_S && this != SLOW;
    }
  }

  /**
   * Seconds until nothing was placed on the node any more, in rising order, by what happened to it;
   * of what is no loss, an entry for each time that the controller acted all the same.
   *
   * @param followers where the node did not lead
   * @param leaders where it did
   */
  public record Times(Map<Kind, double[]> followers, Map<Kind, double[]> leaders) {}

  private final World world;
  private final Network network;
  private final Group group;
  private final Checks checks;
  private final List<String> names = IntStream.range(0, NODES).mapToObj(i -> "n" + i).toList();

  private Losses(long seed) {
    this.world = new World(seed);
    this.network = new Network(world, names);
    this.checks = new Checks(world);
    this.group = new Group(world, network, names, VOTERS, checks);
  }

  /** So many of each kind, of followers and of leaders, by seeds from 1 on. */
  public static Times run(int each) {
    Map<Kind, double[]> followers = new LinkedHashMap<>();
    Map<Kind, double[]> leaders = new LinkedHashMap<>();
    for (Kind kind : Kind.values()) {
      followers.put(kind, times(kind, false, each));
      leaders.put(kind, times(kind, true, each));
    }
    return new Times(followers, leaders);
  }

  private static double[] times(Kind kind, boolean leader, int each) {
    List<Double> times = new ArrayList<>();
    for (long seed = 1; seed <= each; seed++) {
      long number = seed;
      World.run("loss-" + seed, () -> new Losses(number).run(kind, leader)).ifPresent(times::add);
    }
    return times.stream().mapToDouble(Double::doubleValue).sorted().toArray();
  }

  private Optional<Double> run(Kind kind, boolean leader) {
    ToyModel model = new ToyModel(world, 64, 5 * World.MS, 200 * World.MS, 0);
    for (Network.Machine machine : network.machines()) {
      SimulatedNode process =
          new SimulatedNode(
              world,
              network,
              group,
              machine,
              machine.name + "#1",
              Map.of("memory_bytes", ToyModel.bytes() * 3.0, "weight_bytes_per_second", 1e10),
              model);
      process.start();
    }
    watch();
    SimulatedNode first = process(names.getFirst());
    until("all have started", () -> names.stream().allMatch(name -> process(name).started()));
    var _ =
        first
            .threads()
            .start(
                "operator",
                () -> {
                  Optional<Long> _ = first.registry().commit(List.of(), List.of(ToyModel.entry()));
                  first
                      .serving()
                      .deployments()
                      .deploy(
                          new Deployments.Wanted(
                              ToyModel.NAME, 2, 3, "least_load", true, Engine.DEFAULT));
                });
    until("it is served", this::ready);
    world.run(world.between(15 * World.S, 20 * World.S));
    Optional<String> victim =
        names.stream().filter(n -> process(n).member().leads() == leader && used(n)).findAny();
    if (victim.isEmpty()) {
      return Optional.empty(); // nothing is on the leader
    }
    return happen(kind, victim.get());
  }

  private Optional<Double> happen(Kind kind, String victim) {
    Network.Machine machine = network.machine(victim);
    SimulatedNode process = process(victim);
    long startNs = world.nowNs();
    long placements = checks.placements();
    switch (kind) {
      case KILLED -> process.die();
      case POWER_LOST -> {
        machine.on = false;
        process.die();
      }
      case STOPPED -> process.stoppedUntilNs = Long.MAX_VALUE;
      case PAUSED_1_S -> process.stoppedUntilNs = startNs + World.S;
      case CUT_OFF -> ways(victim, (out, in) -> out.cut = in.cut = true);
      case CUT_OUTWARD -> ways(victim, (out, in) -> out.cut = true);
      case SLOW -> ways(victim, (out, in) -> out.slowNs = in.slowNs = 300 * World.MS);
    }
    if (!kind.lost()) {
      world.run(20 * World.S);
      return checks.placements() > placements ? Optional.of(20.0) : Optional.empty();
    }
    until("nothing is on " + victim, () -> !used(victim));
    return Optional.of((world.nowNs() - startNs) / 1e9);
  }

  /** What happens to the ways from and to a machine. */
  private interface Trouble {
    void befall(Network.Way out, Network.Way in);
  }

  private void ways(String victim, Trouble trouble) {
    for (String other : names) {
      if (!other.equals(victim)) {
        trouble.befall(network.way(victim, other), network.way(other, victim));
      }
    }
  }

  private SimulatedNode process(String name) {
    SimulatedNode process = network.machine(name).process;
    if (process == null) {
      throw new Violation(name + " was not started");
    }
    return process;
  }

  private void watch() {
    network.watch();
    world.after(500 * World.MS, null, this::watch);
  }

  private void until(String what, BooleanSupplier reached) {
    long endNs = world.nowNs() + PATIENCE_NS;
    while (!reached.getAsBoolean()) {
      if (world.nowNs() > endNs) {
        throw new Violation("in vain: " + what);
      }
      world.run(10 * World.MS);
    }
  }

  private boolean ready() {
    List<Deployments.DeploymentView> views =
        process(names.getFirst()).serving().deployments().list();
    return !views.isEmpty() && views.getFirst().state().equals("ready");
  }

  /** Whether a placement has a stage on a node. */
  private boolean used(String node) {
    for (Registry.Entry entry : group.truth().entries().values()) {
      if (entry.key().kind().equals("placement")) {
        for (JsonNode stage : Json.read(entry.value(), JsonNode.class).path("stages")) {
          if (stage.path("node").asText().equals(node)) {
            return true;
          }
        }
      }
    }
    return false;
  }

  /** The value below which a share of some lies; 0 of none. */
  public static double quantile(double[] sorted, double share) {
    return sorted.length == 0
        ? 0
        : sorted[(int) Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
  }
}

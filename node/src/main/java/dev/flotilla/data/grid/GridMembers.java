package dev.flotilla.data.grid;

import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.cluster.Registry;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashSet;
import java.util.List;
import java.util.Objects;
import java.util.Optional;
import java.util.Set;
import org.apache.ignite.Ignite;
import org.apache.ignite.IgniteException;
import org.apache.ignite.cluster.BaselineNode;
import org.apache.ignite.cluster.ClusterNode;
import org.apache.ignite.cluster.ClusterState;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Who belongs to the grid, as the registry has decided: its members, whose majority counts, and the
 * view, the members that the majority last consisted of (see {@link Rejoining}). The oldest node of
 * an engine that has a majority brings the engine to it: activates it, takes in nodes that have
 * come, lets go of those that were removed, and has the view decided when it changes.
 */
public final class GridMembers {

  /** The registry's record, kind {@code grid}. */
  record Members(List<String> nodes, List<String> view) {}

  private static final Logger log = LoggerFactory.getLogger(Grid.class);

  /** There while the grid's contents are being replaced. */
  public static final Registry.Key GATE = new Registry.Key("grid", "gate");

  private static final Registry.Key KEY = new Registry.Key("grid", "members");

  private final Cluster cluster;

  GridMembers(Cluster cluster) {
    this.cluster = cluster;
  }

  /** What this node's copy of the registry says; empty lists before the grid is founded. */
  Members current() {
    return cluster
        .registry()
        .get(KEY)
        .map(entry -> Json.read(entry.value(), Members.class))
        .orElse(new Members(List.of(), List.of()));
  }

  /** The first node makes the grid; all others join it. */
  void found() {
    cluster.registry().sync();
    if (cluster.registry().get(KEY).isEmpty()) {
      decide(0, new Members(List.of(cluster.self()), List.of(cluster.self())));
    }
  }

  private boolean decide(long epoch, Members members) {
    return cluster
        .registry()
        .commit(
            List.of(new Registry.Condition(KEY, epoch)),
            List.of(new Registry.Write(KEY, Optional.of(Json.write(members)))))
        .isPresent();
  }

  /** One pass; only on an engine that is part of a majority, and only by its oldest node. */
  void manage(Ignite engine) {
    Optional<Registry.Entry> entry = cluster.registry().get(KEY);
    if (entry.isEmpty() || !isOldest(engine)) {
      return;
    }
    try {
      Members members = Json.read(entry.get().value(), Members.class);
      Set<String> visible = Grid.visible(engine);
      if (2 * members.nodes().stream().filter(visible::contains).count()
          <= members.nodes().size()) {
        return;
      }
      if (engine.cluster().state() != ClusterState.ACTIVE) {
        engine.cluster().state(ClusterState.ACTIVE);
        engine.cluster().baselineAutoAdjustEnabled(false);
      }
      Members wanted = wanted(members, visible);
      if (wanted.equals(members) || decide(entry.get().epoch(), wanted)) {
        setBaseline(engine, wanted.nodes());
      }
    } catch (FlotillaException | IgniteException | IllegalStateException e) {
      log.warn("data grid: its members could not be changed yet: {}", e.toString());
    }
  }

  private Members wanted(Members members, Set<String> visible) {
    Set<String> known = new HashSet<>(cluster.nodes().stream().map(NodeInfo::id).toList());
    List<String> nodes = new ArrayList<>(members.nodes());
    nodes.removeIf(id -> !known.contains(id) && !visible.contains(id));
    visible.stream()
        .filter(id -> known.contains(id) && !nodes.contains(id))
        .sorted()
        .forEach(nodes::add);
    if (nodes.size() == 2 && members.nodes().size() != 2) {
      log.warn(
          "data grid of two nodes: nothing can be written while either is away; three are safer");
    }
    return new Members(nodes, nodes.stream().filter(visible::contains).toList());
  }

  private static void setBaseline(Ignite engine, List<String> wanted) {
    Set<String> present = baseline(engine);
    if (present.equals(Set.copyOf(wanted))) {
      return;
    }
    List<BaselineNode> nodes = new ArrayList<>();
    for (BaselineNode node :
        Objects.requireNonNullElse(
            engine.cluster().currentBaselineTopology(), List.<BaselineNode>of())) {
      if (wanted.contains(String.valueOf(node.consistentId()))) {
        nodes.add(node);
      }
    }
    for (ClusterNode node : engine.cluster().forServers().nodes()) {
      String id = String.valueOf(node.consistentId());
      if (wanted.contains(id) && !present.contains(id)) {
        nodes.add(node);
      }
    }
    engine.cluster().setBaselineTopology(nodes);
    log.info("data grid: members are now {}", wanted);
  }

  private static boolean isOldest(Ignite engine) {
    Collection<ClusterNode> nodes = engine.cluster().forServers().nodes();
    long oldest = nodes.stream().mapToLong(ClusterNode::order).min().orElse(0);
    return engine.cluster().localNode().order() == oldest;
  }

  /** The baseline's nodes, by id. */
  static Set<String> baseline(Ignite engine) {
    Set<String> ids = new HashSet<>();
    var nodes = engine.cluster().currentBaselineTopology();
    if (nodes != null) {
      nodes.forEach(node -> ids.add(String.valueOf(node.consistentId())));
    }
    return ids;
  }
}

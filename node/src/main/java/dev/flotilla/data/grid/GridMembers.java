package dev.flotilla.data.grid;

import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.cluster.Registry;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Comparator;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.Set;
import java.util.function.UnaryOperator;
import org.apache.ignite.Ignite;
import org.apache.ignite.IgniteException;
import org.apache.ignite.cluster.BaselineNode;
import org.apache.ignite.cluster.ClusterNode;
import org.apache.ignite.cluster.ClusterState;
import org.apache.ignite.internal.IgniteEx;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Who belongs to the grid, as the registry has decided. The oldest node of an engine that has a
 * majority of the members brings the engine to it: activates it, takes in nodes that have come,
 * lets go of those that were removed, and decides the view.
 *
 * <p>The <em>view</em> are the members that have everything that was ever acknowledged. It is
 * decided anew for each topology of the engine, and no node acknowledges anything under a topology
 * for which no view is decided, or one of whose view it does not see ({@link
 * GridKeeper#confirmMajority}). A member that left is out of it from then on; one that came back or
 * is new enters it when it has been filled; one that is about to delete its data leaves it first.
 * So whatever happens to the engine, every node of the view is a source of all that counts.
 */
public final class GridMembers {

  /**
   * The registry's record, kind {@code grid}.
   *
   * @param nodes whose majority must be there for anything to go on: the engine's baseline
   * @param view who has everything
   * @param settled the nodes that have been in the view once; half of them is not enough to go on
   * @param topology the engine's topology for which it was decided
   * @param keepers the nodes that were there when every partition last had an owner: between them
   *     they have everything, and so none of them may delete its data before that is so again
   */
  record Members(
      List<String> nodes,
      List<String> view,
      List<String> settled,
      String topology,
      List<String> keepers) {

    private static final Members NONE = new Members(List.of(), List.of(), List.of(), "", List.of());

    /** An earlier build wrote no keepers: then all may be. */
    @SuppressWarnings("NullAway") // what is missing in the record's text comes as null
    Members {
      keepers = keepers == null ? nodes : keepers;
    }

    /** Whether these nodes can go on together: a majority, with one that has everything. */
    boolean isMajority(Set<String> visible) {
      return 2 * nodes.stream().filter(visible::contains).count() > nodes.size()
          && view.stream().anyMatch(visible::contains);
    }

    boolean isEnough(Set<String> visible) {
      return visible.containsAll(view) && 2 * view.size() > settled.size();
    }
  }

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
        .orElse(Members.NONE);
  }

  /** The first node makes the grid; all others join it. */
  void found() {
    cluster.registry().sync();
    if (cluster.registry().get(KEY).isEmpty()) {
      List<String> self = List.of(cluster.self());
      decide(0, new Members(self, self, self, "", self));
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

  /** Names a topology: what two nodes call the same is the same. */
  static String topology(Ignite engine) {
    long version = engine.cluster().topologyVersion();
    return engine.cluster().forServers().nodes().stream()
            .min(Comparator.comparingLong(ClusterNode::order))
            .map(oldest -> oldest.id().toString())
            .orElse("")
        + ":"
        + version;
  }

  /**
   * As {@link #topology}, and it also tells apart which nodes were members and which caches were
   * there.
   */
  static String arrangement(Ignite engine) {
    return topology(engine)
        + "."
        + ((IgniteEx) engine).context().discovery().topologyVersionEx().minorTopologyVersion();
  }

  /**
   * Makes this node the only one of the view, before it starts with data that nobody else has just
   * so: what others have of writes of unknown outcome must not be mixed with what it has.
   *
   * @return false if another came first
   */
  boolean claimView() {
    return reviewed(view -> List.of(cluster.self()));
  }

  /**
   * Takes this node out of the view, before it deletes its data.
   *
   * @return false if it is the only one there, or another decided something at the same time
   */
  boolean leaveView() {
    return reviewed(view -> view.stream().filter(id -> !id.equals(cluster.self())).toList());
  }

  private boolean reviewed(UnaryOperator<List<String>> change) {
    Optional<Registry.Entry> entry = cluster.registry().get(KEY);
    if (entry.isEmpty()) {
      return true;
    }
    Members members = Json.read(entry.get().value(), Members.class);
    if (!members.view().contains(cluster.self())) {
      return true;
    }
    List<String> view = change.apply(members.view());
    return !view.isEmpty()
        && decide(
            entry.get().epoch(),
            new Members(members.nodes(), view, members.settled(), "", members.keepers()));
  }

  /**
   * One pass; only on an engine that is part of a majority, and only by its oldest node.
   *
   * @param filled the topologies for which nodes outside of the view say that they have everything
   * @param recounted the arrangements for which nodes say that their copies of lost partitions
   *     count as far as they really got
   */
  void manage(Ignite engine, Map<String, String> filled, Map<String, String> recounted) {
    Optional<Registry.Entry> entry = cluster.registry().get(KEY);
    if (entry.isEmpty() || !isOldest(engine)) {
      return;
    }
    try {
      Members members = Json.read(entry.get().value(), Members.class);
      Set<String> visible = Grid.visible(engine);
      if (!members.isMajority(visible)) {
        return;
      }
      if (engine.cluster().state() != ClusterState.ACTIVE) {
        engine.cluster().state(ClusterState.ACTIVE);
        engine.cluster().baselineAutoAdjustEnabled(false);
      }
      String topology = topology(engine);
      boolean whole = EngineState.isSettled(engine) && EngineState.lost(engine).isEmpty();
      Members wanted = wanted(members, visible, topology, filled, whole);
      if (!topology.equals(topology(engine))) {
        return;
      }
      if (wanted.equals(members)) {
        setBaseline(engine, wanted.nodes());
        takeBackLost(engine, wanted, recounted);
      } else if (decide(entry.get().epoch(), wanted)) {
        if (!wanted.view().equals(members.view()) || !wanted.nodes().equals(members.nodes())) {
          log.info("data grid: the view is now {} of {}", wanted.view(), wanted.nodes());
        }
        setBaseline(engine, wanted.nodes());
      }
    } catch (FlotillaException | IgniteException | IllegalStateException e) {
      log.warn("data grid: its members could not be changed yet: {}", e.toString());
    }
  }

  /**
   * Takes partitions into use again that had lost all their owners, once all nodes are back that
   * may have them: of each the copy that got furthest counts. Earlier, an older copy might.
   */
  private static void takeBackLost(Ignite engine, Members members, Map<String, String> recounted) {
    String arrangement = arrangement(engine);
    Set<String> visible = Grid.visible(engine);
    Set<String> baseline = baseline(engine);
    if (!EngineState.isSettled(engine)
        || !arrangement.equals(arrangement(engine))
        || !visible.containsAll(members.keepers())
        || !baseline.containsAll(members.keepers())
        || !baseline.stream()
            .filter(visible::contains)
            .allMatch(id -> arrangement.equals(recounted.get(id)))) {
      return;
    }
    Set<String> lost = EngineState.lost(engine);
    if (!lost.isEmpty()) {
      log.info("data grid: all that have lost partitions of {} are back", lost);
      engine.resetLostPartitions(lost);
    }
  }

  private Members wanted(
      Members members,
      Set<String> visible,
      String topology,
      Map<String, String> filled,
      boolean whole) {
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
    List<String> view = new ArrayList<>();
    for (String id : nodes) {
      if (visible.contains(id)
          && (members.view().contains(id) || topology.equals(filled.get(id)))) {
        view.add(id);
      }
    }
    List<String> settled =
        nodes.stream().filter(id -> members.settled().contains(id) || view.contains(id)).toList();
    List<String> keepers = new ArrayList<>(whole ? nodes : members.keepers());
    keepers.removeIf(id -> !nodes.contains(id) || (whole && !visible.contains(id)));
    return new Members(nodes, view, settled, topology, keepers);
  }

  private static void setBaseline(Ignite engine, List<String> wanted) {
    Set<String> present = baseline(engine);
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
    List<String> next = nodes.stream().map(node -> String.valueOf(node.consistentId())).toList();
    // One that is away and was never of the engine's baseline is taken in when it comes.
    if (!present.equals(Set.copyOf(next))) {
      engine.cluster().setBaselineTopology(nodes);
      log.info("data grid: members are now {}", next);
    }
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

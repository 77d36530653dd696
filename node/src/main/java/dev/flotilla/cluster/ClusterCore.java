package dev.flotilla.cluster;

import dev.flotilla.Json;
import dev.flotilla.Threads;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.LongFunction;
import org.jspecify.annotations.Nullable;

/**
 * What of a node decides: its entry in the registry, and, while it leads, whom it takes for alive
 * and what the controller does about it. Knows neither sockets nor disks: log, network and threads
 * are given, a real node's or a simulated one's.
 */
public final class ClusterCore implements AutoCloseable {

  /**
   * Plants a bug: who was the controller goes on acting after another took over. For the simulator,
   * which must find it; never set it otherwise.
   */
  public static final String ACT_WHEN_DEPOSED = "flotilla.fault.act-when-deposed";

  private static final String NODE_KIND = "node";

  /** An entry as it was read last. */
  private record Known(long epoch, NodeInfo info) {}

  private final String self;
  private final Registry registry;
  private final ReplicatedLog group;
  private final Pings pings;
  private final Threads threads;
  private final Map<String, Known> parsed = new ConcurrentHashMap<>();
  private final List<Cluster.Reconciler> reconcilers = new ArrayList<>();
  private volatile long incarnation;
  private volatile @Nullable LivenessWatch liveness;
  private volatile @Nullable Controller controller;

  /**
   * @param registry this node's, over the group's log
   */
  public ClusterCore(
      String self, Registry registry, ReplicatedLog group, Pings pings, Threads threads) {
    this.self = self;
    this.registry = registry;
    this.group = group;
    this.pings = pings;
    this.threads = threads;
  }

  static Registry.Key nodeKey(String nodeId) {
    return new Registry.Key(NODE_KIND, nodeId);
  }

  /** Runs on the leader only; call before {@link #open}. */
  public void addReconciler(Cluster.Reconciler reconciler) {
    reconcilers.add(reconciler);
  }

  /** All nodes that ever joined and were not removed, from this node's copy of the registry. */
  public List<NodeInfo> nodes() {
    return registry.list(NODE_KIND).stream().map(this::read).toList();
  }

  /** Everybody asks for all nodes all the time, and an entry seldom changes. */
  private NodeInfo read(Registry.Entry entry) {
    Known known = parsed.get(entry.key().name());
    if (known == null || known.epoch() != entry.epoch()) {
      known = new Known(entry.epoch(), Json.read(entry.value(), NodeInfo.class));
      parsed.put(entry.key().name(), known);
    }
    return known.info();
  }

  /** Of this start of the process; 0 before {@link #register}. */
  public long incarnation() {
    return incarnation;
  }

  /**
   * Writes this node's entry, with the next incarnation.
   *
   * @param info the entry with a given incarnation
   */
  public void register(LongFunction<NodeInfo> info) {
    Registry.Key key = nodeKey(self);
    while (true) {
      Optional<Registry.Entry> before = registry.get(key);
      long next =
          1 + before.map(e -> Json.read(e.value(), NodeInfo.class).incarnation()).orElse(0L);
      if (registry
          .commit(
              List.of(new Registry.Condition(key, before.map(Registry.Entry::epoch).orElse(0L))),
              List.of(new Registry.Write(key, Optional.of(Json.write(info.apply(next))))))
          .isPresent()) {
        incarnation = next;
        return;
      }
    }
  }

  /** Makes this node's profile known in place of the one before. */
  public void publish(Map<String, Double> profile) {
    Registry.Key key = nodeKey(self);
    while (true) {
      Optional<Registry.Entry> now = registry.get(key);
      if (now.isEmpty()) {
        return; // removed meanwhile
      }
      NodeInfo info = Json.read(now.get().value(), NodeInfo.class).withProfile(profile);
      if (registry
          .commit(
              List.of(new Registry.Condition(key, now.get().epoch())),
              List.of(new Registry.Write(key, Optional.of(Json.write(info)))))
          .isPresent()) {
        return;
      }
    }
  }

  /**
   * Notes for the controller that a node is to be drained until it starts again, or is not.
   *
   * @throws dev.flotilla.FlotillaException {@code NOT_FOUND} if there is no such node
   */
  public void drain(String nodeId, boolean drained) {
    registry.sync();
    while (true) {
      Registry.Entry entry =
          registry.get(nodeKey(nodeId)).orElseThrow(() -> ClusterNode.noSuchNode(nodeId));
      long start = Json.read(entry.value(), NodeInfo.class).incarnation();
      if (registry
          .commit(
              List.of(new Registry.Condition(nodeKey(nodeId), entry.epoch())),
              List.of(
                  new Registry.Write(
                      Controller.drainKey(nodeId),
                      drained ? Optional.of(Json.write(start)) : Optional.empty())))
          .isPresent()) {
        return;
      }
    }
  }

  /** Starts to watch and to act, which it does while it leads; it has registered before. */
  public void open() {
    LivenessWatch watch =
        new LivenessWatch(self, group, this::nodes, pings, threads, this::changed);
    Controller started =
        new Controller(
            self, incarnation, registry, group, this::nodes, watch, reconcilers, threads);
    liveness = watch;
    controller = started;
    watch.start();
    started.start();
  }

  /** Something changed: the controller passes again soon. */
  public void changed() {
    Controller current = controller;
    if (current != null) {
      current.signal();
    }
  }

  /** Acts no more. */
  @Override
  public void close() {
    LivenessWatch watch = liveness;
    if (watch != null) {
      watch.close();
    }
    Controller current = controller;
    if (current != null) {
      current.close();
    }
  }
}

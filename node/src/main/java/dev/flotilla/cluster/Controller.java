package dev.flotilla.cluster;

import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.Signal;
import dev.flotilla.Threads;
import dev.flotilla.cluster.Cluster.Leadership;
import dev.flotilla.cluster.Cluster.Reconciler;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Acts for the cluster while this node is the Raft leader: one thread that writes which nodes
 * answer, and calls the reconcilers.
 *
 * <p>It begins by writing the {@code controller} entry; the epoch of that entry is a condition of
 * every later commit. When another node takes over it writes the entry too, and from then on
 * nothing that this one still has in mind can be written.
 */
final class Controller implements AutoCloseable {

  static final Registry.Key CONTROLLER = new Registry.Key("controller", "current");
  static final String REMOVED_KIND = "removed-node";
  private static final String DRAIN_KIND = "drained-node";

  private static final Logger LOG = LoggerFactory.getLogger(Controller.class);
  private static final long PERIOD_NS = 1_000_000_000L;
  private static final long END_NS = 2_000_000_000L;

  /** What stands in the {@code controller} entry. */
  record Holder(String node, long incarnation) {}

  private final String self;
  private final long incarnation;
  private final Registry registry;
  private final ReplicatedLog group;
  private final Supplier<List<NodeInfo>> nodes;
  private final LivenessWatch liveness;
  private final List<Reconciler> reconcilers;
  private final Threads threads;
  private final Signal signals;
  private Threads.@Nullable Started thread;
  private volatile boolean closed;

  Controller(
      String self,
      long incarnation,
      Registry registry,
      ReplicatedLog group,
      Supplier<List<NodeInfo>> nodes,
      LivenessWatch liveness,
      List<Reconciler> reconcilers,
      Threads threads) {
    this.self = self;
    this.incarnation = incarnation;
    this.registry = registry;
    this.group = group;
    this.nodes = nodes;
    this.liveness = liveness;
    this.reconcilers = List.copyOf(reconcilers);
    this.threads = threads;
    this.signals = new Signal(threads);
  }

  /** Holds the incarnation of the node that is to be drained. */
  static Registry.Key drainKey(String nodeId) {
    return new Registry.Key(DRAIN_KIND, nodeId);
  }

  void start() {
    thread = threads.start("controller-" + self, this::run);
  }

  /** Something changed: pass again soon. */
  void signal() {
    signals.raise();
  }

  private void run() {
    Optional<Term> held = Optional.empty();
    while (!closed) {
      try {
        boolean _ = signals.await(PERIOD_NS); // several changes are one reason to pass
        group.standForElectionAsVoterOnly();
        if (!group.leads() && !deposedActs(held.isPresent())) {
          held = Optional.empty();
          continue;
        }
        if (held.isEmpty() || !(held.get().current() || deposedActs(true))) {
          held = takeOver();
        }
        if (held.isPresent()) {
          pass(held.get());
        }
      } catch (InterruptedException e) {
        return;
      } catch (IOException notRunning) {
        // The registry is just starting, or stopping.
      } catch (FlotillaException e) {
        if (closed) {
          return;
        }
        LOG.warn("{}: the controller could not act: {}", self, e.explanation());
      } catch (RuntimeException e) {
        if (!closed) {
          LOG.error("{}: the controller failed and goes on", self, e);
        }
      }
    }
  }

  /** Whether who was the controller goes on, by the planted bug. */
  private boolean deposedActs(boolean was) {
    boolean acts = was && Boolean.getBoolean(ClusterCore.ACT_WHEN_DEPOSED);
    if (acts) {
      LOG.error("PLANTED FAULT ({}): {} acts", ClusterCore.ACT_WHEN_DEPOSED, self);
    }
    return acts;
  }

  private Optional<Term> takeOver() {
    long before = registry.get(CONTROLLER).map(Registry.Entry::epoch).orElse(0L);
    Optional<Long> epoch =
        registry.commit(
            List.of(new Registry.Condition(CONTROLLER, before)),
            List.of(
                new Registry.Write(
                    CONTROLLER, Optional.of(Json.write(new Holder(self, incarnation))))));
    epoch.ifPresent(e -> LOG.info("{}: is the controller, epoch {}", self, e));
    return epoch.map(Term::new);
  }

  private void pass(Term term) {
    for (NodeInfo node : nodes.get()) {
      term.writeState(node);
    }
    expelRemoved();
    for (Reconciler reconciler : reconcilers) {
      if (closed || !(group.leads() || deposedActs(true))) {
        return;
      }
      try {
        reconciler.reconcile(term);
      } catch (FlotillaException e) {
        LOG.warn(
            "{}: {} could not act: {}", self, reconciler.getClass().getName(), e.explanation());
      } catch (RuntimeException e) {
        LOG.error("{}: {} failed", self, reconciler.getClass().getName(), e);
      }
    }
  }

  private void expelRemoved() {
    List<String> alive = nodes.get().stream().filter(liveness::alive).map(NodeInfo::id).toList();
    for (String member : group.members()) {
      if (registry.get(new Registry.Key(REMOVED_KIND, member)).isPresent()) {
        if (member.equals(self)) {
          // Another leader takes this one out.
          group.handOver();
          return;
        }
        try {
          group.expel(member, alive);
        } catch (IOException e) {
          LOG.warn("{}: cannot take node {} out of the group yet", self, member, e);
        }
      }
    }
  }

  /** The right to act, as long as the controller entry carries this epoch. */
  private final class Term implements Leadership {

    private final long epoch;

    Term(long epoch) {
      this.epoch = epoch;
    }

    boolean current() {
      return registry.get(CONTROLLER).map(entry -> entry.epoch() == epoch).orElse(false);
    }

    @Override
    public List<NodeInfo> aliveNodes() {
      return nodes.get().stream().filter(liveness::alive).toList();
    }

    @Override
    public Optional<Long> commit(List<Registry.Condition> conditions, List<Registry.Write> writes) {
      List<Registry.Condition> fenced = new ArrayList<>(conditions);
      if (!deposedActs(true)) {
        fenced.add(new Registry.Condition(CONTROLLER, epoch));
      }
      return registry.commit(fenced, writes);
    }

    /** Whether that was asked of this start of it. */
    private boolean isDrained(NodeInfo node) {
      return registry
          .get(drainKey(node.id()))
          .map(entry -> Json.read(entry.value(), Long.class) == node.incarnation())
          .orElse(false);
    }

    private void writeState(NodeInfo node) {
      NodeInfo.State wanted =
          !liveness.alive(node)
              ? NodeInfo.State.LOST
              : isDrained(node) ? NodeInfo.State.DRAINING : NodeInfo.State.UP;
      if (wanted == node.state()) {
        return;
      }
      Registry.Key key = ClusterCore.nodeKey(node.id());
      Optional<Registry.Entry> entry = registry.get(key);
      if (entry.isEmpty()
          || Json.read(entry.get().value(), NodeInfo.class).incarnation() != node.incarnation()) {
        return;
      }
      commit(
          List.of(new Registry.Condition(key, entry.get().epoch())),
          List.of(new Registry.Write(key, Optional.of(Json.write(node.withState(wanted))))));
      LOG.info("{}: node {} ({}) is {}", self, node.id(), node.name(), wanted);
    }
  }

  @Override
  public void close() {
    closed = true;
    signal();
    if (thread == null) {
      return;
    }
    thread.interrupt();
    try {
      thread.join(END_NS);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }
}

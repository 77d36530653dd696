package dev.flotilla.cluster;

import dev.flotilla.Threads;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.function.Supplier;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * While this node leads, asks every other node a few times a second whether it is there, and feeds
 * the {@link FailureDetector}. While it does not, but may come to, it asks the leader: if that
 * falls silent, its silence counts from its last answer, not from when another was elected for it.
 */
final class LivenessWatch implements AutoCloseable {

  static final long SILENCE_NS = 2_500_000_000L;
  private static final long OWN_PAUSE_NS = 1_000_000_000L;
  private static final long PERIOD_NS = 250_000_000L;
  private static final Logger LOG = LoggerFactory.getLogger(LivenessWatch.class);

  private final String self;
  private final ReplicatedLog group;
  private final Supplier<List<NodeInfo>> nodes;
  private final Pings pings;
  private final Threads threads;
  private final Runnable onChange;
  private Threads.@Nullable Started thread;

  private final Object lock = new Object();
  private final FailureDetector detector;
  private final Set<String> outstanding = new HashSet<>();
  private final Map<String, Boolean> verdicts = new HashMap<>();
  private Optional<String> leader = Optional.empty();
  private volatile boolean closed;

  LivenessWatch(
      String self,
      ReplicatedLog group,
      Supplier<List<NodeInfo>> nodes,
      Pings pings,
      Threads threads,
      Runnable onChange) {
    this.self = self;
    this.group = group;
    this.nodes = nodes;
    this.pings = pings;
    this.threads = threads;
    this.onChange = onChange;
    this.detector = new FailureDetector(SILENCE_NS, OWN_PAUSE_NS, threads.nanoTime());
  }

  void start() {
    thread = threads.start("liveness-" + self, this::run);
  }

  /** Whether this start of the node answers; known only while this node leads. */
  boolean alive(NodeInfo node) {
    if (node.id().equals(self)) {
      return true;
    }
    synchronized (lock) {
      Boolean verdict = verdicts.get(watchKey(node));
      return verdict == null ? node.state() != NodeInfo.State.LOST : verdict;
    }
  }

  // An answer of an older start of the process says nothing of the present one.
  private static String watchKey(NodeInfo node) {
    return node.id() + "/" + node.incarnation();
  }

  private void run() {
    while (!closed) {
      try {
        round();
      } catch (RuntimeException e) {
        if (!closed) {
          LOG.warn("{}: a round of pings failed", self, e);
        }
      }
      try {
        threads.sleep(PERIOD_NS);
      } catch (InterruptedException e) {
        return;
      }
    }
  }

  /** Whom this node watches now. What it does not watch it forgets, for that goes out of date. */
  private List<NodeInfo> others() {
    if (group.leads()) {
      return nodes.get().stream().filter(node -> !node.id().equals(self)).toList();
    }
    if (!group.voters().contains(self)) {
      return List.of();
    }
    // The one before is who is missed, during an election and until its successor leads.
    leader = group.leader().filter(id -> !id.equals(self)).or(() -> leader);
    return nodes.get().stream()
        .filter(node -> !node.id().equals(self) && leader.equals(Optional.of(node.id())))
        .toList();
  }

  private void round() {
    List<NodeInfo> others = others();
    Set<String> keys = others.stream().map(LivenessWatch::watchKey).collect(Collectors.toSet());
    boolean changed = false;
    synchronized (lock) {
      long nowNs = threads.nanoTime();
      detector.keep(keys);
      verdicts.keySet().retainAll(keys);
      detector.tick(nowNs);
      for (NodeInfo node : others) {
        String key = watchKey(node);
        detector.watch(key, node.state() != NodeInfo.State.LOST, nowNs);
        boolean alive = detector.alive(key);
        Boolean before = verdicts.put(key, alive);
        if (before != null && before != alive) {
          changed = true;
          LOG.info(
              "{}: node {} ({}) {}",
              self,
              node.id(),
              node.name(),
              alive ? "answers again" : "does not answer");
        }
      }
    }
    if (changed) {
      onChange.run();
    }
    for (NodeInfo node : others) {
      ping(node);
    }
  }

  private void ping(NodeInfo node) {
    String key = watchKey(node);
    synchronized (lock) {
      if (!outstanding.add(key)) {
        return;
      }
    }
    pings.ping(
        node,
        outcome -> {
          synchronized (lock) {
            outstanding.remove(key);
            switch (outcome) {
              case Pings.Answered(long incarnation) -> {
                if (incarnation == node.incarnation()) {
                  detector.answered(key, threads.nanoTime());
                }
              }
              case Pings.Refused() -> detector.refused(key);
              case Pings.Silent() -> {}
            }
          }
        });
  }

  @Override
  public void close() {
    closed = true;
    if (thread != null) {
      thread.interrupt();
    }
  }
}

package dev.flotilla.cluster;

import dev.flotilla.Threads;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.BooleanSupplier;
import java.util.function.Supplier;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * While this node leads, asks every other node a few times a second whether it is there, and feeds
 * the {@link FailureDetector}.
 */
final class LivenessWatch implements AutoCloseable {

  static final long SILENCE_NS = 2_500_000_000L;
  private static final long OWN_PAUSE_NS = 1_000_000_000L;
  private static final long PERIOD_NS = 250_000_000L;
  private static final Logger LOG = LoggerFactory.getLogger(LivenessWatch.class);

  private final String self;
  private final BooleanSupplier leads;
  private final Supplier<List<NodeInfo>> nodes;
  private final Pings pings;
  private final Threads threads;
  private final Runnable onChange;
  private Threads.@Nullable Started thread;

  private final Object lock = new Object();
  private FailureDetector detector;
  private final Set<String> outstanding = new HashSet<>();
  private final Map<String, Boolean> verdicts = new HashMap<>();
  private volatile boolean closed;

  LivenessWatch(
      String self,
      BooleanSupplier leads,
      Supplier<List<NodeInfo>> nodes,
      Pings pings,
      Threads threads,
      Runnable onChange) {
    this.self = self;
    this.leads = leads;
    this.nodes = nodes;
    this.pings = pings;
    this.threads = threads;
    this.onChange = onChange;
    this.detector = newDetector();
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

  private FailureDetector newDetector() {
    return new FailureDetector(SILENCE_NS, OWN_PAUSE_NS, threads.nanoTime());
  }

  private void run() {
    boolean led = false;
    while (!closed) {
      try {
        boolean leading = leads.getAsBoolean();
        if (leading && !led) {
          // What an earlier term saw is out of date.
          synchronized (lock) {
            detector = newDetector();
            verdicts.clear();
          }
        }
        led = leading;
        if (leading) {
          round();
        }
        threads.sleep(PERIOD_NS);
      } catch (InterruptedException e) {
        return;
      } catch (RuntimeException e) {
        if (!closed) {
          LOG.warn("{}: a round of pings failed", self, e);
        }
      }
    }
  }

  private void round() {
    List<NodeInfo> others = nodes.get().stream().filter(node -> !node.id().equals(self)).toList();
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

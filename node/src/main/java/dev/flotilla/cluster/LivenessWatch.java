package dev.flotilla.cluster;

import com.google.common.util.concurrent.FutureCallback;
import com.google.common.util.concurrent.Futures;
import dev.flotilla.cluster.proto.MembershipGrpc;
import dev.flotilla.cluster.proto.PingReply;
import dev.flotilla.cluster.proto.PingRequest;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;
import java.util.function.Function;
import java.util.function.LongSupplier;
import java.util.function.Supplier;
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
  private static final long PERIOD_MS = 250;
  private static final long PING_TIMEOUT_MS = 1_500;
  private static final Logger LOG = LoggerFactory.getLogger(LivenessWatch.class);

  private final String self;
  private final BooleanSupplier leads;
  private final Supplier<List<NodeInfo>> nodes;
  private final Function<NodeInfo, ManagedChannel> channels;
  private final LongSupplier nanoTime;
  private final Runnable onChange;
  private final Thread thread;

  private final Object lock = new Object();
  private FailureDetector detector;
  private final Set<String> outstanding = new HashSet<>();
  private final Map<String, Boolean> verdicts = new HashMap<>();
  private volatile boolean closed;

  LivenessWatch(
      String self,
      BooleanSupplier leads,
      Supplier<List<NodeInfo>> nodes,
      Function<NodeInfo, ManagedChannel> channels,
      LongSupplier nanoTime,
      Runnable onChange) {
    this.self = self;
    this.leads = leads;
    this.nodes = nodes;
    this.channels = channels;
    this.nanoTime = nanoTime;
    this.onChange = onChange;
    this.detector = newDetector();
    this.thread = Thread.ofPlatform().daemon().name("liveness-" + self).unstarted(this::run);
  }

  void start() {
    thread.start();
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
    return new FailureDetector(SILENCE_NS, OWN_PAUSE_NS, nanoTime.getAsLong());
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
        Thread.sleep(PERIOD_MS);
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
    boolean changed = false;
    synchronized (lock) {
      long nowNs = nanoTime.getAsLong();
      detector.keep(others.stream().map(LivenessWatch::watchKey).toList());
      verdicts.keySet().retainAll(others.stream().map(LivenessWatch::watchKey).toList());
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
    ManagedChannel channel = channels.apply(node);
    Futures.addCallback(
        MembershipGrpc.newFutureStub(channel)
            .withDeadlineAfter(PING_TIMEOUT_MS, TimeUnit.MILLISECONDS)
            .ping(PingRequest.newBuilder().setFromNode(self).build()),
        new FutureCallback<>() {
          @Override
          public void onSuccess(@Nullable PingReply reply) {
            synchronized (lock) {
              outstanding.remove(key);
              if (reply != null && reply.getIncarnation() == node.incarnation()) {
                detector.answered(key, nanoTime.getAsLong());
              }
            }
          }

          @Override
          public void onFailure(Throwable thrown) {
            boolean refused = Status.fromThrowable(thrown).getCode() == Status.Code.UNAVAILABLE;
            synchronized (lock) {
              outstanding.remove(key);
              if (refused) {
                detector.refused(key);
              }
            }
            if (refused) {
              // So that the next ping tries again, rather than wait for the channel's back-off.
              channel.resetConnectBackoff();
            }
          }
        },
        Runnable::run);
  }

  @Override
  public void close() {
    closed = true;
    thread.interrupt();
  }
}

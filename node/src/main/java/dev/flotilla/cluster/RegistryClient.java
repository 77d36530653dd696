package dev.flotilla.cluster;

import com.google.protobuf.ByteString;
import com.google.protobuf.InvalidProtocolBufferException;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Signal;
import dev.flotilla.Threads;
import dev.flotilla.cluster.proto.Command;
import dev.flotilla.cluster.proto.CommandCondition;
import dev.flotilla.cluster.proto.CommandResult;
import dev.flotilla.cluster.proto.CommandWrite;
import java.io.IOException;
import java.net.ConnectException;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.Optional;
import java.util.UUID;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.TimeUnit;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The registry over a replicated log. Reads come from this node's copy; a commit goes to the
 * leader.
 *
 * <p>A commit is sent only to a node that this one believes to be the leader. So when it fails, it
 * can be told whether anything was sent at all: if not, nothing was decided ({@code NO_MAJORITY});
 * if so, and no answer came, the command may stand in a log that a later majority adopts ({@code
 * OUTCOME_UNKNOWN}). Retries carry the same command id, and the state machine applies an id once.
 */
public final class RegistryClient implements Registry, AutoCloseable {

  private static final Logger LOG = LoggerFactory.getLogger(RegistryClient.class);
  private static final int MAX_COMMAND_BYTES = 1 << 20;
  private static final long RETRY_NS = TimeUnit.MILLISECONDS.toNanos(25);
  private static final long IDLE_NS = TimeUnit.SECONDS.toNanos(10);

  private final String self;
  private final ReplicatedLog log;
  private final Threads threads;
  private final long commitTimeoutNs;
  private final List<Subscription> subscriptions = new CopyOnWriteArrayList<>();
  private volatile boolean closed;

  /**
   * @param commitTimeoutNs how long a commit looks for a leader that confirms it
   */
  public RegistryClient(String self, ReplicatedLog log, Threads threads, long commitTimeoutNs) {
    this.self = self;
    this.log = log;
    this.threads = threads;
    this.commitTimeoutNs = commitTimeoutNs;
  }

  @Override
  public Optional<Entry> get(Key key) {
    return Optional.ofNullable(log.state().entries().get(key));
  }

  @Override
  public List<Entry> list(String kind) {
    return List.copyOf(
        log.state().entries().subMap(new Key(kind, ""), new Key(kind + "\0", "")).values());
  }

  @Override
  public long revision() {
    return log.appliedIndex();
  }

  /**
   * A command without writes, through the log: when it is applied here, so is all that was decided
   * before it. (Ratis's own linearizable read took 300 ms right after a write, because it waits for
   * a follower to report the new commit index with the next heartbeat; its lease would be quick but
   * rests on clocks.)
   */
  @Override
  public void sync() {
    try {
      Optional<Long> _ = commit(List.of(), List.of());
    } catch (FlotillaException e) {
      if (e.code() == Code.OUTCOME_UNKNOWN) {
        // Nothing was written, so nothing is unknown.
        throw new FlotillaException(
            Code.NO_MAJORITY, "no majority confirmed a read in time", e.remedy(), e);
      }
      throw e;
    }
  }

  @Override
  public Optional<Long> commit(List<Condition> conditions, List<Write> writes) {
    byte[] command = command(conditions, writes).toByteArray();
    if (command.length > MAX_COMMAND_BYTES) {
      throw new FlotillaException(
          Code.TOO_LARGE,
          "a registry commit of " + command.length + " bytes exceeds " + MAX_COMMAND_BYTES,
          "Keep large values in files and put their digests into the registry.");
    }
    try {
      CommandResult result = CommandResult.parseFrom(call(command));
      // Also after a failed condition: the caller wants to read what changed.
      awaitApplied(result.getRevision());
      return result.getEpoch() == 0 ? Optional.empty() : Optional.of(result.getEpoch());
    } catch (InvalidProtocolBufferException e) {
      throw new IllegalStateException("the registry's leader answers nonsense", e);
    } catch (InterruptedException e) {
      throw interrupted();
    }
  }

  private static Command command(List<Condition> conditions, List<Write> writes) {
    Command.Builder command = Command.newBuilder().setId(randomId());
    for (Condition condition : conditions) {
      command.addConditions(
          CommandCondition.newBuilder()
              .setKind(condition.key().kind())
              .setName(condition.key().name())
              .setEpoch(condition.epoch()));
    }
    for (Write write : writes) {
      CommandWrite.Builder one =
          CommandWrite.newBuilder().setKind(write.key().kind()).setName(write.key().name());
      write.value().ifPresent(value -> one.setValue(ByteString.copyFrom(value)));
      command.addWrites(one);
    }
    return command.build();
  }

  private static ByteString randomId() {
    UUID id = UUID.randomUUID();
    return ByteString.copyFrom(
        ByteBuffer.allocate(16)
            .putLong(id.getMostSignificantBits())
            .putLong(id.getLeastSignificantBits())
            .flip());
  }

  /** Sends to the leader, again and again until the time is up. */
  private byte[] call(byte[] command) throws InterruptedException {
    long startNs = threads.nanoTime();
    boolean ambiguous = false;
    Optional<Exception> last = Optional.empty();
    while (threads.nanoTime() - startNs < commitTimeoutNs && !closed) {
      Optional<String> leader = log.leader();
      if (leader.isPresent()) {
        try {
          switch (log.propose(leader.get(), command)) {
            case ReplicatedLog.Applied(byte[] result) -> {
              return result;
            }
            case ReplicatedLog.NoRoom(Exception reason) -> {
              if (!ambiguous) {
                throw new FlotillaException(
                    Code.STORAGE,
                    "the registry decided nothing: " + RaftRegistry.rootCause(reason),
                    "Free some space on that node's disk; the registry goes on by itself then.",
                    reason);
              }
              last = Optional.of(reason);
            }
            case ReplicatedLog.NotReady(Exception reason) -> last = Optional.of(reason);
            case ReplicatedLog.Unsure(Optional<Exception> reason) -> {
              last = reason;
              ambiguous = true;
            }
          }
        } catch (IOException e) {
          last = Optional.of(e);
          ambiguous |= !refused(e);
        }
      }
      threads.sleep(RETRY_NS);
    }
    throw noAnswer(ambiguous, last);
  }

  private static boolean refused(Throwable thrown) {
    Throwable t = thrown;
    for (int depth = 0; depth < 20 && t != null; depth++) {
      if (t instanceof ConnectException) {
        return true;
      }
      t = t.getCause();
    }
    return false;
  }

  private FlotillaException noAnswer(boolean unknown, Optional<Exception> last) {
    String reason = last.map(e -> " (" + RaftRegistry.rootCause(e) + ")").orElse("");
    FlotillaException thrown =
        unknown
            ? new FlotillaException(
                Code.OUTCOME_UNKNOWN,
                "the leader did not confirm the decision in time" + reason,
                "Read again to see whether it was made, then repeat it if not.")
            : new FlotillaException(
                Code.NO_MAJORITY,
                "no majority of the cluster's voters can be reached, so nothing was decided"
                    + reason,
                "Start the nodes that are down, or mend the network between them.");
    last.ifPresent(thrown::initCause);
    return thrown;
  }

  private void awaitApplied(long index) throws InterruptedException {
    if (!log.awaitApplied(index, commitTimeoutNs)) {
      throw new FlotillaException(
          Code.UNAVAILABLE,
          "node " + self + " lags behind the registry: at " + revision() + " of " + index,
          "It was decided all the same; check the network between this node and the leader.");
    }
  }

  private FlotillaException interrupted() {
    Thread.currentThread().interrupt();
    return new FlotillaException(
        Code.OUTCOME_UNKNOWN, "interrupted while node " + self + " waited for a decision", "");
  }

  @Override
  public AutoCloseable subscribe(Runnable onChange) {
    Subscription subscription = new Subscription(onChange);
    subscriptions.add(subscription);
    Threads.Started _ = threads.start("registry-" + self, subscription::run);
    return subscription;
  }

  /** Tells the subscribers that this node's copy, or the leader, is another now. */
  public void changed() {
    for (Subscription one : subscriptions) {
      one.signal.raise();
    }
  }

  /** Its own thread, so that a slow subscriber delays nobody else. */
  private final class Subscription implements AutoCloseable {

    private final Runnable onChange;
    private final Signal signal = new Signal(threads);
    private volatile boolean ended;

    Subscription(Runnable onChange) {
      this.onChange = onChange;
      signal.raise();
    }

    private void run() {
      try {
        while (!ended) {
          if (!signal.await(IDLE_NS) || ended) {
            continue;
          }
          try {
            onChange.run();
          } catch (RuntimeException e) {
            LOG.error("{}: a subscriber to the registry failed", self, e);
          }
        }
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
      }
    }

    @Override
    public void close() {
      subscriptions.remove(this);
      ended = true;
      signal.raise();
    }
  }

  @Override
  public void close() {
    closed = true;
    for (Subscription one : subscriptions) {
      one.close();
    }
  }
}

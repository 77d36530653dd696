package dev.flotilla.data.sql;

import com.fasterxml.jackson.databind.node.ObjectNode;
import com.google.protobuf.ByteString;
import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.data.proto.TransactionViewsGrpc;
import dev.flotilla.data.proto.TransactionViewsReply;
import dev.flotilla.data.proto.TransactionViewsRequest;
import dev.flotilla.data.sql.Transactions.Mode;
import dev.flotilla.data.sql.Transactions.Participant;
import dev.flotilla.data.sql.Transactions.State;
import dev.flotilla.data.sql.Transactions.StepDone;
import dev.flotilla.data.sql.Transactions.View;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.StreamObserver;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.ignite.Ignite;
import org.apache.ignite.cluster.ClusterNode;
import org.apache.ignite.internal.processors.cache.transactions.IgniteTxEntry;
import org.apache.ignite.internal.processors.cache.transactions.TransactionProxyImpl;

/**
 * What people can see of transactions: each node remembers those that it started, while they run
 * and for an hour or a thousand others after, and tells the other nodes when asked. In memory: what
 * must outlive a node is in the transaction itself.
 */
final class TransactionLog extends TransactionViewsGrpc.TransactionViewsImplBase {

  private static final int ENDED_MAX = 1_000;
  private static final long ENDED_MS = 3_600_000;
  private static final int STEPS_MAX = 200;
  private static final int ENTRIES_MAX = 500;
  private static final long ASK_MS = 2_000;

  private final Cluster cluster;
  private final InstantSource clock;
  private final Map<String, Entry> entries = new LinkedHashMap<>();

  TransactionLog(Cluster cluster, InstantSource clock) {
    this.cluster = cluster;
    this.clock = clock;
    cluster.addService(this);
  }

  /** One transaction of this node's. */
  final class Entry {

    private final String id;
    private final Mode mode;
    private final long startedAtMs = clock.millis();
    private final List<StepDone> steps = new ArrayList<>();
    private List<Participant> participants = List.of();
    private State state = State.ACTIVE;
    private String error = "";
    private Optional<Long> endedAtMs = Optional.empty();
    private boolean repeated;

    private Entry(String id, Mode mode) {
      this.id = id;
      this.mode = mode;
    }

    void step(String what) {
      synchronized (entries) {
        if (steps.size() < STEPS_MAX) {
          steps.add(
              new StepDone(
                  what.length() > 500 ? what.substring(0, 500) + "…" : what, clock.millis()));
        }
      }
    }

    /** Looks which nodes hold the entries of this thread's transaction. */
    void look(Ignite ignite) {
      List<Participant> found = participants(ignite);
      synchronized (entries) {
        participants = found;
      }
    }

    State state() {
      synchronized (entries) {
        return state;
      }
    }

    void state(State next, String why) {
      synchronized (entries) {
        state = next;
        error = why;
        if (next == State.COMMITTED && !repeated) {
          show();
        }
        if (next != State.ACTIVE && next != State.COMMITTING) {
          endedAtMs = Optional.of(clock.millis());
          forget();
        }
      }
    }

    /**
     * A transaction of this id had committed before: that one's record stays, here or elsewhere.
     */
    void repeats() {
      synchronized (entries) {
        repeated = true;
        entries.remove(id, this);
      }
    }

    private void show() {
      entries.remove(id);
      entries.put(id, this);
    }

    /** What is kept with the transaction itself, of what is known by now. */
    void describe(ObjectNode record) {
      synchronized (entries) {
        ObjectNode seen = TransactionJson.toJson(view());
        record.put("at_ms", clock.millis()).put("started_at_ms", startedAtMs);
        record.set("steps", seen.get("steps"));
        record.set("participants", seen.get("participants"));
      }
    }

    private View view() {
      return new View(
          id,
          mode,
          state,
          cluster.self(),
          startedAtMs,
          endedAtMs,
          error,
          participants,
          List.copyOf(steps));
    }
  }

  private static List<Participant> participants(Ignite ignite) {
    if (!(ignite.transactions().tx() instanceof TransactionProxyImpl<?, ?> proxy)) {
      return List.of();
    }
    Map<String, TreeSet<String>> byNode = new TreeMap<>();
    int seen = 0;
    for (IgniteTxEntry entry : new ArrayList<>(proxy.tx().allEntries())) {
      if (seen++ == ENTRIES_MAX) {
        break;
      }
      String cache = entry.context().name();
      int partition = entry.key().partition();
      for (ClusterNode node : ignite.affinity(cache).mapPartitionToPrimaryAndBackups(partition)) {
        byNode
            .computeIfAbsent(String.valueOf(node.consistentId()), any -> new TreeSet<>())
            .add(cache + ":" + partition);
      }
    }
    List<Participant> participants = new ArrayList<>();
    byNode.forEach(
        (node, partitions) -> participants.add(new Participant(node, List.copyOf(partitions))));
    return participants;
  }

  Entry begin(String id, Mode mode) {
    Entry entry = new Entry(id, mode);
    synchronized (entries) {
      Entry before = entries.get(id);
      // What has committed is not hidden by one that will find that, or fail.
      if (before == null || before.state != State.COMMITTED) {
        entry.show();
      }
      forget();
    }
    return entry;
  }

  private void forget() {
    long old = clock.millis() - ENDED_MS;
    int[] ended = {0};
    entries.values().forEach(entry -> ended[0] += entry.endedAtMs.isPresent() ? 1 : 0);
    entries
        .values()
        .removeIf(
            entry ->
                entry.endedAtMs.isPresent()
                    && (ended[0]-- > ENDED_MAX || entry.endedAtMs.get() < old));
  }

  /** How one ended whose end was not known. */
  void settled(String id, State how) {
    synchronized (entries) {
      Entry entry = entries.get(id);
      if (entry != null && entry.state == State.UNKNOWN) {
        entry.state = how;
        entry.error = "";
      }
    }
  }

  private List<View> own(String id) {
    synchronized (entries) {
      return entries.values().stream()
          .filter(entry -> id.isEmpty() || entry.id.equals(id))
          .map(Entry::view)
          .toList();
    }
  }

  @Override
  public void list(TransactionViewsRequest request, StreamObserver<TransactionViewsReply> reply) {
    reply.onNext(
        TransactionViewsReply.newBuilder()
            .addAllViews(
                own(request.getId()).stream()
                    .map(view -> ByteString.copyFrom(Json.write(view)))
                    .toList())
            .build());
    reply.onCompleted();
  }

  /**
   * On all nodes that answer, newest first. Of several of one id the one that has committed counts,
   * or else the newest.
   */
  List<View> list(String id) {
    List<Callable<Collection<View>>> asks = new ArrayList<>();
    asks.add(() -> own(id));
    for (NodeInfo node : cluster.nodes()) {
      if (!node.id().equals(cluster.self())) {
        asks.add(() -> ask(node.id(), id));
      }
    }
    List<View> views = new ArrayList<>();
    try (ExecutorService threads = Executors.newVirtualThreadPerTaskExecutor()) {
      for (Future<Collection<View>> answer : threads.invokeAll(asks)) {
        views.addAll(answer.get());
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new FlotillaException(FlotillaException.Code.FAILED, "interrupted", "", e);
    } catch (ExecutionException e) {
      throw new IllegalStateException(e.getCause());
    }
    views.sort(Comparator.comparingLong(View::startedAtMs).reversed());
    Map<String, View> byId = new LinkedHashMap<>();
    for (View view : views) {
      byId.merge(
          view.id(),
          view,
          (newer, older) ->
              newer.state() != State.COMMITTED && older.state() == State.COMMITTED ? older : newer);
    }
    return List.copyOf(byId.values());
  }

  private Collection<View> ask(String node, String id) {
    try {
      return TransactionViewsGrpc.newBlockingStub(cluster.channel(node))
          .withDeadlineAfter(ASK_MS, TimeUnit.MILLISECONDS)
          .list(TransactionViewsRequest.newBuilder().setId(id).build())
          .getViewsList()
          .stream()
          .map(view -> Json.read(view.toByteArray(), View.class))
          .toList();
    } catch (StatusRuntimeException | FlotillaException away) {
      return List.of();
    }
  }
}

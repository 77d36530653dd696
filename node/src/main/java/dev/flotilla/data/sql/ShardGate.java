package dev.flotilla.data.sql;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.data.proto.ReachReply;
import dev.flotilla.data.proto.ReachRequest;
import dev.flotilla.data.proto.ShardsGrpc;
import dev.flotilla.data.sql.GridSharding.Stored;
import io.grpc.stub.StreamObserver;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Deque;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import org.apache.calcite.sql.SqlInsert;
import org.apache.calcite.sql.SqlKind;
import org.apache.calcite.sql.SqlNode;
import org.apache.ignite.Ignite;
import org.apache.ignite.IgniteCache;
import org.apache.ignite.internal.IgniteEx;
import org.apache.ignite.internal.processors.cache.transactions.IgniteTxEntry;
import org.apache.ignite.internal.processors.cache.transactions.TransactionProxyImpl;
import org.jspecify.annotations.Nullable;

/**
 * Which tables a node's statements run on now. A statement holds a pass from its beginning to its
 * end, and sees the tables as one state of the registry had them. A node that moves rows asks every
 * node to reach a newer state: each lets no more statements begin under the old one, and answers
 * when the last of those has ended. So no two statements anywhere run under states that are two
 * steps apart, which is what {@link ShardMove} rests on.
 */
final class ShardGate extends ShardsGrpc.ShardsImplBase {

  /** One state, and the statements that run under it. */
  static final class Era {
    final Map<String, Stored> tables;
    final boolean holding;
    int running;

    Era(Collection<Stored> stored) {
      tables = new HashMap<>();
      boolean hold = false;
      for (Stored each : stored) {
        tables.put(each.table(), each);
        hold |= each.moving().map(GridSharding.Moving::holding).orElse(false);
      }
      holding = hold;
    }
  }

  private static final long HOLD_PATIENCE_NS = 30_000_000_000L;

  private final Cluster cluster;
  private final ReentrantLock lock = new ReentrantLock();
  private final Condition changed = lock.newCondition();
  private final Deque<Era> older = new ArrayDeque<>();
  private Era current = new Era(List.of());
  private long revision = -1;
  private boolean subscribed;

  ShardGate(Cluster cluster) {
    this.cluster = cluster;
  }

  /** Called at each start of the engine, before anything runs on it. */
  void start() {
    cluster.registry().sync();
    look();
    boolean first;
    lock.lock();
    try {
      first = !subscribed;
      subscribed = true;
    } finally {
      lock.unlock();
    }
    if (first) {
      var _ = cluster.registry().subscribe(this::look);
    }
  }

  private void look() {
    lock.lock();
    try {
      long now = cluster.registry().revision();
      if (now <= revision) {
        return;
      }
      List<Stored> stored = GridSharding.stored(cluster.registry());
      Era next = new Era(stored);
      if (revision < 0 || !next.tables.equals(current.tables)) {
        older.add(current);
        current = next;
        older.removeIf(era -> era.running == 0);
      }
      revision = now;
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }

  Pass pass() {
    lock.lock();
    try {
      if (revision < 0) {
        throw new FlotillaException(
            Code.UNAVAILABLE, "this node's tables are not known yet", "Try again soon.");
      }
      long left = HOLD_PATIENCE_NS;
      while (current.holding) {
        if (left <= 0) {
          throw new FlotillaException(
              Code.UNAVAILABLE,
              "a table's rows are being moved, and the last step of that takes too long",
              "Nothing was done; try again.");
        }
        left = changed.awaitNanos(left);
      }
      current.running++;
      return new Pass(current);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new FlotillaException(Code.FAILED, "interrupted", "", e);
    } finally {
      lock.unlock();
    }
  }

  @Override
  public void reach(ReachRequest request, StreamObserver<ReachReply> reply) {
    boolean reached;
    try {
      reached = reach(request.getEpoch(), request.getWaitMs());
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      reached = false;
    }
    reply.onNext(ReachReply.newBuilder().setReached(reached).build());
    reply.onCompleted();
  }

  /** Whether this node works by that state, or a later one, and nothing older runs. */
  boolean reach(long epoch, long waitMs) throws InterruptedException {
    long left = TimeUnit.MILLISECONDS.toNanos(waitMs);
    lock.lock();
    try {
      while (revision < epoch || !older.isEmpty()) {
        if (left <= 0) {
          return false;
        }
        left = changed.awaitNanos(left);
      }
      return true;
    } finally {
      lock.unlock();
    }
  }

  /** See {@link GridSharding#pass}. */
  final class Pass implements AutoCloseable {

    private final Era era;
    private boolean closed;

    Pass(Era era) {
      this.era = era;
    }

    Optional<Stored> table(String name) {
      return Optional.ofNullable(era.tables.get(name));
    }

    /** What users call a table of the engine's. */
    String logicalName(String physical) {
      return era.tables.values().stream()
          .filter(each -> each.physical().equals(physical))
          .map(Stored::table)
          .findFirst()
          .orElse(physical);
    }

    /**
     * The statement with each table's name as the engine has it now.
     *
     * @throws FlotillaException {@code CONFLICT} if it would change the form of a table that is
     *     being moved, {@code NOT_FOUND} if it names one as the engine does, and so past its
     *     sharding
     */
    SqlText resolve(String statement) {
      return resolve(SqlText.of(statement));
    }

    SqlText resolve(SqlText text) {
      String statement = text.text();
      if (era.tables.values().stream()
          .noneMatch(each -> each.generation() > 0 || each.moving().isPresent())) {
        return text;
      }
      SqlNode parsed = SqlTables.parse(statement);
      List<SqlText.Edit> edits = new ArrayList<>();
      for (SqlTables.Reference reference : SqlTables.of(statement, parsed)) {
        Stored stored = era.tables.get(reference.table());
        if (stored == null) {
          if (isEngines(reference.table())) {
            throw new FlotillaException(
                Code.NOT_FOUND, "there is no table " + reference.table(), "Check the name.");
          }
          continue;
        }
        if (reference.definition() && stored.moving().isPresent()) {
          throw GridSharding.beingMoved(stored.table());
        }
        if (stored.generation() > 0) {
          String name = "\"" + stored.physical() + "\"";
          edits.add(
              new SqlText.Edit(
                  reference.start(),
                  reference.end(),
                  reference.named() ? name : name + " AS \"" + stored.table() + "\""));
        }
      }
      return text.edited(edits);
    }

    /** Whether only the engine calls a table so. */
    private boolean isEngines(String name) {
      return era.tables.values().stream()
          .anyMatch(
              each ->
                  each.physical().equals(name)
                      || each.target().equals(Optional.of(name))
                      || each.left().stream().anyMatch(left -> each.physical(left).equals(name)));
    }

    /**
     * The partitions that a query of one sharded table can be confined to, by its condition; empty
     * if it may need all.
     */
    Optional<int[]> partitions(String statement, List<? extends @Nullable Object> arguments) {
      if (era.tables.isEmpty()) {
        return Optional.empty();
      }
      SqlNode parsed = SqlTables.parse(statement);
      List<SqlTables.Reference> references = SqlTables.of(statement, parsed);
      boolean query = parsed.isA(SqlKind.QUERY) && !(parsed instanceof SqlInsert);
      if (!query || references.size() != 1) {
        return Optional.empty();
      }
      return table(references.getFirst().table())
          .filter(stored -> stored.strategy() != Sharding.Strategy.HASH)
          .flatMap(
              stored ->
                  GridSharding.confined(stored, references.getFirst().alias(), parsed, arguments));
    }

    /** Whether writes must run in a transaction that {@link #mirror} ends. */
    boolean mirrors() {
      return era.tables.values().stream().anyMatch(each -> each.moving().isPresent());
    }

    /**
     * Writes what this thread's transaction wrote to tables that are being moved to where they are
     * going, too. Call it before the commit.
     */
    void mirror(Ignite ignite) {
      if (!mirrors() || !(ignite.transactions().tx() instanceof TransactionProxyImpl<?, ?> tx)) {
        return;
      }
      Map<Integer, Stored> moving = new TreeMap<>();
      for (Stored each : era.tables.values()) {
        if (each.moving().isPresent()) {
          IgniteCache<?, ?> cache = ignite.cache(GridSharding.cacheName(each.physical()));
          moving.put(((IgniteEx) ignite).cachex(cache.getName()).context().cacheId(), each);
        }
      }
      Map<Stored, Set<Object>> written = new HashMap<>();
      for (IgniteTxEntry entry : new ArrayList<>(tx.tx().writeEntries())) {
        Stored stored = moving.get(entry.cacheId());
        if (stored != null) {
          Object key =
              entry.key() instanceof org.apache.ignite.binary.BinaryObject binary
                  ? binary
                  : Objects.requireNonNull(
                      entry.key().<Object>value(entry.context().cacheObjectContext(), false));
          written.computeIfAbsent(stored, any -> new HashSet<>()).add(key);
        }
      }
      written.forEach((stored, keys) -> copy(ignite, stored, keys));
    }

    @Override
    public void close() {
      lock.lock();
      try {
        if (!closed) {
          closed = true;
          era.running--;
          if (era != current && era.running == 0) {
            older.remove(era);
            changed.signalAll();
          }
        }
      } finally {
        lock.unlock();
      }
    }
  }

  /** Makes the table's target have these keys as the table has them; inside a transaction. */
  static int copy(Ignite ignite, Stored stored, Collection<Object> keys) {
    IgniteCache<Object, Object> from =
        ignite.cache(GridSharding.cacheName(stored.physical())).withKeepBinary();
    IgniteCache<Object, Object> to =
        ignite.cache(GridSharding.cacheName(stored.target().orElseThrow())).withKeepBinary();
    Map<Object, Object> found = from.getAll(new java.util.LinkedHashSet<>(keys));
    Set<Object> gone = new java.util.LinkedHashSet<>(keys);
    gone.removeAll(found.keySet());
    to.putAll(found);
    if (!gone.isEmpty()) {
      to.removeAll(gone);
    }
    return found.size();
  }
}

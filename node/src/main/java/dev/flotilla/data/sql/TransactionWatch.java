package dev.flotilla.data.sql;

import java.util.HashSet;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.function.LongSupplier;
import org.apache.ignite.Ignite;
import org.apache.ignite.IgniteCheckedException;
import org.apache.ignite.IgniteException;
import org.apache.ignite.internal.GridKernalContext;
import org.apache.ignite.internal.IgniteEx;
import org.apache.ignite.internal.processors.cache.distributed.near.GridNearTxLocal;
import org.apache.ignite.internal.processors.cache.transactions.IgniteTxEntry;
import org.apache.ignite.internal.processors.cache.transactions.IgniteTxKey;
import org.apache.ignite.internal.processors.cache.transactions.TransactionProxyImpl;
import org.apache.ignite.internal.processors.cache.transactions.TxDeadlock;
import org.apache.ignite.internal.processors.cache.version.GridCacheVersion;
import org.apache.ignite.transactions.TransactionState;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Rolls back transactions whose time is over, and one of each circle that wait for each other.
 *
 * <p>The engine would do both itself, by its time-out. But a statement of SQL runs on threads of
 * its own, which look its transaction up by its number, and <em>write outside of any transaction if
 * it is gone</em>: a transaction rolled back by another thread at such a moment was applied in
 * half. So the engine is given no time-out for transactions with SQL in them; they are rolled back
 * here, and never while a statement of theirs runs ({@link Watched#enterStatement}). A statement
 * waits for no lock of another transaction, for its locks are taken before it begins ({@link
 * SqlLocks}), and has a time-out of its own.
 *
 * <p>When nodes come or go, or tables and caches are made, the engine waits for the transactions
 * that run, and all that begins then waits for it. So those that hold it up for a second, because
 * they wait for something themselves or for their client, are rolled back too.
 *
 * <p>The engine can follow who waits for whom over the nodes; it is asked for those that have
 * waited for a while. All nodes that see a circle agree on the one to roll back, the one that began
 * last, and only its own node does it.
 */
final class TransactionWatch implements AutoCloseable {

  /** Why a transaction was rolled back here. */
  enum Reason {
    DEADLOCK,
    TIMEOUT,
    /** The engine's topology changes, which waits for all transactions. */
    TOPOLOGY
  }

  /** A transaction from its beginning to its commit. */
  final class Watched {
    private final String id;
    private final Ignite ignite;
    private final @Nullable GridNearTxLocal transaction;
    private final long sinceNs;
    private final long deadlineNs;
    private boolean inStatement;
    private @Nullable Reason reason;

    private Watched(
        String id,
        Ignite ignite,
        @Nullable GridNearTxLocal transaction,
        long sinceNs,
        long deadlineNs) {
      this.id = id;
      this.ignite = ignite;
      this.transaction = transaction;
      this.sinceNs = sinceNs;
      this.deadlineNs = deadlineNs;
    }

    /**
     * From here to {@link #leaveStatement} it is not rolled back.
     *
     * @throws IgniteException if it has been, or its time is over
     */
    synchronized void enterStatement() {
      check();
      if (transaction != null && transaction.state() != TransactionState.ACTIVE) {
        throw new IgniteException("transaction " + id + " has been rolled back");
      }
      inStatement = true;
    }

    synchronized void leaveStatement() {
      inStatement = false;
    }

    /**
     * It is about to commit, and is watched no longer.
     *
     * @throws IgniteException if it has been rolled back, or its time is over
     */
    synchronized void commit() {
      check();
      running.remove(id);
      inStatement = true;
    }

    private void check() {
      if (reason == null && nanoTime.getAsLong() > deadlineNs) {
        reason = Reason.TIMEOUT;
      }
      if (reason != null) {
        throw new IgniteException("transaction " + id + ": " + reason);
      }
    }

    /** It has ended; says whether it was rolled back here. */
    synchronized Optional<Reason> end() {
      running.remove(id);
      return Optional.ofNullable(reason);
    }

    private synchronized void rollBack(Reason why) {
      if (inStatement || reason != null || transaction == null || !running.containsKey(id)) {
        return;
      }
      reason = why;
      log.info("transaction {} is rolled back: {}", id, why);
      var _ = transaction.rollbackNearTxLocalAsync(false, false);
    }
  }

  private static final Logger log = LoggerFactory.getLogger(TransactionWatch.class);
  private static final long PATIENCE_NS = 400_000_000L;
  private static final long TOPOLOGY_PATIENCE_NS = 1_000_000_000L;
  private static final long PERIOD_MS = 250;
  private static final long SEARCH_MS = 5_000;

  private final LongSupplier nanoTime;
  private final Map<String, Watched> running = new ConcurrentHashMap<>();

  /** Since when the topology has been changing; only the timer's thread uses it. */
  private @Nullable Long changingSinceNs;

  private final ScheduledExecutorService timer =
      Executors.newSingleThreadScheduledExecutor(
          Thread.ofPlatform().daemon().name("transaction-watch").factory());

  TransactionWatch(LongSupplier nanoTime) {
    this.nanoTime = nanoTime;
    timer.scheduleWithFixedDelay(this::look, PERIOD_MS, PERIOD_MS, TimeUnit.MILLISECONDS);
  }

  /** Watches this thread's transaction. */
  Watched watch(String id, Ignite ignite, long timeoutMs) {
    long now = nanoTime.getAsLong();
    GridNearTxLocal transaction =
        ignite.transactions().tx() instanceof TransactionProxyImpl<?, ?> proxy ? proxy.tx() : null;
    Watched watched =
        new Watched(id, ignite, transaction, now, now + TimeUnit.MILLISECONDS.toNanos(timeoutMs));
    running.put(id, watched);
    return watched;
  }

  private void look() {
    boolean heldUp = isTopologyHeldUp();
    running.forEach(
        (id, watched) -> {
          try {
            long now = nanoTime.getAsLong();
            if (now > watched.deadlineNs) {
              watched.rollBack(Reason.TIMEOUT);
            } else if (heldUp && now - watched.sinceNs > TOPOLOGY_PATIENCE_NS) {
              watched.rollBack(Reason.TOPOLOGY);
            } else if (now - watched.sinceNs > PATIENCE_NS) {
              look(watched);
            }
          } catch (IgniteCheckedException | IgniteException | IllegalStateException e) {
            log.debug("transaction {} cannot be searched for a deadlock: {}", id, e.getMessage());
          } catch (RuntimeException e) {
            log.warn("transaction {} cannot be searched for a deadlock", id, e);
          }
        });
  }

  private boolean isTopologyHeldUp() {
    Ignite engine = running.values().stream().findAny().map(one -> one.ignite).orElse(null);
    long now = nanoTime.getAsLong();
    try {
      if (engine == null || !isTopologyChanging(((IgniteEx) engine).context())) {
        changingSinceNs = null;
        return false;
      }
    } catch (IgniteException | IllegalStateException stopped) {
      changingSinceNs = null;
      return false;
    }
    if (changingSinceNs == null) {
      changingSinceNs = now;
    }
    return now - changingSinceNs > TOPOLOGY_PATIENCE_NS;
  }

  private static boolean isTopologyChanging(GridKernalContext context) {
    return context
            .cache()
            .context()
            .exchange()
            .readyAffinityVersion()
            .compareTo(context.discovery().topologyVersionEx())
        < 0;
  }

  private static void look(Watched watched) throws IgniteCheckedException {
    GridNearTxLocal transaction = watched.transaction;
    if (transaction == null) {
      return;
    }
    Set<IgniteTxKey> wanted = new HashSet<>();
    for (IgniteTxEntry entry : transaction.allEntries()) {
      if (!entry.locked()) {
        wanted.add(entry.txKey());
      }
    }
    if (wanted.isEmpty() || !transaction.pessimistic()) {
      return;
    }
    TxDeadlock found =
        ((IgniteEx) watched.ignite)
            .context()
            .cache()
            .context()
            .tm()
            .detectDeadlock(transaction, wanted)
            .get(SEARCH_MS);
    if (found == null) {
      return;
    }
    GridCacheVersion last = found.cycle().getFirst();
    for (GridCacheVersion version : found.cycle()) {
      last = version.compareTo(last) > 0 ? version : last;
    }
    if (last.equals(transaction.nearXidVersion())) {
      watched.rollBack(Reason.DEADLOCK);
    }
  }

  @Override
  public void close() {
    timer.shutdownNow();
  }
}

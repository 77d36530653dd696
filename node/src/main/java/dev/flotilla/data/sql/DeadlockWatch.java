package dev.flotilla.data.sql;

import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.function.LongSupplier;
import org.apache.ignite.Ignite;
import org.apache.ignite.IgniteCheckedException;
import org.apache.ignite.IgniteException;
import org.apache.ignite.internal.IgniteEx;
import org.apache.ignite.internal.processors.cache.distributed.near.GridNearTxLocal;
import org.apache.ignite.internal.processors.cache.transactions.IgniteTxEntry;
import org.apache.ignite.internal.processors.cache.transactions.IgniteTxKey;
import org.apache.ignite.internal.processors.cache.transactions.TransactionProxyImpl;
import org.apache.ignite.internal.processors.cache.transactions.TxDeadlock;
import org.apache.ignite.internal.processors.cache.version.GridCacheVersion;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Finds transactions that wait for each other in a circle. The engine can follow who waits for whom
 * over the nodes, but does so only when a transaction's time is over anyway; here each node asks it
 * for those of its own that have waited for a while. All nodes that see a circle agree on the one
 * to roll back, the one that began last, and only its own node does it.
 */
final class DeadlockWatch implements AutoCloseable {

  private record Watched(Ignite ignite, GridNearTxLocal transaction, long sinceNs) {}

  private static final Logger log = LoggerFactory.getLogger(DeadlockWatch.class);
  private static final long PATIENCE_NS = 400_000_000L;
  private static final long PERIOD_MS = 250;
  private static final long SEARCH_MS = 5_000;

  private final LongSupplier nanoTime;
  private final Map<String, Watched> running = new ConcurrentHashMap<>();
  private final Set<String> victims = ConcurrentHashMap.newKeySet();
  private final ScheduledExecutorService timer =
      Executors.newSingleThreadScheduledExecutor(
          Thread.ofPlatform().daemon().name("deadlock-watch").factory());

  DeadlockWatch(LongSupplier nanoTime) {
    this.nanoTime = nanoTime;
    timer.scheduleWithFixedDelay(this::look, PERIOD_MS, PERIOD_MS, TimeUnit.MILLISECONDS);
  }

  /** Watches this thread's transaction. */
  void watch(String id, Ignite ignite) {
    if (ignite.transactions().tx() instanceof TransactionProxyImpl<?, ?> proxy) {
      running.put(id, new Watched(ignite, proxy.tx(), nanoTime.getAsLong()));
    }
  }

  /** Stops watching it, and says whether it was rolled back here. */
  boolean ended(String id) {
    running.remove(id);
    return victims.remove(id);
  }

  private void look() {
    running.forEach(
        (id, watched) -> {
          try {
            if (nanoTime.getAsLong() - watched.sinceNs() > PATIENCE_NS) {
              look(id, watched);
            }
          } catch (IgniteCheckedException | IgniteException | IllegalStateException e) {
            log.debug("transaction {} cannot be searched for a deadlock: {}", id, e.getMessage());
          } catch (RuntimeException e) {
            log.warn("transaction {} cannot be searched for a deadlock", id, e);
          }
        });
  }

  private void look(String id, Watched watched) throws IgniteCheckedException {
    GridNearTxLocal transaction = watched.transaction();
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
        ((IgniteEx) watched.ignite())
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
    if (last.equals(transaction.nearXidVersion()) && running.containsKey(id)) {
      victims.add(id);
      log.info("transaction {} is rolled back: it and another waited for each other", id);
      var _ = transaction.rollbackNearTxLocalAsync(false, false);
    }
  }

  @Override
  public void close() {
    timer.shutdownNow();
  }
}

package dev.flotilla.bench;

import dev.flotilla.FlotillaException;
import dev.flotilla.app.Flotilla;
import dev.flotilla.cluster.Locks;
import dev.flotilla.data.cache.Cache;
import dev.flotilla.data.cache.CacheConfig;
import dev.flotilla.data.cache.CacheStatistics;
import dev.flotilla.data.queue.Queue;
import dev.flotilla.data.queue.QueueConfig;
import dev.flotilla.data.sql.Sql;
import java.time.Duration;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.Callable;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

/** The data plane's work as a program does it on its embedded node: {@link PeerFigures} of ours. */
final class DataFigures {

  private static final byte[] VALUE = new byte[100];
  private static final List<String> KEYS =
      IntStream.range(0, 10_000).mapToObj(i -> "key-" + i).toList();
  private static final int AT_ONCE = 500;
  private static final int REFILL = 8_000;
  private static final int TRIES = 20;
  private static final Duration VISIBILITY = Duration.ofSeconds(30);

  /** A near hit takes so little that samples of more than this would not fit the memory. */
  private static final double NEAR_SECONDS_MAX = 1;

  /** The JVM compiles what runs often, and takes about so long to have done it. */
  static final int WARM_SECONDS = 12;

  /** As many messages as it takes; otherwise what a queue has by default. */
  private static final QueueConfig DEEP =
      new QueueConfig(
          QueueConfig.DEFAULT.partitions(),
          100_000_000,
          QueueConfig.DEFAULT.attemptsMax(),
          QueueConfig.DEFAULT.retentionMs(),
          QueueConfig.DEFAULT.dedupMs());

  /** A rate, and how many of the reads were hits of the near cache, 0 to 1. */
  record Near(Load.Figures figures, double share) {}

  private final Flotilla flotilla;
  private final double seconds;
  private final AtomicLong refused = new AtomicLong();

  DataFigures(Flotilla flotilla, double seconds) {
    this.flotilla = flotilla;
    this.seconds = seconds;
  }

  /** Operations so far that another's transaction stood in the way of, and were done again. */
  long refused() {
    return refused.get();
  }

  private <T> T patiently(Callable<T> operation) throws Exception {
    for (int tries = 1; ; tries++) {
      try {
        return operation.call();
      } catch (FlotillaException e) {
        boolean inTheWay =
            e.code() == FlotillaException.Code.CONFLICT || e.code() == FlotillaException.Code.BUSY;
        if (!inTheWay || tries == TRIES) {
          throw e;
        }
        refused.incrementAndGet();
      }
    }
  }

  /** Each client's own share of the keys, round and round. */
  private static int turn(long count, int clients, int number) {
    return (int) ((count * clients + number) % KEYS.size());
  }

  private Cache filled(String name, CacheConfig config) throws Exception {
    Cache cache = flotilla.caches().create(name, config);
    for (int from = 0; from < KEYS.size(); from += AT_ONCE) {
      Map<String, byte[]> some = new HashMap<>();
      KEYS.subList(from, from + AT_ONCE).forEach(key -> some.put(key, VALUE));
      patiently(
          () -> {
            cache.putAll(some, Optional.empty());
            return some.size();
          });
    }
    return cache;
  }

  /** Reads what this node has read before. */
  Near cacheGetNear(int clients) throws Exception {
    Cache cache = filled("bench-near", CacheConfig.DEFAULT);
    for (int from = 0; from < KEYS.size(); from += AT_ONCE) {
      if (cache.getAll(KEYS.subList(from, from + AT_ONCE)).size() != AT_ONCE) {
        throw new IllegalStateException("entries are missing");
      }
    }
    CacheStatistics before = cache.statistics();
    Load.Figures figures = get(cache, clients, Math.min(seconds, NEAR_SECONDS_MAX));
    CacheStatistics after = cache.statistics();
    double near = after.nearHits() - before.nearHits();
    return new Near(figures, near / (near + after.gridHits() - before.gridHits()));
  }

  /** Reads from the grid, as a cache without near caches does. */
  Load.Figures cacheGetFar(int clients) throws Exception {
    return get(filled("bench-far", CacheConfig.DEFAULT.withNearBytes(0)), clients, seconds);
  }

  private static Load.Figures get(Cache cache, int clients, double seconds) throws Exception {
    return Load.run(
        clients,
        seconds,
        1,
        number -> {
          long[] count = {0};
          return () -> {
            if (cache.get(KEYS.get(turn(count[0]++, clients, number))).isEmpty()) {
              throw new IllegalStateException("an entry is missing");
            }
          };
        });
  }

  Load.Figures cachePut(int clients) throws Exception {
    Cache cache = filled("bench-near", CacheConfig.DEFAULT);
    return Load.run(
        clients,
        seconds,
        1,
        number -> {
          long[] count = {0};
          return () -> {
            String key = KEYS.get(turn(count[0]++, clients, number));
            patiently(() -> cache.put(key, VALUE, Optional.empty()));
          };
        });
  }

  /** Each client its own lock, which nobody else wants. */
  Load.Figures lock(int clients) throws Exception {
    Locks locks = flotilla.locks();
    return Load.run(
        clients,
        seconds,
        1,
        number -> {
          String name = "bench-" + number;
          return () -> {
            Locks.Grant grant =
                locks.acquire(Locks.Request.exclusive(name, "client-" + number)).orElseThrow();
            if (!locks.release(grant)) {
              throw new IllegalStateException("the lock was lost");
            }
          };
        });
  }

  /**
   * Sends a batch by one call.
   *
   * @param together all of a batch under one key, new for each batch; else under no key: those of a
   *     call stay together all the same, and the partitions take turns
   */
  Load.Figures send(int clients, int batch, boolean together) throws Exception {
    Queue queue =
        flotilla
            .queues()
            .create(String.format(Locale.ROOT, "send-%d-%d-%b", batch, clients, together), DEEP);
    return Load.run(
        clients,
        seconds,
        batch,
        number -> {
          long[] count = {0};
          return () -> {
            String key = together ? number + "-" + count[0]++ : "";
            List<Queue.Outgoing> messages =
                Collections.nCopies(batch, Queue.Outgoing.of(key, VALUE));
            if (patiently(() -> queue.send(messages, Optional.empty())).size() != batch) {
              throw new IllegalStateException("not all were sent");
            }
          };
        });
  }

  /** Sends and receives without measuring. */
  void warmQueues() throws Exception {
    DataFigures warm = new DataFigures(flotilla, WARM_SECONDS / 4.0 * 3 / 4);
    warm.send(1, 1, true);
    warm.send(8, 1, true);
    warm.receive(1, 1);
    warm.receive(8, 10);
  }

  /** Receives a batch, then acknowledges it: two commits. The messages have no order. */
  Load.Figures receive(int clients, int batch) throws Exception {
    Queue queue =
        flotilla.queues().create(String.format(Locale.ROOT, "receive-%d-%d", batch, clients), DEEP);
    AtomicLong left = new AtomicLong();
    while (left.get() < (batch == 1 ? 3L : 8L) * REFILL) {
      fill(queue, left);
    }
    return Load.run(
        clients,
        seconds,
        batch,
        number ->
            () -> {
              int wanted = batch;
              while (wanted > 0) {
                int most = wanted;
                List<Queue.Message> received =
                    patiently(
                        () ->
                            queue.receive(
                                Queue.DEFAULT_GROUP,
                                "client-" + number,
                                most,
                                VISIBILITY,
                                Duration.ZERO));
                if (received.isEmpty()) {
                  // On the clock: it costs us, not the others.
                  refill(queue, left, clients * batch);
                  continue;
                }
                List<String> receipts = received.stream().map(Queue.Message::receipt).toList();
                patiently(
                    () -> {
                      queue.acknowledge(receipts, Optional.empty());
                      return receipts.size();
                    });
                wanted -= received.size();
                left.addAndGet(-received.size());
              }
            });
  }

  private void refill(Queue queue, AtomicLong left, int inFlightMax) throws Exception {
    synchronized (left) {
      if (left.get() <= inFlightMax) {
        fill(queue, left);
      }
    }
  }

  private void fill(Queue queue, AtomicLong left) throws Exception {
    List<Queue.Outgoing> messages =
        Collections.nCopies(Queue.BATCH_MAX, Queue.Outgoing.of("", VALUE));
    for (int sent = 0; sent < REFILL; sent += messages.size()) {
      left.addAndGet(patiently(() -> queue.send(messages, Optional.empty())).size());
    }
  }

  private Sql table() {
    Sql sql = flotilla.sql();
    if (sql.tables().stream().anyMatch(table -> table.name().equals("BENCH"))) {
      return sql;
    }
    sql.execute("CREATE TABLE bench (k INT PRIMARY KEY, v BIGINT)");
    for (int from = 0; from < KEYS.size(); from += AT_ONCE) {
      sql.execute(
          IntStream.range(from, from + AT_ONCE)
              .mapToObj(k -> "(" + k + ", 0)")
              .collect(Collectors.joining(", ", "INSERT INTO bench (k, v) VALUES ", "")));
    }
    return sql;
  }

  /** One row by its key. */
  Load.Figures select(int clients) throws Exception {
    Sql sql = table();
    return Load.run(
        clients,
        seconds,
        1,
        number -> {
          long[] count = {0};
          return () -> {
            int key = turn(count[0]++, clients, number);
            if (sql.execute("SELECT v FROM bench WHERE k = ?", key).rows().size() != 1) {
              throw new IllegalStateException("no row");
            }
          };
        });
  }

  /** One row changed, one commit. */
  Load.Figures update(int clients) throws Exception {
    Sql sql = table();
    return Load.run(
        clients,
        seconds,
        1,
        number -> {
          long[] count = {0};
          return () -> {
            int key = turn(count[0]++, clients, number);
            long updated =
                patiently(() -> sql.execute("UPDATE bench SET v = v + 1 WHERE k = ?", key))
                    .updated();
            if (updated != 1) {
              throw new IllegalStateException("no row");
            }
          };
        });
  }
}

package dev.flotilla.data.cache;

import dev.flotilla.FlotillaException;
import dev.flotilla.data.grid.Grid;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.PriorityQueue;
import java.util.TreeMap;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;
import javax.cache.Cache.Entry;
import org.apache.ignite.Ignite;
import org.apache.ignite.IgniteCache;
import org.apache.ignite.cache.CachePeekMode;
import org.apache.ignite.cache.query.QueryCursor;
import org.apache.ignite.cache.query.ScanQuery;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Clears expired entries out of the grid, and keeps caches within their bounds: each node looks
 * after the entries of which it is the first owner, every {@value #PERIOD_MS} ms.
 *
 * <p>A cache is looked through only if it has more entries than it may, or their number has changed
 * by a twentieth since the last time, or half a minute has gone by. Its share of a bound is that of
 * its partitions. Over a bound, the entries written longest ago go, down to nine tenths of it. So
 * the bounds are soft: a cache holds over them what is written in {@value #PERIOD_MS} ms and for as
 * long as a look takes; over its bytes, but not its entries, where values get larger under the same
 * keys, that of half a minute. (Which entries are read often is known to the near caches, which
 * keep those; the grid itself does not count reads.)
 */
final class CacheBounds implements AutoCloseable {

  private static final long PERIOD_MS = 2000;
  private static final long LOOK_AGAIN_MS = 30_000;
  private static final int BATCH = 500;
  private static final Logger log = LoggerFactory.getLogger(CacheBounds.class);

  /** What is known of an entry without its value. */
  private record Seen(String key, long version, long writtenAtMs, long bytes) {}

  /** What a look through this node's share of a cache has found. */
  record Share(long bytes, double entriesMax, List<Seen> expired, List<Seen> oldest) {}

  private record Looked(long entries, double entriesMax, long atMs) {}

  private final Grid grid;
  private final InstantSource clock;
  private final NearCoherence coherence;
  private final Supplier<List<GridCache>> caches;
  private final Runnable finishDrops;
  private final Map<String, Looked> looked = new HashMap<>();
  private final ScheduledExecutorService timer =
      Executors.newSingleThreadScheduledExecutor(
          Thread.ofPlatform().daemon().name("cache-bounds").factory());

  CacheBounds(
      Grid grid,
      InstantSource clock,
      NearCoherence coherence,
      Supplier<List<GridCache>> caches,
      Runnable finishDrops) {
    this.grid = grid;
    this.clock = clock;
    this.coherence = coherence;
    this.caches = caches;
    this.finishDrops = finishDrops;
  }

  void start() {
    timer.scheduleWithFixedDelay(this::look, PERIOD_MS, PERIOD_MS, TimeUnit.MILLISECONDS);
  }

  private void look() {
    try {
      finishDrops.run();
      for (GridCache cache : caches.get()) {
        keep(cache);
      }
    } catch (FlotillaException e) {
      log.debug("caches are not looked after now: {}", e.getMessage());
    } catch (RuntimeException e) {
      // The timer must go on.
      log.warn("caches could not be looked after: {}", e.toString());
    }
  }

  private void keep(GridCache cache) {
    String what = "keeping cache " + cache.name() + " within its bounds";
    long entries =
        grid.read(what, ignite -> cache.engine(ignite).localSizeLong(CachePeekMode.PRIMARY));
    long nowMs = clock.millis();
    Looked last = looked.get(cache.name());
    if (last != null
        && entries <= last.entriesMax()
        && Math.abs(entries - last.entries()) <= last.entries() / 20
        && nowMs - last.atMs() < LOOK_AGAIN_MS) {
      return;
    }
    Share share = grid.read(what, ignite -> share(ignite, cache, nowMs));
    cache.localBytes(share.bytes());
    cache.expired(remove(cache, share.expired()));
    cache.evicted(remove(cache, share.oldest()));
    // Without those that went: a cache filled up again to where it was has changed.
    long left = entries - share.expired().size() - share.oldest().size();
    looked.put(cache.name(), new Looked(left, share.entriesMax(), nowMs));
  }

  private static Share share(Ignite ignite, GridCache cache, long nowMs) {
    IgniteCache<String, byte[]> engine = cache.engine(ignite);
    var affinity = ignite.affinity(engine.getName());
    double part =
        (double) affinity.primaryPartitions(ignite.cluster().localNode()).length
            / affinity.partitions();
    double entriesMax = cache.config().maxEntries() * part;
    double bytesMax = cache.config().maxBytes() * part;
    List<Seen> expired = new ArrayList<>();
    List<Seen> live = new ArrayList<>();
    long bytes = 0;
    for (int partition : affinity.primaryPartitions(ignite.cluster().localNode())) {
      try (QueryCursor<Entry<String, byte[]>> cursor =
          engine.query(new ScanQuery<String, byte[]>().setPartition(partition).setLocal(true))) {
        for (Entry<String, byte[]> entry : cursor) {
          CacheValue value = CacheValue.decode(entry.getValue());
          long size = entry.getKey().length() + (long) value.bytes().length;
          Seen seen = new Seen(entry.getKey(), value.version(), value.writtenAtMs(), size);
          if (value.liveAt(nowMs)) {
            bytes += size;
            live.add(seen);
          } else {
            expired.add(seen);
          }
        }
      }
    }
    return new Share(bytes, entriesMax, expired, oldest(live, bytes, entriesMax, bytesMax));
  }

  /** The keys to let go so that both bounds hold with a tenth to spare; none if they hold now. */
  private static List<Seen> oldest(
      List<Seen> live, long bytes, double entriesMax, double bytesMax) {
    if (live.size() <= entriesMax && bytes <= bytesMax) {
      return List.of();
    }
    PriorityQueue<Seen> byAge =
        new PriorityQueue<>(Math.max(1, live.size()), Comparator.comparingLong(Seen::writtenAtMs));
    byAge.addAll(live);
    List<Seen> gone = new ArrayList<>();
    long left = bytes;
    while (!byAge.isEmpty() && (byAge.size() > 0.9 * entriesMax || left > 0.9 * bytesMax)) {
      Seen oldest = byAge.remove();
      left -= oldest.bytes();
      gone.add(oldest);
    }
    return gone;
  }

  /** Removes what is still as it was seen; how many. */
  private long remove(GridCache cache, List<Seen> entries) {
    long removed = 0;
    for (int from = 0; from < entries.size(); from += BATCH) {
      Map<String, Long> versions = new TreeMap<>();
      entries
          .subList(from, Math.min(entries.size(), from + BATCH))
          .forEach(seen -> versions.put(seen.key(), seen.version()));
      try {
        removed +=
            grid.transact(
                "clearing cache " + cache.name(),
                Grid.TransactionMode.PESSIMISTIC,
                ignite -> {
                  IgniteCache<String, byte[]> engine = cache.engine(ignite);
                  Map<String, byte[]> now = engine.getAll(versions.keySet());
                  versions
                      .entrySet()
                      .removeIf(
                          seen -> {
                            byte[] value = now.get(seen.getKey());
                            return value == null
                                || CacheValue.decode(value).version() != seen.getValue();
                          });
                  engine.removeAll(versions.keySet());
                  return versions.size();
                });
      } finally {
        coherence.written(cache.name(), versions.keySet());
      }
    }
    return removed;
  }

  @Override
  public void close() {
    timer.shutdownNow();
  }
}

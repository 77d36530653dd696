package dev.flotilla.data.queue;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.Names;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.data.grid.Fences;
import dev.flotilla.data.grid.Grid;
import io.micrometer.core.instrument.MeterRegistry;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.random.RandomGenerator;
import javax.cache.Cache.Entry;
import org.apache.ignite.IgniteCache;
import org.apache.ignite.cache.query.ScanQuery;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * All queues, by name; a queue is made by its first use, or with a configuration by hand.
 *
 * <p>The catalog says for each name which cache of the engine has its entries: one that no other
 * queue ever had, so that what is done late to a queue that was deleted does nothing to one that
 * has been made since under its name.
 */
public final class GridQueues implements Queues, AutoCloseable {

  private static final Logger log = LoggerFactory.getLogger(GridQueues.class);
  private static final String CATALOG = "flotilla.queues";
  private static final String LEFTOVER = "\n";
  private static final long CLEAN_EVERY_MS = 5_000;
  private static final long MAKING_MS = 60_000;

  private final Grid grid;
  private final Fences fences;
  private final InstantSource clock;
  private final RandomGenerator random;
  private final QueueMetrics metrics;
  private final QueuePeers peers;
  private final Map<String, GridQueue> open = new ConcurrentHashMap<>();
  private volatile boolean closed;
  private final Thread cleaner = Thread.ofVirtual().name("queue-cleaner").unstarted(this::clean);

  public GridQueues(
      Cluster cluster,
      Grid grid,
      Fences fences,
      InstantSource clock,
      RandomGenerator random,
      MeterRegistry metrics) {
    this.grid = grid;
    this.fences = fences;
    this.clock = clock;
    this.random = random;
    this.metrics = new QueueMetrics(metrics);
    this.peers = new QueuePeers(cluster, this::asListed);
    grid.onStart(ignite -> ignite.getOrCreateCache(grid.<String, byte[]>cacheConfig(CATALOG)));
  }

  public void start() {
    cleaner.start();
  }

  @Override
  public Queue queue(String name) {
    return find(name).orElseGet(() -> create(name, QueueConfig.DEFAULT));
  }

  private static void check(String name) {
    Names.check("a queue", name);
  }

  @Override
  public Optional<Queue> find(String name) {
    check(name);
    return present(name).map(queue -> queue);
  }

  private Optional<GridQueue> present(String name) {
    GridQueue known = open.get(name);
    return known != null && grid.hasCache(known.made().engineName())
        ? Optional.of(known)
        : asListed(name);
  }

  private Optional<QueueMade> listed(String name) {
    byte[] made =
        grid.read("opening queue " + name, i -> i.<String, byte[]>cache(CATALOG).get(name));
    return Optional.ofNullable(made).map(json -> QueueMade.decode(name, json));
  }

  /** As {@link #present}, but looks whether it was made anew since. */
  private Optional<GridQueue> asListed(String name) {
    Optional<QueueMade> made = listed(name);
    GridQueue known = open.get(name);
    if (known != null && !made.equals(Optional.of(known.made()))) {
      open.remove(name, known);
    }
    return made.map(its -> open.computeIfAbsent(name, any -> opened(its)));
  }

  @Override
  public Queue create(String name, QueueConfig config) {
    check(name);
    if (grid.inTransaction()) {
      throw new FlotillaException(
          Code.INVALID,
          "queue " + name + " does not exist, and cannot be made inside a transaction",
          "Make it first.");
    }
    Optional<QueueMade> there = listed(name).or(() -> make(name, config));
    if (there.isPresent() && !there.get().config().equals(config)) {
      throw new FlotillaException(
          Code.CONFLICT,
          "queue " + name + " exists with another configuration",
          "Delete it first, or use it as it is.");
    }
    return asListed(name)
        .orElseThrow(
            () ->
                new FlotillaException(
                    Code.CONFLICT, "queue " + name + " was deleted meanwhile", "Make it again."));
  }

  /**
   * Makes one that is in the catalog only when it is whole.
   *
   * @return the one that somebody else has made meanwhile
   */
  private Optional<QueueMade> make(String name, QueueConfig config) {
    QueueMade made = new QueueMade(name, config, Long.toString(random.nextLong() >>> 1, 36));
    String leftover = leftover(made);
    byte[] since = Json.write(clock.millis());
    grid.write(
        "making queue " + name,
        ignite -> {
          ignite.<String, byte[]>cache(CATALOG).put(leftover, since);
          return true;
        });
    opened(made).initialize();
    Optional<byte[]> there =
        grid.transact(
            "making queue " + name,
            Grid.TransactionMode.PESSIMISTIC,
            ignite -> {
              IgniteCache<String, byte[]> catalog = ignite.cache(CATALOG);
              Optional<byte[]> present = Optional.ofNullable(catalog.get(name));
              if (present.isPresent()) {
                return present;
              }
              if (!Arrays.equals(catalog.get(leftover), since)) {
                throw new FlotillaException(
                    Code.UNAVAILABLE, "making queue " + name + " took too long", "Try again.");
              }
              catalog.put(name, made.encode());
              catalog.remove(leftover);
              return Optional.empty();
            });
    if (there.isPresent()) {
      destroy(name, leftover);
    } else {
      peers.made(name);
    }
    return there.map(json -> QueueMade.decode(name, json));
  }

  /**
   * The catalog's key for what is no queue any more, or not yet; its value says since when, or 0 if
   * it is to be destroyed.
   */
  private static String leftover(QueueMade made) {
    return LEFTOVER + made.engineName();
  }

  private GridQueue opened(QueueMade made) {
    return new GridQueue(made, grid, fences, clock, random, peers, metrics);
  }

  @Override
  public List<String> names() {
    return grid.read(
        "listing queues",
        ignite -> {
          List<String> names = new ArrayList<>();
          IgniteCache<String, byte[]> catalog = grid.cache(ignite, CATALOG);
          try (var entries = catalog.query(new ScanQuery<String, byte[]>())) {
            for (Entry<String, byte[]> entry : entries) {
              names.add(entry.getKey());
            }
          }
          return names.stream().filter(n -> !n.startsWith(LEFTOVER)).sorted().toList();
        });
  }

  @Override
  public boolean delete(String name) {
    check(name);
    open.remove(name);
    Optional<String> leftover =
        grid.transact(
            "deleting queue " + name,
            Grid.TransactionMode.PESSIMISTIC,
            ignite -> {
              IgniteCache<String, byte[]> catalog = ignite.cache(CATALOG);
              Optional<String> its =
                  Optional.ofNullable(catalog.getAndRemove(name))
                      .map(json -> leftover(QueueMade.decode(name, json)));
              its.ifPresent(key -> catalog.put(key, Json.write(0L)));
              return its;
            });
    leftover.ifPresent(its -> destroy(name, its));
    metrics.forget(name);
    return leftover.isPresent();
  }

  private void destroy(String name, String leftover) {
    grid.write(
        "deleting queue " + name,
        ignite -> {
          ignite.destroyCache(leftover.substring(LEFTOVER.length()));
          ignite.<String, byte[]>cache(CATALOG).remove(leftover);
          return true;
        });
  }

  /** Destroys what was deleted, or not quite made, by a node that was lost on the way. */
  private void destroyLeftovers() {
    Map<String, byte[]> leftovers =
        grid.read(
            "looking for queues that were deleted",
            ignite -> {
              Map<String, byte[]> found = new TreeMap<>();
              IgniteCache<String, byte[]> catalog = grid.cache(ignite, CATALOG);
              try (var entries = catalog.query(new ScanQuery<String, byte[]>())) {
                for (Entry<String, byte[]> entry : entries) {
                  if (entry.getKey().startsWith(LEFTOVER)) {
                    found.put(entry.getKey(), entry.getValue());
                  }
                }
              }
              return found;
            });
    leftovers.forEach(
        (leftover, since) -> {
          long sinceMs = Json.read(since, Long.class);
          // From then on who makes it cannot finish.
          boolean due =
              sinceMs == 0
                  || (clock.millis() - sinceMs > MAKING_MS
                      && grid.write(
                          "giving up a queue that was not made",
                          i ->
                              i.<String, byte[]>cache(CATALOG)
                                  .replace(leftover, since, Json.write(0L))));
          if (due) {
            destroy(leftover.substring(LEFTOVER.length()), leftover);
          }
        });
  }

  private void clean() {
    while (!closed) {
      try {
        Thread.sleep(CLEAN_EVERY_MS);
        lookAfter();
      } catch (InterruptedException e) {
        return;
      } catch (RuntimeException e) {
        // Whatever it is, such as an engine that is just being exchanged, this must go on.
        log.debug("queues are tidied later: {}", e.toString());
      }
    }
  }

  /** All queues have partitions here, whether somebody uses them through this node or not. */
  private void lookAfter() {
    Map<String, Map<String, QueueOwner.Backlog>> backlogs = new TreeMap<>();
    List<String> gone = new ArrayList<>(open.keySet());
    List<String> names = names();
    gone.removeAll(names);
    gone.forEach(open::remove);
    metrics.keepOnly(name -> names.contains(name) || open.containsKey(name));
    destroyLeftovers();
    grid.deleteEmptyFolders(QueueMade.ENGINE_PREFIX);
    for (String name : names) {
      try {
        Optional<GridQueue> queue = asListed(name);
        if (queue.isPresent()) {
          queue.get().lookForPriorities();
          queue.get().owner().clean();
          backlogs.put(name, queue.get().owner().backlogs());
        }
      } catch (RuntimeException e) {
        log.debug("queue {} is tidied later: {}", name, e.toString());
      }
    }
    metrics.backlogs(backlogs, clock.millis());
  }

  @Override
  public void close() {
    closed = true;
    cleaner.interrupt();
  }
}

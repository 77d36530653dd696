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

/** All queues, by name; a queue is made by its first use, or with a configuration by hand. */
public final class GridQueues implements Queues, AutoCloseable {

  private static final Logger log = LoggerFactory.getLogger(GridQueues.class);
  private static final String CATALOG = "flotilla.queues";
  private static final long CLEAN_EVERY_MS = 5_000;

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
    if (known != null) {
      return Optional.of(known);
    }
    return listed(name).map(config -> open(name, config));
  }

  private Optional<QueueConfig> listed(String name) {
    byte[] config =
        grid.read("opening queue " + name, i -> i.<String, byte[]>cache(CATALOG).get(name));
    return Optional.ofNullable(config).map(json -> Json.read(json, QueueConfig.class));
  }

  /** As {@link #present}, but looks whether it was deleted, or made anew otherwise, since. */
  private Optional<GridQueue> asListed(String name) {
    Optional<QueueConfig> config = listed(name);
    GridQueue known = open.get(name);
    if (known != null && !config.equals(Optional.of(known.config()))) {
      open.remove(name, known);
    }
    return config.map(its -> open(name, its));
  }

  private GridQueue open(String name, QueueConfig config) {
    return open.computeIfAbsent(name, any -> make(name, config));
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
    GridQueue.createCache(grid, name);
    GridQueue queue = make(name, config);
    queue.initialize();
    byte[] present =
        grid.write(
            "making queue " + name,
            i -> i.<String, byte[]>cache(CATALOG).getAndPutIfAbsent(name, Json.write(config)));
    if (present != null && !Json.read(present, QueueConfig.class).equals(config)) {
      throw new FlotillaException(
          Code.CONFLICT,
          "queue " + name + " exists with another configuration",
          "Delete it first, or use it as it is.");
    }
    open.putIfAbsent(name, queue);
    if (present == null) {
      peers.made(name);
    }
    return open(name, config);
  }

  private GridQueue make(String name, QueueConfig config) {
    return new GridQueue(name, config, grid, fences, clock, random, peers, metrics);
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
          return names.stream().sorted().toList();
        });
  }

  @Override
  public boolean delete(String name) {
    check(name);
    open.remove(name);
    boolean there =
        grid.write("deleting queue " + name, i -> i.<String, byte[]>cache(CATALOG).remove(name));
    if (there) {
      grid.write(
          "deleting queue " + name,
          ignite -> {
            ignite.destroyCache(QueueCells.cacheName(name));
            return true;
          });
    }
    return there;
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

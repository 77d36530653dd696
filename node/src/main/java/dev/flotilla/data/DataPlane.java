package dev.flotilla.data;

import dev.flotilla.cluster.Cluster;
import io.micrometer.core.instrument.MeterRegistry;
import java.nio.file.Path;
import java.time.InstantSource;
import java.util.function.LongSupplier;

/**
 * All parts of the data plane on one node, wired together. Make it before the cluster starts, since
 * parts serve other nodes; start it after.
 */
public final class DataPlane implements AutoCloseable {

  /**
   * What every part stands on.
   *
   * @param folder this node's data folder; a part keeps its files in {@code data/} of it
   * @param random for ids, never for anything a test must repeat
   */
  public record Environment(
      Cluster cluster,
      Path folder,
      String bindHost,
      int httpPort,
      MeterRegistry metrics,
      InstantSource clock,
      LongSupplier nanoTime,
      java.util.random.RandomGenerator random) {}

  private final Grid grid;
  private final GridCaches caches;
  private final GridUsage usage;
  private final GridSharding sharding;

  /** Wires the parts; opens nothing yet. */
  public DataPlane(Environment environment) {
    grid =
        Grid.create(
            environment.cluster(),
            GridConfig.of(environment.folder(), environment.bindHost(), environment.httpPort()));
    caches = new GridCaches(environment, grid);
    usage = new GridUsage(environment, grid);
    sharding = new GridSharding(environment.cluster(), grid);
  }

  /** Starts the grid, then the parts that stand on it. */
  public void start() {
    grid.start();
    caches.start();
    usage.start();
  }

  /** The choke point to the data grid. */
  public Grid grid() {
    return grid;
  }

  /** The caches. */
  public Caches caches() {
    return caches;
  }

  /**
   * Registers what caches may have behind them, on this node; before they are used.
   *
   * @param name as caches' configurations name it
   */
  public void registerCacheStore(String name, CacheStore store) {
    caches.register(name, store);
  }

  /** The usage ledger. */
  public Usage usage() {
    return usage;
  }

  /** How tables are spread over the nodes. */
  public Sharding sharding() {
    return sharding;
  }

  @Override
  public void close() {
    usage.close();
    caches.close();
    grid.close();
  }
}

package dev.flotilla.data;

import dev.flotilla.cluster.Cluster;
import io.micrometer.core.instrument.MeterRegistry;
import java.nio.file.Path;
import java.time.InstantSource;
import java.util.List;
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

  /** The registry's entries that say what the grid's contents mean. */
  private static final List<String> BACKED_UP_KINDS =
      List.of("cache", "table-shards", "sql", "index");

  private final Grid grid;
  private final GridSharding sharding;
  private final GridBackups backups;

  /** Wires the parts; opens nothing yet. */
  public DataPlane(Environment environment) {
    grid =
        Grid.create(
            environment.cluster(),
            GridConfig.of(environment.folder(), environment.bindHost(), environment.httpPort()));
    sharding = new GridSharding(environment.cluster(), grid);
    backups =
        new GridBackups(environment.cluster(), grid, environment.clock(), BACKED_UP_KINDS);
  }

  /** Starts the grid, then the parts that stand on it. */
  public void start() {
    grid.start();
  }

  /** The choke point to the data grid. */
  public Grid grid() {
    return grid;
  }

  /** How tables are spread over the nodes. */
  public Sharding sharding() {
    return sharding;
  }

  /** Copies to go back to. */
  public Backups backups() {
    return backups;
  }

  @Override
  public void close() {
    grid.close();
  }
}

package dev.flotilla.data;

import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.Locks;
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

  private final Locks locks;
  private final Grid grid;
  private final Fences fences;
  private final GridSharding sharding;

  /** Wires the parts; opens nothing yet. */
  public DataPlane(Environment environment) {
    locks =
        Locks.embedded(environment.cluster(), environment.nanoTime(), environment.metrics());
    grid =
        Grid.create(
            environment.cluster(),
            GridConfig.of(environment.folder(), environment.bindHost(), environment.httpPort()));
    fences = new Fences(grid);
    sharding = new GridSharding(environment.cluster(), grid);
  }

  /** Starts the grid, then the parts that stand on it. */
  public void start() {
    grid.start();
  }

  /** Locks of the whole cluster. */
  public Locks locks() {
    return locks;
  }

  /** The choke point to the data grid. */
  public Grid grid() {
    return grid;
  }

  /** How tables are spread over the nodes. */
  public Sharding sharding() {
    return sharding;
  }

  @Override
  public void close() {
    grid.close();
  }
}

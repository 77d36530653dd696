package dev.flotilla.data.sql;

import dev.flotilla.data.grid.Environment;
import dev.flotilla.data.grid.TestGrids;
import io.micrometer.core.instrument.simple.SimpleMeterRegistry;
import java.nio.file.Path;
import java.time.InstantSource;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;

/** Real nodes with real grids, and the database on each. */
final class TestSql implements AutoCloseable {

  /** One node. */
  record Node(
      TestGrids.Member member, GridSql sql, GridTransactions transactions, GridSharding sharding) {}

  private record Parts(GridSql sql, GridTransactions transactions, GridSharding sharding) {}

  private final Map<Path, Parts> parts = new LinkedHashMap<>();
  private final TestGrids grids;

  TestSql(Path folder) {
    grids =
        new TestGrids(
            folder,
            (cluster, grid, dataFolder) -> {
              Environment environment =
                  new Environment(
                      cluster,
                      dataFolder,
                      "127.0.0.1",
                      0,
                      new SimpleMeterRegistry(),
                      InstantSource.system(),
                      System::nanoTime,
                      new Random());
              GridSharding sharding = new GridSharding(cluster, grid);
              GridTransactions transactions = new GridTransactions(environment, grid, sharding);
              parts.put(
                  dataFolder,
                  new Parts(
                      new GridSql(environment, grid, sharding, transactions),
                      transactions,
                      sharding));
            });
  }

  Node add() {
    return node(grids.add());
  }

  List<Node> add(int count) {
    return grids.add(count).stream().map(this::node).toList();
  }

  Node restart(Node stopped) {
    return node(grids.restart(stopped.member()));
  }

  /** Stops it as abruptly as can be in one process: transactions are not ended first. */
  void stop(Node node) {
    grids.stop(node.member());
  }

  private Node node(TestGrids.Member member) {
    Parts its = parts.get(member.config().dataFolder());
    return new Node(member, its.sql(), its.transactions(), its.sharding());
  }

  @Override
  public void close() {
    parts.values().forEach(each -> each.transactions().close());
    grids.close();
  }
}

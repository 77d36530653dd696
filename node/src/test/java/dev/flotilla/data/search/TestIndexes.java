package dev.flotilla.data.search;

import dev.flotilla.data.grid.TestGrids;
import io.micrometer.core.instrument.simple.SimpleMeterRegistry;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Random;

/** Real nodes with real grids and search indexes, in this process. */
final class TestIndexes implements AutoCloseable {

  private final Map<String, GridSearchIndexes> made = new HashMap<>();
  final TestGrids grids;

  TestIndexes(Path folder, IndexReplicas.Tuning tuning) {
    grids =
        new TestGrids(
            folder,
            (cluster, grid, dataFolder) ->
                made.put(
                    cluster.self(),
                    new GridSearchIndexes(
                        cluster,
                        grid,
                        dataFolder,
                        new SimpleMeterRegistry(),
                        System::nanoTime,
                        new Random(),
                        tuning)));
  }

  List<TestGrids.Member> add(int count) {
    List<TestGrids.Member> added = grids.add(count);
    added.forEach(member -> of(member).start());
    return added;
  }

  GridSearchIndexes of(TestGrids.Member member) {
    return Objects.requireNonNull(made.get(member.id()));
  }

  void stop(TestGrids.Member member) {
    of(member).close();
    grids.stop(member);
  }

  TestGrids.Member restart(TestGrids.Member stopped) {
    TestGrids.Member again = grids.restart(stopped);
    of(again).start();
    return again;
  }

  @Override
  public void close() {
    grids.running().forEach(member -> of(member).close());
    grids.close();
  }
}

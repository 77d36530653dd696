package dev.flotilla.data.grid;

import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.cluster.TestNodes;
import java.nio.file.Path;
import java.time.Duration;
import org.apache.ignite.cache.CacheAtomicityMode;
import org.apache.ignite.cache.query.SqlFieldsQuery;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class GridTest {

  @TempDir Path folder;

  private static void put(Grid grid, int key, int value) {
    grid.write(
        "a test",
        ignite -> {
          var cache =
              ignite.getOrCreateCache(
                  grid.<Integer, Integer>cacheConfig("test", CacheAtomicityMode.TRANSACTIONAL));
          cache.put(key, value);
          return true;
        });
  }

  private static Integer get(Grid grid, int key) {
    return grid.read("a test", ignite -> ignite.<Integer, Integer>cache("test").get(key));
  }

  @Test
  void whatOneNodeWroteOutlivesItOnceTwoMoreHaveJoined() {
    try (TestGrids grids = new TestGrids(folder)) {
      var first = grids.add();
      for (int i = 0; i < 100; i++) {
        put(first.grid(), i, i * i);
      }
      var others = grids.add(2);
      TestNodes.await(
          "copies on the others",
          Duration.ofSeconds(20),
          () -> others.stream().allMatch(m -> whole(m.grid())));
      grids.stop(first);
      for (var member : others) {
        TestNodes.await("a majority", Duration.ofSeconds(10), member.grid()::hasMajority);
        for (int i = 0; i < 100; i++) {
          assertThat(get(member.grid(), i)).isEqualTo(i * i);
        }
      }
      put(others.get(0).grid(), 1, 7);
      assertThat(get(others.get(1).grid(), 1)).isEqualTo(7);
    }
  }

  private static boolean whole(Grid grid) {
    return grid.read(
        "a test",
        ignite ->
            ignite.cache("test").localSizeLong(org.apache.ignite.cache.CachePeekMode.ALL) == 100);
  }

  @Test
  void sqlWorksAndSurvivesARestart() {
    try (TestGrids grids = new TestGrids(folder)) {
      var node = grids.add();
      sql(node.grid(), "CREATE TABLE t (id INT PRIMARY KEY, name VARCHAR) WITH \"backups=2\"");
      sql(node.grid(), "INSERT INTO t VALUES (1, 'one')");
      grids.stop(node);
      node = grids.restart(node);
      assertThat(sql(node.grid(), "SELECT name FROM t")).isEqualTo("[[one]]");
    }
  }

  private static String sql(Grid grid, String statement) {
    return grid.write(
        "a test",
        ignite ->
            ((org.apache.ignite.internal.IgniteEx) ignite)
                .context()
                .query()
                .querySqlFields(new SqlFieldsQuery(statement).setSchema("PUBLIC"), true)
                .getAll()
                .toString());
  }
}

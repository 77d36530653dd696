package dev.flotilla.app;

import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.FlotillaException;
import dev.flotilla.client.Client;
import dev.flotilla.client.HttpSharding;
import dev.flotilla.client.HttpSql;
import java.io.IOException;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** A node that is killed while it splits a table, and comes back by itself. */
class SplitKillTest {

  private static final int ROWS = 4_000;

  @TempDir static Path folder;

  @Test
  void aSplitThatWasCutOffIsTakenBackWhenItsNodeIsBack() throws IOException, InterruptedException {
    try (TestProcesses nodes = new TestProcesses(folder)) {
      NodeProcess node = nodes.add("one");
      Client client = nodes.client(0);
      HttpSql sql = new HttpSql(client);
      HttpSharding sharding = new HttpSharding(client);
      sql.execute(
          "CREATE TABLE cut (k INT PRIMARY KEY, v INT NOT NULL) SHARD BY RANGE (k) SPLIT AT (2000)");
      for (int from = 0; from < ROWS; from += 500) {
        sql.execute(
            "INSERT INTO cut VALUES "
                + IntStream.range(from, from + 500)
                    .mapToObj(k -> "(" + k + ", 1)")
                    .collect(Collectors.joining(", ")));
      }
      Thread split =
          Thread.ofPlatform()
              .start(
                  () -> {
                    try {
                      sharding.split("CUT", "3000");
                    } catch (FlotillaException killed) {
                      // As it must be.
                    }
                  });
      while (!sharding.table("CUT").moving()) {
        assertThat(split.isAlive()).isTrue();
      }
      node.kill();
      split.join();
      node.restart();
      node.awaitReady();
      long deadlineMs = System.currentTimeMillis() + 60_000;
      while (sharding.table("CUT").moving()) {
        assertThat(System.currentTimeMillis()).isLessThan(deadlineMs);
        Thread.sleep(100);
      }
      assertThat(sharding.table("CUT").shards()).hasSize(2);
      assertThat(sql.execute("SELECT COUNT(*), SUM(v) FROM cut").rows())
          .isEqualTo(List.of(List.of((long) ROWS, (long) ROWS)));
      sharding.split("CUT", "3000");
      sql.execute("UPDATE cut SET v = 2 WHERE k = 3500");
      assertThat(sharding.table("CUT").shards()).hasSize(3);
      assertThat(sql.execute("SELECT COUNT(*), SUM(v) FROM cut").rows())
          .isEqualTo(List.of(List.of((long) ROWS, (long) ROWS + 1)));
    }
  }
}

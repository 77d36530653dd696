package dev.flotilla.data;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.cluster.Locks;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.cluster.Registry;
import dev.flotilla.cluster.TestNodes;
import dev.flotilla.data.grid.Grid;
import dev.flotilla.data.grid.GridMembers;
import dev.flotilla.data.grid.TestGrids;
import io.micrometer.core.instrument.simple.SimpleMeterRegistry;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import org.apache.ignite.cache.query.SqlFieldsQuery;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class BackupsTest {

  private static final Registry.Key MEANING = new Registry.Key("cache", "things");

  @TempDir Path folder;

  private static void put(Grid grid, int key, int value) {
    grid.write(
        "a test",
        ignite -> {
          ignite.getOrCreateCache(grid.<Integer, Integer>cacheConfig("things")).put(key, value);
          return true;
        });
  }

  private static Optional<Integer> value(Grid grid, int key) {
    return grid.read(
        "a test", ignite -> Optional.ofNullable(ignite.<Integer, Integer>cache("things").get(key)));
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

  private static Backups backups(TestGrids.Member member) {
    return new GridBackups(
        member.cluster(),
        member.grid(),
        Locks.embedded(member.cluster(), System::nanoTime, new SimpleMeterRegistry()),
        InstantSource.system(),
        List.of("cache"),
        Optional.empty());
  }

  private static void decide(TestGrids.Member member, String value) {
    var _ =
        member
            .cluster()
            .registry()
            .commit(
                List.of(),
                List.of(
                    new Registry.Write(
                        MEANING, Optional.of(value.getBytes(StandardCharsets.UTF_8)))))
            .orElseThrow();
  }

  private static String decided(TestGrids.Member member) {
    return member
        .cluster()
        .registry()
        .get(MEANING)
        .map(entry -> new String(entry.value(), StandardCharsets.UTF_8))
        .orElse("");
  }

  private static TestGrids answering(Path folder) {
    return new TestGrids(
        folder, (cluster, grid, data) -> cluster.addService(new BackupFolders(cluster)));
  }

  @Test
  void aBackupNamesLostNodesAndIsNotBegunWhileOthersAreSilent() {
    String shared = folder.resolve("shared").toString();
    List<Boolean> answers = new ArrayList<>(List.of(true, true, false));
    try (TestGrids grids =
        new TestGrids(
            folder.resolve("silent"),
            (cluster, grid, data) -> {
              if (answers.removeFirst()) {
                cluster.addService(new BackupFolders(cluster));
              }
            })) {
      var members = grids.add(3);
      var first = members.getFirst();
      var silent = members.getLast();
      Backups backups = backups(first);
      put(first.grid(), 1, 1);
      String name = node(first, silent.id()).name();
      assertThatThrownBy(() -> backups.create("none", Optional.of(shared)))
          .isInstanceOfSatisfying(
              FlotillaException.class, e -> assertThat(e.code()).isEqualTo(Code.UNAVAILABLE))
          .hasMessageContaining("node " + name + " does not say whether it can write");
      assertThat(backups.list()).isEmpty();

      grids.stop(silent);
      TestNodes.await(
          "its loss",
          Duration.ofSeconds(30),
          () -> node(first, silent.id()).state() == NodeInfo.State.LOST);
      put(first.grid(), 2, 2);
      assertThat(backups.create("two", Optional.of(shared)).without()).containsExactly(name);
      put(first.grid(), 2, 3);
      assertThat(backups.list().getFirst().without()).containsExactly(name);
      backups.restore("two", Optional.empty(), Optional.empty());
      assertThat(value(first.grid(), 2)).contains(2);
    }
  }

  private static NodeInfo node(TestGrids.Member asked, String id) {
    return asked.cluster().nodes().stream()
        .filter(each -> each.id().equals(id))
        .findFirst()
        .orElseThrow();
  }

  @Test
  void oneGoesBackToEachPointAndAnotherClusterTakesItOver() throws InterruptedException {
    String shared = folder.resolve("shared").toString();
    Instant whole;
    try (TestGrids grids = answering(folder.resolve("one"))) {
      var members = grids.add(3);
      var first = members.getFirst();
      Backups backups = backups(first);
      sql(first.grid(), "CREATE TABLE t (id INT PRIMARY KEY, name VARCHAR) WITH \"backups=2\"");
      sql(first.grid(), "INSERT INTO t VALUES (1, 'full')");
      put(first.grid(), 1, 1);
      decide(first, "full");
      backups.create("nightly", Optional.of(shared));

      put(first.grid(), 1, 2);
      put(first.grid(), 2, 2);
      decide(first, "point");
      sql(first.grid(), "INSERT INTO t VALUES (2, 'point')");
      Thread.sleep(5);
      backups.addPoint("nightly");
      Instant betweenPoints = Instant.now();
      Thread.sleep(5);
      put(first.grid(), 1, 3);
      backups.addPoint("nightly");
      put(first.grid(), 1, 4);
      sql(first.grid(), "CREATE TABLE later (id INT PRIMARY KEY) WITH \"backups=2\"");

      backups.restore("nightly", Optional.empty(), Optional.empty());
      assertThat(value(first.grid(), 1)).contains(3);

      var second = members.get(1);
      assertThat(backups(second).list().getFirst().points()).hasSize(3);
      Instant point =
          backups(second).restore("nightly", Optional.empty(), Optional.of(betweenPoints));
      assertThat(point).isBeforeOrEqualTo(betweenPoints);
      for (var member : members) {
        TestNodes.await(
            "open again",
            Duration.ofSeconds(5),
            () -> member.cluster().registry().get(GridMembers.GATE).isEmpty());
        assertThat(value(member.grid(), 1)).contains(2);
        assertThat(value(member.grid(), 2)).contains(2);
        assertThat(sql(member.grid(), "SELECT name FROM t ORDER BY id"))
            .isEqualTo("[[full], [point]]");
      }
      assertThat(decided(first)).isEqualTo("point");
      put(first.grid(), 5, 5);

      whole = backups.list().getFirst().points().getFirst();
      backups.restore("nightly", Optional.empty(), Optional.of(whole));
      assertThat(value(first.grid(), 2)).isEmpty();
      assertThat(decided(first)).isEqualTo("full");
      assertThatThrownBy(
              () -> backups.restore("nightly", Optional.empty(), Optional.of(Instant.EPOCH)))
          .hasMessageContaining("no point as old");
      assertThatThrownBy(() -> backups.create("../nightly", Optional.empty()))
          .hasMessageContaining("letters");
    }
    try (TestGrids grids = answering(folder.resolve("two"))) {
      var only = grids.add();
      assertThatThrownBy(() -> backups(only).restore("nightly", Optional.empty(), Optional.empty()))
          .hasMessageContaining("no backup");
      assertThatThrownBy(
              () -> backups(only).restore("nightly", Optional.of(shared), Optional.empty()))
          .hasMessageContaining("only by the nodes that made them");
      backups(only).restore("nightly", Optional.of(shared), Optional.of(whole));
      assertThat(sql(only.grid(), "SELECT name FROM t ORDER BY id")).isEqualTo("[[full]]");
    }
  }
}

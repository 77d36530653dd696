package dev.flotilla.data.sql;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.cluster.TestNodes;
import dev.flotilla.data.grid.MajorityValidator;
import java.math.BigDecimal;
import java.nio.file.Path;
import java.time.Duration;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.LocalTime;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.ignite.cache.CacheAtomicityMode;
import org.apache.ignite.cache.CacheWriteSynchronizationMode;
import org.apache.ignite.configuration.CacheConfiguration;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class SqlTest {

  @TempDir static Path folder;

  private static TestSql grids;
  private static List<TestSql.Node> nodes;

  @BeforeAll
  static void start() {
    grids = new TestSql(folder);
    nodes = grids.add(3);
  }

  @AfterAll
  static void stop() {
    grids.close();
  }

  private static GridSql sql() {
    return nodes.get(0).sql();
  }

  private static GridSql other() {
    return nodes.get(1).sql();
  }

  private static void refused(Code code, String words, ThrowingCallable call) {
    assertThatThrownBy(call)
        .isInstanceOfSatisfying(
            FlotillaException.class,
            e -> {
              assertThat(e.explanation()).contains(words);
              assertThat(e.code()).isEqualTo(code);
            });
  }

  @Test
  void everyTypeComesBackAsItWentIn() {
    sql()
        .execute(
            "CREATE TABLE types (id BIGINT PRIMARY KEY, b BOOLEAN, t TINYINT, s SMALLINT, i INT,"
                + " d DECIMAL(20, 4), r REAL, f DOUBLE, v VARCHAR, x VARBINARY, u UUID, dt DATE,"
                + " tm TIME, ts TIMESTAMP)");
    UUID uuid = UUID.randomUUID();
    Object[] values = {
      Long.MAX_VALUE,
      true,
      (byte) -1,
      (short) 300,
      -70_000,
      new BigDecimal("1234567890.1250"),
      1.5f,
      0.1,
      "naïve ‘text’ 字",
      new byte[] {0, -1, 7},
      uuid,
      LocalDate.of(2026, 2, 28),
      LocalTime.of(13, 5, 7),
      LocalDateTime.of(2026, 1, 31, 23, 59, 59, 123_000_000)
    };
    assertThat(
            sql()
                .execute(
                    "INSERT INTO types VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
                .updated())
        .isEqualTo(1);
    sql().execute("INSERT INTO types (id) VALUES (2)");
    SqlResult result = other().execute("SELECT * FROM types ORDER BY id DESC");
    assertThat(result.columns())
        .extracting(SqlResult.Column::type)
        .containsExactly(
            "BIGINT",
            "BOOLEAN",
            "TINYINT",
            "SMALLINT",
            "INTEGER",
            "DECIMAL",
            "REAL",
            "DOUBLE",
            "VARCHAR",
            "VARBINARY",
            "UUID",
            "DATE",
            "TIME",
            "TIMESTAMP");
    assertThat(result.rows().getFirst()).containsExactly(values);
    List<Object> nulls = new ArrayList<>(Arrays.asList(new Object[14]));
    nulls.set(0, 2L);
    assertThat(result.rows().get(1)).isEqualTo(nulls);
    SqlResult again = SqlValues.resultFromJson(SqlValues.toJson(result));
    assertThat(again.rows().getFirst()).containsExactly(values);
    for (Object value : values) {
      assertThat(SqlValues.argument(SqlValues.argumentToJson(value))).isEqualTo(value);
    }
  }

  @SuppressWarnings("unchecked") // The engine hands out its configuration as a raw class.
  @Test
  void everyTableIsKeptSafelyWhateverItAsksFor() {
    sql()
        .execute(
            "CREATE TABLE safe (id INT, k INT, note VARCHAR DEFAULT 'with (', PRIMARY KEY (id, k))"
                + " WITH \"affinity_key=K,template=partitioned,backups=2\"");
    nodes
        .get(2)
        .member()
        .grid()
        .read(
            "a test",
            ignite -> {
              CacheConfiguration<?, ?> config =
                  ignite.cache("SQL_PUBLIC_SAFE").getConfiguration(CacheConfiguration.class);
              assertThat(config.getBackups()).isEqualTo(2);
              assertThat(config.getAtomicityMode()).isEqualTo(CacheAtomicityMode.TRANSACTIONAL);
              assertThat(config.getWriteSynchronizationMode())
                  .isEqualTo(CacheWriteSynchronizationMode.FULL_SYNC);
              assertThat(config.getTopologyValidator()).isInstanceOf(MajorityValidator.class);
              return true;
            });
    for (String weak :
        List.of(
            "backups=0",
            "atomicity=atomic",
            "write_synchronization_mode=full_async",
            "template=replicated",
            "cache_name=mine",
            "data_region=x")) {
      refused(
          Code.INVALID,
          "is not offered",
          () -> sql().execute("CREATE TABLE weak (id INT PRIMARY KEY) WITH \"" + weak + "\""));
    }
  }

  @Test
  void errorsSayWhatIsWrong() {
    sql().execute("CREATE TABLE errors (id INT PRIMARY KEY, n INT)");
    sql().execute("INSERT INTO errors VALUES (1, 1)");
    refused(Code.INVALID, "line 1, column 8", () -> sql().execute("SELECT FROM WHERE"));
    refused(Code.NOT_FOUND, "NOWHERE", () -> sql().execute("SELECT * FROM nowhere"));
    refused(Code.NOT_FOUND, "NOWHERE", () -> sql().execute("INSERT INTO nowhere VALUES (1)"));
    refused(Code.NOT_FOUND, "NOWHERE", () -> sql().execute("DROP TABLE nowhere"));
    refused(Code.INVALID, "column 8", () -> sql().execute("SELECT m FROM errors"));
    refused(Code.CONFLICT, "primary key", () -> sql().execute("INSERT INTO errors VALUES (1, 2)"));
    refused(
        Code.CONFLICT,
        "there is a table ERRORS already",
        () -> sql().execute("CREATE TABLE errors (id INT PRIMARY KEY, n INT)"));
    refused(
        Code.INVALID,
        "1 question mark, but 0",
        () -> sql().execute("SELECT * FROM errors WHERE n=?"));
    refused(Code.INVALID, "zero", () -> sql().execute("UPDATE errors SET n = n / (id - 1)"));
    refused(Code.INVALID, "not offered", () -> sql().execute("COMMIT"));
    refused(Code.INVALID, "empty", () -> sql().execute(" ; "));
    refused(Code.INVALID, "", () -> sql().execute("SELECT 1; SELECT 2"));
    refused(Code.INVALID, "no type", () -> sql().execute("SELECT ?", new Object()));
    refused(
        Code.TOO_LARGE,
        "characters",
        () -> sql().execute("SELECT '" + "x".repeat(Statement.CHARACTERS_MAX) + "'"));
    assertThat(sql().execute("SELECT n FROM errors").rows()).isEqualTo(List.of(List.of(1)));
  }

  @Test
  void resultsAreBoundedInRowsAndTime() {
    Sql.Request many =
        new Sql.Request(
            "SELECT x FROM TABLE(system_range(1, 1000))", List.of(), 10, Duration.ofSeconds(30));
    SqlResult result = sql().execute(many, new Sql.Cancel());
    assertThat(result.rows()).hasSize(10);
    assertThat(result.truncated()).isTrue();
    String endless =
        "SELECT COUNT(*) FROM TABLE(system_range(1, 100000)) a, TABLE(system_range(1, 100000)) b";
    refused(
        Code.BUSY,
        "300 ms",
        () ->
            sql()
                .execute(
                    new Sql.Request(endless, List.of(), 10, Duration.ofMillis(300)),
                    new Sql.Cancel()));
    Sql.Cancel cancel = new Sql.Cancel();
    var running =
        CompletableFuture.runAsync(
            () ->
                sql()
                    .execute(
                        new Sql.Request(endless, List.of(), 10, Duration.ofMinutes(1)), cancel),
            TestNodes.MEANWHILE);
    assertThat(running).isNotDone();
    cancel.cancel();
    assertThatThrownBy(() -> running.get(10, java.util.concurrent.TimeUnit.SECONDS))
        .hasMessageContaining("cancelled");
  }

  @Test
  void noUpdateIsLost() throws Exception {
    sql().execute("CREATE TABLE stock (id INT PRIMARY KEY, kind INT, n INT)");
    for (int i = 0; i < 8; i++) {
      sql().execute("INSERT INTO stock VALUES (?, ?, 1000)", i, i % 2);
    }
    AtomicInteger taken = new AtomicInteger();
    List<CompletableFuture<Void>> workers = new ArrayList<>();
    for (int w = 0; w < 6; w++) {
      GridSql mine = nodes.get(w % 3).sql();
      boolean whole = w % 2 == 0;
      workers.add(
          CompletableFuture.runAsync(
              () -> {
                for (int i = 0; i < 15; i++) {
                  taken.addAndGet(
                      (int)
                          (whole
                                  ? mine.execute("UPDATE stock SET n = n - 1 WHERE kind = 1")
                                  : mine.execute("UPDATE stock SET n = n - 1 WHERE id = 1"))
                              .updated());
                }
              },
              TestNodes.MEANWHILE));
    }
    for (CompletableFuture<Void> worker : workers) {
      worker.get(60, java.util.concurrent.TimeUnit.SECONDS);
    }
    assertThat(taken.get()).isEqualTo(3 * 15 * 4 + 3 * 15);
    assertThat(
            ((Number) sql().execute("SELECT SUM(n) FROM stock").rows().getFirst().getFirst())
                .intValue())
        .isEqualTo(8000 - taken.get());
  }

  @Test
  void aStatementThatFailsHalfwayHasDoneNothing() {
    sql().execute("CREATE TABLE halves (id INT PRIMARY KEY, n INT)");
    sql().execute("INSERT INTO halves VALUES (50, 0)");
    StringBuilder rows = new StringBuilder("(0, 0)");
    for (int i = 1; i < 100; i++) {
      rows.append(", (").append(i).append(", 1)");
    }
    refused(
        Code.CONFLICT,
        "already: 50.",
        () -> other().execute("INSERT INTO halves (id, n) VALUES " + rows));
    assertThat(sql().execute("SELECT id FROM halves").rows()).isEqualTo(List.of(List.of(50)));
  }

  @Test
  void aShardedTableCannotBeReachedPastItsSharding() {
    GridSql sql = nodes.getFirst().sql();
    String create = "CREATE TABLE plan (id INT PRIMARY KEY, n INT)";
    sql.execute(create + " SHARD BY RANGE (id) SPLIT AT (10)");
    sql.execute("INSERT INTO plan VALUES (1, 1), (11, 2)");
    sql.execute("ALTER TABLE plan SPLIT SHARD AT (5)");

    for (String statement :
        List.of(
            "DROP TABLE plan__1",
            "DELETE FROM plan__1",
            "SELECT * FROM plan__1",
            "INSERT INTO plan__1 VALUES (3, 3)",
            "CREATE INDEX plan_n ON plan__1 (n)",
            "DELETE FROM plan WHERE id IN (SELECT id FROM PUBLIC.plan__1)")) {
      refused(Code.NOT_FOUND, "there is no table PLAN__1", () -> sql.execute(statement));
    }
    refused(Code.CONFLICT, "there is a table PLAN already", () -> sql.execute(create));
    sql.execute(create.replace("TABLE", "TABLE IF NOT EXISTS"));
    assertThatThrownBy(() -> sql.execute("DROP TABLE sys.plan"))
        .isInstanceOf(FlotillaException.class);

    assertThat(sql.execute("SELECT id FROM plan ORDER BY id").rows())
        .isEqualTo(List.of(List.of(1), List.of(11)));
    // A part of WITH that is called as the table that it reads.
    assertThat(
            sql.execute("WITH plan AS (SELECT n FROM plan WHERE id > 5) SELECT n FROM plan").rows())
        .isEqualTo(List.of(List.of(2)));
    sql.execute("DROP TABLE plan");
    sql.execute(create);
    sql.execute("DROP TABLE plan");
  }

  private static List<String> engineTables(String table) {
    return nodes
        .getFirst()
        .member()
        .grid()
        .read(
            "a test",
            ignite ->
                ignite.cacheNames().stream()
                    .filter(name -> name.startsWith(GridSharding.cacheName(table)))
                    .sorted()
                    .toList());
  }

  private static ShardMove mover() {
    TestSql.Node node = nodes.getFirst();
    return new ShardMove(node.member().cluster(), node.member().grid(), node.sharding());
  }

  private static GridSharding.Entry entry(String table) {
    GridSharding sharding = nodes.getFirst().sharding();
    nodes.getFirst().member().cluster().registry().sync();
    return sharding.entry(table).orElseThrow();
  }

  /** As one of two that begin at once, on two nodes. */
  @Test
  void aMoveThatComesTooLateLeavesNoTableBehind() {
    sql().execute("CREATE TABLE late (id INT PRIMARY KEY) SHARD BY RANGE (id) SPLIT AT (10)");
    sql().execute("INSERT INTO late VALUES (1), (11)");
    GridSharding.Entry read = entry("LATE");
    // Another changes the table's entry after this one has read it.
    assertThat(
            nodes
                .getFirst()
                .sharding()
                .put("LATE", read.epoch(), java.util.Optional.of(read.stored())))
        .isPresent();
    refused(
        Code.CONFLICT,
        "of table LATE are being moved",
        () -> mover().move(read, read.stored().shards()));
    assertThat(engineTables("LATE")).containsExactly(GridSharding.cacheName("LATE"));
    assertThat(entry("LATE").stored().moving()).isEmpty();
    sql().execute("ALTER TABLE late SPLIT SHARD AT (5)");
    assertThat(sql().execute("SELECT id FROM late ORDER BY id").rows())
        .isEqualTo(List.of(List.of(1), List.of(11)));
    sql().execute("DROP TABLE late");
    assertThat(engineTables("LATE")).isEmpty();
  }

  /** What a node drove and could neither end nor take back, it takes back later by itself. */
  @Test
  void aMoveThatCouldNotBeTakenBackAtOnceIsTakenBackLater() {
    GridSharding sharding = nodes.getFirst().sharding();
    for (String table : List.of("stuck", "other")) {
      sql()
          .execute(
              "CREATE TABLE " + table + " (id INT PRIMARY KEY) SHARD BY RANGE (id) SPLIT AT (10)");
    }
    GridSharding.Entry before = entry("STUCK");
    GridSharding.Stored moving =
        before
            .stored()
            .with(
                java.util.Optional.of(
                    new GridSharding.Moving(
                        before.stored().shards(),
                        before.stored().partitions(),
                        7,
                        nodes.getFirst().member().id(),
                        false)));
    assertThat(sharding.put("STUCK", before.epoch(), java.util.Optional.of(moving))).isPresent();
    refused(
        Code.CONFLICT, "being moved", () -> sql().execute("ALTER TABLE stuck SPLIT SHARD AT (5)"));
    GridSharding.Entry late = entry("OTHER");
    assertThat(sharding.put("OTHER", late.epoch(), java.util.Optional.of(late.stored())))
        .isPresent();
    refused(Code.CONFLICT, "being moved", () -> mover().move(late, late.stored().shards()));
    TestNodes.await(
        "the move to be taken back",
        Duration.ofSeconds(20),
        () ->
            entry("STUCK").stored().moving().isEmpty() && entry("STUCK").stored().left().isEmpty());
    sql().execute("ALTER TABLE stuck SPLIT SHARD AT (5)");
    sql().execute("DROP TABLE stuck");
    sql().execute("DROP TABLE other");
  }

  /** Between the registry's entry and the engine's table. */
  @Test
  void aShardedTableWhoseMakingWasCutOffSaysSoAndCanBeDropped() {
    String create = "CREATE TABLE cut (id INT PRIMARY KEY) SHARD BY RANGE (id) SPLIT AT (10)";
    sql().execute(create);
    nodes
        .getFirst()
        .member()
        .grid()
        .write(
            "a test",
            ignite -> {
              ignite.destroyCache(GridSharding.cacheName("CUT"));
              return true;
            });
    refused(
        Code.CONFLICT,
        "cut off. Wait a little; if it stays so, DROP TABLE CUT",
        () -> sql().execute(create));
    refused(
        Code.CONFLICT,
        "cut off",
        () -> sql().execute(create.replace("TABLE", "TABLE IF NOT EXISTS")));
    refused(Code.NOT_FOUND, "CUT", () -> nodes.getFirst().sharding().skew("CUT"));
    sql().execute("DROP TABLE cut");
    sql().execute(create);
    sql().execute("INSERT INTO cut VALUES (1)");
    sql().execute("DROP TABLE cut");
  }

  @Test
  void tablesThatAreShardedAtTheSameTimeHaveNumbersOfPartitionsOfTheirOwn() throws Exception {
    int tables = 6;
    try (var threads = Executors.newVirtualThreadPerTaskExecutor()) {
      List<Future<?>> made = new ArrayList<>();
      for (int i = 0; i < tables; i++) {
        GridSql sql = nodes.get(i % nodes.size()).sql();
        String table = "twin" + i;
        made.add(
            threads.submit(
                () ->
                    sql.execute(
                        "CREATE TABLE "
                            + table
                            + " (id INT PRIMARY KEY) SHARD BY RANGE (id) SPLIT AT (10)")));
      }
      for (Future<?> each : made) {
        each.get();
      }
    }
    Set<Integer> partitions = new HashSet<>();
    for (GridSharding.Stored each : nodes.getFirst().sharding().stored()) {
      if (each.table().startsWith("TWIN")) {
        assertThat(partitions.add(each.partitions())).as("%s", each).isTrue();
      }
    }
    assertThat(partitions).hasSize(tables);
    for (int i = 0; i < tables; i++) {
      nodes.getFirst().sql().execute("DROP TABLE twin" + i);
    }
  }

  @Test
  void migrationsRunOnceInOrderAndGoOnWhereTheyFailed() {
    Migration first =
        new Migration(
            1,
            "first",
            "CREATE TABLE m (id INT PRIMARY KEY, n INT); INSERT INTO m (id) VALUES (1);");
    Migration bad =
        new Migration(2, "second", "INSERT INTO m (id) VALUES (2); INSERT INTO nom VALUES (1)");
    assertThat(sql().migrate(List.of(first)))
        .extracting(Migration.Applied::version)
        .containsExactly(1L);
    refused(
        Code.NOT_FOUND,
        "failed at statement 2 of 2, \"INSERT INTO nom",
        () -> other().migrate(List.of(first, bad)));
    refused(
        Code.CONFLICT,
        "1 statements have run",
        () -> other().migrate(List.of(first, new Migration(2, "second", "SELECT 1; SELECT 2"))));
    Migration mended =
        new Migration(2, "second", "INSERT INTO m (id) VALUES (2); INSERT INTO m (id) VALUES (3)");
    List<CompletableFuture<Integer>> both =
        nodes.subList(0, 2).stream()
            .map(
                node ->
                    CompletableFuture.supplyAsync(
                        () -> node.sql().migrate(List.of(first, mended)).size(),
                        TestNodes.MEANWHILE))
            .toList();
    assertThat(both.get(0).join() + both.get(1).join()).isEqualTo(1);
    assertThat(sql().execute("SELECT id FROM m ORDER BY id").rows())
        .isEqualTo(List.of(List.of(1), List.of(2), List.of(3)));
    refused(
        Code.CONFLICT,
        "has changed",
        () -> sql().migrate(List.of(new Migration(1, "first", "DROP TABLE m"), mended)));
    refused(Code.CONFLICT, "not among", () -> sql().migrate(List.of(mended)));
    assertThat(other().migrations())
        .extracting(Migration.Applied::name)
        .containsExactly("first", "second");
    assertThat(Migration.of(Map.of("V10__b.sql", "", "V2__a.sql", "")))
        .extracting(Migration::version)
        .containsExactly(2L, 10L);
    refused(Code.INVALID, "V1__", () -> Migration.of(Map.of("readme.sql", "")));
  }
}

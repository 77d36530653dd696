package dev.flotilla.data.sql;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import dev.flotilla.cluster.TestNodes;
import dev.flotilla.data.grid.Grid;
import dev.flotilla.data.grid.TestGrids;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.ignite.cache.query.SqlFieldsQuery;
import org.apache.ignite.internal.IgniteEx;
import org.apache.ignite.transactions.TransactionConcurrency;
import org.apache.ignite.transactions.TransactionIsolation;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.MethodOrderer;
import org.junit.jupiter.api.Order;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestMethodOrder;
import org.junit.jupiter.api.io.TempDir;

/** On three real nodes, shared by all tests; the last one stops a node. */
@TestMethodOrder(MethodOrderer.OrderAnnotation.class)
class ShardingTest {

  @TempDir static Path folder;
  private static final Map<String, GridSharding> SHARDING = new ConcurrentHashMap<>();
  private static TestGrids grids;
  private static List<TestGrids.Member> members;

  @BeforeAll
  static void start() {
    grids =
        new TestGrids(
            folder,
            (cluster, grid, data) -> SHARDING.put(cluster.self(), new GridSharding(cluster, grid)));
    members = grids.add(3);
  }

  @AfterAll
  static void stop() {
    grids.close();
  }

  /** As the SQL part runs statements: under a pass, writes mirrored while rows move. */
  private static List<List<?>> sql(int node, String statement, Object... arguments) {
    Grid grid = members.get(node).grid();
    GridSharding sharding = SHARDING.get(members.get(node).id());
    if (sharding.executeIfOurs(statement)) {
      return List.of();
    }
    try (ShardGate.Pass pass = sharding.pass()) {
      SqlFieldsQuery query =
          new SqlFieldsQuery(pass.resolve(statement).text()).setSchema("PUBLIC").setArgs(arguments);
      pass.partitions(statement, List.of(arguments)).ifPresent(query::setPartitions);
      boolean query0 = statement.startsWith("SELECT") || statement.startsWith("CREATE");
      if (query0 || !pass.mirrors()) {
        return grid.write("a test", ignite -> all(ignite, query));
      }
      return grid.transact(
          "a test",
          new Grid.TransactionMode(
              TransactionConcurrency.PESSIMISTIC, TransactionIsolation.READ_COMMITTED, 10_000),
          ignite -> {
            List<List<?>> result = all(ignite, query);
            pass.mirror(ignite);
            return result;
          });
    }
  }

  private static void insert(String into, int rows, java.util.function.IntFunction<String> row) {
    for (int from = 0; from < rows; from += 100) {
      sql(
          from / 100 % 3,
          "INSERT INTO "
              + into
              + " VALUES "
              + java.util.stream.IntStream.range(from, Math.min(rows, from + 100))
                  .mapToObj(row)
                  .collect(java.util.stream.Collectors.joining(",")));
    }
  }

  private static List<List<?>> all(org.apache.ignite.Ignite ignite, SqlFieldsQuery query) {
    return ((IgniteEx) ignite).context().query().querySqlFields(query, true).getAll();
  }

  private static GridSharding sharding(int node) {
    return SHARDING.get(members.get(node).id());
  }

  private static List<Integer> shards(String condition) {
    return sharding(0)
        .explain("SELECT v FROM readings WHERE " + condition, List.of())
        .tables()
        .getFirst()
        .shards();
  }

  @Test
  @Order(1)
  void aRangeTableAnswersAsAnyAndTouchesOnlyTheRangesAsked() {
    sql(
        0,
        "CREATE TABLE readings (ts BIGINT, sensor INT, v INT, PRIMARY KEY (ts, sensor))"
            + " SHARD BY RANGE (ts) SPLIT AT (100, 200, 300) SPREAD 4");
    insert("readings (ts, sensor, v)", 400, i -> "(" + i + "," + i % 7 + "," + i + ")");
    assertThat(sql(1, "SELECT COUNT(*), SUM(v) FROM readings")).asString().contains("400, 79800");
    assertThat(sql(2, "SELECT COUNT(*) FROM readings WHERE ts BETWEEN 150 AND 249"))
        .asString()
        .isEqualTo("[[100]]");
    assertThat(sql(2, "SELECT v FROM readings r WHERE r.ts = ? AND sensor = ?", 333L, 333 % 7))
        .asString()
        .isEqualTo("[[333]]");
    var touched =
        sharding(0).explain("SELECT v FROM readings r WHERE r.ts >= ? AND ts < 220", List.of(150L));
    assertThat(touched.tables()).hasSize(1);
    assertThat(touched.tables().getFirst().shards()).containsExactly(1, 2);
    assertThat(touched.tables().getFirst().partitionsTouched()).isEqualTo(8);
    assertThat(touched.tables().getFirst().partitions()).isEqualTo(16);
    assertThat(touched.plan()).contains("READINGS");
    assertThat(shards("ts < 200")).containsExactly(0, 1);
    assertThat(shards("ts <= 200")).containsExactly(0, 1, 2);
    assertThat(shards("ts > 199")).containsExactly(2, 3);
    assertThat(shards("199 < ts")).containsExactly(2, 3);
    assertThat(shards("ts >= 199")).containsExactly(1, 2, 3);
    assertThat(shards("ts < 201 AND ts > 198")).containsExactly(1, 2);
    assertThat(sharding(1).explain("SELECT * FROM readings", List.of()).tables().getFirst().whole())
        .isTrue();
    var insert =
        sharding(1).explain("INSERT INTO readings (ts, sensor, v) VALUES (350, 1, 1)", List.of());
    assertThat(insert.tables().getFirst().shards()).containsExactly(3);
    var skew = sharding(2).skew("readings");
    assertThat(skew.rows()).isEqualTo(400);
    assertThat(skew.partitions()).hasSize(16);
    assertThat(skew.partitions().stream().filter(p -> p.shard() == 1).mapToLong(p -> p.rows()))
        .satisfies(rows -> assertThat(rows.stream().mapToLong(n -> n).sum()).isEqualTo(100));
    assertThat(skew.bytes()).isGreaterThan(400 * 20);
    assertThat(skew.imbalance()).isBetween(1.0, 3.0);
    // Two different shardings joined on the whole key: rows must not be lost.
    sql(
        0,
        "CREATE TABLE other (ts BIGINT, sensor INT, w INT, PRIMARY KEY (ts, sensor))"
            + " SHARD BY RANGE (ts) SPLIT AT (10, 20, 30) SPREAD 4");
    sql(0, "INSERT INTO other (ts, sensor, w) SELECT ts, sensor, v FROM readings");
    assertThat(
            sql(
                0,
                "SELECT COUNT(*) FROM readings r JOIN other o ON r.ts = o.ts AND r.sensor ="
                    + " o.sensor"))
        .asString()
        .isEqualTo("[[400]]");
  }

  @Test
  @Order(2)
  void aListTableKeepsValuesOnTheirNodesAndColocatedTablesJoinWhereTheyLie() {
    String only = members.get(1).id();
    sql(
        0,
        "CREATE TABLE customers (id INT, region VARCHAR, name VARCHAR, PRIMARY KEY (id, region))"
            + " SHARD BY LIST (region) ('eu' ON NODES (node-2), ('us', 'ca')) SPREAD 1");
    sql(
        0,
        "CREATE TABLE orders (id INT, region VARCHAR, amount INT, PRIMARY KEY (id, region))"
            + " COLOCATE WITH customers");
    String[] regions = {"eu", "us", "ca", "jp"};
    insert("customers (id, region, name)", 40, i -> "(" + i + ",'" + regions[i % 4] + "','c')");
    insert(
        "orders (id, region, amount)", 40, i -> "(" + i + ",'" + regions[i % 4] + "'," + i + ")");
    assertThat(
            sql(
                2,
                "SELECT c.region, SUM(o.amount) FROM customers c JOIN orders o ON c.region ="
                    + " o.region AND c.id = o.id GROUP BY c.region ORDER BY c.region"))
        .asString()
        .isEqualTo("[[ca, 200], [eu, 180], [jp, 210], [us, 190]]");
    var europe =
        sharding(0).explain("SELECT * FROM customers WHERE region = 'eu'", List.of()).tables();
    assertThat(europe.getFirst().shards()).containsExactly(0);
    assertThat(europe.getFirst().nodes()).hasSize(1);
    assertThat(europe.getFirst().nodes().getFirst().node()).isEqualTo(only);
    var join =
        sharding(0)
            .explain(
                "SELECT c.name FROM customers c JOIN orders o ON c.region = o.region", List.of());
    assertThat(join.plan()).doesNotContain("TrimExchange");
    assertThat(join.plan().split("IgniteExchange", -1)).hasSize(2);
    assertThatThrownBy(() -> sql(0, "DROP TABLE customers"))
        .isInstanceOf(FlotillaException.class)
        .hasMessageContaining("co-located");
    sql(0, "DROP TABLE orders");
    sql(0, "DROP TABLE customers");
    assertThat(sharding(0).tables()).noneMatch(table -> table.table().equals("CUSTOMERS"));
  }

  @Test
  @Order(3)
  void whatCannotBeShardedIsRefusedBeforeAnythingIsMade() {
    for (String wrong :
        List.of(
            "CREATE TABLE x (a INT PRIMARY KEY, b INT) SHARD BY HASH (b)",
            "CREATE TABLE x (a INT PRIMARY KEY) SHARD BY RANGE (a) SPLIT AT (5, 4)",
            "CREATE TABLE x (a INT PRIMARY KEY) SHARD BY RANGE (a) SPLIT AT ('abc')",
            "CREATE TABLE x (a INT PRIMARY KEY) SHARD BY LIST (a) (1, 2, 1)",
            "CREATE TABLE x (a INT PRIMARY KEY) SHARD BY LIST (a) (1 ON NODES (nobody))",
            "CREATE TABLE x (a INT PRIMARY KEY) SHARD BY MOON (a)",
            "CREATE TABLE x (a DOUBLE PRIMARY KEY) SHARD BY RANGE (a) SPLIT AT (1)",
            "CREATE TABLE x (a INT PRIMARY KEY) COLOCATE WITH nothing",
            "CREATE TABLE x (a INT) SHARD BY HASH (a)")) {
      assertThatThrownBy(() -> sharding(0).execute(wrong))
          .as(wrong)
          .isInstanceOf(FlotillaException.class);
    }
    assertThat(sharding(0).tables()).noneMatch(table -> table.table().equals("X"));
  }

  @Test
  @Order(4)
  void aRangeIsSplitAndMovedUnderLoadAndEveryAcknowledgedWriteIsThere() throws Exception {
    sql(
        0,
        "CREATE TABLE hot (ts BIGINT, id INT, v INT, PRIMARY KEY (ts, id))"
            + " SHARD BY RANGE (ts) SPLIT AT (1000) SPREAD 4");
    sql(0, "CREATE INDEX hot_v ON hot (v)");
    sql(0, "CREATE INDEX ON hot (id, v)");
    insert("hot (ts, id, v)", 1000, i -> "(" + 2 * i + ", 0, 0)");
    AtomicBoolean stop = new AtomicBoolean();
    AtomicInteger unknown = new AtomicInteger();
    AtomicInteger wrongReads = new AtomicInteger();
    AtomicInteger reads = new AtomicInteger();
    AtomicInteger slowestMs = new AtomicInteger();
    List<Map<Long, Integer>> expected = new ArrayList<>();
    List<Thread> writers = new ArrayList<>();
    for (int w = 0; w < 3; w++) {
      int writer = w;
      Map<Long, Integer> mine = new ConcurrentHashMap<>();
      expected.add(mine);
      writers.add(
          Thread.ofPlatform()
              .start(
                  () -> {
                    java.util.Random random = new java.util.Random(writer);
                    for (int n = 1; !stop.get(); n++) {
                      // Each writer has keys of its own, so that what they hold is known.
                      long ts = random.nextInt(600) * 3L + writer;
                      int id = writer + 1;
                      long startNs = System.nanoTime();
                      try {
                        if (n % 5 == 0 && mine.containsKey(ts)) {
                          sql(writer, "DELETE FROM hot WHERE ts = ? AND id = ?", ts, id);
                          mine.remove(ts);
                        } else if (mine.containsKey(ts)) {
                          sql(writer, "UPDATE hot SET v = ? WHERE ts = ? AND id = ?", n, ts, id);
                          mine.put(ts, n);
                        } else {
                          sql(writer, "INSERT INTO hot (ts, id, v) VALUES (?, ?, ?)", ts, id, n);
                          mine.put(ts, n);
                        }
                        Integer should = mine.get(ts);
                        var is = sql(writer, "SELECT v FROM hot WHERE ts = ? AND id = ?", ts, id);
                        reads.incrementAndGet();
                        if (!is.toString().equals(should == null ? "[]" : "[[" + should + "]]")) {
                          wrongReads.incrementAndGet();
                        }
                      } catch (FlotillaException e) {
                        unknown.incrementAndGet();
                        mine.remove(ts);
                        // Whatever became of it, the next write of the key starts from nothing.
                        TestNodes.await(
                            "a known state", Duration.ofSeconds(20), () -> deleted(writer, ts, id));
                      }
                      slowestMs.accumulateAndGet(
                          (int) ((System.nanoTime() - startNs) / 1_000_000), Math::max);
                    }
                  }));
    }
    Thread.sleep(300);
    long startNs = System.nanoTime();
    sharding(1).split("hot", "500");
    long splitNs = System.nanoTime();
    sharding(2).move("HOT", 1, List.of(members.get(0).id()));
    long moveNs = System.nanoTime();
    Thread.sleep(300);
    stop.set(true);
    for (Thread writer : writers) {
      writer.join();
    }
    System.out.printf(
        "split %d ms, move %d ms, %d reads, %d unknown, slowest %d ms, held %s%n",
        (splitNs - startNs) / 1_000_000,
        (moveNs - splitNs) / 1_000_000,
        reads.get(),
        unknown.get(),
        slowestMs.get(),
        sharding(1).counters());
    Map<List<Long>, Integer> found = new java.util.HashMap<>();
    for (List<?> row : sql(1, "SELECT ts, id, v FROM hot WHERE id > 0")) {
      found.put(
          List.of((Long) row.get(0), ((Integer) row.get(1)).longValue()), (Integer) row.get(2));
    }
    Map<List<Long>, Integer> wanted = new java.util.HashMap<>();
    for (int w = 0; w < 3; w++) {
      int writer = w;
      expected.get(w).forEach((ts, v) -> wanted.put(List.of(ts, writer + 1L), v));
    }
    assertThat(found).isEqualTo(wanted);
    assertThat(wrongReads.get()).isZero();
    assertThat(reads.get()).isGreaterThan(50);
    assertThat(sql(0, "SELECT COUNT(*) FROM hot WHERE id = 0")).asString().isEqualTo("[[1000]]");
    var table = sharding(0).table("HOT");
    assertThat(table.shards()).hasSize(3);
    assertThat(table.moving()).isFalse();
    var middle = sharding(0).explain("SELECT v FROM hot WHERE ts = 700", List.of()).tables();
    assertThat(middle.getFirst().shards()).containsExactly(1);
    assertThat(middle.getFirst().nodes()).hasSize(1);
    assertThat(middle.getFirst().nodes().getFirst().node()).isEqualTo(members.get(0).id());
    Set<String> left = new HashSet<>();
    members.get(0).grid().read("a test", ignite -> left.addAll(ignite.cacheNames()));
    assertThat(left)
        .contains("SQL_PUBLIC_HOT__2")
        .doesNotContain("SQL_PUBLIC_HOT", "SQL_PUBLIC_HOT__1");
    assertThatThrownBy(() -> sharding(0).split("HOT", "500"))
        .isInstanceOf(FlotillaException.class)
        .hasMessageContaining("already");
  }

  private static boolean deleted(int writer, long ts, int id) {
    try {
      sql(writer, "DELETE FROM hot WHERE ts = ? AND id = ?", ts, id);
      return true;
    } catch (FlotillaException e) {
      return false;
    }
  }

  @Test
  @Order(5)
  void whenTheNodeThatMovesRowsIsLostAllIsAsItWas() throws Exception {
    sql(
        0,
        "CREATE TABLE orphan (ts BIGINT PRIMARY KEY, v INT) SHARD BY RANGE (ts) SPLIT AT (1000)");
    insert("orphan (ts, v)", 4000, i -> "(" + i + "," + i + ")");
    TestGrids.Member driver = members.get(2);
    GridSharding itsSharding = sharding(2);
    Thread mover =
        Thread.ofPlatform()
            .start(
                () -> {
                  try {
                    itsSharding.split("orphan", "2000");
                  } catch (RuntimeException lost) {
                    // As it should be: its node is stopped under it.
                  }
                });
    TestNodes.await(
        "rows being moved",
        Duration.ofSeconds(20),
        () -> sharding(0).table("ORPHAN").moving() || !mover.isAlive());
    sql(0, "INSERT INTO orphan (ts, v) VALUES (100000, 1)");
    grids.stop(driver);
    mover.join();
    TestNodes.await(
        "the move taken back", Duration.ofSeconds(30), () -> !sharding(0).table("ORPHAN").moving());
    TestNodes.await("a majority", Duration.ofSeconds(20), members.get(0).grid()::hasMajority);
    sql(1, "INSERT INTO orphan (ts, v) VALUES (100001, 1)");
    assertThat(sql(0, "SELECT COUNT(*) FROM orphan")).asString().isEqualTo("[[4002]]");
    Set<String> left = new HashSet<>();
    TestNodes.await(
        "the unfinished copy dropped",
        Duration.ofSeconds(20),
        () -> {
          left.clear();
          members.get(0).grid().read("a test", ignite -> left.addAll(ignite.cacheNames()));
          return left.stream().filter(name -> name.contains("ORPHAN")).count() == 1;
        });
    sharding(0).split("ORPHAN", "3000");
    assertThat(sql(1, "SELECT COUNT(*) FROM orphan")).asString().isEqualTo("[[4002]]");
  }

  @Test
  @Order(6)
  void theMinorityMakesNoTableAndMovesNothing() {
    grids.stop(members.get(1));
    assertThatThrownBy(() -> sharding(0).split("ORPHAN", "3500"))
        .isInstanceOf(FlotillaException.class);
    assertThatThrownBy(() -> sql(0, "CREATE TABLE late (a INT PRIMARY KEY) SHARD BY HASH (a)"))
        .isInstanceOfSatisfying(
            FlotillaException.class,
            e ->
                assertThat(e.code())
                    .isIn(FlotillaException.Code.NO_MAJORITY, FlotillaException.Code.UNAVAILABLE));
  }
}

package dev.flotilla.data.sql;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.cluster.TestNodes;
import dev.flotilla.data.grid.Grid;
import dev.flotilla.data.sql.Transactions.Mode;
import dev.flotilla.data.sql.Transactions.Options;
import dev.flotilla.data.sql.Transactions.State;
import dev.flotilla.data.sql.Transactions.Step;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Random;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.CyclicBarrier;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReference;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.ignite.transactions.TransactionState;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.MethodOrderer;
import org.junit.jupiter.api.Order;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestMethodOrder;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

@TestMethodOrder(MethodOrderer.OrderAnnotation.class)
class TransactionsTest {

  private static final Options SHORT = new Options(Mode.PESSIMISTIC, Duration.ofMillis(1_500));

  private static final Options LONG = new Options(Mode.PESSIMISTIC, Duration.ofSeconds(60));

  @TempDir static Path folder;

  private static TestSql grids;
  private static List<TestSql.Node> nodes;

  @BeforeAll
  static void start() {
    grids = new TestSql(folder);
    nodes = grids.add(3);
    nodes.get(0).sql().execute("CREATE TABLE account (id INT PRIMARY KEY, owner VARCHAR, n INT)");
  }

  @AfterAll
  static void stop() {
    grids.close();
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

  private static void account(int id, String owner, int n) {
    nodes.get(0).sql().execute("INSERT INTO account VALUES (?, ?, ?)", id, owner, n);
  }

  private static int n(Transaction transaction, int id) {
    return (Integer)
        transaction.sql("SELECT n FROM account WHERE id = ?", id).rows().getFirst().getFirst();
  }

  private static int n(int id) {
    return nodes.get(0).transactions().run(Mode.PESSIMISTIC, transaction -> n(transaction, id));
  }

  /** Two bodies, each past its first half before either begins its second. */
  private static List<Throwable> race(
      Options options,
      java.util.function.BiConsumer<Transaction, CyclicBarrier> first,
      java.util.function.BiConsumer<Transaction, CyclicBarrier> second) {
    CyclicBarrier barrier = new CyclicBarrier(2);
    List<Throwable> failures = new ArrayList<>();
    List<CompletableFuture<Void>> both = new ArrayList<>();
    for (int i = 0; i < 2; i++) {
      var body = i == 0 ? first : second;
      GridTransactions mine = nodes.get(i).transactions();
      both.add(
          CompletableFuture.runAsync(
              () ->
                  mine.run(
                      options,
                      transaction -> {
                        body.accept(transaction, barrier);
                        return true;
                      }),
              TestNodes.MEANWHILE));
    }
    for (CompletableFuture<Void> each : both) {
      try {
        each.get(60, TimeUnit.SECONDS);
      } catch (java.util.concurrent.ExecutionException e) {
        failures.add(e.getCause());
      } catch (InterruptedException | java.util.concurrent.TimeoutException e) {
        throw new AssertionError(e);
      }
    }
    return failures;
  }

  /** Until the other is there, however loaded the machine is. */
  private static void meet(CyclicBarrier barrier) {
    if (!meets(barrier, 20)) {
      throw new AssertionError("the other did not come");
    }
  }

  /** Whether the other came; it cannot if it waits for a lock of ours. */
  private static boolean meets(CyclicBarrier barrier, int seconds) {
    try {
      barrier.await(seconds, TimeUnit.SECONDS);
      return true;
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      return false;
    } catch (java.util.concurrent.BrokenBarrierException
        | java.util.concurrent.TimeoutException alone) {
      return false;
    }
  }

  @Test
  @Order(1)
  void allOfItIsDoneOrNothing() {
    account(1, "a", 10);
    account(2, "b", 10);
    nodes
        .get(1)
        .transactions()
        .run(
            Mode.PESSIMISTIC,
            transaction -> {
              transaction.sql("UPDATE account SET n = n - 3 WHERE id = 1");
              transaction.sql("UPDATE account SET n = n + 3 WHERE id = 2");
              assertThat(n(transaction, 1)).isEqualTo(7);
              return true;
            });
    assertThat(n(1)).isEqualTo(7);
    assertThat(n(2)).isEqualTo(13);
    assertThatThrownBy(
            () ->
                nodes
                    .get(1)
                    .transactions()
                    .run(
                        Mode.PESSIMISTIC,
                        transaction -> {
                          transaction.sql("UPDATE account SET n = 0");
                          throw new IllegalArgumentException("changed my mind");
                        }))
        .hasMessage("changed my mind");
    assertThat(n(1)).isEqualTo(7);
    refused(
        Code.CONFLICT,
        "step 2",
        () ->
            nodes
                .get(2)
                .transactions()
                .run(
                    Options.of(Mode.PESSIMISTIC),
                    List.of(
                        new Step.Statement("UPDATE account SET n = 0", List.of()),
                        new Step.Statement("INSERT INTO account VALUES (1, 'x', 1)", List.of())),
                    Optional.empty()));
    assertThat(n(1)).isEqualTo(7);
  }

  @Test
  @Order(2)
  void theEngineAloneLosesUpdatesThatTheLocksKeep() throws Exception {
    account(3, "c", 0);
    assertThat(lostUpdates(false)).isPositive();
    assertThat(lostUpdates(true)).isZero();
  }

  private static int lostUpdates(boolean locked) throws Exception {
    int before = n(3);
    int rounds = 25;
    CyclicBarrier together = new CyclicBarrier(3);
    AtomicInteger done = new AtomicInteger();
    List<CompletableFuture<Void>> workers = new ArrayList<>();
    Sql.Request request = Sql.Request.of("UPDATE account SET n = n + 1 WHERE id = 3");
    for (TestSql.Node node : nodes) {
      workers.add(
          CompletableFuture.runAsync(
              () -> {
                for (int i = 0; i < rounds; i++) {
                  // Without locks the engine may hold one of them up for long.
                  var _ = meets(together, 1);
                  if (locked) {
                    node.sql().execute(request, new Sql.Cancel());
                  } else {
                    node.member()
                        .grid()
                        .transact(
                            "a test",
                            Grid.TransactionMode.PESSIMISTIC,
                            ignite ->
                                SqlEngine.run(
                                    ignite,
                                    SqlErrors.About.of(SqlText.of(request.statement())),
                                    request,
                                    new Sql.Cancel()));
                  }
                  done.incrementAndGet();
                }
              },
              TestNodes.MEANWHILE));
    }
    for (CompletableFuture<Void> worker : workers) {
      worker.get(60, TimeUnit.SECONDS);
    }
    assertThat(done.get()).isEqualTo(3 * rounds);
    return before + done.get() - n(3);
  }

  @Test
  @Order(3)
  void writeSkewIsImpossibleUnlessOnlyCommittedReadsAreAskedFor() {
    account(10, "doctor", 1);
    account(11, "doctor", 1);
    assertThat(skew(Mode.READ_COMMITTED)).isZero();
    nodes.get(0).sql().execute("UPDATE account SET n = 1 WHERE owner = 'doctor'");
    assertThat(skew(Mode.PESSIMISTIC)).isPositive();
  }

  /** Each of two leaves if another stays, as far as it can see. */
  private static int skew(Mode mode) {
    // Only who reads without locks can meet the other before both have written.
    int patienceS = mode == Mode.READ_COMMITTED ? 20 : 1;
    Options options = new Options(mode, Duration.ofSeconds(30));
    java.util.function.IntFunction<java.util.function.BiConsumer<Transaction, CyclicBarrier>>
        leave =
            id ->
                (transaction, barrier) -> {
                  var on =
                      transaction
                          .sql("SELECT id FROM account WHERE owner = 'doctor' AND n = 1")
                          .rows();
                  boolean met = meets(barrier, patienceS);
                  assertThat(met || mode != Mode.READ_COMMITTED).as("they met").isTrue();
                  if (on.size() > 1) {
                    transaction.sql("UPDATE account SET n = 0 WHERE id = ?", id);
                  }
                };
    var failures = race(options, leave.apply(10), leave.apply(11));
    assertThat(failures.stream().map(f -> ((FlotillaException) f).code()))
        .isSubsetOf(Code.CONFLICT, Code.BUSY);
    return nodes
        .get(0)
        .sql()
        .execute("SELECT id FROM account WHERE owner = 'doctor' AND n = 1")
        .rows()
        .size();
  }

  @Test
  @Order(3)
  void aStatementThatOutlivesItsTransactionsTimeWritesNothingOutsideOfIt() {
    var sql = nodes.getFirst().sql();
    sql.execute("CREATE TABLE long_one (id INT PRIMARY KEY, n INT)");
    int rows = 3_000;
    for (int from = 0; from < rows; from += 500) {
      sql.execute(
          "INSERT INTO long_one (id, n) VALUES "
              + IntStream.range(from, from + 500)
                  .mapToObj(id -> "(" + id + ", 0)")
                  .collect(Collectors.joining(", ")));
    }
    Options brief = new Options(Mode.PESSIMISTIC, Duration.ofMillis(250));
    int refused = 0;
    for (int i = 0; i < 4; i++) {
      try {
        nodes
            .getFirst()
            .transactions()
            .run(
                brief,
                transaction -> {
                  transaction.sql("UPDATE long_one SET n = n + 1 WHERE id < 100");
                  transaction.sql("UPDATE long_one SET n = n + 1");
                  throw new FlotillaException(Code.CONFLICT, "rolled back", "");
                });
      } catch (FlotillaException e) {
        refused++;
      }
    }
    assertThat(refused).isEqualTo(4);
    assertThat(sql.execute("SELECT COUNT(*) FROM long_one WHERE n <> 0").rows())
        .isEqualTo(List.of(List.of(0L)));
  }

  /**
   * To the engine, who goes on after the roll-back is outside of any transaction: what other parts
   * then did was done by itself, and an acknowledgement was kept whose effect was not.
   */
  @Test
  @Order(3)
  void whatABodyStillDoesAfterItWasRolledBackIsNotDoneEither() {
    Grid grid = nodes.getFirst().member().grid();
    grid.ensureCache("left.over");
    GridTransactions transactions = nodes.getFirst().transactions();
    for (String way : List.of("transact", "write", "read")) {
      account(way.length() + 90, way, 1);
      assertThatThrownBy(
              () ->
                  transactions.run(
                      new Options(Mode.PESSIMISTIC, Duration.ofMillis(300)),
                      transaction -> {
                        transaction.sql("UPDATE account SET n = 2 WHERE owner = ?", way);
                        pause(1_500); // the watch ends it meanwhile
                        switch (way) {
                          case "transact" ->
                              grid.transact(
                                  "going on",
                                  Grid.TransactionMode.PESSIMISTIC,
                                  ignite -> ignite.cache("left.over").getAndPut("a", way));
                          case "write" ->
                              grid.write(
                                  "going on",
                                  ignite -> ignite.cache("left.over").getAndPut("a", way));
                          default ->
                              grid.read("going on", ignite -> ignite.cache("left.over").get("a"));
                        }
                        return true;
                      }))
          .isInstanceOf(FlotillaException.class);
      assertThat(grid.<Boolean>read("looking", i -> i.cache("left.over").containsKey("a")))
          .isFalse();
      assertThat(n(way.length() + 90)).isEqualTo(1);
    }
  }

  /** The watch's own part of it: a statement's threads would go on without the transaction. */
  @Test
  @Order(3)
  void aTransactionWhoseTimeIsOverIsRolledBackOnceItsStatementHasEnded() {
    AtomicLong nowNs = new AtomicLong();
    Grid grid = nodes.getFirst().member().grid();
    try (TransactionWatch watch = new TransactionWatch(nowNs::get)) {
      assertThatThrownBy(
              () ->
                  grid.transact(
                      "a test",
                      Grid.TransactionMode.PESSIMISTIC,
                      ignite -> {
                        var engines = ignite.transactions().tx();
                        var watched = watch.watch("long", ignite, 1_000);
                        watched.enterStatement();
                        nowNs.addAndGet(2_000_000_000L);
                        pause(1_000);
                        assertThat(engines.state()).isEqualTo(TransactionState.ACTIVE);
                        watched.leaveStatement();
                        TestNodes.await(
                            "the rolling back",
                            Duration.ofSeconds(10),
                            () -> engines.state() == TransactionState.ROLLED_BACK);
                        return true;
                      }))
          .isInstanceOf(FlotillaException.class);
    }
  }

  @Test
  @Order(4)
  void aValueReadAndWrittenBackIsNeverStaleWhenPessimistic() throws Exception {
    account(20, "counter", 0);
    List<CompletableFuture<Void>> workers = new ArrayList<>();
    for (TestSql.Node node : nodes) {
      workers.add(
          CompletableFuture.runAsync(
              () -> {
                for (int i = 0; i < 10; i++) {
                  node.transactions()
                      .run(
                          Mode.PESSIMISTIC,
                          transaction ->
                              transaction.sql(
                                  "UPDATE account SET n = ? WHERE id = 20",
                                  n(transaction, 20) + 1));
                }
              },
              TestNodes.MEANWHILE));
    }
    for (CompletableFuture<Void> worker : workers) {
      worker.get(60, TimeUnit.SECONDS);
    }
    assertThat(n(20)).isEqualTo(30);
  }

  @Test
  @Order(5)
  void aDeadlockIsFoundAndOneOfTheTwoGoesOn() {
    account(30, "left", 0);
    account(31, "right", 0);
    java.util.function.BiFunction<
            Integer, Integer, java.util.function.BiConsumer<Transaction, CyclicBarrier>>
        order =
            (a, b) ->
                (transaction, barrier) -> {
                  transaction.sql("UPDATE account SET n = n + 1 WHERE id = ?", a);
                  meet(barrier);
                  transaction.sql("UPDATE account SET n = n + 1 WHERE id = ?", b);
                };
    long beganNs = System.nanoTime();
    var failures =
        race(
            new Options(Mode.PESSIMISTIC, Duration.ofSeconds(60)),
            order.apply(30, 31),
            order.apply(31, 30));
    assertThat(failures).hasSize(1);
    assertThat(failures.getFirst().getMessage()).contains("waited for each other");
    assertThat(((FlotillaException) failures.getFirst()).code()).isEqualTo(Code.CONFLICT);
    assertThat(Duration.ofNanos(System.nanoTime() - beganNs)).isLessThan(Duration.ofSeconds(30));
    assertThat(n(30) + n(31)).isEqualTo(2);
  }

  @Test
  @Order(6)
  void whoWaitsTooLongForALockIsRolledBack() throws Exception {
    account(40, "held", 0);
    CountDownLatch held = new CountDownLatch(1);
    CountDownLatch release = new CountDownLatch(1);
    var holder =
        CompletableFuture.runAsync(
            () ->
                nodes
                    .get(0)
                    .transactions()
                    .run(
                        Mode.PESSIMISTIC,
                        transaction -> {
                          transaction.sql("UPDATE account SET n = 1 WHERE id = 40");
                          held.countDown();
                          try {
                            return release.await(20, TimeUnit.SECONDS);
                          } catch (InterruptedException e) {
                            return false;
                          }
                        }),
            TestNodes.MEANWHILE);
    held.await();
    refused(
        Code.BUSY,
        "Nothing was done",
        () ->
            nodes
                .get(1)
                .transactions()
                .run(
                    SHORT,
                    transaction -> transaction.sql("UPDATE account SET n = 2 WHERE id = 40")));
    String running =
        nodes.get(2).transactions().list().stream()
            .filter(view -> view.state() == State.ACTIVE)
            .findFirst()
            .orElseThrow()
            .id();
    var view = nodes.get(2).transactions().find(running).orElseThrow();
    assertThat(view.originator()).isEqualTo(nodes.get(0).member().id());
    assertThat(view.steps().toString()).contains("UPDATE account SET n = 1 WHERE id = 40");
    assertThat(view.participants()).hasSize(3);
    release.countDown();
    holder.get(20, TimeUnit.SECONDS);
    assertThat(nodes.get(2).transactions().find(running).orElseThrow().state())
        .isEqualTo(State.COMMITTED);
    assertThat(n(40)).isEqualTo(1);
  }

  @Test
  @Order(7)
  void whatRunsUnderACallersIdIsDoneOnce() {
    account(50, "once", 0);
    List<Step> steps =
        List.of(
            new Step.Statement("UPDATE account SET n = n + 1 WHERE id = 50", List.of()),
            new Step.Statement("SELECT n FROM account WHERE id = 50", List.of()));
    Options options = Options.of(Mode.PESSIMISTIC);
    var first = nodes.get(0).transactions().run(options, steps, Optional.of("order-17"));
    var again = nodes.get(1).transactions().run(options, steps, Optional.of("order-17"));
    assertThat(first.repeated()).isFalse();
    assertThat(again.repeated()).isTrue();
    for (TestSql.Node node : nodes) {
      var record = node.transactions().find("order-17").orElseThrow();
      assertThat(record.steps()).hasSize(2);
      assertThat(record.participants()).isNotEmpty();
      assertThat(record.state()).isEqualTo(State.COMMITTED);
      assertThat(record.originator()).isEqualTo(nodes.getFirst().member().id());
    }
    refused(
        Code.CONFLICT,
        "order-17 has been done, with other steps",
        () ->
            nodes.get(1).transactions().run(options, steps.subList(0, 1), Optional.of("order-17")));
    assertThat(n(50)).isEqualTo(1);
    assertThat(again.results().get(1).sql().orElseThrow().rows()).isEqualTo(List.of(List.of(1)));
    assertThat(
            nodes
                .get(2)
                .transactions()
                .runOnce("order-17", options, t -> t.sql("UPDATE account SET n = 9 WHERE id = 50")))
        .isEmpty();
    assertThat(n(50)).isEqualTo(1);
  }

  @Test
  @Order(8)
  void aSessionIsWorkedOnFromManyThreadsAndEndsByItself() {
    account(60, "session", 0);
    GridTransactions transactions = nodes.get(0).transactions();
    Step update = new Step.Statement("UPDATE account SET n = n + 1 WHERE id = 60", List.of());
    var session = transactions.begin(SHORT);
    CompletableFuture.runAsync(() -> session.step(update), TestNodes.MEANWHILE).join();
    transactions.session(session.id()).orElseThrow().step(update);
    session.commit();
    assertThat(n(60)).isEqualTo(2);
    refused(Code.NOT_FOUND, "has ended", () -> session.step(update));
    var undone = transactions.begin(SHORT);
    undone.step(update);
    undone.rollback();
    var broken = transactions.begin(SHORT);
    broken.step(update);
    refused(Code.INVALID, "", () -> broken.step(new Step.Statement("UPDATE nonsense", List.of())));
    var late = transactions.begin(SHORT);
    late.step(update);
    TestNodes.await(
        "its end", Duration.ofSeconds(10), () -> transactions.session(late.id()).isEmpty());
    assertThat(n(60)).isEqualTo(2);
  }

  @Test
  @Order(8)
  void aTransactionThatWaitsForItsClientDoesNotHoldUpAChangeOfTheTables() throws Exception {
    account(61, "idle", 0);
    Step update = new Step.Statement("UPDATE account SET n = n + 1 WHERE id = 61", List.of());
    var idle = nodes.get(0).transactions().begin(LONG);
    idle.step(update);
    createInBackground("CREATE TABLE beside_idle (id INT PRIMARY KEY)").get(15, TimeUnit.SECONDS);
    refused(Code.UNAVAILABLE, "met a change", () -> idle.step(update));
    assertThat(n(61)).isEqualTo(0);
  }

  /** The planner asks all nodes for sizes, and they answer when the topology has settled. */
  @Test
  @Timeout(60)
  @Order(8)
  void aStatementThatIsPlannedUnderLocksDoesNotHoldUpAChangeOfTheTables() throws Exception {
    account(62, "planned", 0);
    AtomicReference<CompletableFuture<Void>> created = new AtomicReference<>();
    refused(
        Code.UNAVAILABLE,
        "met a change",
        () ->
            nodes
                .get(0)
                .transactions()
                .run(
                    LONG,
                    transaction -> {
                      transaction.sql("UPDATE account SET n = n + 1 WHERE id = 62");
                      created.set(createInBackground("CREATE TABLE beside (id INT PRIMARY KEY)"));
                      pause(500);
                      return transaction.sql("SELECT n + 7 FROM account WHERE id = 62").rows();
                    }));
    created.get().get(15, TimeUnit.SECONDS);
    assertThat(n(62)).isEqualTo(0);
  }

  private static CompletableFuture<Void> createInBackground(String statement) {
    return CompletableFuture.runAsync(
        () -> nodes.get(1).sql().execute(statement), TestNodes.MEANWHILE);
  }

  @Test
  @Order(9)
  void misuseIsRefused() {
    GridTransactions transactions = nodes.get(0).transactions();
    refused(
        Code.INVALID,
        "optimistic",
        () -> transactions.run(Mode.OPTIMISTIC, t -> t.sql("SELECT n FROM account")));
    refused(
        Code.INVALID,
        "SELECT, INSERT",
        () -> transactions.run(Mode.PESSIMISTIC, t -> t.sql("DROP TABLE account")));
    refused(
        Code.INVALID,
        "inside",
        () ->
            transactions.run(
                Mode.PESSIMISTIC, t -> transactions.run(Mode.PESSIMISTIC, inner -> true)));
    refused(
        Code.INVALID,
        "steps",
        () -> transactions.run(Options.of(Mode.PESSIMISTIC), List.of(), Optional.empty()));
  }

  @Test
  @Order(20)
  void moneyIsNeitherMadeNorLostWhileANodeIsStopped() throws Exception {
    for (int i = 100; i < 110; i++) {
      account(i, "bank", 100);
    }
    AtomicBoolean stop = new AtomicBoolean();
    AtomicInteger moved = new AtomicInteger();
    List<CompletableFuture<Void>> workers = new ArrayList<>();
    for (int w = 0; w < 3; w++) {
      GridTransactions mine = nodes.get(w).transactions();
      Random random = new Random(w);
      workers.add(
          CompletableFuture.runAsync(
              () -> {
                while (!stop.get()) {
                  int from = 100 + random.nextInt(10);
                  int to = 100 + (from - 100 + 1 + random.nextInt(9)) % 10;
                  try {
                    mine.run(
                        SHORT,
                        transaction -> {
                          transaction.sql(
                              "UPDATE account SET n = n - 1 WHERE id = ?", Math.min(from, to));
                          transaction.sql(
                              "UPDATE account SET n = n + 1 WHERE id = ?", Math.max(from, to));
                          return moved.incrementAndGet();
                        });
                  } catch (FlotillaException allowed) {
                    assertThat(allowed.code()).isNotEqualTo(Code.INVALID);
                    pause(20);
                  }
                }
              },
              TestNodes.MEANWHILE));
    }
    TestNodes.await("some transfers", Duration.ofSeconds(20), () -> moved.get() > 20);
    grids.stop(nodes.get(2));
    int then = moved.get();
    TestNodes.await("transfers go on", Duration.ofSeconds(30), () -> moved.get() > then + 20);
    assertThat(sum(nodes.get(0))).isEqualTo(1000);
    stop.set(true);
    for (CompletableFuture<Void> worker : workers) {
      worker.get(30, TimeUnit.SECONDS);
    }
    assertThat(sum(nodes.get(1))).isEqualTo(1000);
  }

  /** A node that is gone refuses at once, and asking it without pause takes a whole processor. */
  private static void pause(long ms) {
    try {
      Thread.sleep(ms);
    } catch (InterruptedException e) {
      throw new IllegalStateException(e);
    }
  }

  private static int sum(TestSql.Node node) {
    return node.transactions()
        .run(
            new Options(Mode.PESSIMISTIC, Duration.ofSeconds(20)),
            transaction ->
                ((Number)
                        transaction
                            .sql("SELECT SUM(n) FROM account WHERE owner = 'bank'")
                            .rows()
                            .getFirst()
                            .getFirst())
                    .intValue());
  }

  @Test
  @Order(30)
  void theMinorityIsRefused() {
    grids.stop(nodes.get(1));
    TestNodes.await(
        "no majority", Duration.ofSeconds(20), () -> !nodes.get(0).member().grid().hasMajority());
    refused(
        Code.NO_MAJORITY,
        "majority",
        () ->
            nodes
                .get(0)
                .transactions()
                .run(SHORT, t -> t.sql("UPDATE account SET n = 5 WHERE id = 1")));
    refused(
        Code.NO_MAJORITY,
        "majority",
        () -> nodes.get(0).sql().execute("CREATE TABLE late (id INT PRIMARY KEY, n INT)"));
    refused(
        Code.NO_MAJORITY, "majority", () -> nodes.get(0).sql().execute("SELECT n FROM account"));
  }
}

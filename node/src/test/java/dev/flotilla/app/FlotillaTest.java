package dev.flotilla.app;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.client.Client;
import dev.flotilla.cluster.Fence;
import dev.flotilla.cluster.Lease;
import dev.flotilla.cluster.Locks;
import dev.flotilla.data.Backups;
import dev.flotilla.data.DataPlane;
import dev.flotilla.data.cache.Cache;
import dev.flotilla.data.grid.Fences;
import dev.flotilla.data.grid.Grid;
import dev.flotilla.data.queue.Queue;
import dev.flotilla.data.sql.Sagas;
import dev.flotilla.data.sql.Transaction;
import dev.flotilla.data.sql.Transactions;
import dev.flotilla.data.usage.Usage;
import dev.flotilla.data.usage.UsageEvent;
import java.io.ByteArrayInputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.BrokenBarrierException;
import java.util.concurrent.CyclicBarrier;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Function;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The Java API on a node in this process, and on the same node through HTTP. */
class FlotillaTest {

  @TempDir static Path folder;
  private static Flotilla embedded;
  private static Flotilla remote;
  private static Client client;
  private static DataPlane data;

  @BeforeAll
  static void start() {
    int port = NodeProcess.freePorts(18_000);
    embedded =
        Flotilla.start(
            Flotilla.Config.of(folder.resolve("node"), port),
            plane -> {
              data = plane;
              plane
                  .sagas()
                  .register(
                      "greet",
                      List.of(
                          new Sagas.Step(
                              "hello",
                              context -> "Hello " + context.parameters().get("who"),
                              Optional.empty())));
            });
    String url = "http://127.0.0.1:" + port;
    String key = Client.keyIn(folder.resolve("node")).orElseThrow();
    remote = Flotilla.connect(url, key);
    client = new Client(url, Optional.of(key));
  }

  @AfterAll
  static void stop() {
    remote.close();
    embedded.close();
  }

  private static Flotilla flotilla(String which) {
    return which.equals("embedded") ? embedded : remote;
  }

  private static byte[] bytes(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }

  @ParameterizedTest
  @ValueSource(strings = {"embedded", "remote"})
  void everyPartAnswers(String which) throws Exception {
    Flotilla flotilla = flotilla(which);
    Locks.Grant grant =
        flotilla.locks().acquire(Locks.Request.exclusive("api-" + which, "me")).orElseThrow();
    assertThat(grant.token()).isPositive();
    assertThat(flotilla.locks().release(grant)).isTrue();

    flotilla.cache("api").put(which, bytes("value"));
    assertThat(flotilla.cache("api").get(which)).hasValue(bytes("value"));

    Queue queue = flotilla.queue("api-" + which);
    queue.send(Queue.Outgoing.of("k", bytes("hello")));
    Queue.Message message =
        queue
            .receive(Queue.DEFAULT_GROUP, "me", 1, Duration.ofSeconds(30), Duration.ofSeconds(5))
            .getFirst();
    assertThat(message.body()).isEqualTo(bytes("hello"));
    queue.acknowledge(List.of(message.receipt()), Optional.empty());
    assertThat(queue.stats().groups().getFirst().depth()).isZero();

    String table = "api_" + which;
    flotilla.sql().execute("CREATE TABLE " + table + " (id INT PRIMARY KEY, name VARCHAR)");
    flotilla.sql().execute("INSERT INTO " + table + " (id, name) VALUES (?, ?)", 1, "one");
    assertThat(flotilla.sql().execute("SELECT name FROM " + table).rows())
        .containsExactly(List.of("one"));

    String digest =
        flotilla.blobs().put("default", new ByteArrayInputStream(bytes(which))).digest();
    assertThat(flotilla.blobs().read(digest, 0, which.length()).readAllBytes())
        .isEqualTo(bytes(which));

    flotilla.log().append("api-" + which, bytes("record"));
    assertThat(flotilla.log().read("api-" + which, 0, 10, 0)).hasSize(1);
    assertThat(flotilla.jobs().list()).isEmpty();
    assertThat(flotilla.indexes().names()).isEmpty();
    assertThat(flotilla.models().list()).isEmpty();
    assertThat(flotilla.deployments().list()).isEmpty();
  }

  @ParameterizedTest
  @ValueSource(strings = {"embedded", "remote"})
  void sagasUsageAndBackupsAreOpenToPrograms(String which) throws Exception {
    Flotilla flotilla = flotilla(which);
    flotilla.sagas().start("greet", "greet-" + which, Map.of("who", "Ann"));
    Sagas.View saga = flotilla.sagas().await("greet-" + which, Duration.ofSeconds(20));
    assertThat(saga.state()).isEqualTo(Sagas.State.DONE);
    assertThat(saga.results()).containsExactly(Map.entry("hello", "Hello Ann"));
    assertThat(flotilla.sagas().find("greet-" + which)).contains(saga);
    assertThat(flotilla.sagas().find("nobody")).isEmpty();
    refused(
        FlotillaException.Code.NOT_FOUND, () -> flotilla.sagas().start("no-such", "x", Map.of()));

    long nowMs = System.currentTimeMillis();
    flotilla.usage().append(new UsageEvent("r-" + which, nowMs, "ann", which, 7, 5, false));
    flotilla.usage().append(new UsageEvent("r-" + which, nowMs, "ann", which, 7, 5, false));
    long deadlineNs = System.nanoTime() + 20_000_000_000L;
    while (!flotilla
        .usage()
        .report(nowMs - 1, nowMs + 1, Usage.By.MODEL)
        .rows()
        .contains(new Usage.Row(which, 1, 7, 5, 0))) {
      assertThat(System.nanoTime()).as("the request is counted").isLessThan(deadlineNs);
      sleep(50);
    }
    assertThat(flotilla.usage().rebuild().events()).isPositive();
    Usage.Report report = flotilla.usage().report(nowMs - 1, nowMs + 1, Usage.By.KEY);
    assertThat(report.fromMs()).isEqualTo(nowMs / 3_600_000 * 3_600_000);
    assertThat(report.rows()).extracting(Usage.Row::group).contains("ann");

    flotilla.cache("kept").put(which, bytes("before"));
    Backups.Backup backup = flotilla.backups().create("api_" + which, Optional.empty());
    flotilla.cache("kept").put(which, bytes("after"));
    assertThat(flotilla.backups().list()).contains(backup);
    assertThat(flotilla.backups().restore(backup.name(), Optional.empty(), Optional.empty()))
        .isEqualTo(backup.points().getFirst());
    assertThat(flotilla.cache("kept").get(which)).hasValue(bytes("before"));
  }

  private static void refused(FlotillaException.Code code, Runnable operation) {
    assertThatThrownBy(operation::run)
        .isInstanceOfSatisfying(
            FlotillaException.class, e -> assertThat(e.code()).as("%s", e).isEqualTo(code));
  }

  private static Transactions.Options within(Duration timeout) {
    return new Transactions.Options(Transactions.Mode.PESSIMISTIC, timeout);
  }

  @ParameterizedTest
  @ValueSource(strings = {"embedded", "remote"})
  void aBodyOfSqlCachesAndQueuesIsAllOrNothing(String which) throws Exception {
    Flotilla flotilla = flotilla(which);
    String sold = "sold_" + which;
    flotilla.sql().execute("CREATE TABLE " + sold + " (id VARCHAR PRIMARY KEY, item VARCHAR)");
    Cache stock = flotilla.cache("stock-" + which);
    stock.put("apple", bytes("3"));
    Queue orders = flotilla.queue("orders-" + which);
    Queue bills = flotilla.queue("bills-" + which);
    orders.send(Queue.Outgoing.of("apple", bytes("one")));
    bills.send(Queue.Outgoing.of("", bytes("first")));
    Queue.Message order =
        orders
            .receive(Queue.DEFAULT_GROUP, "me", 1, Duration.ofMinutes(5), Duration.ofSeconds(5))
            .getFirst();
    Function<Transaction, Long> sell =
        transaction -> {
          transaction.sql("INSERT INTO " + sold + " VALUES (?, ?)", order.id(), order.key());
          assertThat(stock.get("nothing")).isEmpty();
          assertThat(stock.putIfAbsent("apple", bytes("9"), Optional.empty())).isEmpty();
          long left = stock.increment(order.key(), -1);
          bills.send(Queue.Outgoing.of("ann", bytes("pay")));
          orders.acknowledge(List.of(order.receipt()), Optional.empty());
          // A part that fails does not end the body.
          refused(
              FlotillaException.Code.INVALID, () -> flotilla.sql().execute("SELECT no FROM where"));
          assertThat(flotilla.sql().execute("SELECT item FROM " + sold).rows()).hasSize(1);
          return left;
        };
    assertThatThrownBy(
            () ->
                flotilla
                    .transactions()
                    .run(
                        Transactions.Mode.PESSIMISTIC,
                        transaction -> {
                          var _ = sell.apply(transaction);
                          throw new IllegalStateException("changed my mind");
                        }))
        .isInstanceOf(IllegalStateException.class)
        .hasMessage("changed my mind");
    assertThat(stock.get("apple")).hasValue(bytes("3"));
    assertThat(bills.stats().sent()).isEqualTo(1);
    assertThat(flotilla.sql().execute("SELECT id FROM " + sold).rows()).isEmpty();

    assertThat(flotilla.transactions().run(Transactions.Mode.PESSIMISTIC, sell)).isEqualTo(2);
    assertThat(stock.get("apple")).hasValue(bytes("2"));
    assertThat(bills.stats().sent()).isEqualTo(2);
    assertThat(orders.stats().groups().getFirst().depth()).isZero();
    assertThat(flotilla.sql().execute("SELECT item FROM " + sold).rows())
        .containsExactly(List.of("apple"));
    refused(
        FlotillaException.Code.CONFLICT,
        () ->
            flotilla
                .transactions()
                .run(
                    Transactions.Mode.PESSIMISTIC,
                    transaction -> {
                      stock.increment("apple", -1);
                      orders.acknowledge(List.of(order.receipt()), Optional.empty());
                      return true;
                    }));
    assertThat(stock.get("apple")).hasValue(bytes("2"));
  }

  @ParameterizedTest
  @ValueSource(strings = {"embedded", "remote"})
  void aBodyRunsOnceInTimeAndAlone(String which) {
    Flotilla flotilla = flotilla(which);
    Transactions transactions = flotilla.transactions();
    Cache counts = flotilla.cache("counts-" + which);
    counts.put("n", bytes("0"));
    Function<Transaction, Long> count = transaction -> counts.increment("n", 1);
    assertThat(transactions.runOnce("once-" + which, within(Duration.ofSeconds(5)), count))
        .hasValue(1L);
    assertThat(transactions.runOnce("once-" + which, within(Duration.ofSeconds(5)), count))
        .isEmpty();
    assertThat(counts.get("n")).hasValue(bytes("1"));

    refused(
        FlotillaException.Code.BUSY,
        () ->
            transactions.run(
                within(Duration.ofMillis(300)),
                transaction -> {
                  counts.increment("n", 1);
                  sleep(900);
                  return counts.increment("n", 1);
                }));
    assertThat(counts.get("n")).hasValue(bytes("1"));
    refused(
        FlotillaException.Code.INVALID,
        () ->
            transactions.run(
                Transactions.Mode.PESSIMISTIC,
                outer -> transactions.run(Transactions.Mode.PESSIMISTIC, count)));
    refused(
        FlotillaException.Code.INVALID,
        () ->
            transactions.run(
                Transactions.Mode.PESSIMISTIC,
                transaction -> flotilla.cache("made-inside-" + which).increment("n", 1)));
    assertThat(counts.get("n")).hasValue(bytes("1"));
  }

  private static void sleep(long ms) {
    try {
      Thread.sleep(ms);
    } catch (InterruptedException e) {
      throw new IllegalStateException(e);
    }
  }

  /**
   * Many at once add one each, trying again where another came first: no addition is lost. All have
   * read the same before the first of them writes.
   */
  @ParameterizedTest
  @ValueSource(strings = {"embedded", "remote"})
  void bodiesThatMeetAreTriedAgainAndNoneIsLost(String which) throws Exception {
    Flotilla flotilla = flotilla(which);
    Cache shared = flotilla.cache("shared-" + which);
    shared.put("n", bytes("0"));
    AtomicInteger conflicts = new AtomicInteger();
    CyclicBarrier haveRead = new CyclicBarrier(4);
    try (var threads = Executors.newVirtualThreadPerTaskExecutor()) {
      List<Future<?>> all = new ArrayList<>();
      for (int i = 0; i < 4; i++) {
        all.add(
            threads.submit(
                () -> {
                  AtomicBoolean first = new AtomicBoolean(true);
                  for (int n = 0; n < 10; n++) {
                    addOne(
                        flotilla,
                        shared,
                        conflicts,
                        () -> {
                          if (first.getAndSet(false)) {
                            meet(haveRead);
                          }
                        });
                  }
                }));
      }
      for (Future<?> each : all) {
        each.get(60, TimeUnit.SECONDS);
      }
    }
    assertThat(shared.get("n")).hasValue(bytes("40"));
    assertThat(conflicts.get()).as("optimistic ones met").isGreaterThanOrEqualTo(3);
  }

  private static void meet(CyclicBarrier barrier) {
    try {
      barrier.await(60, TimeUnit.SECONDS);
    } catch (InterruptedException | BrokenBarrierException | TimeoutException e) {
      throw new IllegalStateException(e);
    }
  }

  private static void addOne(
      Flotilla flotilla, Cache shared, AtomicInteger conflicts, Runnable onRead) {
    while (true) {
      try {
        flotilla
            .transactions()
            .run(
                Transactions.Mode.OPTIMISTIC,
                transaction -> {
                  String was = new String(shared.get("n").orElseThrow(), StandardCharsets.UTF_8);
                  onRead.run();
                  shared.put("n", bytes("" + (Integer.parseInt(was) + 1)));
                  return true;
                });
        return;
      } catch (FlotillaException e) {
        if (e.code() != FlotillaException.Code.CONFLICT) {
          throw e;
        }
        conflicts.incrementAndGet();
      }
    }
  }

  @Test
  void anEffectAndItsAcknowledgementAreOneList() throws Exception {
    embedded.sql().execute("CREATE TABLE effects (id VARCHAR PRIMARY KEY, body VARCHAR)");
    Queue queue = embedded.queue("effects");
    queue.send(Queue.Outgoing.of("k", bytes("pay")));
    Queue.Message message =
        queue
            .receive(Queue.DEFAULT_GROUP, "me", 1, Duration.ofSeconds(30), Duration.ofSeconds(5))
            .getFirst();
    Map<String, Object> steps =
        Map.of(
            "steps",
            List.of(
                Map.of(
                    "statement",
                    "INSERT INTO effects (id, body) VALUES (?, ?)",
                    "arguments",
                    List.of("1", "pay")),
                Map.of("ack", Map.of("queue", "effects", "receipts", List.of(message.receipt())))));
    JsonNode done = client.post("/api/transactions", steps);
    assertThat(done.path("id").asText()).isNotEmpty();
    assertThatThrownBy(() -> client.post("/api/transactions", steps))
        .isInstanceOfSatisfying(
            FlotillaException.class,
            e -> assertThat(e.code()).isEqualTo(FlotillaException.Code.CONFLICT));
    assertThat(embedded.sql().execute("SELECT id FROM effects").rows()).hasSize(1);
  }

  @Test
  void queuesAreUsedFromTheShell() {
    String[] access = {"--url", client.base().toString(), "--key", key()};
    assertThat(run(access, "queue", "send", "shell", "hello", "--message-key", "k")).isZero();
    assertThat(run(access, "queue", "receive", "shell", "--ack", "--wait-ms", "5000")).isZero();
    assertThat(run(access, "queue", "stats", "shell")).isZero();
    assertThat(run(access, "queue", "list")).isZero();
    assertThat(run(access, "queue", "rm", "shell")).isZero();
    assertThat(run(access, "queue", "stats", "shell")).isEqualTo(1);
    assertThat(run(access, "queue", "ack", "shell", "forged")).isEqualTo(1);
  }

  /**
   * A holder stands still past its lease, the next one takes the lock and writes; then the first
   * one goes on. 2,000 of its 100,000 tries are whole writes (sends, acknowledgements, names and
   * removals of blobs, half of them over HTTP); the others are what each of these asks first, in
   * the same transaction of the grid.
   */
  @Test
  void aHolderThatStoodStillPastItsLeaseChangesNothingIn100000Tries() throws Exception {
    Queue queue = embedded.queue("fenced");
    queue.send(List.of(Queue.Outgoing.of("k", bytes("kept"))), Optional.empty());
    Queue.Message message =
        queue
            .receive(Queue.DEFAULT_GROUP, "A", 1, Duration.ofHours(1), Duration.ofSeconds(5))
            .getFirst();
    String digest =
        embedded.blobs().put("default", new ByteArrayInputStream(bytes("new"))).digest();
    Fence stale =
        fence(
            embedded
                .locks()
                .acquire(Locks.Request.exclusive("job", "A").ttl(Duration.ofMillis(300)))
                .orElseThrow());
    name(embedded, digest, stale);
    Fence present =
        fence(
            embedded
                .locks()
                .acquire(Locks.Request.exclusive("job", "B").await(Duration.ofSeconds(10)))
                .orElseThrow());
    String others =
        embedded.blobs().put("default", new ByteArrayInputStream(bytes("of B"))).digest();
    name(embedded, others, present);
    queue.send(List.of(Queue.Outgoing.of("k", bytes("of B"))), Optional.of(present));

    int accepted = 0;
    for (int i = 0; i < 500; i++) {
      Flotilla flotilla = i % 2 == 0 ? embedded : remote;
      Queue same = flotilla.queue("fenced");
      accepted +=
          accepted(
              () -> same.send(List.of(Queue.Outgoing.of("k", bytes("late"))), Optional.of(stale)));
      accepted += accepted(() -> same.acknowledge(List.of(message.receipt()), Optional.of(stale)));
      accepted += accepted(() -> name(flotilla, digest, stale));
      accepted +=
          accepted(() -> flotilla.blobs().remove("default", "fenced/name", Optional.of(stale)));
    }
    Fences fences = new Fences(data.grid());
    for (int i = 0; i < 98; i++) {
      String resource = i % 2 == 0 ? "queue fenced" : "blob default/fenced/name";
      accepted +=
          data.grid()
              .transact(
                  "a late write",
                  Grid.TransactionMode.PESSIMISTIC,
                  ignite -> {
                    int let = 0;
                    for (int n = 0; n < 1_000; n++) {
                      let += accepted(() -> fences.check(ignite, resource, Optional.of(stale)));
                    }
                    return let;
                  });
    }
    assertThat(accepted).isZero();
    assertThat(queue.stats().sent()).isEqualTo(2);
    assertThat(queue.stats().groups().getFirst().depth()).isEqualTo(2);
    assertThat(embedded.blobs().reference("default", "fenced/name").orElseThrow().digest())
        .isEqualTo(others);
    // Whoever holds the lock still can.
    queue.acknowledge(List.of(message.receipt()), Optional.of(present));
  }

  private static Fence fence(Locks.Grant grant) {
    return new Fence("job", grant.token());
  }

  private static void name(Flotilla flotilla, String digest, Fence fence) {
    flotilla.blobs().name("default", "fenced/name", digest, Optional.empty(), Optional.of(fence));
  }

  private static int accepted(Runnable write) {
    try {
      write.run();
      return 1;
    } catch (FlotillaException e) {
      assertThat(e.code()).as("%s", e).isEqualTo(FlotillaException.Code.CONFLICT);
      assertThat(e).hasMessageContaining("stale token");
      return 0;
    }
  }

  /** What README says, word by word, on both. */
  @ParameterizedTest
  @ValueSource(strings = {"embedded", "remote"})
  void theExampleOfTheReadmeWorks(String which) throws Exception {
    Flotilla flotilla = flotilla(which);
    // A process's first INSERT takes the planner seconds on a busy machine: not in a transaction.
    flotilla.sql().execute("CREATE TABLE first_" + which + " (id VARCHAR PRIMARY KEY, n VARCHAR)");
    flotilla.sql().execute("INSERT INTO first_" + which + " VALUES (?, ?)", "1", "one");
    readme(flotilla);
    assertThat(flotilla.cache("stock").get("apple")).hasValue(bytes("2"));
    assertThat(flotilla.sql().execute("SELECT item FROM sold").rows()).contains(List.of("apple"));
    assertThat(flotilla.blobs().reference("default", "reports/today")).isPresent();

    String home = System.getProperty("flotilla.home");
    String text = Files.readString(Path.of(home, "README.md"));
    String source = Files.readString(Path.of(home, SOURCE));
    String example = text.substring(text.indexOf("```java"));
    example = example.substring(example.indexOf("  flotilla.sql()"), example.indexOf("\n}\n```"));
    assertThat(source.replaceAll("\\s+", "")).contains(example.replaceAll("\\s+", ""));
  }

  private static final String SOURCE = "node/src/test/java/dev/flotilla/app/FlotillaTest.java";

  private static void readme(Flotilla flotilla) throws Exception {
    flotilla
        .sql()
        .execute("CREATE TABLE IF NOT EXISTS sold (id VARCHAR PRIMARY KEY, item VARCHAR)");
    Cache stock = flotilla.cache("stock");
    stock.put("apple", "3".getBytes(UTF_8));
    Queue orders = flotilla.queue("orders");
    orders.send(Queue.Outgoing.of("apple", "for Ann".getBytes(UTF_8)));
    for (Queue.Message order :
        orders.receive(
            Queue.DEFAULT_GROUP, "me", 10, Duration.ofSeconds(30), Duration.ofSeconds(5))) {
      flotilla
          .transactions()
          .run(
              Transactions.Mode.PESSIMISTIC,
              transaction -> {
                transaction.sql("INSERT INTO sold VALUES (?, ?)", order.id(), order.key());
                stock.increment(order.key(), -1);
                orders.acknowledge(
                    List.of(order.receipt()), Optional.empty()); // all three, or none
                return order.id();
              });
    }
    try (Lease lease =
        flotilla.locks().lease(Locks.Request.exclusive("nightly", "me")).orElseThrow()) {
      String digest =
          flotilla
              .blobs()
              .put("default", new ByteArrayInputStream("sold".getBytes(UTF_8)))
              .digest();
      flotilla
          .blobs()
          .name("default", "reports/today", digest, Optional.empty(), Optional.of(lease.fence()));
    }
  }

  private static String key() {
    return Client.keyIn(folder.resolve("node")).orElseThrow();
  }

  private static int run(String[] access, String... command) {
    String[] all = java.util.Arrays.copyOf(command, command.length + access.length);
    System.arraycopy(access, 0, all, command.length, access.length);
    return Main.run(all);
  }
}

package dev.flotilla.app;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.client.Client;
import dev.flotilla.cluster.Locks;
import dev.flotilla.data.Backups;
import dev.flotilla.data.cache.Cache;
import dev.flotilla.data.queue.Queue;
import dev.flotilla.data.sql.Sagas;
import dev.flotilla.data.sql.Transaction;
import dev.flotilla.data.sql.Transactions;
import dev.flotilla.data.usage.Usage;
import dev.flotilla.data.usage.UsageEvent;
import java.io.ByteArrayInputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
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

  @BeforeAll
  static void start() {
    int port = Demo.freePorts(18_000);
    embedded =
        Flotilla.start(
            Flotilla.Config.of(folder.resolve("node"), port),
            data ->
                data.sagas()
                    .register(
                        "greet",
                        List.of(
                            new Sagas.Step(
                                "hello",
                                context -> "Hello " + context.parameters().get("who"),
                                Optional.empty()))));
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

  /** Many at once add one each, trying again where another came first: no addition is lost. */
  @ParameterizedTest
  @ValueSource(strings = {"embedded", "remote"})
  void bodiesThatMeetAreTriedAgainAndNoneIsLost(String which) throws Exception {
    Flotilla flotilla = flotilla(which);
    Cache shared = flotilla.cache("shared-" + which);
    shared.put("n", bytes("0"));
    AtomicInteger conflicts = new AtomicInteger();
    try (var threads = Executors.newVirtualThreadPerTaskExecutor()) {
      List<Future<?>> all = new ArrayList<>();
      for (int i = 0; i < 4; i++) {
        all.add(
            threads.submit(
                () -> {
                  for (int n = 0; n < 10; n++) {
                    addOne(flotilla, shared, conflicts);
                  }
                }));
      }
      for (Future<?> each : all) {
        each.get(60, TimeUnit.SECONDS);
      }
    }
    assertThat(shared.get("n")).hasValue(bytes("40"));
    assertThat(conflicts).as("optimistic ones met").hasPositiveValue();
  }

  private static void addOne(Flotilla flotilla, Cache shared, AtomicInteger conflicts) {
    while (true) {
      try {
        flotilla
            .transactions()
            .run(
                Transactions.Mode.OPTIMISTIC,
                transaction -> {
                  String was = new String(shared.get("n").orElseThrow(), StandardCharsets.UTF_8);
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

  private static String key() {
    return Client.keyIn(folder.resolve("node")).orElseThrow();
  }

  private static int run(String[] access, String... command) {
    String[] all = java.util.Arrays.copyOf(command, command.length + access.length);
    System.arraycopy(access, 0, all, command.length, access.length);
    return Main.run(all);
  }
}

package dev.flotilla.app;

import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.client.Client;
import dev.flotilla.client.HttpSql;
import dev.flotilla.client.HttpTransactions;
import dev.flotilla.data.sql.Transactions.Mode;
import dev.flotilla.data.sql.Transactions.Options;
import dev.flotilla.data.sql.Transactions.Step;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Three real processes; one, originator and participant of transactions, is killed with -9. */
class TransactionKillTest {

  private static final int ACCOUNTS = 20;

  @TempDir Path folder;

  private final List<DemoNode> nodes = new ArrayList<>();

  @Test
  void transfersAreWholeThoughANodeIsKilledAmongThem() throws Exception {
    try {
      int port = Demo.freePorts(18_000);
      start("one", port, List.of());
      Optional<String> key = Client.keyIn(nodes.getFirst().folder());
      Client first = new Client(nodes.getFirst().url(), key);
      for (int i = 1; i < 3; i++) {
        String token = first.post("/api/invites", Map.of()).path("token").asText();
        start("n" + i, port + 10 * i, List.of("--join", "127.0.0.1:" + port, "--token", token));
      }
      HttpSql sql = new HttpSql(first);
      sql.execute("CREATE TABLE account (id INT PRIMARY KEY, n INT)");
      sql.execute("CREATE TABLE transfer (id VARCHAR PRIMARY KEY, n INT)");
      for (int i = 0; i < ACCOUNTS; i++) {
        sql.execute("INSERT INTO account VALUES (?, 100)", i);
      }
      AtomicBoolean stop = new AtomicBoolean();
      AtomicInteger done = new AtomicInteger();
      ConcurrentLinkedQueue<String> acknowledged = new ConcurrentLinkedQueue<>();
      ConcurrentLinkedQueue<String> refused = new ConcurrentLinkedQueue<>();
      List<CompletableFuture<Void>> workers = new ArrayList<>();
      for (int w = 0; w < 3; w++) {
        int worker = w;
        HttpTransactions mine = new HttpTransactions(new Client(nodes.get(w).url(), key));
        workers.add(
            CompletableFuture.runAsync(
                () -> {
                  Random random = new Random(worker);
                  for (int i = 0; !stop.get(); i++) {
                    String id = worker + "-" + i;
                    try {
                      mine.run(
                          new Options(Mode.PESSIMISTIC, Duration.ofSeconds(5)),
                          steps(id, random.nextInt(ACCOUNTS), random.nextInt(ACCOUNTS)),
                          Optional.of(id));
                      acknowledged.add(id);
                      done.incrementAndGet();
                    } catch (FlotillaException e) {
                      if (e.code() == Code.CONFLICT || e.code() == Code.BUSY) {
                        refused.add(id);
                      } else if (worker == 2) {
                        return; // Its node is gone.
                      }
                    }
                  }
                }));
      }
      await(done, 40);
      nodes.get(2).kill();
      await(done, done.get() + 40);
      stop.set(true);
      for (CompletableFuture<Void> worker : workers) {
        worker.get(60, TimeUnit.SECONDS);
      }
      HttpTransactions reader = new HttpTransactions(new Client(nodes.get(1).url(), key));
      var seen =
          reader.run(
              new Options(Mode.PESSIMISTIC, Duration.ofSeconds(20)),
              List.of(
                  new Step.Statement("SELECT SUM(n) FROM account", List.of()),
                  new Step.Statement("SELECT id FROM transfer", List.of())),
              Optional.empty());
      assertThat(
              ((Number) seen.results().get(0).sql().orElseThrow().rows().getFirst().getFirst())
                  .intValue())
          .isEqualTo(100 * ACCOUNTS);
      List<String> kept =
          seen.results().get(1).sql().orElseThrow().rows().stream()
              .map(row -> String.valueOf(row.getFirst()))
              .toList();
      assertThat(kept).containsAll(acknowledged);
      assertThat(kept).filteredOn(refused::contains).isEmpty();
    } finally {
      nodes.forEach(DemoNode::kill);
    }
  }

  private static List<Step> steps(String id, int from, int to) {
    return List.of(
        new Step.Statement("UPDATE account SET n = n - 1 WHERE id = ?", List.of(from)),
        new Step.Statement("UPDATE account SET n = n + 1 WHERE id = ?", List.of(to)),
        new Step.Statement("INSERT INTO transfer VALUES (?, 1)", List.of(id)));
  }

  private static void await(AtomicInteger count, int least) throws InterruptedException {
    long deadlineNs = System.nanoTime() + 120_000_000_000L;
    while (count.get() < least) {
      assertThat(System.nanoTime()).as("transfers go on").isLessThan(deadlineNs);
      Thread.sleep(50);
    }
  }

  private void start(String name, int port, List<String> join) throws Exception {
    DemoNode node =
        new DemoNode(
            List.of(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "@" + Path.of(System.getProperty("flotilla.home"), "node", "jvm.options"),
                "-Xmx512m",
                "-cp",
                System.getProperty("java.class.path"),
                "dev.flotilla.app.Main"),
            name,
            folder.resolve(name),
            port,
            join);
    nodes.add(node);
    node.awaitReady();
  }
}

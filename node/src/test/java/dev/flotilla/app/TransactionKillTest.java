package dev.flotilla.app;

import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.client.HttpSql;
import dev.flotilla.client.HttpTransactions;
import dev.flotilla.cluster.TestNodes;
import dev.flotilla.data.sql.Transactions.Mode;
import dev.flotilla.data.sql.Transactions.Options;
import dev.flotilla.data.sql.Transactions.Step;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
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
  private static final Duration LONG = Duration.ofMinutes(2);

  @TempDir Path folder;

  @Test
  void transfersAreWholeThoughANodeIsKilledAmongThem() throws Exception {
    try (TestProcesses nodes = new TestProcesses(folder)) {
      for (String name : List.of("one", "n1", "n2")) {
        nodes.add(name);
      }
      HttpSql sql = new HttpSql(nodes.client(0));
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
        HttpTransactions mine = new HttpTransactions(nodes.client(w));
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
      TestNodes.await("transfers", LONG, () -> done.get() >= 40);
      nodes.node(2).kill();
      int then = done.get();
      TestNodes.await("transfers go on", LONG, () -> done.get() >= then + 40);
      stop.set(true);
      for (CompletableFuture<Void> worker : workers) {
        worker.get(60, TimeUnit.SECONDS);
      }
      HttpTransactions reader = new HttpTransactions(nodes.client(1));
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
    }
  }

  private static List<Step> steps(String id, int from, int to) {
    return List.of(
        new Step.Statement("UPDATE account SET n = n - 1 WHERE id = ?", List.of(from)),
        new Step.Statement("UPDATE account SET n = n + 1 WHERE id = ?", List.of(to)),
        new Step.Statement("INSERT INTO transfer VALUES (?, 1)", List.of(id)));
  }
}

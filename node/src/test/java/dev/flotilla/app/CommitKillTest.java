package dev.flotilla.app;

import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.client.Client;
import dev.flotilla.client.HttpCaches;
import dev.flotilla.client.HttpQueues;
import dev.flotilla.client.HttpTransactions;
import dev.flotilla.data.cache.Cache;
import dev.flotilla.data.queue.Queue;
import dev.flotilla.data.sql.Transactions;
import dev.flotilla.data.sql.Transactions.Step;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * A real process is killed with -9 at the moment at which it has acknowledged something, so that
 * nothing that comes after can have taken it to the disk along with itself.
 */
class CommitKillTest {

  private static final int LIVES = 3;
  private static final int PUTS = 20;

  @TempDir Path folder;

  @Test
  void theVeryLastCommitBeforeAKillIsThere() throws Exception {
    try (TestProcesses nodes = new TestProcesses(folder)) {
      NodeProcess node = nodes.add("one");
      for (int life = 0; life < LIVES; life++) {
        commit(nodes.client(0), life);
        node.kill();
        node.restart();
        node.awaitReady();
        verify(nodes.client(0), life);
      }
    }
  }

  /** In each life another kind of commit comes last. */
  private static void commit(Client client, int life) {
    Cache cache = new HttpCaches(client).cache("kept");
    Queue queue = new HttpQueues(client).queue("kept");
    for (int i = 1; i < PUTS; i++) {
      cache.put(life + "-" + i, bytes("v"), Optional.empty());
    }
    String last = life + "-0";
    switch (life) {
      case 0 -> {
        var _ = queue.send(Queue.Outgoing.of("key", bytes("m")));
        cache.put(last, bytes("v"), Optional.empty());
      }
      case 1 -> {
        cache.put(last, bytes("v"), Optional.empty());
        var _ = queue.send(Queue.Outgoing.of("key", bytes("m")));
      }
      default -> {
        var _ =
            new HttpTransactions(client)
                .run(
                    Transactions.Options.of(Transactions.Mode.PESSIMISTIC),
                    List.of(
                        new Step.Put("kept", last, Optional.of(bytes("v"))),
                        new Step.Send("kept", "key", bytes("m"))),
                    Optional.empty());
      }
    }
  }

  private static void verify(Client client, int life) {
    Cache cache = new HttpCaches(client).cache("kept");
    for (int each = 0; each <= life; each++) {
      for (int i = 0; i < PUTS; i++) {
        assertThat(cache.get(each + "-" + i)).as("%d-%d after life %d", each, i, life).isPresent();
      }
    }
    assertThat(new HttpQueues(client).queue("kept").stats().sent()).isEqualTo(life + 1);
  }

  private static byte[] bytes(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }
}

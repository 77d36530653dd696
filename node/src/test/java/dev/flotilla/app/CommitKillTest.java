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
import java.time.Duration;
import java.util.ArrayList;
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
  private static final int KEYS = 20;

  @TempDir Path folder;

  @Test
  void theVeryLastCommitBeforeAKillIsThere() throws Exception {
    int port = Demo.freePorts(18_700);
    List<String> ids = new ArrayList<>();
    for (int life = 0; life <= LIVES; life++) {
      DemoNode node = start(port);
      try {
        Client client = new Client(node.url(), Client.keyIn(node.folder()));
        Cache cache = new HttpCaches(client).cache("kept");
        Queue queue = new HttpQueues(client).queue("kept");
        for (int i = 0; i < life * KEYS; i++) {
          assertThat(cache.get("k" + i)).as("of life %d, k%d", life, i).isPresent();
        }
        if (life > 0) {
          assertThat(queue.stats().sent()).as("sent before life %d", life).isEqualTo(ids.size());
        }
        if (life < LIVES) {
          for (int i = life * KEYS; i < (life + 1) * KEYS - 1; i++) {
            cache.put("k" + i, bytes("v"), Optional.empty());
          }
          String last = "k" + ((life + 1) * KEYS - 1);
          switch (life) {
            case 0 -> {
              ids.add(queue.send(Queue.Outgoing.of("key", bytes("m"))));
              cache.put(last, bytes("v"), Optional.empty());
            }
            case 1 -> {
              cache.put(last, bytes("v"), Optional.empty());
              ids.add(queue.send(Queue.Outgoing.of("key", bytes("m"))));
            }
            default -> {
              var _ =
                  new HttpTransactions(client)
                      .run(
                          new Transactions.Options(
                              Transactions.Mode.PESSIMISTIC, Duration.ofSeconds(5)),
                          List.of(
                              new Step.Put("kept", last, Optional.of(bytes("v"))),
                              new Step.Send("kept", "key", bytes("m"))),
                          Optional.empty());
              ids.add("sent");
            }
          }
        }
      } finally {
        node.kill();
      }
    }
  }

  private static byte[] bytes(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }

  private DemoNode start(int port) throws Exception {
    DemoNode node =
        new DemoNode(
            List.of(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "@" + Path.of(System.getProperty("flotilla.home"), "node", "jvm.options"),
                "-Xmx512m",
                "-cp",
                System.getProperty("java.class.path"),
                "dev.flotilla.app.Main"),
            "one",
            folder.resolve("one"),
            port,
            List.of());
    try {
      node.awaitReady();
      return node;
    } catch (Exception e) {
      node.kill();
      throw e;
    }
  }
}

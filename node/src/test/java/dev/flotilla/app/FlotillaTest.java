package dev.flotilla.app;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.client.Client;
import dev.flotilla.cluster.Locks;
import dev.flotilla.data.queue.Queue;
import dev.flotilla.data.sql.Transactions;
import java.io.ByteArrayInputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;
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
    embedded = Flotilla.start(Flotilla.Config.of(folder.resolve("node"), port));
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

  @Test
  void anEffectAndItsAcknowledgementAreOneTransaction() throws Exception {
    embedded.sql().execute("CREATE TABLE effects (id VARCHAR PRIMARY KEY, body VARCHAR)");
    Queue queue = embedded.queue("effects");
    queue.send(Queue.Outgoing.of("k", bytes("pay")));
    Queue.Message message =
        queue
            .receive(Queue.DEFAULT_GROUP, "me", 1, Duration.ofSeconds(30), Duration.ofSeconds(5))
            .getFirst();
    assertThatThrownBy(
            () ->
                embedded
                    .transactions()
                    .run(
                        Transactions.Mode.PESSIMISTIC,
                        t -> {
                          t.sql("INSERT INTO effects (id, body) VALUES (?, ?)", "1", "pay");
                          queue.acknowledge(List.of(message.receipt()), Optional.empty());
                          throw new FlotillaException(
                              FlotillaException.Code.INVALID, "changed my mind", "");
                        }))
        .hasMessageContaining("changed my mind");
    assertThat(embedded.sql().execute("SELECT id FROM effects").rows()).isEmpty();
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

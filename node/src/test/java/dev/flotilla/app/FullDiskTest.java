package dev.flotilla.app;

import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.client.Client;
import dev.flotilla.client.HttpBlobs;
import dev.flotilla.client.HttpCaches;
import dev.flotilla.client.HttpQueues;
import dev.flotilla.client.HttpSql;
import dev.flotilla.cluster.TestNodes;
import dev.flotilla.cluster.TinyDisk;
import dev.flotilla.data.cache.CacheConfig;
import dev.flotilla.data.queue.Queue;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.Random;
import java.util.Set;
import org.apache.ignite.IgniteCheckedException;
import org.apache.ignite.Ignition;
import org.apache.ignite.internal.IgniteEx;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** What a full disk does to nodes that write all the while. */
class FullDiskTest {

  private static final int DISK_MB = 1024;
  private static final long MB = 1 << 20;
  private static final Duration SOON = Duration.ofSeconds(30);

  @TempDir Path folder;

  /** Writes of every kind, one after the other, and what of them was acknowledged. */
  private static final class Writer {

    private static final int VALUE_BYTES = 128 << 10;

    private final Set<Code> allowed;
    private final List<Integer> cached = new ArrayList<>();
    private final List<Integer> rows = new ArrayList<>();
    private final List<Integer> sent = new ArrayList<>();
    private final Map<String, Integer> blobs = new HashMap<>();

    /** Refused for want of room, so that nothing of them may be there. */
    private final Set<Integer> notCached = new HashSet<>();

    private final Set<Integer> noRows = new HashSet<>();
    private final Set<Integer> notSent = new HashSet<>();
    private int number;

    Writer(Client client, Set<Code> allowed) {
      this.allowed = allowed;
      var _ = new HttpCaches(client).create("full", CacheConfig.DEFAULT);
      var _ = new HttpSql(client).execute("CREATE TABLE full_disk (id INT PRIMARY KEY, t VARCHAR)");
    }

    private static byte[] value(int number) {
      byte[] value = new byte[VALUE_BYTES];
      new Random(number).nextBytes(value);
      return value;
    }

    /** One write of each kind; how many were acknowledged. */
    int round(Client client) {
      int now = ++number;
      int done = 0;
      done +=
          attempt(
              notCached,
              () -> {
                var _ =
                    new HttpCaches(client)
                        .cache("full")
                        .put("k" + now, value(now), Optional.empty());
                cached.add(now);
              });
      done +=
          attempt(
              noRows,
              () -> {
                var _ =
                    new HttpSql(client)
                        .execute(
                            "INSERT INTO full_disk VALUES (?, ?)", now, "t".repeat(5_000) + now);
                rows.add(now);
              });
      done +=
          attempt(
              notSent,
              () -> {
                var _ =
                    new HttpQueues(client)
                        .queue("full")
                        .send(Queue.Outgoing.of("k", ("m" + now).getBytes(StandardCharsets.UTF_8)));
                sent.add(now);
              });
      done +=
          attempt(
              // The same bytes may be there of another's.
              new HashSet<>(),
              () -> {
                String digest =
                    new HttpBlobs(client)
                        .put("default", new ByteArrayInputStream(value(now + 1_000_000)))
                        .digest();
                blobs.put(digest, now + 1_000_000);
              });
      return done;
    }

    private int attempt(Set<Integer> refused, Runnable write) {
      try {
        write.run();
        return 1;
      } catch (FlotillaException e) {
        assertThat(e.code()).as(e.explanation()).isIn(allowed);
        if (e.code() == Code.STORAGE) {
          assertThat(e.explanation()).contains("disk");
          refused.add(number);
        }
        return 0;
      }
    }

    /** All that was acknowledged can be read, and nothing of what was refused. */
    void check(Client client) throws IOException {
      assertThat(List.of(cached, rows, sent, blobs.keySet())).noneMatch(Collection::isEmpty);
      for (int each : notCached) {
        assertThat(new HttpCaches(client).cache("full").get("k" + each)).as("k" + each).isEmpty();
      }
      for (int each : cached) {
        assertThat(new HttpCaches(client).cache("full").get("k" + each))
            .as("k" + each)
            .contains(value(each));
      }
      Set<Object> found = new HashSet<>();
      for (var row : new HttpSql(client).execute("SELECT id FROM full_disk").rows()) {
        found.add(((Number) Objects.requireNonNull(row.getFirst())).intValue());
      }
      assertThat(found).containsAll(rows);
      assertThat(found).noneMatch(noRows::contains);
      for (var blob : blobs.entrySet()) {
        try (InputStream content = new HttpBlobs(client).read(blob.getKey(), 0, VALUE_BYTES)) {
          assertThat(content.readAllBytes()).isEqualTo(value(blob.getValue()));
        }
      }
    }

    /** All messages come, in order, and none that was refused. */
    void receive(Client client) throws InterruptedException {
      List<Integer> received = new ArrayList<>();
      List<Queue.Message> some;
      do {
        some =
            new HttpQueues(client)
                .queue("full")
                .receive("default", "c", 100, Duration.ofMinutes(1), Duration.ofSeconds(1));
        some.forEach(
            m ->
                received.add(
                    Integer.parseInt(new String(m.body(), StandardCharsets.UTF_8).substring(1))));
        if (!some.isEmpty()) {
          new HttpQueues(client)
              .queue("full")
              .acknowledge(some.stream().map(Queue.Message::receipt).toList(), Optional.empty());
        }
      } while (!some.isEmpty());
      assertThat(received).isSorted().doesNotHaveDuplicates().containsAll(sent);
      assertThat(received).noneMatch(notSent::contains);
    }
  }

  private static HttpResponse<String> health(TestNode node)
      throws IOException, InterruptedException {
    return HttpClient.newHttpClient()
        .send(
            HttpRequest.newBuilder(URI.create(node.url() + "/health")).build(),
            HttpResponse.BodyHandlers.ofString());
  }

  /** Writes until so many rounds in a row were refused altogether. */
  private static void untilRefused(Writer writer, Client client) {
    for (int refused = 0, rounds = 0; refused < 5; rounds++) {
      refused = writer.round(client) == 0 ? refused + 1 : 0;
      assertThat(rounds).as("rounds without a refusal").isLessThan(3_000);
    }
  }

  private static void untilWritten(Writer writer, Client client) {
    TestNodes.await("writing goes on", SOON, () -> writer.round(client) == 4);
  }

  @Test
  void aDiskThatFillsUpStopsWritesAndNothingElse() throws Exception {
    try (TinyDisk disk = TinyDisk.mount(folder.resolve("disk"), DISK_MB)) {
      Writer writer;
      TestNode stopped;
      try (TestNode node = TestNode.start(disk.folder())) {
        stopped = node;
        Client client = node.client();
        writer = new Writer(client, Set.of(Code.STORAGE));
        assertThat(writer.round(client)).isEqualTo(4);
        disk.leave(300 * MB);
        untilRefused(writer, client);
        assertThat(disk.freeBytes()).isGreaterThan(100 * MB);
        assertThat(health(node).statusCode()).isEqualTo(503);
        assertThat(health(node).body()).contains("storage").contains("is full");
        writer.check(client);
        disk.free();
        untilWritten(writer, client);
        TestNodes.await("healthy again", SOON, () -> isHealthy(node));
        disk.leave(260 * MB);
        untilRefused(writer, client);
      }
      try (TestNode node = stopped.again()) {
        writer.check(node.client());
        disk.free();
        untilWritten(writer, node.client());
        writer.receive(node.client());
      }
    }
  }

  /** Breaks the engine, unless what it has to write still fits into the files that it has. */
  private static void checkpoint() throws Exception {
    IgniteEx engine = (IgniteEx) Ignition.allGrids().getFirst();
    try {
      engine.context().cache().context().database().waitForCheckpoint("a test");
    } catch (IgniteCheckedException noRoom) {
      assertThat(noRoom).hasStackTraceContaining("No space left");
    }
  }

  private static boolean isWhole(Writer writer, Client client) {
    try {
      writer.check(client);
      return true;
    } catch (FlotillaException e) {
      return false;
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static boolean isHealthy(TestNode node) {
    try {
      return health(node).statusCode() == 200;
    } catch (IOException e) {
      return false;
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      return false;
    }
  }

  @Test
  void aDiskThatAnotherProgramFillsToTheLastByteLosesNothing() throws Exception {
    try (TinyDisk disk = TinyDisk.mount(folder.resolve("disk"), DISK_MB)) {
      TestNode stopped;
      Writer written;
      try (TestNode node = TestNode.start(disk.folder())) {
        stopped = node;
        Client client = node.client();
        Writer writer =
            new Writer(
                client,
                Set.of(Code.STORAGE, Code.OUTCOME_UNKNOWN, Code.UNAVAILABLE, Code.NO_MAJORITY));
        written = writer;
        Thread other =
            Thread.ofPlatform()
                .start(
                    () -> {
                      try {
                        Thread.sleep(2_000);
                        disk.leave(0);
                      } catch (IOException | InterruptedException full) {
                        // As wanted.
                      }
                    });
        untilRefused(writer, client);
        other.join();
        // What it holds in memory must go to the disk now, and most often cannot.
        checkpoint();
        assertThat(health(node).statusCode()).isEqualTo(503);
        disk.free();
        // An engine that was broken is replaced.
        TestNodes.await("all is there", SOON, () -> isWhole(writer, client));
        untilWritten(writer, client);
        ((IgniteEx) Ignition.allGrids().getFirst())
            .context()
            .cache()
            .context()
            .database()
            .waitForCheckpoint("a test");
        TestNodes.await("healthy again", SOON, () -> isHealthy(node));
      }
      try (TestNode node = stopped.again()) {
        written.check(node.client());
        written.receive(node.client());
      }
    }
  }

  @Test
  void oneFullDiskOfThreeStopsWritesOnAllNodesUntilItHasRoom() throws Exception {
    try (TinyDisk disk = TinyDisk.mount(folder.resolve("disk"), DISK_MB);
        TestNode first = TestNode.start(folder.resolve("first"));
        TestNode second = first.join(folder.resolve("second"));
        TestNode third = first.join(disk.folder())) {
      Client client = first.client();
      Client thirds = new Client(third.url(), Optional.of(first.key()));
      Writer writer = new Writer(client, Set.of(Code.STORAGE));
      assertThat(writer.round(client)).isEqualTo(4);
      disk.leave(290 * MB);
      untilRefused(writer, client);
      assertThat(health(third).statusCode()).isEqualTo(503);
      assertThat(health(second).statusCode()).isEqualTo(200);
      writer.check(client);
      writer.check(thirds);
      disk.free();
      untilWritten(writer, client);
      writer.check(thirds);
      writer.receive(client);
    }
  }
}

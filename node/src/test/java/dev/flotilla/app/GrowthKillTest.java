package dev.flotilla.app;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.client.Client;
import dev.flotilla.cluster.Locks;
import dev.flotilla.cluster.TestNodes;
import dev.flotilla.data.blobs.Blobs;
import dev.flotilla.data.log.Log;
import dev.flotilla.data.queue.Queue;
import dev.flotilla.data.search.IndexDocument;
import dev.flotilla.data.search.SearchIndex.Visibility;
import dev.flotilla.data.search.SearchRequest;
import dev.flotilla.data.sql.Transactions.Mode;
import dev.flotilla.data.sql.Transactions.Options;
import dev.flotilla.data.usage.Usage;
import dev.flotilla.data.usage.UsageEvent;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.TreeMap;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * Every part of the data plane is written to through one process; two more join; the first is
 * removed, killed with -9 and does not come back.
 */
class GrowthKillTest {

  private static final Duration SOON = Duration.ofMinutes(2);
  private static final int ROWS = 30;
  private static final byte[] LARGE = new byte[5 << 20];
  private static final byte[] SMALL = "small".getBytes(UTF_8);
  private static final long TIME_MS = 1_800_000_000_000L;

  static {
    new Random(3).nextBytes(LARGE);
  }

  @TempDir Path folder;

  /** What only the one who wrote knows. */
  private record Written(String large, String small, Locks.Grant lock, String job) {}

  @Test
  void whatOneNodeWroteIsServedByThoseThatJoinedWhenItIsGoneForGood() throws Exception {
    try (TestProcesses nodes = new TestProcesses(folder)) {
      nodes.add("first");
      String key = Client.keyIn(nodes.node(0).folder()).orElseThrow();
      Written written = write(Flotilla.connect(nodes.node(0).url(), key));
      nodes.add("second");
      nodes.add("third");
      Client second = new Client(nodes.node(1).url(), Optional.of(key));
      TestNodes.await("the others have all of it", SOON, () -> isRemoved(second));
      nodes.node(0).kill();

      for (int node : List.of(1, 2)) {
        Flotilla left = Flotilla.connect(nodes.node(node).url(), key);
        TestNodes.await("node " + node + " answers", SOON, () -> answers(left));
        check(left, written);
      }
      takeEffect(Flotilla.connect(nodes.node(2).url(), key), written);
    }
  }

  private static boolean isRemoved(Client through) {
    try {
      through.delete("/api/cluster/nodes/first");
      return true;
    } catch (FlotillaException e) {
      assertThat(e.code()).as(e.explanation()).isIn(Code.CONFLICT, Code.UNAVAILABLE);
      return false;
    }
  }

  private static boolean answers(Flotilla node) {
    try {
      return !node.sql().execute("SELECT COUNT(*) FROM plain").rows().isEmpty();
    } catch (FlotillaException e) {
      return false;
    }
  }

  private static Written write(Flotilla one) throws InterruptedException {
    one.sql().execute("CREATE TABLE plain (id INT PRIMARY KEY, t VARCHAR)");
    one.sql().execute("CREATE INDEX plain_t ON plain (t)");
    one.sql()
        .execute(
            "CREATE TABLE ranged (a INT, b INT, PRIMARY KEY (a, b)) SHARD BY RANGE (b) SPLIT AT (10, 20)");
    one.cache("kept");
    Queue mails = one.queue("mails");
    for (int i = 0; i < ROWS; i++) {
      one.sql().execute("INSERT INTO plain VALUES (?, ?)", i, "t" + i);
      one.sql().execute("INSERT INTO ranged VALUES (1, ?)", i);
      one.cache("kept").put("k" + i, ("v" + i).getBytes(UTF_8));
      var _ = mails.send(Queue.Outgoing.of("ann", ("m" + i).getBytes(UTF_8)));
      var _ = one.log().append("audit", ("r" + i).getBytes(UTF_8));
    }
    List<Queue.Message> done = receive(mails, 1);
    mails.acknowledge(List.of(done.getFirst().receipt()), Optional.empty());
    var _ =
        one.transactions()
            .runOnce(
                "moved-once",
                Options.of(Mode.PESSIMISTIC),
                transaction -> one.cache("kept").increment("moved", 1));
    Blobs.Blob large = one.blobs().put("default", new ByteArrayInputStream(LARGE));
    Blobs.Blob small = one.blobs().put("default", new ByteArrayInputStream(SMALL));
    var _ =
        one.blobs()
            .name("default", "reports/today", large.digest(), Optional.empty(), Optional.empty());
    List<IndexDocument> documents = new ArrayList<>();
    for (int i = 0; i < ROWS; i++) {
      documents.add(IndexDocument.ofText("d" + i, "a tale of " + (i % 2 == 0 ? "even" : "odd")));
    }
    var _ = one.index("library").put(documents, Visibility.SEARCHABLE);
    for (int i = 0; i < 3; i++) {
      one.usage().append(new UsageEvent("u" + i, TIME_MS, "key", "model", 3, 5, false));
    }
    var input = Json.MAPPER.createObjectNode();
    input.putArray("lines").add("one two two");
    String job = one.jobs().submit("count_words", input);
    TestNodes.await("the job", SOON, () -> one.jobs().show(job).state().equals("done"));
    TestNodes.await("usage is shipped", SOON, () -> requests(one) == 3);
    Locks.Grant lock =
        one.locks()
            .acquire(Locks.Request.exclusive("nightly", "me").ttl(Duration.ofMinutes(30)))
            .orElseThrow();
    return new Written(large.digest(), small.digest(), lock, job);
  }

  private static List<Queue.Message> receive(Queue from, int max) throws InterruptedException {
    return from.receive(
        Queue.DEFAULT_GROUP, "me", max, Duration.ofMinutes(5), Duration.ofSeconds(5));
  }

  private static long requests(Flotilla node) {
    return node.usage().report(TIME_MS, TIME_MS + 3_600_000, Usage.By.MODEL).rows().stream()
        .mapToLong(Usage.Row::requests)
        .sum();
  }

  private static void check(Flotilla left, Written written) throws IOException {
    assertThat(left.sql().execute("SELECT COUNT(*), COUNT(DISTINCT t) FROM plain").rows())
        .containsExactly(List.of((long) ROWS, (long) ROWS));
    assertThat(left.sql().execute("SELECT id FROM plain WHERE t = 't7'").rows())
        .containsExactly(List.of(7));
    assertThat(left.sql().execute("SELECT COUNT(*) FROM ranged WHERE b >= 15").rows())
        .containsExactly(List.of(15L));
    assertThat(left.sharding().table("ranged").shards()).hasSize(3);
    for (int i = 0; i < ROWS; i++) {
      assertThat(left.cache("kept").get("k" + i).map(v -> new String(v, UTF_8))).contains("v" + i);
    }
    assertThat(left.queue("mails").stats().sent()).isEqualTo(ROWS);
    assertThat(left.log().read("audit", 0, 1000, 0))
        .extracting(record -> new String(record.body(), UTF_8))
        .hasSize(ROWS)
        .startsWith("r0", "r1")
        .endsWith("r" + (ROWS - 1));
    assertThat(content(left, written.large())).isEqualTo(LARGE);
    assertThat(content(left, written.small())).isEqualTo(SMALL);
    assertThat(left.blobs().reference("default", "reports/today").orElseThrow().digest())
        .isEqualTo(written.large());
    TestNodes.await(
        "all documents are found",
        SOON,
        () -> {
          var answer = left.index("library").search(SearchRequest.of("even").withK(100));
          return !answer.partial() && answer.ids().size() == ROWS / 2;
        });
    assertThat(left.index("library").document("d3")).isPresent();
    Map<String, String> words = new TreeMap<>();
    left.jobs()
        .rows(written.job(), "", 10)
        .forEach(row -> words.put(row.key(), row.value().asText()));
    assertThat(words).isEqualTo(Map.of("one", "1", "two", "2"));
    assertThat(requests(left)).isEqualTo(3);
    assertThat(left.locks().show("nightly").holders())
        .extracting(Locks.Claimant::token)
        .containsExactly(written.lock().token());
    assertThat(left.log().search(Log.Query.all()).partial()).isFalse();
  }

  private static byte[] content(Flotilla left, String digest) throws IOException {
    try (InputStream content = left.blobs().read(digest, 0, Long.MAX_VALUE)) {
      return content.readAllBytes();
    }
  }

  /** What was decided before still holds for what comes now. */
  private static void takeEffect(Flotilla left, Written written) throws InterruptedException {
    assertThat(left.locks().acquire(Locks.Request.exclusive("nightly", "another"))).isEmpty();
    assertThat(left.locks().renew(written.lock())).isPresent();
    assertThat(
            left.transactions()
                .runOnce(
                    "moved-once",
                    Options.of(Mode.PESSIMISTIC),
                    transaction -> left.cache("kept").increment("moved", 1)))
        .isEmpty();
    assertThat(left.cache("kept").get("moved").map(v -> new String(v, UTF_8))).contains("1");
    Queue mails = left.queue("mails");
    for (int i = 1; i < ROWS; i++) {
      List<Queue.Message> next = receive(mails, 1);
      assertThat(next)
          .as("message %s", i)
          .extracting(message -> new String(message.body(), UTF_8))
          .containsExactly("m" + i);
      mails.acknowledge(List.of(next.getFirst().receipt()), Optional.empty());
    }
    left.sql().execute("INSERT INTO plain VALUES (?, 'new')", ROWS);
    assertThat(left.log().append("audit", "new".getBytes(UTF_8))).isEqualTo(ROWS);
  }
}

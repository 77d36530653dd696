package dev.flotilla.app;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.StaleReads;
import dev.flotilla.client.Client;
import dev.flotilla.client.HttpBlobs;
import dev.flotilla.client.HttpCaches;
import dev.flotilla.client.HttpLog;
import dev.flotilla.client.HttpQueues;
import dev.flotilla.client.HttpSql;
import dev.flotilla.client.HttpTransactions;
import dev.flotilla.data.queue.Queue;
import dev.flotilla.data.sql.Sql;
import dev.flotilla.data.sql.Transactions;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.PrintStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Supplier;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * One of three nodes, whose two others are gone: it refuses to read, unless old answers will do.
 */
class StaleReadsTest {

  @TempDir static Path folder;

  private static TestProcesses nodes;
  private static Client client;
  private static String digest = "";

  @BeforeAll
  static void leaveOneOfThree() throws IOException, InterruptedException {
    nodes = new TestProcesses(folder);
    nodes.add("one");
    client = nodes.client(0);
    NodeProcess two = nodes.add("two");
    NodeProcess three = nodes.add("three");
    new HttpCaches(client).cache("prices").put("apple", bytes("2"));
    new HttpSql(client).execute("CREATE TABLE held (id INT PRIMARY KEY, n INT)");
    new HttpSql(client).execute("INSERT INTO held VALUES (1, 7)");
    new HttpQueues(client).queue("work").send(Queue.Outgoing.of("k", bytes("job")));
    long unused = new HttpLog(client).append("events", bytes("first"));
    assertThat(unused).isZero();
    digest = new HttpBlobs(client).put("default", new ByteArrayInputStream(bytes("blob"))).digest();
    two.kill();
    three.kill();
    long deadlineMs = System.currentTimeMillis() + 60_000;
    while (true) {
      try {
        Optional<byte[]> still = new HttpCaches(client).cache("prices").get("apple");
        assertThat(still).isPresent();
      } catch (FlotillaException e) {
        if (e.code() == Code.NO_MAJORITY) {
          return;
        }
      }
      assertThat(System.currentTimeMillis()).isLessThan(deadlineMs);
      Thread.sleep(100);
    }
  }

  @AfterAll
  static void stop() {
    nodes.close();
  }

  private static byte[] bytes(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }

  private static void refused(Runnable call) {
    assertThatThrownBy(call::run)
        .isInstanceOfSatisfying(
            FlotillaException.class, e -> assertThat(e.code()).isEqualTo(Code.NO_MAJORITY));
  }

  /** Refused as it is, and stale where that is allowed. */
  private static <T> T stale(Supplier<T> read) {
    refused(
        () -> {
          var _ = read.get();
        });
    StaleReads.Answer<T> answer = StaleReads.allow(read);
    assertThat(answer.stale()).isTrue();
    return answer.value();
  }

  @Test
  void everyPartIsReadThroughTheClientWhereOldAnswersWillDo() {
    assertThat(stale(() -> new HttpCaches(client).cache("prices").get("apple")).orElseThrow())
        .isEqualTo(bytes("2"));
    assertThat(stale(() -> new HttpCaches(client).cache("prices").getAll(List.of("apple", "pear"))))
        .containsOnlyKeys("apple");
    assertThat(stale(() -> new HttpSql(client).execute("SELECT n FROM held WHERE id = 1").rows()))
        .isEqualTo(List.of(List.of(7)));
    assertThat(stale(() -> new HttpSql(client).tables()))
        .extracting(Sql.Table::name)
        .contains("HELD");
    assertThat(stale(() -> new HttpQueues(client).queue("work").stats()).sent()).isEqualTo(1);
    assertThat(stale(() -> new HttpLog(client).read("events", 0, 10, 0)).getFirst().body())
        .isEqualTo(bytes("first"));
    assertThat(stale(() -> new HttpLog(client).stream("events")).next()).isEqualTo(1);
    assertThat(stale(() -> read(new HttpBlobs(client).read(digest, 0, Long.MAX_VALUE))))
        .isEqualTo("blob");
    // A refusal without a body says no more than its status.
    assertThat(StaleReads.allow(() -> new HttpBlobs(client).find(digest).orElseThrow().size()))
        .isEqualTo(new StaleReads.Answer<>(4L, true));
  }

  private static String read(InputStream content) {
    try (content) {
      return new String(content.readAllBytes(), StandardCharsets.UTF_8);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  @Test
  void theMarkIsTheSameEverywhereOverHttp() {
    for (String path :
        List.of(
            "/api/caches/prices/apple",
            "/api/queues/work",
            "/api/streams/events",
            "/api/blobs/" + digest,
            "/api/sql/tables")) {
      assertThat(get(path).status()).as(path).isEqualTo(503);
      assertThat(json(get(path)).path("error").path("code").asText()).isEqualTo("no_majority");
      assertThat(get(path + "?allow_stale=false").status()).as(path).isEqualTo(503);
      Client.Answer answer = get(path + "?allow_stale=true");
      assertThat(answer.status()).as(path).isEqualTo(200);
      assertThat(answer.header("x-flotilla-stale")).as(path).hasValue("true");
      if (answer.header("content-type").orElse("").equals("application/json")) {
        assertThat(json(answer).path("stale").asBoolean()).as(path).isTrue();
      }
    }
    // What the node knows of the cluster it always says, and marks it by itself.
    assertThat(get("/api/cluster").header("x-flotilla-stale")).hasValue("true");
    assertThat(json(get("/api/cluster")).path("stale").asBoolean()).isTrue();
    assertThat(get("/api/deployments").header("x-flotilla-stale")).hasValue("true");
    assertThat(get("/api/locks").header("x-flotilla-stale")).hasValue("true");
    assertThat(get("/api/locks/anything").header("x-flotilla-stale")).hasValue("true");
    assertThat(json(get("/api/locks/anything")).path("stale").asBoolean()).isTrue();
    assertThat(get("/api/queues/work?allow_stale=perhaps").status()).isEqualTo(400);
    JsonNode answer =
        client.post(
            "/api/sql", Map.of("statement", "SELECT COUNT(*) FROM held", "allow_stale", true));
    assertThat(answer.path("stale").asBoolean()).isTrue();
    assertThat(answer.path("rows").toString()).isEqualTo("[[1]]");
  }

  private static Client.Answer get(String path) {
    return client.exchange("GET", path, Map.of(), new byte[0], 400, 503);
  }

  private static JsonNode json(Client.Answer answer) {
    return Json.read(answer.body(), JsonNode.class);
  }

  @Test
  void whatDecidesIsRefusedAllTheSame() {
    for (Runnable decision :
        List.<Runnable>of(
            () -> new HttpCaches(client).cache("prices").put("apple", bytes("3")),
            () -> new HttpCaches(client).cache("prices").increment("count", 1),
            () -> new HttpSql(client).execute("UPDATE held SET n = 8"),
            () -> new HttpSql(client).execute("CREATE TABLE more (id INT PRIMARY KEY, n INT)"),
            () -> new HttpLog(client).append("events", bytes("second")),
            () ->
                new HttpTransactions(client)
                    .run(
                        Transactions.Options.of(Transactions.Mode.PESSIMISTIC),
                        List.of(new Transactions.Step.Statement("SELECT n FROM held", List.of())),
                        Optional.empty()))) {
      refused(
          () ->
              StaleReads.allow(
                  () -> {
                    decision.run();
                    return true;
                  }));
    }
    assertThatThrownBy(
            () ->
                StaleReads.allow(
                    () -> {
                      try {
                        return new HttpQueues(client)
                            .queue("work")
                            .receive("g", "me", 1, Duration.ofSeconds(1), Duration.ZERO);
                      } catch (InterruptedException e) {
                        throw new IllegalStateException(e);
                      }
                    }))
        .isInstanceOf(FlotillaException.class);
  }

  @Test
  void theCommandsSayOnStandardErrorThatTheAnswerMayBeOld() {
    for (List<String> command :
        List.of(
            List.of("cache", "get", "prices", "apple"),
            List.of("sql", "SELECT n FROM held"),
            List.of("queue", "stats", "work"),
            List.of("stream", "read", "events"),
            List.of("blob", "get", digest, "-o", folder.resolve("blob").toString()))) {
      assertThat(errors(1, command)).as(command.toString()).doesNotContain("stale: ");
      List<String> allowing = new ArrayList<>(command);
      allowing.add("--allow-stale");
      assertThat(errors(0, allowing)).as(command.toString()).containsOnlyOnce("stale: ");
    }
  }

  private static String errors(int expected, List<String> command) {
    PrintStream before = System.err;
    ByteArrayOutputStream err = new ByteArrayOutputStream();
    System.setErr(new PrintStream(err, true, StandardCharsets.UTF_8));
    try {
      List<String> all = new ArrayList<>(command);
      all.addAll(
          List.of("--url", nodes.node(0).url(), "--data", nodes.node(0).folder().toString()));
      assertThat(Main.run(all.toArray(String[]::new))).as(command.toString()).isEqualTo(expected);
    } finally {
      System.setErr(before);
    }
    return err.toString(StandardCharsets.UTF_8);
  }
}

package dev.flotilla.app;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.client.Client;
import dev.flotilla.client.HttpJobs;
import dev.flotilla.client.HttpLocks;
import dev.flotilla.cluster.Lease;
import dev.flotilla.cluster.Locks.Request;
import dev.flotilla.cluster.TestNodes;
import dev.flotilla.data.jobs.Jobs;
import dev.flotilla.model.ModelConfig;
import dev.flotilla.model.RandomModel;
import dev.flotilla.tensor.WeightType;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Map;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Locks, fenced deployments and jobs through a whole node. */
class LocksAndJobsTest {

  @TempDir static Path folder;
  private static TestNode node;

  @BeforeAll
  static void start() {
    node = TestNode.start(folder.resolve("one"));
  }

  @AfterAll
  static void stop() {
    node.close();
  }

  @Test
  void aLockIsTakenKeptAndGivenBackOverHttp() {
    Client client = node.client();
    var given =
        client.post("/api/locks/web/acquire", Map.of("holder", "A", "ttl_ms", 5000, "wait_ms", 0));
    long token = given.path("token").asLong();
    assertThat(token).isPositive();
    assertThat(given.path("expires_at").asDouble())
        .isBetween(System.currentTimeMillis() / 1000.0, System.currentTimeMillis() / 1000.0 + 5.1);
    assertThatThrownBy(
            () -> client.post("/api/locks/web/acquire", Map.of("holder", "B", "wait_ms", 100)))
        .isInstanceOfSatisfying(
            FlotillaException.class, e -> assertThat(e.code()).isEqualTo(Code.CONFLICT));
    Map<String, Object> mine = Map.of("holder", "A", "token", token);
    assertThat(client.post("/api/locks/web/renew", mine).path("ttl_ms").asLong()).isEqualTo(5000);
    assertThat(client.get("/api/locks/web").path("holders").path(0).path("holder").asText())
        .isEqualTo("A");
    client.post("/api/locks/web/release", mine);
    assertThatThrownBy(() -> client.post("/api/locks/web/release", mine))
        .hasMessageContaining("no longer");
    assertThatThrownBy(() -> client.post("/api/locks/web/acquire", Map.of("ttl_ms", 5000)))
        .hasMessageContaining("holder");
  }

  @Test
  void aCommandRunsUnderTheLockAndIsStoppedWhenItIsLost() throws Exception {
    Path out = folder.resolve("token");
    String[] line = {
      "lock",
      "--url",
      node.url(),
      "--key",
      node.key(),
      "--ttl",
      "5",
      "shell",
      "--",
      "sh",
      "-c",
      "echo $FLOTILLA_FENCE > " + out + "; exit 7"
    };
    assertThat(Main.run(line)).isEqualTo(7);
    assertThat(Long.parseLong(Files.readString(out).strip())).isPositive();
    assertThat(node.run("lock", "--list")).isZero();
    HttpLocks locks = new HttpLocks(node.client());
    Path started = folder.resolve("started");
    Thread thief =
        Thread.ofVirtual()
            .start(
                () -> {
                  TestNodes.await(
                      "the command", Duration.ofSeconds(30), () -> Files.exists(started));
                  var holder = locks.show("shell").holders().getFirst();
                  locks.release(
                      new dev.flotilla.cluster.Locks.Grant(
                          "shell", holder.holder(), "", holder.token(), 1000));
                });
    line[line.length - 1] = "> " + started + "; exec sleep 60";
    long start = System.nanoTime();
    assertThat(Main.run(line)).isEqualTo(1);
    assertThat(System.nanoTime() - start).isLessThan(Duration.ofSeconds(20).toNanos());
    thief.join();
    assertThat(started).exists();
    try (Lease held = locks.lease(Request.exclusive("shell", "X")).orElseThrow()) {
      assertThat(held.held()).isTrue();
      String[] tries = line.clone();
      tries[5] = "--wait";
      tries[6] = "0";
      assertThat(Main.run(tries)).isEqualTo(1);
    }
  }

  @Test
  void aDeploymentRefusesAStaleToken() throws Exception {
    Path file = folder.resolve("random.gguf");
    RandomModel.write(
        file,
        new ModelConfig(300, 64, 2, 4, 2, 16, 128, 64, 10_000f, 1e-5f, false),
        WeightType.Q8_0,
        3);
    Client client = node.client();
    client.post("/api/models", Map.of("name", "m", "source", file.toString()));
    HttpLocks locks = new HttpLocks(client);
    Lease old = locks.lease(Request.exclusive("rollout", "A")).orElseThrow();
    Map<String, Object> stale =
        Map.of("model", "m", "fence", Map.of("lock", "rollout", "token", old.fence().token()));
    old.close();
    for (int i = 0; i < 50; i++) {
      assertThatThrownBy(() -> client.post("/api/deployments", stale))
          .hasMessageContaining("stale token");
    }
    assertThat(client.get("/api/deployments")).isEmpty();
    try (Lease now = locks.lease(Request.exclusive("rollout", "B")).orElseThrow()) {
      client.post(
          "/api/deployments",
          Map.of("model", "m", "fence", Map.of("lock", "rollout", "token", now.fence().token())));
    }
    assertThat(client.get("/api/deployments")).hasSize(1);
    client.delete("/api/deployments/m");
  }

  @Test
  void aJobCountsTheWordsOfABlobAndIsShownInSql() throws Exception {
    StringBuilder text = new StringBuilder();
    for (int i = 0; i < 5000; i++) {
      text.append("line number ").append(i).append('\n');
    }
    String digest = digestOf(text.toString());
    HttpJobs jobs = new HttpJobs(node.client());
    var input = Json.MAPPER.createObjectNode().put("blob", digest).put("split_bytes", 10_000);
    String id = jobs.submit("count_words", input);
    Jobs.View view = jobs.show(id);
    long deadlineNs = System.nanoTime() + Duration.ofSeconds(60).toNanos();
    while (!view.state().equals("done") && System.nanoTime() < deadlineNs) {
      assertThat(view.state()).as(view.reason()).isIn("submitted", "running");
      view = jobs.show(id);
    }
    assertThat(view.rows()).isEqualTo(5002);
    assertThat(jobs.rows(id, "number", 10)).isEmpty();
    assertThat(jobs.rows(id, "l", 2))
        .extracting(row -> row.key() + "=" + row.value())
        .containsExactly("line=5000", "number=5000");
    var rows =
        node.client()
            .post(
                "/api/sql",
                Map.of(
                    "statement",
                    "SELECT data FROM flotilla_job_rows WHERE id = '" + id + "/line'"));
    assertThat(rows.path("rows").path(0).path(0).asText()).isEqualTo("5000");
    assertThat(node.run("jobs", "run", "node_report")).isZero();
    assertThat(node.run("jobs", "list")).isZero();
    assertThat(jobs.cancel(jobs.list().getLast().id())).isEqualTo("deleted");
    assertThat(node.run("jobs", "cancel", id)).isZero();
  }

  private static String digestOf(String text) throws Exception {
    try (HttpClient http = HttpClient.newHttpClient()) {
      String answer =
          http.send(
                  HttpRequest.newBuilder(URI.create(node.url() + "/api/blobs"))
                      .header("Authorization", "Bearer " + node.key())
                      .POST(HttpRequest.BodyPublishers.ofString(text))
                      .build(),
                  HttpResponse.BodyHandlers.ofString())
              .body();
      return Json.MAPPER.readTree(answer).path("digest").asText();
    }
  }
}

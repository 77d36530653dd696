package dev.flotilla.app;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.client.HttpLog;
import dev.flotilla.client.HttpSharding;
import dev.flotilla.data.log.Log;
import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.slf4j.LoggerFactory;

/** Sharding and the log over HTTP and from the shell, on one whole node. */
class ShardAndLogTest {

  @TempDir static Path folder;
  private static TestNode node;

  @BeforeAll
  static void start() {
    ((ch.qos.logback.classic.Logger) LoggerFactory.getLogger("dev.flotilla"))
        .setLevel(ch.qos.logback.classic.Level.INFO);
    node = TestNode.start(folder.resolve("one"));
  }

  @AfterAll
  static void stop() {
    node.close();
    ((ch.qos.logback.classic.Logger) LoggerFactory.getLogger("dev.flotilla")).setLevel(null);
  }

  private static String printed(int code, String... command) {
    PrintStream before = System.out;
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    System.setOut(new PrintStream(bytes, true, StandardCharsets.UTF_8));
    try {
      assertThat(node.run(command)).isEqualTo(code);
    } finally {
      System.setOut(before);
    }
    return bytes.toString(StandardCharsets.UTF_8);
  }

  @Test
  void aShardedTableIsShownExplainedMeasuredAndSplit() {
    HttpSharding sharding = new HttpSharding(node.client());
    sharding.execute(
        "CREATE TABLE usage (ts BIGINT, tenant INT, tokens INT, PRIMARY KEY (ts, tenant))"
            + " SHARD BY RANGE (ts) SPLIT AT (100, 200) SPREAD 2");
    assertThat(sharding.table("usage").shards()).hasSize(3);
    assertThat(sharding.tables()).hasSize(1);
    var touched = sharding.explain("SELECT * FROM usage WHERE ts > ?", List.of(150)).tables();
    assertThat(touched.getFirst().shards()).containsExactly(1, 2);
    assertThat(touched.getFirst().partitionsTouched()).isEqualTo(4);
    assertThat(printed(0, "shard", "explain", "SELECT * FROM usage WHERE ts = 7"))
        .contains("[0]")
        .contains("2 of 6")
        .contains("Ignite");
    assertThat(printed(0, "shard", "split", "usage", "150")).contains("split usage at 150");
    assertThat(printed(0, "shard", "list")).contains("from 150").contains("RANGE (TS)");
    assertThat(printed(0, "shard", "skew", "usage")).contains("0 rows");
    assertThat(node.client().get("/api/tables/usage/skew").path("partitions")).hasSize(8);
    assertThatThrownBy(() -> sharding.split("usage", "150"))
        .isInstanceOfSatisfying(
            FlotillaException.class,
            e -> assertThat(e.code()).isEqualTo(FlotillaException.Code.CONFLICT));
    assertThatThrownBy(() -> sharding.skew("nothing"))
        .isInstanceOfSatisfying(
            FlotillaException.class,
            e -> assertThat(e.code()).isEqualTo(FlotillaException.Code.NOT_FOUND));
    assertThatThrownBy(() -> sharding.execute("CREATE TABLE x (a INT) SHARD BY HASH (a)"))
        .hasMessageContaining("primary key");
  }

  @Test
  void whatTheProgramLogsIsFoundAndFollowed() throws Exception {
    HttpLog log = new HttpLog(node.client());
    var logger = LoggerFactory.getLogger("dev.flotilla.Example");
    CompletableFuture<String> followed = new CompletableFuture<>();
    CompletableFuture<Boolean> waits = new CompletableFuture<>();
    Thread.ofVirtual()
        .start(
            () ->
                log.follow(
                    Log.Query.all().withText("zebra"),
                    entry -> {
                      waits.complete(true);
                      entry.ifPresent(each -> followed.complete(each.message()));
                      return !followed.isDone();
                    }));
    waits.get(10, TimeUnit.SECONDS);
    Thread.sleep(1500);
    logger.warn("a zebra crossed", new IllegalStateException("striped"));
    assertThat(followed.get(10, TimeUnit.SECONDS)).isEqualTo("a zebra crossed");
    JsonNode page = node.client().get("/api/logs?query=zebra&level=warn&from=2020-01-01T00:00:00Z");
    assertThat(page.path("partial").asBoolean()).isFalse();
    JsonNode entry = page.path("entries").path(0);
    assertThat(entry.path("logger").asText()).isEqualTo("dev.flotilla.Example");
    assertThat(entry.path("fields").path("exception").asText()).contains("striped");
    assertThat(printed(0, "logs", "zebra", "--from", "5m", "--level", "warn"))
        .contains("WARN")
        .contains("a zebra crossed");
    assertThat(node.run("logs", "zebra", "--level", "loud")).isEqualTo(2);
    assertThat(node.run("logs", "zebra AND (")).isEqualTo(1);
    assertThatThrownBy(() -> node.client().get("/api/logs?from=yesterday"))
        .hasMessageContaining("from");
  }

  @Test
  void aStreamIsAppendedToAndReadFromTheShellAndOverHttp() {
    HttpLog log = new HttpLog(node.client());
    assertThat(printed(0, "stream", "append", "orders", "first")).isEqualTo("0\n");
    assertThat(log.append("orders", "second".getBytes(StandardCharsets.UTF_8))).isEqualTo(1);
    assertThat(printed(0, "stream", "read", "orders")).isEqualTo("0\tfirst\n1\tsecond\n");
    assertThat(node.client().get("/api/streams/orders?from=1").path("records").path(0).path("text"))
        .hasToString("\"second\"");
    long startNs = System.nanoTime();
    assertThat(log.read("orders", 2, 10, 300)).isEmpty();
    assertThat(Duration.ofNanos(System.nanoTime() - startNs)).isGreaterThan(Duration.ofMillis(290));
    log.trim("orders", 1);
    assertThat(log.stream("orders")).isEqualTo(new Log.StreamInfo("orders", 1, 2));
    assertThat(log.streams()).hasSize(1);
    assertThat(node.run("stream", "read", "nothing")).isEqualTo(1);
    assertThatThrownBy(
            () -> node.client().post("/api/streams/orders/batch", Map.of("records", List.of("?"))))
        .hasMessageContaining("base64");
  }
}

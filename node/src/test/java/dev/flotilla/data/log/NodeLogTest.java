package dev.flotilla.data.log;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import com.sun.net.httpserver.HttpServer;
import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.cluster.FakeCluster;
import dev.flotilla.cluster.FakeRegistry;
import dev.flotilla.cluster.TestNodes;
import dev.flotilla.data.grid.TestGrids;
import io.micrometer.core.instrument.simple.SimpleMeterRegistry;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.time.Duration;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.MethodOrderer;
import org.junit.jupiter.api.Order;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestMethodOrder;
import org.junit.jupiter.api.io.TempDir;

/** On three real nodes, shared by all tests; the last ones stop nodes. */
@TestMethodOrder(MethodOrderer.OrderAnnotation.class)
class NodeLogTest {

  @TempDir static Path folder;
  private static final Map<String, NodeLog> LOGS = new ConcurrentHashMap<>();
  private static final Map<String, LogStreams> STREAMS = new ConcurrentHashMap<>();
  private static final SimpleMeterRegistry METRICS = new SimpleMeterRegistry();
  private static TestGrids grids;
  private static List<TestGrids.Member> members;

  @BeforeAll
  static void start() {
    grids =
        new TestGrids(
            folder,
            (cluster, grid, data) -> {
              LOGS.put(
                  cluster.self(),
                  new NodeLog(
                      cluster,
                      data.resolve("log"),
                      NodeLog.Limits.DEFAULTS,
                      InstantSource.system(),
                      METRICS));
              STREAMS.put(cluster.self(), new LogStreams(grid, InstantSource.system()));
            });
    members = grids.add(3);
    LOGS.values().forEach(NodeLog::start);
  }

  @AfterAll
  static void stop() {
    LOGS.values().forEach(NodeLog::close);
    grids.close();
  }

  private static NodeLog log(int node) {
    return LOGS.get(members.get(node).id());
  }

  private static LogStreams streams(int node) {
    return STREAMS.get(members.get(node).id());
  }

  private static void say(int node, Log.Level level, String message) {
    log(node)
        .offer(
            System.currentTimeMillis(),
            level,
            "dev.flotilla.Test",
            message,
            Map.of("thread", "t1"));
  }

  private static List<String> found(int node, Log.Query query) {
    return log(node).search(query).entries().stream().map(Log.Entry::message).toList();
  }

  private static void await(String what, java.util.function.BooleanSupplier condition) {
    TestNodes.await(what, Duration.ofSeconds(15), condition);
  }

  @Test
  @Order(1)
  void whatAnyNodeLogsIsFoundFromAnyOther() {
    say(0, Log.Level.INFO, "the quick brown fox");
    say(1, Log.Level.WARN, "the lazy dog sleeps");
    say(2, Log.Level.ERROR, "a fox bit the dog: 狐狸");
    Log.Query fox = Log.Query.all().withText("fox");
    await("both foxes", () -> found(1, fox).size() == 2);
    assertThat(found(2, Log.Query.all().withText("dog AND NOT lazy"))).hasSize(1);
    assertThat(found(2, Log.Query.all().withText("狐狸"))).hasSize(1);
    assertThat(found(0, Log.Query.all().withText("\"brown fox\" AND logger:dev.flotilla.Test")))
        .hasSize(1);
    assertThat(found(0, Log.Query.all().withNode(members.get(1).id()).withText("dog")))
        .containsExactly("the lazy dog sleeps");
    Log.Query severe =
        new Log.Query(
            "dog",
            Optional.empty(),
            Optional.empty(),
            Optional.empty(),
            Optional.of(Log.Level.ERROR),
            10);
    assertThat(found(0, severe)).hasSize(1);
    Log.Query past =
        new Log.Query(
            "", Optional.empty(), Optional.of(1000L), Optional.empty(), Optional.empty(), 10);
    assertThat(found(0, past)).isEmpty();
    for (String wrong : List.of("fox AND (", "*:", "\"open")) {
      assertThatThrownBy(() -> found(0, Log.Query.all().withText(wrong)))
          .as(wrong)
          .isInstanceOf(FlotillaException.class)
          .hasMessageContaining("query");
    }
    assertThatThrownBy(() -> found(0, Log.Query.all().withNode("nobody")))
        .isInstanceOf(FlotillaException.class);
  }

  @Test
  @Order(2)
  void aFollowerSeesEachEntryOnceAsItHappens() throws Exception {
    List<String> seen = new CopyOnWriteArrayList<>();
    AtomicInteger calls = new AtomicInteger();
    Thread follower =
        Thread.ofVirtual()
            .start(
                () ->
                    log(0)
                        .follow(
                            Log.Query.all().withText("followed"),
                            entry -> {
                              calls.incrementAndGet();
                              entry.ifPresent(each -> seen.add(each.message()));
                              return seen.size() < 60;
                            }));
    await("the follower waits", () -> calls.get() > 0);
    for (int i = 0; i < 60; i++) {
      say(i % 3, Log.Level.INFO, "followed " + i);
    }
    assertThat(follower.join(Duration.ofSeconds(10))).isTrue();
    assertThat(seen).hasSize(60).doesNotHaveDuplicates();
  }

  @Test
  @Order(3)
  void aStreamKeepsEveryRecordInOneOrderForAllReaders() throws Exception {
    List<Thread> writers = new ArrayList<>();
    Map<Long, String> acknowledged = new ConcurrentHashMap<>();
    for (int w = 0; w < 3; w++) {
      int writer = w;
      writers.add(
          Thread.ofPlatform()
              .start(
                  () -> {
                    for (int i = 0; i < 20; i++) {
                      String text = writer + ":" + i;
                      long offset =
                          streams(writer).append("events", List.of(bytes(text), bytes("+")));
                      acknowledged.put(offset, text);
                    }
                  }));
    }
    for (Thread writer : writers) {
      writer.join();
    }
    List<Log.StreamRecord> all = streams(2).read("events", 0, 1000, 0);
    assertThat(all).hasSize(120);
    for (int i = 0; i < all.size(); i++) {
      assertThat(all.get(i).offset()).isEqualTo(i);
      if (i % 2 == 0) {
        assertThat(new String(all.get(i).body(), StandardCharsets.UTF_8))
            .isEqualTo(acknowledged.get((long) i));
      }
    }
    streams(0).trim("events", 50);
    assertThat(streams(1).stream("events")).isEqualTo(new Log.StreamInfo("events", 50, 120));
    assertThat(streams(1).read("events", 0, 1, 0).getFirst().offset()).isEqualTo(50);
    Thread late =
        Thread.ofVirtual()
            .start(
                () -> {
                  sleep(300);
                  streams(0).append("events", List.of(bytes("late")));
                });
    assertThat(streams(1).read("events", 120, 10, 10_000)).hasSize(1);
    late.join();
    assertThatThrownBy(() -> streams(0).read("nothing", 0, 1, 0)).hasMessageContaining("no stream");
    assertThatThrownBy(() -> streams(0).append("bad name", List.of(new byte[1])))
        .isInstanceOf(FlotillaException.class);
    assertThatThrownBy(() -> streams(0).append("big", List.of(new byte[(1 << 20) + 1])))
        .hasMessageContaining("too much");
  }

  private static byte[] bytes(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }

  private static void sleep(long ms) {
    try {
      Thread.sleep(ms);
    } catch (InterruptedException e) {
      throw new AssertionError(e);
    }
  }

  @Test
  @Order(4)
  void aCollectorGetsEverythingByOtlpAlsoWhenItFailsNowAndThen() throws Exception {
    List<JsonNode> taken = Collections.synchronizedList(new ArrayList<>());
    AtomicInteger requests = new AtomicInteger();
    HttpServer collector =
        HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
    collector.createContext(
        "/v1/logs",
        exchange -> {
          byte[] body = exchange.getRequestBody().readAllBytes();
          boolean refuse = requests.incrementAndGet() % 2 == 1;
          if (!refuse) {
            assertThat(exchange.getRequestHeaders().getFirst("Content-Type"))
                .isEqualTo("application/json");
            taken.add(Json.MAPPER.readTree(body));
          }
          byte[] answer = bytes("{}");
          exchange.sendResponseHeaders(refuse ? 503 : 200, answer.length);
          exchange.getResponseBody().write(answer);
          exchange.close();
        });
    collector.start();
    String url = "http://127.0.0.1:" + collector.getAddress().getPort();
    Path offsets = folder.resolve("otlp");
    Files.createDirectories(offsets);
    String id = members.get(1).id();
    try (OtlpExporter exporter = new OtlpExporter(url, log(1), id, offsets)) {
      exporter.start();
      for (int i = 0; i < 30; i++) {
        say(1, Log.Level.WARN, "exported " + i);
      }
      await("all of it", () -> exported(taken).size() == 30);
    } finally {
      collector.stop(0);
    }
    assertThat(exported(taken)).doesNotHaveDuplicates();
    JsonNode resourceLogs = taken.getLast().path("resourceLogs").path(0);
    assertThat(resourceLogs.path("resource").path("attributes").toString())
        .contains("{\"key\":\"service.name\",\"value\":{\"stringValue\":\"flotilla\"}}")
        .contains(id);
    JsonNode scope = resourceLogs.path("scopeLogs").path(0);
    assertThat(scope.path("scope").path("name").asText()).isEqualTo("dev.flotilla.Test");
    JsonNode record = scope.path("logRecords").path(0);
    assertThat(record.path("timeUnixNano").isTextual()).isTrue();
    assertThat(record.path("timeUnixNano").asText()).matches("[0-9]{19}");
    assertThat(record.path("severityNumber").asInt()).isEqualTo(13);
    assertThat(record.path("severityText").asText()).isEqualTo("WARN");
    assertThat(record.path("body").path("stringValue").isTextual()).isTrue();
    assertThat(record.path("attributes").toString()).contains("thread.name");
    assertThatThrownBy(() -> new OtlpExporter("collector", log(1), id, offsets))
        .hasMessageContaining("http address");
  }

  private static List<String> exported(List<JsonNode> requests) {
    List<String> bodies = new ArrayList<>();
    synchronized (requests) {
      requests.forEach(
          request ->
              request
                  .findValues("stringValue")
                  .forEach(
                      value -> {
                        if (value.asText().startsWith("exported ")) {
                          bodies.add(value.asText());
                        }
                      }));
    }
    return bodies;
  }

  @Test
  @Order(5)
  void aDeadNodesLogIsReadFromItsPeersAndItsStreamsGoOn() {
    say(0, Log.Level.ERROR, "last words of node one");
    String first = members.get(0).id();
    Log.Query words = Log.Query.all().withText("\"last words\"").withNode(first);
    await(
        "copies on the peers",
        () ->
            Files.isDirectory(members.get(1).config().dataFolder().resolve("log/nodes/" + first)));
    await("its last words", () -> copies(first, 1) && copies(first, 2));
    LOGS.get(first).close();
    grids.stop(members.get(0));
    Log.Page page = log(1).search(words);
    assertThat(page.entries()).hasSize(1);
    assertThat(page.partial()).isTrue();
    assertThat(page.missing()).containsExactly(first);
    await("a majority", members.get(1).grid()::hasMajority);
    assertThat(streams(2).append("events", List.of(bytes("after")))).isEqualTo(121);
    assertThat(streams(1).read("events", 50, 1000, 0)).hasSize(72);
  }

  private static boolean copies(String node, int holder) {
    try (var files =
        Files.list(members.get(holder).config().dataFolder().resolve("log/nodes/" + node))) {
      return files.anyMatch(file -> text(file).contains("last words"));
    } catch (java.io.IOException e) {
      return false;
    }
  }

  private static String text(Path file) {
    try {
      return Files.readString(file);
    } catch (java.io.IOException e) {
      return "";
    }
  }

  @Test
  @Order(6)
  void theMinorityRefusesToAppend() {
    grids.stop(members.get(1));
    LOGS.get(members.get(1).id()).close();
    assertThatThrownBy(
            () ->
                TestNodes.await(
                    "never",
                    Duration.ofSeconds(8),
                    () -> {
                      streams(2).append("events", List.of(bytes("alone")));
                      return false;
                    }))
        .isInstanceOf(FlotillaException.class);
  }

  @Test
  @Order(7)
  void segmentsSurviveATornEndAndRetireByAgeAndSize() throws Exception {
    Path place = folder.resolve("segments");
    try (LogSegments segments = new LogSegments(place, 1000)) {
      for (long seq = 1; seq <= 100; seq++) {
        segments.append(List.of(line(seq)));
      }
    }
    Path last;
    try (var files = Files.list(place)) {
      last = files.sorted().toList().getLast();
    }
    Files.writeString(last, "{\"seq\":101,\"mess", StandardOpenOption.APPEND);
    try (LogSegments segments = new LogSegments(place, 1000)) {
      assertThat(segments.lastSeq()).isEqualTo(100);
      assertThat(segments.after(95, 1 << 20)).hasSize(5);
      segments.append(List.of(line(101)));
      assertThat(segments.after(0, 1 << 20)).hasSize(101);
      assertThat(segments.retire(2000, 0)).isTrue();
      assertThat(segments.firstSeq()).isGreaterThan(50);
      assertThat(segments.after(0, 1 << 20)).isNotEmpty();
      assertThat(segments.retire(1 << 20, Long.MAX_VALUE)).isTrue();
      assertThat(segments.lastSeq()).isEqualTo(101);
    }
  }

  private static LogSegments.Line line(long seq) {
    return new LogSegments.Line(
        seq, bytes("{\"seq\":" + seq + ",\"message\":\"" + "x".repeat(50) + "\"}"));
  }

  private static NodeLog alone(Path place, int ringEntries) {
    return new NodeLog(
        new FakeCluster("alone", new FakeRegistry(), List.of()),
        place,
        new NodeLog.Limits(ringEntries, 4L << 20, 256L << 20, 1L << 40, 2),
        InstantSource.system(),
        new SimpleMeterRegistry());
  }

  private static void say(NodeLog log, String message) {
    log.offer(System.currentTimeMillis(), Log.Level.INFO, "test", message, Map.of());
  }

  @Test
  @Order(8)
  void aDiskThatTakesNothingStopsNobodyAndWhatIsLostIsCounted() throws Exception {
    Path place = folder.resolve("full");
    Files.createDirectories(place);
    // As good as a full disk: nothing can be written below this.
    Files.writeString(place.resolve("nodes"), "in the way");
    try (NodeLog log = alone(place, 100)) {
      long startNs = System.nanoTime();
      for (int i = 0; i < 5000; i++) {
        say(log, "lost " + i);
      }
      assertThat(System.nanoTime() - startNs).isLessThan(2_000_000_000L);
      sleep(500);
      Files.delete(place.resolve("nodes"));
      say(log, "works again");
      await("it works again", () -> entries(log, "again").size() == 1);
      List<Log.Entry> reported = entries(log, "dropped");
      assertThat(reported).hasSize(1);
      assertThat(Long.parseLong(reported.getFirst().fields().get("dropped"))).isEqualTo(5000);
    }
  }

  private static List<Log.Entry> entries(NodeLog log, String words) {
    return log.search(Log.Query.all().withText(words)).entries();
  }

  @Test
  @Order(9)
  void anIndexThatIsGoneOrDamagedIsMadeAnewFromTheSegments() throws Exception {
    Path place = folder.resolve("again");
    try (NodeLog log = alone(place, 1000)) {
      say(log, "kept in the segments");
      await("it is written", () -> entries(log, "kept").size() == 1);
    }
    try (var files = Files.list(place.resolve("index"))) {
      for (Path file : files.toList()) {
        Files.writeString(file, "damaged");
      }
    }
    try (NodeLog log = alone(place, 1000)) {
      say(log, "and this");
      await("both", () -> entries(log, "kept OR this").size() == 2);
      List<Log.Entry> both = entries(log, "kept OR this");
      assertThat(both.get(1).seq()).isEqualTo(both.get(0).seq() + 1);
    }
  }
}

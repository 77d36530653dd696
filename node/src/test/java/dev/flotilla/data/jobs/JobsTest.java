package dev.flotilla.data.jobs;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.cluster.ClusterNode;
import dev.flotilla.cluster.Fence;
import dev.flotilla.cluster.Fencing;
import dev.flotilla.cluster.Locks;
import dev.flotilla.cluster.TestNodes;
import dev.flotilla.data.blobs.BlobConfig;
import dev.flotilla.data.blobs.Blobs;
import dev.flotilla.data.blobs.GridBlobs;
import dev.flotilla.data.grid.Environment;
import dev.flotilla.data.grid.Fences;
import dev.flotilla.data.grid.Grid;
import dev.flotilla.data.grid.TestGrids;
import io.micrometer.core.instrument.simple.SimpleMeterRegistry;
import java.nio.file.Path;
import java.time.Duration;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.function.BiConsumer;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.MethodOrderer;
import org.junit.jupiter.api.Order;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestMethodOrder;
import org.junit.jupiter.api.io.TempDir;

/** Jobs and fences over three real nodes with grids; the last test stops the coordinator. */
@TestMethodOrder(MethodOrderer.OrderAnnotation.class)
class JobsTest {

  private static TestGrids grids;
  private static final Map<String, GridJobs> jobs = new HashMap<>();
  private static final Map<String, Fences> fences = new HashMap<>();
  private static volatile String slowNode = "";
  private static volatile long taskMs;

  /** Forty tasks; on one node, if a test says so, they take for ever. */
  private static final class Squares implements JobDefinition {
    @Override
    public String name() {
      return "squares";
    }

    @Override
    public String description() {
      return "for this test";
    }

    @Override
    public List<Task> plan(Context context, JsonNode input) {
      List<Task> tasks = new ArrayList<>();
      for (int i = 0; i < 40; i++) {
        tasks.add(new Task("t" + i, Json.MAPPER.createObjectNode().put("n", i), List.of(), false));
      }
      return tasks;
    }

    @Override
    public void map(Context context, JsonNode payload, BiConsumer<String, JsonNode> emit)
        throws InterruptedException {
      Thread.sleep(context.cluster().self().equals(slowNode) ? 60_000 : taskMs);
      int n = payload.path("n").asInt();
      emit.accept("mod" + n % 4, Json.MAPPER.getNodeFactory().numberNode(n * n));
    }

    @Override
    public JsonNode merge(JsonNode first, JsonNode second) {
      return Json.MAPPER.getNodeFactory().numberNode(first.asLong() + second.asLong());
    }
  }

  /** One task that never works, as its input says. */
  private static final class Broken implements JobDefinition {
    @Override
    public String name() {
      return "broken";
    }

    @Override
    public String description() {
      return "for this test";
    }

    @Override
    public List<Task> plan(Context context, JsonNode input) {
      return List.of(new Task("only", input, List.of(), false));
    }

    @Override
    public void map(Context context, JsonNode payload, BiConsumer<String, JsonNode> emit) {
      if (payload.path("lacks").isTextual()) {
        throw new FlotillaException(
            Code.UNAVAILABLE, payload.path("lacks").asText() + " is nowhere", "Look for it.");
      }
      throw new IllegalStateException("planted");
    }

    @Override
    public JsonNode merge(JsonNode first, JsonNode second) {
      return first;
    }
  }

  /** With squares; they give up sooner than jobs do. */
  static GridJobs jobs(ClusterNode cluster, Grid grid, Path data, Fences fence) {
    Locks locks = Locks.embedded(cluster, System::nanoTime, new SimpleMeterRegistry());
    Environment environment =
        new Environment(
            cluster,
            data,
            "127.0.0.1",
            0,
            new SimpleMeterRegistry(),
            InstantSource.system(),
            System::nanoTime,
            new Random());
    Blobs blobs =
        new GridBlobs(
            cluster,
            grid,
            fence,
            data,
            BlobConfig.of(Map.of()),
            environment.metrics(),
            environment.clock(),
            environment.nanoTime(),
            environment.random());
    List<JobDefinition> all = new ArrayList<>(TextJobs.all());
    all.add(new Squares());
    all.add(new Broken());
    return new GridJobs(
        environment,
        grid,
        locks,
        fence,
        blobs,
        all,
        new GridJobs.Patience(4, Duration.ofMillis(50), Duration.ofMillis(200)));
  }

  @BeforeAll
  static void start(@TempDir Path folder) {
    grids =
        new TestGrids(
            folder,
            (cluster, grid, data) -> {
              Fences fence = new Fences(grid);
              jobs.put(cluster.self(), jobs(cluster, grid, data, fence));
              fences.put(cluster.self(), fence);
              grid.onStart(
                  ignite -> ignite.getOrCreateCache(grid.<String, String>cacheConfig("guarded")));
            });
    grids.add(3);
    grids.running().forEach(member -> jobs.get(member.id()).start());
  }

  @AfterAll
  static void stop() {
    jobs.values().forEach(GridJobs::close);
    grids.close();
  }

  private static GridJobs any() {
    return jobs.get(grids.running().getLast().id());
  }

  private static Jobs.View ended(String id) {
    TestNodes.await(
        "the end of " + id,
        Duration.ofSeconds(60),
        () -> {
          try {
            return !List.of("submitted", "running").contains(any().show(id).state());
          } catch (FlotillaException e) {
            return false;
          }
        });
    return any().show(id);
  }

  private static Map<String, Long> rows(String id) {
    Map<String, Long> rows = new HashMap<>();
    any().rows(id, "", 10_000).forEach(row -> rows.put(row.key(), row.value().asLong()));
    return rows;
  }

  private static Map<String, Long> expected() {
    Map<String, Long> sums = new HashMap<>();
    for (int n = 0; n < 40; n++) {
      sums.merge("mod" + n % 4, (long) n * n, Long::sum);
    }
    return sums;
  }

  @Test
  @Order(1)
  void countsWordsIntoATable() throws Exception {
    var input = Json.MAPPER.createObjectNode();
    var lines = input.putArray("lines");
    for (int i = 0; i < 2500; i++) {
      lines.add("the cat and the hat " + i % 10);
    }
    String id = any().submit("count_words", input);
    Jobs.View view = ended(id);
    assertThat(view.state()).as(view.reason()).isEqualTo("done");
    assertThat(rows(id)).containsEntry("the", 5000L).containsEntry("7", 250L).hasSize(14);
    assertThat(any().rows(id, "and", 1)).extracting(Jobs.Row::key).containsExactly("cat");
    String again = any().submit("deduplicate", input);
    assertThat(ended(again).rows()).isEqualTo(10);
    String report = any().submit("node_report", Json.MAPPER.createObjectNode());
    assertThat(ended(report).rows()).isEqualTo(3);
  }

  @Test
  @Order(2)
  void badInputAndCancellation() {
    assertThatThrownBy(() -> any().submit("nothing", Json.MAPPER.createObjectNode()))
        .hasMessageContaining("no job called");
    int before = any().list().size();
    assertThatThrownBy(() -> any().submit("count_words", Json.MAPPER.createObjectNode()))
        .hasMessageContaining("names no text");
    assertThat(any().list()).hasSize(before);
    taskMs = 30_000;
    String id = any().submit("squares", Json.MAPPER.createObjectNode());
    TestNodes.await(
        "its start", Duration.ofSeconds(20), () -> any().show(id).state().equals("running"));
    assertThat(any().cancel(id)).isEqualTo("cancelled");
    assertThat(any().show(id).state()).isEqualTo("cancelled");
    assertThatThrownBy(() -> any().rows(id, "", 10)).hasMessageContaining("no result");
    assertThat(any().cancel(id)).isEqualTo("deleted");
    assertThatThrownBy(() -> any().show(id)).hasMessageContaining("no job");
    taskMs = 5;
  }

  @Test
  @Order(2)
  void aTaskThatNeverWorksEndsItsJobAndSaysWhy() {
    Jobs.View lacking =
        ended(any().submit("broken", Json.MAPPER.createObjectNode().put("lacks", "chunk 7")));
    assertThat(lacking.state()).isEqualTo("failed");
    assertThat(lacking.reason())
        .isEqualTo("given up after 4 tries in a row: chunk 7 is nowhere. Look for it.");
    Jobs.View thrown = ended(any().submit("broken", Json.MAPPER.createObjectNode()));
    assertThat(thrown.state()).isEqualTo("failed");
    assertThat(thrown.reason())
        .startsWith("task only failed on node ")
        .contains("java.lang.IllegalStateException: planted");
    assertThat(thrown.attempts()).isEqualTo(3);
  }

  @Test
  @Order(3)
  void aSlowNodeIsOvertakenByCopies() {
    slowNode = grids.running().getFirst().id();
    String id = any().submit("squares", Json.MAPPER.createObjectNode());
    Jobs.View view = ended(id);
    slowNode = "";
    assertThat(view.state()).as(view.reason()).isEqualTo("done");
    assertThat(view.copies()).isPositive();
    assertThat(rows(id)).isEqualTo(expected());
  }

  @Test
  @Order(4)
  void aGridResourceRefusesEachOfAHundredThousandStaleTries() {
    Grid grid = grids.running().getFirst().grid();
    Fences fence = fences.get(grid.self());
    assertThat(guarded(grid, fence, 7, "first")).isTrue();
    assertThat(guarded(grid, fence, 9, "second")).isTrue();
    // In one transaction each would take minutes here; the check itself is what is tried so often.
    int[] refused = new int[1];
    grid.transact(
        "trying",
        Grid.TransactionMode.PESSIMISTIC,
        ignite -> {
          for (int i = 0; i < 99_000; i++) {
            try {
              fence.check(ignite, "thing", Optional.of(new Fence("lock", 7)));
            } catch (FlotillaException e) {
              refused[0]++;
            }
          }
          return 0;
        });
    for (int i = 0; i < 1000; i++) {
      refused[0] += guarded(grid, fence, 7, "stale") ? 0 : 1;
    }
    assertThat(refused[0]).isEqualTo(100_000);
    assertThat(value(grid)).isEqualTo("second");
    System.setProperty(Fencing.SKIP, "true");
    try {
      assertThat(guarded(grid, fence, 7, "planted")).isTrue();
      assertThat(value(grid)).isEqualTo("planted");
    } finally {
      System.clearProperty(Fencing.SKIP);
    }
  }

  private static boolean guarded(Grid grid, Fences fence, long token, String value) {
    try {
      return grid.transact(
          "guarded",
          Grid.TransactionMode.PESSIMISTIC,
          ignite -> {
            fence.check(ignite, "thing", Optional.of(new Fence("lock", token)));
            ignite.<String, String>cache("guarded").put("k", value);
            return true;
          });
    } catch (FlotillaException e) {
      assertThat(e.code()).isEqualTo(Code.CONFLICT);
      return false;
    }
  }

  private static String value(Grid grid) {
    return grid.read("x", ignite -> ignite.<String, String>cache("guarded").get("k"));
  }

  /** As if the node that was asked had died between the record and the registry's entry. */
  @Test
  @Order(4)
  void aJobThatTheRegistryNeverHeardOfIsTakenUp() {
    TestGrids.Member member = grids.running().getFirst();
    JobStore store = new JobStore(member.grid(), fences.get(member.id()));
    var input = Json.MAPPER.createObjectNode();
    store.create(
        new JobStore.JobRecord(
            "job-orphan",
            "squares",
            input,
            JobStore.SUBMITTED,
            "",
            "",
            List.of(),
            0,
            0,
            0,
            0,
            0,
            0,
            1,
            1));
    Jobs.View view = ended("job-orphan");
    assertThat(view.state()).as(view.reason()).isEqualTo("done");
    assertThat(rows("job-orphan")).isEqualTo(expected());
    TestNodes.await(
        "its note to go", Duration.ofSeconds(10), () -> !store.openHere().contains("job-orphan"));
  }

  @Test
  @Order(5)
  void theCoordinatorDiesInMidJobAndTheResultIsTheSame() {
    taskMs = 300;
    String id = any().submit("squares", Json.MAPPER.createObjectNode());
    TestNodes.await("some tasks", Duration.ofSeconds(30), () -> any().show(id).done() >= 3);
    String coordinator = any().show(id).coordinator();
    TestGrids.Member dying =
        grids.running().stream().filter(m -> m.id().equals(coordinator)).findFirst().orElseThrow();
    jobs.get(dying.id()).close();
    grids.stop(dying);
    taskMs = 20;
    Jobs.View view = ended(id);
    assertThat(view.state()).as(view.reason()).isEqualTo("done");
    assertThat(view.coordinator()).isNotEqualTo(coordinator);
    assertThat(rows(id)).isEqualTo(expected());
  }
}

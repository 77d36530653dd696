package dev.flotilla.data.usage;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.cluster.ClusterNode;
import dev.flotilla.cluster.TestNodes;
import dev.flotilla.data.grid.Environment;
import dev.flotilla.data.grid.Grid;
import dev.flotilla.data.grid.TestGrids;
import io.micrometer.core.instrument.MeterRegistry;
import io.micrometer.core.instrument.simple.SimpleMeterRegistry;
import java.nio.file.Path;
import java.security.SecureRandom;
import java.time.Duration;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.MethodOrderer;
import org.junit.jupiter.api.Order;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestMethodOrder;
import org.junit.jupiter.api.io.TempDir;

/** The ledger on one node first, then on three, of which one stops. */
@TestMethodOrder(MethodOrderer.OrderAnnotation.class)
class UsageTest {

  private static final long HOUR = UsageTotals.HOUR_MS;
  private static final long START_MS = 1_800_000_000_000L / HOUR * HOUR;
  private static final int DAYS = 3;

  private static final Map<String, GridUsage> usages = new ConcurrentHashMap<>();
  private static TestGrids grids;

  @BeforeAll
  static void start(@TempDir Path folder) {
    grids =
        new TestGrids(
            folder,
            (cluster, grid, data) ->
                usages.put(cluster.self(), usage(cluster, grid, data, new SimpleMeterRegistry())));
    grids.add();
  }

  @AfterAll
  static void stop() {
    usages.values().forEach(GridUsage::close);
    grids.close();
  }

  private static GridUsage usage(ClusterNode cluster, Grid grid, Path data, MeterRegistry metrics) {
    return new GridUsage(
        new Environment(
            cluster,
            data,
            "127.0.0.1",
            0,
            metrics,
            InstantSource.system(),
            System::nanoTime,
            new SecureRandom()),
        grid);
  }

  /** One more on the first node, that nobody has started or asked. */
  private static GridUsage another(MeterRegistry metrics) {
    TestGrids.Member first = grids.running().getFirst();
    return usage(first.cluster(), first.grid(), first.config().dataFolder(), metrics);
  }

  private static UsageEvent event(int node, int i) {
    return new UsageEvent(
        "request-" + node + "-" + i,
        START_MS + (i % (24 * DAYS)) * HOUR + i,
        "key-" + i % 2,
        "model-" + i % 3,
        3,
        5,
        i % 10 == 0);
  }

  private static List<Usage.Row> rows(GridUsage usage, Usage.By by) {
    return usage.report(START_MS, START_MS + DAYS * 24 * HOUR, by).rows();
  }

  private static long requests(GridUsage usage) {
    return rows(usage, Usage.By.MODEL).stream().mapToLong(Usage.Row::requests).sum();
  }

  /** On a node that has just come back, whose copies may not be whole yet: then it is refused. */
  private static boolean has(GridUsage usage, long requests) {
    try {
      return requests(usage) == requests;
    } catch (FlotillaException e) {
      assertThat(e.code())
          .isIn(FlotillaException.Code.UNAVAILABLE, FlotillaException.Code.NO_MAJORITY);
      return false;
    }
  }

  @Test
  @Order(2)
  void bothViewsAgreeWhileAllAppendAndANodeDiesAndNothingIsCountedTwice() throws Exception {
    try (var threads = Executors.newVirtualThreadPerTaskExecutor()) {
      List<TestGrids.Member> members = new ArrayList<>(grids.running());
      members.addAll(grids.add(2));
      List<GridUsage> nodes =
          new ArrayList<>(members.stream().map(m -> usages.get(m.id())).toList());
      nodes.forEach(GridUsage::start);
      int each = 600;
      AtomicBoolean ended = new AtomicBoolean();
      List<Future<?>> appending = new ArrayList<>();
      for (int n = 0; n < 3; n++) {
        int node = n;
        GridUsage usage = nodes.get(n);
        appending.add(
            threads.submit(
                () -> {
                  for (int i = 0; i < each; i++) {
                    usage.append(event(node, i));
                    if (i % 7 == 0) {
                      // The same request once more, on this node.
                      usage.append(event(node, i));
                    }
                    Thread.sleep(1);
                  }
                  return true;
                }));
      }
      // Whoever asks sees a consistent prefix that only grows, while the watermark moves.
      Future<Integer> asking =
          threads.submit(
              () -> {
                long before = 0;
                int asked = 0;
                while (!ended.get()) {
                  try {
                    List<Usage.Row> rows = rows(nodes.get(0), Usage.By.KEY);
                    long requests = rows.stream().mapToLong(Usage.Row::requests).sum();
                    for (Usage.Row row : rows) {
                      assertThat(row.promptTokens()).isEqualTo(3 * row.requests());
                      assertThat(row.completionTokens()).isEqualTo(5 * row.requests());
                    }
                    assertThat(requests).isGreaterThanOrEqualTo(before);
                    before = requests;
                    asked++;
                    Usage.Report now = nodes.get(1).report(START_MS, START_MS + HOUR, Usage.By.DAY);
                    nodes.get(1).advance(now.watermark(), now.head());
                    Thread.sleep(30);
                  } catch (FlotillaException whileANodeDies) {
                    Thread.sleep(20);
                  }
                }
                return asked;
              });
      try {
        for (Future<?> future : appending) {
          future.get();
        }
        // The third node's grid dies first, so that what it closes with stays in its journal.
        for (int i = each; i < each + 50; i++) {
          nodes.get(2).append(event(2, i));
        }
        TestGrids.Member third = members.get(2);
        grids.stop(third);
        nodes.get(2).close();
        // Another node is told of requests that the dead one holds: still counted once.
        for (int i = each; i < each + 20; i++) {
          nodes.get(0).append(event(2, i));
        }
        third = grids.restart(third);
        GridUsage restarted = usages.get(third.id());
        restarted.start();
        TestNodes.await("all events", Duration.ofSeconds(60), () -> has(restarted, 3L * each + 50));
      } finally {
        ended.set(true);
      }
      GridUsage back = usages.get(members.get(2).id());
      assertThat(asking.get()).isGreaterThan(3);
      TestNodes.await(
          "all events on another node",
          Duration.ofSeconds(20),
          () -> has(nodes.get(0), 3L * each + 50));

      Usage.Report report = back.report(START_MS, START_MS + 72 * HOUR, Usage.By.DAY);
      assertThat(report.watermark()).isPositive();
      // The hours asked for begin in the middle of a day, and need not end in the middle of one.
      assertThat(report.rows()).hasSizeBetween(DAYS, DAYS + 1);
      assertThat(report.rows().stream().mapToLong(Usage.Row::requests).sum())
          .isEqualTo(3L * each + 50);
      for (Usage.By by : Usage.By.values()) {
        List<Usage.Row> batchAndSpeed = rows(nodes.get(0), by);
        nodes.get(0).dropViews();
        List<Usage.Row> speedAlone = rows(back, by);
        assertThat(back.report(START_MS, START_MS + HOUR, by).watermark()).isZero();
        Usage.Rebuilt rebuilt = nodes.get(1).rebuild();
        assertThat(rebuilt.events()).isEqualTo(3L * each + 50);
        List<Usage.Row> batchAlone = rows(nodes.get(1), by);
        assertThat(speedAlone).isEqualTo(batchAndSpeed);
        assertThat(batchAlone).isEqualTo(batchAndSpeed);
      }
      assertThatThrownBy(() -> back.report(10, 5, Usage.By.DAY))
          .hasMessageContaining("ends before");
    }
  }

  @Test
  @Order(1)
  void aSegmentWhoseCommitIsUnderWayIsWaitedFor() throws Exception {
    Grid grid = grids.running().getFirst().grid();
    GridUsage reader = another(new SimpleMeterRegistry());
    try (var threads = Executors.newCachedThreadPool()) {
      // A commit as others may see it: the head is there, the segment is locked and not there yet.
      grid.write(
          "a head",
          ignite -> {
            ignite.<String, byte[]>cache(GridUsage.VIEWS).put(GridUsage.HEAD, Json.write(1L));
            return true;
          });
      CompletableFuture<Boolean> locked = new CompletableFuture<>();
      CompletableFuture<Boolean> commit = new CompletableFuture<>();
      Future<Boolean> committing =
          threads.submit(
              () ->
                  grid.transact(
                      "a segment",
                      Grid.TransactionMode.PESSIMISTIC,
                      ignite -> {
                        ignite
                            .<Long, byte[]>cache(GridUsage.LOG)
                            .put(1L, Json.write(new GridUsage.Segment(List.of(event(0, 1)))));
                        locked.complete(true);
                        return commit.orTimeout(8, TimeUnit.SECONDS).join();
                      }));
      locked.get(20, TimeUnit.SECONDS);
      Future<Long> asked = threads.submit(() -> requests(reader));
      assertThatThrownBy(() -> asked.get(500, TimeUnit.MILLISECONDS))
          .isInstanceOf(TimeoutException.class);
      commit.complete(true);
      assertThat(asked.get(20, TimeUnit.SECONDS)).isEqualTo(1);
      assertThat(committing.get()).isTrue();
    } finally {
      grid.write(
          "an empty ledger again",
          ignite -> {
            ignite.cache(GridUsage.VIEWS).remove(GridUsage.HEAD);
            ignite.cache(GridUsage.LOG).remove(1L);
            return true;
          });
    }
  }

  @Test
  @Order(1)
  void whatTheQueueDoesNotTakeIsCountedAsLostAndNobodyWaitsForIt() {
    var metrics = new SimpleMeterRegistry();
    GridUsage never = another(metrics);
    // Not started: nothing takes from its queue, which has room for 100,000.
    for (int i = 0; i < 100_100; i++) {
      never.append(event(0, i));
    }
    assertThat(metrics.get("flotilla.usage.events").counter().count()).isEqualTo(100_100);
    assertThat(metrics.get("flotilla.usage.lost").counter().count()).isEqualTo(100);
  }

  @Test
  void foldsOfPartsAddUpToTheFoldOfTheWhole() {
    long seed = System.nanoTime();
    var random = new java.util.Random(seed);
    UsageTotals whole = new UsageTotals();
    UsageTotals parts = new UsageTotals();
    UsageTotals part = new UsageTotals();
    AtomicLong count = new AtomicLong();
    for (int i = 0; i < 1000; i++) {
      UsageEvent event = event(random.nextInt(3), random.nextInt(10_000));
      whole.add(event);
      part.add(event);
      count.incrementAndGet();
      if (random.nextInt(20) == 0) {
        parts.addAll(part.lines());
        part = new UsageTotals();
      }
    }
    parts.addAll(part.lines());
    for (Usage.By by : Usage.By.values()) {
      assertThat(parts.rows(by, g -> true))
          .as("seed %d", seed)
          .isEqualTo(whole.rows(by, g -> true));
    }
    assertThat(whole.rows(Usage.By.KEY, g -> true).stream().mapToLong(Usage.Row::requests).sum())
        .isEqualTo(count.get());
  }
}

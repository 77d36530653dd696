package dev.flotilla.data.grid;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.cluster.TestNodes;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Predicate;
import javax.cache.processor.EntryProcessorException;
import org.apache.ignite.Ignite;
import org.apache.ignite.cache.query.SqlFieldsQuery;
import org.apache.ignite.events.DiscoveryEvent;
import org.apache.ignite.events.EventType;
import org.apache.ignite.internal.IgniteEx;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

class GridTest {

  private static final int ENTRIES = 200;

  @TempDir Path folder;

  private static void put(Grid grid, int key, int value) {
    grid.write(
        "a test",
        ignite -> {
          var cache = ignite.getOrCreateCache(grid.<Integer, Integer>cacheConfig("test"));
          cache.put(key, value);
          return true;
        });
  }

  private static Integer get(Grid grid, int key) {
    return grid.read("a test", ignite -> ignite.<Integer, Integer>cache("test").get(key));
  }

  @Test
  void whatOneNodeWroteOutlivesItOnceTwoMoreHaveJoined() {
    try (TestGrids grids = new TestGrids(folder)) {
      var first = grids.add();
      for (int i = 0; i < 100; i++) {
        put(first.grid(), i, i * i);
      }
      var others = grids.add(2);
      TestNodes.await(
          "copies on the others",
          Duration.ofSeconds(20),
          () -> others.stream().allMatch(m -> whole(m.grid())));
      grids.stop(first);
      for (var member : others) {
        TestNodes.await("a majority", Duration.ofSeconds(10), member.grid()::hasMajority);
        for (int i = 0; i < 100; i++) {
          assertThat(get(member.grid(), i)).isEqualTo(i * i);
        }
      }
      put(others.get(0).grid(), 1, 7);
      assertThat(get(others.get(1).grid(), 1)).isEqualTo(7);
    }
  }

  @Test
  @Timeout(120)
  void whatIsNeverEndedHoldsUpAChangeOfTheTopologyForAWhileOnly() throws Exception {
    try (TestGrids grids = new TestGrids(folder).heldUp(Duration.ofSeconds(2))) {
      var first = grids.add();
      var second = grids.add();
      put(first.grid(), 1, 1);
      Thread forgetful =
          Thread.ofPlatform()
              .daemon()
              .start(
                  () ->
                      first
                          .grid()
                          .read(
                              "a test",
                              ignite -> {
                                // A transaction would be rolled back for it by the engine.
                                ignite.<Integer, Integer>cache("test").lock(1).lock();
                                return true;
                              }));
      forgetful.join();
      // Joining changes the topology, which waits for that lock.
      var third = grids.add();
      TestNodes.await("the third in the grid", Duration.ofSeconds(60), third.grid()::hasMajority);
      for (var member : List.of(first, second, third)) {
        TestNodes.await("a majority", Duration.ofSeconds(30), member.grid()::hasMajority);
        assertThat(get(member.grid(), 1)).isEqualTo(1);
      }
    }
  }

  @Test
  @Timeout(180)
  void whatWasOnNodesThatWentTogetherIsThereAgainWhenTheyAreBack() throws Exception {
    try (TestGrids grids = new TestGrids(folder)) {
      var all = grids.add(5);
      Grid first = all.getFirst().grid();
      // Two copies, and two nodes: some entries have none left. Three are still a majority.
      putInTwoCopies(first);
      TestNodes.await(
          "all five in the view",
          Duration.ofSeconds(30),
          () -> all.stream().allMatch(m -> members(m).view().size() == 5));
      var gone = all.subList(3, 5);
      List<Thread> stops =
          gone.stream().map(m -> Thread.ofPlatform().daemon().start(() -> grids.stop(m))).toList();
      for (Thread stop : stops) {
        stop.join();
      }
      TestNodes.await(
          "lost partitions",
          Duration.ofSeconds(30),
          () -> holds(first, ignite -> !EngineState.lost(ignite).isEmpty()));
      assertThatThrownBy(() -> held(first)).isInstanceOf(FlotillaException.class);
      gone.forEach(grids::restart);
      TestNodes.await(
          "all partitions",
          Duration.ofSeconds(30),
          () -> holds(first, ignite -> EngineState.lost(ignite).isEmpty()));
      for (var member : grids.running()) {
        TestNodes.await("a majority", Duration.ofSeconds(30), member.grid()::hasMajority);
        assertThat(held(member.grid())).isEqualTo(ENTRIES);
      }
      put(first, 1, 7);
      assertThat(get(grids.running().getLast().grid(), 1)).isEqualTo(7);
    }
  }

  /**
   * The fifth has the last copy of some entries, and goes. It is back before the fourth, which has
   * nothing of them that counts, but is told by the engine how far the fifth got. The third is away
   * meanwhile, so that the lost partitions are not taken into use before. And in a group of caches
   * the engine compares copies only if it is made to.
   */
  @Test
  @Timeout(180)
  void anEmptyCopyOfALostPartitionDoesNotCount() throws Exception {
    try (TestGrids grids = new TestGrids(folder)) {
      var all = grids.add(5);
      Grid first = all.getFirst().grid();
      putInTwoCopies(first);
      TestNodes.await(
          "all five in the view",
          Duration.ofSeconds(30),
          () -> all.stream().allMatch(m -> members(m).view().size() == 5));
      grids.stop(all.get(3));
      TestNodes.await(
          "a view and keepers without the fourth",
          Duration.ofSeconds(30),
          () ->
              members(all.getFirst()).view().size() == 4
                  && members(all.getFirst()).keepers().size() == 4);
      grids.stop(all.get(4));
      TestNodes.await(
          "lost partitions",
          Duration.ofSeconds(30),
          () -> holds(first, ignite -> !EngineState.lost(ignite).isEmpty()));
      grids.stop(all.get(2));
      List<Thread> starts = new ArrayList<>();
      for (int back : new int[] {4, 3, 2}) {
        starts.add(Thread.ofPlatform().daemon().start(() -> grids.restart(all.get(back))));
        TestNodes.await(
            all.get(back).config().name() + " to be there",
            Duration.ofSeconds(60),
            () -> holds(first, ignite -> Grid.visible(ignite).contains(all.get(back).id())));
      }
      for (Thread start : starts) {
        start.join();
      }
      TestNodes.await(
          "all partitions",
          Duration.ofSeconds(30),
          () -> holds(first, ignite -> EngineState.lost(ignite).isEmpty()));
      awaitMajority(grids.running());
      for (var member : grids.running()) {
        assertThat(held(member.grid())).isEqualTo(ENTRIES);
      }
    }
  }

  /** Also of an engine that starts again meanwhile, as one that has lost its majority may. */
  private static boolean holds(Grid grid, Predicate<Ignite> condition) {
    try {
      return grid.readAny("a test", condition::test).value();
    } catch (FlotillaException notUp) {
      return false;
    }
  }

  private static void awaitMajority(List<TestGrids.Member> members) {
    for (var member : members) {
      TestNodes.await("a majority", Duration.ofSeconds(30), member.grid()::hasMajority);
    }
  }

  private static void putInTwoCopies(Grid grid) {
    grid.write(
        "a test",
        ignite ->
            ignite
                .getOrCreateCache(
                    grid.<Integer, Integer>cacheConfig("test").setBackups(1).setGroupName("tests"))
                .getName());
    for (int i = 0; i < ENTRIES; i++) {
      put(grid, i, i);
    }
  }

  private static GridMembers.Members members(TestGrids.Member member) {
    return new GridMembers(member.cluster()).current();
  }

  /** How many entries hold what was put. */
  private static int held(Grid grid) {
    int held = 0;
    for (int i = 0; i < ENTRIES; i++) {
      Integer value = get(grid, i);
      held += value != null && value == i ? 1 : 0;
    }
    return held;
  }

  private static final CountDownLatch NEVER = new CountDownLatch(1);
  private static final CountDownLatch INSIDE = new CountDownLatch(1);

  /** As one that waits for the roll-back of what a cut has broken, and that never ends. */
  @Test
  @Timeout(60)
  void whoWaitsInAnEngineForWhatNeverComesDoesNotKeepItFromStopping() throws Exception {
    try (TestGrids grids = new TestGrids(folder)) {
      var only = grids.add();
      put(only.grid(), 1, 1);
      AtomicReference<Throwable> end = new AtomicReference<>();
      AtomicBoolean leftInterrupted = new AtomicBoolean();
      Thread waiting =
          Thread.ofVirtual()
              .start(
                  () -> {
                    try {
                      only.grid()
                          .transact("a test", Grid.TransactionMode.PESSIMISTIC, GridTest::stay);
                    } catch (FlotillaException e) {
                      end.set(e);
                    }
                    leftInterrupted.set(Thread.currentThread().isInterrupted());
                  });
      INSIDE.await();
      Thread stopping = Thread.ofPlatform().daemon().start(() -> grids.stop(only));
      try {
        assertThat(stopping.join(Duration.ofSeconds(30))).isTrue();
      } finally {
        NEVER.countDown();
      }
      waiting.join();
      assertThat(end.get())
          .isInstanceOfSatisfying(
              FlotillaException.class, e -> assertThat(e.code()).isEqualTo(Code.OUTCOME_UNKNOWN));
      assertThat(leftInterrupted).isFalse();
      grids.restart(only);
      Grid again = grids.running().getFirst().grid();
      TestNodes.await("the grid again", Duration.ofSeconds(30), again::hasMajority);
      assertThat(get(again, 1)).isEqualTo(1);
    }
  }

  private static Integer stay(Ignite ignite) {
    return ignite
        .<Integer, Integer>cache("test")
        .invoke(
            1,
            (entry, arguments) -> {
              INSIDE.countDown();
              try {
                NEVER.await();
              } catch (InterruptedException e) {
                throw new EntryProcessorException(e);
              }
              entry.setValue(2);
              return 2;
            });
  }

  /** As after a cut that lasted longer than the engine's patience. */
  @Test
  @Timeout(120)
  void anEngineThatGaveItsTopologyUpStartsAgain() {
    try (TestGrids grids = new TestGrids(folder)) {
      var only = grids.add();
      put(only.grid(), 1, 1);
      List<Ignite> before = new ArrayList<>();
      var _ =
          only.grid()
              .readAny(
                  "a test",
                  ignite -> {
                    before.add(ignite);
                    var node = ignite.cluster().localNode();
                    ((IgniteEx) ignite)
                        .context()
                        .event()
                        .record(
                            new DiscoveryEvent(
                                node, "cut off", EventType.EVT_NODE_SEGMENTED, node));
                    return true;
                  });
      TestNodes.await(
          "another engine",
          Duration.ofSeconds(60),
          () -> {
            try {
              return only.grid().hasMajority()
                  && !only.grid().read("a test", ignite -> ignite).equals(before.getFirst());
            } catch (FlotillaException notYet) {
              return false;
            }
          });
      assertThat(get(only.grid(), 1)).isEqualTo(1);
      put(only.grid(), 1, 2);
      // One that was given up would let nobody join.
      var second = grids.add();
      TestNodes.await("the second in the grid", Duration.ofSeconds(60), second.grid()::hasMajority);
      assertThat(get(second.grid(), 1)).isEqualTo(2);
    }
  }

  private static boolean whole(Grid grid) {
    return grid.read(
        "a test",
        ignite ->
            ignite.cache("test").localSizeLong(org.apache.ignite.cache.CachePeekMode.ALL) == 100);
  }

  @Test
  void transactionsOverSeveralPartitionsFromAllNodesAtOnceLoseNoUpdate() throws Exception {
    int counters = 6;
    int each = 40;
    long seed = System.nanoTime();
    try (TestGrids grids = new TestGrids(folder)) {
      var members = grids.add(3);
      for (int key = 0; key < counters; key++) {
        put(members.getFirst().grid(), key, 0);
      }
      AtomicInteger committed = new AtomicInteger();
      List<Thread> threads = new ArrayList<>();
      for (int t = 0; t < 6; t++) {
        Random random = new Random(seed + t);
        Grid grid = members.get(t % 3).grid();
        threads.add(
            Thread.ofPlatform()
                .start(
                    () -> {
                      for (int i = 0; i < each; i++) {
                        TreeSet<Integer> keys = new TreeSet<>();
                        while (keys.size() < 3) {
                          keys.add(random.nextInt(counters));
                        }
                        if (addOne(grid, keys)) {
                          committed.incrementAndGet();
                        }
                      }
                    }));
      }
      for (Thread thread : threads) {
        thread.join();
      }
      int sum = 0;
      for (int key = 0; key < counters; key++) {
        sum += get(members.getLast().grid(), key);
      }
      assertThat(committed.get()).as("seed %d", seed).isPositive();
      assertThat(sum).as("seed %d", seed).isEqualTo(3 * committed.get());
    }
  }

  private static boolean addOne(Grid grid, Set<Integer> keys) {
    try {
      return grid.transact(
          "a test",
          Grid.TransactionMode.PESSIMISTIC,
          ignite -> {
            var cache = ignite.<Integer, Integer>cache("test");
            for (int key : keys) {
              cache.put(key, cache.get(key) + 1);
            }
            return true;
          });
    } catch (FlotillaException e) {
      assertThat(e.code()).isIn(Code.BUSY, Code.CONFLICT);
      return false;
    }
  }

  @Test
  void aCacheIsMadeBeforeATransactionAndRefusedInsideOfIt() {
    try (TestGrids grids = new TestGrids(folder)) {
      Grid grid = grids.add().grid();
      put(grid, 1, 1);
      assertThatThrownBy(() -> putTwice(grid, 2))
          .isInstanceOfSatisfying(
              FlotillaException.class,
              e -> {
                assertThat(e.code()).isEqualTo(Code.INVALID);
                assertThat(e).hasMessageContaining("late does not exist");
              });
      assertThat(get(grid, 1)).isEqualTo(1);
      grid.ensureCache("late");
      putTwice(grid, 3);
      assertThat(get(grid, 1)).isEqualTo(3);
    }
  }

  private static void putTwice(Grid grid, int value) {
    grid.transact(
        "a test",
        Grid.TransactionMode.PESSIMISTIC,
        ignite -> {
          ignite.<Integer, Integer>cache("test").put(1, value);
          grid.ensureCache("late");
          grid.<Integer, Integer>cache(ignite, "late").put(1, value);
          return true;
        });
  }

  @Test
  void sqlWorksAndSurvivesARestart() {
    try (TestGrids grids = new TestGrids(folder)) {
      var node = grids.add();
      sql(node.grid(), "CREATE TABLE t (id INT PRIMARY KEY, name VARCHAR) WITH \"backups=2\"");
      sql(node.grid(), "INSERT INTO t VALUES (1, 'one')");
      grids.stop(node);
      node = grids.restart(node);
      assertThat(sql(node.grid(), "SELECT name FROM t")).isEqualTo("[[one]]");
    }
  }

  private static String sql(Grid grid, String statement) {
    return grid.write(
        "a test",
        ignite ->
            ((org.apache.ignite.internal.IgniteEx) ignite)
                .context()
                .query()
                .querySqlFields(new SqlFieldsQuery(statement).setSchema("PUBLIC"), true)
                .getAll()
                .toString());
  }
}

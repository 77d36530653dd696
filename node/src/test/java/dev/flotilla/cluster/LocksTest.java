package dev.flotilla.cluster;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.cluster.Locks.Grant;
import dev.flotilla.cluster.Locks.Mode;
import dev.flotilla.cluster.Locks.Request;
import io.micrometer.core.instrument.simple.SimpleMeterRegistry;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.MethodOrderer;
import org.junit.jupiter.api.Order;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestMethodOrder;
import org.junit.jupiter.api.io.TempDir;

/** Locks over three real nodes; the last tests stop nodes. */
@TestMethodOrder(MethodOrderer.OrderAnnotation.class)
class LocksTest {

  private static TestNodes nodes;
  private static final List<ClusterNode> cluster = new ArrayList<>();
  private static final Map<ClusterNode, Locks> locks = new HashMap<>();

  @BeforeAll
  static void start(@TempDir Path folder) {
    // What nobody answers is given up after 3 s: the last test waits for it.
    nodes = new TestNodes(folder, new RaftRegistry.Tuning(4096, 8 << 20, 3_000));
    ClusterConfig first = nodes.config("node-1");
    add(nodes.create(first));
    for (int i = 2; i <= 3; i++) {
      add(nodes.join(nodes.config("node-" + i), first, cluster.getFirst().invite()));
    }
  }

  private static void add(ClusterNode node) {
    locks.put(node, Locks.embedded(node, System::nanoTime, new SimpleMeterRegistry()));
    node.start();
    cluster.add(node);
  }

  @AfterAll
  static void stop() {
    nodes.close();
  }

  private static Locks on(int node) {
    return locks.get(cluster.get(node));
  }

  private static ClusterNode leader() {
    TestNodes.await(
        "a leader",
        Duration.ofSeconds(10),
        () -> nodes.running().stream().anyMatch(node -> node.raft().leads()));
    return nodes.running().stream().filter(node -> node.raft().leads()).findFirst().orElseThrow();
  }

  @Test
  @Order(1)
  void isHeldByOneAndSeenFromEveryNode() {
    Grant grant = on(0).acquire(Request.exclusive("one", "A")).orElseThrow();
    assertThat(on(1).acquire(Request.exclusive("one", "B"))).isEmpty();
    assertThat(on(2).acquire(Request.exclusive("one", "B").await(Duration.ofMillis(100))))
        .isEmpty();
    assertThat(on(1).list()).extracting(Locks.View::name).contains("one");
    assertThat(on(1).show("one").holders())
        .singleElement()
        .satisfies(holder -> assertThat(holder.holder()).isEqualTo("A"))
        .satisfies(holder -> assertThat(holder.token()).isEqualTo(grant.token()));
    assertThat(on(1).release(new Grant("one", "B", "", grant.token(), 1))).isFalse();
    // Released from another node, by token alone.
    assertThat(on(1).release(new Grant("one", "A", "", grant.token(), 1))).isTrue();
    assertThat(on(0).renew(grant)).isEmpty();
    assertThat(on(2).acquire(Request.exclusive("one", "B")).orElseThrow().token())
        .isGreaterThan(grant.token());
  }

  @Test
  @Order(2)
  void fiftyWaitersOnThreeNodesTakeTurnsInOrderWithFewCommits() throws Exception {
    Lease first = on(0).lease(Request.exclusive("busy", "first")).orElseThrow();
    AtomicInteger inside = new AtomicInteger();
    ConcurrentLinkedQueue<Long> tokens = new ConcurrentLinkedQueue<>();
    try (var threads = Executors.newVirtualThreadPerTaskExecutor()) {
      List<Future<?>> all = new ArrayList<>();
      for (int i = 0; i < 50; i++) {
        Locks here = on(i % 3);
        String holder = "w" + i;
        all.add(
            threads.submit(
                () -> {
                  Request request = Request.exclusive("busy", holder).await(Duration.ofSeconds(30));
                  try (Lease lease = here.lease(request).orElseThrow()) {
                    assertThat(inside.incrementAndGet()).isEqualTo(1);
                    tokens.add(lease.fence().token());
                    assertThat(lease.held()).isTrue();
                    inside.decrementAndGet();
                  }
                  return null;
                }));
      }
      TestNodes.await(
          "all to wait", Duration.ofSeconds(10), () -> on(0).show("busy").waiting().size() == 50);
      List<String> order =
          on(0).show("busy").waiting().stream().map(Locks.Claimant::holder).toList();
      long before = leader().registry().revision();
      first.close();
      for (Future<?> one : all) {
        one.get();
      }
      long commits = leader().registry().revision() - before;
      System.out.println("50 hand-overs took " + commits + " commits");
      assertThat(order).hasSize(50);
      assertThat(List.copyOf(tokens)).hasSize(50).isSorted().doesNotHaveDuplicates();
      // One per hand-over; Raft's own entries (such as of its commit index) count, too.
      assertThat(commits).isLessThanOrEqualTo(2 * 51 + 20);
    }
    assertThat(on(0).show("busy").holders()).isEmpty();
  }

  @Test
  @Order(3)
  void aDeadHolderAndADeadWaiterMakeWayWhenTheirLeasesRunOut() {
    Grant dead = on(0).acquire(Request.exclusive("dead", "A").ttl(Duration.ofMillis(400))).get();
    // A waiter whose client never asks again.
    assertThat(
            on(1)
                .acquire(
                    Request.exclusive("dead", "B")
                        .ttl(Duration.ofMillis(400))
                        .keepingItsPlace(true)))
        .isEmpty();
    long start = System.nanoTime();
    Grant next =
        on(2).acquire(Request.exclusive("dead", "C").await(Duration.ofSeconds(10))).orElseThrow();
    assertThat(System.nanoTime() - start).isGreaterThan(Duration.ofMillis(200).toNanos());
    assertThat(next.token()).isGreaterThan(dead.token());
    assertThat(on(0).renew(dead)).isEmpty();
    assertThat(on(0).show("dead").waiting()).isEmpty();
  }

  @Test
  @Order(4)
  void aLeaseOutlivesItsTimeByRenewalAndSaysWhenItIsLost() throws Exception {
    Lease lease =
        on(1).lease(Request.exclusive("kept", "A").ttl(Duration.ofMillis(300))).orElseThrow();
    Thread.sleep(1200);
    assertThat(lease.held()).isTrue();
    assertThat(on(0).acquire(Request.exclusive("kept", "B"))).isEmpty();
    // Taken away behind its back.
    assertThat(on(0).release(lease.grant())).isTrue();
    CountDownLatch told = new CountDownLatch(1);
    lease.lost().thenRun(told::countDown);
    assertThat(told.await(5, java.util.concurrent.TimeUnit.SECONDS)).isTrue();
    assertThat(lease.held()).isFalse();
    lease.close();
  }

  @Test
  @Order(5)
  void readersShareAndASemaphoreCounts() {
    Grant reader = on(0).acquire(Request.shared("rw", "R1")).orElseThrow();
    assertThat(on(1).acquire(Request.shared("rw", "R2"))).isPresent();
    assertThat(on(2).acquire(Request.exclusive("rw", "W"))).isEmpty();
    assertThatThrownBy(() -> on(0).acquire(Request.exclusive("rw", "R1")))
        .isInstanceOf(FlotillaException.class)
        .hasMessageContaining("cannot become");
    assertThat(on(0).release(reader)).isTrue();
    for (int i = 0; i < 3; i++) {
      assertThat(on(i).acquire(Request.permit("sem", "P" + i, 3))).isPresent();
    }
    assertThat(on(0).acquire(Request.permit("sem", "P9", 3))).isEmpty();
    assertThat(on(0).show("sem").holders())
        .extracting(Locks.Claimant::mode)
        .containsOnly(Mode.PERMIT);
  }

  @Test
  @Order(6)
  void aWaiterThatAsksAgainWithItsClaimKeepsItsPlace() {
    Grant held = on(0).acquire(Request.exclusive("place", "A")).orElseThrow();
    Request poll =
        Request.exclusive("place", "B").await(Duration.ofMillis(50)).keepingItsPlace(true);
    assertThat(on(1).acquire(poll)).isEmpty();
    assertThat(on(2).acquire(Request.exclusive("place", "C").keepingItsPlace(true))).isEmpty();
    assertThat(on(1).acquire(poll)).isEmpty();
    assertThat(on(0).show("place").waiting())
        .extracting(Locks.Claimant::holder)
        .containsExactly("B", "C");
    on(0).release(held);
    Grant given = on(1).acquire(poll).orElseThrow();
    // The answer may be lost on its way: asking again gives the same.
    assertThat(on(1).acquire(poll)).contains(given);
  }

  @Test
  @Order(7)
  void whatTheRegistryHoldsTakesOnlyTheTokenOfAPresentHolder() {
    Registry registry = cluster.get(1).registry();
    Registry.Key key = new Registry.Key("test", "guarded");
    Grant old =
        on(0).acquire(Request.exclusive("guard", "A").ttl(Duration.ofMillis(300))).orElseThrow();
    Fence stale = new Fence("guard", old.token());
    assertThat(write(registry, key, stale, "A")).isPresent();
    TestNodes.await(
        "the expiry",
        Duration.ofSeconds(10),
        () -> registry.get(RegistryLocks.key("guard")).isEmpty());
    // Paused past its lease, and nobody has written since.
    int refused = 0;
    for (int i = 0; i < 100_000; i++) {
      try {
        write(registry, key, stale, "stale");
      } catch (FlotillaException e) {
        assertThat(e.code()).isEqualTo(Code.CONFLICT);
        refused++;
      }
    }
    assertThat(refused).isEqualTo(100_000);
    Grant now = on(2).acquire(Request.exclusive("guard", "B")).orElseThrow();
    assertThat(write(registry, key, new Fence("guard", now.token()), "B")).isPresent();
    assertThatThrownBy(() -> write(registry, key, stale, "stale"))
        .hasMessageContaining("stale token");
    assertThatThrownBy(() -> write(registry, key, new Fence("guard", 1L << 40), "made up"))
        .hasMessageContaining("stale token");
    assertThat(TestNodes.value(cluster.get(1), key)).isEqualTo("B");
  }

  @Test
  @Order(8)
  void thePlantedFaultLetsAStaleWriterThrough() {
    Registry registry = cluster.get(1).registry();
    Registry.Key key = new Registry.Key("test", "planted");
    Grant old = on(0).acquire(Request.exclusive("planted", "A")).orElseThrow();
    on(0).release(old);
    System.setProperty(Fencing.SKIP, "true");
    try {
      assertThat(write(registry, key, new Fence("planted", old.token()), "stale")).isPresent();
      assertThat(TestNodes.value(cluster.get(1), key)).isEqualTo("stale");
    } finally {
      System.clearProperty(Fencing.SKIP);
    }
  }

  private static Optional<Long> write(
      Registry registry, Registry.Key key, Fence fence, String value) {
    return Fencing.commit(
        registry,
        "the test's entry",
        Optional.of(fence),
        List.of(),
        List.of(new Registry.Write(key, Optional.of(value.getBytes(StandardCharsets.UTF_8)))));
  }

  @Test
  @Order(9)
  void malformedRequestsAreRefused() {
    assertThatThrownBy(() -> Request.exclusive("../x", "A"))
        .hasMessageContaining("a lock cannot be called '../x'");
    assertThatThrownBy(() -> Request.exclusive("x", "")).hasMessageContaining("holder");
    assertThatThrownBy(() -> Request.exclusive("x", "A").ttl(Duration.ofMillis(1)))
        .hasMessageContaining("out of range");
    assertThatThrownBy(() -> Request.permit("x", "A", 0)).hasMessageContaining("permits");
    on(0).acquire(Request.permit("sem-2", "A", 2));
    assertThatThrownBy(() -> on(1).acquire(Request.permit("sem-2", "A", 3)))
        .hasMessageContaining("semaphore of 2 permits");
  }

  @Test
  @Order(10)
  void whenTheElectedNodeDiesTheNextOneLeadsAndLeasesOutliveALeaderOfRaft() throws Exception {
    ClusterNode dying = leader();
    List<ClusterNode> staying = cluster.stream().filter(node -> node != dying).toList();
    Lease kept =
        locks
            .get(staying.getFirst())
            .lease(Request.exclusive("outlives", "A").ttl(Duration.ofSeconds(3)))
            .orElseThrow();
    ConcurrentLinkedQueue<Long> leads = new ConcurrentLinkedQueue<>();
    LeaderElection.Candidate duties =
        lease -> {
          leads.add(lease.fence().token());
          Thread.sleep(60_000);
        };
    Duration lease = Duration.ofSeconds(2);
    LeaderElection first = locks.get(dying).elect("boss", "dying", lease, duties);
    TestNodes.await("a first leader", Duration.ofSeconds(5), () -> leads.size() == 1);
    LeaderElection second = locks.get(staying.getFirst()).elect("boss", "staying", lease, duties);
    TestNodes.await(
        "a second candidate",
        Duration.ofSeconds(5),
        () -> !locks.get(dying).show("boss").waiting().isEmpty());
    dying.kill();
    TestNodes.await("a next leader", Duration.ofSeconds(40), () -> leads.size() == 2);
    assertThat(List.copyOf(leads)).isSorted();
    assertThat(kept.held()).isTrue();
    assertThat(locks.get(staying.getLast()).acquire(Request.exclusive("outlives", "B"))).isEmpty();
    second.close();
    assertThat(locks.get(staying.getFirst()).show("boss").holders()).isEmpty();
    first.close();
    kept.close();
  }

  @Test
  @Order(11)
  void aMinorityGivesNothing() {
    List<ClusterNode> left = nodes.running();
    left.getFirst().kill();
    assertThatThrownBy(() -> locks.get(left.getLast()).acquire(Request.exclusive("minority", "A")))
        .isInstanceOfSatisfying(
            FlotillaException.class,
            e -> assertThat(e.code()).isIn(Code.NO_MAJORITY, Code.OUTCOME_UNKNOWN));
  }
}

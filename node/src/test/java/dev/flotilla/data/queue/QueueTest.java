package dev.flotilla.data.queue;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.cluster.Fence;
import dev.flotilla.cluster.TestNodes;
import dev.flotilla.data.grid.Fences;
import dev.flotilla.data.grid.Grid;
import dev.flotilla.data.grid.TestGrids;
import dev.flotilla.data.queue.Queue.Message;
import dev.flotilla.data.queue.Queue.Outgoing;
import io.micrometer.core.instrument.Measurement;
import io.micrometer.core.instrument.MeterRegistry;
import io.micrometer.core.instrument.simple.SimpleMeterRegistry;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Flow;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.MethodOrderer;
import org.junit.jupiter.api.Order;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestMethodOrder;
import org.junit.jupiter.api.io.TempDir;

/** Queues on three real nodes in this process; the last test loses one of them. */
@TestMethodOrder(MethodOrderer.OrderAnnotation.class)
class QueueTest {

  private static final Duration VISIBLE = Duration.ofSeconds(30);
  private static final Duration NOW = Duration.ZERO;
  private static final int HELD = 100;

  @TempDir static Path folder;
  private static TestGrids grids;
  private static final List<GridQueues> queues = new ArrayList<>();
  private static final List<MeterRegistry> metrics = new ArrayList<>();
  private static final AtomicLong aheadMs = new AtomicLong();

  @BeforeAll
  static void start() {
    InstantSource clock = () -> Instant.ofEpochMilli(System.currentTimeMillis() + aheadMs.get());
    grids =
        new TestGrids(
            folder,
            (cluster, grid, data) ->
                queues.add(
                    new GridQueues(
                        cluster, grid, new Fences(grid), clock, new Random(), registry())));
    grids.add(3);
    queues.forEach(GridQueues::start);
  }

  private static MeterRegistry registry() {
    MeterRegistry registry = new SimpleMeterRegistry();
    metrics.add(registry);
    return registry;
  }

  private static double sum(String meter, String queue) {
    return metrics.stream()
        .flatMap(registry -> registry.find(meter).tag("queue", queue).meters().stream())
        .flatMap(each -> StreamSupport.stream(each.measure().spliterator(), false))
        .mapToDouble(Measurement::getValue)
        .sum();
  }

  @AfterAll
  static void stop() {
    queues.forEach(GridQueues::close);
    grids.close();
  }

  private static Queue queue(int node, String name) {
    return queues.get(node).queue(name);
  }

  private static Outgoing message(String key, String body) {
    return Outgoing.of(key, body.getBytes(StandardCharsets.UTF_8));
  }

  private static String body(Message message) {
    return new String(message.body(), StandardCharsets.UTF_8);
  }

  private static List<Message> receive(Queue queue, int max) throws InterruptedException {
    return queue.receive(Queue.DEFAULT_GROUP, "test", max, VISIBLE, NOW);
  }

  private static void acknowledge(Queue queue, Message message) {
    queue.acknowledge(List.of(message.receipt()), Optional.empty());
  }

  @Test
  @Order(1)
  void messagesOfOneKeyComeOneAfterTheOther() throws Exception {
    Queue sender = queue(0, "ordered");
    for (int i = 0; i < 5; i++) {
      sender.send(message("k", "" + i));
    }
    Queue consumer = queue(1, "ordered");
    for (int i = 0; i < 5; i++) {
      List<Message> messages = receive(consumer, 10);
      assertThat(messages).extracting(QueueTest::body).containsExactly("" + i);
      assertThat(receive(queue(2, "ordered"), 10)).isEmpty();
      acknowledge(consumer, messages.getFirst());
    }
    assertThat(sender.stats().groups().getFirst().depth()).isZero();
  }

  /** A node that went on with the old number of partitions would send where nobody looks. */
  @Test
  @Order(1)
  void oneThatWasDeletedAndMadeOtherwiseIsTheNewOneOnAllNodes() {
    queues.get(0).create("anew", new QueueConfig(8, 1_000, 5, 0, 10_000));
    queue(1, "anew").send(message("k", "old"));
    queues.get(0).delete("anew");
    queues.get(0).create("anew", new QueueConfig(2, 1_000, 5, 0, 10_000));
    for (int i = 0; i < 20; i++) {
      assertThat(queue(1, "anew").send(message("k" + i, "new"))).matches("[01]-\\d+");
    }
    assertThat(queue(2, "anew").stats().sent()).isEqualTo(20);
  }

  /** Between its end in the catalog and its end in the engine another can make it. */
  @Test
  @Order(1)
  void whatIsSentToAQueueWhileOneOfItsNameIsStillBeingDeletedIsKept() throws Exception {
    for (int round = 0; round < 5; round++) {
      queues.get(0).create("reborn", new QueueConfig(4, 1_000, 5, 0, 10_000));
      Queue held = queue(2, "reborn");
      held.send(message("k", "old"));
      QueueConfig other = new QueueConfig(2, 1_000, 5, 0, 10_000);
      Thread deleter = Thread.ofPlatform().start(() -> queues.get(0).delete("reborn"));
      Queue reborn = null;
      while (reborn == null) {
        try {
          reborn = queues.get(1).create("reborn", other);
        } catch (FlotillaException e) {
          assertThat(e.code()).isEqualTo(Code.CONFLICT);
        }
      }
      reborn.send(message("k", "new"));
      deleter.join();
      assertThat(receive(queue(2, "reborn"), 10))
          .extracting(QueueTest::body)
          .containsExactly("new");
      // Who holds the old one is told, and reaches the new one by its name.
      assertThatThrownBy(() -> held.send(message("k", "lost")))
          .hasMessageContaining("queue reborn was deleted");
      assertThatThrownBy(() -> receive(held, 1)).hasMessageContaining("queue reborn was deleted");
      assertThat(queue(2, "reborn").stats().sent()).isOne();
      queues.get(2).delete("reborn");
    }
  }

  @Test
  @Order(1)
  void aDeletedQueueLeavesNoMetricAndNoFolder() {
    queue(0, "passing").send(message("k", "m"));
    assertThat(sum("flotilla_queue_sent", "passing")).isOne();
    queues.get(1).delete("passing");
    TestNodes.await(
        "nothing is left",
        Duration.ofSeconds(60),
        () -> metersOf("passing") == 0 && foldersOf("passing") == 0);
  }

  private static long metersOf(String queue) {
    return metrics.stream()
        .flatMap(registry -> registry.getMeters().stream())
        .filter(meter -> queue.equals(meter.getId().getTag("queue")))
        .count();
  }

  private static long foldersOf(String queue) {
    try (Stream<Path> all = Files.walk(folder)) {
      return all.filter(path -> path.getFileName().toString().contains("queue." + queue)).count();
    } catch (IOException | UncheckedIOException e) {
      return -1; // The engine works there.
    }
  }

  /** Its node was lost while it made the queue, or deleted it. */
  @Test
  @Order(1)
  void whatIsLeftOfAQueueThatWasNotQuiteMadeIsDestroyed() {
    var grid = grids.running().getFirst().grid();
    grid.write(
        "a test",
        ignite -> {
          ignite.getOrCreateCache(grid.cacheConfig("flotilla.queue.half.x"));
          ignite
              .<String, byte[]>cache("flotilla.queues")
              .put("\nflotilla.queue.half.x", Json.write(System.currentTimeMillis() - 100_000));
          return true;
        });
    assertThat(queues.getFirst().names()).doesNotContain("\nflotilla.queue.half.x");
    TestNodes.await(
        "it is gone", Duration.ofSeconds(60), () -> !grid.hasCache("flotilla.queue.half.x"));
  }

  @Test
  @Order(2)
  void eachGroupGetsAllAndEachConsumerOfOneGetsItsShare() throws Exception {
    Queue queue = queue(0, "groups");
    assertThat(queue.receive("second", "c", 1, VISIBLE, NOW)).isEmpty();
    Set<String> sent = new HashSet<>();
    List<Outgoing> batch = new ArrayList<>();
    for (int i = 0; i < 40; i++) {
      batch.add(message("", "m" + i));
      sent.add("m" + i);
    }
    assertThat(queue.send(batch, Optional.empty())).hasSize(40).doesNotHaveDuplicates();
    List<String> one = receive(queue(1, "groups"), 15).stream().map(QueueTest::body).toList();
    List<String> other = receive(queue(2, "groups"), 100).stream().map(QueueTest::body).toList();
    assertThat(one).hasSize(15).doesNotContainAnyElementsOf(other);
    Set<String> both = new HashSet<>(one);
    both.addAll(other);
    assertThat(both).isEqualTo(sent);
    List<Message> second = queue.receive("second", "c", 100, VISIBLE, NOW);
    // Partitions in which the group had not begun before hand out nothing of the past.
    assertThat(second.size()).isPositive();
    queue.replay("second", 0);
    assertThat(queue.receive("second", "c", 100, VISIBLE, NOW)).hasSize(40);
  }

  @Test
  @Order(3)
  void whatIsNotAcknowledgedComesAgainAndTheOldReceiptIsWorthNothing() throws Exception {
    Queue queue = queue(0, "again");
    queue.send(message("k", "one"));
    Message first =
        queue.receive(Queue.DEFAULT_GROUP, "a", 1, Duration.ofMillis(150), NOW).getFirst();
    List<Message> again =
        queue(1, "again").receive(Queue.DEFAULT_GROUP, "b", 1, VISIBLE, Duration.ofSeconds(5));
    assertThat(again.getFirst().attempt()).isEqualTo(2);
    assertThatThrownBy(() -> acknowledge(queue, first))
        .isInstanceOfSatisfying(
            FlotillaException.class,
            e -> assertThat(e.code()).isEqualTo(FlotillaException.Code.CONFLICT));
    acknowledge(queue, again.getFirst());
    assertThatThrownBy(() -> acknowledge(queue, again.getFirst()))
        .hasMessageContaining("acknowledged since");
  }

  @Test
  @Order(4)
  void aClockThatRunsAheadMakesMessagesComeAgainAndNoEffectTwice() throws Exception {
    Queue queue = queue(0, "clock");
    queue.send(message("k", "one"));
    Message first = receive(queue, 1).getFirst();
    aheadMs.set(3_600_000);
    try {
      Message second = receive(queue, 1).getFirst();
      acknowledge(queue, second);
      assertThatThrownBy(() -> acknowledge(queue, first)).isInstanceOf(FlotillaException.class);
    } finally {
      aheadMs.set(0);
    }
  }

  @Test
  @Order(5)
  void anIdIsSentOnce() throws Exception {
    Queue queue = queue(0, "once");
    Outgoing message = new Outgoing("k", new byte[] {1}, Optional.of("id-1"), Duration.ZERO, 0);
    assertThat(queue(1, "once").send(message)).isEqualTo(queue.send(message));
    assertThat(receive(queue, 10)).hasSize(1);
  }

  @Test
  @Order(6)
  void delayAndPriorityDecideWhatComesFirst() throws Exception {
    Queue queue = queues.get(0).create("priority", new QueueConfig(1, 1_000, 5, 0, 10_000));
    queue.send(message("a", "low"));
    queue.send(
        new Outgoing(
            "b", "high".getBytes(StandardCharsets.UTF_8), Optional.empty(), Duration.ZERO, 9));
    queue.send(
        new Outgoing(
            "c",
            "late".getBytes(StandardCharsets.UTF_8),
            Optional.empty(),
            Duration.ofMillis(400),
            9));
    List<Message> messages = receive(queue, 10);
    assertThat(messages).extracting(QueueTest::body).containsExactly("high", "low");
    assertThat(queue.receive(Queue.DEFAULT_GROUP, "c", 1, VISIBLE, Duration.ofSeconds(5)))
        .extracting(QueueTest::body)
        .containsExactly("late");
  }

  /** Their partitions are handed out by all three nodes. */
  @Test
  @Order(6)
  void higherPrioritiesComeFirstOutOfAllPartitionsAndEachKeyStaysInOrder() throws Exception {
    queue(0, "urgent").send(message("first", "0 before there are priorities"));
    queues.forEach(each -> assertThat(each.queue("urgent").stats().sent()).isOne());
    assertThat(receive(queue(1, "urgent"), 10)).hasSize(1);
    long seed = System.nanoTime();
    Random random = new Random(seed);
    for (int i = 0; i < 40; i++) {
      int priority = random.nextInt(10);
      queue(i % 3, "urgent").send(urgent("key-" + i, priority + " " + i, priority));
    }
    queue(0, "urgent").send(urgent("key-same", "0 of one key", 0));
    queue(1, "urgent").send(urgent("key-same", "9 behind it", 9));
    List<String> bodies = new ArrayList<>();
    for (int i = 0; bodies.size() < 42; i++) {
      Queue consumer = queue(i % 3, "urgent");
      List<Message> messages = receive(consumer, 1 + i % 3);
      assertThat(messages).as("seed %s, after %s", seed, bodies).isNotEmpty();
      messages.forEach(each -> bodies.add(body(each)));
      messages.forEach(each -> acknowledge(consumer, each));
    }
    assertThat(bodies.indexOf("9 behind it")).isGreaterThan(bodies.indexOf("0 of one key"));
    bodies.remove("9 behind it");
    assertThat(bodies.stream().map(body -> body.charAt(0)).toList())
        .as("seed %s: %s", seed, bodies)
        .isSortedAccordingTo(Comparator.reverseOrder());
  }

  private static Outgoing urgent(String key, String body, int priority) {
    return new Outgoing(
        key, body.getBytes(StandardCharsets.UTF_8), Optional.empty(), Duration.ZERO, priority);
  }

  @Test
  @Order(7)
  void whatFailsTooOftenIsSetAsideAndCanBeSentAgain() throws Exception {
    Queue queue = queues.get(0).create("deadly", new QueueConfig(1, 1_000, 2, 0, 10_000));
    queue.send(message("k", "poison"));
    queue.send(message("k", "good"));
    for (int i = 0; i < 2; i++) {
      Message message = receive(queue, 1).getFirst();
      assertThat(body(message)).isEqualTo("poison");
      queue.giveBack(List.of(message.receipt()), Duration.ZERO);
    }
    assertThat(receive(queue, 1)).isEmpty();
    assertThat(queue.dead(10)).extracting(Queue.Dead::key).containsExactly("k");
    Message good = receive(queue, 1).getFirst();
    assertThat(body(good)).isEqualTo("good");
    acknowledge(queue, good);
    assertThat(queue.redrive(10)).isEqualTo(1);
    assertThat(queue.dead(10)).isEmpty();
    assertThat(body(receive(queue, 1).getFirst())).isEqualTo("poison");
  }

  @Test
  @Order(8)
  void aFullQueueRefusesAndSaysHowFullItIs() {
    Queue queue = queues.get(0).create("full", new QueueConfig(1, 10, 5, 0, 10_000));
    for (int i = 0; i < 10; i++) {
      queue.send(message("", "" + i));
    }
    assertThatThrownBy(() -> queue.send(message("", "one more")))
        .isInstanceOfSatisfying(
            FlotillaException.class,
            e -> assertThat(e.code()).isEqualTo(FlotillaException.Code.BUSY))
        .hasMessageContaining("10 messages");
  }

  @Test
  @Order(9)
  void aStaleTokenSendsNothing() throws Exception {
    Queue queue = queue(0, "guarded");
    List<Outgoing> one = List.of(message("k", "x"));
    queue.send(one, Optional.of(new Fence("lock", 7)));
    queue(1, "guarded").send(one, Optional.of(new Fence("lock", 9)));
    assertThatThrownBy(() -> queue.send(one, Optional.of(new Fence("lock", 8))))
        .isInstanceOfSatisfying(
            FlotillaException.class,
            e -> assertThat(e.code()).isEqualTo(FlotillaException.Code.CONFLICT));
    assertThat(queue.stats().sent()).isEqualTo(2);
  }

  @Test
  @Order(10)
  void aWaitingConsumerIsWokenByAMessageThroughAnotherNode() throws Exception {
    Queue queue = queue(0, "woken");
    receive(queue, 1);
    List<Long> waitedNs = new ArrayList<>();
    Thread consumer =
        Thread.ofVirtual()
            .start(
                () -> {
                  long begun = System.nanoTime();
                  try {
                    queue.receive(Queue.DEFAULT_GROUP, "c", 1, VISIBLE, Duration.ofSeconds(20));
                  } catch (InterruptedException e) {
                    return;
                  }
                  waitedNs.add(System.nanoTime() - begun);
                });
    Thread.sleep(300);
    queue(2, "woken").send(message("k", "x"));
    consumer.join();
    assertThat(waitedNs.getFirst()).isLessThan(10_000_000_000L);
  }

  @Test
  @Order(11)
  void aSubscriberGetsAsManyAsItAskedFor() throws Exception {
    Queue queue = queue(0, "flow");
    for (int i = 0; i < 10; i++) {
      queue.send(message("", "" + i));
    }
    ConcurrentLinkedQueue<String> seen = new ConcurrentLinkedQueue<>();
    CountDownLatch four = new CountDownLatch(4);
    AtomicBoolean failed = new AtomicBoolean();
    Flow.Subscription[] subscription = new Flow.Subscription[1];
    queue
        .publisher(Queue.DEFAULT_GROUP, "c", VISIBLE)
        .subscribe(
            new Flow.Subscriber<>() {
              @Override
              public void onSubscribe(Flow.Subscription its) {
                subscription[0] = its;
                its.request(4);
              }

              @Override
              public void onNext(Message message) {
                seen.add(body(message));
                four.countDown();
              }

              @Override
              public void onError(Throwable error) {
                failed.set(true);
              }

              @Override
              public void onComplete() {}
            });
    assertThat(four.await(20, TimeUnit.SECONDS)).isTrue();
    Thread.sleep(300);
    subscription[0].cancel();
    assertThat(seen).hasSize(4);
    assertThat(failed).isFalse();
  }

  @Test
  @Order(12)
  void badInputIsRefused() {
    Queue queue = queue(0, "bad");
    assertThatThrownBy(() -> queues.get(0).queue("../etc")).hasMessageContaining("called");
    assertThatThrownBy(() -> queue.send(Outgoing.of("k", new byte[Queue.BODY_BYTES_MAX + 1])))
        .hasMessageContaining("bytes");
    for (String receipt :
        List.of(
            "",
            "x",
            "default~0~0~1",
            "default~99~0~1~0~0",
            "default~0~-1~1~0~0",
            "default~0~5~1~0~0")) {
      assertThatThrownBy(() -> queue.acknowledge(List.of(receipt), Optional.empty()))
          .isInstanceOfSatisfying(
              FlotillaException.class,
              e -> assertThat(e.code()).isEqualTo(FlotillaException.Code.INVALID));
    }
  }

  /** Each call is one commit of several partitions, while the other nodes send to the same ones. */
  @Test
  @Order(12)
  void callsOfAllNodesThatTouchSeveralPartitionsAreAllThereAndHaveIdsOfTheirOwn() throws Exception {
    int calls = 15;
    int batch = 8;
    queue(0, "several").stats();
    List<Thread> threads = new ArrayList<>();
    ConcurrentLinkedQueue<Throwable> failures = new ConcurrentLinkedQueue<>();
    Map<String, String> sent = new ConcurrentHashMap<>();
    for (int node = 0; node < 3; node++) {
      Queue its = queue(node, "several");
      int number = node;
      threads.add(
          Thread.ofPlatform()
              .start(
                  () -> {
                    try {
                      for (int i = 0; i < calls; i++) {
                        List<Outgoing> all = new ArrayList<>();
                        for (int j = 0; j < batch; j++) {
                          all.add(message("k" + j, number + "-" + i + "-" + j));
                        }
                        List<String> ids = its.send(all, Optional.empty());
                        for (int j = 0; j < batch; j++) {
                          sent.put(ids.get(j), number + "-" + i + "-" + j);
                        }
                      }
                    } catch (RuntimeException e) {
                      failures.add(e);
                    }
                  }));
    }
    for (Thread thread : threads) {
      thread.join();
    }
    assertThat(failures).isEmpty();
    assertThat(sent).hasSize(3 * calls * batch);
    assertThat(queue(0, "several").stats().sent()).isEqualTo(3 * calls * batch);
    Map<String, String> received = new HashMap<>();
    Map<String, Integer> last = new HashMap<>();
    while (received.size() < sent.size()) {
      List<Message> some =
          queue(1, "several")
              .receive(Queue.DEFAULT_GROUP, "c", 100, VISIBLE, Duration.ofSeconds(10));
      assertThat(some).isNotEmpty();
      for (Message message : some) {
        assertThat(received.put(message.id(), body(message))).isNull();
        String[] parts = body(message).split("-");
        // Of each sender and key, in the order of its calls.
        assertThat(
                last.merge(
                    parts[0] + "-" + parts[2],
                    Integer.valueOf(parts[1]),
                    (a, b) -> b - a == 1 ? b : -1))
            .isEqualTo(Integer.valueOf(parts[1]));
      }
      queue(1, "several")
          .acknowledge(some.stream().map(Message::receipt).toList(), Optional.empty());
    }
    assertThat(received).isEqualTo(sent);
  }

  @Test
  @Order(13)
  void aCallOfTooManyBytesIsRefusedAndOneThatJustFitsIsReceivedWhole() throws Exception {
    Queue queue = queue(0, "large");
    List<Outgoing> fits =
        Collections.nCopies(
            Queue.SEND_BYTES_MAX / Queue.BODY_BYTES_MAX,
            Outgoing.of("", new byte[Queue.BODY_BYTES_MAX]));
    List<Outgoing> more = new ArrayList<>(fits);
    more.add(message("", "x"));
    assertThatThrownBy(() -> queue.send(more, Optional.empty()))
        .isInstanceOfSatisfying(
            FlotillaException.class,
            e -> assertThat(e.code()).isEqualTo(FlotillaException.Code.TOO_LARGE));
    queue.send(fits, Optional.empty());
    int received = 0;
    while (received < fits.size()) {
      List<Message> some = receive(queue(1, "large"), 100);
      assertThat(some).isNotEmpty();
      received += some.size();
    }
    assertThat(received).isEqualTo(fits.size());
  }

  @Test
  @Order(14)
  void allNodesSendAndReceiveAtOnceAndEachMessageComesOnceAndIsCounted() throws Exception {
    int each = 60;
    queue(0, "busy").stats();
    Set<String> seen = ConcurrentHashMap.newKeySet();
    AtomicInteger twice = new AtomicInteger();
    List<Thread> threads = new ArrayList<>();
    ConcurrentLinkedQueue<Throwable> failures = new ConcurrentLinkedQueue<>();
    long untilNs = System.nanoTime() + 25_000_000_000L;
    for (int node = 0; node < 3; node++) {
      Queue its = queue(node, "busy");
      int number = node;
      threads.add(
          Thread.ofPlatform()
              .start(
                  () -> {
                    try {
                      for (int i = 0; i < each; i += 4) {
                        List<Outgoing> batch = new ArrayList<>();
                        for (int j = i; j < i + 4; j++) {
                          batch.add(message(j % 3 == 0 ? "" : "k" + j, number + "-" + j));
                        }
                        its.send(batch, Optional.empty());
                      }
                    } catch (RuntimeException e) {
                      failures.add(e);
                    }
                  }));
      threads.add(
          Thread.ofPlatform()
              .start(
                  () -> {
                    try {
                      while (seen.size() < 3 * each && System.nanoTime() < untilNs) {
                        List<Message> some =
                            its.receive(
                                Queue.DEFAULT_GROUP, "c", 20, VISIBLE, Duration.ofMillis(200));
                        some.forEach(m -> twice.addAndGet(seen.add(body(m)) ? 0 : 1));
                        if (!some.isEmpty()) {
                          its.acknowledge(
                              some.stream().map(Message::receipt).toList(), Optional.empty());
                        }
                      }
                    } catch (InterruptedException | RuntimeException e) {
                      failures.add(e);
                    }
                  }));
    }
    for (Thread thread : threads) {
      thread.join();
    }
    assertThat(failures).isEmpty();
    assertThat(seen).hasSize(3 * each);
    assertThat(twice).hasValue(0);
    assertThat(sum("flotilla_queue_sent", "busy")).isEqualTo(3 * each);
    assertThat(sum("flotilla_queue_received", "busy")).isEqualTo(3 * each);
    assertThat(sum("flotilla_queue_acknowledged", "busy")).isEqualTo(3 * each);
    queue(0, "busy").send(message("", "left"));
    TestNodes.await(
        "the backlog's metric",
        Duration.ofSeconds(30),
        () -> sum("flotilla_queue_depth", "busy") == 1);
    assertThat(sum("flotilla_queue_oldest_seconds", "busy")).isPositive();
  }

  private static Map<String, Message> allInHand(Queue queue) throws InterruptedException {
    Map<String, Message> first = new HashMap<>();
    for (int i = 0; i < HELD; i++) {
      queue.send(message("k" + i, "" + i));
    }
    while (first.size() < HELD) {
      receive(queue, 100).forEach(m -> first.put(m.id(), m));
    }
    assertThat(queue.stats().groups().getFirst().inFlight()).isEqualTo(HELD);
    return first;
  }

  /** What the owner that is gone had in hand is handed out again, the rest stays in hand. */
  private static void onlyTheLostOnesComeAgain(Queue queue, Map<String, Message> first)
      throws InterruptedException {
    Map<String, Message> again = new HashMap<>();
    long untilNs = System.nanoTime() + 3_000_000_000L;
    while (System.nanoTime() < untilNs) {
      queue
          .receive(Queue.DEFAULT_GROUP, "c", 100, VISIBLE, Duration.ofMillis(500))
          .forEach(m -> assertThat(again.put(m.id(), m)).isNull());
    }
    assertThat(again.size()).isBetween(1, HELD - 1);
    for (Message message : first.values()) {
      if (again.containsKey(message.id())) {
        assertThatThrownBy(() -> acknowledge(queue, message))
            .isInstanceOfSatisfying(
                FlotillaException.class,
                e -> assertThat(e.code()).isEqualTo(FlotillaException.Code.CONFLICT));
        acknowledge(queue, again.get(message.id()));
      } else {
        acknowledge(queue, message);
      }
    }
    assertThat(queue.stats().groups().getFirst().depth()).isZero();
  }

  @Test
  @Order(15)
  void nothingAcknowledgedIsLostAndNothingTakesEffectTwiceWhenANodeGoes() throws Exception {
    Grid grid = grids.running().get(0).grid();
    grid.write(
        "making a table",
        ignite -> ignite.getOrCreateCache(grid.<String, String>cacheConfig("effects")));
    // So many partitions that each node has some, whatever the nodes' names.
    Queue held = queues.get(0).create("held", new QueueConfig(64, 1_000, 5, 3_600_000, 10_000));
    Map<String, Message> inHand = allInHand(held);
    assertThat(receive(queue(1, "held"), 100)).isEmpty();
    Queue made = queue(0, "total");
    made.stats();
    Set<String> acknowledged = ConcurrentHashMap.newKeySet();
    ConcurrentLinkedQueue<String> effects = new ConcurrentLinkedQueue<>();
    AtomicBoolean stop = new AtomicBoolean();
    List<Thread> threads = new ArrayList<>();
    for (int node : List.of(0, 1)) {
      threads.add(
          Thread.ofPlatform()
              .start(
                  () -> {
                    for (int i = 0; !stop.get(); i++) {
                      String body = node + "-" + i;
                      try {
                        queue(node, "total")
                            .send(
                                new Outgoing(
                                    "k" + i % 7,
                                    body.getBytes(StandardCharsets.UTF_8),
                                    Optional.of(body),
                                    Duration.ZERO,
                                    0));
                        acknowledged.add(body);
                      } catch (FlotillaException e) {
                        // Not acknowledged.
                      }
                    }
                  }));
    }
    TestNodes.await("messages", Duration.ofSeconds(20), () -> acknowledged.size() > 20);
    var lost = grids.running().get(2);
    queues.get(2).close();
    grids.stop(lost);
    int before = acknowledged.size();
    TestNodes.await(
        "messages without the third node",
        Duration.ofSeconds(30),
        () -> acknowledged.size() > before + 20);
    stop.set(true);
    for (Thread thread : threads) {
      thread.join();
    }
    TestNodes.await("a majority", Duration.ofSeconds(20), grid::hasMajority);
    long emptyUntilNs = System.nanoTime() + 2_000_000_000L;
    Set<String> counted = new HashSet<>();
    while (System.nanoTime() < emptyUntilNs) {
      for (Message message :
          queue(0, "total")
              .receive(
                  Queue.DEFAULT_GROUP, "c", 100, Duration.ofSeconds(1), Duration.ofMillis(100))) {
        try {
          grid.transact(
              "an effect",
              Grid.TransactionMode.PESSIMISTIC,
              ignite -> {
                queue(0, "total").acknowledge(List.of(message.receipt()), Optional.empty());
                ignite.<String, String>cache("effects").put(message.id(), body(message));
                return true;
              });
          effects.add(body(message));
          counted.add(body(message));
        } catch (FlotillaException e) {
          // Handed out again.
        }
        emptyUntilNs = System.nanoTime() + 2_000_000_000L;
      }
    }
    assertThat(counted).containsAll(acknowledged);
    assertThat(effects).doesNotHaveDuplicates();
    onlyTheLostOnesComeAgain(held, inHand);
  }
}

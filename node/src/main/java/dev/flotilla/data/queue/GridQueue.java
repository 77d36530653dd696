package dev.flotilla.data.queue;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.cluster.Fence;
import dev.flotilla.data.grid.Combiner;
import dev.flotilla.data.grid.Fences;
import dev.flotilla.data.grid.Grid;
import dev.flotilla.data.grid.TransactionScope;
import dev.flotilla.data.queue.QueueProgress.Trouble;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Collections;
import java.util.Comparator;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalLong;
import java.util.SortedMap;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLongArray;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Function;
import java.util.function.ToIntFunction;
import java.util.random.RandomGenerator;
import java.util.stream.IntStream;
import javax.cache.expiry.CreatedExpiryPolicy;
import org.apache.ignite.IgniteCache;
import org.apache.ignite.cache.affinity.AffinityKey;
import org.apache.ignite.transactions.TransactionConcurrency;
import org.apache.ignite.transactions.TransactionIsolation;
import org.jspecify.annotations.Nullable;

/**
 * A queue as entries of one cache of the grid ({@link QueueCells}).
 *
 * <p><b>Sending</b> appends a batch to each partition that it touches, in one transaction; who
 * sends through the same node to the same owner meanwhile shares the next one ({@link Combiner}).
 * <b>Receiving</b> asks the partitions' owners, who keep in memory what is handed out ({@link
 * QueueOwner}), and costs no write at the first attempt. <b>Acknowledging</b> changes the groups'
 * progress, in one transaction that is shared too. From the first message with a priority on, who
 * receives asks all owners for the best that they have first. So a message by itself costs two
 * synced commits, and many at once cost two together.
 *
 * <p>An acknowledgement is good if the message is not done with and was not handed out again
 * ({@link QueueReceipt#isGood}); clocks decide only when it is handed out again, never whether an
 * effect counts.
 */
final class GridQueue implements Queue {

  private static final long POLL_MS = 100;
  private static final long ASK_MS = 5_000;
  private static final long ROOM_NS = 1_000_000_000L;
  private static final long OWNERS_NS = 200_000_000L;

  /** Of a shared commit; more callers than that take the next one. */
  private static final long SHARED_BYTES = 4 << 20;

  private static final long BATCH_BYTES = 1 << 20;
  private static final long CHANGES_MAX = 1_000;

  /**
   * A commit of several partitions may wait in a circle with somebody's transaction. It gives up
   * soon; then each partition's is done alone, which holds nothing while it waits.
   */
  private static final Grid.TransactionMode SHARED =
      new Grid.TransactionMode(
          TransactionConcurrency.PESSIMISTIC, TransactionIsolation.REPEATABLE_READ, 3_000);

  private record Owners(List<String> byPartition, long atNs) {}

  private record Placed(int partition, Outgoing message) {}

  /** The receipts of one partition and group that are acknowledged, or given back until then. */
  private record Change(
      int partition, String group, List<QueueReceipt> receipts, OptionalLong notBeforeMs) {

    String progress() {
      return partition + "~" + group;
    }
  }

  private final QueueMade made;
  private final String name;
  private final QueueConfig config;
  private final Grid grid;
  private final Fences fences;
  private final InstantSource clock;
  private final QueuePeers peers;
  private final QueueMetrics metrics;
  private final QueueOwner owner;
  private final Map<String, Combiner<Placed, String>> senders = new ConcurrentHashMap<>();
  private final Map<String, Combiner<Change, Optional<FlotillaException>>> changers =
      new ConcurrentHashMap<>();
  private final QueueRoom room;
  private final AtomicLongArray nextSeen;
  private final QueueArrivals arrivals = new QueueArrivals();
  private final AtomicInteger turn = new AtomicInteger();
  private volatile @Nullable Owners owners;
  private volatile boolean priorities;
  private volatile boolean lookedForPriorities;

  GridQueue(
      QueueMade made,
      Grid grid,
      Fences fences,
      InstantSource clock,
      RandomGenerator random,
      QueuePeers peers,
      QueueMetrics metrics) {
    this.made = made;
    this.name = made.name();
    this.config = made.config();
    this.grid = grid;
    this.fences = fences;
    this.clock = clock;
    this.peers = peers;
    this.metrics = metrics;
    this.owner = new QueueOwner(made, grid, clock, random, metrics);
    this.room = new QueueRoom(config.partitions(), config.depthMax());
    this.nextSeen = new AtomicLongArray(config.partitions());
  }

  /** Makes the partitions' first entries. */
  void initialize() {
    grid.write(
        "making queue " + name,
        ignite -> {
          ignite.getOrCreateCache(grid.<AffinityKey<String>, byte[]>cacheConfig(made.engineName()));
          return true;
        });
    transact(
        "making",
        Grid.TransactionMode.PESSIMISTIC,
        cells -> {
          for (int p = 0; p < config.partitions(); p++) {
            cells.put(p, "n", QueueCells.number(0));
            cells.put(p, "groups", Json.write(List.of(DEFAULT_GROUP)));
            cells.putProgress(p, DEFAULT_GROUP, QueueProgress.from(0, 0));
          }
          return true;
        });
    owner.look();
  }

  private <T> T transact(
      String what, Grid.TransactionMode mode, Function<QueueCells, T> operation) {
    return grid.transact(
        what + " queue " + name, mode, ignite -> operation.apply(new QueueCells(ignite, made)));
  }

  private <T> T read(Function<QueueCells, T> operation) {
    return grid.read(
        "looking at queue " + name, ignite -> operation.apply(new QueueCells(ignite, made)));
  }

  private static Grid.TransactionMode mode(int partitions) {
    return partitions > 1 ? SHARED : Grid.TransactionMode.PESSIMISTIC;
  }

  @Override
  public String name() {
    return name;
  }

  /** Tells it from others that had its name. */
  QueueMade made() {
    return made;
  }

  /** What this node does for others. */
  QueueOwner owner() {
    return owner;
  }

  /** Who waits on this node for something to be handed out. */
  QueueArrivals arrivals() {
    return arrivals;
  }

  /** The node that hands out each partition, as it was a moment ago: a hint. */
  private List<String> owners() {
    Owners known = owners;
    if (known == null || System.nanoTime() - known.atNs() > OWNERS_NS) {
      known =
          new Owners(
              read(
                  cells -> IntStream.range(0, config.partitions()).mapToObj(cells::owner).toList()),
              System.nanoTime());
      owners = known;
    }
    return known.byPartition();
  }

  /** Once the running transaction has committed, or now if there is none. */
  private void onCommit(Runnable action) {
    Optional<TransactionScope> scope = TransactionScope.current();
    if (scope.isPresent()) {
      scope.get().afterCommit(action);
    } else if (grid.inTransaction()) {
      grid.afterTransaction(action);
    } else {
      action.run();
    }
  }

  /** Wakes who waits for what is in the partitions, wherever they are. */
  private void wake(Collection<Integer> partitions) {
    try {
      List<String> owners = owners();
      for (String node : new HashSet<>(partitions.stream().map(owners::get).toList())) {
        if (!node.equals(grid.self())) {
          peers.changed(node, name);
        }
      }
    } catch (FlotillaException e) {
      // What was done is done; they look for themselves now and then.
    }
    arrivals.arrived();
  }

  // Sending.

  @Override
  public List<String> send(List<Outgoing> messages, Optional<Fence> fence) {
    check(messages);
    int spread = turn.getAndIncrement();
    List<Placed> placed =
        messages.stream().map(message -> new Placed(partition(message, spread), message)).toList();
    if (!grid.inTransaction()) {
      refuseIfFull(placed);
    }
    if (fence.isPresent() || grid.inTransaction()) {
      return sendNow(placed, fence, Grid.TransactionMode.PESSIMISTIC);
    }
    String[] ids = new String[placed.size()];
    byOwner(placed, Placed::partition)
        .forEach(
            (node, places) -> {
              List<String> sent = sender(node).submit(places.stream().map(placed::get).toList());
              for (int i = 0; i < places.size(); i++) {
                ids[places.get(i)] = sent.get(i);
              }
            });
    return List.of(ids);
  }

  private Combiner<Placed, String> sender(String node) {
    return senders.computeIfAbsent(
        node,
        any ->
            new Combiner<>(
                SHARED_BYTES,
                one -> QueueBatch.bytesOf(one.message()),
                all -> sendNow(all, Optional.empty(), mode(partitions(all).size())),
                this::sendAlone));
  }

  /** Where the items of one call are, by the node that hands out their partition. */
  private <A> Map<String, List<Integer>> byOwner(List<A> items, ToIntFunction<A> partition) {
    List<String> owners = owners();
    Map<String, List<Integer>> places = new TreeMap<>();
    for (int i = 0; i < items.size(); i++) {
      places
          .computeIfAbsent(owners.get(partition.applyAsInt(items.get(i))), any -> new ArrayList<>())
          .add(i);
    }
    return places;
  }

  private static void check(List<Outgoing> messages) {
    if (messages.isEmpty() || messages.size() > BATCH_MAX) {
      throw new FlotillaException(Code.INVALID, "1 to " + BATCH_MAX + " messages at once", "");
    }
    messages.forEach(GridQueue::check);
    if (messages.stream().mapToLong(m -> m.body().length).sum() > SEND_BYTES_MAX) {
      throw new FlotillaException(
          Code.TOO_LARGE,
          "the messages of one call have more than " + SEND_BYTES_MAX + " bytes together",
          "Send them by several calls.");
    }
  }

  private static void check(Outgoing message) {
    if (message.body().length > BODY_BYTES_MAX) {
      throw new FlotillaException(
          Code.TOO_LARGE,
          "a message has " + message.body().length + " bytes, and may have " + BODY_BYTES_MAX,
          "Put the content into blobs(), and send its digest.");
    }
    if (message.key().getBytes(StandardCharsets.UTF_8).length > KEY_BYTES_MAX
        || message.dedupId().map(String::length).orElse(1) > KEY_BYTES_MAX) {
      throw new FlotillaException(
          Code.TOO_LARGE, "a key or id is longer than " + KEY_BYTES_MAX + " bytes", "");
    }
    if (message.priority() < 0
        || message.priority() > 9
        || message.delay().isNegative()
        || message.delay().compareTo(Duration.ofDays(30)) > 0) {
      throw new FlotillaException(
          Code.INVALID, "a message's priority is 0 to 9, its delay 0 to 30 days", "");
    }
    if (message.dedupId().map(String::isEmpty).orElse(false)) {
      throw new FlotillaException(
          Code.INVALID, "a message's dedup_id must not be empty", "Leave it out for none.");
    }
  }

  /** Those of a call that have neither key nor id stay together. */
  private int partition(Outgoing message, int spread) {
    String by = message.key().isEmpty() ? message.dedupId().orElse("") : message.key();
    return Math.floorMod(
        by.isEmpty() ? spread : (by.hashCode() * 0x9E3779B9) >>> 8, config.partitions());
  }

  private static SortedMap<Integer, List<Integer>> partitions(List<Placed> all) {
    SortedMap<Integer, List<Integer>> places = new TreeMap<>();
    for (int i = 0; i < all.size(); i++) {
      places.computeIfAbsent(all.get(i).partition(), p -> new ArrayList<>()).add(i);
    }
    return places;
  }

  private List<String> sendAlone(List<Placed> all) {
    String[] ids = new String[all.size()];
    for (List<Integer> places : partitions(all).values()) {
      List<String> its =
          sendNow(
              places.stream().map(all::get).toList(),
              Optional.empty(),
              Grid.TransactionMode.PESSIMISTIC);
      for (int i = 0; i < its.size(); i++) {
        ids[places.get(i)] = its.get(i);
      }
    }
    return List.of(ids);
  }

  private List<String> sendNow(List<Placed> all, Optional<Fence> fence, Grid.TransactionMode mode) {
    SortedMap<Integer, List<Integer>> places = partitions(all);
    String[] ids = new String[all.size()];
    boolean newPriorities =
        !priorities && all.stream().anyMatch(placed -> placed.message().priority() > 0);
    transact(
        "sending to",
        mode,
        cells -> {
          fences.check(cells.ignite, "queue " + name, fence);
          Map<AffinityKey<String>, byte[]> entries = new LinkedHashMap<>();
          Map<Integer, Long> next = cells.next(places.keySet());
          places.forEach(
              (partition, its) -> {
                long end =
                    append(
                        cells, partition, next.getOrDefault(partition, 0L), all, its, ids, entries);
                entries.put(QueueCells.key(partition, "n"), QueueCells.number(end));
              });
          cells.cache.putAll(entries);
          if (newPriorities) {
            cells.putPriorities();
          }
          return true;
        });
    List<String> sent = List.of(ids);
    TransactionScope.current().ifPresent(s -> s.step("queue " + name + ": send " + sent));
    onCommit(
        () -> {
          metrics.sent(name, sent.size());
          if (newPriorities) {
            hasPriorities();
            peers.hasPriorities(name);
          }
          wake(places.keySet());
        });
    return sent;
  }

  /** Adds a partition's messages to the entries to be written; returns its next sequence. */
  private long append(
      QueueCells cells,
      int partition,
      long next,
      List<Placed> all,
      List<Integer> places,
      String[] ids,
      Map<AffinityKey<String>, byte[]> entries) {
    IgniteCache<AffinityKey<String>, byte[]> seen =
        cells.cache.withExpiryPolicy(
            new CreatedExpiryPolicy(
                new javax.cache.expiry.Duration(TimeUnit.MILLISECONDS, config.dedupMs())));
    long now = clock.millis();
    long first = next;
    long end = next;
    long bytes = 0;
    List<Outgoing> batch = new ArrayList<>();
    for (int place : places) {
      Outgoing message = all.get(place).message();
      ids[place] = partition + "-" + end;
      if (message.dedupId().isPresent()) {
        AffinityKey<String> key = QueueCells.key(partition, "d" + message.dedupId().get());
        byte[] before = seen.get(key);
        if (before != null) {
          ids[place] = new String(before, StandardCharsets.UTF_8);
          continue;
        }
        seen.put(key, ids[place].getBytes(StandardCharsets.UTF_8));
      }
      if (bytes + QueueBatch.bytesOf(message) > BATCH_BYTES && !batch.isEmpty()) {
        entries.put(QueueCells.key(partition, "b" + first), QueueBatch.encode(now, batch));
        batch.clear();
        first = end;
        bytes = 0;
      }
      batch.add(message);
      bytes += QueueBatch.bytesOf(message);
      end++;
    }
    if (!batch.isEmpty()) {
      entries.put(QueueCells.key(partition, "b" + first), QueueBatch.encode(now, batch));
    }
    return end;
  }

  /** By a look without locks: the bound is kept about, and costs senders no wait for receivers. */
  private void refuseIfFull(List<Placed> all) {
    partitions(all)
        .forEach(
            (partition, its) -> {
              if (room.take(partition, its.size(), System.nanoTime() - ROOM_NS)) {
                return;
              }
              long depth = read(cells -> depth(cells, partition));
              if (depth >= config.depthMax()) {
                throw new FlotillaException(
                    Code.BUSY,
                    "queue "
                        + name
                        + " is full: "
                        + depth
                        + " messages of partition "
                        + partition
                        + " are not acknowledged, and "
                        + config.depthMax()
                        + " are allowed",
                    "Send later, or add consumers.");
              }
              room.found(partition, depth + its.size(), System.nanoTime());
            });
  }

  private static long depth(QueueCells cells, int partition) {
    long next = cells.next(partition);
    return cells.groups(partition).stream()
        .mapToLong(group -> cells.progress(partition, group).depth(next))
        .max()
        .orElse(0);
  }

  // Receiving.

  @Override
  public List<Message> receive(
      String group, String consumer, int max, Duration visibility, Duration wait)
      throws InterruptedException {
    checkReceive(group, max, visibility, wait);
    long deadlineNs = System.nanoTime() + wait.toNanos();
    boolean everywhere = true;
    while (true) {
      long seen = arrivals.count();
      List<Message> messages = receiveNow(group, max, visibility, everywhere);
      long leftMs = (deadlineNs - System.nanoTime()) / 1_000_000;
      if (!messages.isEmpty() || leftMs <= 0) {
        return messages;
      }
      askOthers(group, Math.min(leftMs, ASK_MS));
      // What becomes due by time alone is looked for here and by the others' owners.
      everywhere = arrivals.await(seen, Math.min(leftMs, POLL_MS));
    }
  }

  private static void checkReceive(String group, int max, Duration visibility, Duration wait) {
    if (!group.matches("[A-Za-z0-9][A-Za-z0-9._-]{0,63}")) {
      throw new FlotillaException(
          Code.INVALID,
          "a consumer group cannot be called '"
              + (group.length() > 64 ? group.substring(0, 64) + "…" : group)
              + "'",
          "Use 1 to 64 letters, digits, dots, dashes or underscores, the first a letter or digit.");
    }
    if (max < 1
        || max > BATCH_MAX
        || visibility.toMillis() < 100
        || visibility.compareTo(Duration.ofHours(12)) > 0
        || wait.isNegative()
        || wait.compareTo(Duration.ofMinutes(10)) > 0) {
      throw new FlotillaException(
          Code.INVALID,
          "a call receives 1 to "
              + BATCH_MAX
              + " messages, hides them for 100 ms to 12 h, and waits for at most 10 min",
          "");
    }
  }

  /**
   * @throws FlotillaException if there is nothing, and one of those who may have something does not
   *     answer
   */
  private List<Message> receiveNow(String group, int max, Duration visibility, boolean everywhere) {
    if (usesPriorities()) {
      return receiveByPriority(group, max, visibility, everywhere);
    }
    List<String> owners = owners().stream().distinct().toList();
    Optional<FlotillaException> silent = Optional.empty();
    int first = turn.getAndIncrement();
    for (int i = 0; i < owners.size(); i++) {
      String node = owners.get(Math.floorMod(first + i, owners.size()));
      List<Message> messages = List.of();
      if (node.equals(grid.self())) {
        messages = owner.receive(group, max, visibility);
      } else if (everywhere) {
        try {
          messages = peers.receive(node, name, group, max, visibility, 0);
        } catch (FlotillaException e) {
          silent = Optional.of(e);
        }
      }
      if (!messages.isEmpty()) {
        return messages;
      }
    }
    if (silent.isPresent()) {
      throw silent.get();
    }
    return List.of();
  }

  /** Of all owners, from the one that has the highest priority, down to what the next one has. */
  private List<Message> receiveByPriority(
      String group, int max, Duration visibility, boolean everywhere) {
    if (!everywhere && owner.best(group) < 0) {
      return List.of();
    }
    List<String> nodes = owners().stream().distinct().toList();
    if (nodes.equals(List.of(grid.self()))) {
      return handOut(group, max, visibility, 0);
    }
    Map<String, Integer> best = new ConcurrentHashMap<>();
    AtomicReference<@Nullable FlotillaException> silent = new AtomicReference<>();
    try (ExecutorService threads = Executors.newVirtualThreadPerTaskExecutor()) {
      for (String node : nodes) {
        threads.execute(
            () -> {
              try {
                best.put(
                    node,
                    node.equals(grid.self()) ? owner.best(group) : peers.best(node, name, group));
              } catch (FlotillaException e) {
                silent.set(e);
              }
            });
      }
    }
    List<String> order = new ArrayList<>(best.keySet());
    Collections.rotate(order, turn.getAndIncrement());
    order.sort(Comparator.comparingInt((String node) -> best.getOrDefault(node, -1)).reversed());
    for (int i = 0; i < order.size() && best.getOrDefault(order.get(i), -1) >= 0; i++) {
      String node = order.get(i);
      int least = i + 1 < order.size() ? Math.max(0, best.getOrDefault(order.get(i + 1), 0)) : 0;
      List<Message> messages = List.of();
      try {
        messages =
            node.equals(grid.self())
                ? handOut(group, max, visibility, least)
                : peers.receive(node, name, group, max, visibility, least);
      } catch (FlotillaException e) {
        if (node.equals(grid.self())) {
          throw e;
        }
        silent.set(e);
      }
      if (!messages.isEmpty()) {
        return messages;
      }
    }
    FlotillaException failure = silent.get();
    if (failure != null) {
      throw failure;
    }
    return List.of();
  }

  /** Hands out of this node's partitions. */
  List<Message> handOut(String group, int max, Duration visibility, int least) {
    return usesPriorities()
        ? owner.receiveByPriority(group, max, visibility, least)
        : owner.receive(group, max, visibility);
  }

  /** Whether priorities decide what comes first; known at once from when it was last found so. */
  private boolean usesPriorities() {
    if (!priorities && !lookedForPriorities) {
      lookForPriorities();
    }
    return priorities;
  }

  /** A node that was not told finds it so. */
  void lookForPriorities() {
    if (!priorities) {
      if (read(QueueCells::hasPriorities)) {
        priorities = true;
      }
      lookedForPriorities = true;
    }
  }

  /** A message with a priority has been sent. */
  void hasPriorities() {
    priorities = true;
  }

  private void askOthers(String group, long waitMs) {
    for (String node : new HashSet<>(owners())) {
      if (!node.equals(grid.self())) {
        peers.await(node, name, group, waitMs, arrivals::arrived);
      }
    }
  }

  // Acknowledging.

  @Override
  public void acknowledge(List<String> receipts, Optional<Fence> fence) {
    change(receipts, fence, OptionalLong.empty());
    TransactionScope.current()
        .ifPresent(s -> s.step("queue " + name + ": acknowledge " + receipts));
  }

  @Override
  public void giveBack(List<String> receipts, Duration delay) {
    if (delay.isNegative() || delay.compareTo(Duration.ofDays(30)) > 0) {
      throw new FlotillaException(Code.INVALID, "the delay is 0 to 30 days", "");
    }
    change(receipts, Optional.empty(), OptionalLong.of(clock.millis() + delay.toMillis()));
    TransactionScope.current().ifPresent(s -> s.step("queue " + name + ": give back " + receipts));
  }

  private void change(List<String> receipts, Optional<Fence> fence, OptionalLong notBeforeMs) {
    if (receipts.isEmpty() || receipts.size() > BATCH_MAX) {
      throw new FlotillaException(Code.INVALID, "1 to " + BATCH_MAX + " receipts at once", "");
    }
    SortedMap<String, List<QueueReceipt>> by = new TreeMap<>();
    for (String text : receipts) {
      QueueReceipt receipt = QueueReceipt.parse(text, config.partitions());
      checkSent(receipt);
      by.computeIfAbsent(receipt.partition() + "~" + receipt.group(), k -> new ArrayList<>())
          .add(receipt);
    }
    List<Change> changes =
        by.values().stream()
            .map(
                its ->
                    new Change(
                        its.getFirst().partition(), its.getFirst().group(), its, notBeforeMs))
            .toList();
    if (fence.isPresent() || grid.inTransaction()) {
      changeNow(changes, fence, Grid.TransactionMode.PESSIMISTIC, true);
      return;
    }
    byOwner(changes, Change::partition)
        .forEach(
            (node, places) ->
                changer(node).submit(places.stream().map(changes::get).toList()).stream()
                    .flatMap(Optional::stream)
                    .findFirst()
                    .ifPresent(
                        e -> {
                          throw e;
                        }));
  }

  private Combiner<Change, Optional<FlotillaException>> changer(String node) {
    return changers.computeIfAbsent(
        node,
        any ->
            new Combiner<>(
                CHANGES_MAX,
                one -> one.receipts().size(),
                all ->
                    changeNow(
                        all,
                        Optional.empty(),
                        mode((int) all.stream().map(Change::progress).distinct().count()),
                        false),
                this::changeAlone));
  }

  /** A receipt of what was never sent would count for what is sent later. */
  private void checkSent(QueueReceipt receipt) {
    int partition = receipt.partition();
    if (receipt.sequence() >= nextSeen.get(partition)) {
      nextSeen.accumulateAndGet(partition, read(cells -> cells.next(partition)), Math::max);
    }
    if (receipt.sequence() >= nextSeen.get(partition)) {
      // This node's copy may be behind the owner's by a commit that is on its way.
      long next =
          transact("looking at", Grid.TransactionMode.PESSIMISTIC, cells -> cells.next(partition));
      nextSeen.accumulateAndGet(partition, next, Math::max);
    }
    if (receipt.sequence() >= nextSeen.get(partition)) {
      throw new FlotillaException(
          Code.INVALID, "that is no receipt of this queue", "Give one that receive answered.");
    }
  }

  private List<Optional<FlotillaException>> changeAlone(List<Change> changes) {
    List<Optional<FlotillaException>> ends = new ArrayList<>();
    for (Change change : changes) {
      ends.addAll(
          changeNow(List.of(change), Optional.empty(), Grid.TransactionMode.PESSIMISTIC, false));
    }
    return ends;
  }

  /**
   * Each change as a whole or not at all; says of each why not.
   *
   * @param strict one that cannot be done ends the transaction, and so all of it
   */
  private List<Optional<FlotillaException>> changeNow(
      List<Change> changes, Optional<Fence> fence, Grid.TransactionMode mode, boolean strict) {
    SortedMap<String, List<Integer>> places = new TreeMap<>();
    for (int i = 0; i < changes.size(); i++) {
      places.computeIfAbsent(changes.get(i).progress(), k -> new ArrayList<>()).add(i);
    }
    List<Optional<FlotillaException>> ends =
        transact(
            "acknowledging to",
            mode,
            cells -> {
              fences.check(cells.ignite, "queue " + name, fence);
              List<Optional<FlotillaException>> all = new ArrayList<>();
              changes.forEach(any -> all.add(Optional.empty()));
              for (List<Integer> its : places.values()) {
                Change first = changes.get(its.getFirst());
                QueueProgress before = cells.progress(first.partition(), first.group());
                QueueProgress progress = before;
                for (int place : its) {
                  Change change = changes.get(place);
                  Optional<QueueReceipt> bad = bad(change, progress);
                  if (bad.isPresent() && strict) {
                    throw handedOutAgain(bad.get());
                  }
                  if (bad.isPresent()) {
                    all.set(place, Optional.of(handedOutAgain(bad.get())));
                  } else {
                    progress = apply(change, progress);
                  }
                }
                if (!progress.equals(before)) {
                  cells.putProgress(first.partition(), first.group(), progress);
                }
              }
              return all;
            });
    onCommit(
        () -> {
          for (int i = 0; i < changes.size(); i++) {
            if (ends.get(i).isEmpty() && changes.get(i).notBeforeMs().isEmpty()) {
              metrics.acknowledged(name, changes.get(i).receipts().size());
            }
          }
          wake(new TreeSet<>(changes.stream().map(Change::partition).toList()));
        });
    return ends;
  }

  private static Optional<QueueReceipt> bad(Change change, QueueProgress progress) {
    var once = new HashSet<Long>();
    return change.receipts().stream()
        .filter(receipt -> !receipt.isGood(progress) || !once.add(receipt.sequence()))
        .findFirst();
  }

  private static QueueProgress apply(Change change, QueueProgress progress) {
    if (change.notBeforeMs().isEmpty()) {
      return progress.withDone(change.receipts().stream().map(QueueReceipt::sequence).toList());
    }
    QueueProgress given = progress;
    for (QueueReceipt receipt : change.receipts()) {
      given =
          given.withTrouble(
              receipt.sequence(),
              new Trouble(receipt.attempt(), receipt.owner(), change.notBeforeMs().getAsLong()));
    }
    return given;
  }

  private FlotillaException handedOutAgain(QueueReceipt receipt) {
    return new FlotillaException(
        Code.CONFLICT,
        "message "
            + receipt.partition()
            + "-"
            + receipt.sequence()
            + " of queue "
            + name
            + " was handed out again or acknowledged since",
        "Nothing was done; another consumer has it.");
  }

  // Looking after it.

  @Override
  public Stats stats() {
    Map<String, Long> held = new TreeMap<>();
    for (String node : new HashSet<>(owners())) {
      if (node.equals(grid.self())) {
        owner.backlogs().forEach((group, its) -> held.merge(group, its.held(), Long::sum));
      } else {
        peers.held(node, name).forEach((group, its) -> held.merge(group, its, Long::sum));
      }
    }
    return read(
        cells -> {
          long sent = 0;
          SortedMap<String, long[]> groups = new TreeMap<>();
          for (int p = 0; p < config.partitions(); p++) {
            long next = cells.next(p);
            sent += next;
            for (String group : cells.groups(p)) {
              long[] sums = groups.computeIfAbsent(group, g -> new long[2]);
              sums[0] += cells.progress(p, group).depth(next);
              sums[1] += cells.dead(p, group).size();
            }
          }
          return new Stats(
              name,
              config,
              sent,
              groups.entrySet().stream()
                  .map(
                      g ->
                          new GroupStats(
                              g.getKey(),
                              g.getValue()[0],
                              held.getOrDefault(g.getKey(), 0L),
                              g.getValue()[1]))
                  .toList());
        });
  }

  @Override
  public List<Dead> dead(int max) {
    return read(
        cells -> {
          List<Dead> dead = new ArrayList<>();
          for (int p = 0; p < config.partitions(); p++) {
            for (String group : cells.groups(p)) {
              for (long sequence : cells.dead(p, group)) {
                QueueBatch its = dead.size() < max ? cells.deadOne(p, group, sequence) : null;
                if (its != null) {
                  QueueBatch.Sent message = its.messages().getFirst();
                  dead.add(
                      new Dead(
                          p + "-" + sequence,
                          group,
                          message.key(),
                          message.body(),
                          its.sentAtMs()));
                }
              }
            }
          }
          dead.sort((a, b) -> Long.compare(a.diedAtMs(), b.diedAtMs()));
          return dead;
        });
  }

  @Override
  public int redrive(int max) {
    int again = 0;
    for (Dead dead : dead(max)) {
      int partition = Integer.parseInt(dead.id().substring(0, dead.id().indexOf('-')));
      long sequence = Long.parseLong(dead.id().substring(dead.id().indexOf('-') + 1));
      boolean its =
          transact(
              "redriving",
              Grid.TransactionMode.PESSIMISTIC,
              cells -> redrive(cells, partition, sequence, dead));
      again += its ? 1 : 0;
      onCommit(() -> wake(List.of(partition)));
    }
    return again;
  }

  private boolean redrive(QueueCells cells, int partition, long sequence, Dead dead) {
    long next = cells.next(partition);
    if (cells.deadOne(partition, dead.group(), sequence) == null) {
      return false;
    }
    cells.put(
        partition,
        "b" + next,
        QueueBatch.encode(clock.millis(), List.of(Outgoing.of(dead.key(), dead.body()))));
    // Other groups had it: for them it is done.
    for (String group : new TreeSet<>(cells.groups(partition))) {
      if (!group.equals(dead.group())) {
        cells.putProgress(
            partition, group, cells.progress(partition, group).withDone(List.of(next)));
      }
    }
    cells.put(partition, "n", QueueCells.number(next + 1));
    cells.removeDead(partition, dead.group(), sequence);
    return true;
  }

  @Override
  public void replay(String group, long fromMs) {
    checkReceive(group, 1, Duration.ofSeconds(1), Duration.ZERO);
    for (int p = 0; p < config.partitions(); p++) {
      int partition = p;
      long from = read(cells -> firstSince(cells, partition, fromMs));
      transact(
          "replaying",
          Grid.TransactionMode.PESSIMISTIC,
          cells -> {
            cells.join(partition, group, QueueOwner.GROUPS_MAX);
            int generation = cells.progress(partition, group).generation() + 1;
            // Some of it may have been deleted meanwhile.
            long start = Math.max(from, cells.low(partition));
            cells.putProgress(partition, group, QueueProgress.from(generation, start));
            return true;
          });
    }
    onCommit(() -> wake(IntStream.range(0, config.partitions()).boxed().toList()));
  }

  private static long firstSince(QueueCells cells, int partition, long fromMs) {
    long next = cells.next(partition);
    long first = cells.low(partition);
    while (first < next) {
      QueueBatch batch = cells.batch(partition, first);
      if (batch == null || batch.sentAtMs() >= fromMs) {
        return first;
      }
      first = batch.end();
    }
    return next;
  }
}

package dev.flotilla.data.queue;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.cluster.Fence;
import dev.flotilla.data.grid.Combiner;
import dev.flotilla.data.grid.Fences;
import dev.flotilla.data.grid.Grid;
import dev.flotilla.data.grid.TransactionScope;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Function;
import javax.cache.expiry.CreatedExpiryPolicy;
import org.apache.ignite.Ignite;
import org.apache.ignite.IgniteCache;
import org.apache.ignite.cache.affinity.AffinityKey;
import org.jspecify.annotations.Nullable;

/**
 * A queue as entries of one cache of the grid.
 *
 * <p>All entries of a partition have the same affinity, so that a send, a receive or an
 * acknowledgement is a transaction of one node and its copies. A partition has: {@code n}, the next
 * sequence; {@code m<sequence>}, a message, never changed; {@code groups}; for each group {@code
 * g<group>}, its {@link QueueProgress}; {@code x<group>~<sequence>}, the dead; {@code d<id>}, an id
 * seen, until it expires; {@code l}, below which messages are deleted.
 *
 * <p>Handing out is a durable change of the group's progress: how often a message was handed out,
 * and until when nobody else gets it. A receipt names group, partition, sequence and attempt. So an
 * acknowledgement is good if the message is not done with and that attempt is the last one; clocks
 * decide only when it is handed out again, never whether an effect counts.
 *
 * <p>Cost of a message by itself: one synced commit to send it, one to hand it out, one to
 * acknowledge it; each commit serves as many messages of a partition as are asked for at once, and
 * concurrent senders of one partition share commits ({@link Combiner}).
 */
final class GridQueue implements Queue {

  private static final int WINDOW = 1_000;
  private static final long POLL_MS = 100;
  private static final int MOST_GROUPS = 100;

  private record Stored(long sentAtMs, long notBeforeMs, int priority, String key, byte[] body) {}

  private record DeadStored(long diedAtMs, Stored message) {}

  private record Receipt(String group, int partition, long sequence, int attempt) {

    String text() {
      return group + "~" + partition + "~" + sequence + "~" + attempt;
    }

    static Receipt parse(String text, int partitions) {
      String[] parts = text.split("~", -1);
      try {
        Receipt receipt =
            new Receipt(
                parts[0],
                Integer.parseInt(parts[1]),
                Long.parseLong(parts[2]),
                Integer.parseInt(parts[3]));
        if (parts.length == 4
            && receipt.partition >= 0
            && receipt.partition < partitions
            && receipt.sequence >= 0
            && receipt.attempt > 0) {
          return receipt;
        }
      } catch (NumberFormatException | ArrayIndexOutOfBoundsException malformed) {
        // Said below.
      }
      throw new FlotillaException(
          Code.INVALID, "that is no receipt of this queue", "Give one that receive answered.");
    }
  }

  private final String name;
  private final QueueConfig config;
  private final Grid grid;
  private final Fences fences;
  private final InstantSource clock;
  private final List<Map<Long, Stored>> known = new ArrayList<>();
  private final List<Combiner<Outgoing, String>> senders = new ArrayList<>();
  private final Object arrived = new Object();
  private final AtomicInteger turn = new AtomicInteger();

  GridQueue(String name, QueueConfig config, Grid grid, Fences fences, InstantSource clock) {
    this.name = name;
    this.config = config;
    this.grid = grid;
    this.fences = fences;
    this.clock = clock;
    for (int p = 0; p < config.partitions(); p++) {
      int partition = p;
      known.add(new ConcurrentHashMap<>());
      senders.add(
          new Combiner<>(
              BATCH_MAX,
              one -> 1,
              all -> sendTo(partition, all, Optional.empty()),
              all -> sendTo(partition, all, Optional.empty())));
    }
  }

  static String cacheName(String queue) {
    return "flotilla.queue." + queue;
  }

  static void createCache(Grid grid, String queue) {
    grid.write(
        "making queue " + queue,
        ignite -> {
          ignite.getOrCreateCache(grid.<AffinityKey<String>, byte[]>cacheConfig(cacheName(queue)));
          return true;
        });
  }

  /** Makes the partitions' first entries; does nothing to those that are there. */
  void initialize() {
    for (int p = 0; p < config.partitions(); p++) {
      int partition = p;
      transact(
          "making",
          cells -> {
            if (cells.get(partition, "groups") == null) {
              cells.putLong(partition, "n", 0);
              cells.put(partition, "groups", Json.write(List.of(DEFAULT_GROUP)));
              cells.put(partition, "g" + DEFAULT_GROUP, Json.write(QueueProgress.from(0).stored()));
            }
            return true;
          });
    }
  }

  /** The entries of this queue, in a running operation. */
  private final class Cells {
    private final Ignite ignite;
    private final IgniteCache<AffinityKey<String>, byte[]> cache;

    Cells(Ignite ignite) {
      this.ignite = ignite;
      this.cache = ignite.cache(cacheName(name));
      if (cache == null) {
        throw new FlotillaException(Code.NOT_FOUND, "there is no queue " + name, "");
      }
    }

    byte @Nullable [] get(int partition, String cell) {
      return cache.get(new AffinityKey<>(cell, partition));
    }

    void put(int partition, String cell, byte[] value) {
      cache.put(new AffinityKey<>(cell, partition), value);
    }

    void remove(int partition, String cell) {
      cache.remove(new AffinityKey<>(cell, partition));
    }

    long getLong(int partition, String cell) {
      byte[] value = get(partition, cell);
      return value == null ? 0 : Long.parseLong(new String(value, StandardCharsets.UTF_8));
    }

    void putLong(int partition, String cell, long value) {
      put(partition, cell, Long.toString(value).getBytes(StandardCharsets.UTF_8));
    }

    QueueProgress progress(int partition, String group) {
      byte[] value = get(partition, "g" + group);
      if (value == null) {
        throw new FlotillaException(
            Code.NOT_FOUND, "queue " + name + " has no group " + group, "Receive in it first.");
      }
      return QueueProgress.of(Json.read(value, QueueProgress.Stored.class));
    }

    void putProgress(int partition, String group, QueueProgress progress) {
      put(partition, "g" + group, Json.write(progress.stored()));
    }

    List<String> groups(int partition) {
      byte[] value = get(partition, "groups");
      return value == null ? List.of() : List.of(Json.read(value, String[].class));
    }
  }

  private <T> T transact(String what, Function<Cells, T> operation) {
    return grid.transact(
        what + " queue " + name,
        Grid.TransactionMode.PESSIMISTIC,
        ignite -> operation.apply(new Cells(ignite)));
  }

  private <T> T read(String what, Function<Cells, T> operation) {
    return grid.read(what + " queue " + name, ignite -> operation.apply(new Cells(ignite)));
  }

  @Override
  public String name() {
    return name;
  }

  // Sending.

  @Override
  public List<String> send(List<Outgoing> messages, Optional<Fence> fence) {
    if (messages.isEmpty() || messages.size() > BATCH_MAX) {
      throw new FlotillaException(Code.INVALID, "1 to " + BATCH_MAX + " messages at once", "");
    }
    messages.forEach(GridQueue::check);
    Map<Integer, List<Integer>> byPartition = new TreeMap<>();
    for (int i = 0; i < messages.size(); i++) {
      byPartition.computeIfAbsent(partition(messages.get(i)), p -> new ArrayList<>()).add(i);
    }
    String[] ids = new String[messages.size()];
    byPartition.forEach(
        (partition, places) -> {
          List<Outgoing> its = places.stream().map(messages::get).toList();
          List<String> sent =
              fence.isPresent() || grid.inTransaction()
                  ? sendTo(partition, its, fence)
                  : senders.get(partition).submit(its);
          for (int i = 0; i < places.size(); i++) {
            ids[places.get(i)] = sent.get(i);
          }
        });
    return List.of(ids);
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
        || message.delay().compareTo(Duration.ofDays(30)) > 0
        || message.dedupId().map(String::isEmpty).orElse(false)) {
      throw new FlotillaException(
          Code.INVALID,
          "a message's priority is 0 to 9, its delay 0 to 30 days, and its id not empty",
          "");
    }
  }

  private int partition(Outgoing message) {
    String spread = message.key().isEmpty() ? message.dedupId().orElse("") : message.key();
    int hash = spread.isEmpty() ? turn.getAndIncrement() : (spread.hashCode() * 0x9E3779B9) >>> 8;
    return Math.floorMod(hash, config.partitions());
  }

  private List<String> sendTo(int partition, List<Outgoing> messages, Optional<Fence> fence) {
    refuseIfFull(partition);
    List<String> ids =
        transact(
            "sending to",
            cells -> {
              fences.check(cells.ignite, "queue " + name, fence);
              long next = cells.getLong(partition, "n");
              List<String> sent = new ArrayList<>();
              IgniteCache<AffinityKey<String>, byte[]> seen =
                  cells.cache.withExpiryPolicy(
                      new CreatedExpiryPolicy(
                          new javax.cache.expiry.Duration(
                              TimeUnit.MILLISECONDS, config.dedupMs())));
              for (Outgoing message : messages) {
                String id = partition + "-" + next;
                if (message.dedupId().isPresent()) {
                  AffinityKey<String> key =
                      new AffinityKey<>("d" + message.dedupId().get(), partition);
                  byte[] first = seen.get(key);
                  if (first != null) {
                    sent.add(new String(first, StandardCharsets.UTF_8));
                    continue;
                  }
                  seen.put(key, id.getBytes(StandardCharsets.UTF_8));
                }
                long now = clock.millis();
                long notBefore = message.delay().isZero() ? 0 : now + message.delay().toMillis();
                cells.put(
                    partition,
                    "m" + next,
                    Json.write(
                        new Stored(
                            now, notBefore, message.priority(), message.key(), message.body())));
                sent.add(id);
                next++;
              }
              cells.putLong(partition, "n", next);
              return sent;
            });
    TransactionScope.current().ifPresent(s -> s.step("queue " + name + ": send " + ids));
    synchronized (arrived) {
      arrived.notifyAll();
    }
    return ids;
  }

  /** By a look without locks: the bound is kept about, and costs senders no wait for receivers. */
  private void refuseIfFull(int partition) {
    if (grid.inTransaction()) {
      return;
    }
    long depth =
        read(
            "looking at",
            cells -> {
              long next = cells.getLong(partition, "n");
              long deepest = 0;
              for (String group : cells.groups(partition)) {
                deepest = Math.max(deepest, cells.progress(partition, group).depth(next));
              }
              return deepest;
            });
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
  }

  // Receiving.

  @Override
  public List<Message> receive(
      String group, String consumer, int max, Duration visibility, Duration wait)
      throws InterruptedException {
    checkReceive(group, max, visibility, wait);
    long deadlineNs = System.nanoTime() + wait.toNanos();
    while (true) {
      List<Message> messages = receiveNow(group, max, visibility);
      long leftMs = (deadlineNs - System.nanoTime()) / 1_000_000;
      if (!messages.isEmpty() || leftMs <= 0) {
        return messages;
      }
      synchronized (arrived) {
        // Woken by what is sent through this node; what comes through others is looked for.
        arrived.wait(Math.min(leftMs, POLL_MS));
      }
    }
  }

  private static void checkReceive(String group, int max, Duration visibility, Duration wait) {
    if (!group.matches("[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
        || max < 1
        || max > BATCH_MAX
        || visibility.toMillis() < 100
        || visibility.compareTo(Duration.ofHours(12)) > 0
        || wait.isNegative()
        || wait.compareTo(Duration.ofMinutes(10)) > 0) {
      throw new FlotillaException(
          Code.INVALID,
          "a group's name has 1 to 64 letters, digits, dots, dashes or underscores; 1 to "
              + BATCH_MAX
              + " messages are received at once; the visibility is 100 ms to 12 h, the wait at"
              + " most 10 min",
          "");
    }
  }

  private List<Message> receiveNow(String group, int max, Duration visibility) {
    List<Message> messages = new ArrayList<>();
    int first = turn.getAndIncrement();
    for (int i = 0; i < config.partitions() && messages.size() < max; i++) {
      int partition = Math.floorMod(first + i, config.partitions());
      if (mayHave(partition, group)) {
        messages.addAll(receiveFrom(partition, group, max - messages.size(), visibility));
      }
    }
    return messages;
  }

  /** A look without locks, so that empty partitions cost no commit. */
  private boolean mayHave(int partition, String group) {
    return read(
        "looking at",
        cells -> {
          byte[] value = cells.get(partition, "g" + group);
          if (value == null) {
            return true;
          }
          QueueProgress progress = QueueProgress.of(Json.read(value, QueueProgress.Stored.class));
          return !next(cells, partition, progress, 1).isEmpty();
        });
  }

  private List<QueueWindow.Waiting> next(
      Cells cells, int partition, QueueProgress progress, int max) {
    long end = Math.min(cells.getLong(partition, "n"), progress.floor() + WINDOW);
    List<QueueWindow.Waiting> window = new ArrayList<>();
    for (long sequence = progress.floor(); sequence < end; sequence++) {
      if (progress.isDone(sequence)) {
        continue;
      }
      Stored stored = message(cells, partition, sequence);
      if (stored != null) {
        window.add(
            new QueueWindow.Waiting(
                sequence, stored.key(), stored.priority(), stored.notBeforeMs()));
      }
    }
    return QueueWindow.next(window, progress, clock.millis(), max);
  }

  /** Messages never change, so what was read once is kept. */
  private @Nullable Stored message(Cells cells, int partition, long sequence) {
    Map<Long, Stored> its = known.get(partition);
    Stored stored = its.get(sequence);
    if (stored == null) {
      // Not inside the transaction's locks: nobody writes it again.
      byte[] value = cells.get(partition, "m" + sequence);
      if (value != null) {
        stored = Json.read(value, Stored.class);
        if (its.size() > 4 * WINDOW) {
          its.clear();
        }
        its.put(sequence, stored);
      }
    }
    return stored;
  }

  private List<Message> receiveFrom(int partition, String group, int max, Duration visibility) {
    return transact(
        "receiving from",
        cells -> {
          joinGroup(cells, partition, group);
          QueueProgress progress = cells.progress(partition, group);
          List<Message> messages = new ArrayList<>();
          for (QueueWindow.Waiting waiting : next(cells, partition, progress, max)) {
            long sequence = waiting.sequence();
            Stored stored = Objects.requireNonNull(message(cells, partition, sequence));
            int attempt = progress.attempts(sequence) + 1;
            if (attempt > config.attemptsMax()) {
              cells.put(
                  partition,
                  "x" + group + "~" + sequence,
                  Json.write(new DeadStored(clock.millis(), stored)));
              noteDead(cells, partition, group, sequence, true);
              progress = progress.withDone(sequence);
              continue;
            }
            progress =
                progress.withTrouble(sequence, attempt, clock.millis() + visibility.toMillis());
            messages.add(
                new Message(
                    partition + "-" + sequence,
                    new Receipt(group, partition, sequence, attempt).text(),
                    stored.key(),
                    stored.body(),
                    attempt));
          }
          cells.putProgress(partition, group, progress);
          return messages;
        });
  }

  private void joinGroup(Cells cells, int partition, String group) {
    List<String> groups = cells.groups(partition);
    if (groups.contains(group)) {
      return;
    }
    if (groups.size() >= MOST_GROUPS) {
      throw new FlotillaException(
          Code.INVALID, "queue " + name + " has " + MOST_GROUPS + " groups already", "");
    }
    List<String> more = new ArrayList<>(groups);
    more.add(group);
    cells.put(partition, "groups", Json.write(more));
    // A new group begins with what is sent from now on; replay lets it begin earlier.
    cells.putProgress(partition, group, QueueProgress.from(cells.getLong(partition, "n")));
  }

  // Acknowledging.

  @Override
  public void acknowledge(List<String> receipts, Optional<Fence> fence) {
    change(receipts, fence, (progress, receipt) -> progress.withDone(receipt.sequence()));
    TransactionScope.current()
        .ifPresent(s -> s.step("queue " + name + ": acknowledge " + receipts));
  }

  @Override
  public void giveBack(List<String> receipts, Duration delay) {
    if (delay.isNegative() || delay.compareTo(Duration.ofDays(30)) > 0) {
      throw new FlotillaException(Code.INVALID, "the delay is 0 to 30 days", "");
    }
    long notBefore = clock.millis() + delay.toMillis();
    change(
        receipts,
        Optional.empty(),
        (progress, receipt) ->
            progress.withTrouble(receipt.sequence(), receipt.attempt(), notBefore));
  }

  @FunctionalInterface
  private interface Change {
    QueueProgress of(QueueProgress progress, Receipt receipt);
  }

  private void change(List<String> receipts, Optional<Fence> fence, Change change) {
    if (receipts.isEmpty() || receipts.size() > BATCH_MAX) {
      throw new FlotillaException(Code.INVALID, "1 to " + BATCH_MAX + " receipts at once", "");
    }
    Map<String, List<Receipt>> by = new LinkedHashMap<>();
    for (String text : receipts) {
      Receipt receipt = Receipt.parse(text, config.partitions());
      by.computeIfAbsent(receipt.partition() + "~" + receipt.group(), k -> new ArrayList<>())
          .add(receipt);
    }
    for (List<Receipt> its : by.values()) {
      int partition = its.getFirst().partition();
      String group = its.getFirst().group();
      transact(
          "acknowledging to",
          cells -> {
            fences.check(cells.ignite, "queue " + name, fence);
            QueueProgress progress = cells.progress(partition, group);
            for (Receipt receipt : its) {
              if (progress.isDone(receipt.sequence())
                  || progress.attempts(receipt.sequence()) != receipt.attempt()) {
                throw new FlotillaException(
                    Code.CONFLICT,
                    "message "
                        + partition
                        + "-"
                        + receipt.sequence()
                        + " of queue "
                        + name
                        + " was handed out again or acknowledged since",
                    "Nothing was done; another consumer has it.");
              }
              progress = change.of(progress, receipt);
            }
            cells.putProgress(partition, group, progress);
            return true;
          });
    }
    synchronized (arrived) {
      arrived.notifyAll();
    }
  }

  // Looking after it.

  @Override
  public Stats stats() {
    return read(
        "looking at",
        cells -> {
          long sent = 0;
          Map<String, long[]> groups = new TreeMap<>();
          long now = clock.millis();
          for (int p = 0; p < config.partitions(); p++) {
            long next = cells.getLong(p, "n");
            sent += next;
            for (String group : cells.groups(p)) {
              QueueProgress progress = cells.progress(p, group);
              long[] sums = groups.computeIfAbsent(group, g -> new long[3]);
              sums[0] += progress.depth(next);
              sums[1] +=
                  progress.troubled().values().stream().filter(t -> t.notBeforeMs() > now).count();
              sums[2] += deadOf(cells, p, group).size();
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
                              g.getKey(), g.getValue()[0], g.getValue()[1], g.getValue()[2]))
                  .toList());
        });
  }

  private static List<Long> deadOf(GridQueue.Cells cells, int partition, String group) {
    byte[] value = cells.get(partition, "y" + group);
    return value == null ? List.of() : List.of(Json.read(value, Long[].class));
  }

  private static void noteDead(
      GridQueue.Cells cells, int partition, String group, long sequence, boolean dead) {
    Set<Long> all = new HashSet<>(deadOf(cells, partition, group));
    if (dead) {
      all.add(sequence);
    } else {
      all.remove(sequence);
    }
    cells.put(partition, "y" + group, Json.write(all.stream().sorted().toList()));
  }

  @Override
  public List<Dead> dead(int max) {
    return read(
        "looking at",
        cells -> {
          List<Dead> dead = new ArrayList<>();
          for (int p = 0; p < config.partitions(); p++) {
            for (String group : cells.groups(p)) {
              for (long sequence : deadOf(cells, p, group)) {
                byte[] value = cells.get(p, "x" + group + "~" + sequence);
                if (value != null && dead.size() < max) {
                  DeadStored stored = Json.read(value, DeadStored.class);
                  dead.add(
                      new Dead(
                          p + "-" + sequence,
                          group,
                          stored.message().key(),
                          stored.message().body(),
                          stored.diedAtMs()));
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
      transact(
          "redriving",
          cells -> {
            String cell = "x" + dead.group() + "~" + sequence;
            if (cells.get(partition, cell) == null) {
              return false;
            }
            long next = cells.getLong(partition, "n");
            cells.put(
                partition,
                "m" + next,
                Json.write(new Stored(clock.millis(), 0, 0, dead.key(), dead.body())));
            // Other groups had it: for them it is done.
            for (String group : cells.groups(partition)) {
              if (!group.equals(dead.group())) {
                cells.putProgress(
                    partition, group, cells.progress(partition, group).withDone(next));
              }
            }
            cells.putLong(partition, "n", next + 1);
            cells.remove(partition, cell);
            noteDead(cells, partition, dead.group(), sequence, false);
            return true;
          });
      again++;
    }
    return again;
  }

  @Override
  public void replay(String group, long fromMs) {
    checkReceive(group, 1, Duration.ofSeconds(1), Duration.ZERO);
    for (int p = 0; p < config.partitions(); p++) {
      int partition = p;
      transact(
          "replaying",
          cells -> {
            joinGroup(cells, partition, group);
            long next = cells.getLong(partition, "n");
            long from = cells.getLong(partition, "l");
            while (from < next) {
              Stored stored = message(cells, partition, from);
              if (stored != null && stored.sentAtMs() >= fromMs) {
                break;
              }
              from++;
            }
            cells.putProgress(partition, group, QueueProgress.from(from));
            return true;
          });
    }
    synchronized (arrived) {
      arrived.notifyAll();
    }
  }

  /** Deletes what every group is done with and is older than the retention. */
  void clean() {
    for (int p = 0; p < config.partitions(); p++) {
      int partition = p;
      boolean its =
          grid.read(
              "looking at queue " + name,
              ignite ->
                  ignite
                      .affinity(cacheName(name))
                      .isPrimary(ignite.cluster().localNode(), new AffinityKey<>("n", partition)));
      if (its) {
        cleanPartition(partition);
      }
    }
  }

  private void cleanPartition(int partition) {
    long before = clock.millis() - config.retentionMs();
    long[] bounds =
        read(
            "looking at",
            cells -> {
              long low = cells.getLong(partition, "l");
              long high = cells.getLong(partition, "n");
              for (String group : cells.groups(partition)) {
                high = Math.min(high, cells.progress(partition, group).floor());
              }
              long end = low;
              while (end < high && end < low + BATCH_MAX) {
                Stored stored = message(cells, partition, end);
                if (stored != null && stored.sentAtMs() >= before) {
                  break;
                }
                end++;
              }
              return new long[] {low, end};
            });
    if (bounds[1] > bounds[0]) {
      transact(
          "tidying",
          cells -> {
            for (long sequence = bounds[0]; sequence < bounds[1]; sequence++) {
              cells.remove(partition, "m" + sequence);
            }
            cells.putLong(partition, "l", bounds[1]);
            return true;
          });
      known.get(partition).keySet().removeIf(sequence -> sequence < bounds[1]);
    }
  }
}

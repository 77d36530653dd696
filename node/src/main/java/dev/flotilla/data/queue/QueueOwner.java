package dev.flotilla.data.queue;

import dev.flotilla.data.grid.Grid;
import dev.flotilla.data.queue.Queue.Message;
import dev.flotilla.data.queue.QueueDelivery.Offer;
import dev.flotilla.data.queue.QueueProgress.Trouble;
import java.time.Duration;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.SortedMap;
import java.util.SortedSet;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Function;
import java.util.random.RandomGenerator;
import org.apache.ignite.Ignite;
import org.jspecify.annotations.Nullable;

/**
 * Hands out the messages of those partitions of a queue that are first on this node; see {@link
 * QueueDelivery}. Who else takes itself for the owner of a partition hands out what is handed out
 * elsewhere too, and can take no effect by it: acknowledgements are the grid's.
 */
final class QueueOwner {

  static final int GROUPS_MAX = 100;

  /** Of one answer, about: it goes to other nodes as one message. */
  private static final long ANSWER_BYTES = 2 << 20;

  private static final int BATCHES_CLEANED = 1_000;

  /** Messages that the next owner may have to walk over to find a group's floor, about. */
  private static final long BEHIND_MAX = 10_000;

  /** Another engine, or another set of nodes: somebody else may have been the owner meanwhile. */
  private record Mark(Object engine, long topology, Object cache) {}

  /** A group's hand in a partition. */
  private static final class Hand {
    final QueueDelivery delivery;
    final QueueCursor cursor;

    Hand(QueueDelivery delivery, QueueCursor cursor) {
      this.delivery = delivery;
      this.cursor = cursor;
    }
  }

  /** A partition while it is this node's; guarded by itself. */
  private static final class Owned {
    @Nullable Mark mark;
    int owner;
    long firstCertain;
    final Map<String, Hand> hands = new HashMap<>();
  }

  /** What can be handed out of a partition to a group. */
  private record Look(boolean joined, @Nullable Hand hand, List<Offer> offers) {
    static final Look NOTHING = new Look(true, null, List.of());
    static final Look UNKNOWN_GROUP = new Look(false, null, List.of());
  }

  /** A group's backlog in this node's partitions. */
  record Backlog(long depth, long held, long dead, long oldestSentAtMs) {}

  private final QueueMade made;
  private final String name;
  private final QueueConfig config;
  private final Grid grid;
  private final QueueMetrics metrics;
  private final QueueMessages messages = new QueueMessages();
  private final InstantSource clock;
  private final RandomGenerator random;
  private final List<Owned> partitions = new ArrayList<>();
  private final AtomicInteger turn = new AtomicInteger();

  QueueOwner(
      QueueMade made,
      Grid grid,
      InstantSource clock,
      RandomGenerator random,
      QueueMetrics metrics) {
    this.made = made;
    this.name = made.name();
    this.config = made.config();
    this.grid = grid;
    this.metrics = metrics;
    this.clock = clock;
    this.random = random;
    for (int p = 0; p < config.partitions(); p++) {
      partitions.add(new Owned());
    }
  }

  private <T> T read(Function<QueueCells, T> operation) {
    return grid.read(
        "looking at queue " + name, ignite -> operation.apply(new QueueCells(ignite, made)));
  }

  private <T> T transact(String what, Function<QueueCells, T> operation) {
    return grid.transact(
        what + " queue " + name,
        Grid.TransactionMode.PESSIMISTIC,
        ignite -> operation.apply(new QueueCells(ignite, made)));
  }

  /**
   * Takes note of what is this node's now; the sooner after a change, the less is in doubt. Whether
   * the partition is.
   */
  private boolean holds(QueueCells cells, int partition) {
    Owned owned = partitions.get(partition);
    if (!cells.owner(partition).equals(grid.self())) {
      owned.mark = null;
      owned.hands.clear();
      return false;
    }
    Ignite ignite = cells.ignite;
    Mark now =
        new Mark(
            ignite.cluster().localNode().id(), ignite.cluster().topologyVersion(), cells.made());
    if (!now.equals(owned.mark)) {
      owned.firstCertain = cells.next(partition);
      if (owned.mark == null || !owned.mark.cache().equals(now.cache())) {
        owned.owner = random.nextInt();
        owned.hands.clear();
      }
      owned.mark = now;
      owned.hands.forEach(
          (group, hand) -> {
            QueueProgress progress = cells.progressIfAny(partition, group);
            if (progress != null) {
              hand.delivery.doubt(progress, owned.firstCertain);
            }
          });
    }
    return true;
  }

  /** Looks which partitions are this node's. */
  void look() {
    read(
        cells -> {
          for (int p = 0; p < config.partitions(); p++) {
            synchronized (partitions.get(p)) {
              holds(cells, p);
            }
          }
          return true;
        });
  }

  private Look look(QueueCells cells, int partition, String group, int max) {
    if (!holds(cells, partition)) {
      return Look.NOTHING;
    }
    QueueProgress progress = cells.progressIfAny(partition, group);
    if (progress == null) {
      return Look.UNKNOWN_GROUP;
    }
    long next = cells.next(partition);
    Owned owned = partitions.get(partition);
    Hand hand = owned.hands.get(group);
    if (hand == null || hand.delivery.generation() != progress.generation()) {
      hand =
          new Hand(
              new QueueDelivery(owned.owner, progress, owned.firstCertain),
              new QueueCursor(progress.start()));
      owned.hands.put(group, hand);
    }
    var window =
        hand.cursor.window(
            progress.floor(), next, first -> messages.batch(cells, partition, first));
    if (progress.depth(next) == 0) {
      return Look.NOTHING;
    }
    return new Look(
        true,
        hand,
        hand.delivery.next(window, progress, clock.millis(), max, hand.cursor.highest()));
  }

  /** Whether something can be handed out to a group, or it is new here. */
  boolean mayHave(String group) {
    return read(
        cells -> {
          for (int p = 0; p < config.partitions(); p++) {
            synchronized (partitions.get(p)) {
              Look look = look(cells, p, group, 1);
              if (!look.joined() || !look.offers().isEmpty()) {
                return true;
              }
            }
          }
          return false;
        });
  }

  /** Hands out what there is now, from one partition after the other. */
  List<Message> receive(String group, int max, Duration visibility) {
    Taken taken = new Taken(group, max, visibility);
    takeFromAll(taken, 0);
    return taken.all;
  }

  /**
   * Hands out what there is now, of all partitions the higher priorities first, and nothing of a
   * lower priority than the least.
   */
  List<Message> receiveByPriority(String group, int max, Duration visibility, int least) {
    SortedSet<Integer> priorities = new TreeSet<>(Comparator.reverseOrder());
    for (int p = 0; p < config.partitions(); p++) {
      offers(p, group, max).forEach(offer -> priorities.add(offer.message().priority()));
    }
    Taken taken = new Taken(group, max, visibility);
    for (int priority : priorities) {
      if (priority >= least) {
        takeFromAll(taken, priority);
      }
    }
    return taken.all;
  }

  /** The highest priority of what there is now; -1 if there is nothing. */
  int best(String group) {
    int best = -1;
    for (int p = 0; p < config.partitions(); p++) {
      for (Offer offer : offers(p, group, 1)) {
        best = Math.max(best, offer.message().priority());
      }
    }
    return best;
  }

  private List<Offer> offers(int partition, String group, int max) {
    synchronized (partitions.get(partition)) {
      return joined(partition, group, max).offers();
    }
  }

  /** What a call has been given so far. */
  private static final class Taken {
    final String group;
    final int max;
    final Duration visibility;
    final List<Message> all = new ArrayList<>();
    long bytes;

    Taken(String group, int max, Duration visibility) {
      this.group = group;
      this.max = max;
      this.visibility = visibility;
    }
  }

  private void takeFromAll(Taken taken, int least) {
    int first = turn.getAndIncrement();
    for (int i = 0; i < config.partitions(); i++) {
      if (taken.all.size() == taken.max || taken.bytes >= ANSWER_BYTES) {
        return;
      }
      take(taken, Math.floorMod(first + i, config.partitions()), least);
    }
  }

  /** Looks, and makes the group if it is new here. */
  private Look joined(int partition, String group, int max) {
    Look look = read(cells -> look(cells, partition, group, max));
    if (look.joined()) {
      return look;
    }
    transact(
        "joining",
        cells -> {
          cells.join(partition, group, GROUPS_MAX);
          return true;
        });
    return read(cells -> look(cells, partition, group, max));
  }

  private void take(Taken taken, int partition, int least) {
    String group = taken.group;
    synchronized (partitions.get(partition)) {
      Look look = joined(partition, group, taken.max - taken.all.size());
      Hand hand = look.hand();
      List<Offer> offers =
          fitting(look.offers().stream().filter(o -> o.message().priority() >= least).toList());
      if (hand == null || offers.isEmpty()) {
        return;
      }
      long untilMs = clock.millis() + taken.visibility.toMillis();
      List<Offer> refused =
          offers.stream().anyMatch(Offer::durable)
              ? note(partition, group, hand.delivery, offers, untilMs)
              : List.of();
      int handed = 0;
      for (Offer offer : offers) {
        if (!refused.contains(offer)) {
          long sequence = offer.message().sequence();
          if (!offer.durable()) {
            hand.delivery.handedOut(sequence, untilMs);
          }
          handed++;
          taken.bytes += offer.message().body().length;
          taken.all.add(
              new Message(
                  partition + "-" + sequence,
                  new QueueReceipt(
                          group,
                          partition,
                          sequence,
                          offer.attempt(),
                          hand.delivery.owner(),
                          hand.delivery.generation())
                      .text(),
                  offer.message().key(),
                  offer.message().body(),
                  offer.attempt()));
        }
      }
      metrics.received(name, handed);
    }
  }

  private static List<Offer> fitting(List<Offer> offers) {
    long bytes = 0;
    for (int i = 0; i < offers.size(); i++) {
      bytes += offers.get(i).message().body().length;
      if (bytes > ANSWER_BYTES) {
        return offers.subList(0, i + 1);
      }
    }
    return offers;
  }

  /** Writes what must be known before it is handed out; returns what is not to be. */
  private List<Offer> note(
      int partition, String group, QueueDelivery delivery, List<Offer> offers, long untilMs) {
    AtomicInteger died = new AtomicInteger();
    List<Offer> all =
        transact(
            "handing out of",
            cells -> {
              QueueProgress progress = cells.progress(partition, group);
              List<Offer> refused = new ArrayList<>();
              if (progress.generation() != delivery.generation()) {
                return offers;
              }
              for (Offer offer : offers) {
                long sequence = offer.message().sequence();
                if (progress.isDone(sequence)) {
                  refused.add(offer);
                } else if (offer.attempt() > config.attemptsMax()) {
                  cells.die(partition, group, offer.message(), clock.millis());
                  died.incrementAndGet();
                  progress = progress.withDone(List.of(sequence));
                  refused.add(offer);
                } else if (offer.durable()) {
                  progress =
                      progress.withTrouble(
                          sequence, new Trouble(offer.attempt(), delivery.owner(), untilMs));
                }
              }
              cells.putProgress(partition, group, progress);
              return refused;
            });
    metrics.died(name, died.get());
    return all;
  }

  /** The groups' backlogs in this node's partitions. */
  Map<String, Backlog> backlogs() {
    return read(
        cells -> {
          Map<String, Backlog> all = new TreeMap<>();
          for (int p = 0; p < config.partitions(); p++) {
            synchronized (partitions.get(p)) {
              if (holds(cells, p)) {
                for (String group : cells.groups(p)) {
                  all.merge(group, backlog(cells, p, group), QueueOwner::sum);
                }
              }
            }
          }
          return all;
        });
  }

  private Backlog backlog(QueueCells cells, int partition, String group) {
    look(cells, partition, group, 1);
    QueueProgress progress = cells.progress(partition, group);
    Hand hand = partitions.get(partition).hands.get(group);
    long depth = progress.depth(cells.next(partition));
    QueueBatch oldest =
        depth == 0 || hand == null ? null : messages.batch(cells, partition, hand.cursor.batch());
    return new Backlog(
        depth,
        hand == null ? 0 : hand.delivery.held(progress, clock.millis()),
        cells.dead(partition, group).size(),
        oldest == null ? Long.MAX_VALUE : oldest.sentAtMs());
  }

  private static Backlog sum(Backlog one, Backlog other) {
    return new Backlog(
        one.depth() + other.depth(),
        one.held() + other.held(),
        one.dead() + other.dead(),
        Math.min(one.oldestSentAtMs(), other.oldestSentAtMs()));
  }

  /** Deletes what every group is done with and is older than the retention. */
  void clean() {
    for (int p = 0; p < config.partitions(); p++) {
      synchronized (partitions.get(p)) {
        int partition = p;
        Stale stale = read(cells -> stale(cells, partition));
        if (!stale.starts().isEmpty()) {
          transact("tidying", cells -> tidy(cells, partition, stale));
        }
      }
    }
  }

  /**
   * What can be tidied.
   *
   * @param starts for each group that is behind it the batch of its floor
   * @param batches to delete, by their first sequences
   * @param low the first batch that stays
   */
  private record Stale(SortedMap<String, Long> starts, List<Long> batches, long low) {}

  private Stale stale(QueueCells cells, int partition) {
    SortedMap<String, Long> starts = new TreeMap<>();
    if (!holds(cells, partition)) {
      return new Stale(starts, List.of(), 0);
    }
    long before = clock.millis() - config.retentionMs();
    long low = cells.low(partition);
    long high = cells.next(partition);
    long behind = 0;
    for (String group : cells.groups(partition)) {
      look(cells, partition, group, 1);
      QueueProgress progress = cells.progress(partition, group);
      Hand hand = partitions.get(partition).hands.get(group);
      long start = hand == null ? progress.start() : hand.cursor.batch();
      starts.put(group, start);
      behind = Math.max(behind, start - progress.start());
      high = Math.min(high, start);
    }
    List<Long> batches = new ArrayList<>();
    while (low < high && batches.size() < BATCHES_CLEANED) {
      QueueBatch batch = messages.batch(cells, partition, low);
      if (batch == null || batch.sentAtMs() >= before) {
        break;
      }
      batches.add(low);
      low = batch.end();
    }
    if (batches.isEmpty() && behind < BEHIND_MAX) {
      starts.clear();
    }
    return new Stale(starts, batches, low);
  }

  private static boolean tidy(QueueCells cells, int partition, Stale stale) {
    Map<String, QueueProgress> moved = new TreeMap<>();
    for (String group : stale.starts().keySet()) {
      QueueProgress progress = cells.progressIfAny(partition, group);
      long start = stale.starts().getOrDefault(group, 0L);
      if (progress == null || progress.floor() < start) {
        // The queue was made anew or the group replayed meanwhile.
        return false;
      }
      if (progress.start() < start) {
        moved.put(group, progress.withStart(start));
      }
    }
    moved.forEach((group, progress) -> cells.putProgress(partition, group, progress));
    stale.batches().forEach(first -> cells.remove(partition, "b" + first));
    cells.put(partition, "l", QueueCells.number(stale.low()));
    return true;
  }
}

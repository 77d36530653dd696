package dev.flotilla.data.usage;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.IoReason;
import dev.flotilla.Json;
import dev.flotilla.data.grid.Environment;
import dev.flotilla.data.grid.Grid;
import dev.flotilla.data.grid.Grid.TransactionMode;
import dev.flotilla.data.usage.UsageTotals.Line;
import io.micrometer.core.instrument.Counter;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executors;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.apache.ignite.Ignite;
import org.apache.ignite.IgniteCache;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The usage ledger on the grid.
 *
 * <p><b>Appending.</b> A request's thread hands its event to this node's journal and waits until
 * the journal has been given to the operating system, or 10 ms, before its answer ends. Twice a
 * second the journal's files are forced to the disk, shipped to the grid and deleted. What is
 * promised of an answer whose end a client has seen:
 *
 * <ul>
 *   <li>kill -9 of the node, at any moment: its event is kept, and counted when the node is back;
 *       after it was shipped, whatever happens to the node (unless the write took more than 10 ms,
 *       as on a disk that stalls: then only if the process lives until it is done);
 *   <li>loss of power: the same, but for the last half second before it;
 *   <li>loss of the disk: what was not shipped, half a second's worth while a majority is there, is
 *       lost;
 *   <li>a full disk, or a journal that may not grow further because no majority takes it: events
 *       are kept in memory up to a bound, then dropped; {@code flotilla.usage.lost} counts them.
 * </ul>
 *
 * <p><b>The log</b> is a dense sequence of segments 1, 2, 3 …, each some events. A shipment is one
 * transaction that locks the head, drops the events whose request ids are known, writes the rest as
 * the next segment with their ids, and moves the head. So an event is in the log exactly once,
 * however often it is shipped and by whomever; and every prefix of the log is a consistent state.
 *
 * <p><b>The views.</b> A view over segments a to b is a fold of their events ({@link UsageTotals}),
 * which is a commutative sum, so that folds over parts add up to the fold over all. The batch view
 * is the fold over segments 1 to W, kept in the grid by day together with W, its watermark; the
 * speed view is a fold per segment after W, in this node's memory. A query takes the batch view and
 * W in one transaction, reads the head, folds the segments it has not seen yet, and adds up: so the
 * two always agree, whatever W is. The Raft leader's node moves W on now and then, adding the
 * segments' folds to the batch view in one transaction that rests on the W it started from.
 */
public final class GridUsage implements Usage, AutoCloseable {

  private static final Logger log = LoggerFactory.getLogger(GridUsage.class);
  static final String LOG = "flotilla.usage.log";
  private static final String IDS = "flotilla.usage.ids";
  static final String VIEWS = "flotilla.usage.views";
  static final String HEAD = "head";
  private static final String BATCH = "batch";
  private static final String DAY = "day/";
  private static final long SHIP_MS = 500;
  private static final long ADVANCE_MS = 10_000;
  private static final long SEGMENTS_BEHIND_MAX = 20;
  private static final long APPEND_WAIT_MS = 10;
  private static final int SEGMENT_EVENTS = 500;
  private static final int READ_SEGMENTS = 50;
  private static final int QUEUE_MAX = 100_000;
  private static final int TRIES = 10;
  private static final long CLOSE_LOOK_MS = 100;
  private static final long CLOSE_PATIENCE_MS = 3000;
  private static final long JOURNAL_BYTES_MAX = 256L << 20;

  /** A segment's events. */
  record Segment(List<UsageEvent> events) {}

  /** Up to where the batch view goes, and the days it has. */
  record Batch(long watermark, Set<String> days) {}

  /** A day of the batch view. */
  record Day(List<Line> lines) {}

  private record Pending(UsageEvent event, CompletableFuture<Boolean> written) {}

  private record BatchView(Batch batch, List<Day> days) {}

  private final Environment environment;
  private final Grid grid;
  private final Counter appended;
  private final Counter lost;
  private final LinkedBlockingQueue<Pending> queue = new LinkedBlockingQueue<>(QUEUE_MAX);
  private final LinkedBlockingQueue<UsageEvent> unwritten = new LinkedBlockingQueue<>(QUEUE_MAX);
  private final TreeMap<Long, UsageTotals> speed = new TreeMap<>();
  private final ScheduledExecutorService timer =
      Executors.newSingleThreadScheduledExecutor(
          Thread.ofPlatform().daemon().name("usage-shipping").factory());
  private volatile @Nullable UsageJournal journal;
  private volatile @Nullable Thread writer;
  private volatile boolean closing;

  public GridUsage(Environment environment, Grid grid) {
    this.environment = environment;
    this.grid = grid;
    this.appended =
        Counter.builder("flotilla.usage.events")
            .description("Completed requests that this node took for the usage ledger")
            .register(environment.metrics());
    this.lost =
        Counter.builder("flotilla.usage.lost")
            .description("Completed requests that the usage ledger could not keep")
            .register(environment.metrics());
    grid.onStart(
        ignite -> {
          events(ignite);
          ids(ignite);
          views(ignite);
        });
  }

  private <K, V> IgniteCache<K, V> engine(Ignite ignite, String name) {
    return grid.cache(ignite, name, config -> config.setGroupName("flotilla.usage"));
  }

  private IgniteCache<Long, byte[]> events(Ignite ignite) {
    return engine(ignite, LOG);
  }

  private IgniteCache<String, Long> ids(Ignite ignite) {
    return engine(ignite, IDS);
  }

  private IgniteCache<String, byte[]> views(Ignite ignite) {
    return engine(ignite, VIEWS);
  }

  /** Opens the journal, and ships what is left in it from before. */
  public void start() {
    Path folder = environment.folder().resolve("data").resolve("usage");
    try {
      UsageJournal opened = new UsageJournal(folder, JOURNAL_BYTES_MAX);
      journal = opened;
      writer = Thread.ofPlatform().daemon().name("usage-journal").start(() -> write(opened));
    } catch (IOException e) {
      throw new FlotillaException(
          Code.STORAGE,
          "the usage journal cannot be opened in " + folder + ": " + IoReason.of(e),
          "Make room or rights there, then start again.",
          e);
    }
    timer.scheduleWithFixedDelay(this::ship, SHIP_MS, SHIP_MS, TimeUnit.MILLISECONDS);
    timer.scheduleWithFixedDelay(this::advance, ADVANCE_MS, ADVANCE_MS, TimeUnit.MILLISECONDS);
  }

  // Appending.

  @Override
  public void append(UsageEvent event) {
    appended.increment();
    Pending pending = new Pending(event, new CompletableFuture<>());
    if (!queue.offer(pending)) {
      lose(1, "too many wait");
      return;
    }
    if (writer == null) {
      return;
    }
    try {
      pending.written().get(APPEND_WAIT_MS, TimeUnit.MILLISECONDS);
    } catch (TimeoutException | ExecutionException late) {
      // The answer must not wait; the event is still written, as long as the process lives.
      log.debug("usage of {} is written late", event.requestId());
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  private void lose(int count, String why) {
    lost.increment(count);
    log.error("usage of {} requests is lost: {}", count, why);
  }

  private void write(UsageJournal opened) {
    List<Pending> batch = new ArrayList<>();
    // Not ended by an interrupt, which would close the file under a write.
    while (!closing) {
      batch.clear();
      try {
        Pending first = queue.poll(CLOSE_LOOK_MS, TimeUnit.MILLISECONDS);
        if (first != null) {
          batch.add(first);
        }
      } catch (InterruptedException e) {
        throw new IllegalStateException("nobody interrupts the journal", e);
      }
      queue.drainTo(batch, SEGMENT_EVENTS - 1);
      if (!batch.isEmpty()) {
        write(opened, batch.stream().map(Pending::event).toList());
        batch.forEach(pending -> pending.written().complete(true));
      }
    }
  }

  private void write(UsageJournal opened, List<UsageEvent> events) {
    try {
      opened.append(events);
    } catch (IOException e) {
      log.error("usage cannot be written to the journal, and is kept in memory: {}", e.toString());
      for (UsageEvent event : events) {
        if (!unwritten.offer(event)) {
          lose(1, "neither disk nor memory takes it");
        }
      }
    }
  }

  // Shipping.

  private void ship() {
    UsageJournal opened = journal;
    if (opened == null) {
      return;
    }
    try {
      for (Path sealed : opened.seal()) {
        ship(opened.read(sealed));
        opened.delete(sealed);
      }
      List<UsageEvent> kept = new ArrayList<>(unwritten);
      if (!kept.isEmpty()) {
        ship(kept);
        for (int i = 0; i < kept.size(); i++) {
          unwritten.remove();
        }
      }
    } catch (FlotillaException e) {
      log.debug("usage is not shipped now, and is tried again: {}", e.getMessage());
    } catch (IOException | RuntimeException e) {
      log.warn("usage could not be shipped, and is tried again: {}", e.toString());
    }
  }

  private void ship(List<UsageEvent> events) {
    for (int from = 0; from < events.size(); from += SEGMENT_EVENTS) {
      List<UsageEvent> some = events.subList(from, Math.min(events.size(), from + SEGMENT_EVENTS));
      var _ =
          grid.transact(
              "appending to the usage ledger",
              TransactionMode.PESSIMISTIC,
              ignite -> appendSegment(ignite, some));
    }
  }

  private long appendSegment(Ignite ignite, List<UsageEvent> shipped) {
    long head = number(views(ignite).get(HEAD));
    Map<String, UsageEvent> fresh = new LinkedHashMap<>();
    shipped.forEach(event -> fresh.putIfAbsent(event.requestId(), event));
    fresh.keySet().removeAll(ids(ignite).getAll(new TreeSet<>(fresh.keySet())).keySet());
    if (fresh.isEmpty()) {
      return head;
    }
    long segment = head + 1;
    Map<String, Long> known = new TreeMap<>();
    fresh.keySet().forEach(id -> known.put(id, segment));
    events(ignite).put(segment, Json.write(new Segment(List.copyOf(fresh.values()))));
    ids(ignite).putAll(known);
    views(ignite).put(HEAD, Json.write(segment));
    return segment;
  }

  private static long number(byte @Nullable [] json) {
    return json == null ? 0 : Json.read(json, Long.class);
  }

  // The views.

  private static Batch batch(byte @Nullable [] json) {
    return json == null ? new Batch(0, Set.of()) : Json.read(json, Batch.class);
  }

  private long head() {
    return grid.read("reading the usage ledger", ignite -> number(views(ignite).get(HEAD)));
  }

  /** The folds of segments, by number. */
  private Map<Long, UsageTotals> folds(Set<Long> segments) {
    Map<Long, UsageTotals> folds = new HashMap<>();
    List<Long> all = List.copyOf(segments);
    for (int from = 0; from < all.size(); from += READ_SEGMENTS) {
      Set<Long> some = new TreeSet<>(all.subList(from, Math.min(all.size(), from + READ_SEGMENTS)));
      Map<Long, byte[]> read =
          grid.read("reading the usage ledger", ignite -> events(ignite).getAll(some));
      if (read.size() < some.size()) {
        // A commit shows its entries one after the other; who locks them waits for all of it.
        read =
            grid.transact(
                "reading the usage ledger",
                TransactionMode.PESSIMISTIC,
                ignite -> events(ignite).getAll(some));
      }
      for (long segment : some) {
        byte[] json = read.get(segment);
        if (json == null) {
          throw new FlotillaException(
              Code.UNAVAILABLE,
              "segment " + segment + " of the usage ledger cannot be read now",
              "Try again soon.");
        }
        UsageTotals fold = new UsageTotals();
        Json.read(json, Segment.class).events().forEach(fold::add);
        folds.put(segment, fold);
      }
    }
    return folds;
  }

  private static Set<Long> range(long first, long last) {
    Set<Long> range = new TreeSet<>();
    for (long segment = first; segment <= last; segment++) {
      range.add(segment);
    }
    return range;
  }

  /** Makes the speed view that of the segments after the watermark up to the head. */
  private synchronized List<UsageTotals> speedView(long watermark, long head) {
    speed.headMap(watermark, true).clear();
    Set<Long> missing = range(watermark + 1, head);
    missing.removeAll(speed.keySet());
    speed.putAll(folds(missing));
    return List.copyOf(speed.headMap(head, true).values());
  }

  @Override
  public Report report(long fromMs, long toMs, By by) {
    long from = Math.floorDiv(fromMs, UsageTotals.HOUR_MS) * UsageTotals.HOUR_MS;
    long to = -Math.floorDiv(-toMs, UsageTotals.HOUR_MS) * UsageTotals.HOUR_MS;
    if (fromMs > toMs || from >= to) {
      throw new FlotillaException(
          Code.INVALID, "the time asked for ends before it begins", "Exchange from and to.");
    }
    BatchView view = batchView(from, to);
    long watermark = view.batch().watermark();
    long head = Math.max(watermark, head());
    UsageTotals all = new UsageTotals();
    view.days().forEach(day -> all.addAll(day.lines()));
    speedView(watermark, head).forEach(fold -> all.addAll(fold.lines()));
    return new Report(
        from,
        to,
        all.rows(by, group -> group.hourMs() >= from && group.hourMs() < to),
        watermark,
        head);
  }

  /** The batch view's days in a time with their watermark, as they stood at one moment. */
  private BatchView batchView(long fromMs, long toMs) {
    String first = UsageTotals.day(Math.max(0, fromMs));
    String last = UsageTotals.day(Math.min(toMs, 253_402_300_799_999L));
    for (int attempt = 1; ; attempt++) {
      try {
        return grid.transact(
            "reading the usage ledger",
            TransactionMode.OPTIMISTIC,
            ignite -> {
              Batch batch = batch(views(ignite).get(BATCH));
              Set<String> keys = new TreeSet<>();
              batch.days().stream()
                  .filter(day -> day.compareTo(first) >= 0 && day.compareTo(last) <= 0)
                  .forEach(day -> keys.add(DAY + day));
              List<Day> days = new ArrayList<>();
              views(ignite).getAll(keys).values().forEach(d -> days.add(Json.read(d, Day.class)));
              return new BatchView(batch, days);
            });
      } catch (FlotillaException e) {
        // The batch view moved on while it was read.
        if (e.code() != Code.CONFLICT || attempt == TRIES) {
          throw e;
        }
      }
    }
  }

  /** On one node, the leader's: moves the watermark on. */
  private void advance() {
    try {
      if (!environment.cluster().leader().equals(Optional.of(environment.cluster().self()))) {
        return;
      }
      Batch batch =
          grid.read("reading the usage ledger", ignite -> batch(views(ignite).get(BATCH)));
      long head = head();
      if (head - batch.watermark() >= SEGMENTS_BEHIND_MAX) {
        advance(batch.watermark(), head);
      }
    } catch (FlotillaException e) {
      log.debug("the usage ledger's batch view is not moved on now: {}", e.getMessage());
    } catch (RuntimeException e) {
      log.warn("the usage ledger's batch view could not be moved on: {}", e.toString());
    }
  }

  /** Adds segments to the batch view, if its watermark is still the one they follow. */
  boolean advance(long watermark, long head) {
    UsageTotals more = new UsageTotals();
    folds(range(watermark + 1, head)).values().forEach(fold -> more.addAll(fold.lines()));
    return grid.transact(
        "moving the usage ledger's batch view on",
        TransactionMode.PESSIMISTIC,
        ignite -> {
          Batch batch = batch(views(ignite).get(BATCH));
          if (batch.watermark() != watermark) {
            return false;
          }
          Map<String, byte[]> written = new TreeMap<>();
          Set<String> days = new TreeSet<>(batch.days());
          more.byDay()
              .forEach(
                  (day, lines) -> {
                    UsageTotals whole = new UsageTotals().addAll(lines);
                    byte[] before = views(ignite).get(DAY + day);
                    if (before != null) {
                      whole.addAll(Json.read(before, Day.class).lines());
                    }
                    written.put(DAY + day, Json.write(new Day(whole.lines())));
                    days.add(day);
                  });
          written.put(BATCH, Json.write(new Batch(head, days)));
          views(ignite).putAll(written);
          return true;
        });
  }

  /** Drops both views; queries are then answered by folding the whole log. */
  void dropViews() {
    var _ =
        grid.transact(
            "dropping the usage ledger's batch view",
            TransactionMode.PESSIMISTIC,
            ignite -> replaceBatch(ignite, 0, new UsageTotals()));
    dropSpeed();
  }

  private synchronized void dropSpeed() {
    speed.clear();
  }

  private boolean replaceBatch(Ignite ignite, long watermark, UsageTotals totals) {
    Batch batch = batch(views(ignite).get(BATCH));
    Map<String, byte[]> written = new TreeMap<>();
    totals.byDay().forEach((day, lines) -> written.put(DAY + day, Json.write(new Day(lines))));
    Set<String> days = new TreeSet<>(totals.byDay().keySet());
    Set<String> gone = new TreeSet<>();
    batch.days().stream().filter(day -> !days.contains(day)).forEach(day -> gone.add(DAY + day));
    views(ignite).removeAll(gone);
    written.put(BATCH, Json.write(new Batch(watermark, days)));
    views(ignite).putAll(written);
    return true;
  }

  @Override
  public Rebuilt rebuild() {
    long head = head();
    UsageTotals all = new UsageTotals();
    for (long from = 1; from <= head; from += READ_SEGMENTS) {
      folds(range(from, Math.min(head, from + READ_SEGMENTS - 1)))
          .values()
          .forEach(fold -> all.addAll(fold.lines()));
    }
    var _ =
        grid.transact(
            "rebuilding the usage ledger's batch view",
            TransactionMode.PESSIMISTIC,
            ignite -> replaceBatch(ignite, head, all));
    dropSpeed();
    long events = all.lines().stream().mapToLong(line -> line.sums().requests()).sum();
    log.info("usage ledger: views rebuilt from {} events in {} segments", events, head);
    return new Rebuilt(head, events);
  }

  @Override
  public void close() {
    closing = true;
    timer.shutdown();
    Thread running = writer;
    UsageJournal opened = journal;
    if (running == null || opened == null) {
      return;
    }
    try {
      running.join(CLOSE_PATIENCE_MS);
      // Before any shipment is waited for: what lies in the journal is not lost with this process.
      List<Pending> rest = new ArrayList<>();
      queue.drainTo(rest);
      if (!rest.isEmpty()) {
        write(opened, rest.stream().map(Pending::event).toList());
      }
      if (timer.awaitTermination(CLOSE_PATIENCE_MS, TimeUnit.MILLISECONDS)) {
        ship();
      }
      opened.close();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    } catch (IOException e) {
      log.warn("the usage journal could not be closed: {}", e.toString());
    }
  }
}

package dev.flotilla.data.sql;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.data.grid.Grid;
import dev.flotilla.data.proto.ReachRequest;
import dev.flotilla.data.proto.ShardsGrpc;
import dev.flotilla.data.sql.GridSharding.Entry;
import dev.flotilla.data.sql.GridSharding.Moving;
import dev.flotilla.data.sql.GridSharding.Stored;
import dev.flotilla.data.sql.Sharding.Shard;
import io.grpc.StatusRuntimeException;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.Collectors;
import org.apache.ignite.Ignite;
import org.apache.ignite.IgniteCache;
import org.apache.ignite.IgniteCheckedException;
import org.apache.ignite.cache.CachePeekMode;
import org.apache.ignite.cache.QueryEntity;
import org.apache.ignite.cache.QueryIndex;
import org.apache.ignite.cache.query.ScanQuery;
import org.apache.ignite.internal.IgniteEx;
import org.apache.ignite.internal.processors.cache.DynamicCacheDescriptor;
import org.apache.ignite.internal.processors.query.QueryEntityEx;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Moves a table's rows to other shards while statements go on.
 *
 * <p>The engine cannot change the partition of a key in a live table, so the rows go to a new table
 * of the new sharding, in steps that the registry records and every node reaches before the next
 * ({@link ShardGate}):
 *
 * <ol>
 *   <li><b>Mirror.</b> From now on every transaction that writes rows of the table also writes them
 *       to the new one, before it commits. Statements that began earlier have ended.
 *   <li><b>Copy.</b> In batches, each a transaction that locks its rows in the table, and so runs
 *       wholly before or wholly after any write of them. When all rows have been copied, the two
 *       tables are equal, and stay so.
 *   <li><b>Hold.</b> New statements wait until those that run have ended: some milliseconds. The
 *       two are counted as a last check.
 *   <li><b>Switch.</b> The name now means the new table; statements go on. The old one is dropped.
 * </ol>
 *
 * <p>Up to the switch the old table has everything, so whatever goes wrong, the move is undone by
 * forgetting it. If the node that drives it dies, the leader does that, or the node itself when it
 * is back.
 */
final class ShardMove {

  private static final Logger log = LoggerFactory.getLogger(ShardMove.class);
  private static final int BATCH_ROWS = 200;
  private static final int PASSES_MAX = 5;
  private static final long REACH_MS = 10_000;
  private static final long HOLD_MS = 2_000;
  private static final int HOLD_TRIES = 10;
  private static final int TAKE_BACK_TRIES = 60;
  private static final Grid.TransactionMode COPYING =
      new Grid.TransactionMode(
          Grid.TransactionMode.PESSIMISTIC.concurrency(),
          Grid.TransactionMode.PESSIMISTIC.isolation(),
          1_000);

  private final Cluster cluster;
  private final Grid grid;
  private final GridSharding sharding;
  private final AtomicLong moves = new AtomicLong();
  private final AtomicLong rowsCopied = new AtomicLong();
  private final AtomicLong lastHoldMs = new AtomicLong();
  private final Set<String> tidying = ConcurrentHashMap.newKeySet();

  /** Tables that this process moves now. */
  private final Set<String> driving = ConcurrentHashMap.newKeySet();

  ShardMove(Cluster cluster, Grid grid, GridSharding sharding) {
    this.cluster = cluster;
    this.grid = grid;
    this.sharding = sharding;
  }

  Map<String, Long> counters() {
    return Map.of(
        "moves", moves.get(), "rows_copied", rowsCopied.get(), "last_hold_ms", lastHoldMs.get());
  }

  /** Returns when the table has these shards. */
  void move(Entry entry, List<Shard> shards) {
    Stored stored = entry.stored();
    String table = stored.table();
    if (stored.moving().isPresent()) {
      throw GridSharding.beingMoved(table);
    }
    if (stored.colocatedWith().isPresent()
        || sharding.stored().stream()
            .anyMatch(each -> each.colocatedWith().equals(Optional.of(table)))) {
      throw new FlotillaException(
          Code.INVALID,
          "table " + table + " shares its partitions with co-located tables",
          "Moving one of them would part them; make new tables and copy.");
    }
    if (!driving.add(table)) {
      throw GridSharding.beingMoved(table);
    }
    long epoch;
    boolean done = false;
    try {
      Begun begun = begin(entry, shards);
      epoch = drive(begun.mirroring(), begun.epoch());
      done = true;
    } finally {
      driving.remove(table);
      if (!done) {
        // What could not be taken back at once is, as soon as the registry can be written.
        takeBackOwn();
      }
    }
    moves.incrementAndGet();
    log.info("table {} has {} shards now", table, shards.size());
    dropLeft(table, epoch);
  }

  /** A move that the registry knows of. */
  private record Begun(Stored mirroring, long epoch) {}

  private Begun begin(Entry entry, List<Shard> shards) {
    Entry now = entry;
    while (true) {
      Stored stored = now.stored();
      long chosen = sharding.chosen();
      Stored mirroring =
          stored.with(
              Optional.of(
                  new Moving(
                      List.copyOf(shards),
                      sharding.freePartitions(shards.size() * stored.spread()),
                      freeGeneration(stored),
                      cluster.self(),
                      false)));
      GridSharding.affinity(mirroring.moved());
      // The new table first: once the registry names it, every write goes there too.
      createTarget(mirroring);
      Optional<Long> epoch = sharding.putChosen(mirroring, now.epoch(), chosen);
      if (epoch.isPresent()) {
        return new Begun(mirroring, epoch.get());
      }
      destroy(mirroring.target().orElseThrow());
      cluster.registry().sync();
      // What the move before left may have been dropped meanwhile: the shards are the same then.
      now =
          sharding
              .entry(stored.table())
              .filter(e -> e.stored().moving().isEmpty())
              .filter(e -> e.stored().shards().equals(stored.shards()))
              .orElseThrow(() -> GridSharding.beingMoved(stored.table()));
    }
  }

  /** Returns the state in which the move is done. */
  private long drive(Stored mirroring, long mirrored) {
    String table = mirroring.table();
    long epoch = mirrored;
    try {
      require(reachAll(epoch, REACH_MS), table, "a node did not answer, or a statement ran long");
      copyAll(mirroring);
      return holdAndSwitch(mirroring, epoch);
    } catch (RuntimeException e) {
      undo(table, cluster.self());
      throw e;
    }
  }

  /**
   * Undoes what this node does not drive any more: at each start of the engine what it drove before
   * its process ended, and what failed. The leader does that only for nodes that are gone.
   */
  void takeBackOwn() {
    Thread.ofVirtual()
        .start(
            () -> {
              for (int attempt = 0; attempt < TAKE_BACK_TRIES && hasOwnLeft(); attempt++) {
                for (Stored stored : sharding.stored()) {
                  if (isOwnLeft(stored)) {
                    undo(stored.table(), cluster.self());
                  }
                }
                try {
                  Thread.sleep(1_000);
                } catch (InterruptedException e) {
                  return;
                }
              }
            });
  }

  private boolean hasOwnLeft() {
    return sharding.stored().stream().anyMatch(this::isOwnLeft);
  }

  private boolean isOwnLeft(Stored stored) {
    return !driving.contains(stored.table())
        && stored.moving().filter(move -> move.driver().equals(cluster.self())).isPresent();
  }

  /** One whose name no table has. */
  private int freeGeneration(Stored stored) {
    return grid.read(
        "moving table " + stored.table(),
        ignite -> {
          int next = stored.generation() + 1;
          while (ignite.cache(GridSharding.cacheName(stored.physical(next))) != null) {
            next++;
          }
          return next;
        });
  }

  /** Drops what moves have left, unless a statement may still use it; then the leader will. */
  private void dropLeft(String table, long epoch) {
    try {
      Optional<Entry> entry = sharding.entry(table).filter(each -> each.epoch() == epoch);
      if (entry.isPresent() && reachAll(epoch, REACH_MS)) {
        Stored stored = entry.get().stored();
        stored.left().forEach(each -> destroy(stored.physical(each)));
        var _ = sharding.put(table, epoch, Optional.of(stored.withoutLeft()));
      }
    } catch (FlotillaException e) {
      log.info("what a move of table {} left is not dropped yet: {}", table, e.getMessage());
    }
  }

  private static void require(boolean condition, String table, String why) {
    if (!condition) {
      throw new FlotillaException(
          Code.UNAVAILABLE,
          "the rows of table " + table + " could not be moved: " + why,
          "All is as it was; try again.");
    }
  }

  private long holdAndSwitch(Stored mirroring, long mirrored) {
    String table = mirroring.table();
    Moving move = mirroring.moving().orElseThrow();
    Moving hold =
        new Moving(move.shards(), move.partitions(), move.generation(), move.driver(), true);
    long epoch = mirrored;
    for (int attempt = 0; attempt < HOLD_TRIES; attempt++) {
      long startNs = System.nanoTime();
      epoch = next(table, epoch, mirroring.with(Optional.of(hold)));
      if (reachAll(epoch, HOLD_MS) && equal(mirroring)) {
        epoch = next(table, epoch, mirroring.moved());
        lastHoldMs.set(TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - startNs));
        return epoch;
      }
      // A long statement runs, or rows are missing since a node came or went: let all go on.
      epoch = next(table, epoch, mirroring);
      require(reachAll(epoch, REACH_MS), table, "a node did not answer");
      copyAll(mirroring);
    }
    throw new FlotillaException(
        Code.UNAVAILABLE,
        "the rows of table " + table + " could not be moved: statements on it never paused",
        "All is as it was; try again when no statement runs for seconds.");
  }

  private long next(String table, long epoch, Stored value) {
    return sharding
        .put(table, epoch, Optional.of(value))
        .orElseThrow(
            () ->
                new FlotillaException(
                    Code.CONFLICT,
                    "the move of table " + table + " was taken back by another node",
                    "All is as it was; try again."));
  }

  private boolean equal(Stored stored) {
    return grid.read(
        "counting table " + stored.table(),
        ignite -> count(ignite, stored.physical()) == count(ignite, stored.target().orElseThrow()));
  }

  private static long count(Ignite ignite, String physical) {
    return ignite.cache(GridSharding.cacheName(physical)).sizeLong(CachePeekMode.PRIMARY);
  }

  /** Whether every node that takes part in the grid works by that state. */
  private boolean reachAll(long epoch, long waitMs) {
    Set<String> asked = new HashSet<>();
    while (true) {
      Set<String> here = grid.read("asking the nodes of the grid", Grid::visible);
      here.removeAll(asked);
      if (here.isEmpty()) {
        return true;
      }
      for (String node : here) {
        if (!reach(node, epoch, waitMs)
            && grid.read("asking the nodes of the grid", Grid::visible).contains(node)) {
          return false;
        }
        asked.add(node);
      }
    }
  }

  private boolean reach(String node, long epoch, long waitMs) {
    try {
      return ShardsGrpc.newBlockingStub(cluster.channel(node))
          .withDeadlineAfter(waitMs + 1_000, TimeUnit.MILLISECONDS)
          .reach(ReachRequest.newBuilder().setEpoch(epoch).setWaitMs(waitMs).build())
          .getReached();
    } catch (StatusRuntimeException | FlotillaException e) {
      log.info("node {} does not say that it follows a move of rows: {}", node, e.getMessage());
      return false;
    }
  }

  private void createTarget(Stored mirroring) {
    Stored moved = mirroring.moved();
    sharding.register(moved);
    grid.write(
        "making table " + moved.physical(),
        ignite -> {
          String cache = GridSharding.cacheName(mirroring.physical());
          var context = ((IgniteEx) ignite).context();
          DynamicCacheDescriptor descriptor = context.cache().cacheDescriptor(cache);
          QueryEntity now = descriptor.schema().entities().iterator().next();
          // The plain copy would forget which columns cannot be NULL.
          QueryEntity entity = new QueryEntityEx(now);
          entity.setTableName(moved.physical());
          entity.setIndexes(
              now.getIndexes().stream()
                  .map(index -> renamed(index, mirroring.table(), moved.generation()))
                  .toList());
          String affinityKey =
              moved.spread() == 1
                      && entity.getKeyFields() != null
                      && entity.getKeyFields().size() > 1
                  ? moved.column()
                  : null;
          try {
            context
                .query()
                .dynamicTableCreate(
                    "PUBLIC",
                    entity,
                    GridSharding.template(moved),
                    null,
                    null,
                    null,
                    affinityKey,
                    null,
                    null,
                    null,
                    false,
                    null,
                    null);
          } catch (IgniteCheckedException e) {
            if (context.cache().cacheDescriptor(GridSharding.cacheName(moved.physical())) != null) {
              throw GridSharding.beingMoved(mirroring.table());
            }
            throw new org.apache.ignite.IgniteException(e);
          }
          return true;
        });
  }

  /** Names of indexes are the schema's, so two tables cannot share them. */
  private static QueryIndex renamed(QueryIndex index, String table, int generation) {
    QueryIndex renamed = new QueryIndex();
    String name =
        index.getName() == null
            ? table + "_" + String.join("_", index.getFieldNames())
            : index.getName();
    renamed.setName(name.replaceAll("__[0-9]+$", "") + "__" + generation);
    renamed.setIndexType(index.getIndexType());
    renamed.setFields(index.getFields());
    renamed.setInlineSize(index.getInlineSize());
    return renamed;
  }

  private void copyAll(Stored mirroring) {
    for (int pass = 0; pass < PASSES_MAX; pass++) {
      long before = topology();
      List<Object> keys = new ArrayList<>();
      int partitions =
          grid.read(
              "copying table " + mirroring.table(),
              ignite -> ignite.affinity(GridSharding.cacheName(mirroring.physical())).partitions());
      for (int partition = 0; partition < partitions; partition++) {
        int each = partition;
        keys.clear();
        grid.read(
            "copying table " + mirroring.table(),
            ignite -> {
              try (var cursor =
                  ignite
                      .<Object, Object>cache(GridSharding.cacheName(mirroring.physical()))
                      .withKeepBinary()
                      .query(new ScanQuery<Object, Object>(each).setPageSize(1024))) {
                cursor.forEach(row -> keys.add(row.getKey()));
              }
              return true;
            });
        for (int from = 0; from < keys.size(); from += BATCH_ROWS) {
          copy(mirroring, keys.subList(from, Math.min(keys.size(), from + BATCH_ROWS)));
        }
      }
      if (topology() == before) {
        return;
      }
    }
  }

  private long topology() {
    return grid.read("copying rows", ignite -> ignite.cluster().topologyVersion());
  }

  /** A batch that a lock keeps from it is taken apart; a single row waits longer each time. */
  private void copy(Stored mirroring, List<Object> keys) {
    FlotillaException last = null;
    for (int attempt = 0; attempt < 10; attempt++) {
      try {
        rowsCopied.addAndGet(
            grid.transact(
                "copying rows of table " + mirroring.table(),
                COPYING,
                ignite -> ShardGate.copy(ignite, mirroring, keys)));
        return;
      } catch (FlotillaException e) {
        if (e.code() == Code.NO_MAJORITY) {
          throw e;
        }
        last = e;
        if (keys.size() > 1) {
          keys.forEach(key -> copy(mirroring, List.of(key)));
          return;
        }
      }
    }
    throw last == null ? new IllegalStateException("no attempt") : last;
  }

  private void undo(String table, String driver) {
    try {
      Optional<Entry> entry = sharding.entry(table);
      Optional<Moving> moving = entry.flatMap(each -> each.stored().moving());
      if (moving.isEmpty() || !moving.get().driver().equals(driver)) {
        return;
      }
      Stored stored = entry.get().stored();
      Optional<Long> epoch =
          sharding.put(table, entry.get().epoch(), Optional.of(stored.takenBack()));
      epoch.ifPresent(number -> dropLeft(table, number));
      log.warn("the move of table {} is taken back; all is as it was", table);
    } catch (FlotillaException e) {
      log.warn("the move of table {} cannot be taken back yet: {}", table, e.getMessage());
    }
  }

  private void destroy(String physical) {
    grid.write(
        "dropping " + physical,
        ignite -> {
          IgniteCache<?, ?> cache = ignite.cache(GridSharding.cacheName(physical));
          if (cache != null) {
            ignite.destroyCache(cache.getName());
          }
          return true;
        });
  }

  /** On the leader: a move whose driver is gone is undone, and what moves left is dropped. */
  void tidy(Cluster.Leadership leadership) {
    Set<String> alive =
        leadership.aliveNodes().stream().map(NodeInfo::id).collect(Collectors.toSet());
    for (Stored stored : sharding.stored()) {
      String table = stored.table();
      Optional<String> gone =
          stored.moving().map(Moving::driver).filter(driver -> !alive.contains(driver));
      boolean left = stored.moving().isEmpty() && !stored.left().isEmpty();
      if ((gone.isPresent() || left) && tidying.add(table)) {
        Thread.ofVirtual()
            .start(
                () -> {
                  try {
                    gone.ifPresent(driver -> undo(table, driver));
                    if (left) {
                      sharding.entry(table).ifPresent(entry -> dropLeft(table, entry.epoch()));
                    }
                  } finally {
                    tidying.remove(table);
                  }
                });
      }
    }
  }
}

package dev.flotilla.data.grid;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.StaleReads;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.Registry;
import java.io.IOException;
import java.nio.file.DirectoryNotEmptyException;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.function.Consumer;
import java.util.function.Function;
import java.util.function.UnaryOperator;
import javax.cache.CacheException;
import org.apache.ignite.Ignite;
import org.apache.ignite.IgniteCache;
import org.apache.ignite.IgniteException;
import org.apache.ignite.cache.CacheAtomicityMode;
import org.apache.ignite.cache.CacheMode;
import org.apache.ignite.cache.CacheWriteSynchronizationMode;
import org.apache.ignite.cache.PartitionLossPolicy;
import org.apache.ignite.cluster.ClusterNode;
import org.apache.ignite.cluster.ClusterTopologyException;
import org.apache.ignite.configuration.CacheConfiguration;
import org.apache.ignite.internal.IgniteEx;
import org.apache.ignite.internal.NodeStoppingException;
import org.apache.ignite.internal.cluster.ClusterTopologyCheckedException;
import org.apache.ignite.internal.processors.cache.CacheGroupContext;
import org.apache.ignite.internal.processors.cache.CacheInvalidStateException;
import org.apache.ignite.internal.util.typedef.X;
import org.apache.ignite.transactions.Transaction;
import org.apache.ignite.transactions.TransactionConcurrency;
import org.apache.ignite.transactions.TransactionDeadlockException;
import org.apache.ignite.transactions.TransactionIsolation;
import org.apache.ignite.transactions.TransactionOptimisticException;
import org.apache.ignite.transactions.TransactionTimeoutException;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * This node's part of the data grid, and the choke point through which all data goes.
 *
 * <p>The grid (Apache Ignite) has no consensus. Cut off from the others, it goes on for seconds
 * before it notices, and writes that succeed in that time are gone when the cut heals. Hence the
 * one rule, kept here for everyone: a write is acknowledged only if, after it has completed, this
 * node still sees a majority of the baseline; a write that completed otherwise has an unknown
 * outcome. A read is checked the same way, and refused or marked.
 *
 * <p>The engine may be stopped and started again underneath (a node that was cut off rejoins so):
 * never keep anything of it between calls; register what must be there at each start with {@link
 * #onStart}.
 */
public final class Grid implements AutoCloseable {

  /** A value, and whether it may be older than what the majority has acknowledged. */
  public record Seen<T>(T value, boolean stale) {}

  /** How a transaction runs. */
  public record TransactionMode(
      TransactionConcurrency concurrency, TransactionIsolation isolation, long timeoutMs) {

    /** Takes a lock at the first touch of an entry, and keeps what it read. */
    public static final TransactionMode PESSIMISTIC =
        new TransactionMode(
            TransactionConcurrency.PESSIMISTIC, TransactionIsolation.REPEATABLE_READ, 10_000);

    /** Takes locks only at the commit, and fails with {@code CONFLICT} if anything read changed. */
    public static final TransactionMode OPTIMISTIC =
        new TransactionMode(
            TransactionConcurrency.OPTIMISTIC, TransactionIsolation.SERIALIZABLE, 10_000);
  }

  /**
   * Copies of each entry beside the first, wanted from the start so that growth needs no change.
   */
  public static final int BACKUPS = 2;

  private static final Logger log = LoggerFactory.getLogger(Grid.class);
  private static final String FOLDER_PREFIX = "cache-";
  private static final long WAITING_NOTE_MS = 10_000;
  private static final long RETRY_NS = 10_000_000_000L;

  /**
   * Plants a bug: writes are acknowledged without a majority. For the test bench, which must find
   * it; never set it otherwise.
   */
  public static final String ACKNOWLEDGE_BEFORE_MAJORITY =
      "flotilla.fault.acknowledge-before-majority";

  /** This thread's transaction. */
  private static final class Running {
    /** What is to be done when it has ended. */
    final List<Runnable> endings = new ArrayList<>();

    /** From the engine's begin of it to its end. */
    boolean begun;
  }

  /** Unset outside of a transaction. */
  private static final ThreadLocal<@Nullable Running> RUNNING = new ThreadLocal<>();

  private final Cluster cluster;
  private final GridKeeper keeper;
  private final Path pages;

  private Grid(Cluster cluster, GridConfig config) {
    this.cluster = cluster;
    this.pages = config.pages();
    this.keeper = new GridKeeper(cluster, config, System::nanoTime);
    if (acknowledgesAlone()) {
      log.error("a fault is planted: writes are acknowledged before a majority has them");
    }
  }

  /** This node's part of the grid; make it before the cluster starts, and start it after. */
  public static Grid create(Cluster cluster, GridConfig config) {
    return new Grid(cluster, config);
  }

  /** Whether the bug is planted. */
  static boolean acknowledgesAlone() {
    return Boolean.getBoolean(ACKNOWLEDGE_BEFORE_MAJORITY);
  }

  /** This node's id. */
  public String self() {
    return cluster.self();
  }

  /** Calls back with the engine each time it has started and is active; once now if it is. */
  public void onStart(Consumer<Ignite> action) {
    keeper.onStart(action);
  }

  /** Returns once this node's part is up and a majority is there, however long that takes. */
  public void start() {
    keeper.start();
    try {
      while (!keeper.awaitReady(WAITING_NOTE_MS)) {
        if (keeper.isClosed()) {
          throw new FlotillaException(
              Code.UNAVAILABLE, "the data grid was closed before it found a majority", "");
        }
        log.warn("data grid: waiting for a majority of its members");
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new FlotillaException(Code.FAILED, "interrupted", "", e);
    }
  }

  /** Whether a node belongs to the grid, as the registry has decided. */
  public boolean isMember(String nodeId) {
    return keeper.isMember(nodeId);
  }

  /** Whether this node is part of the majority now. */
  public boolean hasMajority() {
    return keeper.hasMajority();
  }

  /**
   * A cache with all that safety needs: transactions (the engine's atomic caches do not settle what
   * was on its way when a node went, and end with copies that differ), copies, synchronous writes,
   * a majority, no use of lost partitions. Add to it what the use needs (expiry, affinity, SQL).
   */
  public <K, V> CacheConfiguration<K, V> cacheConfig(String name) {
    return new CacheConfiguration<K, V>(name)
        .setCacheMode(CacheMode.PARTITIONED)
        .setAtomicityMode(CacheAtomicityMode.TRANSACTIONAL)
        .setBackups(BACKUPS)
        .setWriteSynchronizationMode(CacheWriteSynchronizationMode.FULL_SYNC)
        .setPartitionLossPolicy(PartitionLossPolicy.READ_WRITE_SAFE)
        .setReadFromBackup(true)
        .setTopologyValidator(new MajorityValidator())
        .setAffinity(
            new org.apache.ignite.cache.affinity.rendezvous.RendezvousAffinityFunction(false, 64));
  }

  /** A cache of {@link #cacheConfig} in a running operation, made if it is missing. */
  public <K, V> IgniteCache<K, V> cache(Ignite running, String name) {
    return cache(running, name, config -> config);
  }

  /**
   * A cache in a running operation, made if it is missing. The engine makes none inside a
   * transaction: call {@link #ensureCache(String, UnaryOperator)} before.
   *
   * @param more adds to {@link #cacheConfig} what the use needs
   */
  public <K, V> IgniteCache<K, V> cache(
      Ignite running, String name, UnaryOperator<CacheConfiguration<K, V>> more) {
    // Quick where it is there, as it is nearly always.
    IgniteCache<K, V> there = running.cache(name);
    return there == null
        ? running.getOrCreateCache(more.apply(this.<K, V>cacheConfig(name)))
        : there;
  }

  /** Whether a cache is there, as this node's engine knows it; cheap, also in a transaction. */
  public boolean hasCache(String name) {
    return hasCache(running("looking for " + name), name);
  }

  /** As above, in a running operation. */
  public static boolean hasCache(Ignite running, String name) {
    // Not asked for the cache itself, which the engine would try to make.
    return ((IgniteEx) running).context().cache().cacheDescriptor(name) != null;
  }

  /** As {@link #ensureCache(String, UnaryOperator)}, of {@link #cacheConfig}. */
  public void ensureCache(String name) {
    ensureCache(name, config -> config);
  }

  /**
   * Makes a cache where it is missing, before a transaction uses it; costs next to nothing where it
   * is there. Not even another thread could make it once the transaction has begun: all nodes would
   * wait for the transaction's locks, and the transaction for them.
   *
   * @param more as of {@link #cache}
   * @throws FlotillaException {@code INVALID} if it is not there and this thread runs a
   *     transaction; otherwise as {@link #write}
   */
  public <K, V> void ensureCache(String name, UnaryOperator<CacheConfiguration<K, V>> more) {
    String what = "making " + name;
    Ignite engine = running(what);
    if (engine.transactions().tx() == null) {
      if (keeper.use(engine, ignite -> ignite.<K, V>cache(name) == null)) {
        write(what, running -> cache(running, name, more).getName());
      }
    } else if (!hasCache(engine, name)) {
      throw new FlotillaException(
          Code.INVALID,
          name + " does not exist, and cannot be made inside a transaction",
          "Use it once before.");
    }
  }

  /**
   * Reads what a majority has acknowledged, or, where {@link StaleReads} allows it, what this node
   * holds.
   *
   * @param what for the error, such as {@code "reading cache prices"}
   * @throws FlotillaException {@code NO_MAJORITY} if this node sees no majority afterwards
   */
  public <T> T read(String what, Function<Ignite, T> operation) {
    Seen<T> seen = readAny(what, operation);
    // Inside a transaction something is decided by what is read: never by an old value.
    if (seen.stale() && (inTransaction() || !StaleReads.mark())) {
      throw noMajority(what);
    }
    return seen.value();
  }

  /** Reads, and says whether the value may be stale because this node sees no majority. */
  public <T> Seen<T> readAny(String what, Function<Ignite, T> operation) {
    long deadlineNs = System.nanoTime() + RETRY_NS;
    while (true) {
      Ignite running = running(what);
      try {
        T value = keeper.use(running, operation);
        return new Seen<>(value, !keeper.confirmMajority(running));
      } catch (CacheException | IgniteException | IllegalStateException e) {
        if (!isPassing(e)
            || inTransaction(running)
            || System.nanoTime() > deadlineNs
            || !hasMajority()) {
          throw refusedRead(what, e);
        }
      }
      try {
        Thread.sleep(20);
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        throw new FlotillaException(Code.UNAVAILABLE, what + " was interrupted", "", e);
      }
    }
  }

  private static boolean inTransaction(Ignite running) {
    try {
      return running.transactions().tx() != null;
    } catch (IllegalStateException stopped) {
      return true;
    }
  }

  /** Whether it comes from partitions that are on the move, so that trying again helps. */
  private static boolean isPassing(Throwable e) {
    return X.hasCause(e, ClusterTopologyException.class, ClusterTopologyCheckedException.class)
        || String.valueOf(e.getMessage()).contains("Retry on stable topology");
  }

  /**
   * Writes; returns only if a majority has it.
   *
   * @param what for the error, such as {@code "writing cache prices"}
   * @throws FlotillaException {@code NO_MAJORITY} if nothing was done for want of a majority,
   *     {@code OUTCOME_UNKNOWN} if it cannot be told whether it was done, {@code CONFLICT} if
   *     another transaction came first and nothing was done, {@code BUSY} if it waited for a lock
   *     for too long and nothing was done; what the operation itself throws passes
   */
  public <T> T write(String what, Function<Ignite, T> operation) {
    return write(what, running(what), operation);
  }

  private <T> T write(String what, Ignite running, Function<Ignite, T> operation) {
    // Refused for certain only here: what fails later may have been applied by others all the same,
    // even if the engine says that it refused it (as after a pause in the middle of a commit).
    if (!acknowledgesAlone() && !keeper.confirmMajority(running)) {
      throw noMajority(what);
    }
    cluster.disk().checkRoom(what);
    T result;
    try {
      result = keeper.use(running, operation);
    } catch (CacheException | IgniteException | IllegalStateException e) {
      throw failedWrite(what, running, e);
    }
    if (!acknowledgesAlone() && !keeper.confirmMajority(running)) {
      throw unknown(what, null);
    }
    return result;
  }

  /**
   * Runs the operation inside one transaction and commits it: all of it or nothing. Errors as
   * {@link #write}; if the operation throws, nothing was done. Inside another transaction of this
   * thread it joins that one, whose end decides.
   */
  public <T> T transact(String what, TransactionMode mode, Function<Ignite, T> operation) {
    if (inTransaction()) {
      return write(what, operation);
    }
    Running own = new Running();
    RUNNING.set(own);
    try {
      return write(
          what,
          running -> {
            try (Transaction transaction =
                running
                    .transactions()
                    .txStart(mode.concurrency(), mode.isolation(), mode.timeoutMs(), 0)) {
              own.begun = true;
              T result = operation.apply(running);
              own.begun = false;
              transaction.commit();
              return result;
            } finally {
              own.begun = false;
            }
          });
    } finally {
      RUNNING.remove();
      own.endings.forEach(Runnable::run);
    }
  }

  /** Whether this thread runs a transaction; cheap. */
  public boolean inTransaction() {
    return RUNNING.get() != null;
  }

  /**
   * Runs the action once this thread's transaction has ended, whatever came of it, before {@link
   * #transact} returns. What must happen only after a commit is for {@link
   * TransactionScope#afterCommit}.
   */
  public void afterTransaction(Runnable action) {
    Running own = RUNNING.get();
    if (own == null) {
      throw new IllegalStateException("no transaction runs on this thread");
    }
    own.endings.add(action);
  }

  /** The engine's nodes that are there, by id. */
  public static Set<String> visible(Ignite engine) {
    Set<String> ids = new HashSet<>();
    for (ClusterNode node : engine.cluster().forServers().nodes()) {
      ids.add(String.valueOf(node.consistentId()));
    }
    return ids;
  }

  /**
   * Closes the grid to everyone on all nodes, for good until {@link #open}, so that its contents
   * can be replaced.
   *
   * @return what {@link #open} wants
   * @throws FlotillaException {@code CONFLICT} if somebody else has just closed it
   */
  public long close(String why) {
    var before = cluster.registry().get(GridMembers.GATE);
    return cluster
        .registry()
        .commit(
            List.of(
                new Registry.Condition(
                    GridMembers.GATE, before.map(Registry.Entry::epoch).orElse(0L))),
            List.of(new Registry.Write(GridMembers.GATE, Optional.of(Json.write(why)))))
        .orElseThrow(
            () ->
                new FlotillaException(
                    Code.CONFLICT, why + ": another has just begun", "Wait for it to end."));
  }

  /** Opens it again; every node runs what is registered with {@link #onStart}. */
  public void open(long closed) {
    if (cluster
        .registry()
        .commit(
            List.of(new Registry.Condition(GridMembers.GATE, closed)),
            List.of(new Registry.Write(GridMembers.GATE, Optional.empty())))
        .isEmpty()) {
      throw new FlotillaException(
          Code.CONFLICT, "the data grid was closed by another meanwhile", "Wait for it to end.");
    }
  }

  /** As {@link #write}, also while the grid is closed. */
  public <T> T restoring(String what, Function<Ignite, T> operation) {
    return write(what, engine(what), operation);
  }

  /**
   * Tables, caches and the like of which some partition has its only complete copy on a node, or
   * none on any other that is there; by name.
   */
  public List<String> onlyOn(String nodeId) {
    return read(
        "looking for last copies",
        running -> {
          List<String> names = new ArrayList<>();
          for (CacheGroupContext group : ((IgniteEx) running).context().cache().cacheGroups()) {
            if (!group.systemCache() && hasPartitionOnlyOn(group, nodeId)) {
              names.add(group.cacheOrGroupName());
            }
          }
          Collections.sort(names);
          return names;
        });
  }

  /**
   * Deletes this node's folders of caches that were destroyed, which the engine leaves behind.
   *
   * @param prefix of the names of caches, none of which is ever made again once it was destroyed
   */
  public void deleteEmptyFolders(String prefix) {
    try (DirectoryStream<Path> nodes = Files.newDirectoryStream(pages, Files::isDirectory)) {
      for (Path node : nodes) {
        try (DirectoryStream<Path> folders =
            Files.newDirectoryStream(node, FOLDER_PREFIX + prefix + "*")) {
          for (Path folder : folders) {
            String cache = folder.getFileName().toString().substring(FOLDER_PREFIX.length());
            if (!hasCache(cache)) {
              deleteIfEmpty(folder);
            }
          }
        }
      }
    } catch (IOException e) {
      log.debug("empty folders stay in {}: {}", pages, e.toString());
    }
  }

  private static void deleteIfEmpty(Path folder) throws IOException {
    try {
      Files.deleteIfExists(folder);
    } catch (DirectoryNotEmptyException e) {
      // The engine is not done with it.
    }
  }

  private static boolean hasPartitionOnlyOn(CacheGroupContext group, String nodeId) {
    for (int partition = 0; partition < group.affinity().partitions(); partition++) {
      if (group.topology().owners(partition).stream()
          .allMatch(owner -> String.valueOf(owner.consistentId()).equals(nodeId))) {
        return true;
      }
    }
    return false;
  }

  private Ignite running(String what) {
    if (keeper.isGateShut()) {
      throw new FlotillaException(
          Code.UNAVAILABLE,
          what + ": a backup is being restored",
          "Wait until it is; if that was cut off, run the restore again.");
    }
    return engine(what);
  }

  private Ignite engine(String what) {
    Ignite running = keeper.engine();
    if (running == null) {
      throw new FlotillaException(
          Code.UNAVAILABLE, what + ": this node's data grid is not up yet", "Try again soon.");
    }
    Running own = RUNNING.get();
    if (own != null && own.begun && running.transactions().tx() == null) {
      // To the engine this thread is now outside of any, and what follows would be done by itself.
      throw new FlotillaException(
          Code.CONFLICT,
          what + ": the transaction that this is a part of has been rolled back",
          "Nothing was done; run it again.");
    }
    return running;
  }

  private static FlotillaException refusedRead(String what, RuntimeException e) {
    if (X.hasCause(e, CacheInvalidStateException.class)) {
      return noMajority(what);
    }
    log.info("{} failed: {}", what, e.toString());
    return new FlotillaException(
        Code.UNAVAILABLE, what + " failed, since " + inWords(e), "Try again soon.", e);
  }

  private FlotillaException failedWrite(String what, Ignite running, RuntimeException e) {
    // A node that stood still or was cut off may have been given up by the others, who then finish
    // its transactions as they find them: what the engine says here of one is certain only while
    // this node belongs to them.
    if (!keeper.confirmMajority(running)) {
      return unknown(what, e);
    }
    if (X.hasCause(e, TransactionOptimisticException.class)) {
      return new FlotillaException(
          Code.CONFLICT, what + ": another transaction came first", "Nothing was done; try again.");
    }
    if (X.hasCause(e, TransactionDeadlockException.class)) {
      return new FlotillaException(
          Code.CONFLICT,
          what + ": two transactions waited for each other, and this one was rolled back",
          "Nothing was done; try again, and take locks in one order.",
          e);
    }
    if (X.hasCause(e, TransactionTimeoutException.class)) {
      return new FlotillaException(
          Code.BUSY,
          what + " waited for a lock for too long, and was rolled back",
          "Nothing was done; try again.",
          e);
    }
    return unknown(what, e);
  }

  private static FlotillaException noMajority(String what) {
    return new FlotillaException(
        Code.NO_MAJORITY,
        what + ": this node cannot reach a majority of the cluster's nodes",
        "Try another node, or again when the others are back.");
  }

  private static FlotillaException unknown(String what, @Nullable Throwable cause) {
    String message = what + ": it cannot be told whether it was done";
    String remedy = "Look whether it was, then try again.";
    if (cause == null) {
      return new FlotillaException(Code.OUTCOME_UNKNOWN, message, remedy);
    }
    log.info("{}: {}", message, cause.toString());
    return new FlotillaException(
        Code.OUTCOME_UNKNOWN, message + ", since " + inWords(cause), remedy, cause);
  }

  /** What the engine says of itself is for the log. */
  private static String inWords(Throwable cause) {
    if (X.hasCause(cause, CacheInvalidStateException.class)) {
      return "part of the data can be reached on too few nodes";
    }
    return X.hasCause(
            cause,
            ClusterTopologyException.class,
            ClusterTopologyCheckedException.class,
            NodeStoppingException.class)
        ? "a node left the data grid at that moment"
        : "the data grid failed at that moment (its log says how)";
  }

  @Override
  public void close() {
    keeper.close();
  }
}

package dev.flotilla.data;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.cluster.Registry;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Objects;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.function.Consumer;
import java.util.function.Function;
import javax.cache.CacheException;
import org.apache.ignite.Ignite;
import org.apache.ignite.IgniteException;
import org.apache.ignite.Ignition;
import org.apache.ignite.cache.CacheAtomicityMode;
import org.apache.ignite.cache.CacheMode;
import org.apache.ignite.cache.CacheWriteSynchronizationMode;
import org.apache.ignite.cache.PartitionLossPolicy;
import org.apache.ignite.calcite.CalciteQueryEngineConfiguration;
import org.apache.ignite.cluster.BaselineNode;
import org.apache.ignite.cluster.ClusterNode;
import org.apache.ignite.cluster.ClusterState;
import org.apache.ignite.configuration.CacheConfiguration;
import org.apache.ignite.configuration.DataRegionConfiguration;
import org.apache.ignite.configuration.DataStorageConfiguration;
import org.apache.ignite.configuration.IgniteConfiguration;
import org.apache.ignite.configuration.SqlConfiguration;
import org.apache.ignite.configuration.TransactionConfiguration;
import org.apache.ignite.configuration.WALMode;
import org.apache.ignite.failure.AbstractFailureHandler;
import org.apache.ignite.failure.FailureContext;
import org.apache.ignite.internal.processors.cache.CacheInvalidStateException;
import org.apache.ignite.internal.util.typedef.X;
import org.apache.ignite.logger.slf4j.Slf4jLogger;
import org.apache.ignite.plugin.segmentation.SegmentationPolicy;
import org.apache.ignite.spi.communication.tcp.TcpCommunicationSpi;
import org.apache.ignite.spi.discovery.tcp.TcpDiscoverySpi;
import org.apache.ignite.spi.discovery.tcp.ipfinder.vm.TcpDiscoveryVmIpFinder;
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
  private static final Registry.Key MEMBERS = new Registry.Key("grid", "members");
  private static final long START_PATIENCE_NS = 60_000_000_000L;

  /** Who belongs to the grid's baseline, as the registry has decided. */
  record Members(List<String> nodes) {}

  /** What is to be done when this thread's running transaction has ended; unset outside of one. */
  private static final ThreadLocal<@Nullable List<Runnable>> ENDINGS = new ThreadLocal<>();

  private final Cluster cluster;
  private final GridConfig config;
  private final List<Consumer<Ignite>> onStart = new CopyOnWriteArrayList<>();
  private volatile @Nullable Ignite ignite;

  private Grid(Cluster cluster, GridConfig config) {
    this.cluster = cluster;
    this.config = config;
  }

  /** This node's part of the grid; make it before the cluster starts, and start it after. */
  public static Grid create(Cluster cluster, GridConfig config) {
    Grid grid = new Grid(cluster, config);
    cluster.addReconciler(grid::reconcile);
    return grid;
  }

  /** This node's id. */
  public String self() {
    return cluster.self();
  }

  /** Calls back with the engine each time it has started and is active; once now if it is. */
  public void onStart(Consumer<Ignite> action) {
    onStart.add(action);
  }

  /**
   * Returns once this node's part is up and a majority is there.
   *
   * @throws FlotillaException {@code NO_MAJORITY} if that does not come about in a minute
   */
  public void start() {
    found();
    Ignite started = Ignition.start(configuration());
    ignite = started;
    long deadlineNs = System.nanoTime() + START_PATIENCE_NS;
    while (!(started.cluster().state() == ClusterState.ACTIVE
        && baseline(started).contains(self())
        && isMajority(started))) {
      activateAlone(started);
      if (System.nanoTime() > deadlineNs) {
        throw noMajority("the start of the data grid");
      }
      try {
        Thread.sleep(50);
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        throw new FlotillaException(Code.FAILED, "interrupted", "", e);
      }
    }
    onStart.forEach(action -> action.accept(started));
    log.info("data grid up, members {}", baseline(started));
  }

  /** The first node makes the grid; all others join it. */
  private void found() {
    Registry registry = cluster.registry();
    registry.sync();
    if (registry.get(MEMBERS).isEmpty()) {
      registry.commit(
          List.of(new Registry.Condition(MEMBERS, 0)),
          List.of(
              new Registry.Write(MEMBERS, Optional.of(Json.write(new Members(List.of(self())))))));
    }
  }

  private List<String> members() {
    return cluster
        .registry()
        .get(MEMBERS)
        .map(entry -> Json.read(entry.value(), Members.class).nodes())
        .orElse(List.of());
  }

  /** A grid of one needs nobody's leave. */
  private void activateAlone(Ignite started) {
    if (members().equals(List.of(self())) && started.cluster().state() != ClusterState.ACTIVE) {
      started.cluster().state(ClusterState.ACTIVE);
      started.cluster().baselineAutoAdjustEnabled(false);
    }
  }

  /** On the leader: activates what has a majority, and takes in nodes that have come. */
  private void reconcile(Cluster.Leadership leadership) {
    Ignite running = ignite;
    Optional<Registry.Entry> entry = cluster.registry().get(MEMBERS);
    if (running == null || entry.isEmpty()) {
      return;
    }
    try {
      Set<String> here = new HashSet<>();
      running
          .cluster()
          .forServers()
          .nodes()
          .forEach(node -> here.add(String.valueOf(node.consistentId())));
      List<String> members = members();
      long present = members.stream().filter(here::contains).count();
      if (2 * present <= members.size()) {
        return;
      }
      if (running.cluster().state() != ClusterState.ACTIVE) {
        running.cluster().state(ClusterState.ACTIVE);
      }
      List<String> wanted = new ArrayList<>(members);
      cluster.nodes().stream()
          .map(NodeInfo::id)
          .filter(id -> here.contains(id) && !members.contains(id))
          .forEach(wanted::add);
      if (!wanted.equals(members)
          && leadership
              .commit(
                  List.of(new Registry.Condition(MEMBERS, entry.get().epoch())),
                  List.of(
                      new Registry.Write(MEMBERS, Optional.of(Json.write(new Members(wanted))))))
              .isEmpty()) {
        return;
      }
      Set<String> baseline = baseline(running);
      if (!baseline.containsAll(wanted)) {
        List<BaselineNode> nodes = new ArrayList<>();
        nodes.addAll(
            Objects.requireNonNullElse(running.cluster().currentBaselineTopology(), List.of()));
        running.cluster().forServers().nodes().stream()
            .filter(
                node ->
                    wanted.contains(String.valueOf(node.consistentId()))
                        && !baseline.contains(String.valueOf(node.consistentId())))
            .forEach(nodes::add);
        running.cluster().setBaselineTopology(nodes);
        log.info("data grid: baseline is now {}", wanted);
      }
    } catch (IgniteException | IllegalStateException e) {
      log.warn("data grid: the baseline could not be changed yet: {}", e.toString());
    }
  }

  private static Set<String> baseline(Ignite ignite) {
    Set<String> ids = new HashSet<>();
    var nodes = ignite.cluster().currentBaselineTopology();
    if (nodes != null) {
      nodes.forEach(node -> ids.add(String.valueOf(node.consistentId())));
    }
    return ids;
  }

  private static boolean isMajority(Ignite ignite) {
    return MajorityValidator.isMajority(
        ignite.cluster().forServers().nodes(), ignite.cluster().currentBaselineTopology());
  }

  /** Whether this node sees a majority now. */
  public boolean hasMajority() {
    Ignite running = ignite;
    try {
      return running != null && isMajority(running);
    } catch (IllegalStateException stopped) {
      return false;
    }
  }

  /**
   * A cache with all that safety needs: copies, synchronous writes, a majority, no use of lost
   * partitions. Add to it what the use needs (expiry, affinity, SQL), and hand it to {@code
   * getOrCreateCache} inside {@link #write}.
   */
  public <K, V> CacheConfiguration<K, V> cacheConfig(String name, CacheAtomicityMode atomicity) {
    return new CacheConfiguration<K, V>(name)
        .setCacheMode(CacheMode.PARTITIONED)
        .setAtomicityMode(atomicity)
        .setBackups(BACKUPS)
        .setWriteSynchronizationMode(CacheWriteSynchronizationMode.FULL_SYNC)
        .setPartitionLossPolicy(PartitionLossPolicy.READ_WRITE_SAFE)
        .setReadFromBackup(true)
        .setTopologyValidator(new MajorityValidator())
        .setAffinity(
            new org.apache.ignite.cache.affinity.rendezvous.RendezvousAffinityFunction(false, 64));
  }

  /**
   * Reads what a majority has acknowledged.
   *
   * @param what for the error, such as {@code "reading cache prices"}
   * @throws FlotillaException {@code NO_MAJORITY} if this node sees no majority afterwards
   */
  public <T> T read(String what, Function<Ignite, T> operation) {
    Seen<T> seen = readAny(what, operation);
    if (seen.stale()) {
      throw noMajority(what);
    }
    return seen.value();
  }

  /** Reads, and says whether the value may be stale because this node sees no majority. */
  public <T> Seen<T> readAny(String what, Function<Ignite, T> operation) {
    Ignite running = running(what);
    try {
      T value = operation.apply(running);
      return new Seen<>(value, !isMajority(running));
    } catch (CacheException | IgniteException | IllegalStateException e) {
      throw refusedRead(what, e);
    }
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
    Ignite running = running(what);
    long before = running.cluster().topologyVersion();
    T result;
    try {
      result = operation.apply(running);
    } catch (CacheException | IgniteException | IllegalStateException e) {
      throw refusedWrite(what, running, before, e);
    }
    if (!hasMajority()) {
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
    if (running(what).transactions().tx() != null) {
      return write(what, operation);
    }
    List<Runnable> endings = new ArrayList<>();
    ENDINGS.set(endings);
    try {
      return write(
          what,
          running -> {
            try (Transaction transaction =
                running
                    .transactions()
                    .txStart(mode.concurrency(), mode.isolation(), mode.timeoutMs(), 0)) {
              T result = operation.apply(running);
              transaction.commit();
              return result;
            }
          });
    } finally {
      ENDINGS.remove();
      endings.forEach(Runnable::run);
    }
  }

  /** Whether this thread runs a transaction; cheap. */
  boolean inTransaction() {
    return ENDINGS.get() != null;
  }

  /**
   * Runs the action once this thread's transaction has ended, whatever came of it, before {@link
   * #transact} returns. What must happen only after a commit is for {@link
   * TransactionScope#afterCommit}.
   */
  void afterTransaction(Runnable action) {
    List<Runnable> endings = ENDINGS.get();
    if (endings == null) {
      throw new IllegalStateException("no transaction runs on this thread");
    }
    endings.add(action);
  }

  private Ignite running(String what) {
    Ignite running = ignite;
    if (running == null) {
      throw new FlotillaException(
          Code.UNAVAILABLE, what + ": this node's data grid is not up yet", "Try again soon.");
    }
    return running;
  }

  private FlotillaException refusedRead(String what, RuntimeException e) {
    if (X.hasCause(e, CacheInvalidStateException.class)) {
      return noMajority(what);
    }
    return new FlotillaException(
        Code.UNAVAILABLE, what + " failed: " + e.getMessage(), "Try again soon.", e);
  }

  private FlotillaException refusedWrite(
      String what, Ignite running, long before, RuntimeException e) {
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
    if (X.hasCause(e, CacheInvalidStateException.class) && sameTopology(running, before)) {
      return noMajority(what);
    }
    return unknown(what, e);
  }

  private static boolean sameTopology(Ignite running, long before) {
    try {
      return running.cluster().topologyVersion() == before;
    } catch (IllegalStateException stopped) {
      return false;
    }
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
    return cause == null
        ? new FlotillaException(Code.OUTCOME_UNKNOWN, message, remedy)
        : new FlotillaException(
            Code.OUTCOME_UNKNOWN, message + " (" + cause.getMessage() + ")", remedy, cause);
  }

  private IgniteConfiguration configuration() {
    TcpDiscoveryVmIpFinder finder = new TcpDiscoveryVmIpFinder(false);
    List<String> addresses = new ArrayList<>();
    for (NodeInfo node : cluster.nodes()) {
      addresses.add(node.host() + ":" + (node.httpPort() + 5));
    }
    addresses.add(config.bindHost() + ":" + config.discoveryPort());
    finder.setAddresses(addresses.stream().distinct().toList());
    TcpDiscoverySpi discovery = new TcpDiscoverySpi();
    discovery.setIpFinder(finder);
    discovery.setLocalPort(config.discoveryPort());
    discovery.setLocalPortRange(0);
    TcpCommunicationSpi communication = new TcpCommunicationSpi();
    communication.setLocalPort(config.messagePort());
    communication.setLocalPortRange(0);
    return new IgniteConfiguration()
        .setIgniteInstanceName(self())
        .setConsistentId(self())
        .setLocalHost(config.bindHost())
        .setWorkDirectory(config.folder().toString())
        .setGridLogger(new Slf4jLogger())
        .setMetricsLogFrequency(0)
        .setPeerClassLoadingEnabled(false)
        .setConnectorConfiguration(null)
        .setClientConnectorConfiguration(null)
        .setSslContextFactory(new MutualTls(cluster.tls()))
        .setDiscoverySpi(discovery)
        .setCommunicationSpi(communication)
        .setFailureDetectionTimeout(config.failureDetection().toMillis())
        .setSegmentationPolicy(SegmentationPolicy.NOOP)
        .setFailureHandler(new Report())
        .setDataStorageConfiguration(storage())
        .setTransactionConfiguration(
            new TransactionConfiguration()
                .setTxAwareQueriesEnabled(true)
                .setDefaultTxTimeout(10_000)
                .setTxTimeoutOnPartitionMapExchange(10_000))
        .setSqlConfiguration(
            new SqlConfiguration()
                .setQueryEnginesConfiguration(
                    new CalciteQueryEngineConfiguration().setDefault(true)))
        .setSystemThreadPoolSize(4)
        .setStripedPoolSize(4)
        .setPublicThreadPoolSize(2)
        .setServiceThreadPoolSize(2)
        .setManagementThreadPoolSize(2)
        .setQueryThreadPoolSize(4)
        .setDataStreamerThreadPoolSize(2)
        .setRebalanceThreadPoolSize(2)
        .setBuildIndexThreadPoolSize(1)
        .setAsyncCallbackPoolSize(2);
  }

  private DataStorageConfiguration storage() {
    DataRegionConfiguration region =
        new DataRegionConfiguration()
            .setName("default")
            .setPersistenceEnabled(true)
            .setInitialSize(Math.min(32L << 20, config.memoryBytes()))
            .setMaxSize(config.memoryBytes())
            .setCheckpointPageBufferSize(Math.min(32L << 20, config.memoryBytes() / 4));
    DataRegionConfiguration system =
        new DataRegionConfiguration().setInitialSize(12L << 20).setMaxSize(40L << 20);
    return new DataStorageConfiguration()
        .setDefaultDataRegionConfiguration(region)
        .setSystemDataRegionConfiguration(
            new org.apache.ignite.configuration.SystemDataRegionConfiguration()
                .setInitialSize(system.getInitialSize())
                .setMaxSize(system.getMaxSize()))
        .setWalMode(WALMode.FSYNC)
        .setWalSegmentSize(8 << 20)
        .setWalSegments(4)
        .setMaxWalArchiveSize(128L << 20)
        .setStoragePath(config.folder().resolve("db").toString())
        .setWalPath(config.folder().resolve("wal").toString())
        .setWalArchivePath(config.folder().resolve("wal-archive").toString());
  }

  /** The engine's own handler would halt the process, and models with it. */
  private static final class Report extends AbstractFailureHandler {
    @Override
    protected boolean handle(Ignite ignite, FailureContext failure) {
      log.error("data grid: {}", failure.type(), failure.error());
      return false;
    }
  }

  /** The engine's nodes that are there, by id. */
  static Set<String> visible(Ignite ignite) {
    Set<String> ids = new HashSet<>();
    for (ClusterNode node : ignite.cluster().forServers().nodes()) {
      ids.add(String.valueOf(node.consistentId()));
    }
    return ids;
  }

  @Override
  public void close() {
    Ignite running = ignite;
    ignite = null;
    if (running != null) {
      Ignition.stop(running.name(), true);
    }
  }
}

package dev.flotilla.data;

import dev.flotilla.cluster.Locks;
import dev.flotilla.data.blobs.BlobConfig;
import dev.flotilla.data.blobs.Blobs;
import dev.flotilla.data.blobs.GridBlobs;
import dev.flotilla.data.cache.CacheStore;
import dev.flotilla.data.cache.Caches;
import dev.flotilla.data.cache.GridCaches;
import dev.flotilla.data.grid.Environment;
import dev.flotilla.data.grid.Fences;
import dev.flotilla.data.grid.Grid;
import dev.flotilla.data.grid.GridConfig;
import dev.flotilla.data.jobs.GridJobs;
import dev.flotilla.data.jobs.JobDefinition;
import dev.flotilla.data.jobs.Jobs;
import dev.flotilla.data.jobs.TextJobs;
import dev.flotilla.data.log.GridLog;
import dev.flotilla.data.log.Log;
import dev.flotilla.data.log.LogStreams;
import dev.flotilla.data.log.NodeLog;
import dev.flotilla.data.log.OtlpExporter;
import dev.flotilla.data.queue.GridQueues;
import dev.flotilla.data.queue.Queues;
import dev.flotilla.data.search.GridSearchIndexes;
import dev.flotilla.data.search.IndexReplicas;
import dev.flotilla.data.search.SearchIndexes;
import dev.flotilla.data.sql.GridSagas;
import dev.flotilla.data.sql.GridSharding;
import dev.flotilla.data.sql.GridSql;
import dev.flotilla.data.sql.GridTransactions;
import dev.flotilla.data.sql.Sagas;
import dev.flotilla.data.sql.Sharding;
import dev.flotilla.data.sql.Sql;
import dev.flotilla.data.sql.TransactionSteps;
import dev.flotilla.data.sql.Transactions;
import dev.flotilla.data.usage.GridUsage;
import dev.flotilla.data.usage.Usage;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/**
 * All parts of the data plane on one node, wired together. Make it before the cluster starts, since
 * parts serve other nodes; start it after.
 */
public final class DataPlane implements AutoCloseable {

  /** The registry's entries that say what the grid's contents mean. */
  private static final List<String> BACKED_UP_KINDS =
      List.of("cache", "table-shards", "sql", "index");

  private final Locks userLocks;
  private final Grid grid;
  private final GridQueues queues;
  private final GridCaches caches;
  private final GridUsage usage;
  private final Fences fences;
  private final GridSharding sharding;
  private final ChangeJournal journal;
  private final GridBackups backups;
  private final Path logFolder;
  private final String self;
  private final NodeLog nodeLog;
  private final Log log;
  private @Nullable OtlpExporter logExport;
  private final GridTransactions transactions;
  private final GridSql sql;
  private final GridSagas sagas;
  private final GridSearchIndexes search;
  private final GridBlobs blobs;
  private final GridJobs jobs;

  /** Wires the parts; opens nothing yet. */
  public DataPlane(Environment environment) {
    this(
        environment,
        GridConfig.of(environment.folder(), environment.bindHost(), environment.httpPort()));
  }

  /** As above, with a grid that is set otherwise. */
  public DataPlane(Environment environment, GridConfig gridConfig) {
    Locks locks =
        Locks.embedded(environment.cluster(), environment.nanoTime(), environment.metrics());
    userLocks = locks.forUsers();
    grid = Grid.create(environment.cluster(), gridConfig);
    caches = new GridCaches(environment, grid);
    usage = new GridUsage(environment, grid);
    fences = new Fences(grid);
    sharding = new GridSharding(environment.cluster(), grid);
    journal = new ChangeJournal(environment, grid, BACKED_UP_KINDS, ChangeJournal.Limits.DEFAULTS);
    environment.cluster().addService(new BackupFolders(environment.cluster()));
    backups =
        new GridBackups(
            environment.cluster(),
            grid,
            locks,
            environment.clock(),
            BACKED_UP_KINDS,
            Optional.of(journal));
    self = environment.cluster().self();
    logFolder = environment.folder().toAbsolutePath().resolve("data").resolve("log");
    nodeLog =
        new NodeLog(
            environment.cluster(),
            logFolder,
            NodeLog.Limits.DEFAULTS,
            environment.clock(),
            environment.metrics());
    log = new GridLog(nodeLog, new LogStreams(grid, environment.clock()));
    transactions = new GridTransactions(environment, grid, sharding);
    sql = new GridSql(environment, grid, sharding, transactions);
    sagas = new GridSagas(environment.cluster(), grid, environment.clock());
    queues =
        new GridQueues(
            environment.cluster(),
            grid,
            fences,
            environment.clock(),
            environment.random(),
            environment.metrics());
    transactions.steps(new TransactionSteps(caches, queues));
    search =
        new GridSearchIndexes(
            environment.cluster(),
            grid,
            environment.folder(),
            environment.metrics(),
            environment.nanoTime(),
            environment.random(),
            IndexReplicas.Tuning.DEFAULT);
    blobs =
        new GridBlobs(
            environment.cluster(),
            grid,
            fences,
            environment.folder(),
            BlobConfig.of(System.getenv()),
            environment.metrics(),
            environment.clock(),
            environment.nanoTime(),
            environment.random());
    jobs = new GridJobs(environment, grid, locks, fences, blobs, TextJobs.all());
  }

  /** Starts the grid, then the parts that stand on it. */
  public void start() {
    grid.start();
    journal.start();
    caches.start();
    nodeLog.start();
    search.start();
    usage.start();
    blobs.start();
    jobs.start();
    queues.start();
  }

  /** Locks of the whole cluster, for applications. */
  public Locks locks() {
    return userLocks;
  }

  /** The choke point to the data grid. */
  public Grid grid() {
    return grid;
  }

  /** The caches. */
  public Caches caches() {
    return caches;
  }

  /**
   * Registers what caches may have behind them, on this node; before they are used.
   *
   * @param name as caches' configurations name it
   */
  public void registerCacheStore(String name, CacheStore store) {
    caches.register(name, store);
  }

  /** The usage ledger. */
  public Usage usage() {
    return usage;
  }

  /** How tables are spread over the nodes. */
  public Sharding sharding() {
    return sharding;
  }

  /** Copies to go back to. */
  public Backups backups() {
    return backups;
  }

  /** The log of all nodes, and applications' streams. */
  public Log log() {
    return log;
  }

  /**
   * Takes what something on this node has to log; never waits, and drops it if there is no room.
   *
   * @param fields what else is known, such as {@code thread} and {@code exception}
   */
  public void logged(
      long timeMs, Log.Level level, String logger, String message, Map<String, String> fields) {
    nodeLog.offer(timeMs, level, logger, message, fields);
  }

  /**
   * Sends this node's log to an OpenTelemetry collector from now on.
   *
   * @param endpoint its base address, such as {@code http://collector:4318}
   * @throws dev.flotilla.FlotillaException {@code INVALID} if it is no http address
   */
  public void exportLog(String endpoint) {
    OtlpExporter exporter = new OtlpExporter(endpoint, nodeLog, self, logFolder);
    logExport = exporter;
    exporter.start();
  }

  /** The database. */
  public Sql sql() {
    return sql;
  }

  /** Work of several steps with compensation. */
  public Sagas sagas() {
    return sagas;
  }

  /** Transactions over tables, caches and queues. */
  public Transactions transactions() {
    return transactions;
  }

  /** The search indexes. */
  public SearchIndexes search() {
    return search;
  }

  /** Contents of any size. */
  public Blobs blobs() {
    return blobs;
  }

  /** Work over all nodes. */
  public Jobs jobs() {
    return jobs;
  }

  /** Adds a kind of job, on every node; before the start. */
  public void registerJob(JobDefinition job) {
    jobs.register(job);
  }

  /**
   * What would be lost with a node: what no other node that answers has, for people.
   *
   * @throws dev.flotilla.FlotillaException {@code NO_MAJORITY}, {@code UNAVAILABLE}
   */
  public List<String> onlyOn(String nodeId) {
    List<String> lost = new ArrayList<>();
    List<String> caches = grid.onlyOn(nodeId);
    if (!caches.isEmpty()) {
      lost.add("parts of " + String.join(", ", caches));
    }
    long chunks = blobs.chunksOnlyOn(nodeId);
    if (chunks > 0) {
      lost.add(chunks + " chunks of blobs");
    }
    return lost;
  }

  /** The queues. */
  public Queues queues() {
    return queues;
  }

  @Override
  public void close() {
    journal.close();
    queues.close();
    jobs.close();
    usage.close();
    blobs.close();
    caches.close();
    OtlpExporter exporter = logExport;
    if (exporter != null) {
      exporter.close();
    }
    nodeLog.close();
    sagas.close();
    transactions.close();
    search.close();
    grid.close();
  }
}

package dev.flotilla.app;

import dev.flotilla.client.Client;
import dev.flotilla.client.Deployments;
import dev.flotilla.client.HttpBackups;
import dev.flotilla.client.HttpBlobs;
import dev.flotilla.client.HttpCaches;
import dev.flotilla.client.HttpJobs;
import dev.flotilla.client.HttpLocks;
import dev.flotilla.client.HttpLog;
import dev.flotilla.client.HttpQueues;
import dev.flotilla.client.HttpSagas;
import dev.flotilla.client.HttpSearchIndexes;
import dev.flotilla.client.HttpSharding;
import dev.flotilla.client.HttpSql;
import dev.flotilla.client.HttpTransactions;
import dev.flotilla.client.HttpUsage;
import dev.flotilla.client.Models;
import dev.flotilla.cluster.Locks;
import dev.flotilla.data.Backups;
import dev.flotilla.data.DataPlane;
import dev.flotilla.data.blobs.Blobs;
import dev.flotilla.data.cache.Cache;
import dev.flotilla.data.cache.Caches;
import dev.flotilla.data.jobs.Jobs;
import dev.flotilla.data.log.Log;
import dev.flotilla.data.queue.Queue;
import dev.flotilla.data.queue.Queues;
import dev.flotilla.data.search.SearchIndex;
import dev.flotilla.data.search.SearchIndexes;
import dev.flotilla.data.sql.Sagas;
import dev.flotilla.data.sql.Sharding;
import dev.flotilla.data.sql.Sql;
import dev.flotilla.data.sql.Transactions;
import dev.flotilla.data.usage.Usage;
import java.nio.file.Path;
import java.util.Optional;
import java.util.function.Consumer;

/**
 * A cluster, for programs: a node in this process, or a client of one elsewhere.
 *
 * <p>An embedded node answers the data plane's calls in the process itself; its JVM must be started
 * as {@code node/jvm.options} says. All parts are safe for use by many threads.
 */
public final class Flotilla implements AutoCloseable {

  /**
   * How an embedded node runs.
   *
   * @param data its data folder
   * @param name what people call it
   * @param bind the address its ports listen on
   * @param port the first of its seven ports
   * @param join {@code HOST:PORT} of a node to join, and a token from {@code flotilla invite};
   *     empty to start a cluster or to go on with what is in the folder
   */
  public record Config(Path data, String name, String bind, int port, Optional<Join> join) {

    /** On loopback, named after the folder. */
    public static Config of(Path data, int port) {
      return new Config(
          data,
          String.valueOf(data.toAbsolutePath().getFileName()),
          "127.0.0.1",
          port,
          Optional.empty());
    }

    /** The same, joining a cluster. */
    public Config joining(String address, String token) {
      return new Config(data, name, bind, port, Optional.of(new Join(address, token)));
    }
  }

  /** Whom to join, and with what. */
  public record Join(String address, String token) {}

  private final Locks locks;
  private final Transactions transactions;
  private final Caches caches;
  private final Queues queues;
  private final Log log;
  private final Blobs blobs;
  private final SearchIndexes indexes;
  private final Jobs jobs;
  private final Sql sql;
  private final Sharding sharding;
  private final Sagas sagas;
  private final Usage usage;
  private final Backups backups;
  private final Models models;
  private final Deployments deployments;
  private final Runnable onClose;

  private Flotilla(DataPlane data, Client client, Runnable onClose) {
    locks = data.locks();
    transactions = data.transactions();
    caches = data.caches();
    queues = data.queues();
    log = data.log();
    blobs = data.blobs();
    indexes = data.search();
    jobs = data.jobs();
    sql = data.sql();
    sharding = data.sharding();
    sagas = data.sagas();
    usage = data.usage();
    backups = data.backups();
    models = new Models(client);
    deployments = new Deployments(client);
    this.onClose = onClose;
  }

  private Flotilla(Client client) {
    locks = new HttpLocks(client);
    transactions = new HttpTransactions(client);
    caches = new HttpCaches(client);
    queues = new HttpQueues(client);
    log = new HttpLog(client);
    blobs = new HttpBlobs(client);
    indexes = new HttpSearchIndexes(client);
    jobs = new HttpJobs(client);
    sql = new HttpSql(client);
    sharding = new HttpSharding(client);
    sagas = new HttpSagas(client);
    usage = new HttpUsage(client);
    backups = new HttpBackups(client);
    models = new Models(client);
    deployments = new Deployments(client);
    onClose = () -> {};
  }

  /**
   * Runs a node in this process; returns once it serves.
   *
   * @throws dev.flotilla.FlotillaException as {@code flotilla up} would fail
   */
  public static Flotilla start(Config config) {
    return start(config, data -> {});
  }

  /**
   * As above.
   *
   * @param register called before the node serves, to register jobs, sagas and caches' stores
   */
  public static Flotilla start(Config config, Consumer<DataPlane> register) {
    Node node =
        new Node(
            new Node.Options(
                config.data().toAbsolutePath().normalize(),
                config.name(),
                config.bind(),
                config.port(),
                false,
                config.join().map(join -> new Node.Join(join.address(), join.token())),
                ModelSources.of(System.getenv(), false)));
    register.accept(node.data());
    node.start();
    Client client =
        new Client("http://" + config.bind() + ":" + config.port(), Client.keyIn(config.data()));
    return new Flotilla(node.data(), client, node::stop);
  }

  /**
   * Speaks to a cluster through one of its nodes.
   *
   * @param url such as {@code http://127.0.0.1:8000}
   * @param key an API key
   * @throws dev.flotilla.FlotillaException {@code INVALID} if the address is none
   */
  public static Flotilla connect(String url, String key) {
    return new Flotilla(new Client(url, Optional.of(key)));
  }

  /** Locks, semaphores, elections. */
  public Locks locks() {
    return locks;
  }

  /** Transactions over tables, caches and queues. */
  public Transactions transactions() {
    return transactions;
  }

  /** All caches. */
  public Caches caches() {
    return caches;
  }

  /** A cache; made by its first use. */
  public Cache cache(String name) {
    return caches.cache(name);
  }

  /** All queues. */
  public Queues queues() {
    return queues;
  }

  /** A queue; made by its first use. */
  public Queue queue(String name) {
    return queues.queue(name);
  }

  /** The log of all nodes, and streams. */
  public Log log() {
    return log;
  }

  /** Content by its digest. */
  public Blobs blobs() {
    return blobs;
  }

  /** All search indexes. */
  public SearchIndexes indexes() {
    return indexes;
  }

  /** A search index. */
  public SearchIndex index(String name) {
    return indexes.index(name);
  }

  /** Map and reduce over the nodes. */
  public Jobs jobs() {
    return jobs;
  }

  /** The database. */
  public Sql sql() {
    return sql;
  }

  /** How tables are spread. */
  public Sharding sharding() {
    return sharding;
  }

  /** Work of several steps with compensation; registered on embedded nodes, used by all. */
  public Sagas sagas() {
    return sagas;
  }

  /** Who used what. */
  public Usage usage() {
    return usage;
  }

  /** Copies of the data grid to go back to. */
  public Backups backups() {
    return backups;
  }

  /** The models. */
  public Models models() {
    return models;
  }

  /** What is served. */
  public Deployments deployments() {
    return deployments;
  }

  /** Stops an embedded node; does nothing to a cluster elsewhere. */
  @Override
  public void close() {
    onClose.run();
  }
}

package dev.flotilla.data.jobs;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.Lease;
import dev.flotilla.cluster.Locks;
import dev.flotilla.cluster.Registry;
import dev.flotilla.data.blobs.Blobs;
import dev.flotilla.data.grid.Environment;
import dev.flotilla.data.grid.Fences;
import dev.flotilla.data.grid.Grid;
import dev.flotilla.data.jobs.JobStore.JobRecord;
import java.time.Duration;
import java.time.InstantSource;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.function.LongSupplier;
import java.util.random.RandomGenerator;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Jobs on the grid. A job that has not ended stands in the registry, where every node sees it; the
 * node that gets the job's lock coordinates it, and when that node dies the lock expires and
 * another goes on.
 *
 * <p>The record is written first, with a note in the grid that the job is open, the registry's
 * entry second. Whoever keeps the note sees to it that the entry is there: it may be missing since
 * the node that was asked died between the two, or since a backup was restored.
 */
public final class GridJobs implements Jobs {

  private static final Logger log = LoggerFactory.getLogger(GridJobs.class);
  private static final String KIND = "job";
  private static final Duration LEASE = Duration.ofSeconds(3);
  private static final int ROWS_MAX = 10_000;
  private static final long OPEN_NS = TimeUnit.SECONDS.toNanos(5);

  /**
   * How often a job's coordination may break off in a row with nothing done, and how long it waits
   * before it goes on; the wait doubles each time.
   */
  record Patience(int setbacksMax, Duration first, Duration longest) {

    /** About two minutes in all. */
    static final Patience DEFAULT =
        new Patience(10, Duration.ofMillis(500), Duration.ofSeconds(20));

    Duration after(int setbacks) {
      Duration wait = first.multipliedBy(1L << Math.min(20, setbacks));
      return wait.compareTo(longest) < 0 ? wait : longest;
    }
  }

  private final Cluster cluster;
  private final Locks locks;
  private final JobStore store;
  private final JobDefinition.Context context;
  private final JobWorker worker;
  private final InstantSource clock;
  private final LongSupplier nanoTime;
  private final RandomGenerator random;
  private final Patience patience;
  private final Map<String, JobDefinition> definitions = new ConcurrentHashMap<>();
  private final Set<String> coordinated = ConcurrentHashMap.newKeySet();
  private final Semaphore signals = new Semaphore(0);
  private final Thread keeper;
  private volatile boolean closed;

  public GridJobs(
      Environment environment,
      Grid grid,
      Locks locks,
      Fences fences,
      Blobs blobs,
      List<JobDefinition> jobs) {
    this(environment, grid, locks, fences, blobs, jobs, Patience.DEFAULT);
  }

  GridJobs(
      Environment environment,
      Grid grid,
      Locks locks,
      Fences fences,
      Blobs blobs,
      List<JobDefinition> jobs,
      Patience patience) {
    this.patience = patience;
    this.cluster = environment.cluster();
    this.locks = locks;
    this.clock = environment.clock();
    this.nanoTime = environment.nanoTime();
    this.random = environment.random();
    this.context = new JobDefinition.Context(cluster, grid, blobs);
    this.store = new JobStore(grid, fences);
    this.worker = new JobWorker(definitions, context, store);
    this.keeper = Thread.ofVirtual().name("jobs").unstarted(this::keep);
    jobs.forEach(this::register);
    cluster.addService(worker);
  }

  /** Adds a kind of job; on every node, before it starts. */
  public void register(JobDefinition job) {
    definitions.put(job.name(), job);
  }

  public void start() {
    AutoCloseable _ = cluster.registry().subscribe(signals::release); // ends with the registry
    keeper.start();
  }

  @Override
  public Map<String, String> definitions() {
    Map<String, String> all = new TreeMap<>();
    definitions.values().forEach(d -> all.put(d.name(), d.description()));
    return all;
  }

  @Override
  public String submit(String job, JsonNode input) {
    JobDefinition definition = definitions.get(job);
    if (definition == null) {
      throw new FlotillaException(
          Code.INVALID,
          "there is no job called " + job,
          "Jobs: " + String.join(", ", definitions().keySet()) + ".");
    }
    if (Json.write(input).length > INPUT_BYTES_MAX) {
      throw new FlotillaException(
          Code.TOO_LARGE,
          "a job's input may have " + INPUT_BYTES_MAX + " bytes",
          "Put what is larger into a blob, and name its digest.");
    }
    if (!input.isObject()) {
      throw new FlotillaException(
          Code.INVALID, "a job's input must be a JSON object", definition.description());
    }
    definition.check(context, input);
    String id = "job-" + Long.toUnsignedString(random.nextLong(), 36);
    long nowMs = clock.millis();
    store.create(
        new JobRecord(
            id, job, input, JobStore.SUBMITTED, "", "", List.of(), 0, 0, 0, 0, 0, 0, nowMs, nowMs));
    try {
      announce(id, job);
    } catch (FlotillaException e) {
      log.info("job {} is taken up a little later: {}", id, e.explanation());
    }
    return id;
  }

  private void announce(String id, String job) {
    Optional<Long> _ =
        cluster
            .registry()
            .commit(
                List.of(new Registry.Condition(key(id), 0)),
                List.of(new Registry.Write(key(id), Optional.of(Json.write(job)))));
  }

  private void announceOpen() {
    for (String id : store.openHere()) {
      if (cluster.registry().get(key(id)).isEmpty()) {
        Optional<JobRecord> job = store.find(id).filter(j -> !j.ended());
        job.ifPresent(j -> announce(id, j.job()));
      }
    }
  }

  private static Registry.Key key(String id) {
    return new Registry.Key(KIND, id);
  }

  @Override
  public View show(String id) {
    return record(id).view();
  }

  private JobRecord record(String id) {
    return store.find(id).orElseThrow(() -> JobStore.notFound(id));
  }

  @Override
  public List<View> list() {
    return store.all().stream()
        .map(JobRecord::view)
        .sorted(Comparator.comparingLong(View::createdAtMs))
        .toList();
  }

  @Override
  public String cancel(String id) {
    JobRecord job = record(id);
    if (job.ended()) {
      store.delete(job);
      return "deleted";
    }
    return store
        .update(
            id,
            Optional.empty(),
            j ->
                new JobRecord(
                    j.id(),
                    j.job(),
                    j.input(),
                    JobStore.CANCELLED,
                    "",
                    j.coordinator(),
                    j.plan(),
                    j.buckets(),
                    j.done(),
                    j.attempts(),
                    j.copies(),
                    0,
                    j.setbacks(),
                    j.createdAtMs(),
                    clock.millis()))
        .state();
  }

  @Override
  public List<Row> rows(String id, String after, int limit) {
    if (limit < 1 || limit > ROWS_MAX) {
      throw new FlotillaException(
          Code.INVALID, "a page of " + limit + " rows is out of range", "1 to " + ROWS_MAX + ".");
    }
    JobRecord job = record(id);
    if (!job.state().equals(JobStore.DONE)) {
      throw new FlotillaException(
          Code.CONFLICT, "job " + id + " is " + job.state() + " and has no result", "");
    }
    return store.rows(id, after, limit);
  }

  // The coordinators.

  private void keep() {
    long lookedNs = nanoTime.getAsLong();
    while (!closed) {
      try {
        if (signals.tryAcquire(1, TimeUnit.SECONDS)) {
          signals.drainPermits();
        }
        if (nanoTime.getAsLong() - lookedNs > OPEN_NS) {
          lookedNs = nanoTime.getAsLong();
          announceOpen();
        }
        for (Registry.Entry entry : cluster.registry().list(KIND)) {
          String id = entry.key().name();
          if (locks.show(id).holders().isEmpty() && coordinated.add(id)) {
            Thread.ofVirtual().name("coordinator-" + id).start(() -> coordinate(id));
          }
        }
      } catch (InterruptedException e) {
        return;
      } catch (RuntimeException e) {
        if (!closed) {
          log.warn("jobs cannot be looked after yet: {}", e.toString());
        }
      }
    }
  }

  private void coordinate(String id) {
    try {
      Optional<Lease> lease = locks.lease(Locks.Request.exclusive(id, cluster.self()).ttl(LEASE));
      if (lease.isEmpty()) {
        return;
      }
      try (Lease held = lease.get()) {
        for (int setbacks = 0; held.held() && !closed && !goOn(id, held); setbacks++) {
          Thread.sleep(patience.after(setbacks));
        }
        if (held.held() && store.find(id).map(JobRecord::ended).orElse(true)) {
          Optional<Long> _ =
              cluster
                  .registry()
                  .commit(List.of(), List.of(new Registry.Write(key(id), Optional.empty())));
        }
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    } catch (FlotillaException e) {
      log.warn("job {}: its coordination broke off: {}", id, e.explanation());
    } catch (RuntimeException e) {
      log.error("job {}: its coordination failed", id, e);
    } finally {
      coordinated.remove(id);
    }
  }

  /** Whether it has ended, or is not for this node; if not, it is to be tried again. */
  private boolean goOn(String id, Lease held) throws InterruptedException {
    try {
      Optional<JobRecord> job = store.find(id);
      JobDefinition definition = job.map(j -> definitions.get(j.job())).orElse(null);
      if (job.isPresent() && !job.get().ended() && definition != null) {
        new JobRun(cluster, store, definition, context, held, nanoTime, patience.setbacksMax())
            .run(job.get());
      }
      return true;
    } catch (FlotillaException e) {
      log.warn("job {}: its coordination broke off: {}", id, e.explanation());
      return false;
    }
  }

  public void close() {
    closed = true;
    keeper.interrupt();
    worker.close();
  }
}

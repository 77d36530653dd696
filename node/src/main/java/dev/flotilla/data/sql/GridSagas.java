package dev.flotilla.data.sql;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.cluster.Registry;
import dev.flotilla.data.grid.Grid;
import java.time.Duration;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.regex.Pattern;
import org.apache.ignite.IgniteCache;
import org.apache.ignite.cache.CacheAtomicityMode;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Sagas on the grid. The registry says which node drives each (kind {@code "saga"}); the epoch of
 * that entry is a fencing token: a driver records a step only if the saga's record carries no newer
 * token, so that a node that was only thought dead cannot write after its successor.
 */
public final class GridSagas implements Sagas, AutoCloseable {

  /** The node that drives one. */
  record Driver(String node) {}

  /** A saga in the grid. */
  record Stored(
      String id,
      String saga,
      State state,
      Map<String, String> parameters,
      Map<String, String> results,
      int stepsDone,
      String error,
      long token,
      long updatedAtMs) {

    View view() {
      return new View(id, saga, state, parameters, results, stepsDone, error, updatedAtMs);
    }

    Stored next(State next, Map<String, String> known, int done, String why) {
      return new Stored(id, saga, next, parameters, known, done, why, token, updatedAtMs);
    }
  }

  /** Another node drives it now. */
  private static final class Superseded extends RuntimeException {
    private static final long serialVersionUID = 1L;

    Superseded() {
      super("another node drives it", null, false, false);
    }
  }

  private static final Logger log = LoggerFactory.getLogger(GridSagas.class);
  private static final String KIND = "saga";
  private static final String CACHE = "flotilla.sagas";
  private static final int ATTEMPTS_MAX = 8;
  private static final int TEXT_MAX = 64 << 10;
  private static final Pattern NAME = Pattern.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,127}");

  private final Cluster cluster;
  private final Grid grid;
  private final InstantSource clock;
  private final Map<String, List<Step>> known = new ConcurrentHashMap<>();
  private final Map<String, Long> driving = new ConcurrentHashMap<>();
  private @Nullable AutoCloseable subscription;
  private volatile boolean closed;

  public GridSagas(Cluster cluster, Grid grid, InstantSource clock) {
    this.cluster = cluster;
    this.grid = grid;
    this.clock = clock;
    cluster.addReconciler(this::replaceDead);
    grid.onStart(
        ignite -> {
          ignite.getOrCreateCache(
              grid.<String, byte[]>cacheConfig(CACHE, CacheAtomicityMode.TRANSACTIONAL));
          subscribe();
        });
  }

  private synchronized void subscribe() {
    if (subscription == null) {
      subscription = cluster.registry().subscribe(this::look);
    }
  }

  @Override
  public void register(String saga, List<Step> steps) {
    known.put(saga, List.copyOf(steps));
    if (subscription != null) {
      look();
    }
  }

  @Override
  public void start(String saga, String id, Map<String, String> parameters) {
    if (!known.containsKey(saga)) {
      throw new FlotillaException(
          Code.NOT_FOUND, "there is no saga " + saga + " on this node", "Register it first.");
    }
    if (!NAME.matcher(id).matches() || parameters.toString().length() > TEXT_MAX) {
      throw new FlotillaException(
          Code.INVALID,
          "the saga's id is not a name, or its parameters are too large",
          "An id has up to 128 letters, digits, dots, hyphens and underscores; parameters 64 KiB.");
    }
    if (stored(id).isPresent()) {
      return;
    }
    // First who drives it, then what: a record without a driver would lie there for ever, a driver
    // without a record finds nothing and goes.
    Registry.Key key = new Registry.Key(KIND, id);
    Optional<Long> token =
        cluster
            .registry()
            .commit(
                List.of(new Registry.Condition(key, 0)),
                List.of(
                    new Registry.Write(key, Optional.of(Json.write(new Driver(cluster.self()))))));
    if (token.isEmpty()) {
      return;
    }
    driving.put(id, token.get());
    Stored begun =
        new Stored(
            id, saga, State.RUNNING, parameters, Map.of(), 0, "", token.get(), clock.millis());
    try {
      grid.transact(
          "starting saga " + id,
          Grid.TransactionMode.PESSIMISTIC,
          ignite -> {
            ignite.<String, byte[]>cache(CACHE).putIfAbsent(id, Json.write(begun));
            return true;
          });
    } catch (FlotillaException e) {
      driving.remove(id);
      look();
      throw e;
    }
    run(id, token.get());
  }

  /** Takes up what this node is to drive and does not yet. */
  private void look() {
    for (Registry.Entry entry : cluster.registry().list(KIND)) {
      String id = entry.key().name();
      if (closed || !Json.read(entry.value(), Driver.class).node().equals(cluster.self())) {
        continue;
      }
      if (driving.putIfAbsent(id, entry.epoch()) == null) {
        run(id, entry.epoch());
      }
    }
  }

  private void run(String id, long token) {
    Thread.ofVirtual()
        .name("saga-" + id)
        .start(
            () -> {
              try {
                drive(id, token);
              } catch (Superseded e) {
                log.info("saga {} is driven by another node now", id);
              } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
              } catch (RuntimeException e) {
                log.error("saga {} stops here", id, e);
              } finally {
                driving.remove(id, token);
              }
            });
  }

  private void drive(String id, long token) throws InterruptedException {
    Optional<Stored> found = insist(() -> claim(id, token));
    if (found.isEmpty()) {
      release(id, token);
      return;
    }
    Stored saga = found.get();
    List<Step> steps = known.get(saga.saga());
    if (steps == null) {
      log.error("saga {} is of the kind {}, which is not registered here", id, saga.saga());
      return;
    }
    while (saga.state() == State.RUNNING || saga.state() == State.COMPENSATING) {
      Stored next = saga.state() == State.RUNNING ? forward(saga, steps) : back(saga, steps);
      saga = insist(() -> save(next, token));
    }
    log.info("saga {} is {}", id, saga.state());
    release(id, token);
  }

  private Stored forward(Stored saga, List<Step> steps) throws InterruptedException {
    if (saga.stepsDone() == steps.size()) {
      return saga.next(State.DONE, saga.results(), saga.stepsDone(), "");
    }
    Step step = steps.get(saga.stepsDone());
    try {
      Map<String, String> results = new LinkedHashMap<>(saga.results());
      results.put(step.name(), attempt(step.action(), context(saga, step, "")));
      return saga.next(State.RUNNING, results, saga.stepsDone() + 1, "");
    } catch (RuntimeException e) {
      log.warn("saga {} failed at step {} and is undone", saga.id(), step.name(), e);
      return saga.next(
          State.COMPENSATING,
          saga.results(),
          saga.stepsDone(),
          step.name() + ": " + e.getMessage());
    }
  }

  private Stored back(Stored saga, List<Step> steps) throws InterruptedException {
    if (saga.stepsDone() == 0) {
      return saga.next(State.COMPENSATED, saga.results(), 0, saga.error());
    }
    Step step = steps.get(saga.stepsDone() - 1);
    try {
      if (step.compensation().isPresent()) {
        attempt(step.compensation().get(), context(saga, step, "/undo"));
      }
      return saga.next(State.COMPENSATING, saga.results(), saga.stepsDone() - 1, saga.error());
    } catch (RuntimeException e) {
      log.error("saga {} cannot undo step {}", saga.id(), step.name(), e);
      return saga.next(
          State.STUCK,
          saga.results(),
          saga.stepsDone(),
          saga.error() + "; undoing " + step.name() + ": " + e.getMessage());
    }
  }

  private static Context context(Stored saga, Step step, String what) {
    return new Context(
        saga.id(), saga.id() + "/" + step.name() + what, saga.parameters(), saga.results());
  }

  private String attempt(Action action, Context context) throws InterruptedException {
    for (int attempt = 1; ; attempt++) {
      try {
        return action.run(context);
      } catch (FlotillaException e) {
        boolean passing =
            switch (e.code()) {
              case BUSY, UNAVAILABLE, NO_MAJORITY, OUTCOME_UNKNOWN, CONFLICT -> true;
              default -> false;
            };
        if (!passing || attempt == ATTEMPTS_MAX || closed) {
          throw e;
        }
        Thread.sleep(Math.min(5_000, 50L << attempt));
      }
    }
  }

  /** Until the grid takes it: what has been done must be recorded. */
  private <T> T insist(java.util.function.Supplier<T> operation) throws InterruptedException {
    while (true) {
      try {
        return operation.get();
      } catch (FlotillaException e) {
        if (closed) {
          throw new Superseded();
        }
        Thread.sleep(200);
      }
    }
  }

  private Optional<Stored> claim(String id, long token) {
    return grid.transact(
        "taking up saga " + id,
        Grid.TransactionMode.PESSIMISTIC,
        ignite -> {
          IgniteCache<String, byte[]> sagas = ignite.cache(CACHE);
          byte[] bytes = sagas.get(id);
          if (bytes == null) {
            return Optional.empty();
          }
          Stored now = Json.read(bytes, Stored.class);
          if (now.token() > token) {
            throw new Superseded();
          }
          Stored mine =
              new Stored(
                  id,
                  now.saga(),
                  now.state(),
                  now.parameters(),
                  now.results(),
                  now.stepsDone(),
                  now.error(),
                  token,
                  clock.millis());
          sagas.put(id, Json.write(mine));
          return Optional.of(mine);
        });
  }

  private Stored save(Stored next, long token) {
    return grid.transact(
        "recording saga " + next.id(),
        Grid.TransactionMode.PESSIMISTIC,
        ignite -> {
          IgniteCache<String, byte[]> sagas = ignite.cache(CACHE);
          byte[] bytes = sagas.get(next.id());
          if (bytes == null || Json.read(bytes, Stored.class).token() != token) {
            throw new Superseded();
          }
          boolean over = next.state() != State.RUNNING && next.state() != State.COMPENSATING;
          IgniteCache<String, byte[]> target =
              over
                  ? sagas.withExpiryPolicy(
                      new javax.cache.expiry.ModifiedExpiryPolicy(
                          new javax.cache.expiry.Duration(TimeUnit.DAYS, 1)))
                  : sagas;
          target.put(next.id(), Json.write(next));
          return next;
        });
  }

  private void release(String id, long token) {
    Registry.Key key = new Registry.Key(KIND, id);
    var _ =
        cluster
            .registry()
            .commit(
                List.of(new Registry.Condition(key, token)),
                List.of(new Registry.Write(key, Optional.empty())));
  }

  /** On the leader: gives the sagas of nodes that are gone to nodes that are there. */
  private void replaceDead(Cluster.Leadership leadership) {
    List<Registry.Entry> entries = cluster.registry().list(KIND);
    if (entries.isEmpty()) {
      return;
    }
    List<String> alive =
        new ArrayList<>(leadership.aliveNodes().stream().map(NodeInfo::id).sorted().toList());
    for (Registry.Entry entry : entries) {
      if (!alive.isEmpty() && !alive.contains(Json.read(entry.value(), Driver.class).node())) {
        String next = alive.get(Math.floorMod(entry.key().name().hashCode(), alive.size()));
        log.info("saga {} goes on at node {}", entry.key().name(), next);
        var _ =
            leadership.commit(
                List.of(new Registry.Condition(entry.key(), entry.epoch())),
                List.of(
                    new Registry.Write(entry.key(), Optional.of(Json.write(new Driver(next))))));
      }
    }
  }

  private Optional<Stored> stored(String id) {
    return Optional.ofNullable(
            grid.<byte @Nullable []>read(
                "reading saga " + id, ignite -> ignite.<String, byte[]>cache(CACHE).get(id)))
        .map(bytes -> Json.read(bytes, Stored.class));
  }

  @Override
  public Optional<View> find(String id) {
    return stored(id).map(Stored::view);
  }

  @Override
  public View await(String id, Duration timeout) throws InterruptedException {
    long deadlineMs = clock.millis() + timeout.toMillis();
    while (true) {
      View view =
          find(id)
              .orElseThrow(
                  () ->
                      new FlotillaException(
                          Code.NOT_FOUND, "there is no saga " + id, "Start it first."));
      boolean over = view.state() != State.RUNNING && view.state() != State.COMPENSATING;
      if (over || clock.millis() >= deadlineMs) {
        return view;
      }
      Thread.sleep(20);
    }
  }

  @Override
  public void close() {
    closed = true;
    AutoCloseable open = subscription;
    if (open != null) {
      try {
        open.close();
      } catch (Exception e) {
        log.warn("sagas: the registry's subscription did not close", e);
      }
    }
  }
}

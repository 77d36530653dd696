package dev.flotilla.data.sql;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.Names;
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
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import org.apache.ignite.IgniteCache;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Sagas on the grid. The registry says which node drives each (kind {@code "saga"}); the epoch of
 * that entry is a fencing token: a driver records a step only if the saga's record carries no newer
 * token, so that a node that was only thought dead cannot write after its successor.
 *
 * <p>The record is written first, the driver's entry second, so that a driver always finds what it
 * is to drive: an entry without a record is one whose saga ended long ago, and goes. What begins to
 * drive is one thread, whether the start or the registry's news comes first.
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

  private final Cluster cluster;
  private final Grid grid;
  private final InstantSource clock;
  private final Map<String, List<Step>> known = new ConcurrentHashMap<>();
  private final Set<String> unknown = ConcurrentHashMap.newKeySet();
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
          ignite.getOrCreateCache(grid.<String, byte[]>cacheConfig(CACHE));
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
    unknown.remove(saga);
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
    Names.check("a saga", id);
    if (parameters.toString().length() > TEXT_MAX) {
      throw new FlotillaException(
          Code.INVALID, "the saga's parameters are too large", "They may have 64 KiB.");
    }
    Stored begun =
        new Stored(id, saga, State.RUNNING, parameters, Map.of(), 0, "", 0, clock.millis());
    long claimed =
        grid.transact(
            "starting saga " + id,
            Grid.TransactionMode.PESSIMISTIC,
            ignite -> {
              IgniteCache<String, byte[]> sagas = ignite.cache(CACHE);
              byte[] bytes = sagas.get(id);
              if (bytes != null) {
                return Json.read(bytes, Stored.class).token();
              }
              sagas.put(id, Json.write(begun));
              return 0L;
            });
    if (claimed != 0) {
      return;
    }
    // Also where another start was cut off between the two writes: nobody would drive it otherwise.
    Registry.Key key = new Registry.Key(KIND, id);
    cluster
        .registry()
        .commit(
            List.of(new Registry.Condition(key, 0)),
            List.of(new Registry.Write(key, Optional.of(Json.write(new Driver(cluster.self()))))))
        .ifPresent(token -> take(id, token));
  }

  /** Takes up what this node is to drive and does not yet. */
  private void look() {
    for (Registry.Entry entry : cluster.registry().list(KIND)) {
      if (!closed && mine(entry)) {
        take(entry.key().name(), entry.epoch());
      }
    }
  }

  private void take(String id, long token) {
    if (driving.putIfAbsent(id, token) != null) {
      return;
    }
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
                takeAgain(id, token);
              }
            });
  }

  /** It went to another node and came back while this one still drove it. */
  private void takeAgain(String id, long token) {
    cluster
        .registry()
        .get(new Registry.Key(KIND, id))
        .filter(entry -> entry.epoch() > token && !closed && mine(entry))
        .ifPresent(entry -> take(id, entry.epoch()));
  }

  private boolean mine(Registry.Entry entry) {
    return Json.read(entry.value(), Driver.class).node().equals(cluster.self());
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
      if (unknown.add(saga.saga())) {
        log.error("saga {} is of the kind {}, which is not registered here", id, saga.saga());
      }
      return;
    }
    while (!over(saga.state())) {
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
      String result = attempt(step.action(), context(saga, step, ""));
      if (result.length() > TEXT_MAX) {
        throw new FlotillaException(
            Code.TOO_LARGE,
            "a result of " + result.length() + " characters",
            "A step returns up to 64 KiB; keep more in a blob, and return its digest.");
      }
      results.put(step.name(), result);
      return saga.next(State.RUNNING, results, saga.stepsDone() + 1, "");
    } catch (RuntimeException e) {
      unlessClosed(e);
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
      unlessClosed(e);
      log.error("saga {} cannot undo step {}", saga.id(), step.name(), e);
      return saga.next(
          State.STUCK,
          saga.results(),
          saga.stepsDone(),
          saga.error() + "; undoing " + step.name() + ": " + e.getMessage());
    }
  }

  /** What fails because its node stops under it has not failed: another node tries again. */
  private void unlessClosed(RuntimeException failure) {
    if (closed) {
      log.info("a saga's step was cut off: {}", failure.toString());
      throw new Superseded();
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
    for (long tries = 0; ; tries++) {
      try {
        return operation.get();
      } catch (FlotillaException e) {
        if (closed) {
          throw new Superseded();
        }
        if (tries % 50 == 25) {
          log.warn("a saga waits for the grid: {}", e.explanation());
        }
        Thread.sleep(200);
      }
    }
  }

  private static boolean over(State state) {
    return state != State.RUNNING && state != State.COMPENSATING;
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
          if (over(now.state())) {
            return Optional.of(now);
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
          IgniteCache<String, byte[]> target =
              over(next.state())
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
      if (over(view.state()) || clock.millis() >= deadlineMs) {
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

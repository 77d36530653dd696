package dev.flotilla.cluster;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.Names;
import dev.flotilla.Threads;
import dev.flotilla.cluster.LockState.Claim;
import io.micrometer.core.instrument.Counter;
import io.micrometer.core.instrument.MeterRegistry;
import io.micrometer.core.instrument.Timer;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.function.LongSupplier;
import java.util.function.UnaryOperator;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Locks on the Raft registry.
 *
 * <p><b>State.</b> A lock is one entry of the registry, a {@link LockState}: holders and a queue.
 * Every step, also one that changes nothing (a try that finds the lock taken), is one commit on
 * condition that the entry is still the one that was read; so every answer was true at one moment
 * between call and return. A lock that nobody holds or waits for has no entry.
 *
 * <p><b>Token.</b> The epoch of the commit that gave the lock. Raft's log index only grows, also
 * over the entry's deletion, so a later holder's token is greater.
 *
 * <p><b>Order, without polling.</b> A waiter stands in the entry's queue. The commit that releases
 * a lock lets the next one in: one commit per hand-over, and the waiter's node sees it in its own
 * copy. All steps that come up on one node while a commit is under way go together into the next
 * one ({@link Actor}), so fifty threads that ask at once cost a few commits, and nodes rarely get
 * into each other's way.
 *
 * <p><b>Death.</b> No machine's wall clock is trusted. A claim, held or waiting, carries a counter
 * that each renewal moves. The Raft leader watches the counters by its own monotonic clock, and
 * takes out a claim whose counter stood still for the lease and an eighth ({@link #reconcile}). The
 * holder counts from before it sent the renewal, the leader from after it was committed, so the
 * holder knows first. A new leader starts counting anew: a change of leaders prolongs leases and
 * never shortens them. The same holds for a leader that was itself paused. The commit that takes a
 * claim out is conditional on the leader's term and on the entry, hence on the counter.
 *
 * <p>A waiter is kept alive by the node that serves its wait, every third of its lease, together
 * with all other waiters of that lock there; so a node's death clears its waiters, too.
 */
final class RegistryLocks implements Locks, Cluster.Reconciler {

  static final String KIND = "lock";

  private static final Logger log = LoggerFactory.getLogger(RegistryLocks.class);

  private static final long WAIT_MS_MAX = TimeUnit.DAYS.toMillis(30);

  /** A leader that has not looked for so long cannot judge who was silent meanwhile. */
  private static final long WATCH_GAP_NS = TimeUnit.SECONDS.toNanos(3);

  private final Registry registry;
  private final LongSupplier nanoTime;
  private final Threads threads;
  private final Map<String, Actor> actors = new ConcurrentHashMap<>();
  private final Timer acquired;
  private final Timer notAcquired;
  private final Counter expired;
  private final Map<String, Watched> watched = new HashMap<>();
  private long watchedNs;

  RegistryLocks(Registry registry, Threads threads, LongSupplier nanoTime, MeterRegistry metrics) {
    this.registry = registry;
    this.threads = threads;
    this.nanoTime = nanoTime;
    this.acquired = metrics.timer("flotilla.lock.acquire", "outcome", "held");
    this.notAcquired = metrics.timer("flotilla.lock.acquire", "outcome", "not_in_time");
    this.expired = metrics.counter("flotilla.lock.expired");
    AutoCloseable _ = registry.subscribe(this::wake); // ends with the registry
  }

  static Registry.Key key(String name) {
    return new Registry.Key(KIND, name);
  }

  /** The state of a lock in this node's copy. */
  static LockState state(Optional<Registry.Entry> entry) {
    return entry
        .map(e -> Json.read(e.value(), LockState.class).at(e.epoch()))
        .orElse(LockState.FREE);
  }

  // The steps.

  @Override
  public Optional<Grant> acquire(Request request) {
    long askedNs = nanoTime.getAsLong();
    Actor actor = enter(request.name());
    try {
      Optional<Claim> claim = claim(actor, request, askedNs);
      (claim.isPresent() ? acquired : notAcquired)
          .record(nanoTime.getAsLong() - askedNs, TimeUnit.NANOSECONDS);
      return claim.map(c -> grant(request.name(), c));
    } catch (InterruptedException e) {
      CompletableFuture<LockState> _ = actor.post(s -> s.remove(Set.of(request.claim())));
      Thread.currentThread().interrupt();
      throw new FlotillaException(
          Code.FAILED, "interrupted while waiting for lock " + request.name(), "", e);
    } finally {
      actor.forget(request.claim());
      leave(request.name());
    }
  }

  private Optional<Claim> claim(Actor actor, Request request, long askedNs)
      throws InterruptedException {
    String id = request.claim();
    long waitMs = Math.min(request.waitMs(), WAIT_MS_MAX);
    long deadlineNs = askedNs + TimeUnit.MILLISECONDS.toNanos(waitMs);
    long signOfLifeNs = TimeUnit.MILLISECONDS.toNanos(request.ttlMs()) / 3;
    CompletableFuture<Claim> turn = actor.expect(id);
    LockState state = actor.step(s -> tried(s.request(Claim.of(request)), request));
    while (true) {
      Optional<Claim> held = state.holding(id);
      if (held.isPresent()) {
        return held;
      }
      long leftNs = deadlineNs - nanoTime.getAsLong();
      if (leftNs <= 0) {
        boolean stays = request.keepWaiting();
        return (waitMs == 0 && !stays
                ? state
                : actor.step(s -> stays ? s.renew(Set.of(id)) : s.withdraw(id)))
            .holding(id);
      }
      if (!state.waits(id)) {
        // This node stood still for so long that its waiter was taken for dead.
        state = actor.step(s -> s.request(Claim.of(request)));
      } else {
        Optional<Claim> woken = await(turn, Math.min(leftNs, signOfLifeNs));
        if (woken.isPresent()) {
          return woken;
        }
        state = actor.keepWaitersAlive(signOfLifeNs);
      }
    }
  }

  private static LockState tried(LockState asked, Request request) {
    return request.waitMs() == 0 && !request.keepWaiting()
        ? asked.withdraw(request.claim())
        : asked;
  }

  private static Grant grant(String name, Claim claim) {
    return new Grant(name, claim.holder(), claim.id(), claim.token(), claim.ttlMs());
  }

  @Override
  public Optional<Grant> renew(Grant grant) {
    LockState after =
        stepUninterrupted(
            grant.name(), s -> find(s, grant).map(claim -> s.renew(Set.of(claim.id()))).orElse(s));
    return find(after, grant).map(claim -> grant(grant.name(), claim));
  }

  @Override
  public boolean release(Grant grant) {
    boolean[] held = new boolean[1];
    LockState _ =
        stepUninterrupted(
            grant.name(),
            s -> {
              Optional<Claim> claim = find(s, grant);
              held[0] = claim.isPresent();
              return claim.map(c -> s.remove(Set.of(c.id()))).orElse(s);
            });
    return held[0];
  }

  private static Optional<Claim> find(LockState state, Grant grant) {
    return grant.claim().isEmpty()
        ? state.holding(grant.holder(), grant.token())
        : state
            .holding(grant.claim())
            .filter(c -> c.holder().equals(grant.holder()) && c.token() == grant.token());
  }

  @Override
  public Optional<Lease> lease(Request request) {
    return Lease.acquire(this, request, threads);
  }

  @Override
  public View show(String name) {
    Names.check("a lock", name);
    return state(registry.get(key(name))).view(name);
  }

  @Override
  public List<View> list() {
    return registry.list(KIND).stream()
        .map(entry -> state(Optional.of(entry)).view(entry.key().name()))
        .toList();
  }

  private Actor enter(String name) {
    return actors.compute(
        name,
        (n, before) -> {
          Actor actor = before == null ? new Actor(n) : before;
          actor.users++;
          return actor;
        });
  }

  private void leave(String name) {
    actors.computeIfPresent(name, (n, actor) -> --actor.users == 0 ? null : actor);
  }

  private LockState stepUninterrupted(String name, UnaryOperator<LockState> change) {
    CompletableFuture<LockState> answer = enter(name).post(change);
    boolean interrupted = false;
    try {
      while (true) {
        try {
          return await(answer);
        } catch (InterruptedException e) {
          interrupted = true;
        }
      }
    } finally {
      leave(name);
      if (interrupted) {
        Thread.currentThread().interrupt();
      }
    }
  }

  private LockState await(CompletableFuture<LockState> answer) throws InterruptedException {
    try {
      while (!threads.await(answer, Long.MAX_VALUE)) {}
      return answer.get();
    } catch (ExecutionException e) {
      throw failed(e);
    }
  }

  private static RuntimeException failed(ExecutionException e) {
    if (e.getCause() instanceof FlotillaException known) {
      // A trace of its own: one failure may answer several callers.
      return new FlotillaException(
          known.code(), String.valueOf(known.getMessage()), known.remedy(), known);
    }
    return new IllegalStateException("a step of a lock failed", e.getCause());
  }

  /** Empty if it is not the turn within that time. */
  private Optional<Claim> await(CompletableFuture<Claim> turn, long timeoutNs)
      throws InterruptedException {
    try {
      return threads.await(turn, timeoutNs) ? Optional.of(turn.get()) : Optional.empty();
    } catch (ExecutionException e) {
      throw failed(e);
    }
  }

  /** This node's copy changed: tells the waiters here whose turn it is. */
  private void wake() {
    actors.values().forEach(Actor::look);
  }

  /** One lock's steps on this node, one commit at a time; what comes meanwhile goes together. */
  private final class Actor {

    private record Step(UnaryOperator<LockState> change, CompletableFuture<LockState> answer) {}

    private final String name;
    private final Map<String, CompletableFuture<Claim>> waiters = new ConcurrentHashMap<>();
    private List<Step> pending = new ArrayList<>();
    private boolean running;

    /** Calls under way; changed only inside {@code actors}. */
    private int users;

    private volatile long keptAliveNs;
    private volatile long seenEpoch = -1;

    Actor(String name) {
      this.name = name;
      this.keptAliveNs = nanoTime.getAsLong();
    }

    CompletableFuture<Claim> expect(String claim) {
      return waiters.computeIfAbsent(claim, c -> new CompletableFuture<>());
    }

    void forget(String claim) {
      waiters.remove(claim);
    }

    LockState step(UnaryOperator<LockState> change) throws InterruptedException {
      return await(post(change));
    }

    synchronized CompletableFuture<LockState> post(UnaryOperator<LockState> change) {
      CompletableFuture<LockState> answer = new CompletableFuture<>();
      pending.add(new Step(change, answer));
      if (!running) {
        running = true;
        Threads.Started _ = threads.startVirtual("lock-" + name, this::run);
      }
      return answer;
    }

    private synchronized List<Step> take() {
      List<Step> batch = pending;
      pending = new ArrayList<>();
      running = !batch.isEmpty();
      return batch;
    }

    private void run() {
      for (List<Step> batch = take(); !batch.isEmpty(); batch = take()) {
        try {
          commit(batch);
        } catch (RuntimeException e) {
          batch.forEach(step -> step.answer().completeExceptionally(e));
        }
      }
    }

    private void commit(List<Step> batch) {
      while (true) {
        Optional<Registry.Entry> entry = registry.get(key(name));
        long epoch = entry.map(Registry.Entry::epoch).orElse(0L);
        LockState before = state(entry);
        LockState after = before;
        Map<Step, RuntimeException> refused = new HashMap<>();
        for (Step step : batch) {
          try {
            after = step.change().apply(after);
          } catch (FlotillaException e) {
            refused.put(step, e);
          }
        }
        List<Registry.Write> writes =
            after.equals(before)
                ? List.of()
                : List.of(
                    new Registry.Write(
                        key(name),
                        after.isFree() ? Optional.empty() : Optional.of(Json.write(after))));
        Optional<Long> committed =
            registry.commit(List.of(new Registry.Condition(key(name), epoch)), writes);
        if (committed.isEmpty()) {
          continue; // another node's step came first
        }
        LockState settled = after.at(committed.get());
        for (Step step : batch) {
          RuntimeException refusal = refused.get(step);
          if (refusal != null) {
            step.answer().completeExceptionally(refusal);
          } else {
            step.answer().complete(settled);
          }
        }
        return;
      }
    }

    /** A sign of life of all waiters here, unless another of them gave it a moment ago. */
    LockState keepWaitersAlive(long everyNs) throws InterruptedException {
      long nowNs = nanoTime.getAsLong();
      synchronized (this) {
        if (nowNs - keptAliveNs < everyNs / 2) {
          return state(registry.get(key(name)));
        }
        keptAliveNs = nowNs;
      }
      Set<String> here = new HashSet<>(waiters.keySet());
      return step(s -> s.renew(waitingOf(s, here)));
    }

    private static Set<String> waitingOf(LockState state, Set<String> claims) {
      Set<String> still = new HashSet<>(claims);
      still.removeIf(claim -> !state.waits(claim));
      return still;
    }

    void look() {
      if (waiters.isEmpty()) {
        return;
      }
      Optional<Registry.Entry> entry = registry.get(key(name));
      long epoch = entry.map(Registry.Entry::epoch).orElse(0L);
      if (epoch == seenEpoch) {
        return;
      }
      seenEpoch = epoch;
      LockState state = state(entry);
      waiters.forEach((claim, turn) -> state.holding(claim).ifPresent(c -> turn.complete(c)));
    }
  }

  // The leader's part.

  /** A claim's counter, and since when it has not moved. */
  private record Sign(long renewals, long sinceNs) {}

  /** A lock as last looked at, parsed once per epoch. */
  private record Watched(long epoch, LockState state, Map<String, Sign> signs) {}

  @Override
  public void reconcile(Cluster.Leadership leadership) {
    long nowNs = nanoTime.getAsLong();
    if (nowNs - watchedNs > WATCH_GAP_NS) {
      watched.clear();
    }
    watchedNs = nowNs;
    List<Registry.Entry> entries = registry.list(KIND);
    Set<String> names = new HashSet<>();
    for (Registry.Entry entry : entries) {
      names.add(entry.key().name());
      Watched now = watch(entry, nowNs);
      Set<String> silent = silent(now, nowNs);
      if (!silent.isEmpty()) {
        expire(leadership, entry, now.state(), silent);
      }
    }
    watched.keySet().retainAll(names);
  }

  private Watched watch(Registry.Entry entry, long nowNs) {
    String name = entry.key().name();
    Watched before = watched.get(name);
    if (before != null && before.epoch() == entry.epoch()) {
      return before;
    }
    LockState state = state(Optional.of(entry));
    Map<String, Sign> signs = new HashMap<>();
    claims(state)
        .forEach(
            claim -> {
              Sign old = before == null ? null : before.signs().get(claim.id());
              signs.put(
                  claim.id(),
                  old != null && old.renewals() == claim.renewals()
                      ? old
                      : new Sign(claim.renewals(), nowNs));
            });
    Watched now = new Watched(entry.epoch(), state, signs);
    watched.put(name, now);
    return now;
  }

  private static List<Claim> claims(LockState state) {
    List<Claim> all = new ArrayList<>(state.granted());
    all.addAll(state.waiting());
    return all;
  }

  private static Set<String> silent(Watched lock, long nowNs) {
    Set<String> silent = new HashSet<>();
    for (Claim claim : claims(lock.state())) {
      Sign sign = lock.signs().get(claim.id());
      long ttlNs = TimeUnit.MILLISECONDS.toNanos(claim.ttlMs());
      if (sign != null && nowNs - sign.sinceNs() > ttlNs + ttlNs / 8) {
        silent.add(claim.id());
      }
    }
    return silent;
  }

  private void expire(
      Cluster.Leadership leadership, Registry.Entry entry, LockState state, Set<String> silent) {
    LockState after = state.remove(silent);
    Optional<Long> committed =
        leadership.commit(
            List.of(new Registry.Condition(entry.key(), entry.epoch())),
            List.of(
                new Registry.Write(
                    entry.key(),
                    after.isFree() ? Optional.empty() : Optional.of(Json.write(after)))));
    if (committed.isPresent()) {
      expired.increment(silent.size());
      log.info(
          "lock {}: {} of its claims expired; held by {}",
          entry.key().name(),
          silent.size(),
          after.view(entry.key().name()).holders());
    }
  }
}

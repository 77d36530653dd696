package dev.flotilla.simulate;

import java.time.Duration;
import java.util.PriorityQueue;
import java.util.Random;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Semaphore;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;

/**
 * A clock, what is due when, and threads of which one runs at a time. Everything that happens is an
 * event; two that are due at once happen in the order in which they were made; every choice is
 * drawn from one seed. So the same seed gives the same run.
 *
 * <p>Code that waits runs on a fiber: a virtual thread that runs only while the world has given it
 * its turn, and gives it back when it waits ({@link FiberThreads}). The fibers of a process that
 * died are left where they stand, and go with the world.
 */
final class World {

  static final long MS = 1_000_000L;
  static final long S = 1_000 * MS;

  /** A run takes seconds at most; of a large cluster, minutes. */
  private static final Duration PATIENCE = Duration.ofMinutes(30);

  /** To what events belong: one that is down has none, one that is stopped has them later. */
  static class Scope {
    boolean down;
    long stoppedUntilNs;
  }

  private record Event(long dueNs, long order, @Nullable Scope scope, Runnable task)
      implements Comparable<Event> {

    @Override
    public int compareTo(Event other) {
      return dueNs != other.dueNs
          ? Long.compare(dueNs, other.dueNs)
          : Long.compare(order, other.order);
    }
  }

  final Random random;
  private final PriorityQueue<Event> events = new PriorityQueue<>();
  private final ExecutorService fibers = Executors.newVirtualThreadPerTaskExecutor();
  private final Semaphore back = new Semaphore(0);
  private @Nullable Fiber current;
  private @Nullable Throwable broken;
  private long nowNs;
  private long order;
  private long count;
  private long trace;

  World(long seed) {
    this.random = new Random(mixed(seed));
  }

  /** Neighbouring seeds of a linear generator begin alike; so they are spread (SplitMix64). */
  private static long mixed(long seed) {
    long z = seed * 0x9E3779B97F4A7C15L;
    z = (z ^ (z >>> 30)) * 0xBF58476D1CE4E5B9L;
    z = (z ^ (z >>> 27)) * 0x94D049BB133111EBL;
    return z ^ (z >>> 31);
  }

  long nowNs() {
    return nowNs;
  }

  /** A promise is broken, wherever that was seen: the run ends with this event. */
  void fail(Violation violation) {
    broken = broken == null ? violation : broken;
  }

  /** How many events there were. */
  long count() {
    return count;
  }

  /** A digest of what happened, to compare two runs. */
  long trace() {
    return trace;
  }

  /** Puts something of what happened into the digest. */
  void note(long what) {
    trace = (trace ^ what ^ nowNs) * 0x9E3779B97F4A7C15L;
    trace ^= trace >>> 29;
  }

  /** Does something after a while, on no fiber; it must not wait. */
  void after(long delayNs, @Nullable Scope scope, Runnable task) {
    events.add(new Event(nowNs + Math.max(0, delayNs), order++, scope, task));
  }

  /**
   * Does all of a run on a virtual thread, from which turns are handed out cheaply.
   *
   * @throws IllegalStateException if it takes minutes: a thread waits for another in vain
   */
  static <T> T run(String name, Supplier<T> task) {
    CompletableFuture<T> result = new CompletableFuture<>();
    Thread runner =
        Thread.ofVirtual()
            .name(name)
            .start(
                () -> {
                  try {
                    result.complete(task.get());
                  } catch (RuntimeException | Error e) {
                    result.completeExceptionally(e);
                  }
                });
    try {
      if (!runner.join(PATIENCE)) {
        throw new IllegalStateException(name + " hangs: a thread waits for another in vain");
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IllegalStateException(name + " was interrupted", e);
    }
    try {
      return result.join();
    } catch (CompletionException e) {
      if (e.getCause() instanceof RuntimeException thrown) {
        throw thrown;
      }
      throw e;
    }
  }

  /** From {@code low} up to {@code high}. */
  long between(long low, long high) {
    return low + (long) (random.nextDouble() * (high - low));
  }

  boolean chance(double probability) {
    return random.nextDouble() < probability;
  }

  /**
   * Lets so much time pass.
   *
   * @throws Violation if code of ours failed
   */
  void run(long durationNs) {
    long endNs = nowNs + durationNs;
    while (true) {
      Event event = events.peek();
      if (event == null || event.dueNs > endNs) {
        nowNs = endNs;
        return;
      }
      happen(events.remove());
    }
  }

  private void happen(Event event) {
    Scope scope = event.scope;
    nowNs = event.dueNs;
    if (scope != null && scope.down) {
      return;
    }
    if (scope != null && scope.stoppedUntilNs > nowNs) {
      events.add(new Event(scope.stoppedUntilNs, order++, scope, event.task));
      return;
    }
    count++;
    note(event.order);
    event.task.run();
    Throwable thrown = broken;
    if (thrown instanceof Violation violation) {
      throw violation;
    }
    if (thrown != null) {
      throw new Violation("a thread failed", thrown);
    }
  }

  /** A thread of the world's. */
  final class Fiber {
    final String name;
    final Scope scope;
    private final Runnable task;
    private final Semaphore turn = new Semaphore(0);
    boolean interrupted;
    boolean ended;

    /** Wakes it, if it waits in a way that can be interrupted. */
    Runnable wake = () -> {};

    private Fiber(String name, Scope scope, Runnable task) {
      this.name = name;
      this.scope = scope;
      this.task = task;
    }

    private void live() {
      turn.acquireUninterruptibly();
      try {
        task.run();
      } catch (Throwable e) {
        broken = broken == null ? e : broken;
      }
      ended = true;
      back.release();
    }

    /** Gives the turn back until it is given again; on this fiber only. */
    void pause() {
      back.release();
      turn.acquireUninterruptibly();
    }

    /** Gives it its turn until it waits or ends; on no fiber. */
    void go() {
      Fiber before = current;
      current = this;
      turn.release();
      back.acquireUninterruptibly();
      current = before;
    }
  }

  /** The fiber that runs now; null in plain events. */
  @Nullable Fiber current() {
    return current;
  }

  /** A thread that begins soon. */
  Fiber fiber(String name, Scope scope, Runnable task) {
    Fiber fiber = new Fiber(name, scope, task);
    fibers.execute(fiber::live);
    after(random.nextInt(20_000), scope, fiber::go);
    return fiber;
  }
}

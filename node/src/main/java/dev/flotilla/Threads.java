package dev.flotilla;

import java.util.concurrent.CompletableFuture;

/**
 * Time, waiting and threads, for code that decides. What waits only through this runs unchanged in
 * a simulation, where the clock is made up and one thread runs at a time, in an order that follows
 * from a seed.
 */
public interface Threads {

  /** The machine's own. */
  static Threads real() {
    return RealThreads.INSTANCE;
  }

  /** A clock that never goes back, in nanoseconds from an arbitrary start. */
  long nanoTime();

  /** Starts a thread that does not keep the process alive. */
  Started start(String name, Runnable task);

  /** As {@link #start}, for a task that mostly waits. */
  Started startVirtual(String name, Runnable task);

  /**
   * Waits until something has come about, in either way, or time is up.
   *
   * @return whether it has
   */
  boolean await(CompletableFuture<?> event, long timeoutNs) throws InterruptedException;

  /** Waits for so long. */
  default void sleep(long durationNs) throws InterruptedException {
    await(new CompletableFuture<>(), durationNs);
  }

  /** A thread that was started. */
  interface Started {

    /** Wakes it from its wait. */
    void interrupt();

    /** Waits for its end, for so long at most. */
    void join(long timeoutNs) throws InterruptedException;
  }
}

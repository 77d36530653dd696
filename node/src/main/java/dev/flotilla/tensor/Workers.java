package dev.flotilla.tensor;

import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.ThreadFactory;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.locks.LockSupport;

/**
 * A fixed set of threads that share out independent items of work with their caller. They park when
 * idle, never spin: another pool (libtorch's, another node's on the same machine) may want the
 * cores. Which thread runs an item changes no bit of its result.
 */
final class Workers implements AutoCloseable {

  /** Below this many multiplications, waking a thread costs more than it saves. */
  private static final long WORTH_SHARING = 1 << 20;

  /** Runs one item; {@code worker} numbers the thread, from 0, for its scratch memory. */
  @FunctionalInterface
  interface Work {
    void run(int worker, int item);
  }

  private record Batch(
      Work work,
      int items,
      AtomicInteger next,
      AtomicInteger done,
      AtomicReference<Throwable> failure,
      Thread caller) {

    void take(int worker) {
      for (int item = next.getAndIncrement(); item < items; item = next.getAndIncrement()) {
        try {
          work.run(worker, item);
        } catch (Throwable e) {
          failure.compareAndSet(null, e);
        }
        if (done.incrementAndGet() == items) {
          LockSupport.unpark(caller);
        }
      }
    }
  }

  private final int threads;
  private final ExecutorService[] helpers;

  Workers(int threads) {
    if (threads < 1) {
      throw new IllegalArgumentException("threads " + threads);
    }
    this.threads = threads;
    this.helpers = new ExecutorService[threads - 1];
    for (int i = 0; i < helpers.length; i++) {
      ThreadFactory named =
          Thread.ofPlatform().daemon().name("kernel-" + (i + 1) + "-", 0).factory();
      helpers[i] = Executors.newSingleThreadExecutor(named);
    }
  }

  int threads() {
    return threads;
  }

  /**
   * Runs items 0 to {@code items - 1}, each once, and returns when all are done.
   *
   * @param multiplications about how much work they are together
   */
  void each(int items, long multiplications, Work work) {
    if (helpers.length == 0 || items < 2 || multiplications < WORTH_SHARING) {
      for (int item = 0; item < items; item++) {
        work.run(0, item);
      }
      return;
    }
    Batch batch =
        new Batch(
            work,
            items,
            new AtomicInteger(),
            new AtomicInteger(),
            new AtomicReference<>(),
            Thread.currentThread());
    for (int i = 0; i < Math.min(helpers.length, items - 1); i++) {
      int worker = i + 1;
      helpers[i].execute(() -> batch.take(worker));
    }
    batch.take(0);
    while (batch.done().get() < items) {
      LockSupport.park(batch);
    }
    Throwable failure = batch.failure().get();
    if (failure != null) {
      throw new IllegalStateException("a kernel failed", failure);
    }
  }

  /** Ends the threads. */
  @Override
  public void close() {
    for (ExecutorService helper : helpers) {
      helper.shutdown();
    }
  }
}

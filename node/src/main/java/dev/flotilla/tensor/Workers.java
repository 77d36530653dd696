package dev.flotilla.tensor;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.locks.LockSupport;
import java.util.function.BooleanSupplier;
import org.jspecify.annotations.Nullable;

/**
 * A fixed set of threads that share out independent items of work with their caller. A layer has
 * several pieces of work and little between them, and to wake a thread takes longer than what is
 * between: so who waits looks out for a moment before it parks. Not for longer, for another pool
 * (libtorch's, another node's on the same machine) may want the cores. Which thread runs an item
 * changes no bit of its result.
 */
final class Workers implements AutoCloseable {

  /** Below this many multiplications, waking a thread costs more than it saves. */
  private static final long WORTH_SHARING = 1 << 20;

  /** How long a thread looks out for work, or for its end, before it parks. */
  private static final long LOOKOUT_NS = 50_000;

  /** Between two looks at the clock. */
  private static final int LOOKS = 64;

  /** The caller and nobody else. */
  static final Workers ALONE = new Workers(1);

  /** Runs one item; {@code worker} numbers the thread, from 0, for its scratch memory. */
  @FunctionalInterface
  interface Work {
    void run(int worker, int item);
  }

  private static final class Batch {
    private final Work work;
    private final int items;
    private final Thread caller = Thread.currentThread();
    private final AtomicInteger next = new AtomicInteger();
    private final AtomicInteger done = new AtomicInteger();
    private final AtomicReference<Throwable> failure = new AtomicReference<>();

    Batch(Work work, int items) {
      this.work = work;
      this.items = items;
    }

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

    boolean isDone() {
      return done.get() == items;
    }
  }

  /** A thread that waits for batches. */
  private final class Helper implements Runnable {
    private final int worker;
    private final Thread thread;
    private volatile boolean parked;

    Helper(int worker) {
      this.worker = worker;
      this.thread = Thread.ofPlatform().daemon().name("kernel-" + worker).unstarted(this);
    }

    @Override
    public void run() {
      Batch last = null;
      while (!closed) {
        Batch batch = current;
        if (batch != null && batch != last) {
          batch.take(worker);
          last = batch;
        } else {
          await(last);
        }
      }
    }

    private void await(@Nullable Batch last) {
      if (comes(() -> isNew(last))) {
        return;
      }
      parked = true;
      // Whoever sets a batch looks at `parked` afterwards.
      if (!isNew(last)) {
        LockSupport.park(Workers.this);
      }
      parked = false;
    }

    private boolean isNew(@Nullable Batch last) {
      Batch batch = current;
      return closed || (batch != null && batch != last);
    }

    void wake() {
      if (parked) {
        LockSupport.unpark(thread);
      }
    }
  }

  private final int threads;
  private final List<Helper> helpers = new ArrayList<>();
  private volatile @Nullable Batch current;
  private volatile boolean closed;

  Workers(int threads) {
    if (threads < 1) {
      throw new IllegalArgumentException("threads " + threads);
    }
    this.threads = threads;
    for (int worker = 1; worker < threads; worker++) {
      helpers.add(new Helper(worker));
    }
    helpers.forEach(helper -> helper.thread.start());
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
    if (helpers.isEmpty() || items < 2 || multiplications < WORTH_SHARING) {
      for (int item = 0; item < items; item++) {
        work.run(0, item);
      }
      return;
    }
    Batch batch = new Batch(work, items);
    current = batch;
    helpers.forEach(Helper::wake);
    batch.take(0);
    if (!comes(batch::isDone)) {
      while (!batch.isDone()) {
        LockSupport.park(batch);
      }
    }
    current = null;
    Throwable failure = batch.failure.get();
    if (failure instanceof Error error) {
      throw error;
    }
    if (failure != null) {
      throw new IllegalStateException("a kernel failed", failure);
    }
  }

  /** Whether something comes true within {@link #LOOKOUT_NS}. */
  private static boolean comes(BooleanSupplier what) {
    long startNs = System.nanoTime();
    do {
      for (int i = 0; i < LOOKS; i++) {
        if (what.getAsBoolean()) {
          return true;
        }
        Thread.onSpinWait();
      }
    } while (System.nanoTime() - startNs < LOOKOUT_NS);
    return false;
  }

  /** Ends the threads. */
  @Override
  public void close() {
    closed = true;
    helpers.forEach(Helper::wake);
  }
}

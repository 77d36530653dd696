package dev.flotilla;

import java.util.ArrayDeque;
import java.util.Deque;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import org.jspecify.annotations.Nullable;

/** What came for a thread, in the order in which it came; any thread may add to it. */
public final class Inbox<T> {

  private final Threads threads;
  private final Deque<T> items = new ArrayDeque<>();
  private @Nullable CompletableFuture<Boolean> arrival;

  /** An empty one. */
  public Inbox(Threads threads) {
    this.threads = threads;
  }

  /** Adds something, and wakes who waits for it. */
  public void add(T item) {
    CompletableFuture<Boolean> waiting;
    synchronized (this) {
      items.add(item);
      waiting = arrival;
      arrival = null;
    }
    if (waiting != null) {
      waiting.complete(true);
    }
  }

  /** The first that is there. */
  public synchronized Optional<T> poll() {
    return Optional.ofNullable(items.poll());
  }

  /** The first, as soon as there is one; empty if none comes in time. */
  public Optional<T> poll(long timeoutNs) throws InterruptedException {
    long startNs = threads.nanoTime();
    while (true) {
      CompletableFuture<Boolean> waiting;
      synchronized (this) {
        T first = items.poll();
        if (first != null) {
          return Optional.of(first);
        }
        if (arrival == null) {
          arrival = new CompletableFuture<>();
        }
        waiting = arrival;
      }
      long leftNs = timeoutNs - (threads.nanoTime() - startNs);
      if (leftNs <= 0) {
        return Optional.empty();
      }
      boolean _ = threads.await(waiting, leftNs);
    }
  }
}

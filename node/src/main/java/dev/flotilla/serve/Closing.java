package dev.flotilla.serve;

import dev.flotilla.Threads;
import org.jspecify.annotations.Nullable;

/** The end of threads and subscriptions. */
final class Closing {

  private Closing() {}

  /** Waits for a thread that was told to end; an interrupt is kept and ends the wait. */
  static void join(Threads.Started thread) {
    try {
      thread.join(Long.MAX_VALUE);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  /** As above. */
  static void join(@Nullable Thread thread) {
    if (thread == null) {
      return;
    }
    try {
      thread.join();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  static void unsubscribe(@Nullable AutoCloseable subscription) {
    if (subscription == null) {
      return;
    }
    try {
      subscription.close();
    } catch (Exception e) {
      throw new IllegalStateException("a subscription did not close", e);
    }
  }
}

package dev.flotilla;

import java.util.concurrent.CompletableFuture;
import org.jspecify.annotations.Nullable;

/** Tells a thread that there is something to look at; several signals may come as one. */
public final class Signal {

  private final Threads threads;
  private boolean raised;
  private @Nullable CompletableFuture<Boolean> awaited;

  /** One that was not raised yet. */
  public Signal(Threads threads) {
    this.threads = threads;
  }

  /** Wakes who waits, or who will. */
  public void raise() {
    CompletableFuture<Boolean> waiting;
    synchronized (this) {
      raised = true;
      waiting = awaited;
      awaited = null;
    }
    if (waiting != null) {
      waiting.complete(true);
    }
  }

  /**
   * Waits for it, and lowers it.
   *
   * @return whether it was raised in time
   */
  public boolean await(long timeoutNs) throws InterruptedException {
    CompletableFuture<Boolean> waiting;
    synchronized (this) {
      if (lower()) {
        return true;
      }
      if (awaited == null) {
        awaited = new CompletableFuture<>();
      }
      waiting = awaited;
    }
    boolean _ = threads.await(waiting, timeoutNs);
    synchronized (this) {
      return lower();
    }
  }

  private boolean lower() {
    boolean was = raised;
    raised = false;
    return was;
  }
}

package dev.flotilla.data.queue;

/** Wakes those who wait on this node for something to be handed out. */
final class QueueArrivals {

  private long count;

  /** Give it to {@link #await}, taken before the look that found nothing. */
  synchronized long count() {
    return count;
  }

  synchronized void arrived() {
    count++;
    notifyAll();
  }

  /** Returns when something has arrived since, or after the time; whether something has. */
  synchronized boolean await(long seen, long timeoutMs) throws InterruptedException {
    long deadlineNs = System.nanoTime() + timeoutMs * 1_000_000;
    while (count == seen) {
      long leftMs = (deadlineNs - System.nanoTime()) / 1_000_000;
      if (leftMs <= 0) {
        return false;
      }
      wait(leftMs);
    }
    return true;
  }
}

package dev.flotilla;

import java.util.Comparator;
import java.util.PriorityQueue;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** A thread that does short tasks one after the other, now or when their time has come. */
public final class Agenda implements AutoCloseable {

  private static final Logger log = LoggerFactory.getLogger(Agenda.class);
  private static final long IDLE_NS = 1_000_000_000L;

  private record Entry(long dueNs, long number, Runnable task) {}

  private final Threads threads;
  private final Signal added;
  private final PriorityQueue<Entry> entries =
      new PriorityQueue<>(Comparator.comparingLong(Entry::dueNs).thenComparingLong(Entry::number));
  private final long startNs;
  private long number;
  private volatile boolean closed;

  /** Starts the thread. */
  public Agenda(String name, Threads threads) {
    this.threads = threads;
    this.added = new Signal(threads);
    this.startNs = threads.nanoTime();
    Threads.Started _ = threads.start(name, this::run);
  }

  private long nowNs() {
    return threads.nanoTime() - startNs; // so that it compares
  }

  /** Does it soon. */
  public void add(Runnable task) {
    add(task, 0);
  }

  /** Does it after so long. */
  public void add(Runnable task, long delayNs) {
    synchronized (this) {
      entries.add(new Entry(nowNs() + delayNs, number++, task));
    }
    added.raise();
  }

  private void run() {
    while (!closed) {
      Entry due = null;
      long waitNs = IDLE_NS;
      synchronized (this) {
        Entry first = entries.peek();
        if (first != null) {
          waitNs = first.dueNs() - nowNs();
          due = waitNs <= 0 ? entries.poll() : null;
        }
      }
      try {
        if (due != null) {
          due.task().run();
        } else {
          boolean _ = added.await(waitNs);
        }
      } catch (InterruptedException e) {
        return;
      } catch (RuntimeException e) {
        log.error("a task failed", e);
      }
    }
  }

  /** Does nothing more. */
  @Override
  public void close() {
    closed = true;
    added.raise();
  }
}

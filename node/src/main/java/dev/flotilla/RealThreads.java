package dev.flotilla;

import java.time.Duration;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/** The threads and the clock of the Java runtime. */
final class RealThreads implements Threads {

  static final RealThreads INSTANCE = new RealThreads();

  private RealThreads() {}

  private record Started(Thread thread) implements Threads.Started {

    @Override
    public void interrupt() {
      thread.interrupt();
    }

    @Override
    public void join(long timeoutNs) throws InterruptedException {
      boolean _ = thread.join(Duration.ofNanos(timeoutNs));
    }
  }

  @Override
  public long nanoTime() {
    return System.nanoTime();
  }

  @Override
  public Threads.Started start(String name, Runnable task) {
    return new Started(Thread.ofPlatform().daemon().name(name).start(task));
  }

  @Override
  public Threads.Started startVirtual(String name, Runnable task) {
    return new Started(Thread.ofVirtual().name(name).start(task));
  }

  @Override
  public boolean await(CompletableFuture<?> event, long timeoutNs) throws InterruptedException {
    try {
      event.get(timeoutNs, TimeUnit.NANOSECONDS);
    } catch (TimeoutException e) {
      return false;
    } catch (ExecutionException | CancellationException e) {
      // It has come about; how is the caller's to look at.
    }
    return true;
  }
}

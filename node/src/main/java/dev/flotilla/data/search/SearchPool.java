package dev.flotilla.data.search;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;

/** The threads that search on this node: as many as cores, with a bounded queue before them. */
final class SearchPool implements AutoCloseable {

  private static final int QUEUE_MAX = 1000;

  private final ThreadPoolExecutor threads;

  SearchPool() {
    int cores = Math.max(2, Runtime.getRuntime().availableProcessors());
    threads =
        new ThreadPoolExecutor(
            cores,
            cores,
            1,
            TimeUnit.MINUTES,
            new ArrayBlockingQueue<>(QUEUE_MAX),
            Thread.ofPlatform().daemon().name("index-search-", 0).factory());
    threads.allowCoreThreadTimeOut(true);
  }

  /** Runs the work; completes with {@code BUSY} if too much waits already. */
  <T> CompletableFuture<T> submit(Supplier<T> work) {
    try {
      return CompletableFuture.supplyAsync(work, threads);
    } catch (RejectedExecutionException e) {
      return CompletableFuture.failedFuture(
          new FlotillaException(
              Code.BUSY, "more than " + QUEUE_MAX + " searches wait on this node", "Try again."));
    }
  }

  @Override
  public void close() {
    threads.shutdown();
  }
}

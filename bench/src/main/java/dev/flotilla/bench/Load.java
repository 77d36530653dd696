package dev.flotilla.bench;

import java.util.Arrays;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.Phaser;
import java.util.stream.IntStream;

/** Closed-loop load: so many clients, each asking again as soon as it has its answer. */
final class Load {

  /** One client's operation; a client keeps its own connection. */
  @FunctionalInterface
  interface Operation {
    void run() throws Exception;
  }

  /** Makes the operation of a client, counted from 0. */
  @FunctionalInterface
  interface Clients {
    Operation client(int number) throws Exception;
  }

  /** What was seen, in operations each second and in microseconds. */
  record Figures(double perSecond, double p50Us, double p99Us) {}

  private Load() {}

  /**
   * Warms up for a third of the time, then measures.
   *
   * @param batch how many things one operation does, for the rate
   */
  static Figures run(int clients, double seconds, int batch, Clients make) throws Exception {
    Phaser begin = new Phaser(clients);
    try (ExecutorService pool = Executors.newFixedThreadPool(clients)) {
      record Sampled(long[] ns, long begunNs, long endedNs) {}
      var running =
          IntStream.range(0, clients)
              .mapToObj(
                  number ->
                      (Callable<Sampled>)
                          () -> {
                            Operation operation = warm(make, number, seconds, begin);
                            if (begin.arriveAndAwaitAdvance() < 0) {
                              // Another client failed, and its future says why.
                              return new Sampled(new long[0], 0, 0);
                            }
                            long[] samples = new long[1 << 12];
                            int count = 0;
                            long begunNs = System.nanoTime();
                            long untilNs = begunNs + (long) (seconds * 1e9);
                            long now = begunNs;
                            while (now < untilNs) {
                              operation.run();
                              long after = System.nanoTime();
                              if (count == samples.length) {
                                samples = Arrays.copyOf(samples, 2 * count);
                              }
                              samples[count++] = after - now;
                              now = after;
                            }
                            return new Sampled(Arrays.copyOf(samples, count), begunNs, now);
                          })
              .map(pool::submit)
              .toList();
      long begunNs = Long.MAX_VALUE;
      long endedNs = 0;
      long[] all = {};
      for (Future<Sampled> each : running) {
        Sampled sampled = result(each);
        begunNs = Math.min(begunNs, sampled.begunNs());
        endedNs = Math.max(endedNs, sampled.endedNs());
        int before = all.length;
        all = Arrays.copyOf(all, before + sampled.ns().length);
        System.arraycopy(sampled.ns(), 0, all, before, sampled.ns().length);
      }
      Arrays.sort(all);
      return new Figures(
          batch * all.length / ((endedNs - begunNs) / 1e9),
          all[all.length / 2] / 1e3,
          all[(int) (all.length * 0.99)] / 1e3);
    }
  }

  /** Lets nobody wait for a client that failed. */
  private static Operation warm(Clients make, int number, double seconds, Phaser begin)
      throws Exception {
    try {
      Operation operation = make.client(number);
      long warmUntilNs = System.nanoTime() + (long) (seconds * 1e9 / 3);
      while (System.nanoTime() < warmUntilNs) {
        operation.run();
      }
      return operation;
    } catch (Exception | Error e) {
      begin.forceTermination();
      throw e;
    }
  }

  private static <T> T result(Future<T> future) throws Exception {
    try {
      return future.get();
    } catch (ExecutionException e) {
      throw e.getCause() instanceof Exception cause ? cause : e;
    }
  }
}

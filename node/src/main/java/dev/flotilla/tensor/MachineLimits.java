package dev.flotilla.tensor;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.ByteOrder;
import java.util.function.LongSupplier;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.VectorOperators;

/**
 * What kernels cannot pass on this machine, or, where it has units made for products, can only pass
 * by these: how fast its threads together read memory, and multiply and add in single precision.
 *
 * @param bytesPerSecond read
 * @param multiplicationsPerSecond each with an addition
 */
public record MachineLimits(double bytesPerSecond, double multiplicationsPerSecond) {

  /** Memory to be read, if nothing else is said: more than caches that a core has to itself. */
  private static final long READ_BYTES = 256L << 20;

  private static final int PIECES = 64;
  private static final int ROUNDS = 1 << 16;
  private static final int PASSES_MIN = 8;

  /** Passes go on until the best of them is no longer beaten by this. */
  private static final double STEADY = 0.98;

  private static final int CHAINS = 8;

  /** As below, of memory that does not fit in the caches that a core has to itself. */
  public static MachineLimits measure(int threads, LongSupplier nanoTime) {
    return measure(threads, READ_BYTES, nanoTime);
  }

  /**
   * Measures; takes about a second.
   *
   * @param threads how many, the caller's among them
   * @param bytes that are read again and again; of few, the rate may be that of a cache
   */
  public static MachineLimits measure(int threads, long bytes, LongSupplier nanoTime) {
    float[] sink = new float[PIECES];
    try (Workers workers = new Workers(threads);
        Arena arena = Arena.ofShared()) {
      MemorySegment memory = SystemCalls.allocate(bytes, arena);
      memory.fill((byte) 1);
      long piece = bytes / PIECES;
      double read =
          best(
              nanoTime,
              () ->
                  workers.each(PIECES, bytes, (_, i) -> sink[i] = read(memory, i * piece, piece)));
      double multiplied =
          best(
              nanoTime,
              () ->
                  workers.each(PIECES, bytes, (_, i) -> sink[i] += multiply(ROUNDS, 1 + sink[i])));
      double multiplications = (double) PIECES * ROUNDS * CHAINS * Kernels.lanes();
      return new MachineLimits(bytes / read, multiplications / multiplied);
    }
  }

  private static double best(LongSupplier nanoTime, Runnable pass) {
    double best = Double.POSITIVE_INFINITY;
    for (int since = 0; since < PASSES_MIN; since++) {
      long startNs = nanoTime.getAsLong();
      pass.run();
      double seconds = (nanoTime.getAsLong() - startNs) / 1e9;
      if (seconds < best * STEADY) {
        since = 0;
      }
      best = Math.min(best, seconds);
    }
    return best;
  }

  private static float read(MemorySegment memory, long from, long bytes) {
    IntVector a = IntVector.zero(Kernels.I32);
    IntVector b = IntVector.zero(Kernels.I32);
    long step = 4L * Kernels.lanes();
    for (long at = from; at < from + bytes; at += 2 * step) {
      a = a.add(IntVector.fromMemorySegment(Kernels.I32, memory, at, ByteOrder.LITTLE_ENDIAN));
      b =
          b.add(
              IntVector.fromMemorySegment(Kernels.I32, memory, at + step, ByteOrder.LITTLE_ENDIAN));
    }
    return a.add(b).reduceLanes(VectorOperators.ADD);
  }

  private static float multiply(int rounds, float start) {
    FloatVector factor = FloatVector.broadcast(Kernels.F32, 0.5f);
    FloatVector a = FloatVector.broadcast(Kernels.F32, start);
    FloatVector b = a.add(1);
    FloatVector c = a.add(2);
    FloatVector d = a.add(3);
    FloatVector e = a.add(4);
    FloatVector f = a.add(5);
    FloatVector g = a.add(6);
    FloatVector h = a.add(7);
    for (int i = 0; i < rounds; i++) {
      a = a.fma(factor, factor);
      b = b.fma(factor, factor);
      c = c.fma(factor, factor);
      d = d.fma(factor, factor);
      e = e.fma(factor, factor);
      f = f.fma(factor, factor);
      g = g.fma(factor, factor);
      h = h.fma(factor, factor);
    }
    return a.add(b).add(c).add(d).add(e.add(f).add(g).add(h)).reduceLanes(VectorOperators.ADD);
  }
}

package dev.flotilla.model;

import dev.flotilla.tensor.KvType;
import dev.flotilla.tensor.MachineLimits;
import dev.flotilla.tensor.SimdOps;
import dev.flotilla.tensor.WeightType;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.function.LongSupplier;

/**
 * Says which kernels are slower than they should be, beside what the machine can do: a small edit,
 * or another JVM, can cost two to five times with nothing but the time to show it.
 */
public final class KernelGuard {

  /**
   * Shares by {@link LayerSpeeds#ROWS}: in machine code about a third of what our machine has, for
   * what else a machine does may take half.
   */
  private static final List<Double> QUANTISED =
      SimdOps.inMachineCode() ? List.of(0.3, 0.3, 0.3) : List.of(0.08, 0.12, 0.15);

  private static final List<Double> PLAIN =
      SimdOps.inMachineCode() ? List.of(0.3, 0.25, 0.12) : List.of(0.08, 0.12, 0.15);

  /** A prompt's where it has the matrix unit, and elsewhere. */
  private static final double UNIT_PROMPT = 1;

  private static final double PROMPT = 0.2;

  /** Attention's by itself: half or less of the least that our machine has had. */
  private static final double ATTENTION_F16 = 0.12;

  private static final double ATTENTION = 0.05;
  private static final double PROMPT_ATTENTION = 0.2;

  /** The same as {@link LayerProbe} has it, which is a difference of two short steps. */
  private static final double PROBED_ATTENTION = 0.08;

  private static final double PROBED_PROMPT_ATTENTION = 0.03;

  private KernelGuard() {}

  /**
   * How fast one kernel is: the products of one weight type, or attention over one type of cache.
   *
   * @param kernel the weight type's label, or what is attended over
   * @param rows of activations
   * @param bytesPerSecond of weights, or of the cache that rows see
   * @param share of what memory and single-precision multiplications would let through; beyond 1
   *     where the machine has better units
   * @param least what the share should be at least
   */
  public record Figure(String kernel, int rows, double bytesPerSecond, double share, double least) {

    /** Whether it is as fast as it should be. */
    public boolean sound() {
      return share >= least;
    }

    @Override
    public String toString() {
      return String.format(
          Locale.ROOT,
          "%s by %d rows: %.1f GB/s, %.2f of the machine's limit, at least %.2f expected",
          kernel,
          rows,
          bytesPerSecond / 1e9,
          share,
          least);
    }
  }

  /** As below, with the limits of this machine, which are measured for about a second. */
  public static List<Figure> figures(LayerSpeeds speeds, int threads, LongSupplier nanoTime) {
    return figures(speeds, MachineLimits.measure(threads, nanoTime));
  }

  /** One figure for each type and number of rows that was measured, and attention's two. */
  public static List<Figure> figures(LayerSpeeds speeds, MachineLimits limits) {
    List<Figure> figures = new ArrayList<>();
    for (WeightType type : WeightType.values()) {
      List<Double> perByte = speeds.secondsPerByte().get(LayerSpeeds.label(type));
      for (int i = 0; perByte != null && i < LayerSpeeds.ROWS.size(); i++) {
        figures.add(figure(type, LayerSpeeds.ROWS.get(i), perByte.get(i), limits));
      }
    }
    figures.add(probed(1, speeds.decodeAttention(), PROBED_ATTENTION, limits));
    figures.add(
        probed(LayerSpeeds.PROMPT, speeds.promptAttention(), PROBED_PROMPT_ATTENTION, limits));
    return figures;
  }

  private static Figure probed(int rows, double seconds, double least, MachineLimits limits) {
    double bytes = LayerProbe.cacheBytesPerElement();
    return attention(KvType.F16, rows, bytes, seconds, least, limits);
  }

  /**
   * One figure of attention. Each element of a query is multiplied twice for each position: with a
   * key, and its score with a value.
   *
   * @param rows that attend, all to the same cache
   * @param bytesPerElement of a position's keys and values, for each element of a row's queries
   * @param secondsPerElement for each row, position that it sees, and element of its queries
   */
  public static Figure attention(
      KvType cache,
      int rows,
      double bytesPerElement,
      double secondsPerElement,
      MachineLimits limits) {
    double one = cache == KvType.F16 ? ATTENTION_F16 : ATTENTION;
    double least = rows == 1 ? one : PROMPT_ATTENTION;
    return attention(cache, rows, bytesPerElement, secondsPerElement, least, limits);
  }

  private static Figure attention(
      KvType cache,
      int rows,
      double bytesPerElement,
      double secondsPerElement,
      double least,
      MachineLimits limits) {
    double limit =
        Math.max(
            bytesPerElement / rows / limits.bytesPerSecond(),
            2 / limits.multiplicationsPerSecond());
    double seconds = Math.max(secondsPerElement, limit / 100); // as below
    return new Figure(
        "attention over " + cache.name().toLowerCase(Locale.ROOT),
        rows,
        bytesPerElement / seconds,
        limit / seconds,
        least);
  }

  /**
   * One figure.
   *
   * @param rows one of {@link LayerSpeeds#ROWS}
   * @param secondsPerByte of weights
   */
  public static Figure figure(
      WeightType type, int rows, double secondsPerByte, MachineLimits limits) {
    double weightsPerByte = (double) type.blockElements() / type.blockBytes();
    double limit =
        Math.max(
            1 / limits.bytesPerSecond(), rows * weightsPerByte / limits.multiplicationsPerSecond());
    // It may be a difference of two times, and nothing.
    double seconds = Math.max(secondsPerByte, limit / 100);
    return new Figure(
        LayerSpeeds.label(type), rows, 1 / seconds, limit / seconds, least(type, rows));
  }

  private static double least(WeightType type, int rows) {
    if (rows == LayerSpeeds.PROMPT) {
      return SimdOps.promptsHaveTheirOwnKernels() && type != WeightType.F32 ? UNIT_PROMPT : PROMPT;
    }
    return (type.integers() ? QUANTISED : PLAIN).get(LayerSpeeds.ROWS.indexOf(rows));
  }
}

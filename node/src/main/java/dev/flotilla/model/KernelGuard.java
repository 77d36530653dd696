package dev.flotilla.model;

import dev.flotilla.tensor.MachineLimits;
import dev.flotilla.tensor.SimdOps;
import dev.flotilla.tensor.WeightType;
import java.util.ArrayList;
import java.util.EnumMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Objects;
import java.util.function.LongSupplier;

/**
 * Says which kernels are slower than they should be, beside what the machine can do: a small edit,
 * or another JVM, can cost two to five times with nothing but the time to show it.
 */
public final class KernelGuard {

  /** A prompt's share where machine code does its products, and elsewhere. */
  private static final double PROMPT = SimdOps.promptsHaveTheirOwnKernels() ? 1.5 : 0.25;

  /**
   * About half of what our machine has, by {@link LayerSpeeds#ROWS}; less for K-quants by one row,
   * which are slow today.
   */
  private static final Map<WeightType, List<Double>> LEAST =
      new EnumMap<>(
          Map.of(
              WeightType.F32, List.of(0.2, 0.35, 0.3, 0.3),
              WeightType.F16, List.of(0.12, 0.2, 0.18, 0.25),
              WeightType.BF16, List.of(0.08, 0.2, 0.15, 0.25),
              WeightType.Q8_0, List.of(0.5, 0.4, 0.35, PROMPT),
              WeightType.Q4_0, List.of(0.45, 0.35, 0.35, PROMPT),
              WeightType.Q4_K, List.of(0.025, 0.08, 0.12, 0.25),
              WeightType.Q5_K, List.of(0.025, 0.05, 0.09, 0.25),
              WeightType.Q6_K, List.of(0.025, 0.05, 0.09, 0.25)));

  private KernelGuard() {}

  /**
   * How fast the products of one weight type are.
   *
   * @param rows of activations
   * @param bytesPerSecond of weights
   * @param share of what memory and single-precision multiplications would let through; beyond 1
   *     where the machine has better units
   * @param least what the share should be at least
   */
  public record Figure(
      WeightType type, int rows, double bytesPerSecond, double share, double least) {

    /** Whether it is as fast as it should be. */
    public boolean sound() {
      return share >= least;
    }

    @Override
    public String toString() {
      return String.format(
          Locale.ROOT,
          "%s by %d rows: %.1f GB/s, %.2f of the machine's limit, at least %.2f expected",
          LayerSpeeds.label(type),
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

  /** One figure for each type and number of rows that was measured. */
  public static List<Figure> figures(LayerSpeeds speeds, MachineLimits limits) {
    List<Figure> figures = new ArrayList<>();
    for (WeightType type : WeightType.values()) {
      List<Double> perByte = speeds.secondsPerByte().get(LayerSpeeds.label(type));
      for (int i = 0; perByte != null && i < LayerSpeeds.ROWS.size(); i++) {
        figures.add(figure(type, LayerSpeeds.ROWS.get(i), perByte.get(i), limits));
      }
    }
    return figures;
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
    return new Figure(type, rows, 1 / seconds, limit / seconds, least(type, rows));
  }

  private static double least(WeightType type, int rows) {
    return Objects.requireNonNull(LEAST.get(type)).get(LayerSpeeds.ROWS.indexOf(rows));
  }
}

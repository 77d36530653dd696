package dev.flotilla.model;

import dev.flotilla.tensor.WeightType;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/**
 * How fast a machine runs layers, as {@link LayerProbe} measured it. A step of some rows through a
 * layer takes a fixed time, and a time for each byte of its weights, which depends on their type;
 * both grow with the rows, along straight lines between the numbers of rows that were measured.
 *
 * @param layerSeconds what a layer takes whatever its size, by {@link #ROWS}
 * @param secondsPerByte of weights, by the type's label and {@link #ROWS}
 * @param decodeAttention seconds for each row, position that it sees, and element of its queries
 * @param promptAttention the same where the rows are a prompt's
 * @param measured whether it was measured, or guessed from how fast memory is read
 */
public record LayerSpeeds(
    List<Double> layerSeconds,
    Map<String, List<Double>> secondsPerByte,
    double decodeAttention,
    double promptAttention,
    boolean measured) {

  /** Rows of a prompt's step: a prompt of so many tokens that comes alone is computed in one. */
  public static final int PROMPT = 4 * Rows.CHUNK;

  /** Rows of a step that are measured: decoding of one, of some, and a prompt. */
  public static final List<Integer> ROWS = List.of(1, 4, 8, PROMPT);

  /** Arithmetic of a row beside reading the weights, where nothing was measured. */
  private static final double GUESSED_ROW = 1 / 16.0;

  /** Rejects figures that no machine has. */
  public LayerSpeeds {
    layerSeconds = List.copyOf(layerSeconds);
    secondsPerByte = Map.copyOf(secondsPerByte);
    boolean sound =
        sound(layerSeconds) && !secondsPerByte.isEmpty() && notNegative(decodeAttention);
    for (List<Double> figures : secondsPerByte.values()) {
      sound &= sound(figures);
    }
    if (!sound || !notNegative(promptAttention)) {
      throw new IllegalArgumentException("not a machine's speeds: " + secondsPerByte);
    }
  }

  /** A weight type's label, such as {@code q8_0}. */
  static String label(WeightType type) {
    return type.name().toLowerCase(Locale.ROOT);
  }

  private static boolean sound(List<Double> figures) {
    return figures.size() == ROWS.size() && figures.stream().allMatch(LayerSpeeds::notNegative);
  }

  private static boolean notNegative(double figure) {
    return figure >= 0 && Double.isFinite(figure);
  }

  /** A guess from how fast all cores together read memory. */
  public static LayerSpeeds guessed(double bytesPerSecond) {
    if (!(bytesPerSecond > 0)) {
      throw new IllegalArgumentException(bytesPerSecond + " bytes/s");
    }
    return new LayerSpeeds(
        ROWS.stream().map(rows -> 0.0).toList(),
        Map.of(
            "",
            ROWS.stream().map(rows -> (1 + (rows - 1) * GUESSED_ROW) / bytesPerSecond).toList()),
        0,
        0,
        false);
  }

  /**
   * A step through a layer, but for attention to earlier positions.
   *
   * @param bytes of weights that it reads, by the type's label
   */
  public double layer(int rows, Map<String, Double> bytes) {
    return at(layerSeconds, rows) + weights(rows, bytes);
  }

  /** A step's products with weights alone. */
  public double weights(int rows, Map<String, Double> bytes) {
    double seconds = 0;
    for (Map.Entry<String, Double> each : bytes.entrySet()) {
      seconds += each.getValue() * perByte(each.getKey(), rows);
    }
    return seconds;
  }

  /**
   * Attention in one layer.
   *
   * @param positions that each row sees
   * @param width elements of all query heads
   */
  public double attention(int rows, int positions, int width, boolean prompt) {
    return (double) rows * positions * width * (prompt ? promptAttention : decodeAttention);
  }

  /** A type that was not measured counts as the mean of the others. */
  private double perByte(String type, int rows) {
    List<Double> figures = secondsPerByte.get(type);
    return figures != null
        ? at(figures, rows)
        : secondsPerByte.values().stream()
            .mapToDouble(each -> at(each, rows))
            .average()
            .orElseThrow();
  }

  private static double at(List<Double> figures, int rows) {
    int i = 1;
    while (i < ROWS.size() - 1 && ROWS.get(i) < rows) {
      i++;
    }
    int low = ROWS.get(i - 1);
    double slope = (figures.get(i) - figures.get(i - 1)) / (ROWS.get(i) - low);
    return Math.max(0, figures.get(i - 1) + slope * (rows - low));
  }
}

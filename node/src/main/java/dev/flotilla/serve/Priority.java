package dev.flotilla.serve;

import java.util.Arrays;
import java.util.Locale;
import java.util.Optional;

/** How much a request may press ahead of others. */
public enum Priority {
  /** Gets four times the share of a normal one. */
  HIGH(16),
  /** What a request has that says nothing. */
  NORMAL(4),
  /** Gets a quarter of the share of a normal one, and gives way first when memory is short. */
  LOW(1);

  private final int weight;

  Priority(int weight) {
    this.weight = weight;
  }

  /** Its share, in proportion to the others'. */
  int weight() {
    return weight;
  }

  /** As fields have it. */
  public String label() {
    return name().toLowerCase(Locale.ROOT);
  }

  /** The one of that label. */
  public static Optional<Priority> of(String label) {
    return Arrays.stream(values()).filter(p -> p.label().equals(label)).findFirst();
  }
}

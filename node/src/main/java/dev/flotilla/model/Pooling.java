package dev.flotilla.model;

import java.util.Arrays;
import java.util.Map;
import java.util.Optional;

/**
 * Which positions of a text its embedding is made of: the mean of all, or one of them. A GGUF file
 * says it by a number, under the architecture's key {@code pooling_type}, as llama.cpp defines it;
 * without one it is the mean.
 */
public enum Pooling {
  /** The mean over all positions. */
  MEAN(1),
  /** The first position. */
  FIRST(2),
  /** The last position, the only one that has seen the whole text. */
  LAST(3);

  private final int number;

  Pooling(int number) {
    this.number = number;
  }

  /** The metadata key that says it. */
  static String key(Map<String, Object> metadata) {
    return metadata.getOrDefault("general.architecture", "") + ".pooling_type";
  }

  /** As in the key {@code pooling_type}. */
  int number() {
    return number;
  }

  /** Whether a position of a text of so many tokens counts. */
  public boolean takes(int position, int length) {
    return switch (this) {
      case MEAN -> true;
      case FIRST -> position == 0;
      case LAST -> position == length - 1;
    };
  }

  /**
   * What a model's metadata say; 0, "none", is how files of plain language models may put it. Empty
   * for a model that is not made to embed, such as a ranking one.
   */
  public static Optional<Pooling> of(Map<String, Object> metadata) {
    long number = metadata.get(key(metadata)) instanceof Number n ? n.longValue() : 0;
    return number == 0
        ? Optional.of(MEAN)
        : Arrays.stream(values()).filter(pooling -> pooling.number == number).findFirst();
  }
}

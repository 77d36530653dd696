package dev.flotilla.tensor;

/** One factor per element of a hidden state, always in full precision. */
public record Gain(float[] values) implements Weights {

  @Override
  public long bytes() {
    return 4L * values.length;
  }
}

package dev.flotilla.model;

import dev.flotilla.tensor.Rope;

/**
 * How a model's rotary frequencies were changed after training, to reach a longer context.
 *
 * @param kind by which rule
 * @param factor how much longer the context became ({@code LINEAR}, {@code YARN})
 * @param originalContext positions before that ({@code YARN}; {@code LONG}, where it decides which
 *     factors are meant)
 * @param amplitude what sines and cosines are multiplied by; 0 for what follows from the factor
 */
public record Stretch(Kind kind, float factor, int originalContext, float amplitude) {

  /** The rules. */
  public enum Kind {
    /** Frequencies are as trained. */
    NONE,
    /** All divided by the factor: position interpolation, Chen et al. 2023. */
    LINEAR,
    /** The slow ones divided by the factor, the fast ones kept: YaRN, Peng et al. 2023. */
    YARN,
    /** Each divided by a number of its own, in the tensor {@code rope_freqs}: Llama 3.1. */
    FACTORS,
    /**
     * As {@code FACTORS}, with two tensors, one for the long context and one for the original:
     * LongRoPE, Ding et al. 2024. Which is used depends on the model's context, not on the length
     * of a text, so that keys in a cache stay valid as it grows.
     */
    LONG
  }

  /** No change. */
  public static final Stretch NONE = new Stretch(Kind.NONE, 1, 0, 0);

  /** Turns over the original context by which YaRN tells fast frequencies from slow ones. */
  private static final double FAST_TURNS = 32;

  private static final double SLOW_TURNS = 1;

  /**
   * The rope of a model.
   *
   * @param factors what to divide each frequency by; empty but for {@code FACTORS} and {@code LONG}
   */
  Rope rope(int headWidth, int ropeWidth, float theta, float[] factors) {
    float[] frequencies = Rope.frequencies(ropeWidth, theta);
    for (int i = 0; i < frequencies.length; i++) {
      frequencies[i] =
          switch (kind) {
            case NONE -> frequencies[i];
            case LINEAR -> frequencies[i] / factor;
            case YARN -> {
              float kept = kept(i, ropeWidth, theta);
              yield frequencies[i] * kept + frequencies[i] / factor * (1 - kept);
            }
            case FACTORS, LONG -> frequencies[i] / factors[i];
          };
    }
    return new Rope(headWidth, frequencies, amplitudeOrDefault());
  }

  private float amplitudeOrDefault() {
    if (amplitude > 0) {
      return amplitude;
    }
    return kind == Kind.YARN ? (float) (1 + 0.1 * StrictMath.log(factor)) : 1;
  }

  /** How much of a pair's frequency YaRN keeps: 1 for the fast ones, 0 for the slow ones. */
  private float kept(int pair, int ropeWidth, float theta) {
    double low = Math.max(0, Math.floor(pairTurning(FAST_TURNS, ropeWidth, theta)));
    double high = Math.min(ropeWidth - 1, Math.ceil(pairTurning(SLOW_TURNS, ropeWidth, theta)));
    double ramp = (pair - low) / Math.max(0.001, high - low);
    return (float) (1 - Math.clamp(ramp, 0.0, 1.0));
  }

  /** Which pair turns so many times over the original context. */
  private double pairTurning(double turns, int ropeWidth, float theta) {
    return ropeWidth
        * StrictMath.log(originalContext / (turns * 2 * Math.PI))
        / (2 * StrictMath.log(theta));
  }

  /** Whether each frequency has a factor of its own. */
  boolean hasFactors() {
    return kind == Kind.FACTORS || kind == Kind.LONG;
  }
}

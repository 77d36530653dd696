package dev.flotilla.serve;

import dev.flotilla.FlotillaException;
import dev.flotilla.text.TokenMask;
import java.util.Arrays;

/**
 * Draws a token from a row of logits: a pure function of the logits, the parameters and the token's
 * position in its sequence, so that a draw can be repeated on any machine.
 *
 * <p>Randomness is counter-based: the draw at position {@code p} of stream {@code seed} is the
 * SplitMix64 finaliser (Steele, Lea and Flood 2014) over both. Exponentials are {@link
 * StrictMath#exp}, in double precision and summed in one fixed order, because {@code Math.exp} may
 * differ between machines in its last bit.
 *
 * <p>A logit that is not a number is never drawn. Tokens are ranked by logit, the lower id first
 * among equals. Top-k cuts before top-p; top-p keeps the shortest head of the ranking whose share
 * of the probability that top-k left reaches it.
 */
public final class Sampler {

  private Sampler() {}

  /**
   * @param logits {@code [rows, vocabularySize]}
   * @param row which of them
   * @param position of the token to be drawn in its sequence
   * @throws FlotillaException {@code FAILED} if no logit is a number
   */
  public static int sample(
      float[] logits, int row, int vocabularySize, SamplingParameters parameters, int position) {
    int offset = row * vocabularySize;
    int best = mostLikely(logits, offset, vocabularySize);
    if (!(parameters.temperature() > 0)) {
      return best;
    }
    long[] ranked = ranking(logits, offset, vocabularySize);
    int kept = ranked.length;
    if (parameters.topK() > 0) {
      kept = Math.min(kept, parameters.topK());
    }
    double[] weights = new double[kept];
    double total = 0;
    double top = logits[offset + best];
    for (int i = 0; i < kept; i++) {
      double logit = logits[offset + id(ranked[i])];
      // Infinity less infinity is not a number; the most likely token has weight one by definition.
      double weight =
          logit == top ? 1 : StrictMath.exp((logit - top) / (double) parameters.temperature());
      weights[i] = weight;
      total += weight;
    }
    if (parameters.topP() < 1) {
      double wanted = parameters.topP() * total;
      double sum = 0;
      int shortest = 0;
      while (shortest < kept && (shortest == 0 || sum < wanted)) {
        sum += weights[shortest++];
      }
      kept = shortest;
      total = sum;
    }
    double mark = uniform(parameters.seed(), position) * total;
    double sum = 0;
    for (int i = 0; i < kept - 1; i++) {
      sum += weights[i];
      if (mark < sum) {
        return id(ranked[i]);
      }
    }
    return id(ranked[kept - 1]);
  }

  /** Makes logits of tokens that may not be drawn no numbers, and so never drawn. */
  public static void restrict(float[] logits, int row, int vocabularySize, TokenMask allowed) {
    int offset = row * vocabularySize;
    for (int id = 0; id < vocabularySize; id++) {
      if (!allowed.contains(id)) {
        logits[offset + id] = Float.NaN;
      }
    }
  }

  private static int mostLikely(float[] logits, int offset, int count) {
    int best = -1;
    for (int i = 0; i < count; i++) {
      float logit = logits[offset + i];
      if (!Float.isNaN(logit) && (best < 0 || logit > logits[offset + best])) {
        best = i;
      }
    }
    if (best < 0) {
      throw new FlotillaException(
          FlotillaException.Code.FAILED,
          "the model's output is not a number",
          "Its weights are damaged or were trained wrongly; add it again.");
    }
    return best;
  }

  /** Ids by falling logit, then rising id; each in the low half of a sortable key. */
  private static long[] ranking(float[] logits, int offset, int count) {
    long[] keys = new long[count];
    int numbers = 0;
    for (int i = 0; i < count; i++) {
      float logit = logits[offset + i];
      if (!Float.isNaN(logit)) {
        // Adding zero makes -0 and 0 one value, as they compare equal.
        int bits = Float.floatToIntBits(logit + 0f);
        int rising = bits ^ ((bits >> 31) & 0x7fffffff);
        keys[numbers++] = ((long) ~rising << 32) | i;
      }
    }
    keys = numbers == count ? keys : Arrays.copyOf(keys, numbers);
    Arrays.sort(keys);
    return keys;
  }

  private static int id(long key) {
    return (int) key;
  }

  /** In [0, 1), from 53 bits. */
  static double uniform(long seed, int position) {
    long z = mix(seed + 0x9e3779b97f4a7c15L) + position * 0x9e3779b97f4a7c15L;
    return (mix(z) >>> 11) * 0x1.0p-53;
  }

  private static long mix(long z) {
    z = (z ^ (z >>> 30)) * 0xbf58476d1ce4e5b9L;
    z = (z ^ (z >>> 27)) * 0x94d049bb133111ebL;
    return z ^ (z >>> 31);
  }
}

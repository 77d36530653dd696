package dev.flotilla.tensor;

/**
 * How attention weighs what a position may see.
 *
 * @param scale the products of queries and keys are multiplied by it
 * @param cap scores are squeezed smoothly between {@code -cap} and {@code cap}, as Gemma 2 does; 0
 *     for no such bound
 * @param window how many positions one sees, its own and those right before it; 0 for all
 */
public record Scoring(float scale, float cap, int window) {

  /** As in Vaswani et al. 2017: every earlier position, scaled by the root of the head's width. */
  public static Scoring plain(int headWidth) {
    return new Scoring(1 / (float) Math.sqrt(headWidth), 0, 0);
  }
}

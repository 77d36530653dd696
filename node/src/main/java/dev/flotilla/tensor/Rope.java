package dev.flotilla.tensor;

/**
 * Rotary position embedding, Su et al. 2021, in the half-split layout of Hugging Face: within each
 * head, element {@code i} pairs with element {@code i + n}, where {@code n} is the number of
 * frequencies; elements after the pairs stay as they are.
 *
 * @param headWidth elements of a head
 * @param frequencies radians per position of each pair; shared, not copied
 * @param amplitude what sines and cosines are multiplied by, 1 but where a stretched context asks
 *     for more
 */
public record Rope(int headWidth, float[] frequencies, float amplitude) {

  public Rope {
    if (headWidth < 2 * frequencies.length || frequencies.length == 0) {
      throw new IllegalArgumentException(
          frequencies.length + " pairs in heads " + headWidth + " wide");
    }
  }

  /**
   * Plain rotation of whole heads: pair {@code i} turns by {@code theta^(-2i / headWidth)}.
   *
   * @param theta the base of the frequencies
   */
  public static Rope plain(int headWidth, float theta) {
    return new Rope(headWidth, frequencies(headWidth, theta), 1);
  }

  /**
   * The frequencies of plain rotation. {@link StrictMath}, since {@link Math} may round differently
   * from one machine to the next.
   *
   * @param width how many elements turn, an even number
   */
  public static float[] frequencies(int width, float theta) {
    float[] frequencies = new float[width / 2];
    for (int i = 0; i < frequencies.length; i++) {
      frequencies[i] = (float) StrictMath.pow(theta, -2.0 * i / width);
    }
    return frequencies;
  }
}

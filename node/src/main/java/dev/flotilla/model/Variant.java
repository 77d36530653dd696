package dev.flotilla.model;

import java.util.Objects;

/**
 * What a model may have beyond the plain decoder; 0 for what it does without.
 *
 * @param window positions that a windowed layer sees
 * @param fullEvery of so many layers the last one is not windowed; 0 if all are
 * @param localRopeTheta base of the rotary frequencies in windowed layers, where it is another one;
 *     the stretching does not apply there then
 * @param ropeWidth how many elements of a head turn; 0 for all
 * @param stretch how rotary frequencies are stretched to a context longer than first trained on
 * @param attentionScale what scores are multiplied by; 0 for 1/√headWidth
 * @param attentionCap soft bound of attention scores
 * @param logitCap soft bound of logits
 * @param experts how many feed-forward parts a layer has to choose from
 * @param expertsUsed how many of them a row goes through
 */
public record Variant(
    int window,
    int fullEvery,
    float localRopeTheta,
    int ropeWidth,
    Stretch stretch,
    float attentionScale,
    float attentionCap,
    float logitCap,
    int experts,
    int expertsUsed) {

  /** Nothing beyond the plain decoder. */
  public static final Variant PLAIN = new Variant(0, 0, 0, 0, Stretch.NONE, 0, 0, 0, 0, 0);

  public Variant {
    stretch = Objects.requireNonNullElse(stretch, Stretch.NONE);
  }
}

package dev.flotilla.model;

import dev.flotilla.tensor.Scoring;
import java.util.Objects;

/**
 * The shape of a decoder.
 *
 * @param architecture what a block does
 * @param vocabularySize rows of the embedding table
 * @param width elements of a hidden state
 * @param layers transformer blocks
 * @param heads query heads
 * @param kvHeads key and value heads; divides {@code heads}
 * @param headWidth elements of one head
 * @param feedForward elements between the two halves of the feed-forward part; of one expert where
 *     there are several
 * @param contextLength positions the model was trained for
 * @param ropeTheta base of the rotary frequencies
 * @param rmsEpsilon added under the root in RMS normalisation
 * @param tiedEmbeddings whether the output matrix is the embedding table
 * @param variant what sets it apart from the plain decoder
 */
public record ModelConfig(
    Architecture architecture,
    int vocabularySize,
    int width,
    int layers,
    int heads,
    int kvHeads,
    int headWidth,
    int feedForward,
    int contextLength,
    float ropeTheta,
    float rmsEpsilon,
    boolean tiedEmbeddings,
    Variant variant) {

  /** Records of earlier versions have no architecture, for there was one, and no variant. */
  public ModelConfig {
    architecture = Objects.requireNonNullElse(architecture, Architecture.LLAMA);
    variant = Objects.requireNonNullElse(variant, Variant.PLAIN);
  }

  /** A plain Llama. */
  public ModelConfig(
      int vocabularySize,
      int width,
      int layers,
      int heads,
      int kvHeads,
      int headWidth,
      int feedForward,
      int contextLength,
      float ropeTheta,
      float rmsEpsilon,
      boolean tiedEmbeddings) {
    this(
        Architecture.LLAMA,
        vocabularySize,
        width,
        layers,
        heads,
        kvHeads,
        headWidth,
        feedForward,
        contextLength,
        ropeTheta,
        rmsEpsilon,
        tiedEmbeddings,
        Variant.PLAIN);
  }

  /** Elements of all query heads. */
  int queryWidth() {
    return heads * headWidth;
  }

  /** Elements of all key heads, and of all value heads. */
  int keyWidth() {
    return kvHeads * headWidth;
  }

  /** Whether a layer sees only the last few positions. */
  boolean windowed(int layer) {
    int every = variant.fullEvery();
    return variant.window() > 0 && (every == 0 || (layer + 1) % every != 0);
  }

  /** How a layer's attention weighs what it sees. */
  Scoring scoring(int layer) {
    float scale = variant.attentionScale();
    return new Scoring(
        scale > 0 ? scale : Scoring.plain(headWidth).scale(),
        variant.attentionCap(),
        windowed(layer) ? variant.window() : 0);
  }
}

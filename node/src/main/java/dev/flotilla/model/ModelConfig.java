package dev.flotilla.model;

/**
 * The shape of a decoder of the Llama family.
 *
 * @param vocabularySize rows of the embedding table
 * @param width elements of a hidden state
 * @param layers transformer blocks
 * @param heads query heads
 * @param kvHeads key and value heads; divides {@code heads}
 * @param headWidth elements of one head
 * @param feedForward elements between the two halves of the feed-forward part
 * @param contextLength positions the model was trained for
 * @param ropeTheta base of the rotary frequencies
 * @param rmsEpsilon added under the root in RMS normalisation
 * @param tiedEmbeddings whether the output matrix is the embedding table
 */
public record ModelConfig(
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
    boolean tiedEmbeddings) {}

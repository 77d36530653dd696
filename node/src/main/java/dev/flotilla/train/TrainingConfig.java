package dev.flotilla.train;

import java.util.Optional;

/**
 * A training job, as {@code flotilla train CONFIG.yaml} reads it (keys in snake case).
 *
 * @param model the name of the result
 * @param text the UTF-8 text to train on, carried in the cluster by the caller; empty trains on the
 *     seeded small-world task
 * @param seed of the data, the initial weights and the order of batches
 * @param workers over how many nodes; 0 takes every node
 * @param vocabularySize tokens of the tokenizer, which is trained on the data
 * @param width elements of a hidden state
 * @param layers transformer blocks
 * @param heads query heads
 * @param kvHeads key and value heads
 * @param feedForward elements of the feed-forward part
 * @param contextLength tokens of a training sequence
 * @param batch sequences of a step over all workers together
 * @param steps optimiser steps
 * @param learningRate at its peak
 * @param warmupSteps linear warm-up, then a cosine down to a tenth
 * @param weightDecay AdamW's, on matrices only
 * @param gradientClip bound on the gradient's global norm
 */
public record TrainingConfig(
    String model,
    Optional<String> text,
    long seed,
    int workers,
    int vocabularySize,
    int width,
    int layers,
    int heads,
    int kvHeads,
    int feedForward,
    int contextLength,
    int batch,
    int steps,
    double learningRate,
    int warmupSteps,
    double weightDecay,
    double gradientClip) {

  /** The demo: learns the small world to 95% and more in about 200 seconds of one core. */
  public static TrainingConfig smallWorld() {
    return new TrainingConfig(
        "small-world",
        Optional.empty(),
        1,
        0,
        600,
        96,
        6,
        6,
        3,
        256,
        256,
        6,
        800,
        4e-3,
        50,
        0.1,
        1.0);
  }

  /** The demo's for a text: wider, with a larger vocabulary, on more but shorter sequences. */
  public static TrainingConfig text(String text) {
    return new TrainingConfig(
        "text", Optional.of(text), 1, 0, 1024, 128, 6, 4, 4, 352, 128, 12, 600, 3e-3, 50, 0.1, 1.0);
  }

  /** The same with another seed. */
  public TrainingConfig withSeed(long other) {
    return with(text, other);
  }

  /** The same with another text. */
  public TrainingConfig withText(Optional<String> other) {
    return with(other, seed);
  }

  private TrainingConfig with(Optional<String> otherText, long otherSeed) {
    return new TrainingConfig(
        model,
        otherText,
        otherSeed,
        workers,
        vocabularySize,
        width,
        layers,
        heads,
        kvHeads,
        feedForward,
        contextLength,
        batch,
        steps,
        learningRate,
        warmupSteps,
        weightDecay,
        gradientClip);
  }
}

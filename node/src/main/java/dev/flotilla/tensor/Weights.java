package dev.flotilla.tensor;

/** Weights of the {@code simd} backend. */
public sealed interface Weights permits Gain, PackedMatrix {

  /** Bytes that they take in memory. */
  long bytes();
}

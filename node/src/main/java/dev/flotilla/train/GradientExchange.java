package dev.flotilla.train;

import org.bytedeco.pytorch.Tensor;

/** Adds up vectors over all workers. */
interface GradientExchange extends AutoCloseable {

  /** Replaces the vector by its sum over all workers; each must call it as often as the others. */
  void sum(Tensor vector);

  @Override
  void close();

  /** A lone worker has nothing to add. */
  static GradientExchange alone() {
    return new GradientExchange() {
      @Override
      public void sum(Tensor vector) {}

      @Override
      public void close() {}
    };
  }
}

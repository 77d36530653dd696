package dev.flotilla.model;

import dev.flotilla.tensor.WeightType;

/** Shapes small enough to run in milliseconds, odd enough to meet every edge. */
final class TestModels {

  /** Grouped queries, a vocabulary and a feed-forward part that do not fill their last tile. */
  static final ModelConfig TIED =
      new ModelConfig(263, 64, 3, 4, 2, 16, 96, 256, 10000f, 1e-5f, true);

  /** A separate output matrix, and heads wider than the width over their number. */
  static final ModelConfig UNTIED =
      new ModelConfig(300, 96, 3, 3, 1, 48, 160, 256, 500000f, 1e-6f, false);

  /** Wide enough for blocks of 256. */
  static final ModelConfig WIDE =
      new ModelConfig(263, 256, 3, 4, 2, 64, 256, 256, 10000f, 1e-5f, true);

  private TestModels() {}

  /** One whose matrices can be of a type. */
  static ModelConfig of(WeightType type) {
    return type.blockElements() > 32 ? WIDE : TIED;
  }
}

package dev.flotilla.serve;

import dev.flotilla.model.ModelConfig;
import dev.flotilla.model.RandomModel;
import dev.flotilla.tensor.WeightType;
import java.nio.file.Path;

/** A small model with seeded random weights. */
final class TestModel {

  static final int VOCABULARY = 259;
  static final int LAYERS = 6;

  private static final ModelConfig CONFIG =
      new ModelConfig(VOCABULARY, 64, LAYERS, 4, 2, 16, 96, 1024, 10_000f, 1e-5f, false);

  private TestModel() {}

  static Path write(Path file, long seed) {
    RandomModel.write(file, CONFIG, WeightType.Q8_0, seed);
    return file;
  }
}

package dev.flotilla.serve;

import dev.flotilla.model.LayerRange;
import dev.flotilla.model.LayerSlice;
import dev.flotilla.model.ModelConfig;
import dev.flotilla.model.Rows;
import java.nio.ByteBuffer;

/** Layers that leave hidden states as they are: what is measured with them is the way. */
class IdleSlice implements LayerSlice {

  private final ModelConfig config;
  private final LayerRange range;

  IdleSlice(ModelConfig config, LayerRange range) {
    this.config = config;
    this.range = range;
  }

  @Override
  public ModelConfig config() {
    return config;
  }

  @Override
  public LayerRange range() {
    return range;
  }

  @Override
  public long weightBytes() {
    return 0;
  }

  @Override
  public int blocks() {
    return 1;
  }

  @Override
  public float[] embed(int[] tokens) {
    return new float[tokens.length * config.width()];
  }

  @Override
  public void forward(float[] hidden, Rows rows) {}

  @Override
  public int blockBytesOfLayer() {
    return 0;
  }

  @Override
  public ByteBuffer readBlock(int block, LayerRange layers) {
    return ByteBuffer.allocate(0);
  }

  @Override
  public void writeBlock(int block, LayerRange layers, ByteBuffer content) {}

  @Override
  public float[] logits(float[] hidden, int[] rows) {
    return new float[rows.length * config.vocabularySize()];
  }

  @Override
  public float[] normalised(float[] hidden, int[] rows) {
    return new float[rows.length * config.width()];
  }

  @Override
  public void close() {}
}

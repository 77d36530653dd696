package dev.flotilla.tensor;

import java.util.Arrays;

/**
 * Sines and cosines for one step's positions, kept because every layer of the step needs the same.
 * {@link StrictMath}, since {@link Math} may round differently from one machine to the next.
 */
final class RopeTable {

  private final Rope rope;
  private final int[] positions;
  private final float[] cosines;
  private final float[] sines;

  /** Keeps {@code positions}. */
  RopeTable(Rope rope, int[] positions) {
    this.rope = rope;
    this.positions = positions;
    int half = rope.frequencies().length;
    cosines = new float[positions.length * half];
    sines = new float[positions.length * half];
    for (int i = 0; i < half; i++) {
      float frequency = rope.frequencies()[i];
      for (int row = 0; row < positions.length; row++) {
        double angle = (double) positions[row] * frequency;
        cosines[row * half + i] = (float) StrictMath.cos(angle) * rope.amplitude();
        sines[row * half + i] = (float) StrictMath.sin(angle) * rope.amplitude();
      }
    }
  }

  boolean isFor(Rope rope, int[] positions) {
    return this.rope.equals(rope) && Arrays.equals(this.positions, positions);
  }

  /** Turns all heads of one row. */
  void rotate(int row, float[] in, float[] out, int width) {
    int half = rope.frequencies().length;
    int rest = rope.headWidth() - 2 * half;
    for (int head = row * width; head < (row + 1) * width; head += rope.headWidth()) {
      for (int i = 0; i < half; i++) {
        float cosine = cosines[row * half + i];
        float sine = sines[row * half + i];
        float a = in[head + i];
        float b = in[head + half + i];
        out[head + i] = a * cosine - b * sine;
        out[head + half + i] = b * cosine + a * sine;
      }
      System.arraycopy(in, head + 2 * half, out, head + 2 * half, rest);
    }
  }
}

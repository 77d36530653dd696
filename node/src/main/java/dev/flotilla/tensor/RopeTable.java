package dev.flotilla.tensor;

import java.util.Arrays;

/**
 * Sines and cosines for one step's positions, kept because every layer of the step needs the same.
 * {@link StrictMath}, since {@link Math} may round differently from one machine to the next.
 */
final class RopeTable {

  private final int headWidth;
  private final float theta;
  private final int[] positions;
  private final float[] cosines;
  private final float[] sines;

  /** Keeps {@code positions}. */
  RopeTable(int headWidth, float theta, int[] positions) {
    this.headWidth = headWidth;
    this.theta = theta;
    this.positions = positions;
    int half = headWidth / 2;
    cosines = new float[positions.length * half];
    sines = new float[positions.length * half];
    for (int i = 0; i < half; i++) {
      float frequency = (float) StrictMath.pow(theta, -2.0 * i / headWidth);
      for (int row = 0; row < positions.length; row++) {
        double angle = (double) positions[row] * frequency;
        cosines[row * half + i] = (float) StrictMath.cos(angle);
        sines[row * half + i] = (float) StrictMath.sin(angle);
      }
    }
  }

  boolean isFor(int headWidth, float theta, int[] positions) {
    return this.headWidth == headWidth
        && this.theta == theta
        && Arrays.equals(this.positions, positions);
  }

  void rotate(float[] in, float[] out, int width) {
    int half = headWidth / 2;
    for (int row = 0; row < positions.length; row++) {
      for (int head = row * width; head < (row + 1) * width; head += headWidth) {
        for (int i = 0; i < half; i++) {
          float cosine = cosines[row * half + i];
          float sine = sines[row * half + i];
          float a = in[head + i];
          float b = in[head + half + i];
          out[head + i] = a * cosine - b * sine;
          out[head + half + i] = b * cosine + a * sine;
        }
      }
    }
  }
}

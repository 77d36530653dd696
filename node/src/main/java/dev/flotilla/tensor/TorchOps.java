package dev.flotilla.tensor;

import java.util.Arrays;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.DoubleOptional;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptional;
import org.bytedeco.pytorch.global.torch;

/**
 * The arithmetic of a decoder over libtorch, with gradients: the backend of training.
 *
 * <p>An activation is an f32 tensor {@code [rows, width]}. Tensors made here belong to the caller's
 * {@link PointerScope}, which should span one training step. Not thread-safe: it keeps the rotary
 * table of the positions last seen, since every layer of a step asks for the same ones.
 */
public final class TorchOps implements Ops<Tensor, Tensor>, AutoCloseable {

  private int[] rotaryPositions = new int[0];
  private int rotaryWidth;
  private float rotaryTheta;
  private Tensor cosine = new Tensor();
  private Tensor signedSine = new Tensor();

  @Override
  public Tensor embed(Tensor table, int[] tokens) {
    return torch.embedding(table, indexes(tokens));
  }

  @Override
  public Tensor linear(Tensor x, Tensor weight) {
    return torch.linear(x, weight);
  }

  @Override
  public Tensor rmsNorm(Tensor x, Tensor gain, float epsilon) {
    return torch.rms_norm(
        x, new long[] {gain.numel()}, new TensorOptional(gain), new DoubleOptional(epsilon));
  }

  /**
   * With {@code rotate(x)} the two halves of each head swapped, the rotation is {@code x · cos +
   * rotate(x) · ±sin}, the sine negative in the first half: one roll and two products.
   */
  @Override
  public Tensor rope(Tensor x, int headWidth, int[] positions, float theta) {
    if (rotaryWidth != headWidth
        || rotaryTheta != theta
        || !Arrays.equals(rotaryPositions, positions)) {
      prepareRotary(headWidth, positions, theta);
    }
    Tensor heads = x.view(positions.length, -1, headWidth);
    Tensor swapped = torch.roll(heads, new long[] {headWidth / 2}, -1);
    return heads.mul(cosine).add(swapped.mul(signedSine)).view(positions.length, -1);
  }

  @Override
  public Tensor swiGlu(Tensor gate, Tensor up) {
    return torch.silu(gate).mul(up);
  }

  @Override
  public Tensor add(Tensor a, Tensor b) {
    return a.add(b);
  }

  /** Token ids or row numbers as a tensor that indexes: {@code [values.length]}, 64-bit. */
  public static Tensor indexes(int[] values) {
    return torch.tensor(Arrays.stream(values).asLongStream().toArray());
  }

  private void prepareRotary(int headWidth, int[] positions, float theta) {
    close();
    int half = headWidth / 2;
    double[] frequencies = new double[half];
    for (int i = 0; i < half; i++) {
      frequencies[i] = Math.pow(theta, -2.0 * i / headWidth);
    }
    float[] cosines = new float[positions.length * headWidth];
    float[] sines = new float[positions.length * headWidth];
    for (int row = 0; row < positions.length; row++) {
      for (int i = 0; i < half; i++) {
        double angle = positions[row] * frequencies[i];
        int at = row * headWidth + i;
        cosines[at] = cosines[at + half] = (float) Math.cos(angle);
        sines[at + half] = (float) Math.sin(angle);
        sines[at] = -sines[at + half];
      }
    }
    try (var outside = new PointerScope()) {
      cosine = torch.tensor(cosines).view(positions.length, 1, headWidth).retainReference();
      signedSine = torch.tensor(sines).view(positions.length, 1, headWidth).retainReference();
    }
    rotaryPositions = positions.clone();
    rotaryWidth = headWidth;
    rotaryTheta = theta;
  }

  /** Frees the rotary table. */
  @Override
  public void close() {
    cosine.close();
    signedSine.close();
    rotaryPositions = new int[0];
  }
}

package dev.flotilla.tensor;

import java.util.Arrays;
import java.util.List;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.DoubleOptional;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptional;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;
import org.jspecify.annotations.Nullable;

/**
 * The arithmetic of a decoder over libtorch, with gradients: the backend of training.
 *
 * <p>An activation is an f32 tensor {@code [rows, width]}. Tensors made here belong to the caller's
 * {@link PointerScope}, which should span one training step. Not thread-safe: it keeps the rotary
 * table of the positions last seen, since every layer of a step asks for the same ones.
 */
public final class TorchOps implements Ops<Tensor, Tensor>, AutoCloseable {

  private int[] rotaryPositions = new int[0];
  private @Nullable Rope rotary;
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
  public Tensor bias(Tensor x, Tensor bias) {
    return x.add(bias);
  }

  @Override
  public Tensor rmsNorm(Tensor x, Tensor gain, float epsilon) {
    long[] run = {gain.numel()};
    Tensor runs = x.view(x.size(0), -1, gain.numel());
    return torch
        .rms_norm(runs, run, new TensorOptional(gain), new DoubleOptional(epsilon))
        .view(x.size(0), -1);
  }

  /**
   * With {@code swap(x)} the two halves of each head's turned part swapped, the rotation is {@code
   * x · cos + swap(x) · ±sin}, the sine negative in the first half: one roll and two products.
   */
  @Override
  public Tensor rope(Tensor x, Rope rope, int[] positions) {
    if (rotary == null || !rotary.equals(rope) || !Arrays.equals(rotaryPositions, positions)) {
      prepareRotary(rope, positions);
    }
    int turned = 2 * rope.frequencies().length;
    Tensor heads = x.view(positions.length, -1, rope.headWidth());
    Tensor pairs = turned == rope.headWidth() ? heads : heads.narrow(-1, 0, turned);
    Tensor swapped = torch.roll(pairs, new long[] {turned / 2}, -1);
    Tensor result = pairs.mul(cosine).add(swapped.mul(signedSine));
    if (turned < rope.headWidth()) {
      Tensor rest = heads.narrow(-1, turned, rope.headWidth() - turned);
      result = torch.cat(new TensorVector(result, rest), -1);
    }
    return result.view(positions.length, -1);
  }

  @Override
  public Tensor swiGlu(Tensor gate, Tensor up) {
    return torch.silu(gate).mul(up);
  }

  @Override
  public Tensor geGlu(Tensor gate, Tensor up) {
    return torch.gelu(gate, new BytePointer("tanh")).mul(up);
  }

  @Override
  public Tensor add(Tensor a, Tensor b) {
    return a.add(b);
  }

  @Override
  public Tensor scale(Tensor x, float factor) {
    return x.mul(new Scalar(factor));
  }

  @Override
  public Tensor softCap(Tensor x, float cap) {
    return torch.tanh(x.div(new Scalar(cap))).mul(new Scalar(cap));
  }

  /** Every expert sees every row, with a share of 0 where it is not used: plain, not fast. */
  @Override
  public Tensor mixture(Tensor x, Tensor scores, int used, List<FeedForward<Tensor>> experts) {
    Tensor lowest = torch.topk(scores, used).get0().narrow(-1, used - 1, 1);
    Tensor chosen = scores.masked_fill(scores.lt(lowest), new Scalar(Float.NEGATIVE_INFINITY));
    Tensor shares = torch.softmax(chosen, -1);
    Tensor result = torch.zeros_like(x);
    for (int e = 0; e < experts.size(); e++) {
      FeedForward<Tensor> expert = experts.get(e);
      Tensor inner = swiGlu(linear(x, expert.gate()), linear(x, expert.up()));
      result = result.add(linear(inner, expert.down()).mul(shares.narrow(-1, e, 1)));
    }
    return result;
  }

  /** Token ids or row numbers as a tensor that indexes: {@code [values.length]}, 64-bit. */
  public static Tensor indexes(int[] values) {
    return torch.tensor(Arrays.stream(values).asLongStream().toArray());
  }

  private void prepareRotary(Rope rope, int[] positions) {
    close();
    int half = rope.frequencies().length;
    int turned = 2 * half;
    float[] cosines = new float[positions.length * turned];
    float[] sines = new float[positions.length * turned];
    for (int row = 0; row < positions.length; row++) {
      for (int i = 0; i < half; i++) {
        double angle = (double) positions[row] * rope.frequencies()[i];
        int at = row * turned + i;
        cosines[at] = cosines[at + half] = (float) Math.cos(angle) * rope.amplitude();
        sines[at + half] = (float) Math.sin(angle) * rope.amplitude();
        sines[at] = -sines[at + half];
      }
    }
    try (var _ = new PointerScope()) {
      cosine = torch.tensor(cosines).view(positions.length, 1, turned).retainReference();
      signedSine = torch.tensor(sines).view(positions.length, 1, turned).retainReference();
    }
    rotaryPositions = positions.clone();
    rotary = rope;
  }

  /** Frees the rotary table. */
  @Override
  public void close() {
    cosine.close();
    signedSine.close();
    rotaryPositions = new int[0];
  }
}

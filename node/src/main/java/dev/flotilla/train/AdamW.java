package dev.flotilla.train;

import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;

/**
 * Adam with decoupled weight decay, Loshchilov and Hutter 2019, over one flat vector of weights;
 * betas 0.9 and 0.95, epsilon 1e-8. Decay applies to the matrices only.
 */
final class AdamW implements AutoCloseable {

  private static final double BETA1 = 0.9;
  private static final double BETA2 = 0.95;
  private static final double EPSILON = 1e-8;

  private final double weightDecay;
  private final double gradientClip;
  private final Tensor first;
  private final Tensor second;
  private int steps;

  /**
   * @param gradientClip bound on the gradient's global norm
   */
  AdamW(long count, double weightDecay, double gradientClip) {
    this.weightDecay = weightDecay;
    this.gradientClip = gradientClip;
    try (var scope = new PointerScope()) {
      first = torch.zeros(count).retainReference();
      second = torch.zeros(count).retainReference();
    }
  }

  /**
   * One step.
   *
   * @param values {@code [count]}, updated
   * @param gradient {@code [count]}, clipped in place
   * @param decayed how many weights, from the start, decay
   * @return the gradient's norm before clipping
   */
  double step(Tensor values, Tensor gradient, long decayed, double learningRate) {
    steps++;
    try (var scope = new PointerScope()) {
      double norm = gradient.norm().item_float();
      if (norm > gradientClip) {
        gradient.mul_(new Scalar(gradientClip / norm));
      }
      first.mul_(new Scalar(BETA1)).add_(gradient, new Scalar(1 - BETA1));
      second.mul_(new Scalar(BETA2)).addcmul_(gradient, gradient, new Scalar(1 - BETA2));
      values.narrow(0, 0, decayed).mul_(new Scalar(1 - learningRate * weightDecay));
      double correction1 = 1 - Math.pow(BETA1, steps);
      double correction2 = 1 - Math.pow(BETA2, steps);
      Tensor deviation =
          second.sqrt().mul_(new Scalar(1 / Math.sqrt(correction2))).add_(new Scalar(EPSILON));
      values.addcdiv_(first, deviation, new Scalar(-learningRate / correction1));
      return norm;
    }
  }

  @Override
  public void close() {
    first.close();
    second.close();
  }
}

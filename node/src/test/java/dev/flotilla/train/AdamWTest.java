package dev.flotilla.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import java.util.SplittableRandom;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Test;

class AdamWTest {

  private static final int COUNT = 37;
  private static final int MATRICES = 30;

  /** The paper's algorithm, element by element, in double. */
  @Test
  void followsTheScalarAlgorithmOverManySteps() {
    double decay = 0.1;
    double clip = 1.5;
    var random = new SplittableRandom(11);
    double[] expected = new double[COUNT];
    float[] start = new float[COUNT];
    for (int i = 0; i < COUNT; i++) {
      start[i] = (float) random.nextGaussian();
      expected[i] = start[i];
    }
    double[] first = new double[COUNT];
    double[] second = new double[COUNT];
    boolean clipped = false;
    boolean unclipped = false;
    try (var scope = new PointerScope();
        var optimizer = new AdamW(COUNT, decay, clip)) {
      Tensor values = torch.tensor(start);
      for (int step = 1; step <= 50; step++) {
        float[] gradient = new float[COUNT];
        double squares = 0;
        double scale = step % 2 == 0 ? 0.1 : 1;
        for (int i = 0; i < COUNT; i++) {
          gradient[i] = (float) (random.nextGaussian() * scale);
          squares += gradient[i] * gradient[i];
        }
        double norm = Math.sqrt(squares);
        clipped |= norm > clip;
        unclipped |= norm <= clip;
        double rate = new Schedule(0.01, 10, 50).at(step - 1);
        double reported = optimizer.step(values, torch.tensor(gradient), MATRICES, rate);
        assertThat(reported).isCloseTo(norm, within(1e-4));
        for (int i = 0; i < COUNT; i++) {
          double g = gradient[i] * Math.min(1, clip / norm);
          first[i] = 0.9 * first[i] + 0.1 * g;
          second[i] = 0.95 * second[i] + 0.05 * g * g;
          if (i < MATRICES) {
            expected[i] -= rate * decay * expected[i];
          }
          double mean = first[i] / (1 - Math.pow(0.9, step));
          double variance = second[i] / (1 - Math.pow(0.95, step));
          expected[i] -= rate * mean / (Math.sqrt(variance) + 1e-8);
        }
      }
      float[] actual = Parameters.floats(values);
      for (int i = 0; i < COUNT; i++) {
        assertThat((double) actual[i]).as("weight %d", i).isCloseTo(expected[i], within(1e-4));
      }
    }
    assertThat(clipped && unclipped).as("both sides of the clipping were seen").isTrue();
  }

  @Test
  void scheduleWarmsUpThenFallsToATenth() {
    var schedule = new Schedule(0.4, 4, 104);
    assertThat(schedule.at(0)).isCloseTo(0.1, within(1e-12));
    assertThat(schedule.at(3)).isCloseTo(0.4, within(1e-12));
    assertThat(schedule.at(4)).isCloseTo(0.4, within(1e-12));
    assertThat(schedule.at(54)).isCloseTo(0.22, within(1e-12));
    assertThat(schedule.at(104)).isCloseTo(0.04, within(1e-12));
    assertThat(new Schedule(0.4, 0, 1).at(0)).isCloseTo(0.4, within(1e-12));
  }
}

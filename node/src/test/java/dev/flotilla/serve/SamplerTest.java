package dev.flotilla.serve;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import dev.flotilla.FlotillaException;
import java.util.Random;
import org.junit.jupiter.api.Test;

final class SamplerTest {

  private static int draw(float[] logits, SamplingParameters parameters, int position) {
    return Sampler.sample(logits, 0, logits.length, parameters, position);
  }

  @Test
  void greedyTakesTheLowestIdAmongEquals() {
    float[] logits = {1, 3, Float.NaN, 3, Float.NEGATIVE_INFINITY};
    assertThat(draw(logits, SamplingParameters.GREEDY, 7)).isEqualTo(1);
  }

  @Test
  void drawsFollowTheSoftmax() {
    float[] logits = {0, (float) Math.log(2), (float) Math.log(5)};
    int[] counts = new int[3];
    for (int position = 0; position < 80_000; position++) {
      counts[draw(logits, new SamplingParameters(1, 1, 0, 42), position)]++;
    }
    assertThat(counts[0] / 80_000.0).isCloseTo(1 / 8.0, within(0.006));
    assertThat(counts[1] / 80_000.0).isCloseTo(2 / 8.0, within(0.006));
    assertThat(counts[2] / 80_000.0).isCloseTo(5 / 8.0, within(0.006));
  }

  @Test
  void topKAndTopPCutTheTail() {
    float[] logits = {(float) Math.log(1), (float) Math.log(2), (float) Math.log(5), 0};
    for (int position = 0; position < 2000; position++) {
      assertThat(draw(logits, new SamplingParameters(1, 1, 1, 3), position)).isEqualTo(2);
      assertThat(draw(logits, new SamplingParameters(1, 0.5f, 0, 3), position)).isEqualTo(2);
      assertThat(draw(logits, new SamplingParameters(1, 0.6f, 0, 3), position)).isIn(1, 2);
      // Equals at the edge of top-k: the lower id stays.
      assertThat(draw(logits, new SamplingParameters(5, 1, 3, 3), position)).isIn(0, 1, 2);
      assertThat(draw(logits, new SamplingParameters(5, 0, 0, 3), position)).isEqualTo(2);
    }
  }

  @Test
  void aDrawDependsOnSeedAndPositionOnly() {
    long seed = System.nanoTime();
    Random random = new Random(seed);
    float[] rows = new float[5 * 100];
    for (int i = 0; i < rows.length; i++) {
      rows[i] = random.nextFloat() * 8;
    }
    for (int row = 0; row < 5; row++) {
      float[] alone = java.util.Arrays.copyOfRange(rows, row * 100, row * 100 + 100);
      for (int position = 0; position < 50; position++) {
        SamplingParameters parameters = new SamplingParameters(0.7f, 0.9f, 40, random.nextLong());
        assertThat(Sampler.sample(rows, row, 100, parameters, position))
            .as("seed " + seed)
            .isEqualTo(draw(alone, parameters, position));
      }
    }
  }

  /** These values must never change: a stream may continue on a node of another version. */
  @Test
  void theRandomStreamIsFixed() {
    assertThat(Sampler.uniform(0, 0)).isEqualTo(UNIFORM_0_0);
    assertThat(Sampler.uniform(-1, 1234)).isEqualTo(UNIFORM_MINUS1_1234);
  }

  private static final double UNIFORM_0_0 = 0.28176129772258496;
  private static final double UNIFORM_MINUS1_1234 = 0.2073615059386673;

  @Test
  void infiniteLogitsAreDrawnAndRowsWithoutNumbersRefused() {
    float[] forced = {0, Float.POSITIVE_INFINITY, 0};
    assertThat(draw(forced, new SamplingParameters(1, 1, 0, 1), 1)).isEqualTo(1);
    float[] masked = {Float.NEGATIVE_INFINITY, 0, Float.NEGATIVE_INFINITY};
    assertThat(draw(masked, new SamplingParameters(1, 1, 0, 1), 1)).isEqualTo(1);
    assertThatThrownBy(() -> draw(new float[] {Float.NaN}, SamplingParameters.GREEDY, 0))
        .isInstanceOf(FlotillaException.class);
  }
}

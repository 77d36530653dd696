package dev.flotilla.serve;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import com.google.protobuf.ByteString;
import dev.flotilla.model.LayerRange;
import dev.flotilla.model.Pooling;
import dev.flotilla.model.Rows;
import dev.flotilla.serve.proto.Step;
import dev.flotilla.text.Grammar;
import dev.flotilla.text.TokenConstraint;
import dev.flotilla.text.TokenMask;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.Optional;
import java.util.Random;
import org.junit.jupiter.api.Test;

final class WireTest {

  private static final long SEED = 3;

  private static float[] travelled(float[] states, WireType type) {
    ByteString bytes = Wire.hidden(states, type);
    assertThat(bytes.size()).isEqualTo(states.length * (type == WireType.F32 ? 4 : 2));
    return Wire.hidden(bytes, type);
  }

  @Test
  void statesTravelAsTheyAreOrToTheNearestOfHalfTheBytes() {
    float[] states = new float[1000];
    Random random = new Random(SEED);
    for (int i = 0; i < states.length; i++) {
      states[i] = (float) (random.nextGaussian() * Math.pow(10, random.nextInt(60) - 30));
    }
    assertThat(travelled(states, WireType.F32)).isEqualTo(states);
    float[] near = travelled(states, WireType.BF16);
    for (int i = 0; i < states.length; i++) {
      float apart = Math.abs(states[i]) / 256;
      assertThat(near[i]).as("seed %d", SEED).isCloseTo(states[i], within(apart));
      assertThat(travelled(new float[] {near[i]}, WireType.BF16)[0]).isEqualTo(near[i]);
    }
  }

  @Test
  void halfwayGoesToTheEvenOneAndWhatIsNoNumberStaysSo() {
    float one = Float.intBitsToFloat(0x3f808000);
    float other = Float.intBitsToFloat(0x3f818000);
    float nearlyNone = Float.intBitsToFloat(0x7f800001);
    float[] travelled =
        travelled(
            new float[] {
              one, other, nearlyNone, Float.NaN, Float.NEGATIVE_INFINITY, Float.MAX_VALUE, -0f
            },
            WireType.BF16);
    assertThat(travelled[0]).isEqualTo(Float.intBitsToFloat(0x3f800000));
    assertThat(travelled[1]).isEqualTo(Float.intBitsToFloat(0x3f820000));
    assertThat(travelled[2]).isNaN();
    assertThat(travelled[3]).isNaN();
    assertThat(travelled[4]).isEqualTo(Float.NEGATIVE_INFINITY);
    assertThat(travelled[5]).isEqualTo(Float.POSITIVE_INFINITY);
    assertThat(Float.floatToRawIntBits(travelled[6])).isEqualTo(Integer.MIN_VALUE);
  }

  @Test
  void aStepArrivesAsItWasSent() {
    TokenConstraint held =
        new TokenConstraint(Grammar.parse("root ::= [a-f]"), ToySlice.VOCABULARY, ToySlice.END);
    TokenMask allowed = held.allowed(held.start());
    Batch batch =
        new Batch(
            7,
            new int[] {1, 2, 3},
            new Rows(
                List.of(
                    new Rows.Run(new int[] {5, 2}, 40, 1, false),
                    new Rows.Run(new int[] {9}, 0, 2, true))),
            List.of(
                new Batch.Draw(0, 41, new SamplingParameters(0.5f, 0.9f, 3, -1), Optional.empty()),
                new Batch.Draw(1, 42, SamplingParameters.GREEDY, Optional.of(allowed))),
            List.of(new Batch.Pool(12, 1, 0, 2, 2, Pooling.LAST)),
            new long[] {4, 5},
            List.of(
                new BlockPart(3, new LayerRange(1, 2), ByteBuffer.wrap(new byte[] {1, 2, 3, 4}))),
            List.of(new Batch.Export(9, 11)));
    Step step = Wire.step(batch, new float[12], batch.imports(), WireType.F32);
    Rows rows = Wire.rows(step);
    assertThat(rows.positions()).containsExactly(40, 0, 1);
    assertThat(rows.runs().get(0).blocks()).containsExactly(5, 2);
    assertThat(rows.runs().get(0).prompt()).isFalse();
    assertThat(rows.runs().get(1).prompt()).isTrue();
    assertThat(Wire.draws(step)).isEqualTo(batch.draws());
    assertThat(Wire.pools(step)).isEqualTo(batch.pools());
    assertThat(Wire.longs(step.getReleasesList())).containsExactly(4, 5);
    assertThat(Wire.imports(step)).isEqualTo(batch.imports());
    assertThat(Wire.exports(step)).isEqualTo(batch.exports());
  }
}

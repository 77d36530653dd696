package dev.flotilla.tensor;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.Json;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.Base64;
import java.util.Objects;
import java.util.Random;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

/** Blocks as ggml's own package reads and writes them, recorded by {@code peer/make_quants.py}. */
class RecordedBlocksTest {

  private static final JsonNode RECORDED = read();

  private static JsonNode read() {
    try (var in = RecordedBlocksTest.class.getResourceAsStream("/peer/quants.json")) {
      return Json.MAPPER.readTree(Objects.requireNonNull(in));
    } catch (IOException e) {
      throw new IllegalStateException(e);
    }
  }

  private static byte[] bytes(JsonNode node) {
    return Base64.getDecoder().decode(node.asText());
  }

  private static float[] floats(JsonNode node) {
    ByteBuffer buffer = ByteBuffer.wrap(bytes(node)).order(ByteOrder.LITTLE_ENDIAN);
    float[] values = new float[buffer.remaining() / 4];
    buffer.asFloatBuffer().get(values);
    return values;
  }

  @ParameterizedTest
  @EnumSource(names = {"Q8_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K"})
  void blocksHoldWhatGgmlReadsInThem(WeightType type) {
    JsonNode recorded = RECORDED.path("decode").path(type.name());
    MemorySegment blocks = MemorySegment.ofArray(bytes(recorded.path("bytes")));
    float[] wanted = floats(recorded.path("values"));
    assertThat(ScalarReference.decode(type, blocks, wanted.length)).isEqualTo(wanted);
    // And so does the layout in which kernels read them, row by row and whole.
    try (Arena arena = Arena.ofConfined();
        SimdOps ops = new SimdOps(1)) {
      PackedMatrix packed = PackedMatrix.pack(type, 1, wanted.length, blocks, row -> row, arena);
      assertThat(ops.embed(packed, new int[] {0}).values()).isEqualTo(wanted);
      Matrix x = new Matrix(1, wanted.length);
      Arrays.fill(x.values(), 1);
      assertThat(ops.linear(x, packed).values())
          .isEqualTo(ScalarReference.linear(x, type, blocks, 1).values());
    }
  }

  @ParameterizedTest
  @EnumSource(names = {"F16", "BF16", "Q8_0", "Q4_0"})
  void valuesBecomeTheBytesThatGgmlMakesOfThem(WeightType type) {
    float[] values = floats(RECORDED.path("encode").path("values"));
    try (Arena arena = Arena.ofConfined()) {
      assertThat(ScalarReference.encode(type, values, arena).toArray(ValueLayout.JAVA_BYTE))
          .isEqualTo(bytes(RECORDED.path("encode").path(type.name())));
    }
  }

  /** The steps between numbers of so few bits, over the spread of what is encoded. */
  @ParameterizedTest
  @CsvSource({"Q4_0, 0.35", "Q4_K, 0.25", "Q5_K, 0.13", "Q6_K, 0.08", "Q8_0, 0.02", "BF16, 0.02"})
  void whatIsEncodedStaysNear(WeightType type, float tolerance) {
    float[] values = ScalarReference.random(new Random(3), 1024);
    for (int i = 0; i < values.length; i++) {
      values[i] = Math.clamp(values[i], -2.5f, 2.5f);
    }
    Arrays.fill(values, 256, 300, 0);
    try (Arena arena = Arena.ofConfined()) {
      float[] decoded =
          ScalarReference.decode(type, ScalarReference.encode(type, values, arena), 1024);
      for (int i = 0; i < values.length; i++) {
        assertThat(decoded[i]).as("element %d", i).isCloseTo(values[i], within(tolerance));
      }
    }
  }
}

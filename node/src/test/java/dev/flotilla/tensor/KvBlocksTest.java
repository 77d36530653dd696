package dev.flotilla.tensor;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.Random;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

class KvBlocksTest {

  private static final long SEED = 7;

  @ParameterizedTest
  @CsvSource({
    "4, 4, 32, 1, 0, 0",
    "4, 2, 64, 31, 0, 0",
    "6, 1, 48, 33, 0, 0",
    "2, 2, 16, 70, 0, 0",
    "8, 2, 80, 130, 0, 0",
    "2, 1, 16, 130, 0, 3.5",
    "2, 1, 16, 20, 7, 0",
    "2, 1, 16, 130, 32, 0",
    "2, 1, 16, 130, 33, 0",
    "2, 1, 16, 130, 64, 2.5",
    "4, 2, 32, 97, 1, 0",
    "4, 2, 32, 64, 200, 0",
  })
  void attentionEqualsTheScalarOrderBitForBit(
      int heads, int kvHeads, int width, int length, int window, float cap) {
    for (KvType type : KvType.values()) {
      check(type, heads, kvHeads, width, length, window, cap);
    }
  }

  /** What is copied of a block, layer by layer or all at once, is the block, to the last bit. */
  @ParameterizedTest
  @EnumSource(KvType.class)
  void aBlockThatIsCopiedIsTheSame(KvType type) {
    Random random = new Random(SEED);
    KvLayout layout = new KvLayout(type, 3, 2, 48);
    try (SimdOps ops = new SimdOps(1);
        KvBlocks blocks = new KvBlocks(ops, layout, 4, 4);
        KvBlocks others = new KvBlocks(ops, layout, 4, 4)) {
      for (int layer = 0; layer < 3; layer++) {
        for (int slot = 0; slot < 32; slot++) {
          Matrix key = new Matrix(1, 96, ScalarReference.random(random, 96));
          Matrix value = new Matrix(1, 96, ScalarReference.random(random, 96));
          blocks.write(layer, 2, slot, key, value, 0);
        }
      }
      int bytes = (int) layout.layerBytes();
      ByteBuffer first = ByteBuffer.allocate(bytes);
      blocks.read(2, 0, 1, first);
      ByteBuffer rest = ByteBuffer.allocate(2 * bytes);
      blocks.read(2, 1, 2, rest);
      others.write(1, 1, 2, rest.flip().asReadOnlyBuffer());
      others.write(1, 0, 1, first.flip());
      ByteBuffer whole = ByteBuffer.allocate(3 * bytes);
      ByteBuffer copied = ByteBuffer.allocate(3 * bytes);
      blocks.read(2, 0, 3, whole);
      others.read(1, 0, 3, copied);
      assertThat(copied.array()).isEqualTo(whole.array());
      assertThat(layout.blockBytes()).isEqualTo(3L * bytes);
      Matrix query = new Matrix(1, 4 * 48, ScalarReference.random(random, 4 * 48));
      Scoring scoring = new Scoring(0.1f, 0, 0);
      for (int layer = 0; layer < 3; layer++) {
        assertThat(others.attend(layer, query, new int[][] {{1}}, new int[] {32}, scoring).values())
            .isEqualTo(
                blocks.attend(layer, query, new int[][] {{2}}, new int[] {32}, scoring).values());
      }
    }
  }

  private static void check(
      KvType type, int heads, int kvHeads, int width, int length, int window, float cap) {
    Random random = new Random(SEED);
    int blockCount = (length + 31) / 32;
    try (SimdOps ops = new SimdOps(2);
        KvBlocks blocks =
            new KvBlocks(ops, new KvLayout(type, 2, kvHeads, width), heads, blockCount + 3)) {
      int[] table = new int[blockCount];
      for (int i = 0; i < blockCount; i++) {
        table[i] = blockCount + 2 - i;
      }
      float[][] keys = new float[length][];
      float[][] values = new float[length][];
      for (int t = 0; t < length; t++) {
        keys[t] = ScalarReference.random(random, kvHeads * width);
        values[t] = ScalarReference.random(random, kvHeads * width);
        Matrix key = new Matrix(1, kvHeads * width, keys[t]);
        Matrix value = new Matrix(1, kvHeads * width, values[t]);
        blocks.write(0, table[t / 32], t % 32, value, key, 0);
        blocks.write(1, table[t / 32], t % 32, key, value, 0);
        keys[t] = kept(type, keys[t], width);
        values[t] = kept(type, values[t], width);
      }
      // Rows of a list are worked on together, as many as fit: some see the same, some do not.
      int[] lengths = new int[45];
      int[][] tables = new int[lengths.length][];
      for (int row = 0; row < lengths.length; row++) {
        lengths[row] = row < 3 ? (length + row) / (row + 1) : Math.max(1, length - 45 + row);
        tables[row] = row == 1 ? table.clone() : table;
      }
      Matrix query =
          new Matrix(
              lengths.length,
              heads * width,
              ScalarReference.random(random, lengths.length * heads * width));
      Scoring scoring = new Scoring(1 / (float) Math.sqrt(width), cap, window);
      float[] result = blocks.attend(1, query, tables, lengths, scoring).values();
      for (int row = 0; row < lengths.length; row++) {
        for (int head = 0; head < heads; head++) {
          int first = (row * heads + head) * width;
          int kv = head / (heads / kvHeads) * width;
          float[] wanted =
              ScalarReference.attend(
                  Arrays.copyOfRange(query.values(), first, first + width),
                  slices(keys, lengths[row], window, kv, width),
                  slices(values, lengths[row], window, kv, width),
                  scoring.scale(),
                  cap);
          assertThat(Arrays.copyOfRange(result, first, first + width))
              .as("%s, seed %d, row %d, head %d", type, SEED, row, head)
              .isEqualTo(wanted);
        }
      }
    }
  }

  @ParameterizedTest
  @CsvSource({"16, 5", "64, 100"})
  void theScalarOrderIsAttention(int width, int length) {
    Random random = new Random(SEED);
    float[] query = ScalarReference.random(random, width);
    float[][] keys = new float[length][];
    float[][] values = new float[length][];
    double[] weights = new double[length];
    double total = 0;
    for (int t = 0; t < length; t++) {
      keys[t] = ScalarReference.random(random, width);
      values[t] = ScalarReference.random(random, width);
      double score = 0;
      for (int i = 0; i < width; i++) {
        score += (double) query[i] * keys[t][i];
      }
      weights[t] = Math.exp(score / Math.sqrt(width));
      total += weights[t];
    }
    float[] result = ScalarReference.attend(query, keys, values, 1 / (float) Math.sqrt(width), 0);
    for (int i = 0; i < width; i++) {
      double wanted = 0;
      for (int t = 0; t < length; t++) {
        wanted += weights[t] / total * values[t][i];
      }
      assertThat((double) result[i]).isCloseTo(wanted, within(2e-6));
    }
  }

  /** What is left of elements when they are kept so, in words of its own. */
  private static float[] kept(KvType type, float[] elements, int width) {
    float[] kept = elements.clone();
    for (int from = 0; from < kept.length; from++) {
      switch (type) {
        case F32 -> {}
        case F16 -> kept[from] = Float.float16ToFloat(Float.floatToFloat16(kept[from]));
        case Q8_0 -> {
          int first = from / width * width + from % width / 32 * 32;
          int end = Math.min(first + 32, from / width * width + width);
          float most = 0;
          for (int i = first; i < end; i++) {
            most = Math.max(most, Math.abs(elements[i]));
          }
          float scale = most / 127;
          double quant = Math.rint(elements[from] * (1 / scale));
          kept[from] = (float) quant * Float.float16ToFloat(Float.floatToFloat16(scale));
        }
      }
    }
    return kept;
  }

  @ParameterizedTest
  @EnumSource(KvType.class)
  void whatIsKeptIsNearAndNeverInfinite(KvType type) {
    float[] huge = new float[32];
    huge[3] = 1e6f;
    huge[4] = -1e6f;
    try (SimdOps ops = new SimdOps(1);
        KvBlocks blocks = new KvBlocks(ops, new KvLayout(type, 1, 1, 32), 1, 1)) {
      Matrix row = new Matrix(1, 32, huge);
      blocks.write(0, 0, 0, new Matrix(1, 32), row, 0);
      float[] seen =
          blocks.attend(0, row, new int[][] {{0}}, new int[] {1}, Scoring.plain(32)).values();
      float wanted = type == KvType.F16 ? 65_504 : 1e6f;
      assertThat(seen[3]).isCloseTo(wanted, within(1e3f));
      assertThat(seen[4]).isCloseTo(-wanted, within(1e3f));
      assertThat(seen[5]).isZero();
    }
  }

  /** One head's part of the positions in the window, of the first so many. */
  private static float[][] slices(float[][] rows, int count, int window, int first, int width) {
    int start = window == 0 ? 0 : Math.max(0, count - window);
    float[][] slices = new float[count - start][];
    for (int t = start; t < count; t++) {
      slices[t - start] = Arrays.copyOfRange(rows[t], first, first + width);
    }
    return slices;
  }
}

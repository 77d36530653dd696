package dev.flotilla.model;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.tensor.WeightType;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

class PackedSliceTest {

  private static final long SEED = 5;
  private static final int WIDTH = TestModels.TIED.width();
  private static final int TOKENS = 41;

  @TempDir Path folder;
  private final int[] tokens =
      new Random(SEED).ints(TOKENS, 0, TestModels.TIED.vocabularySize()).toArray();

  @BeforeEach
  void writeModels() {
    for (WeightType type : WeightType.values()) {
      RandomModel.write(file(type), TestModels.of(type), type, SEED);
    }
    RandomModel.write(folder.resolve("untied"), TestModels.UNTIED, WeightType.Q8_0, SEED);
  }

  private Path file(WeightType type) {
    return folder.resolve(type.name());
  }

  @ParameterizedTest
  @EnumSource(WeightType.class)
  void oneTwoOrThreeSlicesAndChunksOfAnySizeGiveTheSameBits(WeightType type) {
    List<LayerSlice> whole = Slices.load(file(type), 1, 64, 0);
    float[] wanted = Slices.run(whole, 1, tokens, 1);
    Slices.close(whole);
    for (int[] firsts : new int[][] {{0}, {0, 1}, {0, 2}, {0, 1, 2}}) {
      List<LayerSlice> slices = Slices.load(file(type), 2, 64, firsts);
      for (int chunk : new int[] {1, 2, 7, 32, TOKENS}) {
        assertThat(Slices.run(slices, 1, tokens, chunk))
            .as("%s, slices %s, chunk %d", type, Arrays.toString(firsts), chunk)
            .isEqualTo(wanted);
        slices.forEach(slice -> slice.release(1));
        assertThat(slices).allMatch(slice -> slice.freePositions() == slice.cachePositions());
      }
      Slices.close(slices);
    }
  }

  @Test
  void rowsOfOtherSequencesInTheSameStepChangeNothing() {
    List<LayerSlice> slices = Slices.load(file(WeightType.Q8_0), 2, 1024, 0);
    LayerSlice slice = slices.getFirst();
    float[] wanted = Slices.run(slices, 1, tokens, 1);
    slice.release(1);
    // Sequence 1 decodes token by token while five others come and grow beside it.
    int vocabulary = slice.config().vocabularySize();
    int[] lengths = new int[6];
    for (int t = 0; t < TOKENS; t++) {
      int others = t % 6;
      int[] part = new int[others + 1];
      long[] sequences = new long[others + 1];
      int[] positions = new int[others + 1];
      for (int i = 0; i <= others; i++) {
        int sequence = i == others ? 1 : 10 + i;
        sequences[i] = sequence;
        positions[i] = i == others ? t : lengths[i]++;
        part[i] = i == others ? tokens[t] : (t * 31 + i) % vocabulary;
      }
      float[] hidden = slice.embed(part);
      slice.forward(hidden, sequences, positions);
      assertThat(slice.logits(hidden, new int[] {others}))
          .isEqualTo(Arrays.copyOfRange(wanted, t * vocabulary, (t + 1) * vocabulary));
    }
    Slices.close(slices);
  }

  @Test
  void aReplayAfterReleaseGivesTheSameBitsInReusedBlocks() {
    List<LayerSlice> slices = Slices.load(folder.resolve("untied"), 1, 64, 0, 2);
    float[] wanted = Slices.run(slices, 1, tokens, 7);
    slices.forEach(slice -> slice.release(1));
    int[] other = Arrays.copyOf(tokens, 20);
    Arrays.setAll(other, i -> (other[i] + 17) % 300);
    Slices.run(slices, 2, other, 3);
    slices.forEach(slice -> slice.release(2));
    assertThat(Slices.run(slices, 3, tokens, TOKENS)).isEqualTo(wanted);
    Slices.close(slices);
  }

  @Test
  void aFullCacheIsBusyAndChangesNothing() {
    List<LayerSlice> slices = Slices.load(file(WeightType.F32), 1, 64, 0);
    LayerSlice slice = slices.getFirst();
    float[] wanted = Slices.run(slices, 9, Arrays.copyOf(tokens, 33), 1);
    slice.release(9);
    Slices.run(slices, 1, Arrays.copyOf(tokens, 32), 32);
    Slices.run(slices, 2, Arrays.copyOf(tokens, 20), 20);
    assertThat(slice.freePositions()).isZero();
    float[] hidden = slice.embed(new int[] {1, 2});
    float[] before = hidden.clone();
    assertThatThrownBy(() -> slice.forward(hidden, new long[] {2, 1}, new int[] {20, 32}))
        .isInstanceOfSatisfying(
            FlotillaException.class, e -> assertThat(e.code()).isEqualTo(Code.BUSY));
    assertThat(hidden).isEqualTo(before);
    slice.release(2);
    assertThat(slice.freePositions()).isEqualTo(32);
    float[] last = slice.embed(new int[] {tokens[32]});
    slice.forward(last, new long[] {1}, new int[] {32});
    int vocabulary = slice.config().vocabularySize();
    assertThat(slice.logits(last, new int[] {0}))
        .isEqualTo(Arrays.copyOfRange(wanted, 32 * vocabulary, 33 * vocabulary));
    Slices.close(slices);
  }

  @ParameterizedTest
  @ValueSource(ints = {0, 3, 5, -1})
  void aRowThatDoesNotContinueItsSequenceIsRefusedAndChangesNothing(int position) {
    List<LayerSlice> slices = Slices.load(file(WeightType.F32), 1, 64, 0);
    LayerSlice slice = slices.getFirst();
    Slices.run(slices, 1, Arrays.copyOf(tokens, 4), 4);
    assertThatThrownBy(
            () -> slice.forward(new float[2 * WIDTH], new long[] {2, 1}, new int[] {0, position}))
        .isInstanceOfSatisfying(
            FlotillaException.class, e -> assertThat(e.code()).isEqualTo(Code.CONFLICT));
    assertThat(slice.freePositions()).isEqualTo(32);
    slice.forward(new float[WIDTH], new long[] {1}, new int[] {4});
    Slices.close(slices);
  }

  @Test
  void aSliceHoldsOnlyItsOwnTensors() {
    try (GgufFile source = GgufFile.open(folder.resolve("untied"))) {
      GgufHeader header = source.header();
      List<String> middle =
          header.sliceTensors(new LayerRange(1, 1)).stream()
              .map(GgufHeader.TensorInfo::name)
              .toList();
      assertThat(middle).hasSize(9).allMatch(name -> name.startsWith("blk.1."));
      assertThat(header.sliceTensors(new LayerRange(0, 0))).hasSize(10);
      assertThat(header.sliceTensors(new LayerRange(2, 2))).hasSize(11);
      TensorFiles onlyMiddle =
          new TensorFiles(
              header,
              name -> {
                assertThat(middle).contains(name);
                return new TensorFiles.Location(
                    folder.resolve("untied"), header.tensor(name).orElseThrow().offset());
              });
      try (onlyMiddle;
          LayerSlice slice = PackedSlice.load(onlyMiddle, new LayerRange(1, 1), 1, 32)) {
        assertThat(slice.weightBytes()).isPositive().isLessThan(header.fileBytes() / 3);
        assertThatThrownBy(() -> slice.embed(new int[] {0}))
            .isInstanceOf(IllegalStateException.class);
        assertThatThrownBy(() -> slice.logits(new float[96], new int[] {0}))
            .isInstanceOf(IllegalStateException.class);
      }
    }
  }

  @Test
  void tokensOutsideTheVocabularyAreRefused() {
    List<LayerSlice> slices = Slices.load(file(WeightType.F32), 1, 64, 0);
    for (int token : new int[] {-1, TestModels.TIED.vocabularySize()}) {
      assertThatThrownBy(() -> slices.getFirst().embed(new int[] {token}))
          .isInstanceOfSatisfying(
              FlotillaException.class, e -> assertThat(e.code()).isEqualTo(Code.INVALID));
    }
    Slices.close(slices);
  }
}

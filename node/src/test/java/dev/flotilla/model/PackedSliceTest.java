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
    float[] wanted = Slices.run(whole, tokens, 1);
    Slices.close(whole);
    for (int[] firsts : new int[][] {{0}, {0, 1}, {0, 2}, {0, 1, 2}}) {
      List<LayerSlice> slices = Slices.load(file(type), 2, 64, firsts);
      for (int chunk : new int[] {1, 2, 7, 32, TOKENS}) {
        assertThat(Slices.run(slices, tokens, chunk))
            .as("%s, slices %s, chunk %d", type, Arrays.toString(firsts), chunk)
            .isEqualTo(wanted);
      }
      Slices.close(slices);
    }
  }

  @Test
  void rowsOfOtherSequencesInTheSameStepChangeNothing() {
    List<LayerSlice> slices = Slices.load(file(WeightType.Q8_0), 2, 1024, 0);
    LayerSlice slice = slices.getFirst();
    float[] wanted = Slices.run(slices, tokens, 1);
    Sequences cached = new Sequences(slice.blocks());
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
      slice.forward(hidden, cached.rows(sequences, positions));
      assertThat(slice.logits(hidden, new int[] {others}))
          .isEqualTo(Arrays.copyOfRange(wanted, t * vocabulary, (t + 1) * vocabulary));
    }
    Slices.close(slices);
  }

  @Test
  void aReplayAfterReleaseGivesTheSameBitsInReusedBlocks() {
    List<LayerSlice> slices = Slices.load(folder.resolve("untied"), 1, 64, 0, 2);
    Sequences cached = new Sequences(slices.getFirst().blocks());
    float[] wanted = Slices.run(slices, cached, 1, tokens, 7);
    cached.release(1);
    int[] other = Arrays.copyOf(tokens, 20);
    Arrays.setAll(other, i -> (other[i] + 17) % 300);
    Slices.run(slices, cached, 2, other, 3);
    cached.release(2);
    assertThat(Slices.run(slices, cached, 3, tokens, TOKENS)).isEqualTo(wanted);
    Slices.close(slices);
  }

  @Test
  void aBlockThatTheCacheDoesNotHaveIsRefused() {
    List<LayerSlice> slices = Slices.load(file(WeightType.F32), 1, 64, 0);
    LayerSlice slice = slices.getFirst();
    assertThat(slice.blocks()).isEqualTo(2);
    for (int block : new int[] {-1, 2}) {
      Rows rows = new Rows(List.of(new Rows.Run(new int[] {0, block}, 32, 1, false)));
      assertThatThrownBy(() -> slice.forward(new float[WIDTH], rows))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining("block " + block);
    }
    assertThatThrownBy(() -> new Rows.Run(new int[] {0}, 31, 2, false))
        .isInstanceOf(IllegalArgumentException.class);
    Slices.close(slices);
  }

  @ParameterizedTest
  @EnumSource(KvFormat.class)
  void aPromptInTheCacheOfAnotherSequenceChangesNoBit(KvFormat kv) {
    int[] prompt = new Random(SEED).ints(200, 0, TestModels.TIED.vocabularySize()).toArray();
    try (GgufFile source = GgufFile.open(file(WeightType.Q8_0));
        LayerSlice slice = PackedSlice.load(source, new LayerRange(0, 2), 2, kv, 1024)) {
      int[] first = {5, 3, 8, 1, 0, 2, 4};
      float[] wanted = prompt(slice, prompt, first, 0);
      // Six blocks are there already, and the seventh begins in the middle of a chunk.
      int[] second = {5, 3, 8, 1, 0, 2, 9};
      assertThat(prompt(slice, prompt, second, 192)).isEqualTo(wanted);
      assertThat(prompt(slice, prompt, new int[] {5, 3, 11, 12, 13, 14, 15}, 64)).isEqualTo(wanted);
    }
  }

  /** Computes a prompt from a position on, in these blocks; the last row's logits. */
  private static float[] prompt(LayerSlice slice, int[] tokens, int[] blocks, int from) {
    float[] logits = new float[0];
    for (int at = from; at < tokens.length; ) {
      int end = Math.min(tokens.length, (at / Rows.CHUNK + 1) * Rows.CHUNK);
      float[] hidden = slice.embed(Arrays.copyOfRange(tokens, at, end));
      slice.forward(hidden, new Rows(List.of(new Rows.Run(blocks, at, end - at, true))));
      logits = slice.logits(hidden, new int[] {end - at - 1});
      at = end;
    }
    return logits;
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
          LayerSlice slice =
              PackedSlice.load(onlyMiddle, new LayerRange(1, 1), 1, KvFormat.F32, 32)) {
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

package dev.flotilla.model;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import dev.flotilla.tensor.WeightType;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.CyclicBarrier;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** Slices that share out every layer, beside one that has all of it. */
@Timeout(120)
final class TensorShareTest {

  private static final int VOCABULARY = 300;

  @TempDir Path folder;

  /** Ranks that meet in memory, and add in their order. */
  private static final class Meeting {
    private final CyclicBarrier barrier;
    private final float[][] parts;

    Meeting(int ranks) {
      barrier = new CyclicBarrier(ranks);
      parts = new float[ranks][];
    }

    AllReduce of(int rank) {
      return values -> {
        parts[rank] = values.clone();
        meet();
        for (int i = 0; i < values.length; i++) {
          values[i] = parts[0][i];
          for (int other = 1; other < parts.length; other++) {
            values[i] += parts[other][i];
          }
        }
        meet();
      };
    }

    private void meet() {
      try {
        barrier.await();
      } catch (Exception e) {
        throw new IllegalStateException(e);
      }
    }
  }

  private static ModelConfig shape(Architecture architecture, int heads, int kvHeads, int inner) {
    boolean mixture = architecture == Architecture.QWEN3_MOE;
    Variant variant =
        switch (architecture) {
          case QWEN3_MOE -> new Variant(0, 0, 0, 0, Stretch.NONE, 0, 0, 0, 4, 2);
          case GEMMA2 -> new Variant(64, 2, 0, 0, Stretch.NONE, 0, 50, 30, 0, 0);
          case GEMMA3 -> new Variant(64, 6, 10_000, 0, Stretch.NONE, 0, 0, 0, 0, 0);
          default -> Variant.PLAIN;
        };
    boolean tied = architecture == Architecture.GEMMA2 || architecture == Architecture.GEMMA3;
    return new ModelConfig(
        architecture,
        VOCABULARY,
        64,
        3,
        heads,
        kvHeads,
        16,
        mixture ? inner / 2 : inner,
        512,
        10_000,
        1e-5f,
        tied,
        variant);
  }

  /** Logits after a prompt and after each of a few tokens more, one behind the other. */
  private static List<float[]> whole(Path file, int[] prompt, int[] more) {
    try (GgufFile source = GgufFile.open(file);
        LayerSlice slice = PackedSlice.load(source, new LayerRange(0, 2), 1, KvFormat.F32, 256)) {
      return steps(slice, prompt, more);
    }
  }

  private static List<float[]> steps(LayerSlice slice, int[] prompt, int[] more) {
    Sequences sequences = new Sequences(slice.blocks());
    List<float[]> logits = new ArrayList<>();
    float[] hidden = slice.embed(prompt);
    slice.forward(hidden, sequences.prompt(1, prompt.length));
    logits.add(slice.logits(hidden, new int[] {prompt.length - 1}));
    for (int i = 0; i < more.length; i++) {
      hidden = slice.embed(new int[] {more[i]});
      slice.forward(hidden, sequences.rows(new long[] {1}, new int[] {prompt.length + i}));
      logits.add(slice.logits(hidden, new int[] {0}));
    }
    return logits;
  }

  private static List<float[]> shared(
      Path file, List<Integer> heads, List<Integer> inner, int[] prompt, int[] more)
      throws Exception {
    int ranks = heads.size();
    Meeting meeting = new Meeting(ranks);
    List<LayerSlice> slices = new ArrayList<>();
    try (GgufFile source = GgufFile.open(file);
        ExecutorService pool = Executors.newFixedThreadPool(ranks)) {
      for (TensorShare share : TensorShare.of(heads, inner)) {
        slices.add(
            PackedSlice.load(
                source,
                new LayerRange(0, 2),
                2,
                KvFormat.F32,
                256,
                share,
                meeting.of(share.rank())));
      }
      List<Future<?>> following = new ArrayList<>();
      // What the first one embeds, the others are given.
      List<float[]> given = new ArrayList<>();
      given.add(slices.getFirst().embed(prompt));
      for (int token : more) {
        given.add(slices.getFirst().embed(new int[] {token}));
      }
      for (LayerSlice slice : slices.subList(1, ranks)) {
        List<float[]> own = given.stream().map(float[]::clone).toList();
        following.add(
            pool.submit(
                () -> {
                  Sequences sequences = new Sequences(slice.blocks());
                  slice.forward(own.getFirst(), sequences.prompt(1, prompt.length));
                  for (int i = 0; i < more.length; i++) {
                    slice.forward(
                        own.get(i + 1),
                        sequences.rows(new long[] {1}, new int[] {prompt.length + i}));
                  }
                }));
      }
      List<float[]> logits = steps(slices.getFirst(), prompt, more);
      for (Future<?> one : following) {
        one.get();
      }
      return logits;
    } finally {
      slices.forEach(LayerSlice::close);
    }
  }

  private static double difference(List<float[]> a, List<float[]> b) {
    double largest = 0;
    for (int i = 0; i < a.size(); i++) {
      for (int j = 0; j < a.get(i).length; j++) {
        largest = Math.max(largest, Math.abs(a.get(i)[j] - b.get(i)[j]));
      }
    }
    return largest;
  }

  private static int[] tokens(Random random, int count) {
    return random.ints(count, 0, VOCABULARY).toArray();
  }

  @ParameterizedTest
  @EnumSource(Architecture.class)
  void sharesOfEveryArchitectureAddUpToTheWhole(Architecture architecture) throws Exception {
    long seed = System.nanoTime();
    Random random = new Random(seed);
    Path file = folder.resolve("m.gguf");
    RandomModel.write(file, shape(architecture, 6, 3, 192), WeightType.F32, 3);
    int inner = shape(architecture, 6, 3, 192).feedForward();
    int[] prompt = tokens(random, 40);
    int[] more = tokens(random, 4);
    List<float[]> whole = whole(file, prompt, more);
    String what = architecture + ", seed " + seed;
    List<float[]> two = shared(file, List.of(1, 2), List.of(inner - 32, 32), prompt, more);
    assertThat(difference(two, whole)).as(what).isLessThan(2e-4);
    List<float[]> three = shared(file, List.of(1, 1, 1), List.of(32, inner - 64, 32), prompt, more);
    assertThat(difference(three, whole)).as(what).isLessThan(2e-4);
    // The same shares have the same bits each time.
    assertThat(difference(shared(file, List.of(1, 2), List.of(inner - 32, 32), prompt, more), two))
        .as(what)
        .isZero();
    // A share that is left out is missed.
    assertThat(difference(shared(file, List.of(3), List.of(inner), prompt, more), whole)).isZero();
    assertThat(difference(shared(file, List.of(2), List.of(inner), prompt, more), whole))
        .isGreaterThan(1e-2);
  }

  @ParameterizedTest
  @EnumSource(WeightType.class)
  void columnsAreCutBetweenBlocks(WeightType type) throws Exception {
    Random random = new Random(11);
    Path file = folder.resolve("m.gguf");
    ModelConfig config =
        new ModelConfig(VOCABULARY, 256, 3, 8, 2, 64, 768, 512, 10_000, 1e-5f, false);
    RandomModel.write(file, config, type, 3);
    int[] prompt = tokens(random, 20);
    List<float[]> whole = whole(file, prompt, new int[] {5});
    // In 8 bits a sum that differs in its last bits may be rounded to the next step.
    assertThat(
            difference(
                shared(file, List.of(1, 1), List.of(512, 256), prompt, new int[] {5}), whole))
        .isLessThan(type.integers() ? 0.1 : 1e-3);
    if (type.blockElements() > 1) {
      assertThatThrownBy(() -> shared(file, List.of(1, 1), List.of(760, 8), prompt, new int[] {5}))
          .isInstanceOfSatisfying(
              FlotillaException.class,
              e -> assertThat(e.code()).isEqualTo(FlotillaException.Code.INVALID))
          .hasMessageContaining("whole blocks");
    }
  }

  @Test
  void theRanksHaveEveryHeadAndElementOnce() {
    List<TensorShare> shares = TensorShare.of(List.of(1, 3, 2), List.of(32, 64, 96));
    assertThat(shares).extracting(TensorShare::firstHead).containsExactly(0, 1, 4);
    assertThat(shares).extracting(TensorShare::firstInner).containsExactly(0, 32, 96);
    assertThat(shares).extracting(TensorShare::rank).containsExactly(0, 1, 2);
  }
}

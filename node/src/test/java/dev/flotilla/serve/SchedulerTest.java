package dev.flotilla.serve;

import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.FlotillaException;
import dev.flotilla.model.LayerRange;
import dev.flotilla.model.Pooling;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.Optional;
import java.util.Random;
import org.junit.jupiter.api.Test;

final class SchedulerTest {

  /** Runs batches through one stage after another, and delivers with the delay of a chain. */
  private static final class Chain {
    final List<Stage> stages = new ArrayList<>();
    final List<ToySlice> slices = new ArrayList<>();
    final Deque<Runnable> returning = new ArrayDeque<>();
    final Scheduler scheduler;
    int steps;

    Chain(Scheduler.Limits limits) {
      scheduler = new Scheduler(limits);
      int per = 6 / limits.depth();
      for (int i = 0; i < limits.depth(); i++) {
        int last = i == limits.depth() - 1 ? 5 : (i + 1) * per - 1;
        ToySlice slice = new ToySlice(new LayerRange(i * per, last), limits.cachePositions(), 0);
        slices.add(slice);
        stages.add(new Stage(slice));
      }
    }

    /** One turn; false when there is nothing left to do. */
    boolean turn(Random random) {
      Optional<Batch> batch = scheduler.schedule();
      batch.ifPresent(
          b -> {
            steps++;
            float[] hidden = stages.get(0).embed(b.tokens());
            for (Stage stage : stages) {
              stage.forward(hidden, b.sequences(), b.positions(), b.releases());
            }
            Stage last = stages.get(stages.size() - 1);
            int[] tokens = last.draw(hidden, b.draws());
            List<float[]> vectors = last.pool(hidden, b.sequences(), b.positions(), b.pools());
            returning.add(() -> scheduler.deliver(b.number(), tokens, vectors));
          });
      if (!returning.isEmpty() && (batch.isEmpty() || random.nextBoolean())) {
        returning.poll().run();
        return true;
      }
      return batch.isPresent();
    }
  }

  private static final class Heard implements Scheduler.Listener {
    final List<Integer> tokens = new ArrayList<>();
    String end = "";
    float[] vector = new float[0];
    int expectedPosition;

    Heard(int prompt) {
      expectedPosition = prompt;
    }

    @Override
    public void accepted() {}

    @Override
    public void token(int position, int token) {
      assertThat(end).isEmpty();
      assertThat(position).isEqualTo(expectedPosition++);
      tokens.add(token);
    }

    @Override
    public void finished(Generator.FinishReason reason) {
      assertThat(end).isEmpty();
      end = reason.name();
    }

    @Override
    public void embedded(float[] result) {
      assertThat(end).isEmpty();
      end = "EMBEDDED";
      vector = result;
    }

    @Override
    public void failed(FlotillaException error) {
      assertThat(end).isEmpty();
      end = error.code().name();
    }
  }

  private static Scheduler.Limits limits(int rows, int positions, int depth) {
    return new Scheduler.Limits(rows, Math.max(1, rows / 2), 100, positions, 200, depth);
  }

  private static Scheduler.Submission submission(
      String id, int[] prompt, SamplingParameters sampling, int maxTokens, int... endTokens) {
    return new Scheduler.Submission(
        id, prompt, new Scheduler.Continue(sampling, maxTokens, endTokens));
  }

  @Test
  void tokensDoNotDependOnBatchesChunksDepthOrEvictions() {
    long seed = System.nanoTime();
    Random random = new Random(seed);
    for (int round = 0; round < 60; round++) {
      int depth = 1 + random.nextInt(3);
      // From ample caches to ones in which sequences evict each other.
      int positions = random.nextBoolean() ? 2048 : 224 + 32 * random.nextInt(4);
      Chain chain = new Chain(limits(1 + random.nextInt(64), positions, depth));
      String what = "seed " + seed + " round " + round;
      int count = 1 + random.nextInt(12);
      List<int[]> prompts = new ArrayList<>();
      List<SamplingParameters> samplings = new ArrayList<>();
      List<Heard> heard = new ArrayList<>();
      List<Integer> lengths = new ArrayList<>();
      for (int i = 0; i < count; i++) {
        int[] prompt = random.ints(1 + random.nextInt(100), 0, 97).toArray();
        SamplingParameters sampling =
            random.nextBoolean()
                ? SamplingParameters.GREEDY
                : new SamplingParameters(0.8f, 0.95f, 50, random.nextLong());
        prompts.add(prompt);
        samplings.add(sampling);
        heard.add(new Heard(prompt.length));
        lengths.add(1 + random.nextInt(80));
      }
      int next = 0;
      while (next < count || chain.turn(random)) {
        if (next < count && random.nextInt(3) == 0) {
          chain.scheduler.submit(
              submission("r" + next, prompts.get(next), samplings.get(next), lengths.get(next)),
              heard.get(next));
          next++;
        } else if (next < count) {
          chain.turn(random);
        }
      }
      for (int i = 0; i < count; i++) {
        assertThat(heard.get(i).end).as(what).isEqualTo("LENGTH");
        assertThat(heard.get(i).tokens)
            .as(what)
            .isEqualTo(ToySlice.expected(prompts.get(i), samplings.get(i), lengths.get(i)));
      }
      assertThat(chain.scheduler.freePositions()).as(what).isEqualTo(positions);
      for (ToySlice slice : chain.slices) {
        assertThat(slice.freePositions()).as(what).isEqualTo(positions);
      }
    }
  }

  @Test
  void embeddingsDoNotDependOnBatchesChunksDepthOrEvictions() {
    long seed = System.nanoTime();
    Random random = new Random(seed);
    for (int round = 0; round < 60; round++) {
      int depth = 1 + random.nextInt(3);
      int positions = random.nextBoolean() ? 2048 : 224 + 32 * random.nextInt(4);
      Chain chain = new Chain(limits(1 + random.nextInt(64), positions, depth));
      String what = "seed " + seed + " round " + round;
      List<int[]> texts = new ArrayList<>();
      List<Pooling> poolings = new ArrayList<>();
      List<Heard> heard = new ArrayList<>();
      for (int i = 0; i < 1 + random.nextInt(12); i++) {
        texts.add(random.ints(1 + random.nextInt(200), 0, 97).toArray());
        poolings.add(List.of(Pooling.values()).get(random.nextInt(3)));
        heard.add(new Heard(0));
        chain.scheduler.submit(
            new Scheduler.Submission("e" + i, texts.get(i), new Scheduler.Embed(poolings.get(i))),
            heard.get(i));
        Heard beside = new Heard(20);
        chain.scheduler.submit(
            submission("g" + i, new int[20], SamplingParameters.GREEDY, 50), beside);
        if (random.nextInt(4) == 0) {
          chain.turn(random);
          chain.scheduler.cancel("g" + i);
        }
      }
      while (chain.turn(random)) {}
      for (int i = 0; i < heard.size(); i++) {
        assertThat(heard.get(i).end).as(what).isEqualTo("EMBEDDED");
        assertThat(heard.get(i).vector)
            .as(what)
            .isEqualTo(ToySlice.embedding(texts.get(i), poolings.get(i)));
      }
      for (ToySlice slice : chain.slices) {
        assertThat(slice.freePositions()).as(what).isEqualTo(positions);
      }
    }
  }

  @Test
  void aTextToEmbedMayFillTheContextAndNoMore() {
    Chain chain = new Chain(limits(64, 320, 1));
    Heard whole = new Heard(0);
    Heard longer = new Heard(0);
    Scheduler.Embed mean = new Scheduler.Embed(Pooling.MEAN);
    chain.scheduler.submit(new Scheduler.Submission("a", new int[200], mean), whole);
    chain.scheduler.submit(new Scheduler.Submission("b", new int[201], mean), longer);
    while (chain.turn(new Random(3))) {}
    assertThat(whole.end).isEqualTo("EMBEDDED");
    assertThat(longer.end).isEqualTo("INVALID");
  }

  @Test
  void whoDecodesIsNotHeldUpByALongPrompt() {
    Chain chain = new Chain(limits(16, 2048, 1));
    Random never = new Random(1);
    Heard first = new Heard(1);
    chain.scheduler.submit(
        submission("first", new int[] {5}, SamplingParameters.GREEDY, 30), first);
    chain.turn(never);
    chain.scheduler.submit(
        submission("long", new int[150], SamplingParameters.GREEDY, 10), new Heard(150));
    while (chain.turn(never)) {}
    // Had the long prompt come first, ten steps would have passed without a token.
    assertThat(first.tokens).hasSize(30);
    assertThat(chain.steps).isLessThanOrEqualTo(33);
  }

  @Test
  void anEndTokenEndsWithoutBeingDelivered() {
    List<Integer> expected = ToySlice.expected(new int[] {1, 2}, SamplingParameters.GREEDY, 20);
    int end = expected.get(7);
    int first = expected.indexOf(end);
    Chain chain = new Chain(limits(16, 512, 2));
    Heard heard = new Heard(2);
    chain.scheduler.submit(
        submission("a", new int[] {1, 2}, SamplingParameters.GREEDY, 20, end), heard);
    while (chain.turn(new Random(3))) {}
    assertThat(heard.end).isEqualTo("STOP");
    assertThat(heard.tokens).isEqualTo(expected.subList(0, first));
  }

  @Test
  void theContextsEndIsALength() {
    Chain chain = new Chain(limits(64, 320, 1));
    Heard heard = new Heard(190);
    chain.scheduler.submit(submission("a", new int[190], SamplingParameters.GREEDY, 1000), heard);
    while (chain.turn(new Random(3))) {}
    assertThat(heard.end).isEqualTo("LENGTH");
    assertThat(heard.tokens).hasSize(10);
  }

  @Test
  void cancellingFreesPositionsEvenWithATokenOnItsWay() {
    Chain chain = new Chain(limits(16, 512, 3));
    Heard heard = new Heard(3);
    chain.scheduler.submit(submission("a", new int[3], SamplingParameters.GREEDY, 100), heard);
    Optional<Batch> batch = chain.scheduler.schedule();
    chain.scheduler.cancel("a");
    assertThat(heard.end).isEqualTo("CANCELLED");
    chain.scheduler.deliver(batch.orElseThrow().number(), new int[] {4}, List.of());
    assertThat(heard.tokens).isEmpty();
    Batch release = chain.scheduler.schedule().orElseThrow();
    assertThat(release.rows()).isZero();
    assertThat(release.releases()).hasSize(1);
    assertThat(chain.scheduler.freePositions()).isEqualTo(512);
    chain.scheduler.cancel("a");
    chain.scheduler.cancel("unknown");
  }

  @Test
  void theQueueIsBoundedAndTooLongPromptsAreRefusedWithBothNumbers() {
    Scheduler scheduler = new Scheduler(new Scheduler.Limits(16, 8, 2, 512, 200, 1));
    List<Heard> heard = new ArrayList<>();
    for (int i = 0; i < 4; i++) {
      heard.add(new Heard(1));
      scheduler.submit(submission("r" + i, new int[1], SamplingParameters.GREEDY, 5), heard.get(i));
    }
    assertThat(heard).extracting(h -> h.end).containsExactly("", "", "BUSY", "BUSY");
    Optional<Batch> _ = scheduler.schedule();
    assertThat(Scheduler.tooLong(201, 200, 199))
        .hasMessageContaining("201")
        .hasMessageContaining("200");
    Heard tooLong = new Heard(0);
    scheduler.submit(submission("long", new int[200], SamplingParameters.GREEDY, 5), tooLong);
    assertThat(tooLong.end).isEqualTo("INVALID");
  }

  @Test
  void severalSequencesAreSpreadOverTheStepsInFlight() {
    Chain chain = new Chain(limits(64, 512, 3));
    for (int i = 0; i < 6; i++) {
      chain.scheduler.submit(
          submission("r" + i, new int[] {i}, SamplingParameters.GREEDY, 5), new Heard(1));
    }
    for (int i = 0; i < 3; i++) {
      assertThat(chain.scheduler.schedule().orElseThrow().rows()).isEqualTo(2);
    }
    assertThat(chain.scheduler.schedule()).isEmpty();
  }

  @Test
  void whenTheCachesAreLostEveryoneHearsOfItAndLateStepsCountNoMore() {
    Chain chain = new Chain(limits(64, 512, 2));
    Heard heard = new Heard(1);
    chain.scheduler.submit(submission("a", new int[] {1}, SamplingParameters.GREEDY, 5), heard);
    Batch lost = chain.scheduler.schedule().orElseThrow();
    chain.scheduler.fail(new FlotillaException(FlotillaException.Code.UNAVAILABLE, "lost", ""));
    chain.scheduler.deliver(lost.number(), new int[] {7}, List.of());
    assertThat(heard.end).isEqualTo("UNAVAILABLE");
    assertThat(heard.tokens).isEmpty();
    assertThat(chain.scheduler.freePositions()).isEqualTo(512);
  }
}

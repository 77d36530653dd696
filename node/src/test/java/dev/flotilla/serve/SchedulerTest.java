package dev.flotilla.serve;

import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.FlotillaException;
import dev.flotilla.model.LayerRange;
import dev.flotilla.model.Pooling;
import dev.flotilla.text.Grammar;
import dev.flotilla.text.TokenConstraint;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Deque;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.Set;
import org.junit.jupiter.api.Test;

final class SchedulerTest {

  private static final List<Priority> PRIORITIES = List.of(Priority.values());

  private static final TokenConstraint HELD =
      new TokenConstraint(
          Grammar.parse(
              """
              root ::= "(" (item (", " item)*)? ")"
              item ::= [a-h]+ [0-9]{0,3} | root
              """),
          ToySlice.VOCABULARY,
          ToySlice.END);

  /** Runs batches through one stage after another, and delivers with the delay of a chain. */
  private static final class Chain {
    final List<Stage> stages = new ArrayList<>();
    final List<ToySlice> slices = new ArrayList<>();
    final Deque<Runnable> returning = new ArrayDeque<>();
    final Scheduler scheduler;
    int steps;

    Chain(Scheduler.Limits limits) {
      this(limits, Drafter.NONE);
    }

    Chain(Scheduler.Limits limits, Drafter drafter) {
      scheduler = new Scheduler(limits, drafter, 6);
      int per = 6 / limits.depth();
      for (int i = 0; i < limits.depth(); i++) {
        int last = i == limits.depth() - 1 ? 5 : (i + 1) * per - 1;
        ToySlice slice =
            new ToySlice(new LayerRange(i * per, last), limits.blocks() * 32, limits.chunk(), 0);
        slices.add(slice);
        stages.add(new Stage(slice, () -> {}));
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
              stage.forward(hidden, b.rows());
            }
            Stage last = stages.get(stages.size() - 1);
            int[] tokens = last.draw(hidden, b.draws());
            List<float[]> vectors = last.pool(hidden, b.pools(), b.releases());
            returning.add(() -> scheduler.deliver(b.number(), tokens, vectors));
          });
      if (!returning.isEmpty() && (batch.isEmpty() || random.nextBoolean())) {
        returning.poll().run();
        return true;
      }
      return batch.isPresent();
    }
  }

  private static class Heard implements Scheduler.Listener {
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
    return limits(rows, 32, positions, depth);
  }

  private static Scheduler.Limits limits(int rows, int chunk, int positions, int depth) {
    return new Scheduler.Limits(
        rows, rows, 4 * chunk, chunk, Math.max(1, rows / 2), 100, positions / 32, 200, depth);
  }

  private static Scheduler.Submission submission(
      String id, int[] prompt, SamplingParameters sampling, int maxTokens, int... endTokens) {
    return submission(id, Claim.NOBODY, prompt, sampling, maxTokens, endTokens);
  }

  private static Scheduler.Submission submission(
      String id,
      Claim claim,
      int[] prompt,
      SamplingParameters sampling,
      int maxTokens,
      int... endTokens) {
    return new Scheduler.Submission(
        id,
        prompt,
        prompt.length,
        claim,
        new Scheduler.Continue(sampling, maxTokens, endTokens, Optional.empty()));
  }

  private static int free(Scheduler scheduler) {
    return scheduler.ledger().available() * 32;
  }

  /** Requests of one round: some begin alike, as conversations do. */
  private static final class Round {
    final List<int[]> prompts = new ArrayList<>();
    final List<SamplingParameters> samplings = new ArrayList<>();
    final List<Heard> heard = new ArrayList<>();
    final List<Integer> lengths = new ArrayList<>();
    final List<Integer> given = new ArrayList<>();
    final List<Optional<TokenConstraint>> grammars = new ArrayList<>();
    final List<List<Integer>> expected = new ArrayList<>();

    Round(Random random, int count) {
      int[] common = random.ints(120, 0, 97).toArray();
      for (int i = 0; i < count; i++) {
        int[] prompt = random.ints(1 + random.nextInt(130), 0, 97).toArray();
        if (random.nextInt(3) > 0) {
          int alike = Math.min(prompt.length, random.nextInt(121));
          System.arraycopy(common, 0, prompt, 0, alike);
        }
        prompts.add(prompt);
        samplings.add(
            random.nextBoolean()
                ? SamplingParameters.GREEDY
                : new SamplingParameters(0.8f, 0.95f, 50, random.nextInt(3)));
        lengths.add(1 + random.nextInt(60));
        grammars.add(random.nextInt(3) == 0 ? Optional.of(HELD) : Optional.empty());
        expected.add(ToySlice.expected(prompt, samplings.get(i), lengths.get(i), grammars.get(i)));
        given.add(random.nextInt(4) == 0 ? random.nextInt(expected.get(i).size()) : 0);
        heard.add(new Heard(prompt.length + given.get(i)));
      }
    }

    boolean stops(int i) {
      return grammars.get(i).isPresent() && expected.get(i).getLast() == ToySlice.END;
    }

    /** All that its listener hears. */
    List<Integer> text(int i) {
      List<Integer> all = expected.get(i);
      return all.subList(given.get(i), stops(i) ? all.size() - 1 : all.size());
    }

    /** Some come with what another replica has generated before it was lost. */
    Scheduler.Submission submission(int i, Random random) {
      int[] prompt = prompts.get(i);
      int[] tokens = Arrays.copyOf(prompt, prompt.length + given.get(i));
      for (int j = 0; j < given.get(i); j++) {
        tokens[prompt.length + j] = expected.get(i).get(j);
      }
      Priority priority = PRIORITIES.get(random.nextInt(3));
      return new Scheduler.Submission(
          "r" + i,
          tokens,
          prompt.length,
          new Claim("tenant " + random.nextInt(3), priority),
          new Scheduler.Continue(
              samplings.get(i),
              lengths.get(i) - given.get(i),
              grammars.get(i).isPresent() ? new int[] {ToySlice.END} : new int[0],
              grammars.get(i).map(held -> GrammarState.of(held, tokens, prompt.length))));
    }
  }

  @Test
  void
      tokensDoNotDependOnBatchesDepthPrefixesEvictionsReplaysGuessesOrCancelsWithGrammarsOrWithout() {
    long seed = System.nanoTime();
    Random random = new Random(seed);
    long found = 0;
    long evictions = 0;
    long accepted = 0;
    long stopped = 0;
    for (int round = 0; round < 120; round++) {
      int depth = 1 + random.nextInt(4);
      // From ample caches to ones in which sequences evict each other.
      int positions = random.nextBoolean() ? 2048 : 224 + 32 * random.nextInt(4);
      int chunk = List.of(16, 32, 48, 64).get(random.nextInt(4));
      String what = "seed " + seed + " round " + round;
      int count = 1 + random.nextInt(12);
      Round requests = new Round(random, count);
      Chain chain =
          new Chain(
              limits(1 + random.nextInt(64), chunk, positions, depth),
              random.nextBoolean() ? Drafter.NONE : new Prophet(requests, random));
      Set<Integer> cancelled = new HashSet<>();
      int next = 0;
      while (next < count || chain.turn(random)) {
        if (next < count && random.nextInt(3) == 0) {
          chain.scheduler.submit(requests.submission(next, random), requests.heard.get(next));
          next++;
        } else if (next < count) {
          chain.turn(random);
        }
        if (next > 0 && random.nextInt(60) == 0) {
          int victim = random.nextInt(next);
          chain.scheduler.cancel("r" + victim);
          if (requests.heard.get(victim).end.equals("CANCELLED")) {
            cancelled.add(victim);
          }
        }
      }
      for (int i = 0; i < count; i++) {
        List<Integer> expected = requests.text(i);
        Heard heard = requests.heard.get(i);
        if (cancelled.contains(i)) {
          expected = expected.subList(0, heard.tokens.size());
        } else {
          assertThat(heard.end).as(what).isEqualTo(requests.stops(i) ? "STOP" : "LENGTH");
          stopped += requests.stops(i) ? 1 : 0;
        }
        assertThat(heard.tokens).as("%s request %d", what, i).isEqualTo(expected);
      }
      assertThat(free(chain.scheduler)).as(what).isEqualTo(positions);
      found += chain.scheduler.counts().foundTokens();
      evictions += chain.scheduler.counts().evictions();
      accepted += chain.scheduler.counts().acceptedTokens();
    }
    // Else the test would show less than it says.
    assertThat(found).isPositive();
    assertThat(evictions).isPositive();
    assertThat(accepted).isPositive();
    assertThat(stopped).isPositive();
  }

  /** Guesses that are now right, now wrong from somewhere on. */
  private record Prophet(Round requests, Random random) implements Drafter {

    @Override
    public List<int[]> draft(List<Context> contexts) {
      return contexts.stream().map(this::draft).toList();
    }

    private int[] draft(Context context) {
      for (int i = 0; i < requests.prompts.size(); i++) {
        int[] prompt = requests.prompts.get(i);
        int known = context.length() - prompt.length;
        if (known >= 0
            && context.sampling().equals(requests.samplings.get(i))
            && Arrays.equals(prompt, Arrays.copyOf(context.tokens(), prompt.length))) {
          List<Integer> expected = requests.expected.get(i);
          int count =
              Math.min(random.nextInt(context.most() + 1), Math.max(0, expected.size() - known));
          int wrong = random.nextInt(4);
          int[] guesses = new int[count];
          for (int j = 0; j < count; j++) {
            guesses[j] = j == wrong ? random.nextInt(97) : expected.get(known + j);
          }
          return guesses;
        }
      }
      return new int[0];
    }

    @Override
    public void forget(long sequence) {}

    @Override
    public void clear() {}
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
        chain.scheduler.submit(embedding("e" + i, texts.get(i), poolings.get(i)), heard.get(i));
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
      assertThat(free(chain.scheduler)).as(what).isEqualTo(positions);
    }
  }

  private static Scheduler.Submission embedding(String id, int[] text, Pooling pooling) {
    return new Scheduler.Submission(
        id, text, text.length, Claim.NOBODY, new Scheduler.Embed(pooling));
  }

  @Test
  void aTextToEmbedMayFillTheContextAndNoMore() {
    Chain chain = new Chain(limits(64, 320, 1));
    Heard whole = new Heard(0);
    Heard longer = new Heard(0);
    chain.scheduler.submit(embedding("a", new int[200], Pooling.MEAN), whole);
    chain.scheduler.submit(embedding("b", new int[201], Pooling.MEAN), longer);
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
  void whatTheGrammarDoesNotAllowIsNeverHeard() {
    Chain chain = new Chain(limits(16, 512, 1));
    int[] prompt = {1, 2};
    Heard heard = new Heard(2);
    chain.scheduler.submit(
        new Scheduler.Submission(
            "a",
            prompt,
            2,
            Claim.NOBODY,
            new Scheduler.Continue(
                SamplingParameters.GREEDY,
                20,
                new int[] {ToySlice.END},
                Optional.of(GrammarState.of(HELD, prompt, 2)))),
        heard);
    Batch batch = chain.scheduler.schedule().orElseThrow();
    assertThat(batch.draws().getFirst().allowed().orElseThrow().count()).isEqualTo(1);
    // As from a last stage that does not heed it.
    chain.scheduler.deliver(batch.number(), new int[] {'x' - ' '}, List.of());
    assertThat(heard.tokens).isEmpty();
    assertThat(heard.end).isEqualTo("FAILED");
    assertThat(free(chain.scheduler)).isEqualTo(512);
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
    assertThat(chain.scheduler.schedule()).isEmpty();
    assertThat(free(chain.scheduler)).isEqualTo(512);
    chain.scheduler.cancel("a");
    chain.scheduler.cancel("unknown");
  }

  @Test
  void aTextThatNobodyWantsToEmbedAnyMoreIsForgottenByTheLastStage() {
    Chain chain = new Chain(limits(16, 512, 1));
    chain.scheduler.submit(embedding("a", new int[100], Pooling.MEAN), new Heard(0));
    Batch begun = chain.scheduler.schedule().orElseThrow();
    chain.scheduler.cancel("a");
    chain.scheduler.deliver(begun.number(), new int[0], List.of(new float[] {1}));
    Batch release = chain.scheduler.schedule().orElseThrow();
    assertThat(release.rows().count()).isZero();
    assertThat(release.releases()).containsExactly(begun.pools().getFirst().sequence());
  }

  @Test
  void aPromptThatWasThereBeforeIsNotComputedAgain() {
    Chain chain = new Chain(limits(16, 512, 1));
    int[] prompt = new Random(4).ints(96, 0, 97).toArray();
    for (int i = 0; i < 2; i++) {
      Heard heard = new Heard(96);
      chain.scheduler.submit(submission("r" + i, prompt, SamplingParameters.GREEDY, 40), heard);
      while (chain.turn(new Random(3))) {}
      assertThat(heard.tokens).isEqualTo(ToySlice.expected(prompt, SamplingParameters.GREEDY, 40));
      // Of three full blocks the last must be computed: its last row has the logits.
      assertThat(chain.slices.getFirst().rows.get()).isEqualTo(i == 0 ? 135 : 135 + 135 - 64);
    }
    assertThat(chain.scheduler.counts().foundTokens()).isEqualTo(64);
  }

  @Test
  void whatWasGeneratedIsFoundByItsReplayAndNotByAPrompt() {
    int[] prompt = new Random(4).ints(64, 0, 97).toArray();
    List<Integer> generated = ToySlice.expected(prompt, SamplingParameters.GREEDY, 70);
    int[] both = Arrays.copyOf(prompt, 134);
    for (int i = 0; i < 70; i++) {
      both[64 + i] = generated.get(i);
    }
    Scheduler.Goal ten =
        new Scheduler.Continue(SamplingParameters.GREEDY, 10, new int[0], Optional.empty());
    for (int prompts : new int[] {64, 134}) {
      Chain chain = new Chain(limits(16, 512, 1));
      chain.scheduler.submit(
          submission("first", prompt, SamplingParameters.GREEDY, 70), new Heard(64));
      while (chain.turn(new Random(3))) {}
      Heard again = new Heard(134);
      chain.scheduler.submit(
          new Scheduler.Submission("again", both, prompts, Claim.NOBODY, ten), again);
      while (chain.turn(new Random(3))) {}
      boolean replay = prompts == 64;
      // The last token's keys were never computed: 133 positions, of which 128 in full blocks.
      assertThat(chain.scheduler.counts().foundTokens()).isEqualTo(replay ? 128 : 64);
      assertThat(again.tokens)
          .isEqualTo(
              replay
                  ? ToySlice.expected(prompt, SamplingParameters.GREEDY, 80).subList(70, 80)
                  : ToySlice.expected(both, SamplingParameters.GREEDY, 10));
    }
  }

  @Test
  void whoComesTogetherWithTheSamePromptSharesTheWork() {
    Chain chain = new Chain(limits(16, 2048, 1));
    int[] prompt = new Random(4).ints(160, 0, 97).toArray();
    List<Heard> heard = new ArrayList<>();
    for (int i = 0; i < 4; i++) {
      heard.add(new Heard(160));
      chain.scheduler.submit(
          submission("r" + i, prompt, SamplingParameters.GREEDY, 1), heard.get(i));
    }
    while (chain.turn(new Random(3))) {}
    for (Heard one : heard) {
      assertThat(one.tokens).isEqualTo(ToySlice.expected(prompt, SamplingParameters.GREEDY, 1));
    }
    assertThat(chain.slices.getFirst().rows.get()).isEqualTo(160 + 3 * 32);
  }

  @Test
  void whatIsOnlyKeptGivesWayToWhatIsComputedTheEndOfATextFirst() {
    Chain chain = new Chain(limits(16, 256, 1));
    int[] first = new Random(4).ints(97, 0, 97).toArray();
    int[] second = new Random(5).ints(190, 0, 97).toArray();
    for (int[] prompt : List.of(first, second, first)) {
      chain.scheduler.submit(
          submission("r", prompt, SamplingParameters.GREEDY, 1), new Heard(prompt.length));
      while (chain.turn(new Random(3))) {}
    }
    // Of the eight blocks the second took six; of the first's three, two were left.
    assertThat(chain.scheduler.counts().foundTokens()).isEqualTo(64);
    assertThat(chain.scheduler.ledger().held()).isZero();
  }

  @Test
  void tenantsGetEqualSharesHoweverManyRequestsTheyHave() {
    Scheduler.Limits few = new Scheduler.Limits(16, 16, 128, 32, 2, 100, 64, 200, 1);
    Chain chain = new Chain(few);
    List<String> order = new ArrayList<>();
    for (int i = 0; i < 24; i++) {
      String tenant = i < 18 ? "many" : "few";
      chain.scheduler.submit(
          submission(
              tenant + i,
              new Claim(tenant, Priority.NORMAL),
              new Random(i).ints(40, 0, 97).toArray(),
              SamplingParameters.GREEDY,
              10),
          new Heard(40) {
            @Override
            public void finished(Generator.FinishReason reason) {
              order.add(tenant);
            }
          });
    }
    while (chain.turn(new Random(3))) {}
    assertThat(order).hasSize(24);
    // While both have some, neither is more than two ahead; two run at a time.
    for (int end = 1; end <= 12; end++) {
      long fews = order.subList(0, end).stream().filter("few"::equals).count();
      assertThat(Math.abs(2 * fews - end)).as("%s", order).isLessThanOrEqualTo(3);
    }
  }

  @Test
  void whoIsMoreUrgentGetsMoreButNotAll() {
    Scheduler.Limits few = new Scheduler.Limits(16, 16, 128, 32, 1, 100, 64, 200, 1);
    Chain chain = new Chain(few);
    List<Priority> order = new ArrayList<>();
    for (int i = 0; i < 60; i++) {
      Priority priority = PRIORITIES.get(i % 3);
      chain.scheduler.submit(
          submission(
              "r" + i,
              new Claim("one " + i % 3, priority),
              new Random(i).ints(40, 0, 97).toArray(),
              SamplingParameters.GREEDY,
              1),
          new Heard(40) {
            @Override
            public void finished(Generator.FinishReason reason) {
              order.add(priority);
            }
          });
    }
    while (chain.turn(new Random(3))) {}
    List<Priority> first = order.subList(0, 21);
    assertThat(first).filteredOn(p -> p == Priority.HIGH).hasSizeBetween(14, 17);
    assertThat(first).filteredOn(p -> p == Priority.NORMAL).hasSizeBetween(3, 5);
    assertThat(first).filteredOn(p -> p == Priority.LOW).hasSizeBetween(1, 2);
  }

  @Test
  void whenMemoryIsShortTheLeastUrgentGivesWay() {
    Chain chain = new Chain(limits(16, 256, 1));
    Heard low = new Heard(60);
    Heard high = new Heard(60);
    int[] prompt = new int[60];
    Claim claim = new Claim("a", Priority.LOW);
    chain.scheduler.submit(submission("low", claim, prompt, SamplingParameters.GREEDY, 100), low);
    chain.turn(new Random(3));
    chain.scheduler.submit(
        submission(
            "high",
            new Claim("a", Priority.HIGH),
            new Random(7).ints(60, 0, 97).toArray(),
            SamplingParameters.GREEDY,
            100),
        high);
    while (high.end.isEmpty()) {
      chain.turn(new Random(3));
    }
    assertThat(chain.scheduler.counts().evictions()).isEqualTo(1);
    assertThat(low.end).isEmpty();
    while (chain.turn(new Random(3))) {}
    assertThat(low.tokens).isEqualTo(ToySlice.expected(prompt, SamplingParameters.GREEDY, 100));
  }

  @Test
  void theQueueIsBoundedAndTooLongPromptsAreRefusedWithBothNumbers() {
    Scheduler scheduler =
        new Scheduler(new Scheduler.Limits(16, 16, 128, 32, 8, 4, 16, 200, 1), Drafter.NONE, 6);
    List<Heard> heard = new ArrayList<>();
    for (int i = 0; i < 7; i++) {
      heard.add(new Heard(1));
      // One tenant gets three of four places; the last one is for another.
      Claim claim = new Claim(i < 4 ? "a" : "b", PRIORITIES.get(i % 3));
      scheduler.submit(
          submission("r" + i, claim, new int[1], SamplingParameters.GREEDY, 5), heard.get(i));
    }
    assertThat(heard)
        .extracting(h -> h.end)
        .containsExactly("", "", "", "BUSY", "", "BUSY", "BUSY");
    assertThat(scheduler.waitingByTenant()).isEqualTo(Map.of("a", 3, "b", 1));
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
      assertThat(chain.scheduler.schedule().orElseThrow().rows().count()).isEqualTo(2);
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
    assertThat(free(chain.scheduler)).isEqualTo(512);
  }
}

package dev.flotilla.serve;

import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.FlotillaException;
import dev.flotilla.model.LayerRange;
import dev.flotilla.serve.BlockCopies.Verdict;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;

/**
 * Two replicas, each a scheduler and its stages, and the way between them, which the test makes as
 * slow as it likes. No network, clock or thread.
 */
final class BlockCopiesTest {

  private static final int LAYERS = 6;
  private static final SamplingParameters SEEDED = new SamplingParameters(0.9f, 0.95f, 40, 99);

  private record Sent(List<Integer> all) implements Scheduler.Listener {

    @Override
    public void accepted() {}

    @Override
    public void token(int position, int token) {
      assertThat(position).isEqualTo(all.size());
      all.add(token);
    }

    @Override
    public void finished(Generator.FinishReason reason) {}

    @Override
    public void embedded(float[] vector) {}

    @Override
    public void failed(FlotillaException error) {}
  }

  private static final class Replica {
    final Scheduler scheduler;
    final List<Stage> stages = new ArrayList<>();
    final Deque<Runnable> returning = new ArrayDeque<>();
    final Deque<BlockPart> exported = new ArrayDeque<>();
    final Map<String, List<Integer>> texts = new HashMap<>();

    Replica(int depth, int blocks, int chunk) {
      scheduler =
          new Scheduler(
              new Scheduler.Limits(8, 8, 4 * chunk, chunk, 4, 100, blocks, 400, depth),
              Drafter.NONE,
              LAYERS);
      for (int i = 0; i < depth; i++) {
        LayerRange range = new LayerRange(LAYERS * i / depth, LAYERS * (i + 1) / depth - 1);
        stages.add(new Stage(new ToySlice(range, blocks * 32, chunk, 0), () -> {}));
      }
    }

    void generate(String id, List<Integer> tokens, int prompt, int more) {
      texts.put(id, new ArrayList<>(tokens));
      scheduler.submit(
          new Scheduler.Submission(
              id,
              tokens.stream().mapToInt(Integer::intValue).toArray(),
              prompt,
              Claim.NOBODY,
              new Scheduler.Continue(SEEDED, more, new int[0], Optional.empty())),
          new Sent(texts.get(id)));
    }

    /** One step, if there is one, and perhaps what an earlier one brings; whether there was any. */
    boolean turn(Random random) {
      Optional<Batch> batch = scheduler.schedule();
      batch.ifPresent(this::run);
      if (!returning.isEmpty() && (batch.isEmpty() || random.nextBoolean())) {
        returning.poll().run();
        return true;
      }
      return batch.isPresent();
    }

    private void run(Batch batch) {
      float[] hidden = stages.getFirst().embed(batch.tokens());
      List<BlockPart> imports = batch.imports();
      for (Stage stage : stages) {
        stage.write(imports);
        imports = stage.behind(imports);
        stage.forward(hidden, batch.rows());
        exported.addAll(stage.read(batch.exports()));
      }
      int[] tokens = stages.getLast().draw(hidden, batch.draws());
      returning.add(() -> scheduler.deliver(batch.number(), tokens, List.of()));
    }

    long replayed() {
      return scheduler.counts().replayedTokens();
    }
  }

  /** What one replica's copies are for another, with everything on its way in order. */
  private static final class Way implements KeptBlocks.Source {
    final Replica from;
    final Replica to;
    final Deque<Runnable> there = new ArrayDeque<>();
    final Deque<Runnable> back = new ArrayDeque<>();
    final Map<Verdict, Integer> said = new HashMap<>();
    final KeptBlocks.Copies copies;
    int contents;

    Way(Replica from, Replica to, int window) {
      this.from = from;
      this.to = to;
      copies = to.scheduler.kept().open(this);
      from.scheduler.copies().open("to", window);
    }

    @Override
    public void answer(long text, Verdict verdict) {
      said.merge(verdict, 1, Integer::sum);
      back.add(() -> from.scheduler.copies().answered(text, verdict));
    }

    @Override
    public void room() {
      back.add(() -> from.scheduler.copies().room());
    }

    /** Takes up what there is to send, and delivers some of what is on its way. */
    boolean turn(Random random) {
      for (long text : from.scheduler.copies().releases()) {
        there.add(() -> copies.released(text));
      }
      for (BlockCopies.Offer offer : from.scheduler.copies().offers()) {
        there.add(() -> copies.offered(offer));
      }
      while (!from.exported.isEmpty()) {
        BlockPart part = from.exported.poll();
        from.scheduler
            .copies()
            .exported(part.id())
            .ifPresent(
                text -> {
                  contents++;
                  there.add(() -> copies.part(part.as(text)));
                });
      }
      boolean any = false;
      while (!there.isEmpty() && random.nextInt(4) > 0) {
        there.poll().run();
        any = true;
      }
      while (!back.isEmpty() && random.nextInt(4) > 0) {
        back.poll().run();
        any = true;
      }
      return any || !there.isEmpty() || !back.isEmpty();
    }

    void settle(Random random) {
      int quiet = 0;
      while (quiet < 3) {
        boolean any = to.turn(random);
        any |= turn(random);
        quiet = any ? 0 : quiet + 1;
      }
    }
  }

  private static List<Integer> prompt(Random random, int length) {
    return random.ints(length, 0, 97).boxed().toList();
  }

  private static List<Integer> whole(List<Integer> prompt, int tokens) {
    List<Integer> all = new ArrayList<>(prompt);
    all.addAll(
        ToySlice.expected(prompt.stream().mapToInt(Integer::intValue).toArray(), SEEDED, tokens));
    return all;
  }

  @Test
  void whatRunsGoesOnAtTheCopyWithTheSameTokensAndReplaysOnlyWhatIsBehindTheLastFullBlock() {
    long seed = System.nanoTime();
    Random random = new Random(seed);
    for (int round = 0; round < 30; round++) {
      // Cut into stages alike or otherwise: a copy is of layers, not of stages.
      Replica first = new Replica(1 + random.nextInt(3), 64, 32);
      Replica second = new Replica(1 + random.nextInt(3), 64, 32);
      Way way = new Way(first, second, 1 + random.nextInt(8));
      int count = 1 + random.nextInt(4);
      List<List<Integer>> prompts = new ArrayList<>();
      for (int i = 0; i < count; i++) {
        prompts.add(prompt(random, 1 + random.nextInt(150)));
        first.generate("r" + i, prompts.get(i), prompts.get(i).size(), 150);
      }
      int turns = 60 + random.nextInt(100);
      for (int turn = 0; turn < turns; turn++) {
        boolean _ = first.turn(random);
        boolean _ = second.turn(random);
        boolean _ = way.turn(random);
      }
      // All that is full comes over; then the first is lost, and what is on its way with it.
      for (int turn = 0; first.scheduler.copies().lag() > 0; turn++) {
        assertThat(turn).as("seed %d", seed).isLessThan(10_000);
        boolean _ = random.nextInt(20) == 0 && first.turn(random);
        if (first.scheduler.copies().exporting()) {
          boolean _ = first.turn(random);
        }
        boolean _ = second.turn(random);
        boolean _ = way.turn(random);
      }
      way.copies.close();
      long replayedMost = 0;
      for (int i = 0; i < count; i++) {
        List<Integer> soFar = first.texts.get("r" + i);
        int prompt = prompts.get(i).size();
        int left = prompt + 150 - soFar.size();
        if (left > 0) {
          second.generate("r" + i, soFar, prompt, left);
          replayedMost += soFar.size() > prompt ? 32 : 0;
        }
      }
      while (second.turn(random)) {}
      for (int i = 0; i < count; i++) {
        List<Integer> got =
            second.texts.getOrDefault("r" + i, first.texts.getOrDefault("r" + i, List.of()));
        assertThat(got).as("seed %d, request %d", seed, i).isEqualTo(whole(prompts.get(i), 150));
      }
      assertThat(second.replayed()).as("seed %d", seed).isLessThanOrEqualTo(replayedMost);
    }
  }

  @Test
  void aTextThatTheOtherHasAlreadyIsNotSent() {
    Random random = new Random(1);
    Replica first = new Replica(1, 32, 32);
    Replica second = new Replica(2, 32, 32);
    List<Integer> prompt = prompt(random, 100);
    second.generate("x", prompt, 100, 1);
    while (second.turn(random)) {}
    Way way = new Way(first, second, 8);
    first.generate("r", prompt, 100, 60);
    for (int turn = 0; turn < 20; turn++) {
      boolean _ = first.turn(random);
      boolean _ = second.turn(random);
      boolean _ = way.turn(random);
    }
    assertThat(way.said.get(Verdict.HERE)).isEqualTo(3);
    assertThat(way.said).doesNotContainKey(Verdict.WANTED);
    assertThat(way.contents).isZero();
    assertThat(second.scheduler.ledger().kept()).isEqualTo(3);
  }

  @Test
  void copiesGiveWayToWhatRunsWhereTheyAreAndComeBackWhenThereIsRoom() {
    long seed = System.nanoTime();
    Random random = new Random(seed);
    Replica first = new Replica(1, 32, 32);
    Replica second = new Replica(1, 16, 32);
    Way way = new Way(first, second, 8);
    List<Integer> prompt = prompt(random, 250);
    first.generate("r", prompt, 250, 140);
    for (int turn = 0; turn < 60; turn++) {
      boolean _ = first.turn(random);
      way.settle(random);
    }
    BlockLedger ledger = second.scheduler.ledger();
    int before = ledger.kept();
    assertThat(before).as("seed %d", seed).isGreaterThanOrEqualTo(8);

    // Its own requests get all the memory that they need, as if there were no copies.
    List<List<Integer>> own = new ArrayList<>();
    for (int i = 0; i < 2; i++) {
      own.add(prompt(random, 200));
      second.generate("own" + i, own.get(i), 200, 40);
    }
    int least = before;
    while (second.turn(random)) {
      boolean _ = way.turn(random);
      least = Math.min(least, ledger.kept());
      assertThat(second.scheduler.waiting()).as("seed %d", seed).isZero();
    }
    assertThat(second.scheduler.counts().evictions()).as("seed %d", seed).isZero();
    assertThat(way.said.get(Verdict.GONE)).as("seed %d", seed).isPositive();
    assertThat(least).as("seed %d", seed).isLessThan(before);
    for (int i = 0; i < 2; i++) {
      assertThat(second.texts.get("own" + i)).isEqualTo(whole(own.get(i), 40));
    }
    // The beginning of the text stayed as long as it could, so what is left is of use.
    for (int turn = 0; turn < 60; turn++) {
      boolean _ = first.turn(random);
      way.settle(random);
    }
    assertThat(ledger.kept()).as("seed %d", seed).isGreaterThan(least);
    way.copies.close();
    assertThat(ledger.kept()).isZero();
    List<Integer> soFar = first.texts.get("r");
    second.generate("r", soFar, 250, 390 - soFar.size());
    while (second.turn(random)) {}
    assertThat(second.texts.get("r")).as("seed %d", seed).isEqualTo(whole(prompt, 140));
  }

  /** Whatever is refused, lost, released and offered again, no block is lost, and no text wrong. */
  @Test
  void blocksAreNeitherLostNorMixedUpWhateverComesWhen() {
    long seed = System.nanoTime();
    Random random = new Random(seed);
    for (int round = 0; round < 20; round++) {
      List<Replica> replicas =
          List.of(
              new Replica(1 + random.nextInt(2), 14 + random.nextInt(10), 32),
              new Replica(1 + random.nextInt(2), 14 + random.nextInt(10), 32));
      List<Way> ways =
          List.of(
              new Way(replicas.get(0), replicas.get(1), 1 + random.nextInt(5)),
              new Way(replicas.get(1), replicas.get(0), 1 + random.nextInt(5)));
      List<Integer> common = prompt(random, 96);
      Map<String, List<Integer>> prompts = new HashMap<>();
      for (int turn = 0; turn < 400; turn++) {
        Replica one = replicas.get(random.nextInt(2));
        if (random.nextInt(12) == 0) {
          String id = "r" + turn;
          List<Integer> prompt = new ArrayList<>(common.subList(0, 32 * random.nextInt(4)));
          prompt.addAll(prompt(random, 1 + random.nextInt(60)));
          prompts.put(id, prompt);
          one.generate(id, prompt, prompt.size(), 1 + random.nextInt(100));
        }
        if (random.nextInt(30) == 0 && !prompts.isEmpty()) {
          one.scheduler.cancel(List.copyOf(prompts.keySet()).get(random.nextInt(prompts.size())));
        }
        boolean _ = one.turn(random);
        boolean _ = ways.get(random.nextInt(2)).turn(random);
      }
      for (Replica replica : replicas) {
        while (replica.turn(random)) {
          ways.forEach(way -> way.turn(random));
        }
        replica.texts.forEach(
            (id, text) -> {
              List<Integer> prompt = prompts.get(id);
              assertThat(text)
                  .as("seed %d, %s", seed, id)
                  .isEqualTo(
                      whole(prompt, text.size() - prompt.size() + 1).subList(0, text.size()));
            });
      }
      for (int i = 0; i < 50; i++) {
        ways.forEach(way -> way.settle(random));
      }
      for (Way way : ways) {
        assertThat(way.from.scheduler.copies().lag()).as("seed %d", seed).isZero();
        BlockLedger ledger = way.to.scheduler.ledger();
        assertThat(ledger.kept()).as("seed %d", seed).isZero();
        assertThat(ledger.held()).as("seed %d", seed).isZero();
        assertThat(IntStream.range(0, ledger.blocks()).map(b -> ledger.take()).distinct())
            .hasSize(ledger.blocks());
      }
    }
  }
}

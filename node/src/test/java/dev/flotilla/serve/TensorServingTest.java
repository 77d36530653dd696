package dev.flotilla.serve;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.cluster.FakeCluster;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.model.AllReduce;
import dev.flotilla.model.GgufFile;
import dev.flotilla.model.LayerRange;
import dev.flotilla.model.LayerSlice;
import dev.flotilla.model.ModelConfig;
import dev.flotilla.model.PackedSlice;
import dev.flotilla.model.RandomModel;
import dev.flotilla.model.Sequences;
import dev.flotilla.model.TensorShare;
import dev.flotilla.tensor.WeightType;
import io.micrometer.core.instrument.simple.SimpleMeterRegistry;
import java.nio.file.Path;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.CyclicBarrier;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** Replicas whose layers are shared out over nodes, over real gRPC. */
@Timeout(120)
final class TensorServingTest {

  private static final int VOCABULARY = 259;
  private static final int LAYERS = 4;
  private static final int INNER = 192;
  private static final int[] PROMPT = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  private static final SamplingParameters SEEDED = new SamplingParameters(0.9f, 0.95f, 40, 99);

  @TempDir static Path files;
  private static Path gguf;

  @TempDir Path folder;
  private final FakeWorld world = new FakeWorld();
  private final Map<String, Serving> nodes = new TreeMap<>();

  @BeforeAll
  static void writeModel() {
    gguf = files.resolve("random.gguf");
    ModelConfig config =
        new ModelConfig(VOCABULARY, 64, LAYERS, 6, 3, 16, INNER, 1024, 10_000f, 1e-5f, false);
    RandomModel.write(gguf, config, WeightType.Q8_0, 7);
  }

  @BeforeEach
  void startNodes() {
    for (String id : List.of("a", "b", "c")) {
      FakeCluster node = world.add(id, 1_000_000_000);
      Serving serving =
          new Serving(
              node,
              folder.resolve(id),
              1,
              new SimpleMeterRegistry(),
              InstantSource.system(),
              System::nanoTime);
      node.start();
      serving.start();
      nodes.put(id, serving);
    }
    nodes.get("a").models().add("m", gguf);
  }

  @AfterEach
  void stopNodes() throws Exception {
    for (Serving serving : nodes.values()) {
      serving.close();
    }
    world.close();
  }

  private static Deployments.Wanted wanted(int stages, int tensor, boolean force) {
    return new Deployments.Wanted("m", 1, stages, tensor, "least_load", force, Engine.DEFAULT, 0);
  }

  private void deploy(int tensor) throws InterruptedException {
    nodes.get("b").deployments().deploy(wanted(0, tensor, true));
    awaitReady(tensor);
  }

  private void awaitReady(int count) throws InterruptedException {
    long endNs = System.nanoTime() + TimeUnit.SECONDS.toNanos(30);
    while (true) {
      List<Deployments.ReplicaView> replicas =
          nodes.get("c").deployments().list().getFirst().replicas();
      if (replicas.size() == 1
          && replicas.getFirst().state().equals("ready")
          && replicas.getFirst().stages().size() == count) {
        return;
      }
      assertThat(System.nanoTime()).isLessThan(endNs);
      Thread.sleep(5);
    }
  }

  private static final class Collected implements Generator.Sink {
    final List<Integer> tokens = new ArrayList<>();
    final CompletableFuture<String> end = new CompletableFuture<>();
    private final CountDownLatch some;

    Collected(int some) {
      this.some = new CountDownLatch(some);
    }

    @Override
    public void token(int token) {
      tokens.add(token);
      some.countDown();
    }

    @Override
    public void finished(Generator.FinishReason reason) {
      assertThat(end.complete(reason.name())).isTrue();
    }

    @Override
    public void failed(FlotillaException error) {
      assertThat(end.complete(error.explanation())).isTrue();
    }

    List<Integer> all() throws Exception {
      assertThat(end.get(60, TimeUnit.SECONDS)).isEqualTo("LENGTH");
      return tokens;
    }
  }

  @Test
  void anAnswerHeldToAGrammarIsOfItOnRanks() throws Exception {
    deploy(2);
    Collected collected = new Collected(1);
    Generator.Generation _ =
        nodes
            .get("c")
            .generator()
            .start(
                new GenerationRequest(
                    "held",
                    "m",
                    PROMPT,
                    SamplingParameters.GREEDY,
                    60,
                    new int[] {256},
                    Optional.of("root ::= ([a-m]{3,7} [0-9]){400}"),
                    Claim.NOBODY),
                collected);
    assertThat(collected.all().stream().map(Character::toString).collect(Collectors.joining()))
        .matches("([a-m]{3,7}[0-9])*[a-m]*");
  }

  private Collected generate(String node, String id, SamplingParameters sampling, int tokens) {
    Collected collected = new Collected(20);
    Generator.Generation _ =
        nodes
            .get(node)
            .generator()
            .start(
                new GenerationRequest(
                    id, "m", PROMPT, sampling, tokens, new int[0], Optional.empty(), Claim.NOBODY),
                collected);
    return collected;
  }

  /** The same shares as slices of this process that meet in memory, without any of this package. */
  private static List<Integer> expected(
      List<Placement.Share> shares, SamplingParameters sampling, int tokens) throws Exception {
    int ranks = shares.size();
    CyclicBarrier barrier = new CyclicBarrier(ranks);
    float[][] parts = new float[ranks][];
    List<LayerSlice> slices = new ArrayList<>();
    List<Thread> threads = new ArrayList<>();
    float[][] given = new float[1][];
    Sequences[] sequences = new Sequences[ranks];
    int[] position = new int[1];
    CyclicBarrier step = new CyclicBarrier(ranks);
    boolean[] ended = new boolean[1];
    try (GgufFile file = GgufFile.open(gguf)) {
      for (TensorShare share :
          TensorShare.of(
              shares.stream().map(Placement.Share::heads).toList(),
              shares.stream().map(Placement.Share::inner).toList())) {
        AllReduce allReduce =
            values -> {
              parts[share.rank()] = values.clone();
              meet(barrier);
              for (int i = 0; i < values.length; i++) {
                values[i] = parts[0][i];
                for (int other = 1; other < ranks; other++) {
                  values[i] += parts[other][i];
                }
              }
              meet(barrier);
            };
        slices.add(
            PackedSlice.load(
                file,
                new LayerRange(0, LAYERS - 1),
                1,
                Engine.DEFAULT.kv(),
                512,
                share,
                allReduce));
        sequences[share.rank()] = new Sequences(slices.getLast().blocks());
      }
      for (int rank = 1; rank < ranks; rank++) {
        int own = rank;
        threads.add(
            Thread.ofPlatform()
                .start(
                    () -> {
                      for (meet(step); !ended[0]; meet(step)) {
                        forward(slices.get(own), given[0].clone(), sequences[own], position[0]);
                      }
                    }));
      }
      List<Integer> generated = new ArrayList<>();
      int[] next = PROMPT;
      while (generated.size() < tokens) {
        float[] hidden = slices.getFirst().embed(next);
        given[0] = hidden.clone();
        position[0] = generated.isEmpty() ? 0 : PROMPT.length + generated.size() - 1;
        meet(step);
        forward(slices.getFirst(), hidden, sequences[0], position[0]);
        float[] logits = slices.getFirst().logits(hidden, new int[] {next.length - 1});
        int token =
            Sampler.sample(logits, 0, VOCABULARY, sampling, PROMPT.length + generated.size());
        generated.add(token);
        next = new int[] {token};
      }
      ended[0] = true;
      meet(step);
      for (Thread thread : threads) {
        thread.join();
      }
      return generated;
    } finally {
      slices.forEach(LayerSlice::close);
    }
  }

  private static void forward(LayerSlice slice, float[] hidden, Sequences sequences, int position) {
    slice.forward(
        hidden,
        position == 0
            ? sequences.prompt(1, PROMPT.length)
            : sequences.rows(new long[] {1}, new int[] {position}));
  }

  private static void meet(CyclicBarrier barrier) {
    try {
      barrier.await(30, TimeUnit.SECONDS);
    } catch (Exception e) {
      throw new IllegalStateException(e);
    }
  }

  private List<Placement.Share> shares() {
    return Placement.ofReplica(world.registry(), "m-0").getLast().placement().tensor();
  }

  @Test
  void ranksGiveTheTokensOfTheirSharesWhateverIsBeside() throws Exception {
    for (int tensor : new int[] {2, 3}) {
      deploy(tensor);
      assertThat(shares()).hasSize(tensor);
      assertThat(shares().stream().mapToInt(Placement.Share::heads).sum()).isEqualTo(3);
      assertThat(shares().stream().mapToInt(Placement.Share::inner).sum()).isEqualTo(INNER);
      List<Integer> greedy = expected(shares(), SamplingParameters.GREEDY, 30);
      List<Integer> seeded = expected(shares(), SEEDED, 30);
      List<Collected> running = new ArrayList<>();
      for (int i = 0; i < 6; i++) {
        running.add(
            generate(
                List.of("a", "b", "c").get(i % 3),
                tensor + "-" + i,
                i % 2 == 0 ? SamplingParameters.GREEDY : SEEDED,
                30));
      }
      for (int i = 0; i < 6; i++) {
        assertThat(running.get(i).all())
            .as("%d ranks, request %d", tensor, i)
            .isEqualTo(i % 2 == 0 ? greedy : seeded);
      }
    }
  }

  @Test
  void aStreamGoesOnWhenARankIsLost() throws Exception {
    deploy(2);
    List<Placement.Share> before = shares();
    String follower =
        Placement.of(world.registry(), "m-0").orElseThrow().placement().stages().get(1).node();
    Collected running = generate("a", "long", SEEDED, 400);
    assertThat(running.some.await(30, TimeUnit.SECONDS)).isTrue();
    world.kill(follower);
    nodes.remove(follower).close();
    world.notice(follower, NodeInfo.State.LOST);
    List<Integer> text = running.all();
    assertThat(shares()).isEqualTo(before); // two equal nodes were left
    assertThat(text).isEqualTo(expected(before, SEEDED, 400));
  }

  @Test
  void whatCannotBeSharedOutIsRefused() {
    Deployments deployments = nodes.get("a").deployments();
    assertThatThrownBy(() -> deployments.deploy(wanted(0, 4, true)))
        .hasMessageContaining("3 heads of keys and values");
    assertThatThrownBy(() -> deployments.deploy(wanted(2, 2, true)))
        .hasMessageContaining("one way or the other");
    // 48 kB of weights, and sums that cross a network twice a layer.
    assertThatThrownBy(() -> deployments.deploy(wanted(0, 2, false)))
        .hasMessageContaining("tokens/s");
    Map<String, Object> plan = deployments.tensorPlan("m", 2, Engine.DEFAULT);
    assertThat((List<?>) plan.get("ranks")).hasSize(2);
    assertThat(plan.get("measured")).isEqualTo(false);
  }

  @Test
  void placementsOfEarlierVersionsShareOutNothing() {
    Placement placement =
        Json.read(
            "{\"replica\":\"m-0\",\"model\":\"m\",\"digest\":\"d\",\"cachePositions\":32,\"stages\":[]}"
                .getBytes(java.nio.charset.StandardCharsets.UTF_8),
            Placement.class);
    assertThat(placement.tensor()).isEmpty();
    assertThat(placement.share(0)).isEmpty();
  }
}

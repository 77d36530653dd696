package dev.flotilla.serve;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.cluster.FakeCluster;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.model.GgufFile;
import dev.flotilla.model.KvFormat;
import dev.flotilla.model.LayerRange;
import dev.flotilla.model.PackedSlice;
import dev.flotilla.model.Pooling;
import dev.flotilla.model.Sequences;
import dev.flotilla.serve.proto.StepResult;
import dev.flotilla.text.Grammar;
import dev.flotilla.text.JsonSchema;
import dev.flotilla.text.TokenConstraint;
import dev.flotilla.text.Tokenizer;
import io.grpc.Status;
import io.micrometer.core.instrument.FunctionCounter;
import io.micrometer.core.instrument.simple.SimpleMeterRegistry;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.TreeMap;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.BooleanSupplier;
import java.util.stream.Collectors;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/**
 * Three nodes with real slices and real gRPC between them, and the test in the place of Raft and
 * the failure detector, so that every order of events can be had. {@code ClusterServingTest} has
 * the real ones.
 */
@Timeout(120)
final class ServingTest {

  private static final long MEMORY = 1_000_000_000;

  @TempDir static Path files;
  private static Path gguf;

  @TempDir Path folder;
  private final FakeWorld world = new FakeWorld();
  private final Map<String, Serving> nodes = new TreeMap<>();
  private final Map<String, SimpleMeterRegistry> meters = new TreeMap<>();

  /** A clock may begin anywhere, also far below zero. */
  private final AtomicLong skippedNs = new AtomicLong(Long.MIN_VALUE / 2);

  private Engine engine = Engine.DEFAULT;

  @BeforeAll
  static void writeModel() throws Exception {
    gguf = TestModel.write(files.resolve("random.gguf"), 7);
  }

  @BeforeEach
  void startNodes() {
    for (String id : List.of("a", "b", "c")) {
      start(id);
    }
  }

  private void start(String id) {
    FakeCluster node = world.add(id, MEMORY);
    SimpleMeterRegistry registry = new SimpleMeterRegistry();
    Serving serving =
        new Serving(
            node,
            folder.resolve(id),
            1,
            registry,
            InstantSource.system(),
            () -> System.nanoTime() + skippedNs.get());
    node.start();
    serving.start();
    nodes.put(id, serving);
    meters.put(id, registry);
  }

  @AfterEach
  void stopNodes() throws Exception {
    for (Serving serving : nodes.values()) {
      serving.close();
    }
    world.close();
  }

  private static void await(String what, BooleanSupplier condition) throws InterruptedException {
    long endNs = System.nanoTime() + TimeUnit.SECONDS.toNanos(20);
    while (!condition.getAsBoolean()) {
      assertThat(System.nanoTime()).as(what).isLessThan(endNs);
      Thread.sleep(5);
    }
  }

  private Deployments.DeploymentView view() {
    return nodes.get("c").deployments().list().get(0);
  }

  private void deploy(int replicas, int stages) throws InterruptedException {
    nodes
        .get("b")
        .deployments()
        .deploy(new Deployments.Wanted("m", replicas, stages, "least_load", true, engine));
    awaitReady(replicas, stages);
  }

  private void awaitReady(int replicas, int stages) throws InterruptedException {
    await(
        "ready in " + stages + " stages",
        () ->
            view().replicas().size() == replicas
                && view().replicas().stream()
                    .allMatch(r -> r.state().equals("ready") && r.stages().size() == stages));
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
      assertThat(end).isNotDone();
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
      return all("LENGTH");
    }

    List<Integer> all(String reason) throws Exception {
      assertThat(end.get(60, TimeUnit.SECONDS)).isEqualTo(reason);
      return tokens;
    }
  }

  private static final int[] PROMPT = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  private static final SamplingParameters SEEDED = new SamplingParameters(0.9f, 0.95f, 40, 99);

  private Collected generate(
      String node, String id, int[] prompt, SamplingParameters sampling, int tokens) {
    return generate(node, id, prompt, sampling, tokens, 1);
  }

  private Collected generate(
      String node, String id, int[] prompt, SamplingParameters sampling, int tokens, int some) {
    return start(
        node,
        new GenerationRequest(
            id, "m", prompt, sampling, tokens, new int[0], Optional.empty(), Claim.NOBODY),
        some);
  }

  private Collected start(String node, GenerationRequest request, int some) {
    Collected collected = new Collected(some);
    Generator.Generation _ = nodes.get(node).generator().start(request, collected);
    return collected;
  }

  private static final int END = 256;

  private static GenerationRequest held(
      String id, SamplingParameters sampling, int tokens, String grammar) {
    int[] ends = {END};
    return new GenerationRequest(
        id, "m", PROMPT, sampling, tokens, ends, Optional.of(grammar), Claim.NOBODY);
  }

  /**
   * One sequence, one row at a time, all layers in one slice, nothing of this package but the
   * sampler.
   */
  private List<Integer> expected(int[] prompt, SamplingParameters sampling, int tokens) {
    return expected(prompt, sampling, tokens, Optional.empty());
  }

  /** The same, held to a grammar; without the token that ends it. */
  private List<Integer> expected(
      int[] prompt, SamplingParameters sampling, int tokens, Optional<TokenConstraint> held) {
    Optional<TokenConstraint.State> state = held.map(TokenConstraint::start);
    try (GgufFile file = GgufFile.open(gguf);
        PackedSlice slice =
            PackedSlice.load(file, new LayerRange(0, TestModel.LAYERS - 1), 1, engine.kv(), 512)) {
      Sequences sequences = new Sequences(slice.blocks());
      float[] hidden = slice.embed(prompt);
      slice.forward(hidden, sequences.prompt(1, prompt.length));
      int row = prompt.length - 1;
      List<Integer> generated = new ArrayList<>();
      while (true) {
        int position = prompt.length + generated.size();
        float[] logits = slice.logits(hidden, new int[] {row});
        for (int i = 0; held.isPresent() && i < logits.length; i++) {
          boolean allowed = held.get().allowed(state.orElseThrow()).contains(i);
          logits[i] = allowed ? logits[i] : Float.NEGATIVE_INFINITY;
        }
        int token = Sampler.sample(logits, 0, TestModel.VOCABULARY, sampling, position);
        if (held.isPresent() && token == END) {
          return List.copyOf(generated);
        }
        state = state.map(before -> held.get().after(before, token));
        generated.add(token);
        if (generated.size() == tokens) {
          return List.copyOf(generated);
        }
        hidden = slice.embed(new int[] {token});
        slice.forward(hidden, sequences.rows(new long[] {1}, new int[] {position}));
        row = 0;
      }
    }
  }

  @ParameterizedTest
  @EnumSource(KvFormat.class)
  void oneToFourStagesGiveTheSameTokensAtAnyBatchSizeWithAndWithoutPrefixesFound(KvFormat kv)
      throws Exception {
    start("d");
    engine = new Engine(kv, WireType.F32, false, "");
    nodes.get("a").models().add("m", gguf);
    Random random = new Random(5);
    List<int[]> prompts = new ArrayList<>();
    List<SamplingParameters> samplings = new ArrayList<>();
    List<List<Integer>> expected = new ArrayList<>();
    for (int i = 0; i < 8; i++) {
      prompts.add(random.ints(1 + random.nextInt(190), 0, TestModel.VOCABULARY).toArray());
      samplings.add(i % 2 == 0 ? SamplingParameters.GREEDY : SEEDED);
      expected.add(expected(prompts.get(i), samplings.get(i), 24));
    }
    for (int stages = 1; stages <= 4; stages++) {
      deploy(1, stages);
      // What the first ones compute, the later ones find.
      for (int batch : new int[] {1, 3, 8}) {
        List<Collected> running = new ArrayList<>();
        for (int i = 0; i < batch; i++) {
          String node = List.of("a", "b", "c").get(i % 3);
          running.add(generate(node, stages + "-" + i, prompts.get(i), samplings.get(i), 24));
        }
        for (int i = 0; i < batch; i++) {
          assertThat(running.get(i).all())
              .as("%d stages, %d at once, request %d", stages, batch, i)
              .isEqualTo(expected.get(i));
        }
      }
      assertThat(total("flotilla.serve.prefix.found.tokens")).isPositive();
    }
  }

  @Test
  void guessesOfTheTextAndOfADraftModelChangeNoTokenAndSomeAreRight() throws Exception {
    nodes.get("a").models().add("m", gguf);
    // Its own twin, under another name: what it guesses is right, as long as it keeps up.
    nodes.get("a").models().add("twin", gguf);
    nodes.get("a").models().add("other", TestModel.write(files.resolve("other.gguf"), 8));
    int[] prompt = new Random(5).ints(150, 0, TestModel.VOCABULARY).toArray();
    for (String draft : List.of("", "twin", "other")) {
      for (int stages = 1; stages <= 2; stages++) {
        engine = new Engine(KvFormat.F16, WireType.F32, !draft.equals("other"), draft);
        deploy(1, stages);
        for (SamplingParameters sampling : List.of(SamplingParameters.GREEDY, SEEDED)) {
          List<Collected> running = new ArrayList<>();
          for (int i = 0; i < 2; i++) {
            String id = draft + stages + sampling.seed() + "-" + i;
            running.add(generate("c", id, prompt, sampling, 120));
          }
          for (Collected one : running) {
            assertThat(one.all())
                .as("draft %s, %d stages, %s", draft, stages, sampling)
                .isEqualTo(expected(prompt, sampling, 120));
          }
        }
        if (draft.equals("twin")) {
          assertThat(total("flotilla.serve.accepted.tokens")).isGreaterThan(100);
        }
      }
    }
  }

  private TokenConstraint constraint(String grammar) {
    Map<String, Object> metadata = nodes.get("a").deployments().metadata("m");
    return new TokenConstraint(Grammar.parse(grammar), Tokenizer.tokenTrie(metadata, "m"), END);
  }

  private static String text(List<Integer> tokens) {
    // Each byte is a token.
    return tokens.stream().map(Character::toString).collect(Collectors.joining());
  }

  private static final String LONG = "root ::= ([a-m]{3,7} [0-9] | \"-\" [A-Z]* \" \"){400}";
  private static final String ENDING =
      JsonSchema.grammar(
              Json.read(
                  """
                  {"type": "object", "properties": {
                    "size": {"type": "integer", "minimum": 3, "maximum": 2000},
                    "kind": {"enum": ["whale", "squid"]}}, "required": ["size", "kind"]}
                  """
                      .getBytes(StandardCharsets.UTF_8),
                  JsonNode.class))
          .source();

  @Test
  void answersHeldToAGrammarAreOfItAndTheSameOnAnyNumberOfStagesWithGuessesAndWithout()
      throws Exception {
    nodes.get("a").models().add("m", gguf);
    nodes.get("a").models().add("twin", gguf);
    for (int stages = 1; stages <= 3; stages++) {
      engine = new Engine(KvFormat.F16, WireType.F32, stages != 2, stages == 3 ? "twin" : "");
      deploy(1, stages);
      for (SamplingParameters sampling : List.of(SamplingParameters.GREEDY, SEEDED)) {
        String what = stages + " stages, " + sampling;
        Collected endless = start("a", held(what + 1, sampling, 120, LONG), 1);
        Collected ending = start("b", held(what + 2, sampling, 120, ENDING), 1);
        Collected free = generate("c", what + 3, PROMPT, sampling, 120);
        assertThat(endless.all())
            .as(what)
            .isEqualTo(expected(PROMPT, sampling, 120, Optional.of(constraint(LONG))));
        assertThat(ending.all("STOP"))
            .as(what)
            .isEqualTo(expected(PROMPT, sampling, 120, Optional.of(constraint(ENDING))));
        assertThat(text(endless.tokens)).matches("([a-m]{3,7}[0-9]|-[A-Z]* )*([a-m]*|-[A-Z]*)");
        assertThat(text(ending.tokens))
            .matches("\\{\"size\": ?[0-9]{1,4}, ?\"kind\": ?\"(whale|squid)\"}");
        assertThat(free.all()).as(what).isEqualTo(expected(PROMPT, sampling, 120));
      }
    }
  }

  @Test
  void aNodeLostInMidStreamChangesNoTokenOfAnAnswerHeldToAGrammar() throws Exception {
    nodes.get("a").models().add("m", gguf);
    awaitCopies(2);
    deploy(1, 3);
    List<Deployments.StageView> stages = view().replicas().get(0).stages();
    String gateway = stages.get(2).node();
    List<Integer> expected = expected(PROMPT, SEEDED, 300, Optional.of(constraint(LONG)));
    Collected stream = start(gateway, held("lost", SEEDED, 300, LONG), 20);
    stream.some.await();
    lose(stages.get(0).node());
    assertThat(stream.all()).isEqualTo(expected);
    assertThat(meters.get(gateway).get("flotilla.serve.resumptions").counter().count())
        .isEqualTo(1);
  }

  @Test
  void aGrammarThatCannotBeHeldToIsRefusedBeforeTheFirstToken() throws Exception {
    nodes.get("a").models().add("m", gguf);
    deploy(1, 2);
    assertThatThrownBy(() -> start("c", held("1", SEEDED, 10, "root ::= word"), 1))
        .hasMessageContaining("word");
    GenerationRequest endless =
        new GenerationRequest(
            "2", "m", PROMPT, SEEDED, 10, new int[0], Optional.of("root ::= \"a\""), Claim.NOBODY);
    assertThatThrownBy(() -> start("c", endless, 1)).hasMessageContaining("no token ends");
    assertThat(start("c", held("3", SEEDED, 10, "root ::= \"ab\""), 1).all("STOP"))
        .isEqualTo(List.of((int) 'a', (int) 'b'));
  }

  @Test
  void aDraftModelThatCannotGuessForAnotherIsRefused() throws Exception {
    nodes.get("a").models().add("m", gguf);
    Deployments deployments = nodes.get("a").deployments();
    for (String draft : List.of("m", "none")) {
      Engine wrong = new Engine(KvFormat.F16, WireType.F32, false, draft);
      assertThatThrownBy(
              () ->
                  deployments.deploy(new Deployments.Wanted("m", 1, 1, "least_load", false, wrong)))
          .isInstanceOf(FlotillaException.class)
          .hasMessageContaining(draft.equals("m") ? "its own draft" : "no model none");
    }
  }

  @Test
  void halfTheBytesBetweenStagesAreSomeOtherTextButAlwaysTheSame() throws Exception {
    engine = new Engine(KvFormat.F16, WireType.BF16, false, "");
    nodes.get("a").models().add("m", gguf);
    deploy(1, 1);
    assertThat(generate("a", "one", PROMPT, SEEDED, 40).all())
        .isEqualTo(expected(PROMPT, SEEDED, 40));
    deploy(1, 2);
    List<Integer> first = generate("a", "two", PROMPT, SEEDED, 40).all();
    Collected beside = generate("b", "beside", new int[] {3}, SamplingParameters.GREEDY, 40);
    assertThat(generate("a", "again", PROMPT, SEEDED, 40).all()).isEqualTo(first);
    assertThat(beside.all()).hasSize(40);
  }

  private double total(String counter) {
    return meters.values().stream()
        .flatMap(registry -> registry.find(counter).functionCounters().stream())
        .mapToDouble(FunctionCounter::count)
        .sum();
  }

  private CompletableFuture<float[]> embed(String node, String id, int[] tokens, Pooling pooling) {
    CompletableFuture<float[]> embedded = new CompletableFuture<>();
    Runnable _ =
        nodes
            .get(node)
            .embedder()
            .embed(
                new EmbeddingRequest(id, "m", tokens, pooling, Claim.NOBODY),
                new Embedder.Sink() {
                  @Override
                  public void embedded(float[] vector) {
                    assertThat(embedded.complete(vector)).isTrue();
                  }

                  @Override
                  public void failed(FlotillaException error) {
                    assertThat(embedded.completeExceptionally(error)).isTrue();
                  }
                });
    return embedded;
  }

  /** Pooled here, from the states of one sequence, all layers in one slice. */
  private float[] embedding(int[] tokens, Pooling pooling) {
    try (GgufFile file = GgufFile.open(gguf);
        PackedSlice slice =
            PackedSlice.load(file, new LayerRange(0, TestModel.LAYERS - 1), 1, engine.kv(), 1024)) {
      int width = slice.config().width();
      double[] sums = new double[width];
      float[] hidden = slice.embed(tokens);
      slice.forward(hidden, new Sequences(slice.blocks()).prompt(1, tokens.length));
      for (int position = 0; position < tokens.length; position++) {
        float[] states = slice.normalised(hidden, new int[] {position});
        if (pooling == Pooling.MEAN || position == tokens.length - 1) {
          for (int i = 0; i < width; i++) {
            sums[i] += states[i];
          }
        }
      }
      double squares = 0;
      for (double sum : sums) {
        squares += sum * sum;
      }
      float[] vector = new float[width];
      for (int i = 0; i < width; i++) {
        vector[i] = (float) (sums[i] / Math.sqrt(squares));
      }
      return vector;
    }
  }

  @Test
  void oneTwoAndThreeStagesGiveTheSameEmbeddingsAtAnyBatchSize() throws Exception {
    nodes.get("a").models().add("m", gguf);
    Random random = new Random(6);
    List<int[]> texts = new ArrayList<>();
    List<float[]> expected = new ArrayList<>();
    for (int i = 0; i < 8; i++) {
      texts.add(random.ints(1 + random.nextInt(150), 0, TestModel.VOCABULARY).toArray());
      expected.add(embedding(texts.get(i), i % 2 == 0 ? Pooling.MEAN : Pooling.LAST));
    }
    for (int stages = 1; stages <= 3; stages++) {
      deploy(1, stages);
      for (int batch : new int[] {1, 3, 8}) {
        Collected beside = generate("b", stages + "-" + batch, PROMPT, SEEDED, 24);
        List<CompletableFuture<float[]>> running = new ArrayList<>();
        for (int i = 0; i < batch; i++) {
          String node = List.of("a", "b", "c").get(i % 3);
          running.add(
              embed(
                  node, stages + "-e" + i, texts.get(i), i % 2 == 0 ? Pooling.MEAN : Pooling.LAST));
        }
        for (int i = 0; i < batch; i++) {
          assertThat(running.get(i).get(60, TimeUnit.SECONDS))
              .as("%d stages, %d at once, text %d", stages, batch, i)
              .isEqualTo(expected.get(i));
        }
        assertThat(beside.all()).isEqualTo(expected(PROMPT, SEEDED, 24));
      }
    }
  }

  @Test
  void aNodeLostWhileTextsAreEmbeddedChangesNoBit() throws Exception {
    nodes.get("a").models().add("m", gguf);
    awaitCopies(2);
    deploy(1, 3);
    int[] text = new Random(8).ints(1000, 0, TestModel.VOCABULARY).toArray();
    float[] expected = embedding(text, Pooling.MEAN);
    List<Deployments.StageView> stages = view().replicas().get(0).stages();
    String gateway = stages.get(2).node();
    List<CompletableFuture<float[]>> running = new ArrayList<>();
    for (int i = 0; i < 4; i++) {
      running.add(embed(gateway, "e" + i, text, Pooling.MEAN));
    }
    await(
        "rows on their way",
        () ->
            meters.get(stages.get(0).node()).find("flotilla.serve.rows").counters().stream()
                .anyMatch(c -> c.count() > 64));
    lose(stages.get(1).node());
    assertThat(running).anyMatch(r -> !r.isDone());
    for (CompletableFuture<float[]> embedded : running) {
      assertThat(embedded.get(60, TimeUnit.SECONDS)).isEqualTo(expected);
    }
    assertThat(meters.get(gateway).get("flotilla.serve.resumptions").counter().count())
        .isPositive();
    assertThat(meters.get(gateway).get("flotilla.serve.embeddings").counter().count()).isEqualTo(4);
  }

  @Test
  void anEmbeddingThatNobodyWantsAnyMoreFreesEveryStage() throws Exception {
    nodes.get("a").models().add("m", gguf);
    deploy(1, 2);
    List<Runnable> cancels = new ArrayList<>();
    AtomicLong heard = new AtomicLong();
    for (int i = 0; i < 40; i++) {
      cancels.add(
          nodes
              .get("c")
              .embedder()
              .embed(
                  new EmbeddingRequest("e" + i, "m", new int[1024], Pooling.MEAN, Claim.NOBODY),
                  new Embedder.Sink() {
                    @Override
                    public void embedded(float[] vector) {
                      heard.incrementAndGet();
                    }

                    @Override
                    public void failed(FlotillaException error) {
                      heard.incrementAndGet();
                    }
                  }));
    }
    cancels.forEach(Runnable::run);
    for (SimpleMeterRegistry registry : meters.values()) {
      await(
          "all positions free",
          () ->
              registry.find("flotilla.serve.kv.free.positions").gauges().stream()
                  .allMatch(g -> g.value() == 4096));
    }
    assertThat(heard.get()).isLessThan(40);
    assertThat(embed("a", "after", PROMPT, Pooling.LAST).get(20, TimeUnit.SECONDS))
        .isEqualTo(embedding(PROMPT, Pooling.LAST));
    assertThatThrownBy(() -> embed("a", "long", new int[1025], Pooling.MEAN))
        .hasMessageContaining("1025 tokens, and the context holds 1024");
    assertThatThrownBy(() -> embed("a", "none", new int[0], Pooling.MEAN))
        .hasMessageContaining("0 tokens");
  }

  @Test
  void aNodeLostInMidStreamChangesNoToken() throws Exception {
    nodes.get("a").models().add("m", gguf);
    awaitCopies(2);
    deploy(1, 3);
    List<Integer> expected = expected(PROMPT, SEEDED, 200);
    List<Deployments.StageView> stages = view().replicas().get(0).stages();
    String head = stages.get(0).node();
    String gateway = stages.get(2).node();
    String middle = stages.get(1).node();

    Collected stream = generate(gateway, "lost-middle", PROMPT, SEEDED, 200, 20);
    Collected other = generate(head, "lost-middle-2", PROMPT, SamplingParameters.GREEDY, 200, 1);
    stream.some.await();
    lose(middle);
    assertThat(stream.all()).isEqualTo(expected);
    assertThat(other.all()).isEqualTo(expected(PROMPT, SamplingParameters.GREEDY, 200));
    assertThat(view(gateway).state()).isEqualTo("degraded");
    assertThat(view(gateway).reason()).contains("2 stages instead of 3");
    assertThat(meters.get(gateway).get("flotilla.serve.resumptions").counter().count())
        .isEqualTo(1);
    assertThat(meters.get(gateway).get("flotilla.serve.pause").timer().count()).isEqualTo(1);

    Collected second = generate(gateway, "lost-head", PROMPT, SEEDED, 200, 20);
    second.some.await();
    String nowHead = view(gateway).replicas().get(0).stages().get(0).node();
    if (!nowHead.equals(gateway)) {
      lose(nowHead);
    }
    assertThat(second.all()).isEqualTo(expected);
  }

  @Test
  void aNodeThatIsOnlyTakenForLostChangesNoTokenEither() throws Exception {
    nodes.get("a").models().add("m", gguf);
    awaitCopies(2);
    deploy(1, 3);
    String middle = view().replicas().get(0).stages().get(1).node();
    Collected stream = generate("a", "paused", PROMPT, SEEDED, 200, 20);
    stream.some.await();
    world.notice(middle, NodeInfo.State.LOST);
    assertThat(stream.all()).isEqualTo(expected(PROMPT, SEEDED, 200));
    await("two stages", () -> view().state().equals("degraded"));

    // It is back: nothing moves for ten seconds, then all three are used again.
    world.notice(middle, NodeInfo.State.UP);
    Thread.sleep(200);
    assertThat(view().replicas().get(0).stages()).hasSize(2);
    Collected moved = generate("a", "moved", PROMPT, SEEDED, 200, 20);
    moved.some.await();
    skippedNs.addAndGet(TimeUnit.SECONDS.toNanos(11));
    awaitReady(1, 3);
    assertThat(moved.all()).isEqualTo(expected(PROMPT, SEEDED, 200));
    assertThat(view().state()).isEqualTo("ready");
    assertThat(view().reason()).isEmpty();
  }

  @Test
  void cancellingFreesEveryStage() throws Exception {
    nodes.get("a").models().add("m", gguf);
    deploy(1, 3);
    Collected collected = new Collected(5);
    Generator.Generation generation =
        nodes
            .get("c")
            .generator()
            .start(
                new GenerationRequest(
                    "x", "m", PROMPT, SEEDED, 240, new int[0], Optional.empty(), Claim.NOBODY),
                collected);
    collected.some.await();
    generation.cancel();
    assertThat(collected.end.get(5, TimeUnit.SECONDS)).isEqualTo("CANCELLED");
    int heard = collected.tokens.size();
    for (SimpleMeterRegistry registry : meters.values()) {
      await(
          "all positions free",
          () ->
              registry.find("flotilla.serve.kv.free.positions").gauges().stream()
                  .allMatch(g -> g.value() == 4096));
    }
    assertThat(collected.tokens).hasSize(heard);
    assertThat(heard).isLessThan(240);
    generation.cancel();
  }

  @Test
  void requestsThatCannotBeAreRefusedAtOnce() throws Exception {
    nodes.get("a").models().add("m", gguf);
    assertThatThrownBy(() -> generate("a", "x", PROMPT, SEEDED, 1))
        .isInstanceOf(FlotillaException.class)
        .hasMessageContaining("not deployed");
    deploy(1, 1);
    Generator generator = nodes.get("b").generator();
    record Bad(GenerationRequest request, FlotillaException.Code code, String says) {}
    int[] none = new int[0];
    for (Bad bad :
        List.of(
            new Bad(
                new GenerationRequest(
                    "1", "none", PROMPT, SEEDED, 1, none, Optional.empty(), Claim.NOBODY),
                FlotillaException.Code.NOT_FOUND,
                "none"),
            new Bad(
                new GenerationRequest(
                    "2", "m", new int[1200], SEEDED, 1, none, Optional.empty(), Claim.NOBODY),
                FlotillaException.Code.INVALID,
                "1200 tokens, and the context holds 1024"),
            new Bad(
                new GenerationRequest(
                    "3", "m", none, SEEDED, 1, none, Optional.empty(), Claim.NOBODY),
                FlotillaException.Code.INVALID,
                "0 tokens"),
            new Bad(
                new GenerationRequest(
                    "4", "m", new int[] {259}, SEEDED, 1, none, Optional.empty(), Claim.NOBODY),
                FlotillaException.Code.INVALID,
                "259"),
            new Bad(
                new GenerationRequest(
                    "5", "m", PROMPT, SEEDED, 0, none, Optional.empty(), Claim.NOBODY),
                FlotillaException.Code.INVALID,
                "max_tokens"),
            new Bad(
                new GenerationRequest(
                    "6",
                    "m",
                    PROMPT,
                    new SamplingParameters(Float.NaN, 1, 0, 1),
                    1,
                    none,
                    Optional.empty(),
                    Claim.NOBODY),
                FlotillaException.Code.INVALID,
                "temperature"))) {
      assertThatThrownBy(() -> generator.start(bad.request(), new Collected(1)))
          .isInstanceOfSatisfying(
              FlotillaException.class, e -> assertThat(e.code()).isEqualTo(bad.code()))
          .hasMessageContaining(bad.says());
    }
  }

  @Test
  void withoutAReadyReplicaAStartIsRefusedAfterAWhile() throws Exception {
    nodes.get("a").models().add("m", gguf);
    deploy(1, 1);
    String head = view().replicas().get(0).stages().get(0).node();
    String other = head.equals("a") ? "b" : "a";
    world.kill(head); // and nobody notices
    CompletableFuture<Void> skip =
        CompletableFuture.runAsync(
            () -> skippedNs.addAndGet(TimeUnit.SECONDS.toNanos(6)),
            CompletableFuture.delayedExecutor(200, TimeUnit.MILLISECONDS));
    assertThatThrownBy(() -> generate(other, "x", PROMPT, SEEDED, 1))
        .isInstanceOfSatisfying(
            FlotillaException.class,
            e -> assertThat(e.code()).isEqualTo(FlotillaException.Code.UNAVAILABLE));
    skip.join();
  }

  @Test
  void workOfAStalePlacementIsRefused() throws Exception {
    nodes.get("a").models().add("m", gguf);
    deploy(1, 3);
    Deployments.ReplicaView replica = view().replicas().get(0);
    CompletableFuture<Status> stale = new CompletableFuture<>();
    Chain _ =
        Chain.open(
            world.node("a").channel(replica.stages().get(1).node()),
            replica.id(),
            replica.epoch() - 1,
            1,
            new Chain.Listener() {
              @Override
              public void opened(boolean copies) {
                stale.complete(Status.OK);
              }

              @Override
              public void result(StepResult result) {}

              @Override
              public void broken(Status status) {
                stale.complete(status);
              }
            });
    assertThat(stale.get(5, TimeUnit.SECONDS).getCode()).isEqualTo(Status.Code.ABORTED);
    assertThat(generate("a", "x", PROMPT, SEEDED, 20).all())
        .isEqualTo(expected(PROMPT, SEEDED, 20));
  }

  @Test
  void aSecondChainTakesOverAndTheRequestsOfTheFirstGoOn() throws Exception {
    nodes.get("a").models().add("m", gguf);
    deploy(1, 3);
    Deployments.ReplicaView replica = view().replicas().get(0);
    Collected stream = generate("a", "x", PROMPT, SEEDED, 200, 20);
    stream.some.await();
    Chain.open(
        world.node("a").channel(replica.stages().get(1).node()),
        replica.id(),
        replica.epoch(),
        1,
        new Chain.Listener() {
          @Override
          public void opened(boolean copies) {}

          @Override
          public void result(StepResult result) {}

          @Override
          public void broken(Status status) {}
        });
    assertThat(stream.all()).isEqualTo(expected(PROMPT, SEEDED, 200));
  }

  @Test
  void replicasShareTheRequestsAndOneGoesOnForTheOther() throws Exception {
    nodes.get("a").models().add("m", gguf);
    awaitCopies(2);
    deploy(2, 1);
    List<Collected> running = new ArrayList<>();
    for (int i = 0; i < 6; i++) {
      running.add(generate("c", "r" + i, PROMPT, SEEDED, 200, 20));
    }
    String first = view().replicas().get(0).stages().get(0).node();
    String second = view().replicas().get(1).stages().get(0).node();
    assertThat(first).isNotEqualTo(second);
    for (String node : List.of(first, second)) {
      await(
          "both work",
          () ->
              meters.get(node).find("flotilla.serve.rows").counters().stream()
                  .anyMatch(c -> c.count() > 0));
    }
    String victim = first.equals("c") ? second : first;
    lose(victim);
    for (Collected stream : running) {
      assertThat(stream.all()).isEqualTo(expected(PROMPT, SEEDED, 200));
    }
  }

  @Test
  void removingADeploymentEndsItsStreamsAndFreesItsNodes() throws Exception {
    nodes.get("a").models().add("m", gguf);
    deploy(1, 2);
    assertThatThrownBy(() -> nodes.get("b").models().remove("m"))
        .hasMessageContaining("is deployed");
    Collected stream = generate("a", "x", PROMPT, SEEDED, 240, 5);
    stream.some.await();
    nodes.get("c").deployments().remove("m");
    assertThat(stream.end.get(10, TimeUnit.SECONDS)).contains("not deployed");
    await("closed", () -> Placement.all(world.registry()).isEmpty());
    nodes.get("b").models().remove("m");
    await(
        "files gone",
        () -> {
          try (var entries = Files.list(folder.resolve("a/data/models"))) {
            return entries.findAny().isEmpty();
          } catch (java.io.IOException e) {
            throw new IllegalStateException(e);
          }
        });
    assertThat(nodes.get("a").deployments().models()).isEmpty();
  }

  @Test
  void aSingleReplicaLeavesNoMomentInWhichNobodyAnswers() throws Exception {
    nodes.get("a").models().add("m", gguf);
    deploy(1, 1);
    String from = view().replicas().getFirst().stages().getFirst().node();
    String gateway = from.equals("c") ? "b" : "c";
    Collected stream = generate(gateway, "moved", PROMPT, SEEDED, 500, 20);
    stream.some.await();
    List<String> gaps = new CopyOnWriteArrayList<>();
    try (AutoCloseable _ =
        world
            .registry()
            .subscribe(
                () -> {
                  boolean answers =
                      Placement.all(world.registry()).stream()
                          .anyMatch(
                              p ->
                                  ReplicaStatus.ready(
                                      world.registry(), p.placement().replica(), p.epoch()));
                  if (!answers) {
                    gaps.add(Placement.all(world.registry()).toString());
                  }
                })) {
      world.notice(from, NodeInfo.State.DRAINING);
      await(
          "moved",
          () ->
              Placement.all(world.registry()).stream()
                  .allMatch(p -> p.placement().stageOn(from).isEmpty()));
      assertThat(generate(gateway, "after", PROMPT, SEEDED, 20).all())
          .isEqualTo(expected(PROMPT, SEEDED, 20));
    }
    assertThat(gaps).isEmpty();
    assertThat(stream.all()).isEqualTo(expected(PROMPT, SEEDED, 500));
    assertThat(view().state()).isEqualTo("ready");
  }

  private Deployments.DeploymentView view(String node) {
    return nodes.get(node).deployments().list().get(0);
  }

  private void awaitCopies(int copies) throws InterruptedException {
    await(
        copies + " whole copies",
        () -> ModelRecord.of(world.registry(), "m").orElseThrow().holders().size() == copies);
  }

  private void lose(String node) throws Exception {
    world.kill(node);
    Thread.sleep(50); // nobody has noticed yet
    world.notice(node, NodeInfo.State.LOST);
    nodes.remove(node).close();
  }
}

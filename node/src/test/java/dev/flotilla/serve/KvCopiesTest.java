package dev.flotilla.serve;

import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.FlotillaException;
import dev.flotilla.cluster.FakeCluster;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.model.GgufFile;
import dev.flotilla.model.KvFormat;
import dev.flotilla.model.LayerRange;
import dev.flotilla.model.PackedSlice;
import dev.flotilla.model.Sequences;
import io.micrometer.core.instrument.FunctionCounter;
import io.micrometer.core.instrument.Gauge;
import io.micrometer.core.instrument.simple.SimpleMeterRegistry;
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
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/**
 * Streams whose KV cache is copied to another replica, over real slices and real gRPC: what goes on
 * there has the same tokens, and is not computed again.
 */
@Timeout(120)
final class KvCopiesTest {

  private static final int TOKENS = 700;

  /** Far less than a replay of what there is when a node is lost. */
  private static final int REPLAYED_MOST = 150;

  private static final SamplingParameters SEEDED = new SamplingParameters(0.9f, 0.95f, 40, 99);

  @TempDir static Path files;
  private static Path gguf;

  @TempDir Path folder;
  private final FakeWorld world = new FakeWorld();
  private final Map<String, Serving> nodes = new TreeMap<>();
  private final Map<String, SimpleMeterRegistry> meters = new TreeMap<>();

  @BeforeAll
  static void writeModel() {
    gguf = TestModel.write(files.resolve("random.gguf"), 7);
  }

  private void start(int count) {
    for (String id : List.of("a", "b", "c", "d", "e").subList(0, count)) {
      FakeCluster node = world.add(id, 1_000_000_000);
      SimpleMeterRegistry registry = new SimpleMeterRegistry();
      Serving serving =
          new Serving(
              node, folder.resolve(id), 1, registry, InstantSource.system(), System::nanoTime);
      node.start();
      serving.start();
      nodes.put(id, serving);
      meters.put(id, registry);
    }
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
    return nodes.get("a").deployments().list().get(0);
  }

  private void deploy(KvFormat kv, int replicas, int stages, int copies) throws Exception {
    Engine engine = new Engine(kv, WireType.F32, false, "");
    nodes
        .get("a")
        .deployments()
        .deploy(
            new Deployments.Wanted("m", replicas, stages, 1, "least_load", true, engine, copies));
    await(
        replicas + " replicas of " + stages + " stages",
        () ->
            view().replicas().stream()
                    .filter(r -> r.state().equals("ready") && r.stages().size() == stages)
                    .count()
                == replicas);
  }

  private static final class Collected implements Generator.Sink {
    final List<Integer> tokens = new CopyOnWriteArrayList<>();
    final CompletableFuture<String> end = new CompletableFuture<>();

    @Override
    public void token(int token) {
      tokens.add(token);
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

  private Collected generate(String node, String id, int[] prompt) {
    Collected collected = new Collected();
    Generator.Generation _ =
        nodes
            .get(node)
            .generator()
            .start(
                new GenerationRequest(
                    id, "m", prompt, SEEDED, TOKENS, new int[0], Optional.empty(), Claim.NOBODY),
                collected);
    return collected;
  }

  private static List<Integer> expected(int[] prompt, KvFormat kv) {
    try (GgufFile file = GgufFile.open(gguf);
        PackedSlice slice =
            PackedSlice.load(file, new LayerRange(0, TestModel.LAYERS - 1), 1, kv, 1024)) {
      Sequences sequences = new Sequences(slice.blocks());
      float[] hidden = slice.embed(prompt);
      slice.forward(hidden, sequences.prompt(1, prompt.length));
      int row = prompt.length - 1;
      List<Integer> generated = new ArrayList<>();
      while (true) {
        int position = prompt.length + generated.size();
        float[] logits = slice.logits(hidden, new int[] {row});
        int token = Sampler.sample(logits, 0, TestModel.VOCABULARY, SEEDED, position);
        generated.add(token);
        if (generated.size() == TOKENS) {
          return generated;
        }
        hidden = slice.embed(new int[] {token});
        slice.forward(hidden, sequences.rows(new long[] {1}, new int[] {position}));
        row = 0;
      }
    }
  }

  private double counted(String counter) {
    return meters.values().stream()
        .flatMap(registry -> registry.find(counter).functionCounters().stream())
        .mapToDouble(FunctionCounter::count)
        .sum();
  }

  private double gauge(String replica, String gauge) {
    return meters.values().stream()
        .flatMap(registry -> registry.find(gauge).tag("replica", replica).gauges().stream())
        .mapToDouble(Gauge::value)
        .sum();
  }

  private double kept(String replica) {
    return meters.values().stream()
        .flatMap(
            registry ->
                registry
                    .find("flotilla.serve.kv.blocks")
                    .tag("replica", replica)
                    .tag("state", "kept")
                    .gauges()
                    .stream())
        .mapToDouble(Gauge::value)
        .sum();
  }

  private void lose(String id) throws Exception {
    world.kill(id);
    nodes.remove(id).close();
    // Its meters stay as they were: what has been counted there counts.
    world.notice(id, NodeInfo.State.LOST);
  }

  private static List<String> nodesOf(Deployments.ReplicaView replica) {
    return replica.stages().stream().map(Deployments.StageView::node).toList();
  }

  /** Where a stream runs, and where it is copied. */
  private record Places(Deployments.ReplicaView runs, Deployments.ReplicaView copies) {}

  private Places places() throws Exception {
    List<Deployments.ReplicaView> replicas = view().replicas();
    await(
        "a request that runs",
        () ->
            replicas.stream().anyMatch(r -> gauge(r.id(), "flotilla.serve.requests.running") > 0));
    boolean first = gauge(replicas.get(0).id(), "flotilla.serve.requests.running") > 0;
    return new Places(replicas.get(first ? 0 : 1), replicas.get(first ? 1 : 0));
  }

  @ParameterizedTest
  @EnumSource(KvFormat.class)
  void aStreamWhoseReplicaIsLostGoesOnAtItsCopyAndComputesNextToNothingAgain(KvFormat kv)
      throws Exception {
    start(3);
    nodes.get("a").models().add("m", gguf);
    deploy(kv, 2, 1, 1);
    int[] prompt = new Random(3).ints(200, 0, TestModel.VOCABULARY).toArray();
    List<Integer> expected = expected(prompt, kv);
    List<String> used = view().replicas().stream().flatMap(r -> nodesOf(r).stream()).toList();
    String gateway = nodes.keySet().stream().filter(n -> !used.contains(n)).findFirst().get();
    Collected stream = generate(gateway, "r", prompt);
    Places places = places();
    // Prompt and what has been generated of it, up to a good length.
    await("copies of 400 tokens", () -> kept(places.copies().id()) * 32 >= 400);
    lose(nodesOf(places.runs()).get(0));
    assertThat(stream.end).isNotDone();
    int before = stream.tokens.size();
    assertThat(stream.all()).isEqualTo(expected);
    assertThat(counted("flotilla.serve.replayed.tokens"))
        .as("replayed of %d", before)
        .isLessThan(REPLAYED_MOST);
    assertThat(meters.get(gateway).get("flotilla.serve.resumptions").counter().count())
        .isEqualTo(1);
  }

  @Test
  void ofReplicasOfSeveralStagesEachStageSendsAndTakesUpItsLayers() throws Exception {
    start(4);
    nodes.get("a").models().add("m", gguf);
    deploy(KvFormat.F16, 2, 2, 1);
    int[] prompt = new Random(4).ints(100, 0, TestModel.VOCABULARY).toArray();
    List<Integer> expected = expected(prompt, KvFormat.F16);
    // Twice: the first time a stage is lost, and then, of those that are left, a head.
    Collected stream = generate("a", "r", prompt);
    Places places = places();
    String lost =
        nodesOf(places.runs()).reversed().stream().filter(n -> !n.equals("a")).findFirst().get();
    assertThat(nodesOf(places.copies())).doesNotContain(lost);
    await("copies of 300 tokens", () -> kept(places.copies().id()) * 32 >= 300);
    lose(lost);
    assertThat(stream.end).isNotDone();
    assertThat(stream.all()).isEqualTo(expected);
    assertThat(counted("flotilla.serve.replayed.tokens")).isLessThan(REPLAYED_MOST);
  }

  @Test
  void whereNobodyIsLeftToKeepACopyTheDeploymentSaysSo() throws Exception {
    start(2);
    nodes.get("a").models().add("m", gguf);
    deploy(KvFormat.F16, 2, 1, 1);
    assertThat(view().state()).isEqualTo("ready");
    assertThat(view().replicas().stream().map(Deployments.ReplicaView::copiedTo))
        .containsExactly("m-1", "m-0");
    String lost = nodes.keySet().stream().filter(n -> !n.equals("a")).findFirst().orElseThrow();
    lose(lost);
    await(
        "the state says so",
        () ->
            view().state().equals("degraded")
                && view().reason().contains("its KV cache is copied nowhere"));
    // One replica can be wanted, without a copy.
    deploy(KvFormat.F16, 1, 1, 0);
    await("ready", () -> view().state().equals("ready"));
  }

  @Test
  void copiesBeginAndEndWithWhatIsWanted() throws Exception {
    start(2);
    nodes.get("a").models().add("m", gguf);
    deploy(KvFormat.F16, 2, 1, 0);
    int[] prompt = new Random(5).ints(300, 0, TestModel.VOCABULARY).toArray();
    Collected stream = generate("a", "r", prompt);
    Places places = places();
    assertThat(kept(places.copies().id())).isZero();
    deploy(KvFormat.F16, 2, 1, 1);
    await("copies", () -> kept(places.copies().id()) > 5);
    deploy(KvFormat.F16, 2, 1, 0);
    await("no copies", () -> kept(places.copies().id()) == 0);
    assertThat(stream.all()).isEqualTo(expected(prompt, KvFormat.F16));
    // What was copied is found there like any beginning of a text.
    assertThat(gauge(places.runs().id(), "flotilla.serve.kv.copies.lag.blocks")).isZero();
  }
}

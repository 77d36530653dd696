package dev.flotilla.serve;

import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.FlotillaException;
import dev.flotilla.cluster.ClusterConfig;
import dev.flotilla.cluster.ClusterNode;
import dev.flotilla.cluster.NodeDeath;
import io.micrometer.core.instrument.simple.SimpleMeterRegistry;
import java.nio.file.Path;
import java.time.Duration;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.TreeMap;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** The whole path on three real nodes: Raft, failure detection, mutual TLS, real slices. */
@Timeout(120)
final class ClusterServingTest {

  private static final int[] PROMPT = {72, 101, 108, 108, 111};
  private static final SamplingParameters SEEDED = new SamplingParameters(0.9f, 0.95f, 40, 7);

  private record Node(ClusterNode cluster, Serving serving, SimpleMeterRegistry meters) {}

  @TempDir Path folder;
  private final Map<String, Node> nodes = new TreeMap<>();

  @BeforeEach
  void startThreeNodes() throws Exception {
    ClusterConfig first = config("first");
    Node founder = start(ClusterNode.create(first), first);
    for (String name : List.of("second", "third")) {
      ClusterConfig config = config(name);
      start(
          ClusterNode.join(config, "127.0.0.1:" + first.httpPort(), founder.cluster().invite()),
          config);
    }
    founder.serving().models().add("m", TestModel.write(folder.resolve("m.gguf"), 3));
    await(
        "two copies",
        () ->
            ModelRecord.of(founder.cluster().registry(), "m").orElseThrow().holders().size() == 2);
  }

  private ClusterConfig config(String name) {
    return new ClusterConfig(
        folder.resolve(name),
        name,
        "127.0.0.1",
        "127.0.0.1",
        NodeDeath.freePorts(),
        "0.1.0",
        InstantSource.system(),
        Map.of(NodeProfile.MEMORY_BYTES, 1e9, NodeProfile.WEIGHT_BYTES_PER_SECOND, 1e9));
  }

  private Node start(ClusterNode cluster, ClusterConfig config) {
    SimpleMeterRegistry meters = new SimpleMeterRegistry();
    Serving serving =
        new Serving(
            cluster, config.dataFolder(), 1, meters, InstantSource.system(), System::nanoTime);
    cluster.start();
    serving.start();
    Node node = new Node(cluster, serving, meters);
    nodes.put(cluster.self(), node);
    return node;
  }

  @AfterEach
  void stopNodes() {
    for (String id : List.copyOf(nodes.keySet())) {
      kill(id);
    }
  }

  private void kill(String id) {
    Node node = nodes.remove(id);
    NodeDeath.kill(node.cluster());
    node.serving().close();
  }

  private static void await(String what, BooleanSupplier condition) throws InterruptedException {
    long endNs = System.nanoTime() + TimeUnit.SECONDS.toNanos(30);
    while (!condition.getAsBoolean()) {
      assertThat(System.nanoTime()).as(what).isLessThan(endNs);
      Thread.sleep(10);
    }
  }

  private Node any() {
    return nodes.values().iterator().next();
  }

  private void deploy(int stages) throws InterruptedException {
    any()
        .serving()
        .deployments()
        .deploy(new Deployments.Wanted("m", 1, stages, "least_load", true, Engine.DEFAULT));
    for (Node node : nodes.values()) {
      await(stages + " stages ready", () -> ready(node, stages));
    }
  }

  private static boolean ready(Node node, int stages) {
    return node.serving().deployments().list().stream()
        .flatMap(d -> d.replicas().stream())
        .anyMatch(r -> r.state().equals("ready") && r.stages().size() == stages);
  }

  private List<String> stages() {
    return any().serving().deployments().list().get(0).replicas().get(0).stages().stream()
        .map(Deployments.StageView::node)
        .toList();
  }

  /** Tokens of a stream that cannot have ended by the time a node has been closed. */
  private static final int LONG = 700;

  private static final class Collected implements Generator.Sink {
    final List<Integer> tokens = new ArrayList<>();
    final CompletableFuture<String> end = new CompletableFuture<>();
    final CountDownLatch some = new CountDownLatch(15);
    private long lastNs = System.nanoTime();
    long longestGapNs;

    @Override
    public void token(int token) {
      long nowNs = System.nanoTime();
      longestGapNs = Math.max(longestGapNs, nowNs - lastNs);
      lastNs = nowNs;
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

  private Collected generate(
      String node, String id, int[] prompt, SamplingParameters sampling, int tokens) {
    Collected collected = new Collected();
    Generator.Generation _ =
        nodes
            .get(node)
            .serving()
            .generator()
            .start(
                new GenerationRequest(
                    id, "m", prompt, sampling, tokens, new int[0], Optional.empty(), Claim.NOBODY),
                collected);
    return collected;
  }

  @Test
  void threeStagesGiveWhatOneGivesThroughAnyGateway() throws Exception {
    Random random = new Random(11);
    List<int[]> prompts = new ArrayList<>();
    for (int i = 0; i < 6; i++) {
      prompts.add(random.ints(1 + random.nextInt(70), 0, TestModel.VOCABULARY).toArray());
    }
    List<String> ids = List.copyOf(nodes.keySet());
    List<List<List<Integer>>> results = new ArrayList<>();
    for (int stages : new int[] {1, 3}) {
      deploy(stages);
      List<Collected> running = new ArrayList<>();
      for (int i = 0; i < 6; i++) {
        running.add(
            generate(
                ids.get(i % 3),
                stages + "-" + i,
                prompts.get(i),
                i % 2 == 0 ? SamplingParameters.GREEDY : SEEDED,
                40));
      }
      List<List<Integer>> tokens = new ArrayList<>();
      for (Collected stream : running) {
        tokens.add(stream.all());
      }
      results.add(tokens);
    }
    assertThat(results.get(1)).isEqualTo(results.get(0));
  }

  @Test
  void killingAStageInMidStreamChangesNoToken() throws Exception {
    deploy(3);
    List<String> stages = stages();
    killInMidStream(stages.get(0), stages.get(1));
  }

  @Test
  void killingTheHeadInMidStreamChangesNoToken() throws Exception {
    deploy(3);
    List<String> stages = stages();
    killInMidStream(stages.get(1), stages.get(0));
  }

  @Test
  void killingTheRaftLeaderInMidStreamChangesNoToken() throws Exception {
    deploy(3);
    String leader = any().cluster().leader().orElseThrow();
    String gateway = nodes.keySet().stream().filter(n -> !n.equals(leader)).findFirst().get();
    killInMidStream(gateway, leader);
  }

  @Test
  void whatRunsOnANodeThatLeavesGoesOnElsewhereBeforeItStops() throws Exception {
    deploy(2);
    String leaving = stages().get(0);
    String gateway = nodes.keySet().stream().filter(n -> !n.equals(leaving)).findFirst().get();
    List<Integer> undisturbed = generate(gateway, "before", PROMPT, SEEDED, LONG).all();
    Collected stream = generate(gateway, "during", PROMPT, SEEDED, LONG);
    assertThat(stream.some.await(20, TimeUnit.SECONDS)).isTrue();
    assertThat(drain(leaving)).isEmpty();
    assertThat(stages()).hasSize(2).doesNotContain(leaving);
    assertThat(nodes.get(gateway).serving().deployments().list().get(0).state()).isEqualTo("ready");
    assertThat(stream.all()).isEqualTo(undisturbed);
    // Two nodes at once: the third has the room, but then nobody is left for it to go to.
    String second = stages().get(0);
    assertThat(drain(second)).isEmpty();
    String last = stages().get(0);
    assertThat(drain(last)).containsExactly("m-0");
    assertThat(stages()).containsExactly(last);
    assertThat(generate(gateway, "after", PROMPT, SEEDED, LONG).all()).isEqualTo(undisturbed);
    // Taken back, what is wanted is placed again.
    nodes.get(last).cluster().drain(leaving, false);
    nodes.get(last).cluster().drain(last, false);
    for (Node node : nodes.values()) {
      await("two stages again", () -> ready(node, 2));
    }
    assertThat(stages()).containsExactlyInAnyOrder(last, leaving);
  }

  /** As a node does before it stops. */
  private List<String> drain(String node) throws InterruptedException {
    return nodes.get(node).serving().deployments().drain(node, Duration.ofSeconds(20));
  }

  private void killInMidStream(String gateway, String victim) throws Exception {
    boolean leads = victim.equals(any().cluster().leader().orElse(""));
    List<Integer> undisturbed = generate(gateway, "before", PROMPT, SEEDED, LONG).all();
    Collected stream = generate(gateway, "during", PROMPT, SEEDED, LONG);
    assertThat(stream.some.await(20, TimeUnit.SECONDS)).isTrue();
    kill(victim);
    assertThat(stream.all()).isEqualTo(undisturbed);
    assertThat(nodes.get(gateway).meters().get("flotilla.serve.resumptions").counter().count())
        .isEqualTo(1);
    System.err.printf(
        "a stream paused %d ms when %s was killed%n",
        stream.longestGapNs / 1_000_000, leads ? "the leader" : "a follower");
    Deployments.DeploymentView view = nodes.get(gateway).serving().deployments().list().get(0);
    assertThat(view.state()).isEqualTo("degraded");
    // New requests are answered as well.
    assertThat(generate(gateway, "after", PROMPT, SEEDED, LONG).all()).isEqualTo(undisturbed);
  }
}

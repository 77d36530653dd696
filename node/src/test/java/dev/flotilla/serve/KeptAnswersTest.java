package dev.flotilla.serve;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.cluster.FakeCluster;
import dev.flotilla.cluster.FakeRegistry;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.serve.Generator.FinishReason;
import dev.flotilla.serve.proto.AnswersGrpc;
import dev.flotilla.serve.proto.TakeReply;
import dev.flotilla.serve.proto.TakeRequest;
import io.micrometer.core.instrument.simple.SimpleMeterRegistry;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.BooleanSupplier;
import java.util.stream.IntStream;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Three nodes with real calls between them. */
@Timeout(60)
class KeptAnswersTest {

  private static final long PATIENCE_NS = TimeUnit.SECONDS.toNanos(20);
  private static final List<String> NAMES = List.of("a", "b", "c");

  private record Node(FakeCluster cluster, KeptAnswers answers, SimpleMeterRegistry meters) {

    double copies() {
      return meters.get("flotilla.serve.answers.copies").gauge().value();
    }
  }

  private final Map<String, Node> nodes = new LinkedHashMap<>();
  private final AtomicInteger taken = new AtomicInteger();
  private final FakeRegistry registry = new FakeRegistry();

  @BeforeEach
  void start() {
    for (String name : NAMES) {
      FakeCluster cluster = new FakeCluster(name, registry, infos(NAMES));
      SimpleMeterRegistry meters = new SimpleMeterRegistry();
      nodes.put(name, new Node(cluster, new KeptAnswers(cluster, meters), meters));
      cluster.start();
    }
    for (Node from : nodes.values()) {
      nodes.values().forEach(to -> from.cluster().connect(to.cluster()));
    }
  }

  private static List<NodeInfo> infos(List<String> up) {
    return NAMES.stream()
        .map(
            name ->
                FakeCluster.node(name, up.contains(name) ? NodeInfo.State.UP : NodeInfo.State.LOST))
        .toList();
  }

  @AfterEach
  void stop() {
    nodes.values().forEach(node -> node.answers().close());
    nodes.values().forEach(node -> node.cluster().close());
  }

  private KeptAnswers at(String name) {
    return nodes.get(name).answers();
  }

  /** Its process dies; the others do not know it yet. */
  private void kill(String name) {
    nodes.get(name).answers().close();
    nodes.get(name).cluster().close();
  }

  private void see(List<String> up) {
    nodes.values().forEach(node -> node.cluster().nodes(infos(up)));
  }

  private Kept open(String name, String id) throws InterruptedException {
    Kept kept = at(name).open(AnswerCopiesTest.answer(id, "ann", 2, 9), taken::incrementAndGet);
    assertThat(kept.awaitCopy(PATIENCE_NS)).isTrue();
    return kept;
  }

  private Kept take(String name, String id) throws InterruptedException {
    return at(name).take(id, "ann", value -> {}, taken::incrementAndGet);
  }

  private static int[] tokens(Kept kept, int choice) {
    return kept.value().progress().get(choice).tokens();
  }

  private static void say(Kept kept, int from, int to) {
    IntStream.range(from, to).forEach(token -> kept.token(1, token));
  }

  private static void await(String what, BooleanSupplier condition) throws InterruptedException {
    long endNs = System.nanoTime() + PATIENCE_NS;
    while (!condition.getAsBoolean()) {
      assertThat(System.nanoTime()).as(what).isLessThan(endNs);
      Thread.sleep(5);
    }
  }

  /** The node that keeps a's copies. */
  private String keeper() {
    return nodes.get("b").copies() > 0 ? "b" : "c";
  }

  private static void refuses(Code code, ThrowingCallable call) {
    assertThatThrownBy(call)
        .isInstanceOfSatisfying(
            FlotillaException.class, e -> assertThat(e.code()).as(e.toString()).isEqualTo(code));
  }

  @Test
  void whatRanOnANodeThatDiedGoesOnAnywhere() throws Exception {
    Kept kept = open("a", "x");
    say(kept, 0, 40);
    kept.ended(0, FinishReason.LENGTH);
    String second = keeper();
    String third = second.equals("b") ? "c" : "b";
    await("all of it is there", () -> length(second, "x") == 40);
    kill("a");
    Kept there = take(third, "x");
    assertThat(tokens(there, 1)).isEqualTo(IntStream.range(0, 40).toArray());
    assertThat(there.value().progress().get(0).end()).isEqualTo(Optional.of(FinishReason.LENGTH));
    assertThat(there.value().requests())
        .usingRecursiveComparison()
        .isEqualTo(AnswerCopiesTest.answer("x", "ann", 2, 9).requests());
    // And from there on, when that one dies in turn.
    say(there, 40, 50);
    assertThat(there.awaitCopy(PATIENCE_NS)).isTrue();
    await("the rest is there", () -> length(second, "x") == 50);
    kill(third);
    see(List.of(second));
    assertThat(tokens(take(second, "x"), 1)).isEqualTo(IntStream.range(0, 50).toArray());
  }

  /** How many tokens a node's copy has; taking a copy changes nothing. */
  private int length(String node, String id) {
    return copy(node, id).map(v -> v.progress().get(1).tokens().length).orElse(-1);
  }

  private Optional<AnswerValue> copy(String node, String id) {
    return at(node).copy(id);
  }

  @Test
  void theCopyIsMadeAnewWhenItsNodeDies() throws Exception {
    Kept kept = open("a", "x");
    say(kept, 0, 10);
    String second = keeper();
    String third = second.equals("b") ? "c" : "b";
    await("it is there", () -> length(second, "x") == 10);
    kill(second);
    say(kept, 10, 20);
    await("it is with the next", () -> length(third, "x") == 20);
    see(List.of("a", third));
    kill("a");
    assertThat(tokens(take(third, "x"), 1)).hasSize(20);
  }

  @Test
  void whoTakesFromALivingNodeStopsItThere() throws Exception {
    Kept kept = open("a", "x");
    say(kept, 0, 5);
    Kept there = take("b", "x");
    assertThat(taken).hasValue(1);
    assertThat(tokens(there, 1)).hasSize(5);
    say(kept, 5, 6); // its generation does not know yet
    assertThat(tokens(kept, 1)).hasSize(5);
    kept.close();
    say(there, 5, 7);
    there.close();
    Kept back = take("a", "x");
    assertThat(tokens(back, 1)).as("the newest counts, not what is left here").hasSize(7);
    assertThat(taken).as("nobody read it there any more").hasValue(1);
    Kept again = take("a", "x");
    assertThat(taken).hasValue(2);
    assertThat(tokens(again, 1)).hasSize(7);
  }

  @Test
  void whatIsCheckedAndRefusedRunsOnWhereItIs() throws Exception {
    Kept kept = open("a", "x");
    say(kept, 0, 5);
    for (String node : NAMES) {
      assertThatThrownBy(
              () ->
                  at(node)
                      .take(
                          "x",
                          "ann",
                          value -> {
                            throw new IllegalArgumentException("not " + value.id());
                          },
                          taken::incrementAndGet))
          .hasMessage("not x");
    }
    assertThat(taken).hasValue(0);
    say(kept, 5, 7);
    assertThat(tokens(kept, 1)).hasSize(7);
    assertThat(kept.value().turn()).isZero();
  }

  @Test
  void whatIsLookedForStaysWhereItIs() throws Exception {
    Kept kept = open("a", "x");
    say(kept, 0, 5);
    for (String node : NAMES) {
      AnswerValue found = at(node).find("x", "ann").orElseThrow();
      assertThat(found.progress().get(1).tokens()).hasSize(5);
      assertThat(at(node).find("x", "bob")).isEmpty();
    }
    assertThat(taken).hasValue(0);
    kill("a");
    see(List.of("b", "c"));
    assertThat(at(keeper()).find("x", "ann")).isPresent();
  }

  @Test
  void whatIsNotHeardOfForLongIsStillKeptWhileItRuns() throws Exception {
    Kept quiet = open("a", "quiet");
    String second = keeper();
    for (int i = 0; i < 200; i++) {
      open("a", "other-" + i).close();
    }
    Kept busy = open("a", "busy");
    say(busy, 0, 100);
    await("it is there", () -> length(second, "busy") == 100);
    say(quiet, 0, 1);
    await("it is there", () -> length(second, "quiet") == 1);
    assertThat(at("a").count()).isEqualTo(202);
    assertThat(nodes.get(second).copies()).isEqualTo(202);
  }

  @Test
  void aTakeThatComesLateDoesNothing() throws Exception {
    Kept kept = open("a", "x");
    Kept there = take("b", "x");
    Kept back = take("a", "x");
    assertThat(back.value().turn()).isEqualTo(2);
    assertThat(taken).hasValue(2);
    for (long late : new long[] {0, 1, 3}) {
      TakeRequest request =
          TakeRequest.newBuilder().setId("x").setTenant("ann").setTurn(late).build();
      TakeReply reply =
          AnswersGrpc.newBlockingStub(nodes.get("c").cluster().channel("a")).take(request);
      assertThat(reply.hasStart()).isFalse();
    }
    assertThat(taken).hasValue(2);
    say(back, 0, 1);
    assertThat(tokens(back, 1)).hasSize(1);
    kept.close();
    there.close();
  }

  @Test
  void aNodeThatWasStartedAnewGetsAllOfItThoughNothingIsNew() throws Exception {
    Kept kept = open("a", "x");
    say(kept, 0, 50);
    String second = keeper();
    await("it is there", () -> length(second, "x") == 50);
    double sent = sentBytes();
    nodes
        .get("a")
        .cluster()
        .nodes(
            infos(NAMES).stream()
                .map(node -> node.id().equals(second) ? again(node) : node)
                .toList());
    registry.changed();
    await("all of it again", () -> sentBytes() > sent + 50);
  }

  private double sentBytes() {
    return nodes.get("a").meters().get("flotilla.serve.answers.sent.bytes").counter().count();
  }

  private static NodeInfo again(NodeInfo node) {
    return new NodeInfo(
        node.id(),
        node.name(),
        node.host(),
        node.httpPort(),
        node.version(),
        node.pid(),
        node.incarnation() + 1,
        node.state(),
        node.profile());
  }

  @Test
  void onlyItsTenantIsGivenIt() throws Exception {
    Kept kept = open("a", "x");
    for (String node : NAMES) {
      refuses(Code.NOT_FOUND, () -> at(node).take("x", "bob", value -> {}, () -> {}));
      refuses(Code.NOT_FOUND, () -> at(node).take("y", "ann", value -> {}, () -> {}));
    }
    assertThat(taken).hasValue(0);
    say(kept, 0, 1);
    assertThat(tokens(kept, 1)).hasSize(1);
  }

  @Test
  void whileANodeDoesNotAnswerNothingIsSaidToBeGone() throws Exception {
    kill("b");
    refuses(Code.UNAVAILABLE, () -> take("c", "x"));
    see(List.of("a", "c"));
    refuses(Code.NOT_FOUND, () -> take("c", "x"));
  }

  @Test
  void whatIsForgottenIsGoneEverywhere() throws Exception {
    Kept kept = open("a", "x");
    String second = keeper();
    kept.forget();
    await("no copy", () -> nodes.get(second).copies() == 0);
    refuses(Code.NOT_FOUND, () -> take("a", "x"));
    assertThat(at("a").count()).isZero();
  }

  @Test
  void whatIsForgottenByAnyNodeEndsAndIsGone() throws Exception {
    for (String node : NAMES) {
      Kept kept = open("a", "x");
      take("b", "x").close();
      Kept there = take("c", "x");
      assertThat(there.awaitCopy(PATIENCE_NS)).isTrue();
      int before = taken.get();
      assertThat(at(node).forget("x", "bob")).isFalse();
      assertThat(taken).hasValue(before);
      assertThat(at(node).forget("x", "ann")).isTrue();
      assertThat(taken).as("its reader is told").hasValue(before + 1);
      for (String other : NAMES) {
        refuses(Code.NOT_FOUND, () -> take(other, "x"));
      }
      assertThat(at(node).forget("x", "ann")).isFalse();
      kept.close();
      there.close();
    }
    Kept running = open("a", "y");
    kill("b");
    refuses(Code.UNAVAILABLE, () -> at("c").forget("y", "ann"));
    running.close();
  }

  @Test
  void aloneThereIsNobodyToWaitFor() throws Exception {
    see(List.of("a"));
    Kept kept = open("a", "x");
    say(kept, 0, 3);
    kept.close();
    assertThat(tokens(take("a", "x"), 1)).hasSize(3);
    // Whoever comes gets all of it.
    see(NAMES);
    Kept other = open("a", "y");
    assertThat(other.awaitCopy(PATIENCE_NS)).isTrue();
    await("both", () -> nodes.get("b").copies() + nodes.get("c").copies() == 2);
  }

  @Test
  void whatNobodyReadsIsBounded() throws Exception {
    AnswerValue large = AnswerCopiesTest.answer("large", "ann", 1, 3_000_000);
    for (int i = 0; i < 12; i++) {
      at("a")
          .open(
              new AnswerValue("l" + i, 0, new byte[0], large.requests(), large.progress()),
              () -> {})
          .close();
    }
    assertThat(at("a").count()).isEqualTo(5); // of 12 MB each, within 64 MiB
  }
}

package dev.flotilla.data.search;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import dev.flotilla.cluster.TestNodes;
import dev.flotilla.data.grid.TestGrids;
import dev.flotilla.data.search.SearchIndex.Visibility;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.MethodOrderer;
import org.junit.jupiter.api.Order;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestMethodOrder;
import org.junit.jupiter.api.io.TempDir;

/**
 * Indexes on a growing and failing cluster. The tests run in order, since they share it: one node,
 * then three, then fewer.
 */
@TestMethodOrder(MethodOrderer.OrderAnnotation.class)
class SearchClusterTest {

  private static final List<String> WORDS =
      List.of(
          "whale", "sea", "ship", "captain", "harpoon", "wind", "sail", "mast", "storm", "wave",
          "shore", "gull", "rope", "anchor", "tide", "fog");
  private static final int DOCUMENTS = 400;

  @TempDir static Path folder;

  private static TestIndexes cluster;
  private static final List<TestGrids.Member> nodes = new ArrayList<>();

  @BeforeAll
  static void startOneNode() {
    cluster = new TestIndexes(folder, new IndexReplicas.Tuning(100, 2_000, 200));
    nodes.addAll(cluster.add(1));
    SearchIndex whales = on(0, "whales");
    whales.create(IndexSettings.DEFAULTS.withShards(3, 2).withRefreshMs(50));
    assertThat(whales.put(documents(7), Visibility.SEARCHABLE))
        .allMatch(SearchIndex.Receipt::searchable);
    SearchIndex alone = on(0, "alone");
    alone.create(IndexSettings.DEFAULTS.withShards(1, 3).withRefreshMs(50));
    alone.put(documents(7), Visibility.SEARCHABLE);
  }

  @AfterAll
  static void stopAll() {
    cluster.close();
  }

  private static SearchIndex on(int node, String index) {
    return cluster.of(nodes.get(node)).index(index);
  }

  private static List<IndexDocument> documents(long seed) {
    Random random = new Random(seed);
    return IntStream.range(0, DOCUMENTS)
        .mapToObj(
            i -> {
              StringBuilder text = new StringBuilder();
              int length = 3 + random.nextInt(30);
              for (int word = 0; word < length; word++) {
                double skew = random.nextDouble();
                text.append(WORDS.get((int) (skew * skew * WORDS.size()))).append(' ');
              }
              return IndexDocument.ofText("doc-" + i, text.toString())
                  .with("number", (long) i)
                  .with("even", i % 2 == 0)
                  .withVector(
                      (float) random.nextGaussian(),
                      (float) random.nextGaussian(),
                      (float) random.nextGaussian());
            })
        .toList();
  }

  private static Map<String, Double> scores(SearchAnswer answer) {
    Map<String, Double> scores = new java.util.LinkedHashMap<>();
    answer.hits().forEach(hit -> scores.put(hit.id(), hit.score()));
    return scores;
  }

  private static final List<String> QUERIES =
      List.of(
          "whale",
          "fog tide",
          "captain harpoon storm",
          "\"sea ship\"",
          "+whale -sea",
          "fog~1",
          "wh* anchor",
          "whale^3 OR gull");

  @Test
  @Order(1)
  void rankingDoesNotDependOnSharding() {
    for (String query : QUERIES) {
      SearchRequest request = SearchRequest.of(query).withK(50);
      SearchAnswer sharded = on(0, "whales").search(request);
      SearchAnswer single = on(0, "alone").search(request);
      assertThat(sharded.hits()).as(query).isNotEmpty();
      assertThat(List.copyOf(scores(sharded).entrySet()))
          .as(query)
          .isEqualTo(List.copyOf(scores(single).entrySet()));
    }
  }

  @Test
  @Order(2)
  void pagesGoThroughAllHitsOnceAndInOrder() {
    SearchRequest request = SearchRequest.of("whale sea").withK(37);
    List<String> whole = on(0, "whales").search(request.withK(DOCUMENTS)).ids();
    List<String> paged = new ArrayList<>();
    SearchAnswer page = on(0, "whales").search(request);
    while (true) {
      paged.addAll(page.ids());
      if (page.next().isEmpty()) {
        break;
      }
      page = on(0, "whales").search(request.after(page.next()));
    }
    assertThat(paged).isEqualTo(whole).doesNotHaveDuplicates();
    SearchRequest sorted =
        SearchRequest.all()
            .withK(100)
            .withSort(
                new SearchRequest.Order("even", true), new SearchRequest.Order("number", false));
    SearchAnswer first = on(0, "whales").search(sorted);
    SearchAnswer second = on(0, "whales").search(sorted.after(first.next()));
    assertThat(first.ids().getFirst()).isEqualTo("doc-0");
    assertThat(first.ids().getLast()).isEqualTo("doc-198");
    assertThat(second.ids().getFirst()).isEqualTo("doc-200");
  }

  @Test
  @Order(3)
  void growthMovesShardsAndEveryNodeFindsTheSame() {
    SearchRequest request = SearchRequest.of("captain storm").withK(20);
    Map<String, Double> before = scores(on(0, "whales").search(request));
    // So many candidates that all vectors are weighed, however they are spread.
    SearchRequest fused =
        SearchRequest.of("captain storm").withVector(new float[] {1, -0.5f, 0.3f}).withK(30);
    SearchAnswer fusedHere = on(0, "whales").search(fused);
    nodes.addAll(cluster.add(2));
    TestNodes.await(
        "two ready replicas of each shard",
        Duration.ofSeconds(20),
        () ->
            on(0, "whales").stats().shards().stream()
                .allMatch(
                    shard ->
                        shard.replicas().stream()
                                .filter(replica -> replica.state().equals("ready"))
                                .count()
                            == 2));
    Set<String> holders = new HashSet<>();
    on(0, "whales").stats().shards().stream()
        .flatMap(shard -> shard.replicas().stream())
        .forEach(replica -> holders.add(replica.node()));
    assertThat(holders).hasSizeGreaterThan(1);
    for (int node = 0; node < 3; node++) {
      SearchAnswer answer = on(node, "whales").search(request);
      assertThat(answer.partial()).isFalse();
      assertThat(scores(answer)).isEqualTo(before);
      SearchAnswer fusedThere = on(node, "whales").search(fused);
      assertThat(List.copyOf(scores(fusedThere).entrySet()))
          .isEqualTo(List.copyOf(scores(fusedHere).entrySet()));
      assertThat(fusedThere.hits()).hasSize(30).allMatch(hit -> hit.source().length > 0);
    }
  }

  private static boolean answers(SearchIndex index) {
    try {
      return !index.search(SearchRequest.of("word")).partial();
    } catch (dev.flotilla.FlotillaException notYet) {
      return false;
    }
  }

  @Test
  @Order(4)
  void writesOfOneDocumentFromManyNodesEndWithTheLastSequence() throws InterruptedException {
    SearchIndex first = on(0, "contended");
    first.create(IndexSettings.DEFAULTS.withShards(2, 2).withRefreshMs(20));
    // A moment after it was made its replicas are not there yet, and a search is refused.
    TestNodes.await(
        "replicas of both shards",
        Duration.ofSeconds(10),
        () ->
            first
                .put(
                    List.of(
                        IndexDocument.ofText("one", "word"), IndexDocument.ofText("3", "other")),
                    Visibility.SEARCHABLE)
                .stream()
                .allMatch(SearchIndex.Receipt::searchable));
    for (int node = 0; node < 3; node++) {
      SearchIndex index = on(node, "contended");
      TestNodes.await("an answer", Duration.ofSeconds(10), () -> answers(index));
    }
    AtomicInteger failures = new AtomicInteger();
    List<Thread> writers = new ArrayList<>();
    List<SearchIndex.Receipt> receipts = java.util.Collections.synchronizedList(new ArrayList<>());
    Map<Long, Long> valueOf = new java.util.concurrent.ConcurrentHashMap<>();
    for (int node = 0; node < 3; node++) {
      SearchIndex index = on(node, "contended");
      int number = node;
      writers.add(
          Thread.ofVirtual()
              .start(
                  () -> {
                    try {
                      for (long i = 0; i < 40; i++) {
                        long value = number * 1000 + i;
                        var receipt =
                            index.put(IndexDocument.ofText("one", "word").with("value", value));
                        receipts.add(receipt);
                        valueOf.put(receipt.sequence(), value);
                        var _ = index.search(SearchRequest.of("word"));
                      }
                    } catch (RuntimeException e) {
                      failures.incrementAndGet();
                      e.printStackTrace();
                    }
                  }));
    }
    for (Thread writer : writers) {
      writer.join();
    }
    assertThat(failures).hasValue(0);
    assertThat(receipts.stream().map(SearchIndex.Receipt::sequence)).doesNotHaveDuplicates();
    long last = receipts.stream().mapToLong(SearchIndex.Receipt::sequence).max().orElseThrow();
    assertThat(first.document("one").orElseThrow().sequence()).isEqualTo(last);
    assertThat(first.put(List.of(IndexDocument.ofText("two", "other")), Visibility.SEARCHABLE))
        .allMatch(SearchIndex.Receipt::searchable);
    for (int node = 0; node < 3; node++) {
      SearchIndex index = on(node, "contended");
      TestNodes.await(
          "the last write everywhere",
          Duration.ofSeconds(5),
          () -> {
            List<SearchAnswer.Hit> hits = index.search(SearchRequest.of("word")).hits();
            return hits.size() == 1
                && hits.getFirst().fields().get("value").equals(valueOf.get(last));
          });
    }
  }

  @Test
  @Order(5)
  void whatAStoppedNodeHeldIsFoundOnReplicasAndItCatchesUpWhenItReturns() throws Exception {
    SearchRequest request = SearchRequest.of("whale sea ship").withK(DOCUMENTS);
    Map<String, Double> before = scores(on(0, "whales").search(request));
    TestGrids.Member stopped = nodes.get(2);
    cluster.stop(stopped);
    TestNodes.await(
        "all shards on the two others",
        Duration.ofSeconds(10),
        () -> !on(0, "whales").search(request).partial());
    assertThat(scores(on(0, "whales").search(request))).isEqualTo(before);
    TestNodes.await("a majority", Duration.ofSeconds(10), () -> nodes.get(0).grid().hasMajority());
    assertThat(
            on(0, "whales")
                .put(List.of(IndexDocument.ofText("late", "kraken")), Visibility.SEARCHABLE)
                .getFirst()
                .searchable())
        .isTrue();
    on(0, "whales").delete(List.of("doc-1"), Visibility.SEARCHABLE);
    Damaged damaged = damageOneReplica(stopped);
    TestGrids.Member again = cluster.restart(stopped);
    nodes.set(2, again);
    TestNodes.await(
        "the returned node's replicas",
        Duration.ofSeconds(20),
        () ->
            on(2, "whales").stats().shards().stream()
                .allMatch(
                    shard ->
                        shard.replicas().stream()
                                .filter(
                                    replica ->
                                        replica.state().equals("ready")
                                            && replica.searchable() == shard.sequence())
                                .count()
                            == 2));
    assertThat(on(2, "whales").search(SearchRequest.of("kraken")).ids()).containsExactly("late");
    assertThat(on(2, "whales").search(request).ids()).doesNotContain("doc-1");
    assertThat(damaged.isThere()).as("the damaged file").isFalse();
  }

  private record Damaged(Path file, byte[] bytes) {
    boolean isThere() throws IOException {
      return Files.exists(file) && java.util.Arrays.equals(Files.readAllBytes(file), bytes);
    }
  }

  /** Flips bytes in the middle of a file of the search library's. */
  private static Damaged damageOneReplica(TestGrids.Member member) throws IOException {
    Path indexes = member.config().dataFolder().resolve("data").resolve("index");
    try (var files = Files.walk(indexes)) {
      Path victim =
          files
              .filter(file -> file.toString().matches(".*\\.(cfs|fdt|doc)"))
              .findFirst()
              .orElseThrow();
      byte[] bytes = Files.readAllBytes(victim);
      for (int i = bytes.length / 3; i < bytes.length / 3 + 16; i++) {
        bytes[i] ^= 0x55;
      }
      Files.write(victim, bytes);
      return new Damaged(victim, bytes);
    }
  }

  @Test
  @Order(6)
  void anIndexThatWasJustMadeAnswersAtOnceAndWhole() {
    for (int node = 0; node < 3; node++) {
      on(node, "fresh-" + node).create(IndexSettings.DEFAULTS.withShards(4, 2).withRefreshMs(50));
      SearchAnswer empty = on(node, "fresh-" + node).search(SearchRequest.of("whale"));
      assertThat(empty.hits()).isEmpty();
      assertThat(empty.partial()).isFalse();
    }
  }

  /** Sixteen shards on one node each: some are on the one that stays, and some on others. */
  @Test
  @Order(7)
  void aShardWithoutAnyReplicaMakesTheAnswerPartialAndTheMinorityDoesNotWrite() {
    SearchIndex left = on(0, "thin");
    left.create(IndexSettings.DEFAULTS.withShards(16, 1).withRefreshMs(50));
    assertThat(left.put(documents(9), Visibility.SEARCHABLE))
        .allMatch(SearchIndex.Receipt::searchable);
    SearchRequest all = SearchRequest.all().withK(DOCUMENTS);
    SearchAnswer whole = left.search(all);
    assertThat(whole.partial()).isFalse();
    assertThat(whole.hits()).hasSize(DOCUMENTS);
    Set<Integer> elsewhere = new HashSet<>();
    for (SearchIndex.ShardStats shard : left.stats().shards()) {
      if (!shard.replicas().getFirst().node().equals(nodes.get(0).id())) {
        elsewhere.add(shard.shard());
      }
    }
    assertThat(elsewhere).as("shards on the nodes that stop").isNotEmpty().hasSizeLessThan(16);
    cluster.stop(nodes.get(1));
    cluster.stop(nodes.get(2));
    TestNodes.await(
        "the cut to be seen", Duration.ofSeconds(10), () -> !nodes.get(0).grid().hasMajority());
    SearchAnswer answer = left.search(all);
    assertThat(answer.stale()).isTrue();
    assertThat(answer.partial()).isTrue();
    assertThat(Set.copyOf(answer.missingShards())).isEqualTo(elsewhere);
    assertThat(answer.ids())
        .containsExactlyElementsOf(
            whole.ids().stream()
                .filter(id -> !elsewhere.contains(SearchPlacement.shardOf(id, 16)))
                .toList());
    assertThatThrownBy(
            () ->
                left.search(
                    SearchRequest.fromJson(
                        SearchRequest.of("whale").toJson().put("allow_stale", false))))
        .isInstanceOfSatisfying(
            FlotillaException.class,
            e -> assertThat(e.code()).isEqualTo(FlotillaException.Code.NO_MAJORITY));
    assertThatThrownBy(() -> left.put(IndexDocument.ofText("lost", "lost")))
        .isInstanceOfSatisfying(
            FlotillaException.class,
            e ->
                assertThat(e.code())
                    .isIn(
                        FlotillaException.Code.NO_MAJORITY,
                        FlotillaException.Code.OUTCOME_UNKNOWN,
                        // While the engine is restarted underneath, to join again.
                        FlotillaException.Code.UNAVAILABLE));
  }
}

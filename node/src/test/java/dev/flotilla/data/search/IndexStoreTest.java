package dev.flotilla.data.search;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.Json;
import dev.flotilla.cluster.TestNodes;
import dev.flotilla.data.grid.Grid;
import dev.flotilla.data.grid.TestGrids;
import dev.flotilla.data.grid.TransactionScope;
import dev.flotilla.data.search.IndexStore.Change;
import dev.flotilla.data.search.IndexStore.Changes;
import dev.flotilla.data.search.IndexStore.Position;
import dev.flotilla.data.search.IndexStore.Write;
import dev.flotilla.data.search.SearchIndex.Visibility;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.TreeMap;
import java.util.random.RandomGenerator;
import java.util.stream.IntStream;
import org.apache.lucene.analysis.standard.StandardAnalyzer;
import org.apache.lucene.document.Document;
import org.apache.lucene.document.Field;
import org.apache.lucene.document.StringField;
import org.apache.lucene.document.TextField;
import org.apache.lucene.index.DirectoryReader;
import org.apache.lucene.index.IndexWriter;
import org.apache.lucene.index.IndexWriterConfig;
import org.apache.lucene.index.TieredMergePolicy;
import org.apache.lucene.queryparser.classic.QueryParser;
import org.apache.lucene.search.IndexSearcher;
import org.apache.lucene.search.ScoreDoc;
import org.apache.lucene.store.ByteBuffersDirectory;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** One node: documents and their changes in the grid, and what a replica makes of them. */
class IndexStoreTest {

  @TempDir static Path folder;

  private static TestIndexes cluster;
  private static TestGrids.Member node;

  @BeforeAll
  static void start() {
    cluster = new TestIndexes(folder, new IndexReplicas.Tuning(50, 2_000, 200));
    node = cluster.add(1).getFirst();
  }

  @AfterAll
  static void stop() {
    cluster.close();
  }

  private static IndexStore store(String index) {
    return store(index, new Random());
  }

  private static IndexStore store(String index, RandomGenerator random) {
    IndexStore store = new IndexStore(node.grid(), random, index, "g");
    store.ensure();
    return store;
  }

  private static Write put(String id, String text) {
    return new Write(id, Optional.of(Json.write(IndexDocument.ofText(id, text).toJson())));
  }

  private static Write remove(String id) {
    return new Write(id, Optional.empty());
  }

  /** A replica that keeps texts. */
  private static final class Follower {
    final Map<String, String> texts = new TreeMap<>();
    Position at = Position.START;
    long startFloor = -1;
    boolean lost;

    void follow(IndexStore store) {
      while (true) {
        Changes changes = store.after(0, at, startFloor);
        lost = changes.lost();
        if (lost) {
          return;
        }
        if (at.sequence() == 0) {
          startFloor = changes.floor();
        }
        for (Change change : changes.changes()) {
          change
              .document()
              .ifPresentOrElse(
                  document -> texts.put(change.id(), document.text()),
                  () -> texts.remove(change.id()));
        }
        at = changes.to();
        if (at.sequence() == changes.last()) {
          return;
        }
      }
    }
  }

  @Test
  void aReplicaThatFollowsFromAnywhereEndsWithTheLastWrites() {
    long seed = new Random().nextLong();
    Random random = new Random(seed);
    IndexStore store = store("random");
    Map<String, String> model = new TreeMap<>();
    Follower early = new Follower();
    for (int round = 0; round < 40; round++) {
      List<Write> writes = new ArrayList<>();
      for (int i = 0; i < 1 + random.nextInt(30); i++) {
        String id = "d" + random.nextInt(25);
        if (random.nextInt(4) == 0) {
          writes.add(remove(id));
          model.remove(id);
        } else {
          String text = "round " + round + " write " + i;
          writes.add(put(id, text));
          model.put(id, text);
        }
      }
      var _ = store.write(0, writes);
      if (random.nextBoolean()) {
        early.follow(store);
        assertThat(early.texts).as("seed %d", seed).isEqualTo(model);
      }
    }
    early.follow(store);
    Follower late = new Follower();
    late.follow(store);
    assertThat(early.texts).as("seed %d", seed).isEqualTo(model);
    assertThat(late.texts).as("seed %d", seed).isEqualTo(model);

    Position before = new Position(3, 0);
    store.trim(0, early.at.sequence());
    Follower afterTrim = new Follower();
    afterTrim.follow(store);
    assertThat(afterTrim.texts).as("seed %d", seed).isEqualTo(model);
    early.follow(store);
    assertThat(early.lost).isFalse();
    assertThat(store.after(0, before, -1).lost())
        .as("a place before the trimmed ones is no place any more")
        .isTrue();
  }

  @Test
  void aReplicaThatSawWritesTheGridLostIsToldSo() {
    IndexStore store = store("lost");
    var _ = store.write(0, List.of(put("a", "1"), put("b", "2")));
    Follower follower = new Follower();
    follower.follow(store);
    assertThat(store.after(0, new Position(9, 7), -1).lost()).as("ahead of the grid").isTrue();
    Position other = new Position(follower.at.sequence(), follower.at.nonce() + 1);
    assertThat(store.after(0, other, -1).lost()).as("another write of this number").isTrue();
    var _ = store.write(0, List.of(put("c", "3")));
    assertThat(store.after(0, other, -1).lost()).isTrue();
    follower.follow(store);
    assertThat(follower.texts).hasSize(3);
    var _ = store.write(0, List.of(put("c", "4")));
    assertThat(store.after(0, follower.at, -1).lost()).as("its change was blanked").isFalse();
  }

  @Test
  void writesInATransactionAreAllThereOrNoneOfThem() {
    SearchIndex index = cluster.of(node).index("together");
    index.create(IndexSettings.DEFAULTS.withShards(3, 1).withRefreshMs(20));
    assertThatThrownBy(
            () ->
                node.grid()
                    .transact(
                        "a test",
                        Grid.TransactionMode.PESSIMISTIC,
                        ignite -> {
                          TransactionScope scope = new TransactionScope("t", step -> {});
                          scope.enter();
                          try {
                            for (int i = 0; i < 9; i++) {
                              var _ = index.put(IndexDocument.ofText("d" + i, "word"));
                            }
                          } finally {
                            scope.leave();
                          }
                          throw new IllegalArgumentException("rolled back");
                        }))
        .hasMessageContaining("rolled back");
    for (int i = 0; i < 9; i++) {
      assertThat(index.document("d" + i)).isEmpty();
    }
    var _ = index.put(List.of(IndexDocument.ofText("e", "word")), Visibility.SEARCHABLE);
    assertThat(index.search(SearchRequest.of("word")).ids()).containsExactly("e");
  }

  @Test
  void rankingEqualsTheBareSearchLibrary() throws Exception {
    Random random = new Random(5);
    List<IndexDocument> documents =
        IntStream.range(0, 500)
            .mapToObj(
                i -> {
                  StringBuilder text = new StringBuilder();
                  for (int word = 0; word < 5 + random.nextInt(40); word++) {
                    double skew = random.nextDouble();
                    text.append("w").append((int) (skew * skew * 60)).append(' ');
                  }
                  return IndexDocument.ofText("%03d".formatted(i), text.toString());
                })
            .toList();
    SearchIndex ours = cluster.of(node).index("ranked");
    ours.create(IndexSettings.DEFAULTS.withShards(1, 1).withRefreshMs(20));
    var _ = ours.put(documents, Visibility.SEARCHABLE);
    StandardAnalyzer analyzer = new StandardAnalyzer();
    try (ByteBuffersDirectory directory = new ByteBuffersDirectory()) {
      try (IndexWriter writer = new IndexWriter(directory, new IndexWriterConfig(analyzer))) {
        for (IndexDocument document : documents) {
          Document bare = new Document();
          bare.add(new StringField("id", document.id(), Field.Store.YES));
          bare.add(new TextField("text", document.text(), Field.Store.NO));
          var _ = writer.addDocument(bare);
        }
      }
      try (DirectoryReader reader = DirectoryReader.open(directory)) {
        IndexSearcher searcher = new IndexSearcher(reader);
        for (String query :
            List.of("w1", "w0 w30", "w2 w40 w59", "\"w3 w4\"", "+w5 -w6", "w5^4 w7")) {
          // By id where scores are equal: ids are in the order in which the documents were added.
          List<String> expected = new ArrayList<>();
          for (ScoreDoc one :
              searcher.search(new QueryParser("text", analyzer).parse(query), 100).scoreDocs) {
            expected.add(searcher.storedFields().document(one.doc).get("id") + " " + one.score);
          }
          List<String> found =
              ours.search(SearchRequest.of(query).withK(100)).hits().stream()
                  .map(hit -> hit.id() + " " + (float) hit.score())
                  .toList();
          assertThat(found).as(query).isNotEmpty().isEqualTo(expected);
        }
      }
    }
  }

  @Test
  void theNearestVectorsAreFoundAlsoQuantisedAndUnderAFilter() {
    Random random = new Random(6);
    List<IndexDocument> documents =
        IntStream.range(0, 600)
            .mapToObj(
                i -> {
                  float[] vector = new float[16];
                  for (int j = 0; j < vector.length; j++) {
                    vector[j] = (float) random.nextGaussian();
                  }
                  return IndexDocument.ofText("v" + i, "")
                      .with("odd", i % 2 == 1)
                      .withVector(vector);
                })
            .toList();
    for (var kind : IndexSettings.Quantization.values()) {
      SearchIndex index = cluster.of(node).index("near-" + kind);
      index.create(
          IndexSettings.DEFAULTS
              .withShards(2, 1)
              .withRefreshMs(20)
              .withVectors(new IndexSettings.Vectors(16, IndexSettings.Similarity.COSINE, kind)));
      var _ = index.put(documents, Visibility.SEARCHABLE);
      int found = 0;
      for (int query = 0; query < 20; query++) {
        float[] near = documents.get(query * 29).vector().clone();
        near[0] += 0.5f;
        List<String> exact =
            documents.stream()
                .filter(document -> document.fields().get("odd").equals(true))
                .sorted(
                    java.util.Comparator.comparingDouble(
                        document -> -cosine(document.vector(), near)))
                .limit(10)
                .map(IndexDocument::id)
                .toList();
        SearchAnswer answer =
            index.search(SearchRequest.of(near).withFilter(SearchFilter.is("odd", true)));
        found += answer.ids().stream().filter(exact::contains).toList().size();
        if (answer.ids().getFirst().equals(exact.getFirst())) {
          float[] best = documents.get(Integer.parseInt(exact.getFirst().substring(1))).vector();
          assertThat(answer.hits().getFirst().score())
              .isCloseTo((1 + cosine(best, near)) / 2, org.assertj.core.data.Offset.offset(1e-4));
        }
      }
      assertThat(found / 200.0).as("recall of %s", kind).isGreaterThan(0.97);
    }
  }

  private static double cosine(float[] a, float[] b) {
    double ab = 0;
    double aa = 0;
    double bb = 0;
    for (int i = 0; i < a.length; i++) {
      ab += a[i] * b[i];
      aa += a[i] * a[i];
      bb += b[i] * b[i];
    }
    return ab / Math.sqrt(aa * bb);
  }

  @Test
  void wordsAndVectorsTogetherAreFusedAcrossShards() {
    SearchIndex index = cluster.of(node).index("hybrid");
    index.create(IndexSettings.DEFAULTS.withShards(2, 1).withRefreshMs(20));
    var _ =
        index.put(
            List.of(
                IndexDocument.ofText("both", "whale").withVector(1, 0.1f),
                IndexDocument.ofText("words", "whale whale").withVector(-1, 0),
                IndexDocument.ofText("near", "ship").withVector(1, 0),
                IndexDocument.ofText("neither", "ship").withVector(-1, 0.5f)),
            Visibility.SEARCHABLE);
    SearchAnswer answer =
        index.search(SearchRequest.of("whale").withVector(new float[] {1, 0.05f}).withK(4));
    assertThat(answer.ids().getFirst()).isEqualTo("both");
    assertThat(answer.ids()).hasSize(4);
    double words =
        answer.hits().stream()
            .filter(h -> h.id().equals("words"))
            .findFirst()
            .orElseThrow()
            .score();
    double near =
        answer.hits().stream().filter(h -> h.id().equals("near")).findFirst().orElseThrow().score();
    assertThat(List.of(words, near)).allMatch(score -> score > 1.0 / 65 && score < 2.0 / 61);
  }

  /** Each write that is waited for makes a segment; a merge ends after it, in the background. */
  @Test
  void segmentsThatWereMergedAreSearchedAlsoIfNothingIsWrittenAfter() {
    SearchIndex index = cluster.of(node).index("merged");
    index.create(IndexSettings.DEFAULTS.withShards(1, 1).withRefreshMs(20));
    int most = (int) new TieredMergePolicy().getSegmentsPerTier();
    for (int i = 0; i < 4 * most; i++) {
      var _ = index.put(List.of(IndexDocument.ofText("d" + i, "word")), Visibility.SEARCHABLE);
      TestNodes.await(
          "fewer segments after write " + i,
          Duration.ofSeconds(10),
          () -> index.stats().shards().getFirst().replicas().getFirst().segments() <= most);
    }
    assertThat(index.search(SearchRequest.of("word").withK(1)).total()).isEqualTo(4L * most);
  }

  @Test
  void aDroppedIndexLeavesNothingBehind() {
    SearchIndex index = cluster.of(node).index("gone");
    var _ = index.put(List.of(IndexDocument.ofText("a", "word")), Visibility.SEARCHABLE);
    Path folderOfAll = node.config().dataFolder().resolve("data").resolve("index");
    assertThat(folderOfAll.toFile().list()).anyMatch(name -> name.startsWith("gone@"));
    index.drop();
    TestNodes.await(
        "its folder to go",
        Duration.ofSeconds(5),
        () ->
            java.util.Arrays.stream(java.util.Objects.requireNonNull(folderOfAll.toFile().list()))
                .noneMatch(name -> name.startsWith("gone@")));
    List<String> caches = node.grid().read("a test", ignite -> List.copyOf(ignite.cacheNames()));
    assertThat(caches).noneMatch(name -> name.startsWith("flotilla.index.gone@"));
  }
}

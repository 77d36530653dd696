package dev.flotilla.data.search;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.core.JsonProcessingException;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import java.io.IOException;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.function.Predicate;
import java.util.stream.IntStream;
import org.apache.lucene.document.Document;
import org.apache.lucene.index.DirectoryReader;
import org.apache.lucene.index.IndexWriter;
import org.apache.lucene.index.IndexWriterConfig;
import org.apache.lucene.search.IndexSearcher;
import org.apache.lucene.search.Query;
import org.apache.lucene.search.ScoreDoc;
import org.apache.lucene.store.ByteBuffersDirectory;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Queries, filters and documents against a schema; no cluster. */
class SearchQueryTest {

  private static final IndexSchema SCHEMA =
      new IndexSchema(
          IndexSettings.DEFAULTS
              .withAnalyzer("english")
              .withFields(
                  Map.of(
                      "title", new IndexField(IndexField.Type.TEXT),
                      "tag", new IndexField(IndexField.Type.KEYWORD),
                      "year", new IndexField(IndexField.Type.LONG),
                      "price", new IndexField(IndexField.Type.DOUBLE),
                      "sold", new IndexField(IndexField.Type.BOOLEAN),
                      "day", new IndexField(IndexField.Type.DATE),
                      "titel", new IndexField(IndexField.Type.TEXT, "chinese"))));

  private static SearchPlan plan(String query) {
    return SearchPlan.of(SCHEMA, SearchRequest.of(query));
  }

  private static void assertCode(
      Code code, org.assertj.core.api.ThrowableAssert.ThrowingCallable call, String... parts) {
    assertThatThrownBy(call)
        .isInstanceOfSatisfying(
            FlotillaException.class,
            e -> {
              assertThat(e.code()).isEqualTo(code);
              assertThat(e.getMessage()).contains(parts);
            });
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      quoteCharacter = '`',
      value = {
        "(whale | character 7",
        "whale) ship | character 6",
        "\"a phrase | character 10",
        "year:[1 TO | character 11",
        "whale AND AND ship | character 11",
        "colour:red | colour",
        "year:soon | year",
        "day:yesterday | day",
        "*whale | leading",
        "year:19* | year",
        "sold:maybe | sold",
      })
  void aMalformedQueryIsRefusedWithItsPlace(String query, String part) {
    String leading = part.equals("leading") ? "" : part;
    assertCode(Code.INVALID, () -> plan(query), "query", leading);
  }

  @Test
  void whatExplodesIsBounded() {
    assertCode(Code.TOO_LARGE, () -> plan("w ".repeat(1500)), "1024");
    assertCode(Code.TOO_LARGE, () -> plan("wh* ".repeat(17)), "patterns");
    assertCode(Code.TOO_LARGE, () -> plan("wh" + "?a".repeat(200) + "*"), "256");
    assertCode(Code.INVALID, () -> plan("(".repeat(5000) + "a" + ")".repeat(4000)), "nested");
    assertCode(Code.INVALID, () -> plan("/(a|b)*a(a|b){40}/"), "pattern");
    assertCode(Code.INVALID, () -> plan("/[unclosed/"), "");
    assertCode(
        Code.TOO_LARGE,
        () ->
            SearchPlan.of(
                SCHEMA, SearchRequest.of("w ".repeat(1500)).withSyntax(SearchRequest.Syntax.PLAIN)),
        "1024");
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "who is (this",
        "what: the?",
        "a \"quote",
        "50% off!",
        "AND OR NOT",
        "c:\\temp\\*"
      })
  void plainWordsAreNeverMalformed(String words) {
    var plan =
        SearchPlan.of(SCHEMA, SearchRequest.of(words).withSyntax(SearchRequest.Syntax.PLAIN));
    assertThat(plan.isScored()).isTrue();
  }

  @Test
  void randomBytesAreEitherReadOrRefused() {
    long seed = new Random().nextLong();
    Random random = new Random(seed);
    String signs = "ab \"()[]{}+-!^~*?:\\/&|<>=.,0123TOANDNOT\u4e2d\ud83d\ude00";
    for (int i = 0; i < 5_000; i++) {
      StringBuilder query = new StringBuilder();
      int length = random.nextInt(20);
      for (int j = 0; j < length; j++) {
        query.append(signs.charAt(random.nextInt(signs.length())));
      }
      try {
        var _ = plan(query.toString());
      } catch (FlotillaException e) {
        assertThat(e.code()).isIn(Code.INVALID, Code.TOO_LARGE);
      } catch (RuntimeException e) {
        throw new AssertionError("seed " + seed + ", query " + query, e);
      }
    }
  }

  @Test
  void wordsAreFoundByTheirStemsAndChineseByItsWords() throws IOException {
    try (Shelf shelf = new Shelf()) {
      shelf.add(IndexDocument.ofText("en", "The whales were swimming").with("title", "Moby Dick"));
      shelf.add(IndexDocument.ofText("zh", "").with("titel", "我喜欢在北京的公园里散步"));
      assertThat(shelf.find("whale swim")).containsExactly("en");
      assertThat(shelf.find("Where is the whale?")).containsExactly("en");
      assertThat(shelf.find("titel:北京")).containsExactly("zh");
      assertThat(shelf.find("titel:公园")).containsExactly("zh");
      assertThat(shelf.find("titel:京")).as("across the words").isEmpty();
      assertThat(shelf.find("title:\"moby dick\"")).containsExactly("en");
      assertThat(shelf.find("whalr~1")).containsExactly("en");
      assertThat(shelf.find("/wha.*/")).containsExactly("en");
    }
  }

  /**
   * Filters, and what they should let through, checked against plain Java over random documents.
   */
  @Test
  void filtersLetThroughWhatTheySay() throws IOException {
    long seed = new Random().nextLong();
    Random random = new Random(seed);
    List<IndexDocument> documents = new ArrayList<>();
    for (int i = 0; i < 300; i++) {
      IndexDocument document = IndexDocument.ofText("d" + i, "text");
      if (random.nextInt(10) > 0) {
        document =
            document
                .with("tag", List.of("t" + random.nextInt(4), "u" + random.nextInt(4)))
                .with("year", 1990L + random.nextInt(20))
                .with("price", random.nextInt(10) / 2.0)
                .with("sold", random.nextBoolean())
                .with("day", "2026-01-%02dT00:00:00Z".formatted(1 + random.nextInt(28)));
      }
      documents.add(document);
    }
    Map<String, Predicate<Map<String, Object>>> filters =
        Map.of(
            "{\"tag\": \"t1\"}", f -> f.getOrDefault("tag", List.of()).toString().contains("t1"),
            "{\"year\": [1991, 1995]}", f -> Set.of(1991L, 1995L).contains(year(f)),
            "{\"year\": {\"gt\": 1995, \"lte\": 2000}}", f -> year(f) > 1995 && year(f) <= 2000,
            "{\"price\": {\"gte\": 1.5, \"lt\": 3}}",
                f -> f.containsKey("price") && price(f) >= 1.5 && price(f) < 3,
            "{\"sold\": true}", f -> Boolean.TRUE.equals(f.get("sold")),
            "{\"not\": {\"sold\": true}}", f -> !Boolean.TRUE.equals(f.get("sold")),
            "{\"exists\": \"year\"}", f -> f.containsKey("year"),
            "{\"day\": {\"lt\": \"2026-01-10\"}}",
                f ->
                    f.containsKey("day")
                        && f.get("day").toString().compareTo("2026-01-10T00:00:00Z") < 0,
            "{\"or\": [{\"tag\": \"t1\"}, {\"and\": [{\"year\": 1999}, {\"sold\": false}]}]}",
                f ->
                    f.getOrDefault("tag", List.of()).toString().contains("t1")
                        || (year(f) == 1999 && Boolean.FALSE.equals(f.get("sold"))),
            "{\"unknown\": 1}", f -> false);
    try (Shelf shelf = new Shelf()) {
      documents.forEach(shelf::add);
      for (var filter : filters.entrySet()) {
        SearchFilter parsed = SearchFilter.fromJson(Json.MAPPER.readTree(filter.getKey()));
        assertThat(SearchFilter.fromJson(parsed.toJson())).isEqualTo(parsed);
        Set<String> expected = new HashSet<>();
        documents.stream()
            .filter(document -> filter.getValue().test(document.fields()))
            .forEach(document -> expected.add(document.id()));
        assertThat(shelf.find(SearchPlan.filter(SCHEMA, parsed)))
            .as("seed %d, filter %s", seed, filter.getKey())
            .isEqualTo(expected);
      }
    }
  }

  private static long year(Map<String, Object> fields) {
    return (Long) fields.getOrDefault("year", 0L);
  }

  private static double price(Map<String, Object> fields) {
    return (Double) fields.getOrDefault("price", 0.0);
  }

  @Test
  void aFilterThatIsNoneIsRefused() {
    for (String wrong :
        List.of(
            "[]",
            "{\"and\": {}}",
            "{\"year\": {\"from\": 1}}",
            "{\"year\": {}}",
            "{\"year\": {\"gt\": 1, \"gte\": 1}}",
            "{\"year\": null}",
            "{\"exists\": 1}")) {
      assertCode(Code.INVALID, () -> SearchFilter.fromJson(Json.MAPPER.readTree(wrong)), "filter");
    }
    assertCode(
        Code.TOO_LARGE,
        () ->
            SearchFilter.fromJson(
                Json.MAPPER.valueToTree(Map.of("year", IntStream.range(0, 2000).boxed().toList()))),
        "1024");
    assertCode(
        Code.INVALID,
        () -> SearchPlan.filter(SCHEMA, SearchFilter.is("title", "x")),
        "title",
        "text");
  }

  @Test
  void fieldsAreTypedAtTheirFirstUseAndConflictsNameTheField() {
    IndexSchema fresh = new IndexSchema(IndexSettings.DEFAULTS);
    IndexSchema typed =
        new IndexSchema(
            fresh.with(
                IndexDocument.ofText("1", "")
                    .with("n", 1L)
                    .with("x", 1.5)
                    .with("s", "word")
                    .with("b", true)
                    .with("many", List.of(1L, 2.5))
                    .withVector(1, 2)));
    assertThat(typed.settings().fields())
        .containsEntry("n", new IndexField(IndexField.Type.LONG))
        .containsEntry("x", new IndexField(IndexField.Type.DOUBLE))
        .containsEntry("s", new IndexField(IndexField.Type.KEYWORD))
        .containsEntry("b", new IndexField(IndexField.Type.BOOLEAN))
        .containsEntry("many", new IndexField(IndexField.Type.DOUBLE));
    assertThat(typed.with(IndexDocument.ofText("2", "").with("x", 2L))).isEqualTo(typed.settings());
    for (IndexDocument wrong :
        List.of(
            IndexDocument.ofText("doc", "").with("n", 1.5),
            IndexDocument.ofText("doc", "").with("s", 1L),
            IndexDocument.ofText("doc", "").with("b", "true"))) {
      String field = wrong.fields().keySet().iterator().next();
      assertCode(Code.INVALID, () -> typed.with(wrong), "document doc", field);
    }
    assertCode(
        Code.INVALID, () -> typed.with(IndexDocument.ofText("doc", "").withVector(1)), "vector");
    assertCode(
        Code.INVALID,
        () -> typed.with(IndexDocument.ofText("doc", "").withVector(1, Float.NaN)),
        "vector[1]");
    assertCode(
        Code.INVALID, () -> typed.with(IndexDocument.ofText("doc", "").withVector(0, 0)), "zero");
    assertCode(
        Code.INVALID, () -> typed.with(IndexDocument.ofText("doc", "").with("_id", "x")), "_id");
  }

  @Test
  void requestsAndSettingsSurviveTheirJson() throws JsonProcessingException {
    SearchRequest request =
        SearchRequest.of("whale")
            .withK(7)
            .withFilter(
                new SearchFilter.And(
                    List.of(
                        SearchFilter.is("or", "x"),
                        new SearchFilter.Not(new SearchFilter.Exists("year")))))
            .withSort(new SearchRequest.Order("year", true))
            .withSearchFields("title^2", "text")
            .withHighlight("text");
    assertThat(SearchRequest.fromJson(Json.MAPPER.readTree(request.toJson().toString())))
        .isEqualTo(request);
    assertThat(IndexSettings.fromJson(SCHEMA.settings().toJson())).isEqualTo(SCHEMA.settings());
  }

  @Test
  void fusionSumsReciprocalRanks() {
    List<SearchHits.Ranked> fused =
        SearchHits.fuse(List.of(hits("a", "b", "c"), hits("c", "a", "d")));
    assertThat(fused.stream().map(one -> one.hit().id())).containsExactly("a", "c", "b", "d");
    assertThat(fused.get(0).score()).isEqualTo(1.0 / 61 + 1.0 / 62);
    assertThat(fused.get(1).score()).isEqualTo(1.0 / 63 + 1.0 / 61);
    assertThat(fused.get(2).score()).isEqualTo(1.0 / 62);
    assertThat(SearchHits.fuse(List.of(hits("z"), hits("y"))).stream().map(one -> one.hit().id()))
        .as("equal scores by id")
        .containsExactly("y", "z");
  }

  /** Shards that read only what may be on the page, beside one ranking of all. */
  @Test
  void whatAShardLeavesUnreadIsNeverOnTheFusedPage() {
    long seed = System.nanoTime();
    Random random = new Random(seed);
    int unread = 0;
    for (int round = 0; round < 2000; round++) {
      int shards = 1 + random.nextInt(4);
      int k = 1 + random.nextInt(6);
      int depth = k + random.nextInt(20);
      double likeness = random.nextDouble();
      List<List<SearchHits.ShardHit>> lists = new ArrayList<>();
      List<List<SearchHits.ShardHit>> nearests = new ArrayList<>();
      List<SearchHits.ShardHit> list = new ArrayList<>();
      List<SearchHits.ShardHit> nearest = new ArrayList<>();
      Set<String> possible = new HashSet<>();
      for (int shard = 0; shard < shards; shard++) {
        List<SearchHits.ShardHit> words = new ArrayList<>();
        List<SearchHits.ShardHit> vectors = new ArrayList<>();
        for (int i = random.nextInt(40); i > 0; i--) {
          String id = random.nextInt(1000) + "-" + shard + "-" + i;
          float score = random.nextInt(30);
          float other = random.nextDouble() < likeness ? score : random.nextInt(30);
          words.add(new SearchHits.ShardHit(id, score, List.of(), new byte[0], Map.of()));
          vectors.add(new SearchHits.ShardHit(id, other, List.of(), new byte[0], Map.of()));
        }
        lists.add(best(words, depth));
        nearests.add(best(vectors, depth));
        List<String> wordIds = lists.getLast().stream().map(SearchHits.ShardHit::id).toList();
        List<String> nearIds = nearests.getLast().stream().map(SearchHits.ShardHit::id).toList();
        Set<String> read = SearchHits.mayBeAmongTheBest(wordIds, nearIds, k);
        possible.addAll(read);
        Set<String> all = new HashSet<>(wordIds);
        all.addAll(nearIds);
        unread += all.size() - read.size();
        list.addAll(lists.getLast());
        nearest.addAll(nearests.getLast());
      }
      List<SearchHits.Ranked> page =
          SearchHits.first(SearchHits.fuse(List.of(best(list, depth), best(nearest, depth))), k);
      assertThat(possible)
          .as("seed %s, round %s", seed, round)
          .containsAll(page.stream().map(one -> one.hit().id()).toList());
    }
    assertThat(unread).as("seed %s", seed).isGreaterThan(2000);
  }

  private static List<SearchHits.ShardHit> best(List<SearchHits.ShardHit> hits, int count) {
    return SearchHits.first(hits.stream().sorted(SearchHits.BY_SCORE).toList(), count);
  }

  private static List<SearchHits.ShardHit> hits(String... ids) {
    return java.util.Arrays.stream(ids)
        .map(id -> new SearchHits.ShardHit(id, 1, List.of(), new byte[0], Map.of()))
        .toList();
  }

  @Test
  void aNodeThatJoinsTakesItsShareAndMovesNothingElse() {
    List<String> nodes = IntStream.range(0, 5).mapToObj(i -> "node-" + i).toList();
    List<String> more = new ArrayList<>(nodes);
    more.add("node-5");
    int taken = 0;
    for (int shard = 0; shard < 3000; shard++) {
      List<String> before = SearchPlacement.rank("generation", shard, nodes);
      List<String> after = new ArrayList<>(SearchPlacement.rank("generation", shard, more));
      if (after.getFirst().equals("node-5")) {
        taken++;
      }
      after.remove("node-5");
      assertThat(after).isEqualTo(before);
    }
    assertThat(taken).isBetween(400, 600);
    Map<Integer, Long> spread =
        IntStream.range(0, 3000)
            .boxed()
            .collect(
                java.util.stream.Collectors.groupingBy(
                    i -> SearchPlacement.shardOf("document " + i, 6),
                    java.util.stream.Collectors.counting()));
    assertThat(spread.values()).hasSize(6).allMatch(count -> count > 400 && count < 600);
  }

  /** Documents in memory. */
  private static final class Shelf implements AutoCloseable {
    private final ByteBuffersDirectory directory = new ByteBuffersDirectory();
    private final IndexWriter writer;

    Shelf() throws IOException {
      writer = new IndexWriter(directory, new IndexWriterConfig(SCHEMA.analyzer()));
    }

    void add(IndexDocument document) {
      try {
        Document made = new IndexSchema(SCHEMA.with(document)).toLucene(document);
        var _ = writer.addDocument(made);
      } catch (IOException e) {
        throw new AssertionError(e);
      }
    }

    Set<String> find(String query) throws IOException {
      return find(plan(query).listQuery());
    }

    Set<String> find(Query query) throws IOException {
      Set<String> ids = new HashSet<>();
      try (DirectoryReader reader = DirectoryReader.open(writer)) {
        IndexSearcher searcher = new IndexSearcher(reader);
        for (ScoreDoc one : searcher.search(query, 1000).scoreDocs) {
          ids.add(searcher.storedFields().document(one.doc).get(IndexSchema.ID));
        }
      }
      return ids;
    }

    @Override
    public void close() throws IOException {
      writer.close();
      directory.close();
    }
  }
}

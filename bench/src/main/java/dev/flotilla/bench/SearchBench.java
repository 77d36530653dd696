package dev.flotilla.bench;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.Json;
import dev.flotilla.cluster.ClusterConfig;
import dev.flotilla.cluster.ClusterNode;
import dev.flotilla.data.DataPlane;
import dev.flotilla.data.grid.Environment;
import dev.flotilla.data.search.IndexDocument;
import dev.flotilla.data.search.IndexSettings;
import dev.flotilla.data.search.SearchAnswer;
import dev.flotilla.data.search.SearchIndex;
import dev.flotilla.data.search.SearchIndex.Visibility;
import dev.flotilla.data.search.SearchIndexes;
import dev.flotilla.data.search.SearchRequest;
import io.micrometer.core.instrument.simple.SimpleMeterRegistry;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.SecureRandom;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.apache.lucene.analysis.Analyzer;
import org.apache.lucene.analysis.en.EnglishAnalyzer;
import org.apache.lucene.document.Document;
import org.apache.lucene.document.Field;
import org.apache.lucene.document.StoredField;
import org.apache.lucene.document.StringField;
import org.apache.lucene.document.TextField;
import org.apache.lucene.index.DirectoryReader;
import org.apache.lucene.index.IndexWriter;
import org.apache.lucene.index.IndexWriterConfig;
import org.apache.lucene.queryparser.classic.QueryParser;
import org.apache.lucene.search.IndexSearcher;
import org.apache.lucene.search.ScoreDoc;
import org.apache.lucene.store.FSDirectory;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/**
 * One shard of ours beside the bare search library: the same documents, the same queries, one
 * thread, in turns in one run. And how many of the ten nearest vectors are found.
 *
 * <p>Both parse the query's text and read id and stored document of the ten best. Ours stores each
 * document in the data grid first (written through to the disk) and makes the index from it.
 */
@Command(
    name = "search",
    description = "Words beside bare Lucene on one shard; recall of vectors.",
    mixinStandardHelpOptions = true)
final class SearchBench implements Callable<Integer> {

  private static final int K = 10;
  private static final int DIMENSIONS = 96;

  @Option(names = "--text", description = "A text to make documents of.", required = true)
  private Path text = Path.of(".");

  @Option(names = "--documents", defaultValue = "50000", description = "How many to make.")
  private int documents;

  @Option(names = "--queries", defaultValue = "2000", description = "How many different ones.")
  private int queries;

  @Option(names = "--rounds", defaultValue = "6", description = "Turns that each has.")
  private int rounds;

  @Option(names = "--vectors", defaultValue = "10000", description = "How many; 0 leaves them out.")
  private int vectors;

  @Option(names = "--port", defaultValue = "17700", description = "The first of seven free ports.")
  private int port;

  @Option(names = "--json", description = "Print JSON.")
  private boolean asJson;

  private final ObjectNode figures = Json.MAPPER.createObjectNode();

  @Override
  public Integer call() throws Exception {
    Path folder = Files.createTempDirectory("flotilla-search-bench");
    try (ClusterNode cluster =
        ClusterNode.create(
            new ClusterConfig(
                folder.resolve("node"),
                "bench",
                "127.0.0.1",
                "127.0.0.1",
                port,
                "bench",
                InstantSource.system(),
                Map.of()))) {
      try (DataPlane data =
          new DataPlane(
              new Environment(
                  cluster,
                  folder.resolve("node"),
                  "127.0.0.1",
                  port,
                  new SimpleMeterRegistry(),
                  InstantSource.system(),
                  System::nanoTime,
                  new SecureRandom()))) {
        cluster.start();
        data.start();
        List<IndexDocument> corpus = corpus();
        words(corpus, data.search(), folder.resolve("bare"));
        if (vectors > 0) {
          nearest(corpus.subList(0, Math.min(vectors, corpus.size())), data.search());
        }
      }
    } finally {
      delete(folder);
    }
    if (asJson) {
      System.out.println(figures.toPrettyString());
    }
    return 0;
  }

  /** Documents of four passages each, drawn from the text; the first ones are the text itself. */
  private List<IndexDocument> corpus() throws IOException {
    String[] passages = Files.readString(text).split("\n\n");
    Random random = new Random(1);
    List<IndexDocument> all = new ArrayList<>();
    for (int i = 0; i < documents; i++) {
      StringBuilder body = new StringBuilder();
      for (int part = 0; part < 4; part++) {
        int at = 4L * i + part < passages.length ? 4 * i + part : random.nextInt(passages.length);
        body.append(passages[at]).append("\n\n");
      }
      all.add(IndexDocument.ofText("passage-" + i, body.toString()));
    }
    return all;
  }

  private List<String> queries(List<IndexDocument> corpus) {
    Random random = new Random(2);
    List<String> all = new ArrayList<>();
    while (all.size() < queries) {
      String[] words =
          corpus
              .get(random.nextInt(corpus.size()))
              .text()
              .toLowerCase(Locale.ROOT)
              .split("[^a-z]+");
      StringBuilder query = new StringBuilder();
      int count = 1 + random.nextInt(4);
      for (int i = 0; i < count; i++) {
        query.append(words[random.nextInt(words.length)]).append(' ');
      }
      if (query.toString().strip().length() > 3) {
        all.add(query.toString().strip());
      }
    }
    return all;
  }

  private void words(List<IndexDocument> corpus, SearchIndexes indexes, Path folder)
      throws Exception {
    Analyzer analyzer = new EnglishAnalyzer();
    try (FSDirectory directory = FSDirectory.open(folder)) {
      long start = System.nanoTime();
      try (IndexWriter writer = new IndexWriter(directory, new IndexWriterConfig(analyzer))) {
        int added = 0;
        for (IndexDocument document : corpus) {
          Document bare = new Document();
          bare.add(new StringField("_id", document.id(), Field.Store.YES));
          bare.add(new StoredField("_source", Json.write(document.toJson())));
          bare.add(new TextField("text", document.text(), Field.Store.NO));
          writer.addDocument(bare);
          if (++added % 1000 == 0) {
            // As ours does: what is written can be found soon.
            DirectoryReader.open(writer).close();
          }
        }
        writer.commit();
      }
      rate(
          "bare Lucene: documents/s indexed, shown every 1000, committed at the end",
          corpus.size(),
          start);

      SearchIndex ours = indexes.index("words");
      ours.create(IndexSettings.DEFAULTS.withShards(1, 1).withAnalyzer("english"));
      start = System.nanoTime();
      for (int from = 0; from < corpus.size(); from += 1000) {
        List<IndexDocument> batch = corpus.subList(from, Math.min(corpus.size(), from + 1000));
        Visibility wait = from + 1000 >= corpus.size() ? Visibility.SEARCHABLE : Visibility.DURABLE;
        var _ = ours.put(batch, wait);
      }
      rate(
          "ours: documents/s durable in the grid and searchable, batches of 1000",
          corpus.size(),
          start);
      SearchIndex other = indexes.index("singles");
      int singles = 300;
      start = System.nanoTime();
      for (int i = 0; i < singles; i++) {
        var _ = other.put(corpus.get(i));
      }
      rate("ours: documents/s durable, one at a time, one client", singles, start);
      try (DirectoryReader reader = openOurs(folder.resolveSibling("node"), corpus.size())) {
        IndexSearcher searcher = new IndexSearcher(reader);
        say("segments", String.valueOf(reader.leaves().size()));
        List<String> all = queries(corpus);
        Ask bare = query -> bare(searcher, analyzer, query);
        Ask mine = query -> ours(ours, query);
        int same = 0;
        for (String query : all) {
          same += bare.of(query).equals(mine.of(query)) ? 1 : 0;
        }
        say("queries with the same ten scores in both", same + " of " + all.size() + "");
        List<long[]> bareNs = new ArrayList<>();
        List<long[]> ourNs = new ArrayList<>();
        for (int round = 0; round < rounds + 2; round++) {
          boolean first = round % 2 == 0;
          long[] a = time(first ? bare : mine, all);
          long[] b = time(first ? mine : bare, all);
          if (round >= 2) {
            bareNs.add(first ? a : b);
            ourNs.add(first ? b : a);
          }
        }
        double bareRate = latencies("bare Lucene", bareNs);
        double ourRate = latencies("ours", ourNs);
        say("ours / bare Lucene, queries/s", String.format("%.3f", ourRate / bareRate));
      }
    }
  }

  /** The bare library on our shard's own folder, so that both search the same segments. */
  private static DirectoryReader openOurs(Path node, int documents) throws Exception {
    Path shard;
    try (Stream<Path> indexes = Files.list(node.resolve("data").resolve("index"))) {
      shard =
          indexes
              .filter(index -> index.getFileName().toString().startsWith("words@"))
              .findFirst()
              .orElseThrow()
              .resolve("0");
    }
    for (int i = 0; i < 60; i++) {
      DirectoryReader reader = DirectoryReader.open(FSDirectory.open(shard));
      if (reader.numDocs() == documents) {
        return reader;
      }
      reader.close();
      Thread.sleep(1000);
    }
    throw new IllegalStateException("the shard was not committed");
  }

  @FunctionalInterface
  private interface Ask {
    List<Double> of(String query) throws Exception;
  }

  private static List<Double> bare(IndexSearcher searcher, Analyzer analyzer, String query)
      throws Exception {
    List<Double> scores = new ArrayList<>();
    var stored = searcher.storedFields();
    for (ScoreDoc one :
        searcher.search(new QueryParser("text", analyzer).parse(query), K).scoreDocs) {
      Document document = stored.document(one.doc);
      if (document.getBinaryValue("_source").length > 0) {
        scores.add(document.get("_id").isEmpty() ? -1.0 : (double) one.score);
      }
    }
    return scores;
  }

  private static List<Double> ours(SearchIndex index, String query) {
    List<Double> scores = new ArrayList<>();
    for (SearchAnswer.Hit hit : index.search(SearchRequest.of(query).withK(K)).hits()) {
      if (hit.source().length > 0) {
        scores.add(hit.score());
      }
    }
    return scores;
  }

  private static long[] time(Ask ask, List<String> queries) throws Exception {
    long[] took = new long[queries.size()];
    for (int i = 0; i < took.length; i++) {
      long start = System.nanoTime();
      var _ = ask.of(queries.get(i));
      took[i] = System.nanoTime() - start;
    }
    return took;
  }

  private double latencies(String who, List<long[]> rounds) {
    long[] all = rounds.stream().flatMapToLong(Arrays::stream).sorted().toArray();
    double perSecond = 1e9 * all.length / Arrays.stream(all).sum();
    say(
        who + ": queries/s, p50, p99",
        String.format(
            "%.0f, %.0f us, %.0f us",
            perSecond, all[all.length / 2] / 1e3, all[(int) (all.length * 0.99)] / 1e3));
    return perSecond;
  }

  /** Vectors that mean something: each text's words, hashed and projected at random. */
  private static float[] vector(String text) {
    float[] vector = new float[DIMENSIONS];
    for (String word : text.toLowerCase(Locale.ROOT).split("[^a-z]+")) {
      Random random = new Random(Arrays.hashCode(word.getBytes(StandardCharsets.UTF_8)) * 31L);
      for (int i = 0; i < DIMENSIONS; i++) {
        vector[i] += (float) random.nextGaussian() / Math.max(1, 9 - word.length());
      }
    }
    return vector;
  }

  private void nearest(List<IndexDocument> corpus, SearchIndexes indexes) {
    List<float[]> all = corpus.parallelStream().map(document -> vector(document.text())).toList();
    Random random = new Random(3);
    List<float[]> asked = new ArrayList<>();
    for (int i = 0; i < 200; i++) {
      float[] near = all.get(random.nextInt(all.size())).clone();
      for (int j = 0; j < near.length; j++) {
        near[j] += (float) (random.nextGaussian() * 0.3);
      }
      asked.add(near);
    }
    List<Set<String>> exact = asked.stream().map(query -> exact(query, corpus, all)).toList();
    for (IndexSettings.Quantization kind : IndexSettings.Quantization.values()) {
      SearchIndex index = indexes.index("vectors-" + kind);
      index.create(
          IndexSettings.DEFAULTS
              .withShards(1, 1)
              .withVectors(
                  new IndexSettings.Vectors(DIMENSIONS, IndexSettings.Similarity.COSINE, kind)));
      long start = System.nanoTime();
      for (int from = 0; from < corpus.size(); from += 1000) {
        int until = Math.min(corpus.size(), from + 1000);
        List<IndexDocument> batch =
            IntStream.range(from, until)
                .mapToObj(i -> IndexDocument.ofText("v" + i, "").withVector(all.get(i)))
                .toList();
        var _ =
            index.put(batch, until == corpus.size() ? Visibility.SEARCHABLE : Visibility.DURABLE);
      }
      rate(kind + ": vectors/s durable and searchable", corpus.size(), start);
      int found = 0;
      for (int round = 0; round < 3; round++) {
        found = 0;
        start = System.nanoTime();
        for (int i = 0; i < asked.size(); i++) {
          Set<String> ids =
              new HashSet<>(index.search(SearchRequest.of(asked.get(i)).withK(K)).ids());
          ids.retainAll(exact.get(i));
          found += ids.size();
        }
      }
      rate(kind + ": vector queries/s", asked.size(), start);
      say(kind + ": recall@10", String.format("%.4f", found / (10.0 * asked.size())));
    }
  }

  private static Set<String> exact(
      float[] query, List<IndexDocument> corpus, List<float[]> vectors) {
    double[] cosine = vectors.stream().mapToDouble(one -> cosine(query, one)).toArray();
    return new HashSet<>(
        IntStream.range(0, corpus.size())
            .boxed()
            .sorted(Comparator.comparingDouble((Integer i) -> -cosine[i]))
            .limit(K)
            .map(i -> "v" + i)
            .toList());
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

  private void rate(String what, int count, long startNs) {
    say(what, String.format("%.0f", count * 1e9 / (System.nanoTime() - startNs)));
  }

  private void say(String what, String value) {
    figures.put(what, value);
    if (!asJson) {
      System.out.println(what + ": " + value);
    }
  }

  private static void delete(Path folder) throws IOException {
    try (Stream<Path> files = Files.walk(folder)) {
      for (Path file : files.sorted(Comparator.reverseOrder()).toList()) {
        Files.delete(file);
      }
    }
  }

  /** For trying it alone. */
  public static void main(String[] arguments) {
    System.exit(new picocli.CommandLine(new SearchBench()).execute(arguments));
  }
}

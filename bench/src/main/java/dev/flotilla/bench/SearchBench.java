package dev.flotilla.bench;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.Json;
import dev.flotilla.cluster.ClusterNode;
import dev.flotilla.cluster.NodeFiles;
import dev.flotilla.data.DataPlane;
import dev.flotilla.data.search.IndexDocument;
import dev.flotilla.data.search.IndexSettings;
import dev.flotilla.data.search.SearchAnswer;
import dev.flotilla.data.search.SearchFilter;
import dev.flotilla.data.search.SearchIndex;
import dev.flotilla.data.search.SearchIndex.Visibility;
import dev.flotilla.data.search.SearchIndexes;
import dev.flotilla.data.search.SearchRequest;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Comparator;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.apache.lucene.analysis.en.EnglishAnalyzer;
import org.apache.lucene.index.IndexNotFoundException;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/**
 * Search beside the bare library on the same segments, one thread, in turns query by query in one
 * run, so that whatever else the machine does is in both; how fast documents become durable; and
 * how many of the ten nearest vectors are found.
 *
 * <p>All nodes run in this process, and the first is asked. Both parse the query's text and read id
 * and stored document of the ten best. In the order of their turns the two ask different queries,
 * so that neither finds the other's in the processor's caches.
 */
@Command(
    name = "search",
    description = "Search beside bare Lucene; durable writes; recall of vectors.",
    mixinStandardHelpOptions = true)
final class SearchBench implements Callable<Integer> {

  private static final int K = 10;
  private static final int DIMENSIONS = 96;
  private static final int BATCH = 1000;
  private static final int YEARS = 100;
  private static final double TARGET = 0.9;
  private static final long WARM_NS = 8_000_000_000L;

  @Option(names = "--text", description = "A text to make documents of.", required = true)
  private Path text = Path.of(".");

  @Option(names = "--documents", defaultValue = "20000", description = "How many to make.")
  private int documents;

  @Option(names = "--queries", defaultValue = "500", description = "How many different ones.")
  private int queries;

  @Option(names = "--rounds", defaultValue = "15", description = "Turns that each query has.")
  private int rounds;

  @Option(names = "--nodes", split = ",", defaultValue = "1,3", description = "1, 3 or both.")
  private List<Integer> nodes = List.of();

  @Option(names = "--seconds", defaultValue = "3", description = "Of each rate of writes.")
  private double seconds;

  @Option(names = "--recall", defaultValue = "5000", description = "Vectors; 0 leaves it out.")
  private int recall;

  @Option(names = "--json", description = "Print JSON.")
  private boolean asJson;

  private final ObjectNode figures = Json.MAPPER.createObjectNode();
  private final List<String> below = new ArrayList<>();

  @Override
  public Integer call() throws Exception {
    List<IndexDocument> corpus = corpus();
    Path folder = Files.createTempDirectory("flotilla-search-bench");
    List<ClusterNode> clusters = new ArrayList<>();
    List<DataPlane> planes = new ArrayList<>();
    try {
      for (int count : nodes) {
        while (planes.size() < count) {
          ShardingBench.start(folder, planes.size() + 1, clusters, planes);
        }
        measure(count, corpus, planes.getFirst().search(), folder);
      }
    } finally {
      planes.reversed().forEach(DataPlane::close);
      clusters.reversed().forEach(ClusterNode::close);
      NodeFiles.deleteTree(folder);
    }
    if (asJson) {
      System.out.println(figures.toPrettyString());
    }
    return below.isEmpty() ? 0 : 1;
  }

  private void measure(int count, List<IndexDocument> corpus, SearchIndexes indexes, Path folder)
      throws Exception {
    String where = count + (count == 1 ? " node" : " nodes");
    writes(where, corpus, indexes, folder);
    compare(where + ", 1 shard", 1, count, corpus, indexes, folder, true);
    // Not "per shard": how much asking several costs, here or over the network.
    compare(
        where + (count == 1 ? ", 3 shards here" : ", 3 shards on 3 nodes"),
        3,
        1,
        corpus,
        indexes,
        folder,
        false);
    if (recall > 0 && count == 1) {
      recall(corpus.subList(0, Math.min(recall, corpus.size())), indexes);
    }
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
      all.add(
          IndexDocument.ofText("passage-" + i, body.toString())
              .with("year", (long) random.nextInt(YEARS)));
    }
    return all.parallelStream()
        .map(document -> document.withVector(vector(document.text())))
        .toList();
  }

  private static List<String> queries(List<IndexDocument> corpus, int count) {
    Random random = new Random(2);
    List<String> all = new ArrayList<>();
    while (all.size() < count) {
      String[] words =
          corpus
              .get(random.nextInt(corpus.size()))
              .text()
              .toLowerCase(Locale.ROOT)
              .split("[^a-z]+");
      StringBuilder query = new StringBuilder();
      int length = 1 + random.nextInt(4);
      for (int i = 0; i < length; i++) {
        query.append(words[random.nextInt(words.length)]).append(' ');
      }
      if (query.toString().strip().length() > 3) {
        all.add(query.toString().strip());
      }
    }
    return all;
  }

  /** Single documents, each durable before the next, beside what the disk takes. */
  private void writes(String where, List<IndexDocument> corpus, SearchIndexes indexes, Path folder)
      throws Exception {
    SearchIndex index = indexes.index("singles-" + where.charAt(0));
    index.create(IndexSettings.DEFAULTS.withAnalyzer("english"));
    var _ = index.put(corpus.subList(0, 100), Visibility.SEARCHABLE);
    AtomicLong next = new AtomicLong();
    for (int clients : new int[] {1, 8}) {
      Load.Figures floor = Load.run(1, seconds, 1, client -> forced(folder.resolve("forced")));
      Load.Figures ours =
          Load.run(
              clients,
              seconds,
              1,
              client ->
                  () -> {
                    long number = next.getAndIncrement();
                    IndexDocument one = corpus.get((int) (number % corpus.size()));
                    var _ =
                        index.put(
                            new IndexDocument(
                                "single-" + number, one.text(), one.vector(), one.fields()));
                  });
      say(
          where + ": durable single documents/s, " + clients + " clients",
          String.format(
              Locale.ROOT,
              "%.0f (p50 %.1f ms, p99 %.1f ms); forced 4 KB appends/s, 1 client: %.0f",
              ours.perSecond(),
              ours.p50Us() / 1e3,
              ours.p99Us() / 1e3,
              floor.perSecond()));
    }
    index.drop();
  }

  private static Load.Operation forced(Path file) throws IOException {
    byte[] block = new byte[4096];
    try (FileChannel made =
        FileChannel.open(file, StandardOpenOption.CREATE, StandardOpenOption.WRITE)) {
      for (int i = 0; i < 4096; i++) {
        var _ = made.write(ByteBuffer.wrap(block));
      }
      made.force(true);
    }
    AtomicLong at = new AtomicLong();
    FileChannel channel = FileChannel.open(file, StandardOpenOption.WRITE);
    return () -> {
      var _ = channel.write(ByteBuffer.wrap(block), at.getAndIncrement() % 4096 * block.length);
      channel.force(false);
    };
  }

  @FunctionalInterface
  private interface Ask {
    List<Double> of(int query) throws Exception;
  }

  private void compare(
      String where,
      int shards,
      int replicas,
      List<IndexDocument> corpus,
      SearchIndexes indexes,
      Path folder,
      boolean target)
      throws Exception {
    String name = "words-" + shards + "-" + where.charAt(0);
    SearchIndex index = indexes.index(name);
    index.create(IndexSettings.DEFAULTS.withShards(shards, replicas).withAnalyzer("english"));
    long start = System.nanoTime();
    for (int from = 0; from < corpus.size(); from += BATCH) {
      int until = Math.min(corpus.size(), from + BATCH);
      var _ =
          index.put(
              corpus.subList(from, until),
              until == corpus.size() ? Visibility.SEARCHABLE : Visibility.DURABLE);
    }
    say(
        where + ": documents/s durable and searchable, batches of " + BATCH,
        String.format(Locale.ROOT, "%.0f", corpus.size() * 1e9 / (System.nanoTime() - start)));
    try (BareSearch bare = open(folder, name, shards, corpus.size())) {
      say(where + ": segments", String.valueOf(bare.segments()));
      List<String> words = queries(corpus, queries);
      List<float[]> vectors = near(corpus, queries);
      Random random = new Random(4);
      int[] years = random.ints(queries, 0, YEARS / 2).toArray();
      alternate(
          where + ", words",
          i -> scores(bare.words(words.get(i), K)),
          i -> scores(index.search(SearchRequest.of(words.get(i)).withK(K))),
          target);
      alternate(
          where + ", words and filter",
          i -> scores(bare.wordsAmong(words.get(i), years[i], years[i] + 20L, K)),
          i ->
              scores(
                  index.search(
                      SearchRequest.of(words.get(i)).withK(K).withFilter(years(years[i])))),
          target);
      alternate(
          where + ", vector",
          i -> scores(bare.nearest(vectors.get(i), K)),
          i -> scores(index.search(SearchRequest.of(vectors.get(i)).withK(K))),
          target);
      alternate(
          where + ", words and vector",
          i -> scores(bare.both(words.get(i), vectors.get(i), K)),
          i ->
              scores(
                  index.search(SearchRequest.of(words.get(i)).withVector(vectors.get(i)).withK(K))),
          target);
    }
    index.drop();
  }

  private static SearchFilter years(long from) {
    return new SearchFilter.Range("year", Optional.of(from), true, Optional.of(from + 20), true);
  }

  /** The last commit of our own folders of all shards, once everything is in it. */
  private static BareSearch open(Path folder, String name, int shards, int documents)
      throws Exception {
    for (int i = 0; i < 60; i++) {
      List<Path> folders = new ArrayList<>();
      for (int shard = 0; shard < shards; shard++) {
        folders.add(shardFolder(folder, name, shard));
      }
      try {
        BareSearch bare = new BareSearch(folders, new EnglishAnalyzer());
        if (bare.documents() == documents) {
          return bare;
        }
        bare.close();
      } catch (IndexNotFoundException notYet) {
        // Its first commit is to come.
      }
      Thread.sleep(1000);
    }
    throw new IllegalStateException("the shards were not committed");
  }

  /** On the first node that has it. */
  private static Path shardFolder(Path folder, String name, int shard) throws IOException {
    for (int node = 1; node <= 3; node++) {
      Path indexes = folder.resolve("node-" + node).resolve("data").resolve("index");
      if (!Files.exists(indexes)) {
        continue;
      }
      try (Stream<Path> all = Files.list(indexes)) {
        Optional<Path> found =
            all.filter(index -> index.getFileName().toString().startsWith(name + "@"))
                .map(index -> index.resolve(Integer.toString(shard)))
                .filter(Files::exists)
                .findFirst();
        if (found.isPresent()) {
          return found.get();
        }
      }
    }
    throw new IllegalStateException("no node has shard " + shard + " of " + name);
  }

  private static List<Double> scores(List<BareSearch.Hit> hits) {
    return hits.stream().filter(hit -> hit.bytes() > 0).map(BareSearch.Hit::score).toList();
  }

  private static List<Double> scores(SearchAnswer answer) {
    return answer.hits().stream()
        .filter(hit -> hit.source().length > 0)
        .map(SearchAnswer.Hit::score)
        .toList();
  }

  /** Both in turns, each query once a round; the ratio of the median times. */
  private void alternate(String what, Ask bare, Ask ours, boolean target) throws Exception {
    int same = 0;
    for (int i = 0; i < queries; i++) {
      same += isSame(bare.of(i), ours.of(i)) ? 1 : 0;
    }
    List<Integer> order = new ArrayList<>(IntStream.range(0, queries).boxed().toList());
    Random random = new Random(5);
    long[] bareNs = new long[rounds * queries];
    long[] ourNs = new long[rounds * queries];
    double[] ratios = new double[rounds];
    // Compiled by then, on a busy machine too.
    long warmUntilNs = System.nanoTime() + WARM_NS;
    for (int round = -1; round < rounds; round += System.nanoTime() < warmUntilNs ? 0 : 1) {
      Collections.shuffle(order, random);
      long bareTotal = 0;
      long ourTotal = 0;
      for (int i = 0; i < queries; i++) {
        int other = order.get((i + queries / 2) % queries);
        boolean bareFirst = (i + round) % 2 == 0;
        long a = bareFirst ? time(bare, order.get(i)) : time(ours, other);
        long b = bareFirst ? time(ours, other) : time(bare, order.get(i));
        bareTotal += bareFirst ? a : b;
        ourTotal += bareFirst ? b : a;
        if (round >= 0) {
          bareNs[round * queries + i] = bareFirst ? a : b;
          ourNs[round * queries + i] = bareFirst ? b : a;
        }
      }
      if (round >= 0) {
        ratios[round] = (double) bareTotal / ourTotal;
      }
    }
    Arrays.sort(ratios);
    Arrays.sort(bareNs);
    Arrays.sort(ourNs);
    double ratio = (double) bareNs[bareNs.length / 2] / ourNs[ourNs.length / 2];
    if (target && ratio < TARGET) {
      below.add(what);
    }
    say(
        what,
        String.format(
            Locale.ROOT,
            "%.3f of bare Lucene's rate, by medians (whole rounds %.3f to %.3f, median %.3f); p50"
                + " %.0f and %.0f us, p99 %.0f and %.0f us; same scores in %d of %d",
            ratio,
            ratios[0],
            ratios[rounds - 1],
            ratios[rounds / 2],
            ourNs[ourNs.length / 2] / 1e3,
            bareNs[bareNs.length / 2] / 1e3,
            ourNs[(int) (ourNs.length * 0.99)] / 1e3,
            bareNs[(int) (bareNs.length * 0.99)] / 1e3,
            same,
            queries));
  }

  private static boolean isSame(List<Double> a, List<Double> b) {
    return a.size() == b.size()
        && IntStream.range(0, a.size()).allMatch(i -> Math.abs(a.get(i) - b.get(i)) < 1e-5);
  }

  private static long time(Ask ask, int query) throws Exception {
    long start = System.nanoTime();
    var _ = ask.of(query);
    return System.nanoTime() - start;
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

  /** Vectors not far from those of documents. */
  private static List<float[]> near(List<IndexDocument> corpus, int count) {
    Random random = new Random(3);
    List<float[]> asked = new ArrayList<>();
    for (int i = 0; i < count; i++) {
      float[] near = corpus.get(random.nextInt(corpus.size())).vector().clone();
      for (int j = 0; j < near.length; j++) {
        near[j] += (float) (random.nextGaussian() * 0.3);
      }
      asked.add(near);
    }
    return asked;
  }

  private void recall(List<IndexDocument> corpus, SearchIndexes indexes) {
    List<float[]> asked = near(corpus, 200);
    List<Set<String>> exact = asked.parallelStream().map(query -> exact(query, corpus)).toList();
    for (IndexSettings.Quantization kind : IndexSettings.Quantization.values()) {
      SearchIndex index = indexes.index("vectors-" + kind);
      index.create(
          IndexSettings.DEFAULTS
              .withShards(1, 1)
              .withVectors(
                  new IndexSettings.Vectors(DIMENSIONS, IndexSettings.Similarity.COSINE, kind)));
      for (int from = 0; from < corpus.size(); from += BATCH) {
        int until = Math.min(corpus.size(), from + BATCH);
        var _ =
            index.put(
                corpus.subList(from, until).stream()
                    .map(one -> IndexDocument.ofText(one.id(), "").withVector(one.vector()))
                    .toList(),
                until == corpus.size() ? Visibility.SEARCHABLE : Visibility.DURABLE);
      }
      int found = 0;
      for (int i = 0; i < asked.size(); i++) {
        Set<String> ids =
            new HashSet<>(index.search(SearchRequest.of(asked.get(i)).withK(K)).ids());
        ids.retainAll(exact.get(i));
        found += ids.size();
      }
      say(
          kind + ": recall@10",
          String.format(Locale.ROOT, "%.4f", found / ((double) K * asked.size())));
      index.drop();
    }
  }

  private static Set<String> exact(float[] query, List<IndexDocument> corpus) {
    double[] cosine = corpus.stream().mapToDouble(one -> cosine(query, one.vector())).toArray();
    return new HashSet<>(
        IntStream.range(0, corpus.size())
            .boxed()
            .sorted(Comparator.comparingDouble((Integer i) -> -cosine[i]))
            .limit(K)
            .map(i -> corpus.get(i).id())
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

  private void say(String what, String value) {
    figures.put(what, value);
    if (!asJson) {
      System.out.println(what + ": " + value);
    }
  }

  /** For trying it alone. */
  public static void main(String[] arguments) {
    System.exit(new picocli.CommandLine(new SearchBench()).execute(arguments));
  }
}

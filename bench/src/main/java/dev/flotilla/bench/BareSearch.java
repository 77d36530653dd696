package dev.flotilla.bench;

import java.io.Closeable;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.lucene.analysis.Analyzer;
import org.apache.lucene.document.Document;
import org.apache.lucene.document.LongField;
import org.apache.lucene.index.DirectoryReader;
import org.apache.lucene.index.IndexReader;
import org.apache.lucene.index.MultiReader;
import org.apache.lucene.index.StoredFields;
import org.apache.lucene.queryparser.classic.ParseException;
import org.apache.lucene.queryparser.classic.QueryParser;
import org.apache.lucene.search.BooleanClause;
import org.apache.lucene.search.BooleanQuery;
import org.apache.lucene.search.IndexSearcher;
import org.apache.lucene.search.KnnFloatVectorQuery;
import org.apache.lucene.search.Query;
import org.apache.lucene.search.ScoreDoc;
import org.apache.lucene.store.FSDirectory;
import org.apache.lucene.util.VectorUtil;

/**
 * What a program does that has the search library and nothing of ours, on the very folders of our
 * shards: it parses the query's text, searches, and reads id and document of the best.
 */
final class BareSearch implements Closeable {

  /** Reciprocal rank fusion's constant, as ours. */
  private static final int FUSION_K = 60;

  /** How many of each ranking are fused for ten hits, as ours. */
  private static final int FUSION_DEPTH = 50;

  /** One hit. */
  record Hit(String id, double score, int bytes) {}

  private final List<DirectoryReader> readers = new ArrayList<>();
  private final IndexSearcher searcher;
  private final Analyzer analyzer;

  /** Opens the last commit of each folder, as one index. */
  BareSearch(List<Path> folders, Analyzer analyzer) throws IOException {
    for (Path folder : folders) {
      readers.add(DirectoryReader.open(FSDirectory.open(folder)));
    }
    this.searcher =
        new IndexSearcher(
            readers.size() == 1
                ? readers.getFirst()
                : new MultiReader(readers.toArray(IndexReader[]::new), false));
    this.analyzer = analyzer;
  }

  int documents() {
    return searcher.getIndexReader().numDocs();
  }

  int segments() {
    return searcher.getIndexReader().leaves().size();
  }

  private Query parsed(String words) {
    try {
      return new QueryParser("text", analyzer).parse(words);
    } catch (ParseException e) {
      throw new IllegalArgumentException("query " + words, e);
    }
  }

  private static Query year(long from, long to) {
    return LongField.newRangeQuery("year", from, to);
  }

  private Query among(String words, long from, long to) {
    return new BooleanQuery.Builder()
        .add(parsed(words), BooleanClause.Occur.MUST)
        .add(year(from, to), BooleanClause.Occur.FILTER)
        .build();
  }

  List<Hit> words(String words, int k) throws IOException {
    return read(searcher.search(parsed(words), k).scoreDocs);
  }

  List<Hit> wordsAmong(String words, long from, long to, int k) throws IOException {
    return read(searcher.search(among(words, from, to), k).scoreDocs);
  }

  /** Looks at as many of the graph's nodes as ours does, so that recall is the same. */
  private Query near(float[] vector, int k) {
    return new KnnFloatVectorQuery(
        "vector", VectorUtil.l2normalize(vector.clone()), Math.max(2 * k, 64));
  }

  List<Hit> nearest(float[] vector, int k) throws IOException {
    return read(searcher.search(near(vector, k), k).scoreDocs);
  }

  /** Words and vector, fused by rank. */
  List<Hit> both(String words, float[] vector, int k) throws IOException {
    Map<Integer, Double> scores = new HashMap<>();
    add(scores, searcher.search(parsed(words), FUSION_DEPTH).scoreDocs);
    add(scores, searcher.search(near(vector, FUSION_DEPTH), FUSION_DEPTH).scoreDocs);
    return read(
        scores.entrySet().stream()
            .sorted(Comparator.comparingDouble((Map.Entry<Integer, Double> e) -> -e.getValue()))
            .limit(k)
            .map(e -> new ScoreDoc(e.getKey(), e.getValue().floatValue()))
            .toArray(ScoreDoc[]::new));
  }

  private static void add(Map<Integer, Double> scores, ScoreDoc[] ranking) {
    for (int rank = 0; rank < ranking.length; rank++) {
      scores.merge(ranking[rank].doc, 1.0 / (FUSION_K + rank + 1), Double::sum);
    }
  }

  private List<Hit> read(ScoreDoc[] found) throws IOException {
    StoredFields stored = searcher.storedFields();
    List<Hit> hits = new ArrayList<>(found.length);
    for (ScoreDoc one : found) {
      Document document = stored.document(one.doc);
      hits.add(
          new Hit(
              document.get("_id"), (double) one.score, document.getBinaryValue("_source").length));
    }
    return hits;
  }

  @Override
  public void close() throws IOException {
    for (DirectoryReader reader : readers) {
      reader.close();
    }
  }
}

package dev.flotilla.data.search;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.SortedSet;
import java.util.TreeSet;
import java.util.function.LongSupplier;
import org.apache.lucene.document.Document;
import org.apache.lucene.index.IndexReader;
import org.apache.lucene.index.LeafReaderContext;
import org.apache.lucene.index.QueryTimeout;
import org.apache.lucene.index.ReaderUtil;
import org.apache.lucene.index.SortedDocValues;
import org.apache.lucene.index.StoredFields;
import org.apache.lucene.search.FieldDoc;
import org.apache.lucene.search.IndexSearcher;
import org.apache.lucene.search.Query;
import org.apache.lucene.search.ScoreDoc;
import org.apache.lucene.search.Sort;
import org.apache.lucene.search.SortField;
import org.apache.lucene.search.TopDocs;
import org.apache.lucene.search.TotalHits;
import org.apache.lucene.search.uhighlight.DefaultPassageFormatter;
import org.apache.lucene.search.uhighlight.UnifiedHighlighter;
import org.apache.lucene.util.BytesRef;
import org.jspecify.annotations.Nullable;

/**
 * One search over one reader, which holds one shard or all of them.
 *
 * <p>Reading a document costs more than finding it. So only what is handed out is read: where all
 * shards are in this reader, rankings are fused by the library's numbers first; ids are looked up
 * only to order equal scores. Where they are not, a shard reads what may come out best.
 */
final class ShardSearch {

  private static final int QUICK_DOCUMENTS = 1_000_000;
  private static final int ANSWER_BYTES_MAX = 16 << 20;
  private static final int HIGHLIGHT_CHARACTERS_MAX = 200_000;
  private static final int CLOCK_EVERY = 64;

  /** So many more are asked for, to see all that are equal to the last one. */
  private static final int TIED_MAX = 8;

  /** What all shards together found: the hits in their final order, and where the page ends. */
  record Best(List<SearchHits.Ranked> hits, long total, boolean totalIsExact, boolean timedOut) {}

  private final SearchPlan plan;
  private final IndexSearcher words;
  private final IndexSearcher vectors;
  private final StoredFields stored;
  private TotalHits total = new TotalHits(0, TotalHits.Relation.EQUAL_TO);

  /** Vectors weighed that pass the filter. */
  private long near;

  private int bytes;

  /**
   * @param searcher of the reader, as it is shared by all
   * @param frequencies of all shards; none if the reader holds all
   */
  ShardSearch(
      SearchPlan plan,
      IndexSearcher searcher,
      @Nullable SearchFrequencies frequencies,
      LongSupplier nanoTime)
      throws IOException {
    this.plan = plan;
    IndexReader reader = searcher.getIndexReader();
    long deadlineNs = nanoTime.getAsLong() + plan.request().timeoutMs() * 1_000_000L;
    // Not for words over few documents: they end soon, and looking at the clock costs.
    boolean timed = plan.isExpanding() || reader.maxDoc() > QUICK_DOCUMENTS;
    this.words =
        frequencies != null
            ? frequencies.searcher(reader)
            : timed ? new IndexSearcher(reader) : searcher;
    if (timed) {
      words.setTimeout(() -> nanoTime.getAsLong() > deadlineNs);
    }
    this.vectors = plan.hasVector() ? new IndexSearcher(reader) : searcher;
    if (plan.hasVector()) {
      vectors.setTimeout(rarely(nanoTime, deadlineNs));
    }
    this.stored = searcher.storedFields();
  }

  /** A search for vectors asks at every vector, which takes less time than the clock. */
  private static QueryTimeout rarely(LongSupplier nanoTime, long deadlineNs) {
    int[] asked = {0};
    return () -> ++asked[0] % CLOCK_EVERY == 0 && nanoTime.getAsLong() > deadlineNs;
  }

  /** All that another node needs to put shards together. */
  SearchHits all() throws IOException {
    ScoreDoc[] list = plan.hasList() ? list() : new ScoreDoc[0];
    ScoreDoc[] nearest = plan.hasVector() ? nearest() : new ScoreDoc[0];
    if (!plan.isFused()) {
      return new SearchHits(
          read(list, true), read(nearest, false), total(nearest.length), isExact(), timedOut());
    }
    return toBeFused(list, nearest);
  }

  /**
   * Both rankings whole, since each document's ranks count; but read are only those that may come
   * out best, and what is in both only once.
   */
  private SearchHits toBeFused(ScoreDoc[] list, ScoreDoc[] nearest) throws IOException {
    List<Integer> inList = Arrays.stream(list).map(one -> one.doc).toList();
    List<Integer> inNearest = Arrays.stream(nearest).map(one -> one.doc).toList();
    Set<Integer> possible = SearchHits.mayBeAmongTheBest(inList, inNearest, plan.request().k());
    Set<Integer> both = new HashSet<>(inNearest);
    both.retainAll(Set.copyOf(inList));
    SortedSet<Integer> all = new TreeSet<>(inList);
    all.addAll(inNearest);
    Map<Integer, BytesRef> ids = ids(all);
    List<SearchHits.ShardHit> listHits = new ArrayList<>(list.length);
    for (ScoreDoc one : list) {
      listHits.add(possible.contains(one.doc) ? read(one, true) : unread(one, true, ids));
    }
    List<SearchHits.ShardHit> nearestHits = new ArrayList<>(nearest.length);
    for (ScoreDoc one : nearest) {
      boolean needed = possible.contains(one.doc) && !both.contains(one.doc);
      nearestHits.add(needed ? read(one, false) : unread(one, false, ids));
    }
    return new SearchHits(listHits, nearestHits, total(nearest.length), isExact(), timedOut());
  }

  private SearchHits.ShardHit unread(ScoreDoc one, boolean listed, Map<Integer, BytesRef> ids) {
    String id = ids.getOrDefault(one.doc, NONE).utf8ToString();
    float score = score(one, listed);
    return new SearchHits.ShardHit(id, score, sortValues(one, score, id), UNREAD, Map.of());
  }

  /** The answer, where this reader holds all shards. */
  Best best() throws IOException {
    List<SearchHits.Ranked> hits;
    if (plan.isFused()) {
      hits = fuse(list(), nearest());
    } else {
      hits = new ArrayList<>();
      for (SearchHits.ShardHit hit : read(plan.hasList() ? list() : nearest(), plan.hasList())) {
        hits.add(new SearchHits.Ranked(hit, hit.score()));
      }
    }
    return new Best(hits, total(hits.size()), isExact(), timedOut());
  }

  /** At least what is handed out: a vector's neighbours match, too. */
  private long total(int found) {
    return Math.max(Math.max(total.value(), near), found);
  }

  /** Of vectors only if all were weighed; how many match by words or vector, nobody counts. */
  private boolean isExact() {
    return plan.hasVector()
        ? !plan.isFused() && near < plan.candidates()
        : total.relation() == TotalHits.Relation.EQUAL_TO;
  }

  private boolean timedOut() {
    return words.timedOut() || vectors.timedOut();
  }

  /** A document and the sum of what its ranks give. */
  private record Fused(ScoreDoc doc, boolean listed, double score) {}

  /** The best of both, equal ones by id; see {@link SearchHits#FUSION_K}. */
  private List<SearchHits.Ranked> fuse(ScoreDoc[] list, ScoreDoc[] nearest) throws IOException {
    Map<Integer, Fused> scores = new HashMap<>(2 * (list.length + nearest.length));
    add(scores, list, true);
    add(scores, nearest, false);
    List<Fused> fused = new ArrayList<>(scores.values());
    fused.sort(Comparator.comparingDouble((Fused one) -> -one.score));
    int count = Math.min(plan.request().k(), fused.size());
    orderAcrossTheEnd(fused, count);
    List<SearchHits.Ranked> best = new ArrayList<>(count);
    for (Fused one : fused.subList(0, count)) {
      best.add(new SearchHits.Ranked(read(one.doc, one.listed), one.score));
    }
    best.sort(SearchHits.BEST_FUSED);
    return best;
  }

  private static void add(Map<Integer, Fused> scores, ScoreDoc[] ranking, boolean listed) {
    for (int rank = 0; rank < ranking.length; rank++) {
      double part = 1.0 / (SearchHits.FUSION_K + rank + 1);
      scores.merge(
          ranking[rank].doc,
          new Fused(ranking[rank], listed, part),
          (first, second) -> new Fused(first.doc, first.listed, first.score + second.score));
    }
  }

  /** Of those that share the last place, the first by id come first: the others are not read. */
  private void orderAcrossTheEnd(List<Fused> fused, int count) throws IOException {
    if (count == fused.size() || fused.get(count).score != fused.get(count - 1).score) {
      return;
    }
    double shared = fused.get(count).score;
    int from = count - 1;
    while (from > 0 && fused.get(from - 1).score == shared) {
      from--;
    }
    int until = count + 1;
    while (until < fused.size() && fused.get(until).score == shared) {
      until++;
    }
    List<Fused> tied = fused.subList(from, until);
    SortedSet<Integer> documents = new TreeSet<>();
    tied.forEach(one -> documents.add(one.doc.doc));
    Map<Integer, BytesRef> ids = ids(documents);
    tied.sort(Comparator.comparing(one -> ids.getOrDefault(one.doc.doc, NONE)));
  }

  private static final BytesRef NONE = new BytesRef();
  private static final byte[] UNREAD = {};

  private ScoreDoc[] list() throws IOException {
    Query query = plan.listQuery();
    TopDocs found;
    if (plan.after().isPresent()) {
      found = words.searchAfter(after(plan.after().get()), query, plan.depth(), plan.sort());
    } else if (plan.isByScore()) {
      found = bestByScore(words, query, plan.depth());
    } else {
      found = words.search(query, plan.depth(), plan.sort());
    }
    total = found.totalHits;
    return found.scoreDocs;
  }

  private ScoreDoc[] nearest() throws IOException {
    TopDocs found = bestByScore(vectors, plan.vectorQuery(), plan.depth());
    near = found.totalHits.value();
    return found.scoreDocs;
  }

  /**
   * The best, and among equal scores the first by id. The library breaks ties by its own numbers,
   * which differ from replica to replica; only a long tie across the end of the list needs the
   * slower search that compares ids.
   */
  private TopDocs bestByScore(IndexSearcher searcher, Query query, int count) throws IOException {
    Query rewritten = searcher.rewrite(query);
    TopDocs best = searcher.search(rewritten, count + TIED_MAX);
    ScoreDoc[] found = best.scoreDocs;
    boolean beyond = found.length == count + TIED_MAX;
    if (beyond && found[count - 1].score == found[found.length - 1].score) {
      return searcher.search(rewritten, count, SearchPlan.BY_SCORE);
    }
    int kept = Math.min(count, found.length);
    while (kept > 0 && kept < found.length && found[kept].score == found[count - 1].score) {
      kept++;
    }
    found = Arrays.copyOf(found, kept);
    for (int from = 0; from < found.length; ) {
      int until = from + 1;
      while (until < found.length && found[until].score == found[from].score) {
        until++;
      }
      if (until - from > 1) {
        sortById(found, from, until);
      }
      from = until;
    }
    return new TopDocs(best.totalHits, Arrays.copyOf(found, Math.min(count, kept)));
  }

  private void sortById(ScoreDoc[] found, int from, int until) throws IOException {
    SortedSet<Integer> documents = new TreeSet<>();
    for (int i = from; i < until; i++) {
      documents.add(found[i].doc);
    }
    Map<Integer, BytesRef> ids = ids(documents);
    Arrays.sort(found, from, until, Comparator.comparing(one -> ids.getOrDefault(one.doc, NONE)));
  }

  /** Ids by document; each segment is asked once, in its own order. */
  private Map<Integer, BytesRef> ids(SortedSet<Integer> documents) throws IOException {
    Map<Integer, BytesRef> found = new HashMap<>(2 * documents.size());
    List<LeafReaderContext> leaves = words.getIndexReader().leaves();
    Iterator<Integer> next = documents.iterator();
    int document = next.hasNext() ? next.next() : -1;
    while (document >= 0) {
      LeafReaderContext leaf = leaves.get(ReaderUtil.subIndex(document, leaves));
      SortedDocValues ids = leaf.reader().getSortedDocValues(IndexSchema.ID);
      while (document >= 0 && document < leaf.docBase + leaf.reader().maxDoc()) {
        if (ids == null || !ids.advanceExact(document - leaf.docBase)) {
          throw new IllegalStateException("a document has no id");
        }
        found.put(document, BytesRef.deepCopyOf(ids.lookupOrd(ids.ordValue())));
        document = next.hasNext() ? next.next() : -1;
      }
    }
    return found;
  }

  /** Ids are unique, so that what equals the last hit is the last hit. */
  private FieldDoc after(List<Object> values) {
    Object[] fields =
        values.stream().map(value -> value instanceof SearchPlan.Missing ? null : value).toArray();
    return new FieldDoc(Math.max(0, words.getIndexReader().maxDoc() - 1), Float.NaN, fields);
  }

  /** Reads what hits show, within a bound on all of them together. */
  private List<SearchHits.ShardHit> read(ScoreDoc[] found, boolean listed) throws IOException {
    List<SearchHits.ShardHit> hits = new ArrayList<>(found.length);
    for (ScoreDoc one : found) {
      hits.add(read(one, listed));
    }
    return hits;
  }

  /**
   * @param listed whether the list of words or of a sort found it, and not its vector alone
   */
  private SearchHits.ShardHit read(ScoreDoc one, boolean listed) throws IOException {
    Document document = stored.document(one.doc);
    String id = document.get(IndexSchema.ID);
    byte[] source = bytes(document.getBinaryValue(IndexSchema.SOURCE));
    byte[] json = shown(source);
    bytes += json.length;
    if (bytes > ANSWER_BYTES_MAX) {
      throw new FlotillaException(
          Code.TOO_LARGE,
          "the hits hold more than " + (ANSWER_BYTES_MAX >> 20) + " MB",
          "Ask for fewer with k, or for some of their fields with return_fields.");
    }
    float score = plan.isScored() || !listed ? score(one, listed) : 1f;
    return new SearchHits.ShardHit(
        id, score, sortValues(one, score, id), json, listed ? highlights(source) : Map.of());
  }

  private static byte[] bytes(BytesRef ref) {
    return ref.offset == 0 && ref.length == ref.bytes.length
        ? ref.bytes
        : Arrays.copyOfRange(ref.bytes, ref.offset, ref.offset + ref.length);
  }

  private float score(ScoreDoc one, boolean listed) {
    if (one instanceof FieldDoc doc) {
      Sort sort = listed ? plan.sort() : SearchPlan.BY_SCORE;
      for (int i = 0; i < sort.getSort().length; i++) {
        if (sort.getSort()[i].getType() == SortField.Type.SCORE) {
          return (Float) doc.fields[i];
        }
      }
      return 0f;
    }
    return one.score;
  }

  private static List<Object> sortValues(ScoreDoc one, float score, String id) {
    if (!(one instanceof FieldDoc doc)) {
      return List.of(score, new BytesRef(id));
    }
    List<Object> values = new ArrayList<>();
    for (Object value : doc.fields) {
      values.add(value == null ? SearchPlan.Missing.MISSING : value);
    }
    return values;
  }

  private Map<String, String> highlights(byte[] source) throws IOException {
    Optional<Query> asked = plan.words();
    if (plan.request().highlight().isEmpty() || asked.isEmpty()) {
      return Map.of();
    }
    Map<String, String> shown = new LinkedHashMap<>();
    JsonNode json = Json.MAPPER.readTree(source);
    UnifiedHighlighter highlighter =
        UnifiedHighlighter.builderWithoutSearcher(plan.schema().analyzer())
            .withMaxLength(HIGHLIGHT_CHARACTERS_MAX)
            .withFormatter(new DefaultPassageFormatter("<em>", "</em>", " … ", false))
            .withMaxNoHighlightPassages(0)
            .build();
    Query query = words.rewrite(asked.get());
    for (String field : plan.request().highlight()) {
      String text =
          field.equals(IndexSchema.TEXT)
              ? json.path("text").asText()
              : json.path("fields").path(field).asText();
      Object passage =
          text.isEmpty() ? null : highlighter.highlightWithoutSearcher(field, query, text, 3);
      if (passage instanceof String marked) {
        shown.put(field, marked);
      }
    }
    return shown;
  }

  private byte[] shown(byte[] source) throws IOException {
    List<String> wanted = plan.request().returnFields();
    if (wanted.isEmpty()) {
      return source;
    }
    ObjectNode json = (ObjectNode) Json.MAPPER.readTree(source);
    ((ObjectNode) json.get("fields")).retain(wanted);
    if (!wanted.contains(IndexSchema.TEXT)) {
      json.remove("text");
    }
    return Json.write(json);
  }
}

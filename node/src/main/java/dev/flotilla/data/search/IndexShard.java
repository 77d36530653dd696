package dev.flotilla.data.search;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.LongSupplier;
import java.util.function.Supplier;
import java.util.stream.Stream;
import org.apache.lucene.analysis.Analyzer;
import org.apache.lucene.analysis.DelegatingAnalyzerWrapper;
import org.apache.lucene.codecs.KnnVectorsFormat;
import org.apache.lucene.codecs.KnnVectorsReader;
import org.apache.lucene.codecs.KnnVectorsWriter;
import org.apache.lucene.codecs.lucene104.Lucene104Codec;
import org.apache.lucene.codecs.lucene104.Lucene104HnswScalarQuantizedVectorsFormat;
import org.apache.lucene.codecs.lucene104.Lucene104ScalarQuantizedVectorsFormat.ScalarEncoding;
import org.apache.lucene.codecs.lucene99.Lucene99HnswVectorsFormat;
import org.apache.lucene.document.Document;
import org.apache.lucene.index.DirectoryReader;
import org.apache.lucene.index.IndexReader;
import org.apache.lucene.index.IndexWriter;
import org.apache.lucene.index.IndexWriterConfig;
import org.apache.lucene.index.LeafReaderContext;
import org.apache.lucene.index.SegmentReadState;
import org.apache.lucene.index.SegmentWriteState;
import org.apache.lucene.index.StoredFields;
import org.apache.lucene.index.Term;
import org.apache.lucene.search.FieldDoc;
import org.apache.lucene.search.IndexSearcher;
import org.apache.lucene.search.Query;
import org.apache.lucene.search.ScoreDoc;
import org.apache.lucene.search.SearcherFactory;
import org.apache.lucene.search.SearcherManager;
import org.apache.lucene.search.Sort;
import org.apache.lucene.search.SortField;
import org.apache.lucene.search.TopDocs;
import org.apache.lucene.search.TotalHits;
import org.apache.lucene.search.uhighlight.UnifiedHighlighter;
import org.apache.lucene.store.Directory;
import org.apache.lucene.store.FSDirectory;
import org.apache.lucene.util.BytesRef;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * One shard's replica on this node: a folder of the search library, made from the shard's documents
 * in the grid by following their changes, and thrown away whenever it is in doubt.
 *
 * <p>Its place in the list of changes is stored with each of the library's commits, so that a
 * restart goes on from there. It answers searches once it has caught up with what there was when it
 * was opened.
 */
final class IndexShard implements AutoCloseable {

  private static final Logger log = LoggerFactory.getLogger(IndexShard.class);

  private static final long COMMIT_NS = 10_000_000_000L;
  private static final long COMMIT_CHANGES = 50_000;
  private static final int QUICK_DOCUMENTS = 1_000_000;
  private static final long SHOW_NS = 500_000_000L;
  private static final int ANSWER_BYTES_MAX = 16 << 20;
  private static final int HIGHLIGHT_CHARACTERS_MAX = 200_000;

  /** Looks in a row that find the place lost before the replica starts anew: copies may lag. */
  private static final int LOST_MAX = 5;

  private final String name;
  private final Path folder;
  private final int shard;
  private final IndexStore store;
  private final Supplier<IndexSchema> schema;
  private final Runnable syncSchema;
  private final LongSupplier nanoTime;

  private volatile @Nullable Opened opened;
  private volatile IndexStore.Position searchable = IndexStore.Position.START;
  private volatile long committed;
  private volatile boolean ready;
  private volatile boolean closed;
  private volatile boolean damaged;
  private IndexStore.Position applied = IndexStore.Position.START;
  private long freshUntil;
  private long startFloor = -1;
  private long catchUpTo = -1;
  private int lost;
  private long changesSinceCommit;
  private long lastCommitNs;
  private long lastShownNs;

  private final Object waiting = new Object();
  private int waiters;

  private record Opened(Directory directory, IndexWriter writer, SearcherManager searchers) {}

  /**
   * @param schema the newest that this node knows
   * @param syncSchema makes it as new as any document in the grid
   */
  IndexShard(
      String name,
      Path folder,
      int shard,
      IndexStore store,
      Supplier<IndexSchema> schema,
      Runnable syncSchema,
      LongSupplier nanoTime) {
    this.name = name + "/" + shard;
    this.folder = folder;
    this.shard = shard;
    this.store = store;
    this.schema = schema;
    this.syncSchema = syncSchema;
    this.nanoTime = nanoTime;
  }

  boolean ready() {
    return ready;
  }

  long committed() {
    return committed;
  }

  long searchable() {
    return searchable.sequence();
  }

  /**
   * Follows the changes by one bounded step, and shows what it applied; opens the folder at first.
   *
   * @return whether there is more to do at once
   */
  synchronized boolean step() throws IOException {
    if (closed) {
      return false;
    }
    Opened at = opened;
    if (damaged && at != null) {
      close(at, false);
      deleteFolder();
      at = null;
    }
    if (at == null) {
      at = open();
    }
    IndexStore.Changes changes;
    try {
      changes = store.after(shard, applied, startFloor);
    } catch (FlotillaException e) {
      log.debug("{}: cannot follow: {}", name, e.getMessage());
      return false;
    }
    if (changes.lost()) {
      startAnewIfLost(at);
      return false;
    }
    lost = 0;
    if (catchUpTo < 0) {
      catchUpTo = changes.last();
      freshUntil = applied.sequence() == 0 ? changes.last() : 0;
    }
    if (applied.sequence() == 0) {
      startFloor = changes.floor();
    }
    IndexSchema types = schemaFor(changes.changes());
    for (IndexStore.Change change : changes.changes()) {
      Term id = new Term(IndexSchema.ID, change.id());
      if (change.document().isEmpty()) {
        at.writer.deleteDocuments(id);
        continue;
      }
      Document document = types.toLucene(change.document().get());
      if (changes.to().sequence() <= freshUntil) {
        // Anew, each document comes once: there is nothing to replace.
        at.writer.addDocument(document);
      } else {
        at.writer.updateDocument(id, document);
      }
    }
    changesSinceCommit += changes.to().sequence() - applied.sequence();
    boolean moved = !changes.to().equals(applied);
    applied = changes.to();
    boolean more = applied.sequence() < changes.last();
    if (moved || !ready) {
      show(at, more);
    }
    if (applied.sequence() >= changes.floor()) {
      commitIfDue(at);
    }
    return more && moved;
  }

  /** A document may be here before the registry's news of its fields is. */
  private IndexSchema schemaFor(List<IndexStore.Change> changes) {
    IndexSchema types = schema.get();
    boolean known =
        changes.stream().flatMap(change -> change.document().stream()).allMatch(types::knows);
    if (!known) {
      syncSchema.run();
      types = schema.get();
    }
    return types;
  }

  /** Makes what was applied visible, and lets those who wait for it go on. */
  private void show(Opened at, boolean more) throws IOException {
    // While it is behind, only now and then: each look at new documents makes a segment.
    long now = nanoTime.getAsLong();
    if (ready && (!more || now - lastShownNs > SHOW_NS)) {
      at.searchers.maybeRefreshBlocking();
      searchable = applied;
      lastShownNs = now;
    }
    if (!ready && applied.sequence() >= catchUpTo) {
      at.searchers.maybeRefreshBlocking();
      searchable = applied;
      ready = true;
      log.info("index {}: ready at change {}", name, applied.sequence());
    }
    synchronized (waiting) {
      waiting.notifyAll();
    }
  }

  boolean hasWaiters() {
    synchronized (waiting) {
      return waiters > 0;
    }
  }

  /** Waits until writes up to the sequence can be found; whether they can. */
  boolean await(long sequence, long timeoutMs) throws InterruptedException {
    long deadlineNs = nanoTime.getAsLong() + timeoutMs * 1_000_000;
    synchronized (waiting) {
      waiters++;
      try {
        while (searchable.sequence() < sequence && !closed) {
          long leftMs = (deadlineNs - nanoTime.getAsLong()) / 1_000_000;
          if (leftMs <= 0) {
            return false;
          }
          waiting.wait(leftMs);
        }
        return searchable.sequence() >= sequence;
      } finally {
        waiters--;
      }
    }
  }

  private void startAnewIfLost(Opened at) throws IOException {
    if (++lost < LOST_MAX) {
      return;
    }
    log.warn("index {}: change {} is not the grid's; starting anew", name, applied.sequence());
    close(at, false);
    deleteFolder();
    lost = 0;
  }

  private void commitIfDue(Opened at) throws IOException {
    long now = nanoTime.getAsLong();
    if (changesSinceCommit > 0
        && (changesSinceCommit >= COMMIT_CHANGES || now - lastCommitNs > COMMIT_NS)) {
      commit(at);
    }
  }

  private void commit(Opened at) throws IOException {
    IndexStore.Position position = applied;
    at.writer.setLiveCommitData(
        Map.of(
                "sequence", Long.toString(position.sequence()),
                "nonce", Long.toString(position.nonce()))
            .entrySet());
    at.writer.commit();
    committed = position.sequence();
    changesSinceCommit = 0;
    lastCommitNs = nanoTime.getAsLong();
  }

  private Opened open() throws IOException {
    try {
      return openFolder();
    } catch (IOException | IllegalArgumentException | UncheckedIOException e) {
      // Torn, damaged or of another version: what it held is in the grid.
      if (String.valueOf(e.getMessage()).contains("No space left")) {
        throw e;
      }
      log.warn("index {}: its folder cannot be used and is made anew: {}", name, e.toString());
      deleteFolder();
      return openFolder();
    }
  }

  private Opened openFolder() throws IOException {
    Files.createDirectories(folder);
    Directory directory = FSDirectory.open(folder);
    boolean done = false;
    try {
      Map<String, String> place = Map.of();
      if (DirectoryReader.indexExists(directory)) {
        try (DirectoryReader reader = DirectoryReader.open(directory)) {
          for (LeafReaderContext leaf : reader.leaves()) {
            leaf.reader().checkIntegrity();
          }
          place = reader.getIndexCommit().getUserData();
        }
      } else if (!isEmpty(folder)) {
        throw new IOException("there are files but no commit");
      }
      IndexWriter writer = new IndexWriter(directory, config());
      applied =
          place.containsKey("sequence")
              ? new IndexStore.Position(
                  Long.parseLong(place.getOrDefault("sequence", "0")),
                  Long.parseLong(place.getOrDefault("nonce", "0")))
              : IndexStore.Position.START;
      if (applied.sequence() == 0) {
        writer.deleteAll();
      }
      SearcherManager searchers = new SearcherManager(writer, new SearcherFactory());
      committed = applied.sequence();
      searchable = applied;
      catchUpTo = -1;
      startFloor = -1;
      changesSinceCommit = 0;
      lastCommitNs = nanoTime.getAsLong();
      Opened result = new Opened(directory, writer, searchers);
      opened = result;
      done = true;
      return result;
    } finally {
      if (!done) {
        directory.close();
      }
    }
  }

  private static boolean isEmpty(Path folder) throws IOException {
    try (Stream<Path> files = Files.list(folder)) {
      return files.noneMatch(file -> !file.getFileName().toString().equals("write.lock"));
    }
  }

  private IndexWriterConfig config() {
    Analyzer current =
        new DelegatingAnalyzerWrapper(Analyzer.PER_FIELD_REUSE_STRATEGY) {
          @Override
          protected Analyzer getWrappedAnalyzer(String field) {
            return SearchAnalyzers.of(schema.get().analyzerOf(field));
          }
        };
    IndexWriterConfig config = new IndexWriterConfig(current);
    config.setRAMBufferSizeMB(32);
    config.setCommitOnClose(false);
    config.setCodec(
        new Lucene104Codec() {
          @Override
          public KnnVectorsFormat getKnnVectorsFormatForField(String field) {
            return new WideVectors(
                switch (schema.get().settings().vectors().quantization()) {
                  case FLOAT32 -> new Lucene99HnswVectorsFormat();
                  case INT8 ->
                      new Lucene104HnswScalarQuantizedVectorsFormat(
                          ScalarEncoding.UNSIGNED_BYTE, 16, 100);
                  case INT4 ->
                      new Lucene104HnswScalarQuantizedVectorsFormat(
                          ScalarEncoding.PACKED_NIBBLE, 16, 100);
                });
          }
        });
    return config;
  }

  /** The library's format, which takes 1,024 dimensions unless told otherwise. */
  private static final class WideVectors extends KnnVectorsFormat {
    private final KnnVectorsFormat format;

    WideVectors(KnnVectorsFormat format) {
      super(format.getName());
      this.format = format;
    }

    @Override
    public KnnVectorsWriter fieldsWriter(SegmentWriteState state) throws IOException {
      return format.fieldsWriter(state);
    }

    @Override
    public KnnVectorsReader fieldsReader(SegmentReadState state) throws IOException {
      return format.fieldsReader(state);
    }

    @Override
    public int getMaxDimensions(String field) {
      return IndexSettings.DIMENSIONS_MAX;
    }
  }

  /** After a failed step: closes what may be broken, so that the next step opens it again. */
  synchronized void recover(Exception failure) {
    log.warn("index {}: following failed: {}", name, failure.toString());
    Opened at = opened;
    if (at != null && !at.writer.isOpen()) {
      close(at, false);
    }
  }

  private void deleteFolder() throws IOException {
    ready = false;
    deleteFolder(folder);
    damaged = false;
  }

  static void deleteFolder(Path folder) throws IOException {
    if (!Files.exists(folder)) {
      return;
    }
    try (Stream<Path> files = Files.walk(folder)) {
      for (Path file : files.sorted(java.util.Comparator.reverseOrder()).toList()) {
        Files.delete(file);
      }
    }
  }

  /** Borrows the searcher of what is visible now. */
  private <T> T search(Use<T> use) {
    Opened at = opened;
    if (at == null || !ready) {
      throw new FlotillaException(
          Code.UNAVAILABLE, "index " + name + " is catching up on this node", "Try again soon.");
    }
    try {
      IndexSearcher searcher = at.searchers.acquire();
      try {
        return use.of(searcher);
      } finally {
        at.searchers.release(searcher);
      }
    } catch (org.apache.lucene.index.CorruptIndexException e) {
      damaged = true;
      ready = false;
      log.warn("index {}: damaged, to be made anew: {}", name, e.toString());
      throw unavailable(e);
    } catch (IOException | org.apache.lucene.store.AlreadyClosedException e) {
      throw unavailable(e);
    }
  }

  private FlotillaException unavailable(Exception e) {
    return new FlotillaException(
        Code.UNAVAILABLE,
        "index " + name + " cannot be read on this node: " + e.getMessage(),
        "Try again.",
        e);
  }

  @FunctionalInterface
  private interface Use<T> {
    T of(IndexSearcher searcher) throws IOException;
  }

  SearchFrequencies frequencies(Set<Term> terms) {
    return search(searcher -> SearchFrequencies.count(searcher, terms));
  }

  /**
   * Searches this shard.
   *
   * @param frequencies of all shards; none if this is the only one
   */
  SearchHits search(SearchPlan plan, @Nullable SearchFrequencies frequencies) {
    return search(
        mine -> {
          IndexReader reader = mine.getIndexReader();
          boolean timed = plan.isExpanding() || reader.maxDoc() > QUICK_DOCUMENTS;
          IndexSearcher searcher =
              frequencies != null
                  ? frequencies.searcher(reader)
                  : timed ? new IndexSearcher(reader) : mine;
          if (timed) {
            // Not for words over few documents: they end soon, and looking at the clock costs.
            long deadlineNs = nanoTime.getAsLong() + plan.request().timeoutMs() * 1_000_000L;
            searcher.setTimeout(() -> nanoTime.getAsLong() > deadlineNs);
          }
          Fetch fetch = new Fetch(plan, searcher);
          List<SearchHits.ShardHit> list = List.of();
          TotalHits total = new TotalHits(0, TotalHits.Relation.EQUAL_TO);
          if (plan.hasList()) {
            TopDocs found = list(plan, searcher);
            total = found.totalHits;
            list = fetch.of(found.scoreDocs, plan.sort(), true);
            if (plan.isByScore()) {
              list = list.stream().sorted(SearchHits.BY_SCORE).toList();
            }
          }
          List<SearchHits.ShardHit> nearest = List.of();
          if (plan.hasVector()) {
            ScoreDoc[] found =
                bestByScore(searcher, searcher.rewrite(plan.vectorQuery()), plan.depth()).scoreDocs;
            nearest =
                fetch.of(found, SearchPlan.BY_SCORE, false).stream()
                    .sorted(SearchHits.BY_SCORE)
                    .toList();
          }
          return new SearchHits(
              list,
              nearest,
              total.value(),
              total.relation() == TotalHits.Relation.EQUAL_TO,
              searcher.timedOut());
        });
  }

  private static TopDocs list(SearchPlan plan, IndexSearcher searcher) throws IOException {
    Query query = plan.listQuery();
    if (plan.after().isPresent()) {
      return searcher.searchAfter(
          after(plan.after().get(), searcher), query, plan.depth(), plan.sort());
    }
    return plan.isByScore()
        ? bestByScore(searcher, query, plan.depth())
        : searcher.search(query, plan.depth(), plan.sort());
  }

  /**
   * The best, and among equal scores the first by id. The library breaks ties by its own numbers,
   * which differ from replica to replica; only a tie across the end of the list needs the slower
   * search that compares ids.
   */
  private static TopDocs bestByScore(IndexSearcher searcher, Query query, int count)
      throws IOException {
    TopDocs best = searcher.search(query, count + 1);
    ScoreDoc[] found = best.scoreDocs;
    if (found.length <= count) {
      return best;
    }
    if (found[count - 1].score == found[count].score) {
      return searcher.search(query, count, SearchPlan.BY_SCORE);
    }
    return new TopDocs(best.totalHits, java.util.Arrays.copyOf(found, count));
  }

  /** Ids are unique, so that what equals the last hit is the last hit. */
  private static FieldDoc after(List<Object> values, IndexSearcher searcher) {
    Object[] fields =
        values.stream().map(value -> value instanceof SearchPlan.Missing ? null : value).toArray();
    return new FieldDoc(Math.max(0, searcher.getIndexReader().maxDoc() - 1), Float.NaN, fields);
  }

  /** Reads what hits show, within a bound on all of them together. */
  private static final class Fetch {
    private final SearchPlan plan;
    private final IndexSearcher searcher;
    private final StoredFields stored;
    private int bytes;

    Fetch(SearchPlan plan, IndexSearcher searcher) throws IOException {
      this.plan = plan;
      this.searcher = searcher;
      this.stored = searcher.storedFields();
    }

    List<SearchHits.ShardHit> of(ScoreDoc[] found, Sort sort, boolean highlighted)
        throws IOException {
      List<SearchHits.ShardHit> hits = new ArrayList<>(found.length);
      for (ScoreDoc one : found) {
        Document document = stored.document(one.doc);
        String id = document.get(IndexSchema.ID);
        BytesRef source = document.getBinaryValue(IndexSchema.SOURCE);
        byte[] json = shown(plan, bytes(source));
        bytes += json.length;
        if (bytes > ANSWER_BYTES_MAX) {
          throw new FlotillaException(
              Code.TOO_LARGE,
              "the hits hold more than " + (ANSWER_BYTES_MAX >> 20) + " MB",
              "Ask for fewer with k, or for some of their fields with return_fields.");
        }
        float score = plan.isScored() || !highlighted ? score(one, sort) : 1f;
        hits.add(
            new SearchHits.ShardHit(
                id,
                score,
                sortValues(one, score, id),
                json,
                highlighted ? highlights(bytes(source)) : Map.of()));
      }
      return hits;
    }

    private byte[] bytes(BytesRef ref) {
      return ref.offset == 0 && ref.length == ref.bytes.length
          ? ref.bytes
          : java.util.Arrays.copyOfRange(ref.bytes, ref.offset, ref.offset + ref.length);
    }

    private float score(ScoreDoc one, Sort sort) {
      if (one instanceof FieldDoc doc) {
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
      if (plan.request().highlight().isEmpty() || plan.words().isEmpty()) {
        return Map.of();
      }
      Map<String, String> shown = new LinkedHashMap<>();
      var json = Json.MAPPER.readTree(source);
      UnifiedHighlighter highlighter =
          UnifiedHighlighter.builderWithoutSearcher(plan.schema().analyzer())
              .withMaxLength(HIGHLIGHT_CHARACTERS_MAX)
              .withFormatter(
                  new org.apache.lucene.search.uhighlight.DefaultPassageFormatter(
                      "<em>", "</em>", " … ", false))
              .withMaxNoHighlightPassages(0)
              .build();
      Query query = searcher.rewrite(plan.words().get());
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
  }

  private static byte[] shown(SearchPlan plan, byte[] source) throws IOException {
    List<String> wanted = plan.request().returnFields();
    if (wanted.isEmpty()) {
      return source;
    }
    var json = (com.fasterxml.jackson.databind.node.ObjectNode) Json.MAPPER.readTree(source);
    var fields = (com.fasterxml.jackson.databind.node.ObjectNode) json.get("fields");
    fields.retain(wanted);
    if (!wanted.contains(IndexSchema.TEXT)) {
      json.remove("text");
    }
    return Json.write(json);
  }

  /** How it stands; numbers are zero while it is not open. */
  SearchIndex.ReplicaStats stats(String node) {
    String state = ready ? "ready" : "catching_up";
    try {
      return search(
          searcher -> {
            long bytes = 0;
            Opened at = opened;
            if (at != null) {
              for (String file : at.directory.listAll()) {
                bytes += at.directory.fileLength(file);
              }
            }
            IndexReader reader = searcher.getIndexReader();
            return new SearchIndex.ReplicaStats(
                node, state, searchable(), reader.numDocs(), bytes, reader.leaves().size());
          });
    } catch (FlotillaException e) {
      return new SearchIndex.ReplicaStats(node, state, searchable(), 0, 0, 0);
    }
  }

  private void close(Opened at, boolean commit) {
    // Half-way through a start from the start, a commit would be a place that is none.
    boolean whole = ready;
    opened = null;
    ready = false;
    try {
      if (commit && whole && at.writer.isOpen() && changesSinceCommit > 0) {
        commit(at);
      }
    } catch (IOException | RuntimeException e) {
      log.warn("index {}: not committed at the end, to be followed again: {}", name, e.toString());
    }
    try {
      at.searchers.close();
      at.writer.rollback();
      at.directory.close();
    } catch (IOException | RuntimeException e) {
      log.warn("index {}: did not close cleanly: {}", name, e.toString());
    }
  }

  /** Leaves the folder as it is, to go on from. */
  @Override
  public synchronized void close() {
    closed = true;
    Opened at = opened;
    if (at != null) {
      close(at, true);
    }
    synchronized (waiting) {
      waiting.notifyAll();
    }
  }

  /** Closes and deletes the folder. */
  synchronized void drop() throws IOException {
    close();
    deleteFolder();
  }
}

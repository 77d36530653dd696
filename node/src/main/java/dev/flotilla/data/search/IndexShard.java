package dev.flotilla.data.search;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.cluster.NodeFiles;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Optional;
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
import org.apache.lucene.index.Term;
import org.apache.lucene.search.IndexSearcher;
import org.apache.lucene.search.SearcherFactory;
import org.apache.lucene.search.SearcherManager;
import org.apache.lucene.store.Directory;
import org.apache.lucene.store.FSDirectory;
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
  private static final long SHOW_NS = 500_000_000L;

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
    } else {
      // What was merged in the background since: the same documents, in fewer segments.
      at.searchers.maybeRefreshBlocking();
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
      if (NodeFiles.isDiskFull(e)) {
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
    NodeFiles.deleteTree(folder);
    damaged = false;
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
   * Searches this shard, for a node that puts several together.
   *
   * @param frequencies of all shards; none if this is the only one
   */
  SearchHits search(SearchPlan plan, @Nullable SearchFrequencies frequencies) {
    return search(mine -> new ShardSearch(plan, mine, frequencies, nanoTime).all());
  }

  /** What is visible now, borrowed: close it. */
  static final class Borrowed implements AutoCloseable {
    private final SearcherManager from;
    private final IndexSearcher searcher;

    private Borrowed(SearcherManager from) throws IOException {
      this.from = from;
      this.searcher = from.acquire();
    }

    IndexSearcher searcher() {
      return searcher;
    }

    @Override
    public void close() throws IOException {
      from.release(searcher);
    }
  }

  /** Empty while it does not answer. */
  Optional<Borrowed> borrow() throws IOException {
    Opened at = opened;
    return at == null || !ready ? Optional.empty() : Optional.of(new Borrowed(at.searchers));
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

package dev.flotilla.data.log;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.lucene.analysis.standard.StandardAnalyzer;
import org.apache.lucene.document.Document;
import org.apache.lucene.document.Field;
import org.apache.lucene.document.LongField;
import org.apache.lucene.document.StoredField;
import org.apache.lucene.document.StringField;
import org.apache.lucene.document.TextField;
import org.apache.lucene.index.IndexWriter;
import org.apache.lucene.index.IndexWriterConfig;
import org.apache.lucene.index.Term;
import org.apache.lucene.queryparser.classic.ParseException;
import org.apache.lucene.queryparser.classic.QueryParser;
import org.apache.lucene.search.BooleanClause;
import org.apache.lucene.search.BooleanQuery;
import org.apache.lucene.search.IndexSearcher;
import org.apache.lucene.search.MatchAllDocsQuery;
import org.apache.lucene.search.ScoreDoc;
import org.apache.lucene.search.SearcherManager;
import org.apache.lucene.search.Sort;
import org.apache.lucene.search.SortedNumericSelector;
import org.apache.lucene.search.TermQuery;
import org.apache.lucene.store.FSDirectory;

/**
 * All entries that this node holds, indexed by time and text. Can be deleted: what is missing is
 * indexed again from the segments, from the last number of each node on that a commit records.
 */
final class LogIndex implements AutoCloseable {

  /** What one node found. */
  record Found(List<byte[]> entries, long arrival) {}

  private final FSDirectory directory;
  private final StandardAnalyzer analyzer = new StandardAnalyzer();
  private final IndexWriter writer;
  private final SearcherManager searchers;
  private final Map<String, Long> indexed = new HashMap<>();
  private volatile long arrival;

  /**
   * @param firstArrival grows with each opening, so that a follower's place stays valid
   */
  LogIndex(Path folder, long firstArrival) throws IOException {
    directory = FSDirectory.open(folder);
    IndexWriterConfig config = new IndexWriterConfig(analyzer);
    config.setRAMBufferSizeMB(8);
    config.setCommitOnClose(false);
    try {
      writer = new IndexWriter(directory, config);
    } catch (IOException | RuntimeException e) {
      directory.close();
      throw e;
    }
    Iterable<Map.Entry<String, String>> data = writer.getLiveCommitData();
    if (data != null) {
      data.forEach(each -> indexed.put(each.getKey(), Long.parseLong(each.getValue())));
    }
    searchers = new SearcherManager(writer, null);
    arrival = firstArrival;
  }

  /** The last number of that node's which is in the index. */
  synchronized long indexed(String node) {
    return indexed.getOrDefault(node, 0L);
  }

  synchronized void add(String node, List<LogSegments.Line> lines) throws IOException {
    for (LogSegments.Line line : lines) {
      if (line.seq() <= indexed(node)) {
        continue;
      }
      Log.Entry entry;
      try {
        entry = Json.read(line.json(), Log.Entry.class);
      } catch (FlotillaException damaged) {
        continue;
      }
      Document document = new Document();
      document.add(new StringField("node", node, Field.Store.NO));
      document.add(new LongField("seq", line.seq(), Field.Store.NO));
      document.add(new LongField("time", entry.timeMs(), Field.Store.NO));
      document.add(new LongField("arrival", arrival + 1, Field.Store.NO));
      document.add(new LongField("level", entry.level().severity(), Field.Store.NO));
      document.add(new TextField("logger", entry.logger(), Field.Store.NO));
      document.add(new TextField("message", entry.message(), Field.Store.NO));
      entry
          .fields()
          .forEach(
              (name, value) ->
                  document.add(
                      name.equals("exception")
                          ? new TextField(name, value, Field.Store.NO)
                          : new TextField("fields", name + " " + value, Field.Store.NO)));
      document.add(new StoredField("entry", line.json()));
      writer.addDocument(document);
      arrival++;
      indexed.put(node, line.seq());
    }
  }

  long arrival() {
    return arrival;
  }

  /** Makes it last, so that less need be indexed again after a crash. */
  synchronized void commit() throws IOException {
    Map<String, String> data = new HashMap<>();
    indexed.forEach((node, seq) -> data.put(node, Long.toString(seq)));
    writer.setLiveCommitData(data.entrySet());
    writer.commit();
  }

  /** Forgets a node's entries below a number, whose files are gone. */
  void forget(String node, long belowSeq) throws IOException {
    writer.deleteDocuments(
        new BooleanQuery.Builder()
            .add(new TermQuery(new Term("node", node)), BooleanClause.Occur.FILTER)
            .add(LongField.newRangeQuery("seq", 0, belowSeq - 1), BooleanClause.Occur.FILTER)
            .build());
  }

  /** The newest that match, or with {@code afterArrival} those that came after it, oldest first. */
  Found search(Log.Query query, boolean follow, long afterArrival) throws IOException {
    BooleanQuery.Builder all = new BooleanQuery.Builder();
    all.add(MatchAllDocsQuery.INSTANCE, BooleanClause.Occur.FILTER);
    if (!query.text().isBlank()) {
      all.add(parse(query.text()), BooleanClause.Occur.FILTER);
    }
    query
        .node()
        .ifPresent(
            node -> all.add(new TermQuery(new Term("node", node)), BooleanClause.Occur.FILTER));
    query
        .level()
        .ifPresent(
            level ->
                all.add(
                    LongField.newRangeQuery("level", level.severity(), Long.MAX_VALUE),
                    BooleanClause.Occur.FILTER));
    if (!follow && (query.fromMs().isPresent() || query.toMs().isPresent())) {
      all.add(
          LongField.newRangeQuery(
              "time", query.fromMs().orElse(0L), query.toMs().orElse(Long.MAX_VALUE)),
          BooleanClause.Occur.FILTER);
    }
    Sort sort = new Sort(LongField.newSortField("time", true, SortedNumericSelector.Type.MAX));
    if (follow) {
      all.add(
          LongField.newRangeQuery("arrival", afterArrival + 1, Long.MAX_VALUE),
          BooleanClause.Occur.FILTER);
      sort = new Sort(LongField.newSortField("arrival", false, SortedNumericSelector.Type.MAX));
    }
    long upTo = arrival;
    searchers.maybeRefreshBlocking();
    IndexSearcher searcher = searchers.acquire();
    try {
      List<byte[]> entries = new ArrayList<>();
      ScoreDoc[] hits = searcher.search(all.build(), query.limit(), sort).scoreDocs;
      for (ScoreDoc hit : hits) {
        var bytes = searcher.storedFields().document(hit.doc).getBinaryValue("entry");
        entries.add(
            java.util.Arrays.copyOfRange(bytes.bytes, bytes.offset, bytes.offset + bytes.length));
      }
      if (follow && hits.length == query.limit()) {
        upTo =
            ((Number) ((org.apache.lucene.search.FieldDoc) hits[hits.length - 1]).fields[0])
                .longValue();
      }
      return new Found(entries, upTo);
    } finally {
      searchers.release(searcher);
    }
  }

  private org.apache.lucene.search.Query parse(String text) {
    QueryParser parser = new QueryParser("message", analyzer);
    parser.setDefaultOperator(QueryParser.Operator.AND);
    try {
      return parser.parse(text);
    } catch (ParseException | IndexSearcher.TooManyClauses e) {
      throw new FlotillaException(
          Code.INVALID,
          e instanceof ParseException
              ? "the query cannot be understood"
              : "the query has too many words",
          "Put a backslash before characters such as : or (, or quotes around the text.",
          e);
    }
  }

  @Override
  public void close() throws IOException {
    try {
      commit();
    } finally {
      searchers.close();
      writer.rollback();
      directory.close();
    }
  }
}

package dev.flotilla.data.log;

import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Predicate;

/**
 * What happened on the cluster's nodes, in one place; and append-only streams for applications.
 *
 * <p>Each node writes its log to local files and ships it to two others, so that a dead node's log
 * can still be read. A search asks all nodes that answer.
 */
public interface Log {

  /** Severities, the least first. */
  enum Level {
    TRACE(1),
    DEBUG(5),
    INFO(9),
    WARN(13),
    ERROR(17);

    private final int severity;

    Level(int severity) {
      this.severity = severity;
    }

    /** OpenTelemetry's number for it, which grows with the severity. */
    int severity() {
      return severity;
    }
  }

  /**
   * One thing that happened.
   *
   * @param node id of the node on which it did
   * @param seq grows with each entry of a node, for good; with the node it names the entry
   * @param logger who says so
   * @param fields what else is known, such as {@code thread} and {@code exception}
   */
  record Entry(
      long timeMs,
      String node,
      long seq,
      Level level,
      String logger,
      String message,
      Map<String, String> fields) {

    /** Copies the fields. */
    public Entry {
      fields = Map.copyOf(fields);
    }
  }

  /**
   * What to look for.
   *
   * @param text words of the message, in Lucene's query syntax, fields {@code message} (the usual
   *     one), {@code logger}, {@code exception}, {@code fields} (names and values of the others);
   *     empty: everything
   * @param fromMs the earliest time, included
   * @param toMs the latest time, included
   * @param node id or name
   * @param level the least severe
   * @param limit how many, 1 to 10,000
   */
  record Query(
      String text,
      Optional<Long> fromMs,
      Optional<Long> toMs,
      Optional<String> node,
      Optional<Level> level,
      int limit) {

    /** Everything, the newest 100. */
    public static Query all() {
      return new Query(
          "", Optional.empty(), Optional.empty(), Optional.empty(), Optional.empty(), 100);
    }

    /** The same for other words. */
    public Query withText(String words) {
      return new Query(words, fromMs, toMs, node, level, limit);
    }

    /** The same for one node. */
    public Query withNode(String id) {
      return new Query(text, fromMs, toMs, Optional.of(id), level, limit);
    }
  }

  /**
   * What was found.
   *
   * @param entries the newest that match, oldest first
   * @param partial whether a node did not answer, so that entries may be missing
   * @param missing ids of those nodes
   */
  record Page(List<Entry> entries, boolean partial, List<String> missing) {}

  /** One record of a stream. */
  record StreamRecord(long offset, long timeMs, byte[] body) {}

  /**
   * A stream.
   *
   * @param first the oldest record's offset
   * @param next the offset that the next record gets
   */
  record StreamInfo(String name, long first, long next) {}

  /** The most bytes in one record. */
  int RECORD_BYTES_MAX = 1 << 20;

  /**
   * Searches the logs of all nodes.
   *
   * @throws dev.flotilla.FlotillaException {@code INVALID} for a text that cannot be parsed, a node
   *     that is unknown or a limit out of range
   */
  Page search(Query query);

  /**
   * Hands over each matching entry that any node logs from now on, until {@code onEntry} says no.
   * It is called at least every second or so, with nothing if nothing happened. Times in the query
   * are passed over.
   */
  void follow(Query query, Predicate<Optional<Entry>> onEntry);

  /**
   * Appends records to a stream, which is made by the first; all of them or none, next to each
   * other. Returns when a majority has them on disk.
   *
   * @return the first one's offset
   * @throws dev.flotilla.FlotillaException {@code INVALID} for a bad name or no records, {@code
   *     TOO_LARGE} beyond 1 MB a record, 1000 records or 8 MB, {@code NO_MAJORITY}, {@code
   *     OUTCOME_UNKNOWN}
   */
  long append(String stream, List<byte[]> records);

  /** Appends one record. */
  default long append(String stream, byte[] record) {
    return append(stream, List.of(record));
  }

  /**
   * Reads records from an offset on, at most so many (1 to 1000); waits up to {@code waitMs} for
   * the first. An offset before the oldest record starts there.
   *
   * @throws dev.flotilla.FlotillaException {@code NOT_FOUND} if there is no such stream
   */
  List<StreamRecord> read(String stream, long from, int max, long waitMs);

  /**
   * Where a stream begins and ends.
   *
   * @throws dev.flotilla.FlotillaException {@code NOT_FOUND} if there is no such stream
   */
  StreamInfo stream(String name);

  /** All streams, by name. */
  List<StreamInfo> streams();

  /** Forgets the records before an offset. */
  void trim(String stream, long before);
}

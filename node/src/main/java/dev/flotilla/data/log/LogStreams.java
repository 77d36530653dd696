package dev.flotilla.data.log;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Names;
import dev.flotilla.StaleReads;
import dev.flotilla.data.grid.Grid;
import java.nio.ByteBuffer;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import org.apache.ignite.Ignite;
import org.apache.ignite.IgniteCache;
import org.apache.ignite.cache.query.ScanQuery;

/**
 * Append-only streams on the grid: an entry for each stream with its bounds, one for each record.
 * An append locks the bounds, so that records are in one order; it and its records are one
 * transaction.
 */
public final class LogStreams {

  private static final String BOUNDS = "flotilla.streams";
  private static final String RECORDS = "flotilla.stream-records";
  private static final int RECORDS_MAX = 1000;
  private static final long BYTES_MAX = 8L << 20;
  private static final long POLL_MS = 50;

  private final Grid grid;
  private final InstantSource clock;

  public LogStreams(Grid grid, InstantSource clock) {
    this.grid = grid;
    this.clock = clock;
  }

  private static void checkName(String name) {
    Names.check("a stream", name);
  }

  private <T> IgniteCache<String, T> cache(Ignite ignite, String name) {
    return grid.cache(ignite, name);
  }

  /** Made outside of transactions, in which the engine makes no caches. */
  private void make() {
    grid.ensureCache(BOUNDS);
    grid.ensureCache(RECORDS);
  }

  long append(String stream, List<byte[]> records) {
    checkName(stream);
    if (records.isEmpty()) {
      throw new FlotillaException(
          Code.INVALID, "there are no records to append to stream " + stream, "");
    }
    if (records.stream().anyMatch(each -> each.length == 0)) {
      throw new FlotillaException(
          Code.INVALID,
          "nothing to append to stream " + stream + ": a record has no bytes",
          "Send one byte at least.");
    }
    long bytes = records.stream().mapToLong(each -> each.length).sum();
    if (records.size() > RECORDS_MAX
        || bytes > BYTES_MAX
        || records.stream().anyMatch(each -> each.length > Log.RECORD_BYTES_MAX)) {
      throw new FlotillaException(
          Code.TOO_LARGE,
          records.size() + " records of " + bytes + " bytes are too much for one append",
          "At most 1000 records, 1 MB each and 8 MB together.");
    }
    make();
    return grid.transact(
        "appending to stream " + stream,
        Grid.TransactionMode.PESSIMISTIC,
        ignite -> {
          IgniteCache<String, String> bounds = cache(ignite, BOUNDS);
          Log.StreamInfo now =
              Optional.ofNullable(bounds.get(stream))
                  .map(text -> parse(stream, text))
                  .orElse(new Log.StreamInfo(stream, 0, 0));
          Map<String, byte[]> added = new LinkedHashMap<>();
          for (byte[] record : records) {
            added.put(key(stream, now.next() + added.size()), encode(clock.millis(), record));
          }
          this.<byte[]>cache(ignite, RECORDS).putAll(added);
          bounds.put(stream, now.first() + "," + (now.next() + records.size()));
          return now.next();
        });
  }

  private static String key(String stream, long offset) {
    return stream + "/" + offset;
  }

  private static byte[] encode(long timeMs, byte[] record) {
    return ByteBuffer.allocate(Long.BYTES + record.length).putLong(timeMs).put(record).array();
  }

  private static Log.StreamInfo parse(String stream, String text) {
    int comma = text.indexOf(',');
    return new Log.StreamInfo(
        stream,
        Long.parseLong(text.substring(0, comma)),
        Long.parseLong(text.substring(comma + 1)));
  }

  Log.StreamInfo stream(String name) {
    checkName(name);
    make();
    return grid.read(
            "reading stream " + name,
            ignite -> Optional.ofNullable(this.<String>cache(ignite, BOUNDS).get(name)))
        .map(text -> parse(name, text))
        .orElseThrow(
            () ->
                new FlotillaException(
                    Code.NOT_FOUND,
                    "there is no stream " + name,
                    "The first append to it makes it."));
  }

  List<Log.StreamInfo> streams() {
    make();
    return grid.read(
        "reading the streams",
        ignite -> {
          List<Log.StreamInfo> all = new ArrayList<>();
          try (var cursor =
              this.<String>cache(ignite, BOUNDS).query(new ScanQuery<String, String>())) {
            cursor.forEach(each -> all.add(parse(each.getKey(), each.getValue())));
          }
          all.sort(java.util.Comparator.comparing(Log.StreamInfo::name));
          return all;
        });
  }

  List<Log.StreamRecord> read(String stream, long from, int max, long waitMs) {
    if (from < 0 || max < 1 || max > RECORDS_MAX || waitMs < 0 || waitMs > 60_000) {
      throw new FlotillaException(
          Code.INVALID,
          "cannot read " + max + " records from " + from + " with " + waitMs + " ms of patience",
          "Offsets start at 0; 1 to 1000 records and up to 60000 ms at a time.");
    }
    long deadlineNs = System.nanoTime() + waitMs * 1_000_000;
    while (true) {
      Log.StreamInfo now = stream(stream);
      long start = Math.max(from, now.first());
      if (start < now.next()) {
        return records(stream, start, Math.min(now.next(), start + max));
      }
      if (System.nanoTime() >= deadlineNs) {
        return List.of();
      }
      try {
        Thread.sleep(POLL_MS);
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        throw new FlotillaException(Code.FAILED, "interrupted", "", e);
      }
    }
  }

  private List<Log.StreamRecord> records(String stream, long from, long to) {
    List<Log.StreamRecord> records = new ArrayList<>();
    long bytes = 0;
    // In steps, for a thousand large records are too much at a time.
    for (long at = from; at < to && bytes < BYTES_MAX; at += 16) {
      Set<String> keys = new LinkedHashSet<>();
      for (long offset = at; offset < Math.min(to, at + 16); offset++) {
        keys.add(key(stream, offset));
      }
      Map<String, byte[]> found =
          grid.read(
              "reading stream " + stream,
              ignite -> this.<byte[]>cache(ignite, RECORDS).getAll(keys));
      if (found.size() < keys.size() && !StaleReads.marked()) {
        // A commit shows its entries one after the other, the stream's end among the first; who
        // locks the others waits for all of it. What is not there then was trimmed.
        found =
            grid.transact(
                "reading stream " + stream,
                Grid.TransactionMode.PESSIMISTIC,
                ignite -> this.<byte[]>cache(ignite, RECORDS).getAll(keys));
      }
      for (long offset = at; offset < Math.min(to, at + 16); offset++) {
        byte[] record = found.get(key(stream, offset));
        if (record != null) {
          ByteBuffer buffer = ByteBuffer.wrap(record);
          long timeMs = buffer.getLong();
          byte[] body = new byte[buffer.remaining()];
          buffer.get(body);
          bytes += body.length;
          records.add(new Log.StreamRecord(offset, timeMs, body));
        }
      }
    }
    return records;
  }

  /** In small transactions; readers start at the first that is left. */
  void trim(String stream, long before) {
    Log.StreamInfo whole = stream(stream);
    if (before < 0 || before > whole.next()) {
      throw new FlotillaException(
          Code.INVALID,
          "stream " + stream + " cannot be trimmed to " + before + ": its end is " + whole.next(),
          "Give an offset from "
              + whole.first()
              + " to "
              + whole.next()
              + "; nothing was trimmed.");
    }
    while (true) {
      Log.StreamInfo now = stream(stream);
      long end = Math.min(Math.min(before, now.next()), now.first() + RECORDS_MAX);
      if (end <= now.first()) {
        return;
      }
      grid.transact(
          "trimming stream " + stream,
          Grid.TransactionMode.PESSIMISTIC,
          ignite -> {
            IgniteCache<String, String> bounds = cache(ignite, BOUNDS);
            Log.StreamInfo locked =
                parse(stream, java.util.Objects.requireNonNull(bounds.get(stream)));
            if (locked.first() == now.first()) {
              Set<String> gone = new LinkedHashSet<>();
              for (long offset = now.first(); offset < end; offset++) {
                gone.add(key(stream, offset));
              }
              this.<byte[]>cache(ignite, RECORDS).removeAll(gone);
              bounds.put(stream, end + "," + locked.next());
            }
            return true;
          });
    }
  }
}

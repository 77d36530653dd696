package dev.flotilla.data.search;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.data.grid.Grid;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.random.RandomGenerator;
import org.apache.ignite.Ignite;
import org.apache.ignite.IgniteCache;
import org.apache.ignite.cache.affinity.AffinityKey;
import org.jspecify.annotations.Nullable;

/**
 * An index's documents in the data grid, which is where they are; what is searched is made from
 * them.
 *
 * <p>All of a shard lies in one partition. It has, beside its documents, a list of changes: change
 * n says which document the n-th write of the shard put or removed. A write is one transaction: it
 * takes the shard's counter, which orders all writes of the shard, stores the document with its
 * number, adds the change, and blanks the document's change before, so that exactly one change
 * stands for each document. Each change also carries a number drawn at random.
 *
 * <p>A replica follows the list from the change it has applied last. It may read while a write is
 * being applied, entry by entry, on the copy it reads; whatever does not fit together yet (a change
 * missing, a document older than its change) it leaves for the next time. The grid may lose writes
 * that nobody was told were done (see {@link Grid}) and number others the same: the random number
 * of the last applied change shows that, and the replica starts anew.
 */
final class IndexStore {

  static final String CACHE_PREFIX = "flotilla.index.";
  static final int BATCH_MAX = 500;
  private static final int READ_BYTES_MAX = 8 << 20;
  private static final int READ_DOCUMENTS = 64;
  private static final long TRIM_LEAST = 20_000;

  /** A place in a shard's list of changes. */
  record Position(long sequence, long nonce) {
    static final Position START = new Position(0, 0);
  }

  /** A write that is wanted; without a document it removes. */
  record Write(String id, Optional<byte[]> document) {}

  /** A change to follow; without a document it removes. */
  record Change(String id, Optional<IndexDocument> document) {}

  /**
   * What came after a position.
   *
   * @param changes to apply, in order; documents that changed again later are left out
   * @param to the position once they are applied
   * @param last the shard's last sequence when it was read
   * @param floor below it, blanks and removals are forgotten: a place there is good only for one
   *     who started from the start since
   * @param lost whether the position is no place of this list, so that the replica must start anew
   */
  record Changes(List<Change> changes, Position to, long last, long floor, boolean lost) {}

  private final Grid grid;
  private final RandomGenerator random;
  private final String index;
  private final String cacheName;

  IndexStore(Grid grid, RandomGenerator random, String index, String generation) {
    this.grid = grid;
    this.random = random;
    this.index = index;
    this.cacheName = cacheName(index, generation);
  }

  static String cacheName(String index, String generation) {
    return CACHE_PREFIX + index + "@" + generation;
  }

  /** Makes the cache where it is missing. */
  void ensure() {
    grid.<AffinityKey<String>, byte[]>ensureCache(
        cacheName, config -> config.setGroupName("flotilla.index"));
  }

  /** Removes all of it. */
  void destroy() {
    grid.write(
        "removing index " + index,
        ignite -> {
          ignite.destroyCache(cacheName);
          return true;
        });
  }

  private IgniteCache<AffinityKey<String>, byte[]> cache(Ignite ignite) {
    IgniteCache<AffinityKey<String>, byte[]> cache = ignite.cache(cacheName);
    if (cache == null) {
      throw new FlotillaException(Code.NOT_FOUND, "index " + index + " was removed meanwhile", "");
    }
    return cache;
  }

  private static AffinityKey<String> key(int shard, char kind, String rest) {
    return new AffinityKey<>(kind + rest, shard);
  }

  private static AffinityKey<String> counter(int shard) {
    return key(shard, 'n', "");
  }

  private static AffinityKey<String> floor(int shard) {
    return key(shard, 'f', "");
  }

  private static AffinityKey<String> change(int shard, long sequence) {
    return key(shard, 'c', Long.toString(sequence));
  }

  private static AffinityKey<String> document(int shard, String id) {
    return key(shard, 'd', id);
  }

  private static byte[] encode(Position position) {
    return ByteBuffer.allocate(16).putLong(position.sequence).putLong(position.nonce).array();
  }

  private static Position position(byte @Nullable [] bytes) {
    if (bytes == null) {
      return Position.START;
    }
    ByteBuffer buffer = ByteBuffer.wrap(bytes);
    return new Position(buffer.getLong(), buffer.getLong());
  }

  /** What a change does: {@code +} puts, {@code -} removes, a blank stands for none any more. */
  private static byte[] encodeChange(char kind, long nonce, String id) {
    byte[] name = id.getBytes(StandardCharsets.UTF_8);
    return ByteBuffer.allocate(9 + name.length).put((byte) kind).putLong(nonce).put(name).array();
  }

  private static byte[] encodeDocument(long sequence, byte[] json) {
    return ByteBuffer.allocate(8 + json.length).putLong(sequence).put(json).array();
  }

  /**
   * Writes to one shard, at most {@link #BATCH_MAX} at once, all or nothing.
   *
   * @return the sequence of each; 0 where there was nothing to remove
   */
  List<Long> write(int shard, List<Write> writes) {
    return grid.transact(
        "writing to index " + index,
        Grid.TransactionMode.PESSIMISTIC,
        ignite -> {
          IgniteCache<AffinityKey<String>, byte[]> cache = cache(ignite);
          // The counter first, in one go: all writes of a shard queue there, so none waits for
          // another's document while it holds one itself.
          Set<AffinityKey<String>> touched = new LinkedHashSet<>();
          touched.add(counter(shard));
          writes.stream()
              .map(write -> document(shard, write.id))
              .sorted(Comparator.comparing(AffinityKey::key))
              .forEach(touched::add);
          Map<AffinityKey<String>, byte[]> before = new HashMap<>(cache.getAll(touched));
          Position last = position(before.remove(counter(shard)));
          Map<AffinityKey<String>, byte[]> former = formerChanges(cache, shard, before);
          Map<AffinityKey<String>, byte[]> puts = new HashMap<>();
          Set<AffinityKey<String>> removals = new HashSet<>();
          List<Long> sequences = new ArrayList<>();
          for (Write write : writes) {
            AffinityKey<String> key = document(shard, write.id);
            byte[] old = before.get(key);
            if (old == null && write.document.isEmpty()) {
              sequences.add(0L);
              continue;
            }
            last = new Position(last.sequence + 1, random.nextLong());
            if (old != null) {
              AffinityKey<String> replaced = change(shard, ByteBuffer.wrap(old).getLong());
              puts.put(replaced, blank(puts.getOrDefault(replaced, former.get(replaced))));
            }
            puts.put(
                change(shard, last.sequence),
                encodeChange(write.document.isPresent() ? '+' : '-', last.nonce, write.id));
            if (write.document.isPresent()) {
              byte[] now = encodeDocument(last.sequence, write.document.get());
              before.put(key, now);
              puts.put(key, now);
              removals.remove(key);
            } else {
              before.remove(key);
              puts.remove(key);
              removals.add(key);
            }
            sequences.add(last.sequence);
          }
          if (!puts.isEmpty()) {
            puts.put(counter(shard), encode(last));
            cache.putAll(puts);
            if (!removals.isEmpty()) {
              cache.removeAll(removals);
            }
          }
          return sequences;
        });
  }

  private static Map<AffinityKey<String>, byte[]> formerChanges(
      IgniteCache<AffinityKey<String>, byte[]> cache,
      int shard,
      Map<AffinityKey<String>, byte[]> documents) {
    Set<AffinityKey<String>> keys = new HashSet<>();
    documents.values().forEach(one -> keys.add(change(shard, ByteBuffer.wrap(one).getLong())));
    return keys.isEmpty() ? Map.of() : cache.getAll(keys);
  }

  /** Blanks a change and keeps its number, by which a replica knows its place. */
  private static byte[] blank(byte @Nullable [] change) {
    return encodeChange(' ', change == null ? 0 : ByteBuffer.wrap(change).getLong(1), "");
  }

  /** A document as the majority has it. */
  Optional<SearchIndex.Stored> read(int shard, String id) {
    byte[] found =
        grid.read(
            "reading index " + index,
            ignite ->
                Optional.ofNullable(cache(ignite).get(document(shard, id))).orElse(new byte[0]));
    return found.length == 0
        ? Optional.empty()
        : Optional.of(new SearchIndex.Stored(decode(id, found), ByteBuffer.wrap(found).getLong()));
  }

  private static IndexDocument decode(String id, byte[] stored) {
    try {
      return IndexDocument.fromJson(id, Json.MAPPER.readTree(stored, 8, stored.length - 8));
    } catch (IOException e) {
      throw new FlotillaException(
          Code.BAD_FILE, "document " + id + " is damaged in the data grid", "Write it again.", e);
    }
  }

  /** The shard's last sequence. */
  long last(int shard) {
    return grid.read(
        "reading index " + index, ignite -> position(cache(ignite).get(counter(shard))).sequence);
  }

  /**
   * What came after a position: a bounded part of it, and none of what is not whole yet.
   *
   * @param startFloor the floor when the replica started from the start; -1 if it did not
   */
  Changes after(int shard, Position from, long startFloor) {
    return grid.read(
        "following index " + index, ignite -> after(cache(ignite), shard, from, startFloor));
  }

  private static Changes after(
      IgniteCache<AffinityKey<String>, byte[]> cache, int shard, Position from, long startFloor) {
    Position last = position(cache.get(counter(shard)));
    if (last.sequence <= from.sequence) {
      return new Changes(List.of(), from, last.sequence, 0, !last.equals(from));
    }
    long until = Math.min(last.sequence, from.sequence + BATCH_MAX);
    Set<AffinityKey<String>> keys = new HashSet<>();
    keys.add(floor(shard));
    for (long sequence = Math.max(1, from.sequence); sequence <= until; sequence++) {
      keys.add(change(shard, sequence));
    }
    Map<AffinityKey<String>, byte[]> read = cache.getAll(keys);
    long floor = position(read.get(floor(shard))).sequence;
    if (from.sequence > 0
        && isLost(from, read.get(change(shard, from.sequence)), floor, startFloor)) {
      return new Changes(List.of(), from, last.sequence, floor, true);
    }
    Following following = new Following(cache, shard, from);
    for (long sequence = from.sequence + 1; sequence <= until; sequence++) {
      byte[] change = read.get(change(shard, sequence));
      if (change == null && sequence >= floor) {
        break; // Being applied on this copy.
      }
      if (!following.take(sequence, change)) {
        break;
      }
    }
    following.flush();
    return new Changes(following.changes, following.to, last.sequence, floor, false);
  }

  private static boolean isLost(
      Position from, byte @Nullable [] change, long floor, long startFloor) {
    return from.sequence < floor
        ? floor != startFloor
        : change == null || ByteBuffer.wrap(change).getLong(1) != from.nonce;
  }

  /** Gathers changes and reads their documents, several at a time. */
  private static final class Following {
    private final IgniteCache<AffinityKey<String>, byte[]> cache;
    private final int shard;
    private final List<Change> changes = new ArrayList<>();
    private final TreeMap<Long, Pending> pending = new TreeMap<>();
    private Position to;
    private int bytes;
    private boolean stopped;

    private record Pending(char kind, long nonce, String id) {}

    Following(IgniteCache<AffinityKey<String>, byte[]> cache, int shard, Position from) {
      this.cache = cache;
      this.shard = shard;
      this.to = from;
    }

    boolean take(long sequence, byte @Nullable [] change) {
      pending.put(sequence, change == null ? new Pending(' ', 0, "") : decodeChange(change));
      if (pending.size() >= READ_DOCUMENTS) {
        flush();
      }
      return !stopped;
    }

    private static Pending decodeChange(byte[] change) {
      return new Pending(
          (char) change[0],
          ByteBuffer.wrap(change).getLong(1),
          new String(change, 9, change.length - 9, StandardCharsets.UTF_8));
    }

    void flush() {
      Set<AffinityKey<String>> keys = new HashSet<>();
      for (Pending one : pending.values()) {
        if (one.kind == '+') {
          keys.add(document(shard, one.id));
        }
      }
      Map<AffinityKey<String>, byte[]> documents = keys.isEmpty() ? Map.of() : cache.getAll(keys);
      for (Map.Entry<Long, Pending> entry : pending.entrySet()) {
        if (stopped) {
          break;
        }
        apply(entry.getKey(), entry.getValue(), documents);
      }
      pending.clear();
      stopped |= bytes > READ_BYTES_MAX;
    }

    private void apply(long sequence, Pending change, Map<AffinityKey<String>, byte[]> documents) {
      if (change.kind == '-') {
        changes.add(new Change(change.id, Optional.empty()));
      } else if (change.kind == '+') {
        byte[] document = documents.get(document(shard, change.id));
        if (document == null || ByteBuffer.wrap(document).getLong() < sequence) {
          stopped = true; // Being applied on this copy, or removed since; the next look tells.
          return;
        }
        if (ByteBuffer.wrap(document).getLong() == sequence) {
          bytes += document.length;
          changes.add(new Change(change.id, Optional.of(decode(change.id, document))));
        }
      }
      to = new Position(sequence, change.nonce);
    }
  }

  /** Whether blanks and removals are most of the shard's list of changes. */
  boolean isTrimDue(int shard, long documents) {
    return last(shard) - floorOf(shard) > Math.max(TRIM_LEAST, 2 * documents);
  }

  private long floorOf(int shard) {
    return grid.read(
        "reading index " + index, ignite -> position(cache(ignite).get(floor(shard))).sequence);
  }

  /**
   * Forgets blanks and removals below a sequence that every replica has on disk. A replica that
   * comes back from before it starts anew.
   */
  void trim(int shard, long below) {
    long old = floorOf(shard);
    if (below <= old) {
      return;
    }
    grid.write(
        "trimming index " + index,
        ignite -> {
          cache(ignite).put(floor(shard), encode(new Position(below, 0)));
          return true;
        });
    for (long start = Math.max(1, old); start < below; start += BATCH_MAX) {
      long from = start;
      grid.write(
          "trimming index " + index,
          ignite -> {
            Set<AffinityKey<String>> keys = new HashSet<>();
            for (long s = from; s < Math.min(below, from + BATCH_MAX); s++) {
              keys.add(change(shard, s));
            }
            TreeSet<AffinityKey<String>> dead =
                new TreeSet<>(java.util.Comparator.comparing(AffinityKey::key));
            cache(ignite)
                .getAll(keys)
                .forEach(
                    (key, change) -> {
                      if (change[0] != '+') {
                        dead.add(key);
                      }
                    });
            cache(ignite).removeAll(dead);
            return true;
          });
    }
  }
}

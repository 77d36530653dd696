package dev.flotilla.data.cache;

import java.time.Duration;
import java.util.Collection;
import java.util.Map;
import java.util.Optional;

/**
 * Bytes by key, kept in the grid on up to three nodes, read from this node's own memory where it
 * can be.
 *
 * <p>What a read may return: an entry that a put, on whatever node, has written; never one that was
 * replaced before the read began by a put that had returned (the register is <em>regular</em>, in
 * Lamport's word). {@link NearCoherence} says how, and what holds when nodes are cut off or die. An
 * entry may go at any time, by its time to live or by the cache's bounds.
 *
 * <p>Every operation that writes is one transaction of the grid: all or nothing. Inside a running
 * transaction of this thread, all operations take part in it; reads then go past the near cache.
 *
 * <p>Keys: 1 to 1,024 bytes of UTF-8. Values: at most {@value #VALUE_BYTES_MAX} bytes. At most
 * {@value #KEYS_MAX} keys at once.
 *
 * <p>Errors of all operations, as {@link dev.flotilla.FlotillaException}: {@code INVALID} and
 * {@code TOO_LARGE} for keys and values out of bounds, {@code NO_MAJORITY} if nothing was done for
 * want of a majority, {@code OUTCOME_UNKNOWN} if it cannot be told whether a write was done, {@code
 * CONFLICT} or {@code BUSY} if another transaction was in the way and nothing was done, {@code
 * NOT_FOUND} if the cache was dropped.
 */
public interface Cache {

  /** The largest value, 1 MiB: larger things are blobs. */
  int VALUE_BYTES_MAX = 1 << 20;

  /** The longest key in UTF-8. */
  int KEY_BYTES_MAX = 1024;

  /** The most keys of one bulk operation. */
  int KEYS_MAX = 1000;

  /**
   * An entry.
   *
   * @param version which write made it; no two writes of any key have the same
   * @param expiresAtMs by the wall clock; 0 if it never does
   */
  record Entry(byte[] value, long version, long expiresAtMs) {}

  /** What it is called. */
  String name();

  /** How it was created. */
  CacheConfig config();

  /** The value; loaded if the cache has a store and none is there. */
  default Optional<byte[]> get(String key) {
    return entry(key).map(Entry::value);
  }

  /**
   * As {@link #get}, with the entry's version. With a store: one load per key over all nodes at a
   * time, for which the others wait.
   *
   * @throws dev.flotilla.FlotillaException {@code BUSY} if another's load took longer than the
   *     cache's {@code loadTimeoutMs}; what the store itself throws
   */
  Optional<Entry> entry(String key);

  /** Those of the keys that are there. Does not load. */
  Map<String, byte[]> getAll(Collection<String> keys);

  /** Writes, with the cache's own time to live. */
  default void put(String key, byte[] value) {
    put(key, value, Optional.empty());
  }

  /**
   * Writes.
   *
   * @param ttl from now; empty for the cache's own
   * @return the version written
   */
  long put(String key, byte[] value, Optional<Duration> ttl);

  /** Writes all or nothing. */
  void putAll(Map<String, byte[]> entries, Optional<Duration> ttl);

  /**
   * Writes if no entry is there.
   *
   * @return the version written, or empty if one was there
   */
  default Optional<Long> putIfAbsent(String key, byte[] value, Optional<Duration> ttl) {
    return compareAndSet(key, 0, value, ttl);
  }

  /**
   * Writes if the entry is still that version; 0 stands for none.
   *
   * @return the version written, or empty if it was another
   */
  Optional<Long> compareAndSet(
      String key, long expectedVersion, byte[] value, Optional<Duration> ttl);

  /**
   * Writes if the value is still equal to the one expected; empty stands for none.
   *
   * @return the version written, or empty if it was not
   */
  Optional<Long> compareAndSet(
      String key, Optional<byte[]> expected, byte[] value, Optional<Duration> ttl);

  /**
   * Adds to a decimal number, which starts at 0, and keeps its time to live.
   *
   * @return the sum
   * @throws dev.flotilla.FlotillaException {@code INVALID} if the value is no such number, or would
   *     pass 64 bits
   */
  long increment(String key, long by);

  /** Writes, and returns what was there. */
  Optional<byte[]> getAndPut(String key, byte[] value, Optional<Duration> ttl);

  /** Removes, and returns what was there. */
  Optional<byte[]> getAndRemove(String key);

  /** Whether an entry was there to be removed. */
  default boolean remove(String key) {
    return getAndRemove(key).isPresent();
  }

  /** Removes if the entry is still that version; whether it was. */
  boolean remove(String key, long expectedVersion);

  /** Removes everything; not one transaction, and never part of one. */
  void clear();

  /** What all nodes that answer have counted since they started. */
  CacheStatistics statistics();
}

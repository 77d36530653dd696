package dev.flotilla.data.cache;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Optional;

/**
 * How a cache is made; fixed at its creation.
 *
 * @param mode where entries are kept
 * @param ttlMs how long an entry lives if its put does not say; 0 for ever
 * @param maxEntries the oldest entries go when there are more; the bound is soft: every node looks
 *     after its own share every two seconds, so there may be as many more as were written meanwhile
 * @param maxBytes as {@code maxEntries}, for the sum of keys and values, without copies
 * @param nearBytes of this node's memory for entries it has read lately (W-TinyLFU); 0 for none
 * @param store the name under which nodes have registered a {@link CacheStore}; empty for none
 * @param writeThrough writes go to the store too, or are not done
 * @param loadTimeoutMs how long a load may take, before others try
 */
public record CacheConfig(
    Mode mode,
    long ttlMs,
    long maxEntries,
    long maxBytes,
    long nearBytes,
    Optional<String> store,
    boolean writeThrough,
    long loadTimeoutMs) {

  /** Where entries are kept. */
  public enum Mode {
    /** Each entry on up to three nodes. */
    PARTITIONED,
    /** Each entry on every node: reads are local everywhere, writes reach all. */
    REPLICATED
  }

  /** What a cache gets of which nobody said anything. */
  public static final CacheConfig DEFAULT =
      new CacheConfig(
          Mode.PARTITIONED, 0, 1_000_000, 256L << 20, 32L << 20, Optional.empty(), false, 30_000);

  /**
   * Checks the bounds.
   *
   * @throws FlotillaException {@code INVALID}
   */
  public CacheConfig {
    require(ttlMs >= 0 && ttlMs <= TTL_MS_MAX, "ttl_ms must be from 0 to " + TTL_MS_MAX);
    require(maxEntries > 0, "max_entries must be at least 1");
    require(maxBytes > 0, "max_bytes must be at least 1");
    require(nearBytes >= 0, "near_bytes must be at least 0");
    require(!writeThrough || store.isPresent(), "write_through needs a store");
    require(loadTimeoutMs >= 1 && loadTimeoutMs <= 600_000, "load_timeout_ms must be 1 to 600000");
  }

  /** How this differs from another, setting by setting, for people. */
  String differences(CacheConfig other) {
    List<String> all = new ArrayList<>();
    differ(all, "mode", name(mode), name(other.mode));
    differ(all, "ttl_ms", ttlMs, other.ttlMs);
    differ(all, "max_entries", maxEntries, other.maxEntries);
    differ(all, "max_bytes", maxBytes, other.maxBytes);
    differ(all, "near_bytes", nearBytes, other.nearBytes);
    differ(all, "store", store.orElse("none"), other.store.orElse("none"));
    differ(all, "write_through", writeThrough, other.writeThrough);
    differ(all, "load_timeout_ms", loadTimeoutMs, other.loadTimeoutMs);
    return String.join(", ", all);
  }

  private static String name(Mode mode) {
    return mode.name().toLowerCase(Locale.ROOT);
  }

  private static void differ(List<String> all, String name, Object mine, Object theirs) {
    if (!mine.equals(theirs)) {
      all.add(name + " " + mine + ", not " + theirs);
    }
  }

  /** Ten years. */
  static final long TTL_MS_MAX = 10L * 365 * 24 * 3600 * 1000;

  private static void require(boolean holds, String what) {
    if (!holds) {
      throw new FlotillaException(Code.INVALID, what, "");
    }
  }

  /** The same with another time to live. */
  public CacheConfig withTtlMs(long other) {
    return new CacheConfig(
        mode, other, maxEntries, maxBytes, nearBytes, store, writeThrough, loadTimeoutMs);
  }

  /** The same with other bounds. */
  public CacheConfig withBounds(long entries, long bytes) {
    return new CacheConfig(
        mode, ttlMs, entries, bytes, nearBytes, store, writeThrough, loadTimeoutMs);
  }

  /** The same with another bound of the near cache. */
  public CacheConfig withNearBytes(long bytes) {
    return new CacheConfig(
        mode, ttlMs, maxEntries, maxBytes, bytes, store, writeThrough, loadTimeoutMs);
  }

  /** The same with a store behind it. */
  public CacheConfig withStore(String name, boolean through) {
    return new CacheConfig(
        mode, ttlMs, maxEntries, maxBytes, nearBytes, Optional.of(name), through, loadTimeoutMs);
  }

  /** The same, kept elsewhere. */
  public CacheConfig withMode(Mode other) {
    return new CacheConfig(
        other, ttlMs, maxEntries, maxBytes, nearBytes, store, writeThrough, loadTimeoutMs);
  }
}

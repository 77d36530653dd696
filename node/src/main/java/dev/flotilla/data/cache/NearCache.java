package dev.flotilla.data.cache;

import com.github.benmanes.caffeine.cache.Caffeine;
import com.github.benmanes.caffeine.cache.Policy;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicLongArray;
import java.util.concurrent.atomic.LongAdder;
import org.jspecify.annotations.Nullable;

/**
 * One cache's entries in this node's own memory, bounded by bytes; what goes is chosen by W-TinyLFU
 * (Einziger, Friedman and Manes, "TinyLFU: A Highly Efficient Cache Admission Policy", 2017), which
 * Caffeine implements. What may be returned is up to {@link NearLeases}.
 */
final class NearCache {

  /**
   * An entry.
   *
   * @param untilNs when it expires, or must be read again at the latest
   * @param epoch of {@link NearLeases} under which it was read
   */
  record Near(CacheValue value, long untilNs, long epoch) {}

  private static final int STRIPES = 1024;
  private static final int ENTRY_OVERHEAD_BYTES = 120;

  private final com.github.benmanes.caffeine.cache.Cache<String, Near> entries;
  private final AtomicLongArray invalidations = new AtomicLongArray(STRIPES);
  private final LongAdder evictions = new LongAdder();
  private volatile boolean retired;

  NearCache(long bytesMax) {
    entries =
        Caffeine.newBuilder()
            .maximumWeight(bytesMax)
            .<String, Near>weigher(
                (key, near) -> key.length() + near.value().bytes().length + ENTRY_OVERHEAD_BYTES)
            .executor(Runnable::run)
            .evictionListener((key, near, cause) -> evictions.increment())
            .build();
  }

  /** What is there, valid or not. */
  @Nullable Near find(String key) {
    return entries.getIfPresent(key);
  }

  private static int stripe(String key) {
    int hash = key.hashCode() * 0x9E3779B9;
    return hash >>> 22;
  }

  /** To be taken before the grid is read, and given to {@link #fill} after. */
  long stamp(String key) {
    return invalidations.get(stripe(key));
  }

  /**
   * Keeps what was read, unless the key (or one of its stripe) was invalidated since the stamp was
   * taken. The check and the insertion are one step, as seen by {@link #invalidate}.
   */
  void fill(String key, Near near, long stamp) {
    entries
        .asMap()
        .compute(key, (same, before) -> stamp(same) == stamp && !retired ? near : before);
  }

  void invalidate(String key) {
    invalidations.incrementAndGet(stripe(key));
    entries.asMap().remove(key);
  }

  /** Gives the memory of everything back. */
  void clear() {
    entries.invalidateAll();
  }

  /** Keeps nothing from now on, since it will not hear of what is written. */
  void retire() {
    retired = true;
    clear();
  }

  long evictions() {
    return evictions.sum();
  }

  long size() {
    return entries.estimatedSize();
  }

  long bytes() {
    Optional<Policy.Eviction<String, Near>> eviction = entries.policy().eviction();
    return eviction.isPresent() ? eviction.get().weightedSize().orElse(0) : 0;
  }
}

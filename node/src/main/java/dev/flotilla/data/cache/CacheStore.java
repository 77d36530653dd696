package dev.flotilla.data.cache;

import java.util.Map;
import java.util.Optional;

/**
 * What stands behind a cache, such as a database. Registered by name on each node that uses the
 * cache: no code travels. Called on the thread of whoever reads or writes; an exception of its own
 * passes to the caller.
 */
public interface CacheStore {

  /** The value, if the store has one. */
  Optional<byte[]> load(String key);

  /** Whether {@link #write} works. */
  default boolean writable() {
    return false;
  }

  /**
   * Writes all or nothing; an empty value removes. Must bear being repeated. If the cache then
   * cannot commit, it is called once more with what was there before.
   */
  default void write(Map<String, Optional<byte[]>> changes) {
    throw new IllegalStateException("this store is not writable");
  }
}

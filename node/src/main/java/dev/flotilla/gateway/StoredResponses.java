package dev.flotilla.gateway;

import dev.flotilla.data.cache.Cache;
import dev.flotilla.data.cache.CacheConfig;
import dev.flotilla.data.cache.Caches;
import java.util.Optional;
import java.util.concurrent.TimeUnit;

/** Where complete responses are kept, by their ids, for whoever asks for them later. */
public interface StoredResponses {

  /** How long one is kept, in days. */
  int DAYS = 30;

  /**
   * Stores one; the same one again changes nothing.
   *
   * @throws dev.flotilla.FlotillaException if it may not be there now
   */
  void put(String id, byte[] response);

  /** One of them, if it is there. */
  Optional<byte[]> find(String id);

  /** Removes one; whether it was there. */
  boolean remove(String id);

  /** In the grid, on up to three nodes each. */
  static StoredResponses in(Caches caches) {
    CacheConfig config =
        CacheConfig.DEFAULT
            .withTtlMs(TimeUnit.DAYS.toMillis(DAYS))
            .withBounds(10_000_000, 16L << 30)
            .withNearBytes(0);
    return new StoredResponses() {

      private Cache cache() {
        return caches.create("flotilla.stored-responses", config);
      }

      @Override
      public void put(String id, byte[] response) {
        cache().put(id, response);
      }

      @Override
      public Optional<byte[]> find(String id) {
        return cache().get(id);
      }

      @Override
      public boolean remove(String id) {
        return cache().remove(id);
      }
    };
  }
}

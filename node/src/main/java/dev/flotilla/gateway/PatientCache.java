package dev.flotilla.gateway;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.data.cache.Cache;
import dev.flotilla.data.cache.CacheConfig;
import dev.flotilla.data.cache.Caches;
import java.time.Duration;
import java.util.Collection;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicBoolean;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * A cache of the grid that never makes an answer fail: what it does not give at once counts as
 * missing, and what it cannot take is not kept.
 */
final class PatientCache {

  private static final long OPEN_AGAIN_MS = 5000;
  private static final int KEEPING_MAX = 32;
  private static final Logger log = LoggerFactory.getLogger(PatientCache.class);

  private final Caches caches;
  private final String name;
  private final CacheConfig config;
  private final long patienceMs;
  private final AtomicBoolean opening = new AtomicBoolean();
  private final Semaphore keeping = new Semaphore(KEEPING_MAX);
  private volatile Optional<Cache> opened = Optional.empty();

  /**
   * @param patienceMs how long a look-up may take
   */
  PatientCache(Caches caches, String name, CacheConfig config, long patienceMs) {
    this.caches = caches;
    this.name = name;
    this.config = config;
    this.patienceMs = patienceMs;
  }

  /**
   * Those of the keys that are there; at most {@link Cache#KEYS_MAX} keys.
   *
   * @return empty if the cache does not answer at once
   */
  Optional<Map<String, byte[]>> find(Collection<String> keys) {
    Optional<Cache> cache = opened;
    if (cache.isEmpty()) {
      open();
      return Optional.empty();
    }
    CompletableFuture<Map<String, byte[]>> found = new CompletableFuture<>();
    Thread.startVirtualThread(
        () -> {
          try {
            found.complete(cache.get().getAll(keys));
          } catch (RuntimeException e) {
            found.completeExceptionally(e);
          }
        });
    try {
      return Optional.of(found.get(patienceMs, TimeUnit.MILLISECONDS));
    } catch (TimeoutException | ExecutionException e) {
      log.debug("cache {} does not answer: {}", name, e.toString());
      return Optional.empty();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      return Optional.empty();
    }
  }

  /** Keeps entries, later and if it can. */
  void keep(Map<String, byte[]> entries) {
    Optional<Cache> cache = opened;
    if (cache.isEmpty() || entries.isEmpty() || !keeping.tryAcquire()) {
      return;
    }
    Thread.startVirtualThread(
        () -> {
          try {
            if (entries.values().stream().allMatch(v -> v.length <= Cache.VALUE_BYTES_MAX)) {
              cache.get().putAll(entries, Optional.<Duration>empty());
            }
          } catch (FlotillaException e) {
            log.debug("cache {} could not keep an entry: {}", name, e.getMessage());
          } finally {
            keeping.release();
          }
        });
  }

  /** Makes the cache in the background; until then, and where there is no grid, all miss. */
  private void open() {
    if (!opening.compareAndSet(false, true)) {
      return;
    }
    Thread.startVirtualThread(
        () -> {
          try {
            opened = Optional.of(made());
          } catch (RuntimeException e) {
            log.debug("cache {} cannot be used yet: {}", name, e.toString());
            pause();
            opening.set(false);
          }
        });
  }

  private static void pause() {
    try {
      Thread.sleep(OPEN_AGAIN_MS);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  private Cache made() {
    try {
      return caches.create(name, config);
    } catch (FlotillaException e) {
      if (e.code() == Code.CONFLICT) {
        // Made by another version with other bounds, which serve as well.
        return caches.cache(name);
      }
      throw e;
    }
  }
}

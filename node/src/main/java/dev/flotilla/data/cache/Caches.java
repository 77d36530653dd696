package dev.flotilla.data.cache;

import java.util.List;
import java.util.Optional;

/** The caches of the cluster. */
public interface Caches {

  /** A cache, and how it was made. */
  record Named(String name, CacheConfig config) {}

  /**
   * The cache of that name; made with {@link CacheConfig#DEFAULT} if there is none.
   *
   * @param name {@code [A-Za-z0-9][A-Za-z0-9._-]{0,127}}
   * @throws dev.flotilla.FlotillaException {@code INVALID} for another name
   */
  Cache cache(String name);

  /**
   * The cache of that name, if it was made: for readers, who must not make one.
   *
   * @throws dev.flotilla.FlotillaException {@code INVALID} for a name that none can have
   */
  Optional<Cache> find(String name);

  /**
   * Makes a cache, or finds the one made the same way.
   *
   * @throws dev.flotilla.FlotillaException {@code CONFLICT} if it was made another way, {@code
   *     INVALID} if its store is not registered here or cannot be written through
   */
  Cache create(String name, CacheConfig config);

  /** All of them, by name. */
  List<Named> list();

  /** Removes a cache and its entries; whether there was one. */
  boolean drop(String name);
}

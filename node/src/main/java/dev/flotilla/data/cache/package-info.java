/**
 * Caches over the grid: bounds, time to live, loaders and stores behind, and near copies that are
 * never stale; the cache of embeddings.
 *
 * <p>Knows the grid; knows nothing of SQL, queues or the other parts.
 */
@NullMarked
package dev.flotilla.data.cache;

import org.jspecify.annotations.NullMarked;

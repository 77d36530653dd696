/**
 * Search indexes: documents in the grid, Lucene's files made from them on the nodes that search,
 * queries scattered over the shards.
 *
 * <p>Knows the grid and Lucene; knows nothing of SQL, caches or the other parts.
 */
@NullMarked
package dev.flotilla.data.search;

import org.jspecify.annotations.NullMarked;

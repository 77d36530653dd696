/**
 * The data plane: cache, tables, transactions, queue, log, blobs, search, jobs. Nothing lives here
 * yet.
 *
 * <p>Knows the cluster; knows nothing of models, serving, training or HTTP.
 */
@NullMarked
package dev.flotilla.data;

import org.jspecify.annotations.NullMarked;

/**
 * The data plane: cache, tables and sharding, transactions, queue, log, blobs, search, jobs.
 *
 * <p>Everything stands on {@link dev.flotilla.data.Grid}, the one place that touches the data
 * grid's life: it acknowledges only what a majority has. Decisions (who holds a lock, who is a
 * member) are the cluster's; here they are checked by their fencing tokens.
 *
 * <p>Knows the cluster; knows nothing of models, serving, training or HTTP.
 */
@NullMarked
package dev.flotilla.data;

import org.jspecify.annotations.NullMarked;

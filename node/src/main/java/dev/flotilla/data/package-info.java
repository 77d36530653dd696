/**
 * The data plane of one node: {@link dev.flotilla.data.DataPlane} makes, starts and closes the
 * parts, and backups copy what all of them keep.
 *
 * <p>Each part has a package of its own below this one. All of them stand on {@link
 * dev.flotilla.data.grid.Grid}, the one place that touches the data grid's life: it acknowledges
 * only what a majority has. Decisions (who holds a lock, who is a member) are the cluster's; in the
 * parts they are checked by their fencing tokens.
 *
 * <p>Knows the cluster and all parts, which know nothing of this package; knows nothing of models,
 * serving, training or HTTP.
 */
@NullMarked
package dev.flotilla.data;

import org.jspecify.annotations.NullMarked;

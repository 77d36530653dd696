/**
 * Contents of any size as named chunks: manifests in the grid, chunks in files of each node or in
 * an object store, their placement, repair and scrubbing.
 *
 * <p>Knows the grid and files of its own; knows nothing of the other parts.
 */
@NullMarked
package dev.flotilla.data.blobs;

import org.jspecify.annotations.NullMarked;

/**
 * Work over all nodes: plans, tasks near their data, results, and the kinds of text jobs that come
 * with the program.
 *
 * <p>Knows the grid, locks, and the interface of blobs; knows nothing of the other parts, nor of
 * training.
 */
@NullMarked
package dev.flotilla.data.jobs;

import org.jspecify.annotations.NullMarked;

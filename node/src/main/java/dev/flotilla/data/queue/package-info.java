/**
 * Queues with partitions, consumer groups and acknowledgements over the grid.
 *
 * <p>Knows the grid, and that a thread may be in a transaction; knows nothing of the other parts.
 */
@NullMarked
package dev.flotilla.data.queue;

import org.jspecify.annotations.NullMarked;

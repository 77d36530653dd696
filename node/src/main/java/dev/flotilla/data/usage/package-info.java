/**
 * The usage ledger: events from the node's journal into one log in the grid, and their totals.
 *
 * <p>Knows the grid and a journal of its own; knows nothing of the other parts, nor of what is
 * billed.
 */
@NullMarked
package dev.flotilla.data.usage;

import org.jspecify.annotations.NullMarked;

/**
 * The choke point to the data grid: how it starts, stops, loses and regains its majority, and which
 * reads and writes may pass meanwhile; fences, and the transaction a thread is in, as every part
 * sees it.
 *
 * <p>Knows Apache Ignite and the cluster; knows nothing of what the parts keep in the grid, and
 * depends on none of them.
 */
@NullMarked
package dev.flotilla.data.grid;

import org.jspecify.annotations.NullMarked;

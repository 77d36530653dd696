/**
 * The log of all nodes, written and indexed on each, kept on peers too, queried everywhere; streams
 * of applications; export to a collector.
 *
 * <p>Knows the grid (for streams) and files of its own; knows nothing of the other parts, nor of
 * who logs.
 */
@NullMarked
package dev.flotilla.data.log;

import org.jspecify.annotations.NullMarked;

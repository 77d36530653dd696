/**
 * Speaks to a running cluster over its HTTP API: what {@code Flotilla.connect} hands out and the
 * commands use.
 *
 * <p>Implements the interfaces of {@code data} and {@code cluster} by HTTP calls; knows nothing of
 * how a node works inside.
 */
@NullMarked
package dev.flotilla.client;

import org.jspecify.annotations.NullMarked;

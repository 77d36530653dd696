/**
 * A pure function from a model's shape and the nodes' profiles to a placement with a predicted
 * speed.
 *
 * <p>Touches no clock, disk or network.
 */
@NullMarked
package dev.flotilla.plan;

import org.jspecify.annotations.NullMarked;

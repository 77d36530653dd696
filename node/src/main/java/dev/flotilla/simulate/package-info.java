/**
 * Whole clusters in one process, on a clock of its own: the same controller, planner, router,
 * scheduler, failure detector, locks and registry as in a node, over a network, a replicated log
 * and disks that are made up and fail as a seed says. What a seed did, it does again.
 *
 * <p>{@code World} has the clock and lets one thread run at a time; {@code Network} carries calls;
 * {@code Group} is the log under the registry; {@code SimulatedNode} is a node from its start to
 * its death; {@code Chaos} makes trouble and work, and checks. Knows no socket, disk or real time.
 */
@NullMarked
package dev.flotilla.simulate;

import org.jspecify.annotations.NullMarked;

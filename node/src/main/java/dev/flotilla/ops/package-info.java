/** Running a cluster: metrics, logs, roll-outs, scaling, backup. Nothing lives here yet. */
@NullMarked
package dev.flotilla.ops;

import org.jspecify.annotations.NullMarked;

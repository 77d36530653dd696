/** {@code main}, the commands, and the wiring of all other packages into one node. */
@NullMarked
package dev.flotilla.app;

import org.jspecify.annotations.NullMarked;

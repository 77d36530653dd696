/** Flotilla: see {@code docs/ARCHITECTURE.md} for what each package below knows. */
@NullMarked
package dev.flotilla;

import org.jspecify.annotations.NullMarked;

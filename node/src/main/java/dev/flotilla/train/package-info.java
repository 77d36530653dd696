/**
 * Trains a model on several machines: dataset, batches, trainer, gradient exchange, checkpoints.
 *
 * <p>Knows nothing of HTTP, and never imports serving.
 */
@NullMarked
package dev.flotilla.train;

import org.jspecify.annotations.NullMarked;

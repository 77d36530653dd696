/**
 * Runs models on token ids: sampler, scheduler, stages, replicas, routing, and resuming a request
 * elsewhere when a machine is lost.
 *
 * <p>Knows nothing of text or HTTP, and never imports training.
 */
@NullMarked
package dev.flotilla.serve;

import org.jspecify.annotations.NullMarked;

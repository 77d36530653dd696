/**
 * Runs models on token ids: sampler, scheduler, stages, replicas, routing, and resuming a request
 * elsewhere when a machine is lost.
 *
 * <p>Of text it knows which tokens a grammar allows next, and no more; nothing of HTTP, and it
 * never imports training.
 */
@NullMarked
package dev.flotilla.serve;

import org.jspecify.annotations.NullMarked;

/**
 * The HTTP side: OpenAI endpoints, keys, the cluster's own API, metrics and the web console.
 *
 * <p>Turns text into token ids for {@code serve} and back. Holds no state that a request could not
 * be continued without.
 */
@NullMarked
package dev.flotilla.gateway;

import org.jspecify.annotations.NullMarked;

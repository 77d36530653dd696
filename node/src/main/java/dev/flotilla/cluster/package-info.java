/**
 * Who is in the cluster and what was decided: node identity and certificates, joining, the Raft
 * registry, failure detection, and mutual-TLS channels between nodes.
 *
 * <p>Knows nothing of models: the registry holds versioned bytes, and what they mean is up to the
 * packages above.
 */
@NullMarked
package dev.flotilla.cluster;

import org.jspecify.annotations.NullMarked;

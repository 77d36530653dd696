package dev.flotilla.cluster;

import java.nio.file.Path;
import java.time.InstantSource;
import java.util.Map;

/**
 * How this node takes part in a cluster.
 *
 * @param dataFolder certificates in {@code certs/}, the Raft log in {@code data/raft/}
 * @param name what people call the node; a label, not an identity
 * @param bindHost the address that the ports listen on
 * @param advertisedHost where other nodes reach this one
 * @param httpPort the HTTP API's port P, which belongs to the caller; this package uses P+1
 *     (node-to-node calls), P+2 (Raft) and P+3 (joining)
 * @param version of the program; as {@link Versions} has it
 * @param clock for token expiry and for comparing clocks at a join
 * @param profile what the node measured of itself, by name with units
 */
public record ClusterConfig(
    Path dataFolder,
    String name,
    String bindHost,
    String advertisedHost,
    int httpPort,
    String version,
    InstantSource clock,
    Map<String, Double> profile) {

  /** Copies the profile. */
  public ClusterConfig {
    profile = Map.copyOf(profile);
  }

  int servicePort() {
    return httpPort + 1;
  }

  int raftPort() {
    return httpPort + 2;
  }

  int joinPort() {
    return httpPort + 3;
  }
}

package dev.flotilla.cluster;

import java.util.Map;

/**
 * A node as the registry knows it (kind {@code "node"}, name = id, value = this record as JSON).
 *
 * @param id stands in its certificate and never changes
 * @param name what people call it
 * @param host where it can be reached
 * @param httpPort its HTTP API; the node-to-node port is the next one, Raft's the one after
 * @param version of the program it runs
 * @param pid its process, for operators
 * @param incarnation grows at each start of the process, so that an old one's messages are
 *     recognised
 * @param state {@code UP}, {@code LOST} (does not answer) or {@code DRAINING} (lower case in the
 *     HTTP API); written by the controller
 * @param profile what it measured of itself, by name with units, such as {@code memory_bytes},
 *     {@code weight_bytes_per_second}
 */
public record NodeInfo(
    String id,
    String name,
    String host,
    int httpPort,
    String version,
    long pid,
    long incarnation,
    State state,
    Map<String, Double> profile) {

  /** Copies the profile. */
  public NodeInfo {
    profile = Map.copyOf(profile);
  }

  /** The same node in another state. */
  NodeInfo withState(State other) {
    return new NodeInfo(id, name, host, httpPort, version, pid, incarnation, other, profile);
  }

  /** The same node with another profile. */
  NodeInfo withProfile(Map<String, Double> other) {
    return new NodeInfo(id, name, host, httpPort, version, pid, incarnation, state, other);
  }

  /** Whether it counts. */
  public enum State {
    UP,
    LOST,
    DRAINING
  }
}

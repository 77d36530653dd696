package dev.flotilla.plan;

/**
 * What a machine measured of itself.
 *
 * @param id the node's id
 * @param memoryBytes what weights and KV caches may take
 * @param weightBytesPerSecond how fast it streams weights through its arithmetic; bounds decoding
 * @param linkLatencySeconds one way to another machine
 * @param linkBytesPerSecond to another machine
 */
public record Machine(
    String id,
    long memoryBytes,
    double weightBytesPerSecond,
    double linkLatencySeconds,
    double linkBytesPerSecond) {

  /** Rejects figures that no machine has. */
  public Machine {
    if (memoryBytes < 0
        || !(weightBytesPerSecond > 0)
        || !(linkLatencySeconds >= 0)
        || !(linkBytesPerSecond > 0)) {
      throw new IllegalArgumentException("not a machine's profile: " + id);
    }
  }

  /** A machine whose links were not measured: an ordinary gigabit network is assumed. */
  public Machine(String id, long memoryBytes, double weightBytesPerSecond) {
    this(id, memoryBytes, weightBytesPerSecond, 200e-6, 110e6);
  }

  /** The same machine with less memory left. */
  Machine minus(long bytes) {
    return new Machine(
        id,
        Math.max(0, memoryBytes - bytes),
        weightBytesPerSecond,
        linkLatencySeconds,
        linkBytesPerSecond);
  }
}

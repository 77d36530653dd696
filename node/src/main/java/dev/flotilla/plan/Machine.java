package dev.flotilla.plan;

import dev.flotilla.model.LayerSpeeds;

/**
 * What a machine measured of itself.
 *
 * @param id the node's id
 * @param memoryBytes what weights and KV caches may take
 * @param speeds how fast it runs layers
 * @param linkLatencySeconds one way to another machine
 * @param linkBytesPerSecond to another machine
 */
public record Machine(
    String id,
    long memoryBytes,
    LayerSpeeds speeds,
    double linkLatencySeconds,
    double linkBytesPerSecond) {

  /** One way between machines of an ordinary gigabit network, where nothing was measured. */
  public static final double GUESSED_LATENCY_SECONDS = 200e-6;

  /** Of an ordinary gigabit network. */
  public static final double GUESSED_BYTES_PER_SECOND = 110e6;

  /** Rejects figures that no machine has. */
  public Machine {
    if (memoryBytes < 0 || !(linkLatencySeconds >= 0) || !(linkBytesPerSecond > 0)) {
      throw new IllegalArgumentException("not a machine's profile: " + id);
    }
  }

  /** A machine of which nothing is known but how fast it reads memory. */
  public Machine(String id, long memoryBytes, double weightBytesPerSecond) {
    this(
        id,
        memoryBytes,
        LayerSpeeds.guessed(weightBytesPerSecond),
        GUESSED_LATENCY_SECONDS,
        GUESSED_BYTES_PER_SECOND);
  }

  /** The same machine with less memory left. */
  Machine minus(long bytes) {
    return new Machine(
        id, Math.max(0, memoryBytes - bytes), speeds, linkLatencySeconds, linkBytesPerSecond);
  }
}

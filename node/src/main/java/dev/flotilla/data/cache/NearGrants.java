package dev.flotilla.data.cache;

import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

/**
 * The writer's half of {@link NearCoherence}: to whom this node has promised to tell what it
 * writes. Pure but for its state; times come from outside.
 */
final class NearGrants {

  private final long leaseNs;
  private final Map<String, Long> untilNs = new ConcurrentHashMap<>();

  /**
   * @param leaseNs what readers count on; held a tenth longer here, for clocks of unequal speed
   */
  NearGrants(long leaseNs) {
    this.leaseNs = leaseNs + leaseNs / 10;
  }

  /** Promises the reader. */
  void grant(String reader, long nowNs) {
    untilNs.put(reader, nowNs + leaseNs);
  }

  /** Whether the reader still counts on this node. */
  boolean holds(String reader, long nowNs) {
    Long until = untilNs.get(reader);
    return until != null && until - nowNs > 0;
  }

  /** All readers that count on this node. */
  List<String> holders(long nowNs) {
    return untilNs.keySet().stream().filter(reader -> holds(reader, nowNs)).toList();
  }
}

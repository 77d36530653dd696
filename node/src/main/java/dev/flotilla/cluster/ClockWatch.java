package dev.flotilla.cluster;

import java.time.InstantSource;
import java.util.HashSet;
import java.util.Set;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Compares the wall clocks of others with this node's, and names in the log those that are far off.
 * Nothing that must be right rests on them; what people read (times in the log, what a key's or a
 * token's time is up to) does.
 */
final class ClockWatch {

  private static final Logger LOG = LoggerFactory.getLogger(ClockWatch.class);

  private final String self;
  private final InstantSource clock;
  private final Set<String> off = new HashSet<>();

  ClockWatch(String self, InstantSource clock) {
    this.self = self;
    this.clock = clock;
  }

  /**
   * A node has just said what its clock shows.
   *
   * @param theirMs milliseconds since 1970; 0 if it does not say
   */
  synchronized void heard(String node, long theirMs) {
    long aheadMs = theirMs - clock.millis();
    boolean isOff = theirMs != 0 && Math.abs(aheadMs) > Joining.MAX_CLOCK_DIFFERENCE.toMillis();
    if (isOff && off.add(node)) {
      LOG.warn(
          "{}: the clock of node {} is {} s {} this node's; synchronise the machines' clocks (NTP)",
          self,
          node,
          Math.abs(aheadMs) / 1000,
          aheadMs > 0 ? "ahead of" : "behind");
    } else if (!isOff && off.remove(node)) {
      LOG.info("{}: the clock of node {} is right again", self, node);
    }
  }

  /** Those whose clocks are far off. */
  synchronized Set<String> off() {
    return Set.copyOf(off);
  }
}

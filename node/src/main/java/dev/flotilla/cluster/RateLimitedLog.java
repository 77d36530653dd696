package dev.flotilla.cluster;

import java.util.function.LongSupplier;
import org.slf4j.Logger;

/**
 * Warnings that a stranger can cause at will: some per second are logged, the rest are counted, so
 * that nobody fills the disk from outside.
 */
final class RateLimitedLog {

  private static final int PER_SECOND = 5;

  private final Logger log;
  private final LongSupplier nanoTime;
  private long windowStartNs;
  private int inWindow;
  private long suppressed;

  RateLimitedLog(Logger log, LongSupplier nanoTime) {
    this.log = log;
    this.nanoTime = nanoTime;
    this.windowStartNs = nanoTime.getAsLong();
  }

  synchronized void warn(String message) {
    long nowNs = nanoTime.getAsLong();
    if (nowNs - windowStartNs >= 1_000_000_000L) {
      windowStartNs = nowNs;
      inWindow = 0;
    }
    if (inWindow++ >= PER_SECOND) {
      suppressed++;
      return;
    }
    if (suppressed > 0) {
      log.warn("{} ({} more like it were not logged)", message, suppressed);
      suppressed = 0;
    } else {
      log.warn("{}", message);
    }
  }
}

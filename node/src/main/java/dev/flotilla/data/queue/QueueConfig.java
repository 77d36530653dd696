package dev.flotilla.data.queue;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;

/**
 * How a queue works; fixed when it is made.
 *
 * @param partitions 1 to 64; the parallelism of its transactions
 * @param depthMax messages not acknowledged by some group, in each partition; more are refused
 * @param attemptsMax handed out so often without success, a message is dead
 * @param retentionMs how long acknowledged messages stay for {@link Queue#replay}
 * @param dedupMs how long a de-duplication id is remembered
 */
public record QueueConfig(
    int partitions, long depthMax, int attemptsMax, long retentionMs, long dedupMs) {

  /** 8 partitions of 100,000 messages, 5 attempts, an hour's retention, 10 minutes' memory. */
  public static final QueueConfig DEFAULT = new QueueConfig(8, 100_000, 5, 3_600_000, 600_000);

  /** Checks the bounds. */
  public QueueConfig {
    if (partitions < 1
        || partitions > 64
        || depthMax < 1
        || attemptsMax < 1
        || retentionMs < 0
        || dedupMs < 1_000
        || dedupMs > 7 * 86_400_000L) {
      throw new FlotillaException(
          Code.INVALID,
          "a queue has 1 to 64 partitions, a depth and attempts of at least 1, a retention of at"
              + " least 0 ms, and remembers ids for 1 s to 7 days",
          "");
    }
  }
}

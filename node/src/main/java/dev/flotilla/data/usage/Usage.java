package dev.flotilla.data.usage;

import java.util.List;

/**
 * The usage ledger: an append-only log of completed requests, and sums over it.
 *
 * <p>The log is the truth. What is asked of it is answered from two views that can both be dropped
 * and made again from the log: a batch view over everything up to a watermark, and a speed view
 * over what came after it (Marz's lambda form). {@link GridUsage} says how they agree.
 */
public interface Usage {

  /** By what to sum. */
  enum By {
    MODEL,
    KEY,
    /** Days of UTC, such as {@code 2026-11-24}. */
    DAY
  }

  /** Sums for one model, key or day. */
  record Row(
      String group, long requests, long promptTokens, long completionTokens, long cachedRequests) {}

  /**
   * An answer.
   *
   * @param fromMs the whole hour it begins with
   * @param toMs the whole hour before which it ends
   * @param rows by group
   * @param watermark the segment of the log up to which the batch view answered
   * @param head the segment up to which the speed view did: everything shipped when it was asked
   */
  record Report(long fromMs, long toMs, List<Row> rows, long watermark, long head) {}

  /** What a rebuild has read. */
  record Rebuilt(long segments, long events) {}

  /**
   * Notes a completed request. Waits 10 ms at most and never fails: see {@link GridUsage} for what
   * is then kept through which losses.
   */
  void append(UsageEvent event);

  /**
   * Sums over whole hours of UTC; the bounds are widened to them. Eventually consistent: what was
   * appended within the last second, on nodes that reach a majority, may be missing.
   *
   * @throws dev.flotilla.FlotillaException {@code INVALID} if it ends before it begins, {@code
   *     NO_MAJORITY}
   */
  Report report(long fromMs, long toMs, By by);

  /** Drops both views and makes them again from the log. */
  Rebuilt rebuild();
}

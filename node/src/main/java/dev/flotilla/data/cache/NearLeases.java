package dev.flotilla.data.cache;

import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;

/**
 * The reader's half of {@link NearCoherence}: which writers have promised, and until when, to tell
 * this node of what they write. Pure but for its state; times come from outside.
 */
final class NearLeases {

  private static final long NONE = -1;

  private final long leaseNs;
  private final long longAgoNs;
  private final Map<String, Long> untilNs = new HashMap<>();
  private Set<String> required = Set.of();
  private volatile long validUntilNs;
  private volatile long epoch = 1;

  NearLeases(long leaseNs, long nowNs, Set<String> required) {
    this.leaseNs = leaseNs;
    this.longAgoNs = nowNs;
    this.validUntilNs = nowNs;
    this.required = Set.copyOf(required);
  }

  /**
   * The number under which what is read now may be kept, or found if it was kept under it; negative
   * while some promise is missing. On the path of every near read: two volatile reads.
   */
  long epochAt(long nowNs) {
    long now = epoch;
    return validUntilNs - nowNs > 0 ? now : NONE;
  }

  /** From now on the promises of exactly these are needed. */
  synchronized void require(Set<String> writers) {
    if (!writers.equals(required)) {
      Set<String> gone = new HashSet<>(required);
      gone.removeAll(writers);
      if (!gone.isEmpty()) {
        // What a writer did last before it went may not have been told.
        forgetAll();
        untilNs.keySet().removeAll(gone);
      }
      required = Set.copyOf(writers);
      publish();
    }
  }

  /**
   * A writer has promised, at some moment after the request was sent. If the promise before had run
   * out by now, it may have written without telling, and everything is forgotten.
   */
  synchronized void granted(String writer, long requestedNs, long nowNs) {
    Long before = untilNs.get(writer);
    long until = requestedNs + leaseNs;
    if (before == null || nowNs - before >= 0) {
      forgetAll();
    } else if (before - until > 0) {
      until = before;
    }
    untilNs.put(writer, until);
    publish();
  }

  /** Makes everything kept so far invalid. */
  synchronized void forgetAll() {
    epoch++;
  }

  private void publish() {
    if (!untilNs.keySet().containsAll(required) || required.isEmpty()) {
      validUntilNs = longAgoNs;
      return;
    }
    long first = Long.MAX_VALUE;
    for (String writer : required) {
      first = Math.min(first, untilNs.getOrDefault(writer, longAgoNs) - longAgoNs);
    }
    validUntilNs = longAgoNs + first;
  }
}

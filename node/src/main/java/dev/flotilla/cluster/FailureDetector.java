package dev.flotilla.cluster;

import java.util.HashMap;
import java.util.Map;
import java.util.Set;

/**
 * Decides who answers. Pure: the caller brings the observations and the time.
 *
 * <p>Two signs are told apart. A refused connection means that the machine is there and the process
 * is not: two in a row and the node is lost, after about half a second. Silence may be a pause
 * (garbage collection, a busy disk, a stopped virtual machine), so it takes {@code silenceNs}. When
 * the observer itself was paused, its view is as old as the pause; that time is not held against
 * anyone.
 */
final class FailureDetector {

  private static final int REFUSALS_TO_LOSE = 2;

  private static final class Watched {
    long lastAnswerNs;
    int refusals;
    boolean alive;

    Watched(boolean alive, long nowNs) {
      this.alive = alive;
      this.lastAnswerNs = nowNs;
    }
  }

  private final long silenceNs;
  private final long ownPauseNs;
  private final Map<String, Watched> watched = new HashMap<>();
  private long lastTickNs;

  /**
   * @param silenceNs how long a node may be silent
   * @param ownPauseNs a gap between two ticks from which on the observer counts as paused itself
   */
  FailureDetector(long silenceNs, long ownPauseNs, long nowNs) {
    this.silenceNs = silenceNs;
    this.ownPauseNs = ownPauseNs;
    this.lastTickNs = nowNs;
  }

  /** Begins to watch a node, which is taken as it is known so far. */
  void watch(String node, boolean alive, long nowNs) {
    watched.putIfAbsent(node, new Watched(alive, nowNs));
  }

  /** Stops watching all but these. */
  void keep(Set<String> nodes) {
    watched.keySet().retainAll(nodes);
  }

  void answered(String node, long nowNs) {
    Watched one = watched.get(node);
    if (one != null) {
      one.lastAnswerNs = nowNs;
      one.refusals = 0;
      one.alive = true;
    }
  }

  /** Nothing listens there, or the connection was reset. */
  void refused(String node) {
    Watched one = watched.get(node);
    if (one != null && ++one.refusals >= REFUSALS_TO_LOSE) {
      one.alive = false;
    }
  }

  /** Lets time pass; call often. */
  void tick(long nowNs) {
    long gapNs = nowNs - lastTickNs;
    lastTickNs = nowNs;
    for (Watched one : watched.values()) {
      if (gapNs >= ownPauseNs) {
        one.lastAnswerNs += gapNs;
      }
      if (nowNs - one.lastAnswerNs >= silenceNs) {
        one.alive = false;
      }
    }
  }

  boolean alive(String node) {
    Watched one = watched.get(node);
    return one != null && one.alive;
  }
}

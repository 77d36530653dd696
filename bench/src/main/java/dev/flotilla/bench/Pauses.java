package dev.flotilla.bench;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;

/**
 * For how long streams stood still while something was wrong: of each stream that was under way
 * then, the longest time between two events. Times are {@link System#nanoTime}'s.
 */
final class Pauses {

  /** Shorter ones are an ordinary step of a busy machine. */
  private static final long NOTED_NS = 20_000_000;

  /** What counts as one that a reader sees. */
  private static final double SEEN_S = 0.2;

  private record Gap(long fromNs, long toNs) {
    double seconds() {
      return (toNs - fromNs) / 1e9;
    }
  }

  /** A stream from its first event to its last, with its longer gaps. */
  static final class Track {
    private final String what;
    private final long askedNs;
    private final List<Gap> gaps = new ArrayList<>();
    private long endedNs;
    private long firstNs;
    private long lastNs;

    /**
     * One that has not begun.
     *
     * @param what it is, for people
     * @param askedNs when it is asked for
     */
    Track(String what, long askedNs) {
      this.what = what;
      this.askedNs = askedNs;
    }

    /** The next event came. */
    void event(long nowNs) {
      if (firstNs == 0) {
        firstNs = nowNs;
      } else if (nowNs - lastNs >= NOTED_NS) {
        gaps.add(new Gap(lastNs, nowNs));
      }
      lastNs = nowNs;
    }

    /** Whether there was any event. */
    boolean begun() {
      return firstNs != 0;
    }

    /** Whether it was asked for, or under way, in one of these. */
    boolean met(List<Faults.Fault> faults) {
      return faults.stream()
          .anyMatch(
              fault -> askedNs < fault.mendedNs() && Math.max(endedNs, lastNs) > fault.beganNs());
    }

    /** It came to an end, whether good or bad. */
    void ended(long nowNs) {
      endedNs = nowNs;
    }

    private boolean underWay(Faults.Fault fault) {
      return begun() && firstNs < fault.mendedNs() && lastNs > fault.beganNs();
    }

    private Optional<Gap> longest(Faults.Fault fault) {
      return gaps.stream()
          .filter(gap -> gap.fromNs() < fault.mendedNs() && gap.toNs() > fault.beganNs())
          .max(Comparator.comparingDouble(Gap::seconds));
    }
  }

  /**
   * Of one kind of fault.
   *
   * @param faults how many there were
   * @param streams under way in them
   * @param seen how many of these stood still for more than a fifth of a second
   * @param p50S the median of those, in seconds; 0 if there were none
   */
  record Figures(int faults, int streams, int seen, double p50S, double p99S, double maxS) {}

  private Pauses() {}

  /** By kind of fault. */
  static Map<String, Figures> of(List<Faults.Fault> faults, List<Track> tracks) {
    Map<String, List<Faults.Fault>> byKind = new TreeMap<>();
    for (Faults.Fault fault : faults) {
      byKind.computeIfAbsent(fault.kind(), kind -> new ArrayList<>()).add(fault);
    }
    Map<String, Figures> figures = new TreeMap<>();
    byKind.forEach((kind, its) -> figures.put(kind, figures(its, tracks)));
    return figures;
  }

  private static Figures figures(List<Faults.Fault> faults, List<Track> tracks) {
    int streams = 0;
    List<Double> seen = new ArrayList<>();
    for (Faults.Fault fault : faults) {
      for (Track track : tracks) {
        if (track.underWay(fault)) {
          streams++;
          double longestS = track.longest(fault).map(Gap::seconds).orElse(0.0);
          if (longestS > SEEN_S) {
            seen.add(longestS);
          }
        }
      }
    }
    double[] sorted = seen.stream().mapToDouble(Double::doubleValue).sorted().toArray();
    return new Figures(
        faults.size(),
        streams,
        sorted.length,
        quantile(sorted, 0.5),
        quantile(sorted, 0.99),
        Arrays.stream(sorted).max().orElse(0));
  }

  /** Those longer than so much, for people: which stream, from when to when, in which fault. */
  static List<String> longerThan(
      double seconds, List<Faults.Fault> faults, List<Track> tracks, long beganNs) {
    List<String> all = new ArrayList<>();
    for (Faults.Fault fault : faults) {
      for (Track track : tracks) {
        Optional<Gap> gap = track.underWay(fault) ? track.longest(fault) : Optional.empty();
        if (gap.isPresent() && gap.get().seconds() > seconds) {
          all.add(
              String.format(
                  Locale.ROOT,
                  "%s: %.1f to %.1f s, %s",
                  fault.kind(),
                  (gap.get().fromNs() - beganNs) / 1e9,
                  (gap.get().toNs() - beganNs) / 1e9,
                  track.what));
        }
      }
    }
    return all;
  }

  /** The smallest value that so large a share of them does not exceed. */
  private static double quantile(double[] sorted, double share) {
    return sorted.length == 0 ? 0 : sorted[Math.max(0, (int) Math.ceil(share * sorted.length) - 1)];
  }
}

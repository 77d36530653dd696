package dev.flotilla.data;

import dev.flotilla.data.ChangeJournal.Session;
import java.util.Collection;
import java.util.Comparator;
import java.util.List;

/**
 * Up to when the lists of all nodes together have everything. Pure.
 *
 * <p>Each partition has three copies, or one per node where there are fewer nodes. So of n nodes
 * any n - 2 (and at least one) have between them a copy of everything, and their lists, as long as
 * none has a gap, all changes. Lists come and go with the nodes: what counts is that at every
 * moment enough go on, and that one has begun for long enough before it takes over from another.
 */
final class JournalCover {

  /** Longer than a commit takes to reach all copies. */
  static final long OVERLAP_MS = 1_000;

  private JournalCover() {}

  /** The last moment that one can go back to; {@code fromMs} itself if to none behind it. */
  static long goodUntil(long fromMs, Collection<Session> sessions) {
    int members = sessions.stream().mapToInt(Session::members).max().orElse(1);
    int needed = Math.max(1, members - 2);
    long untilMs = fromMs;
    while (true) {
      long nowMs = untilMs;
      List<Long> ends =
          sessions.stream()
              .filter(each -> each.fromMs() <= fromMs || each.fromMs() + OVERLAP_MS <= nowMs)
              .map(Session::upToMs)
              .sorted(Comparator.reverseOrder())
              .toList();
      long nextMs = ends.size() < needed ? nowMs : ends.get(needed - 1);
      if (nextMs <= nowMs) {
        return nowMs;
      }
      untilMs = nextMs;
    }
  }
}

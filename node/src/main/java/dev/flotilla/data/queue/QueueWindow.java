package dev.flotilla.data.queue;

import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

/** Chooses which messages of a partition a group is handed next. Pure. */
final class QueueWindow {

  /** What is known of a message without its body. */
  record Waiting(long sequence, String key, int priority, long notBeforeMs) {}

  private QueueWindow() {}

  /**
   * The next ones: not done with, due (its delay is over, and so is the visibility of whoever has
   * it), and for each key only the first that is not done with; of these the ones of higher
   * priority first, then the older ones.
   *
   * @param window messages by sequence, from the group's floor on
   * @param nowMs the time by which delays are judged
   */
  static List<Waiting> next(List<Waiting> window, QueueProgress progress, long nowMs, int max) {
    Set<String> taken = new HashSet<>();
    List<Waiting> candidates = new ArrayList<>();
    for (Waiting message : window) {
      if (progress.isDone(message.sequence())) {
        continue;
      }
      boolean first = message.key().isEmpty() || taken.add(message.key());
      boolean due =
          Math.max(message.notBeforeMs(), progress.notBeforeMs(message.sequence())) <= nowMs;
      if (first && due) {
        candidates.add(message);
      }
    }
    candidates.sort(
        Comparator.comparingInt(Waiting::priority).reversed().thenComparingLong(Waiting::sequence));
    return candidates.subList(0, Math.min(max, candidates.size()));
  }
}

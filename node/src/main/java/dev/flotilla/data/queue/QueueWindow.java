package dev.flotilla.data.queue;

import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.function.LongPredicate;

/** Chooses which messages of a partition a group is handed next. Pure. */
final class QueueWindow {

  private QueueWindow() {}

  /**
   * The next ones: not done with, due (its delay is over, and so is the visibility of whoever has
   * it), and for each key only the first that is not done with; of these the ones of higher
   * priority first, then the older ones.
   *
   * @param window messages by sequence, from the group's floor on
   * @param isDone of a sequence
   * @param isHeld of a sequence: handed out or given back, and not to be handed out yet
   * @param nowMs the time by which delays are judged
   * @param highest no message of the window has a higher priority
   */
  static List<QueueBatch.Sent> next(
      Iterable<QueueBatch.Sent> window,
      LongPredicate isDone,
      LongPredicate isHeld,
      long nowMs,
      int max,
      int highest) {
    Set<String> taken = new HashSet<>();
    List<QueueBatch.Sent> candidates = new ArrayList<>();
    int first = 0;
    for (QueueBatch.Sent message : window) {
      if (isDone.test(message.sequence())) {
        continue;
      }
      boolean its = message.key().isEmpty() || taken.add(message.key());
      if (its && message.notBeforeMs() <= nowMs && !isHeld.test(message.sequence())) {
        candidates.add(message);
        first += message.priority() == highest ? 1 : 0;
        if (first == max) {
          // Nothing behind it can come before these.
          break;
        }
      }
    }
    candidates.sort(
        Comparator.comparingInt(QueueBatch.Sent::priority)
            .reversed()
            .thenComparingLong(QueueBatch.Sent::sequence));
    return candidates.subList(0, Math.min(max, candidates.size()));
  }
}

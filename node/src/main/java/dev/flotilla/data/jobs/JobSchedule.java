package dev.flotilla.data.jobs;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * Which task to start where, as a pure function of what runs.
 *
 * <p>A task goes to a node that has its data if one has room, else to the least busy one. When
 * nothing waits and half of all tasks are done, a task that has taken twice the median (and a least
 * time) gets a second copy on another node: a machine that is slow, not only one that is dead, must
 * not hold up the whole (the "backup tasks" of Dean and Ghemawat, MapReduce, 2004).
 */
final class JobSchedule {

  /** A task that is not done. */
  record Open(JobDefinition.Task task, List<String> failedOn, List<Attempt> running) {}

  record Attempt(String node, long sinceNs) {}

  record Start(String task, String node, boolean copy) {}

  private JobSchedule() {}

  /**
   * @param room how many more tasks each living node takes
   * @param takenNs of the tasks that are done
   */
  static List<Start> next(
      List<Open> open, Map<String, Integer> room, List<Long> takenNs, long leastNs, long nowNs) {
    Map<String, Integer> left = new HashMap<>(room);
    List<Start> starts = new ArrayList<>();
    boolean waiting = false;
    for (Open one : open) {
      if (one.running().isEmpty()) {
        Optional<String> node = choose(one, left);
        node.ifPresent(n -> starts.add(start(one, n, false, left)));
        waiting |= node.isEmpty();
      }
    }
    if (waiting || takenNs.size() < open.size()) {
      return starts;
    }
    long slowNs = Math.max(leastNs, 2 * median(takenNs));
    for (Open one : open) {
      if (one.running().size() == 1
          && !one.task().bound()
          && nowNs - one.running().getFirst().sinceNs() > slowNs) {
        choose(one, left).ifPresent(n -> starts.add(start(one, n, true, left)));
      }
    }
    return starts;
  }

  private static Start start(Open one, String node, boolean copy, Map<String, Integer> left) {
    left.merge(node, -1, Integer::sum);
    return new Start(one.task().name(), node, copy);
  }

  private static Optional<String> choose(Open one, Map<String, Integer> left) {
    List<String> able =
        left.entrySet().stream()
            .filter(e -> e.getValue() > 0)
            .map(Map.Entry::getKey)
            .filter(n -> one.running().stream().noneMatch(a -> a.node().equals(n)))
            .filter(n -> !one.task().bound() || one.task().nodes().contains(n))
            .toList();
    // Where it failed before only if nowhere else.
    List<String> fresh = able.stream().filter(n -> !one.failedOn().contains(n)).toList();
    List<String> from = fresh.isEmpty() ? able : fresh;
    return one.task().nodes().stream()
        .filter(from::contains)
        .findFirst()
        .or(
            () ->
                from.stream()
                    .min(
                        Comparator.comparingInt((String n) -> -left.getOrDefault(n, 0))
                            .thenComparing(n -> n)));
  }

  private static long median(List<Long> values) {
    long[] sorted = values.stream().mapToLong(Long::longValue).toArray();
    Arrays.sort(sorted);
    return sorted.length == 0 ? 0 : sorted[sorted.length / 2];
  }
}

package dev.flotilla.serve;

import java.util.ArrayDeque;
import java.util.Deque;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;

/**
 * Who is next: stride scheduling (Waldspurger and Weihl, 1995) over the claims that requests come
 * with, and first come, first served within one.
 *
 * <p>A claim has a <em>pass</em>, which grows by the rows computed for it over its weight; the one
 * with the least pass is next. One that comes anew starts at the least pass of the others: having
 * been away earns nothing, and costs nothing.
 *
 * @param <T> what waits
 */
final class FairShare<T> {

  private static final class Group<T> {
    final Deque<T> waiting = new ArrayDeque<>();

    /** Waiting and running. */
    int present;

    double pass;
  }

  private final Map<Claim, Group<T>> groups = new LinkedHashMap<>();
  private double leastPass;
  private int waiting;

  /** Who wants to run from now on; waits. */
  void enter(Claim claim, T item) {
    Group<T> group = groups.get(claim);
    if (group == null) {
      group = new Group<>();
      group.pass = leastPass();
      groups.put(claim, group);
    }
    group.present++;
    group.waiting.addLast(item);
    waiting++;
  }

  /** Whoever ran, or waited, is done. */
  void leave(Claim claim, T item) {
    Group<T> group = group(claim);
    if (group.waiting.remove(item)) {
      waiting--;
    }
    if (--group.present == 0) {
      leastPass = leastPass();
      groups.remove(claim);
    }
  }

  /** Whoever ran waits again, before the others of its claim. */
  void back(Claim claim, T item) {
    group(claim).waiting.addFirst(item);
    waiting++;
  }

  /** Who is next, of those that wait. */
  Optional<T> next() {
    return groups.values().stream()
        .filter(group -> !group.waiting.isEmpty())
        .reduce((a, b) -> b.pass < a.pass ? b : a)
        .map(group -> group.waiting.getFirst());
  }

  /** It waits no more, it runs. */
  void run(Claim claim, T item) {
    if (group(claim).waiting.remove(item)) {
      waiting--;
    }
  }

  /** Something was computed for a claim. */
  void charge(Claim claim, int rows) {
    group(claim).pass += (double) rows / claim.priority().weight();
  }

  double pass(Claim claim) {
    return group(claim).pass;
  }

  int waiting() {
    return waiting;
  }

  /** How many of a tenant's wait. */
  int waiting(String tenant) {
    int count = 0;
    for (Map.Entry<Claim, Group<T>> entry : groups.entrySet()) {
      count += entry.getKey().tenant().equals(tenant) ? entry.getValue().waiting.size() : 0;
    }
    return count;
  }

  /** How many wait, by tenant; of those with something waiting or running. */
  Map<String, Integer> waitingByTenant() {
    Map<String, Integer> counts = new TreeMap<>();
    groups.forEach(
        (claim, group) -> counts.merge(claim.tenant(), group.waiting.size(), Integer::sum));
    return counts;
  }

  void clear() {
    groups.clear();
    waiting = 0;
    leastPass = 0;
  }

  private double leastPass() {
    return groups.values().stream().mapToDouble(group -> group.pass).min().orElse(leastPass);
  }

  private Group<T> group(Claim claim) {
    Group<T> group = groups.get(claim);
    if (group == null) {
      throw new IllegalStateException("nobody of " + claim);
    }
    return group;
  }
}

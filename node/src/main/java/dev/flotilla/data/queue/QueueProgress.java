package dev.flotilla.data.queue;

import java.util.Map;
import java.util.SortedMap;
import java.util.SortedSet;
import java.util.TreeMap;
import java.util.TreeSet;

/**
 * How far one group is in one partition of a queue. A value kept durably: every change is part of a
 * transaction.
 *
 * @param floor all below it are done with
 * @param done those above the floor that are done with
 * @param troubled those that were handed out and not acknowledged, as far as this must be durable
 */
record QueueProgress(long floor, SortedSet<Long> done, SortedMap<Long, Trouble> troubled) {

  /**
   * A message that was not acknowledged.
   *
   * @param attempts how often it was handed out, the present time included
   * @param notBeforeMs not to be handed out before, by the clock of whoever hands out
   */
  record Trouble(int attempts, long notBeforeMs) {}

  static QueueProgress from(long floor) {
    return new QueueProgress(floor, new TreeSet<>(), new TreeMap<>());
  }

  boolean isDone(long sequence) {
    return sequence < floor || done.contains(sequence);
  }

  /** How often it was handed out, as far as is known durably. */
  int attempts(long sequence) {
    Trouble trouble = troubled.get(sequence);
    return trouble == null ? 0 : trouble.attempts();
  }

  long notBeforeMs(long sequence) {
    Trouble trouble = troubled.get(sequence);
    return trouble == null ? 0 : trouble.notBeforeMs();
  }

  /** Done with, for good. */
  QueueProgress withDone(long sequence) {
    TreeSet<Long> more = new TreeSet<>(done);
    more.add(sequence);
    long next = floor;
    while (!more.isEmpty() && more.first() == next) {
      more.removeFirst();
      next++;
    }
    TreeMap<Long, Trouble> fewer = new TreeMap<>(troubled);
    fewer.remove(sequence);
    return new QueueProgress(next, more, fewer);
  }

  /** Handed out again, or given back. */
  QueueProgress withTrouble(long sequence, int attempts, long notBeforeMs) {
    TreeMap<Long, Trouble> more = new TreeMap<>(troubled);
    more.put(sequence, new Trouble(attempts, notBeforeMs));
    return new QueueProgress(floor, done, more);
  }

  /** How many of those before the next sequence are not done with. */
  long depth(long next) {
    return Math.max(0, next - floor - done.size());
  }

  /** As JSON-ready values. */
  record Stored(long floor, long[] done, Map<Long, Trouble> troubled) {}

  Stored stored() {
    return new Stored(floor, done.stream().mapToLong(Long::longValue).toArray(), troubled);
  }

  static QueueProgress of(Stored stored) {
    TreeSet<Long> done = new TreeSet<>();
    for (long sequence : stored.done()) {
      done.add(sequence);
    }
    return new QueueProgress(stored.floor(), done, new TreeMap<>(stored.troubled()));
  }
}

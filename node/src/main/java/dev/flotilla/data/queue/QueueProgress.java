package dev.flotilla.data.queue;

import java.nio.ByteBuffer;
import java.util.Collection;
import java.util.SortedMap;
import java.util.SortedSet;
import java.util.TreeMap;
import java.util.TreeSet;

/**
 * How far one group is in one partition of a queue. A value kept durably: every change is part of a
 * transaction.
 *
 * @param generation counts replays; a receipt of an earlier one is worth nothing
 * @param start the first sequence of a batch at or below the floor, from which the rest is found
 * @param floor all below it are done with
 * @param done those above the floor that are done with
 * @param troubled those that were handed out again, given back, or handed out while it was in doubt
 *     whether they had been before
 */
record QueueProgress(
    int generation,
    long start,
    long floor,
    SortedSet<Long> done,
    SortedMap<Long, Trouble> troubled) {

  private static final byte VERSION = 1;
  private static final int HEADER_BYTES = 29;
  private static final int TROUBLE_BYTES = 24;

  /** A value that keeps its size is changed in place. */
  private static final int ROUND_BYTES = 128;

  /**
   * A message that was not acknowledged.
   *
   * @param attempts how often it was handed out, the present time included
   * @param owner who handed it out last: {@link QueueDelivery#owner}
   * @param notBeforeMs not to be handed out before, by the clock of whoever hands out
   */
  record Trouble(int attempts, int owner, long notBeforeMs) {}

  /** A group that begins at a batch. */
  static QueueProgress from(int generation, long start) {
    return new QueueProgress(generation, start, start, new TreeSet<>(), new TreeMap<>());
  }

  boolean isDone(long sequence) {
    return sequence < floor || done.contains(sequence);
  }

  /** Done with, for good. */
  QueueProgress withDone(Collection<Long> sequences) {
    TreeSet<Long> more = new TreeSet<>(done);
    more.addAll(sequences);
    long next = floor;
    while (!more.isEmpty() && more.first() == next) {
      more.removeFirst();
      next++;
    }
    TreeMap<Long, Trouble> fewer = new TreeMap<>(troubled);
    fewer.keySet().removeAll(sequences);
    return new QueueProgress(generation, start, next, more, fewer);
  }

  /** Handed out again, or given back. */
  QueueProgress withTrouble(long sequence, Trouble trouble) {
    TreeMap<Long, Trouble> more = new TreeMap<>(troubled);
    more.put(sequence, trouble);
    return new QueueProgress(generation, start, floor, done, more);
  }

  /** With a later batch to start from. */
  QueueProgress withStart(long batch) {
    return new QueueProgress(generation, batch, floor, done, troubled);
  }

  /** How many of those before the next sequence are not done with. */
  long depth(long next) {
    return Math.max(0, next - floor - done.size());
  }

  /** As bytes: version, generation, start, floor, the done, the troubled, zeros. */
  byte[] encode() {
    int size = HEADER_BYTES + 8 * done.size() + TROUBLE_BYTES * troubled.size();
    ByteBuffer bytes = ByteBuffer.allocate((size + ROUND_BYTES - 1) / ROUND_BYTES * ROUND_BYTES);
    bytes.put(VERSION).putInt(generation).putLong(start).putLong(floor);
    bytes.putInt(done.size()).putInt(troubled.size());
    done.forEach(bytes::putLong);
    troubled.forEach(
        (sequence, trouble) ->
            bytes
                .putLong(sequence)
                .putInt(trouble.attempts())
                .putInt(trouble.owner())
                .putLong(trouble.notBeforeMs()));
    return bytes.array();
  }

  static QueueProgress decode(byte[] encoded) {
    ByteBuffer bytes = ByteBuffer.wrap(encoded);
    if (bytes.get() != VERSION) {
      throw new IllegalStateException("a group's progress of version " + encoded[0]);
    }
    int generation = bytes.getInt();
    long start = bytes.getLong();
    long floor = bytes.getLong();
    int doneCount = bytes.getInt();
    int troubledCount = bytes.getInt();
    TreeSet<Long> done = new TreeSet<>();
    for (int i = 0; i < doneCount; i++) {
      done.add(bytes.getLong());
    }
    TreeMap<Long, Trouble> troubled = new TreeMap<>();
    for (int i = 0; i < troubledCount; i++) {
      troubled.put(bytes.getLong(), new Trouble(bytes.getInt(), bytes.getInt(), bytes.getLong()));
    }
    return new QueueProgress(generation, start, floor, done, troubled);
  }
}

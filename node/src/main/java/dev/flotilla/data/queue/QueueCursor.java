package dev.flotilla.data.queue;

import java.util.Collections;
import java.util.Iterator;
import java.util.NoSuchElementException;
import java.util.TreeMap;
import java.util.function.LongFunction;

/**
 * Where a group's window lies among the batches of a partition. Finds the batch of the floor by
 * walking on from the one before, looks once into each that comes into the window for the highest
 * priority, and walks over the window only as far as asked.
 */
final class QueueCursor {

  private long batch;
  private long seenTo;
  private final TreeMap<Long, Integer> priorities = new TreeMap<>();

  /**
   * @param start the first sequence of a batch, at or below the floor
   */
  QueueCursor(long start) {
    this.batch = start;
    this.seenTo = start;
  }

  /** The first sequence of the batch of the floor, or where the next one will begin. */
  long batch() {
    return batch;
  }

  /**
   * The messages from the floor on, as many as may be in hand.
   *
   * @param next the sequence of the next message to be sent
   * @param batches by their first sequence, up to {@code next}
   */
  Iterable<QueueBatch.Sent> window(long floor, long next, LongFunction<QueueBatch> batches) {
    while (batch < Math.min(floor, next)) {
      long end = batches.apply(batch).end();
      if (end > floor) {
        break;
      }
      batch = end;
    }
    priorities.headMap(batch).clear();
    long end = Math.min(next, floor + QueueDelivery.WINDOW);
    seenTo = Math.max(seenTo, batch);
    while (seenTo < end) {
      QueueBatch its = batches.apply(seenTo);
      int highest = its.messages().stream().mapToInt(QueueBatch.Sent::priority).max().orElse(0);
      if (highest > 0) {
        priorities.put(seenTo, highest);
      }
      seenTo = its.end();
    }
    return () -> new Walk(Math.max(floor, batch), end, batches);
  }

  /** No message of the window has a higher priority. */
  int highest() {
    return priorities.isEmpty() ? 0 : Collections.max(priorities.values());
  }

  private final class Walk implements Iterator<QueueBatch.Sent> {
    private final long end;
    private final LongFunction<QueueBatch> batches;
    private long sequence;
    private QueueBatch its;

    Walk(long from, long end, LongFunction<QueueBatch> batches) {
      this.sequence = from;
      this.end = end;
      this.batches = batches;
      this.its = from < end ? batches.apply(batch) : new QueueBatch(0, 0, java.util.List.of());
    }

    @Override
    public boolean hasNext() {
      return sequence < end;
    }

    @Override
    public QueueBatch.Sent next() {
      if (!hasNext()) {
        throw new NoSuchElementException();
      }
      if (sequence == its.end()) {
        its = batches.apply(sequence);
      }
      return its.messages().get((int) (sequence++ - its.first()));
    }
  }
}

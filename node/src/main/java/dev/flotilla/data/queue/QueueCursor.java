package dev.flotilla.data.queue;

import java.util.Collections;
import java.util.Iterator;
import java.util.NoSuchElementException;
import java.util.TreeMap;
import java.util.function.LongFunction;
import org.jspecify.annotations.Nullable;

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
   * @param batches by their first sequence; the last ones may not be visible yet
   */
  Iterable<QueueBatch.Sent> window(
      long floor, long next, LongFunction<@Nullable QueueBatch> batches) {
    while (batch < Math.min(floor, next)) {
      QueueBatch its = batches.apply(batch);
      if (its == null || its.end() > floor) {
        break;
      }
      batch = its.end();
    }
    priorities.headMap(batch).clear();
    long end = Math.min(next, floor + QueueDelivery.WINDOW);
    seenTo = Math.max(seenTo, batch);
    while (seenTo < end) {
      QueueBatch its = batches.apply(seenTo);
      if (its == null) {
        end = seenTo;
        break;
      }
      int highest = its.messages().stream().mapToInt(QueueBatch.Sent::priority).max().orElse(0);
      if (highest > 0) {
        priorities.put(seenTo, highest);
      }
      seenTo = its.end();
    }
    long visible = end;
    return () -> new Walk(Math.max(floor, batch), visible, batches);
  }

  /** No message of the window has a higher priority. */
  int highest() {
    return priorities.isEmpty() ? 0 : Collections.max(priorities.values());
  }

  private final class Walk implements Iterator<QueueBatch.Sent> {
    private final long end;
    private final LongFunction<@Nullable QueueBatch> batches;
    private long sequence;
    private @Nullable QueueBatch its;

    Walk(long from, long end, LongFunction<@Nullable QueueBatch> batches) {
      this.sequence = from;
      this.end = end;
      this.batches = batches;
      this.its = from < end ? batches.apply(batch) : null;
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
      QueueBatch here = its;
      if (here != null && sequence == here.end()) {
        here = batches.apply(sequence);
        its = here;
      }
      if (here == null) {
        throw new IllegalStateException("the messages at " + sequence + " were there and are gone");
      }
      return here.messages().get((int) (sequence++ - here.first()));
    }
  }
}

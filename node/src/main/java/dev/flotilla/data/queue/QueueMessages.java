package dev.flotilla.data.queue;

import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicLong;
import org.jspecify.annotations.Nullable;

/** Batches that this node has read or sent: they never change, so they are kept for a while. */
final class QueueMessages {

  private static final long BYTES_MAX = 16L << 20;

  private record Place(Object made, int partition, long first) {}

  private final Map<Place, QueueBatch> known = new ConcurrentHashMap<>();
  private final AtomicLong bytes = new AtomicLong();

  @Nullable QueueBatch batch(QueueCells cells, int partition, long first) {
    Place place = new Place(cells.made(), partition, first);
    QueueBatch batch = known.get(place);
    if (batch == null) {
      batch = cells.batch(partition, first);
      if (batch == null) {
        return null;
      }
      long size = batch.messages().stream().mapToLong(m -> 100L + m.body().length).sum();
      if (bytes.addAndGet(size) > BYTES_MAX) {
        known.clear();
        bytes.set(size);
      }
      known.put(place, batch);
    }
    return batch;
  }
}

package dev.flotilla.data.search;

import dev.flotilla.data.grid.Combiner;
import java.util.ArrayList;
import java.util.List;

/**
 * Writes of one shard from this node. They take turns at the shard's counter anyway, so whoever has
 * the turn takes along what has gathered meanwhile, in one transaction.
 */
final class IndexWrites {

  private static final long BYTES_MAX = 4 << 20;

  /** So that no more than {@link IndexStore#BATCH_MAX} are within the bytes. */
  private static final long LEAST_BYTES = BYTES_MAX / IndexStore.BATCH_MAX;

  private final Combiner<IndexStore.Write, Long> combiner;

  IndexWrites(IndexStore store, int shard) {
    this.combiner =
        new Combiner<>(
            BYTES_MAX,
            IndexWrites::weight,
            all -> store.write(shard, all),
            all -> store.write(shard, all));
  }

  /** Writes all; returns the sequence of each. Errors as the grid's writes. */
  List<Long> write(List<IndexStore.Write> writes) {
    List<Long> sequences = new ArrayList<>();
    int start = 0;
    while (start < writes.size()) {
      int end = start;
      long bytes = 0;
      while (end < writes.size()) {
        bytes += weight(writes.get(end));
        if (bytes > BYTES_MAX && end > start) {
          break;
        }
        end++;
      }
      sequences.addAll(combiner.submit(writes.subList(start, end)));
      start = end;
    }
    return sequences;
  }

  private static long weight(IndexStore.Write write) {
    return Math.max(LEAST_BYTES, write.document().map(bytes -> bytes.length).orElse(0));
  }
}

package dev.flotilla.data.search;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.locks.ReentrantLock;

/**
 * Writes of one shard from this node. They take turns at the shard's counter anyway, so whoever has
 * the turn takes along what has gathered meanwhile, in one transaction.
 */
final class IndexWrites {

  private static final int BYTES_MAX = 4 << 20;

  private record Waiting(List<IndexStore.Write> writes, CompletableFuture<List<Long>> sequences) {}

  private final IndexStore store;
  private final int shard;
  private final ReentrantLock turn = new ReentrantLock();
  private final ConcurrentLinkedQueue<Waiting> queue = new ConcurrentLinkedQueue<>();

  IndexWrites(IndexStore store, int shard) {
    this.store = store;
    this.shard = shard;
  }

  /** Writes all; returns the sequence of each. Errors as the grid's writes. */
  List<Long> write(List<IndexStore.Write> writes) {
    List<Long> sequences = new ArrayList<>();
    int start = 0;
    while (start < writes.size()) {
      int end = start;
      long bytes = 0;
      while (end < writes.size() && end - start < IndexStore.BATCH_MAX) {
        bytes += size(writes.get(end));
        if (bytes > BYTES_MAX && end > start) {
          break;
        }
        end++;
      }
      sequences.addAll(inTurn(writes.subList(start, end)));
      start = end;
    }
    return sequences;
  }

  private static long size(IndexStore.Write write) {
    return 100L + write.document().map(bytes -> bytes.length).orElse(0);
  }

  private List<Long> inTurn(List<IndexStore.Write> writes) {
    Waiting mine = new Waiting(writes, new CompletableFuture<>());
    queue.add(mine);
    turn.lock();
    try {
      while (!mine.sequences.isDone()) {
        writeGathered();
      }
    } finally {
      turn.unlock();
    }
    try {
      return mine.sequences.join();
    } catch (CompletionException e) {
      throw e.getCause() instanceof RuntimeException error ? error : e;
    }
  }

  private void writeGathered() {
    List<Waiting> taken = new ArrayList<>();
    List<IndexStore.Write> all = new ArrayList<>();
    long bytes = 0;
    Waiting next = queue.peek();
    while (next != null
        && (taken.isEmpty()
            || (all.size() + next.writes.size() <= IndexStore.BATCH_MAX && bytes < BYTES_MAX))) {
      queue.remove();
      taken.add(next);
      all.addAll(next.writes);
      for (IndexStore.Write write : next.writes) {
        bytes += size(write);
      }
      next = queue.peek();
    }
    try {
      List<Long> sequences = store.write(shard, all);
      int start = 0;
      for (Waiting one : taken) {
        one.sequences.complete(List.copyOf(sequences.subList(start, start + one.writes.size())));
        start += one.writes.size();
      }
    } catch (RuntimeException | Error e) {
      taken.forEach(one -> one.sequences.completeExceptionally(e));
    }
  }
}

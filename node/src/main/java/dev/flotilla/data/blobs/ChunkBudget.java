package dev.flotilla.data.blobs;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.time.Duration;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;

/**
 * Bounds the memory of all transfers of a node: each chunk held counts. A transfer waits for its
 * first one, and takes more only while there are some, so that none waits for another's reader.
 */
final class ChunkBudget {

  private final Semaphore buffers;
  private final Duration patience;

  ChunkBudget(int chunks, Duration patience) {
    this.buffers = new Semaphore(chunks);
    this.patience = patience;
  }

  /** An eighth of the heap, in chunks. */
  static ChunkBudget ofHeap(int chunkBytes) {
    long chunks = Runtime.getRuntime().maxMemory() / 8 / chunkBytes;
    return new ChunkBudget((int) Math.max(4, Math.min(1024, chunks)), Duration.ofSeconds(10));
  }

  /** Takes the first one of a transfer. */
  void first() {
    try {
      if (!buffers.tryAcquire(patience.toMillis(), TimeUnit.MILLISECONDS)) {
        throw new FlotillaException(
            Code.BUSY,
            "this node reads and writes as many blobs as its memory allows",
            "Try again soon, or another node.");
      }
    } catch (InterruptedException e) {
      throw interrupted(e);
    }
  }

  boolean another() {
    return buffers.tryAcquire();
  }

  void release(int chunks) {
    buffers.release(chunks);
  }

  static FlotillaException interrupted(InterruptedException e) {
    Thread.currentThread().interrupt();
    return new FlotillaException(Code.UNAVAILABLE, "this node is stopping", "Ask another.", e);
  }
}

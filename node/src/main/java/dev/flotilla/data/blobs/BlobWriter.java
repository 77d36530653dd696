package dev.flotilla.data.blobs;

import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Future;
import java.util.function.LongSupplier;

/**
 * Cuts a content into chunks and stores them, a few at once. While one is filled the ones before it
 * are on their way.
 */
final class BlobWriter implements AutoCloseable {

  private static final int IN_FLIGHT = 3;

  private final ChunkVault vault;
  private final int chunkBytes;
  private final ExecutorService threads;
  private final ChunkBudget budget;
  private final LongSupplier nanoTime;
  private final long touchEveryNs;
  private final List<String> chunks = new ArrayList<>();
  private final ArrayDeque<Future<?>> storing = new ArrayDeque<>();
  private byte[] filling = new byte[0];
  private int filled;
  private long whole;
  private int held;
  private long touchedNs;

  /**
   * @param kept chunks that are stored already, and all full
   * @param touchEvery chunks stored for longer are touched, so that none is collected before the
   *     blob is known
   */
  BlobWriter(
      ChunkVault vault,
      List<String> kept,
      int chunkBytes,
      ExecutorService threads,
      ChunkBudget budget,
      LongSupplier nanoTime,
      Duration touchEvery) {
    this.vault = vault;
    this.chunkBytes = chunkBytes;
    this.threads = threads;
    this.budget = budget;
    this.nanoTime = nanoTime;
    this.touchEveryNs = touchEvery.toNanos();
    this.touchedNs = nanoTime.getAsLong();
    this.chunks.addAll(kept);
    this.whole = (long) kept.size() * chunkBytes;
    budget.first();
    held = 1;
  }

  /** All bytes so far. */
  long size() {
    return whole + filled;
  }

  void write(byte[] bytes, int offset, int length) {
    int at = offset;
    int left = length;
    while (left > 0) {
      room(left);
      int part = Math.min(left, Math.min(filling.length, chunkBytes) - filled);
      System.arraycopy(bytes, at, filling, filled, part);
      filled += part;
      at += part;
      left -= part;
      if (filled == chunkBytes) {
        send();
      }
    }
  }

  /** A small content needs no whole chunk's memory. */
  private void room(int more) {
    if (filled < filling.length) {
      return;
    }
    long wanted = Math.max((long) filled + Math.min(more, 1 << 16), 2L * filling.length);
    filling = java.util.Arrays.copyOf(filling, (int) Math.min(chunkBytes, wanted));
  }

  private void send() {
    byte[] content = filling;
    int length = filled;
    String chunk = BlobManifest.sha256(content, length);
    chunks.add(chunk);
    whole += length;
    filling = new byte[0];
    filled = 0;
    if (storing.size() >= IN_FLIGHT || !budget.another()) {
      if (storing.isEmpty()) {
        // No room for two: store this one before the next is filled.
        vault.store(chunk, content, length);
        return;
      }
      BlobReader.result(storing.remove());
    } else {
      held++;
    }
    storing.add(threads.submit(() -> vault.store(chunk, content, length)));
    keepAlive();
  }

  private void keepAlive() {
    if (nanoTime.getAsLong() - touchedNs > touchEveryNs) {
      settle();
      vault.touch(chunks);
      touchedNs = nanoTime.getAsLong();
    }
  }

  private void settle() {
    while (!storing.isEmpty()) {
      BlobReader.result(storing.remove());
    }
  }

  /** Returns the chunks once all bytes so far are safe; the last one may be short. */
  List<String> flush() {
    if (filled > 0) {
      send();
    }
    settle();
    return List.copyOf(chunks);
  }

  /** The full chunks so far, once they are safe; what is left over is kept here. */
  List<String> flushFull() {
    settle();
    return List.copyOf(chunks);
  }

  @Override
  public void close() {
    storing.forEach(future -> future.cancel(true));
    budget.release(held);
  }
}

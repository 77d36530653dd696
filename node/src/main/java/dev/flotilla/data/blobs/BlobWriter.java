package dev.flotilla.data.blobs;

import java.security.MessageDigest;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Future;
import java.util.function.LongSupplier;

/**
 * Cuts a content into chunks and stores them, a few at once. While one is filled the ones before it
 * are digested and on their way.
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
  private final ArrayDeque<Future<String>> storing = new ArrayDeque<>();
  private final MessageDigest all = BlobManifest.sha256();
  private final boolean digested;
  private byte[] filling = new byte[0];
  private int filled;
  private long whole;
  private int held;
  private long touchedNs;

  /**
   * @param kept chunks that are stored already, and all full
   * @param touchEvery chunks stored for longer are touched, so that none is collected before the
   *     blob is known
   * @param digested whether {@link #digest} will be asked for
   */
  BlobWriter(
      ChunkVault vault,
      List<String> kept,
      int chunkBytes,
      ExecutorService threads,
      ChunkBudget budget,
      LongSupplier nanoTime,
      Duration touchEvery,
      boolean digested) {
    this.vault = vault;
    this.chunkBytes = chunkBytes;
    this.threads = threads;
    this.budget = budget;
    this.nanoTime = nanoTime;
    this.digested = digested;
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
    long wanted =
        whole > 0
            ? chunkBytes
            : Math.max((long) filled + Math.min(more, 1 << 16), 4L * filling.length);
    filling = java.util.Arrays.copyOf(filling, (int) Math.min(chunkBytes, wanted));
  }

  private void send() {
    byte[] content = filling;
    int length = filled;
    whole += length;
    filling = new byte[0];
    filled = 0;
    if (storing.size() >= IN_FLIGHT || !budget.another()) {
      if (storing.isEmpty()) {
        // No room for two: store this one before the next is filled.
        chunks.add(store(content, length));
        digest(content, length);
        return;
      }
      chunks.add(BlobReader.result(storing.remove()));
    } else {
      held++;
    }
    storing.add(threads.submit(() -> store(content, length)));
    digest(content, length);
    keepAlive();
  }

  private void digest(byte[] content, int length) {
    // A single chunk's digest is the content's.
    if (digested && (whole > length || length == chunkBytes)) {
      all.update(content, 0, length);
    }
  }

  private String store(byte[] content, int length) {
    String chunk = BlobManifest.sha256(content, length);
    vault.store(chunk, content, length);
    return chunk;
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
      chunks.add(BlobReader.result(storing.remove()));
    }
  }

  /** Of all bytes, after {@link #flush}; only for a content that was begun here. */
  String digest() {
    return chunks.size() == 1 ? chunks.getFirst() : HexFormat.of().formatHex(all.digest());
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

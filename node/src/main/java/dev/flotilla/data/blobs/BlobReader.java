package dev.flotilla.data.blobs;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.util.ArrayDeque;
import java.util.Objects;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Future;
import java.util.function.DoubleConsumer;
import java.util.function.Function;

/**
 * A range of a blob as a stream: several chunks are fetched at once, each from the node that is
 * asked first for it, and handed out in order. Chunks beyond the next one are fetched only as far
 * as the node's budget goes.
 */
final class BlobReader extends InputStream {

  private static final int AHEAD = 4;

  private final BlobManifest manifest;
  private final Function<String, byte[]> load;
  private final ExecutorService threads;
  private final ChunkBudget budget;
  private final DoubleConsumer handedOut;
  private final ArrayDeque<Future<byte[]>> coming = new ArrayDeque<>();
  private int nextToAsk;
  private final int end;
  private byte[] chunk = new byte[0];
  private int position;
  private int skip;
  private long left;
  private int held;
  private boolean closed;

  BlobReader(
      BlobManifest manifest,
      long offset,
      long length,
      Function<String, byte[]> load,
      ExecutorService threads,
      ChunkBudget budget,
      DoubleConsumer handedOut) {
    this.manifest = manifest;
    this.load = load;
    this.threads = threads;
    this.budget = budget;
    this.handedOut = handedOut;
    this.left = Math.min(length, manifest.size() - offset);
    this.nextToAsk = (int) (offset / manifest.chunkBytes());
    this.skip = (int) (offset % manifest.chunkBytes());
    this.end = left == 0 ? nextToAsk : (int) ((offset + left - 1) / manifest.chunkBytes()) + 1;
    budget.first();
    held = 1;
  }

  private void ask() {
    while (nextToAsk < end && coming.size() < AHEAD) {
      if (!coming.isEmpty()) {
        if (!budget.another()) {
          return;
        }
        held++;
      }
      String wanted = manifest.chunks().get(nextToAsk++);
      coming.add(threads.submit(() -> load.apply(wanted)));
    }
  }

  private boolean fill() {
    if (closed) {
      throw new IllegalStateException("the stream was closed");
    }
    if (position < chunk.length) {
      return true;
    }
    if (left == 0) {
      return false;
    }
    ask();
    Future<byte[]> next = Objects.requireNonNull(coming.poll());
    chunk = result(next);
    position = skip;
    skip = 0;
    if (held > coming.size() + 1) {
      budget.release(held - coming.size() - 1);
      held = coming.size() + 1;
    }
    ask();
    return true;
  }

  static <T> T result(Future<T> future) {
    try {
      return future.get();
    } catch (InterruptedException e) {
      throw ChunkBudget.interrupted(e);
    } catch (ExecutionException e) {
      if (e.getCause() instanceof RuntimeException known) {
        throw known;
      }
      throw new IllegalStateException(e.getCause());
    }
  }

  @Override
  public int read() {
    byte[] one = new byte[1];
    return read(one, 0, 1) < 0 ? -1 : one[0] & 0xff;
  }

  @Override
  public int read(byte[] bytes, int offset, int length) {
    if (length == 0) {
      return 0;
    }
    if (!fill()) {
      return -1;
    }
    int count = (int) Math.min(Math.min(length, chunk.length - position), left);
    System.arraycopy(chunk, position, bytes, offset, count);
    passed(count);
    return count;
  }

  private void passed(int count) {
    position += count;
    left -= count;
    handedOut.accept(count);
    if (left == 0) {
      chunk = new byte[0];
      position = 0;
    }
  }

  /** Without a copy in between. */
  @Override
  public long transferTo(OutputStream out) throws IOException {
    long all = 0;
    while (fill()) {
      int count = (int) Math.min(chunk.length - position, left);
      out.write(chunk, position, count);
      passed(count);
      all += count;
    }
    return all;
  }

  @Override
  public void close() {
    if (!closed) {
      closed = true;
      coming.forEach(future -> future.cancel(true));
      chunk = new byte[0];
      budget.release(held);
    }
  }
}

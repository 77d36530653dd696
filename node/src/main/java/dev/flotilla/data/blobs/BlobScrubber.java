package dev.flotilla.data.blobs;

import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.time.Duration;
import java.time.InstantSource;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.Consumer;
import java.util.function.Function;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Reads all of this node's chunks from time to time and compares them with their digests, so that a
 * copy that went bad is replaced while others are whole. Goes at a bounded speed, folder after
 * folder; after a restart it goes on with the folder where it was.
 */
final class BlobScrubber implements AutoCloseable {

  /** What is kept on the disk: the folder that is next, 0 to 256, and when the last one ended. */
  private record Position(int next, long scrubbed, long finishedAtMs) {}

  private static final Logger log = LoggerFactory.getLogger(BlobScrubber.class);
  private static final Duration PAUSE = Duration.ofMinutes(1);
  private static final int FOLDERS = 256;

  private final Path file;
  private final Function<Integer, List<String>> list;
  private final Function<String, Optional<byte[]>> read;
  private final Consumer<String> replace;
  private final long bytesPerSecond;
  private final Duration interval;
  private final InstantSource clock;
  private final ReentrantLock lock = new ReentrantLock();
  private final Condition changed = lock.newCondition();
  private final Thread thread;
  private Position position = new Position(FOLDERS, 0, 0);

  /**
   * @param list the chunks in one of 256 folders
   * @param read throws {@code BAD_FILE} for a damaged one
   * @param replace gets a new copy of a damaged one
   */
  BlobScrubber(
      Path file,
      Function<Integer, List<String>> list,
      Function<String, Optional<byte[]>> read,
      Consumer<String> replace,
      long bytesPerSecond,
      Duration interval,
      InstantSource clock) {
    this.file = file;
    this.list = list;
    this.read = read;
    this.replace = replace;
    this.bytesPerSecond = bytesPerSecond;
    this.interval = interval;
    this.clock = clock;
    this.thread = Thread.ofVirtual().name("blob-scrub").unstarted(this::run);
  }

  void start() {
    try {
      if (Files.exists(file)) {
        position = Json.read(Files.readAllBytes(file), Position.class);
      } else {
        position = new Position(FOLDERS, 0, clock.millis());
      }
    } catch (IOException | FlotillaException e) {
      log.warn("cannot read {}, the scrub starts over: {}", file, e.toString());
      position = new Position(0, 0, 0);
    }
    thread.start();
  }

  /** From the first chunk on, now. */
  void startOver() {
    lock.lock();
    try {
      position = new Position(0, 0, position.finishedAtMs());
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }

  boolean running() {
    lock.lock();
    try {
      return position.next() < FOLDERS;
    } finally {
      lock.unlock();
    }
  }

  long scrubbed() {
    lock.lock();
    try {
      return position.scrubbed();
    } finally {
      lock.unlock();
    }
  }

  long finishedAtMs() {
    lock.lock();
    try {
      return position.finishedAtMs();
    } finally {
      lock.unlock();
    }
  }

  private void run() {
    while (true) {
      try {
        Position at = due();
        long count = 0;
        for (String chunk : list.apply(at.next())) {
          check(chunk);
          count++;
        }
        advance(at, count);
      } catch (InterruptedException closed) {
        return;
      } catch (RuntimeException e) {
        log.error("the scrub of blobs failed, and goes on in a minute", e);
        try {
          Thread.sleep(PAUSE);
        } catch (InterruptedException closed) {
          return;
        }
      }
    }
  }

  private Position due() throws InterruptedException {
    lock.lock();
    try {
      while (position.next() >= FOLDERS) {
        long waitMs = position.finishedAtMs() + interval.toMillis() - clock.millis();
        if (waitMs <= 0) {
          position = new Position(0, 0, position.finishedAtMs());
        } else {
          var _ = changed.awaitNanos(Duration.ofMillis(waitMs).toNanos());
        }
      }
      return position;
    } finally {
      lock.unlock();
    }
  }

  private void advance(Position from, long count) {
    lock.lock();
    try {
      if (!position.equals(from)) {
        return;
      }
      int next = from.next() + 1;
      position =
          new Position(
              next, from.scrubbed() + count, next < FOLDERS ? from.finishedAtMs() : clock.millis());
      if (next == FOLDERS) {
        log.info("scrubbed {} chunks", position.scrubbed());
      }
      if (count > 0 || next == FOLDERS) {
        save();
      }
    } finally {
      lock.unlock();
    }
  }

  /** Losing it costs reading some chunks twice, so it is not forced to the disk. */
  private void save() {
    Path half = file.resolveSibling(file.getFileName() + ".new");
    try {
      Files.write(half, Json.write(position));
      Files.move(half, file, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
    } catch (IOException e) {
      log.warn("cannot write {}: {}", file, e.toString());
    }
  }

  private void check(String chunk) throws InterruptedException {
    long length = 0;
    try {
      length = read.apply(chunk).map(content -> content.length).orElse(0);
    } catch (FlotillaException damaged) {
      try {
        replace.accept(chunk);
        log.info("scrub: chunk {} was damaged and has a new copy", chunk);
      } catch (FlotillaException e) {
        log.error("scrub: chunk {} was damaged, and no whole copy: {}", chunk, e.explanation());
      }
    }
    Thread.sleep(Duration.ofNanos(length * 1_000_000_000L / bytesPerSecond));
  }

  @Override
  public void close() {
    thread.interrupt();
    try {
      var _ = thread.join(Duration.ofSeconds(2));
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }
}

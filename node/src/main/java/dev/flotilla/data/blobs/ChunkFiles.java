package dev.flotilla.data.blobs;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.cluster.NodeFiles;
import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.attribute.FileTime;
import java.security.MessageDigest;
import java.time.Duration;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HexFormat;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.LongSupplier;
import java.util.stream.IntStream;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The chunks on this node's disk, each a file named by its digest, in 256 folders by the digest's
 * first byte. A file is written under another name, forced to the disk and renamed, so under its
 * digest it is whole or not there; what the disk did to it later is found when it is read, and then
 * it is set aside in {@code damaged/}. A file's time says when somebody last said to need it.
 */
final class ChunkFiles {

  private static final Logger log = LoggerFactory.getLogger(ChunkFiles.class);
  private static final int STRIPES = 64;
  private static final int PIECE_BYTES = 128 << 10;

  private final Path folder;
  private final Path fresh;
  private final Path setAside;
  private final LongSupplier usableBytes;
  private final long reserveBytes;
  private final InstantSource clock;
  private final List<Object> stripes =
      IntStream.range(0, STRIPES).mapToObj(i -> new Object()).toList();
  private final AtomicLong temporary = new AtomicLong();
  private final AtomicLong damaged = new AtomicLong();

  /**
   * @param usableBytes what the disk still has
   * @param reserveBytes what must be left of it
   */
  ChunkFiles(Path folder, LongSupplier usableBytes, long reserveBytes, InstantSource clock) {
    this.folder = folder;
    this.fresh = folder.resolve("new");
    this.setAside = folder.resolve("damaged");
    this.usableBytes = usableBytes;
    this.reserveBytes = reserveBytes;
    this.clock = clock;
  }

  /** On the disk that the folder lies on. */
  static ChunkFiles on(Path folder, long reserveBytes, InstantSource clock) {
    return new ChunkFiles(folder, () -> folder.toFile().getUsableSpace(), reserveBytes, clock);
  }

  /** Makes the folders, and deletes what a kill left half written. */
  void open() {
    try {
      Files.createDirectories(fresh);
      Files.createDirectories(setAside);
      for (int i = 0; i < 256; i++) {
        Files.createDirectories(folder.resolve(String.format("%02x", i)));
      }
      try (DirectoryStream<Path> left = Files.newDirectoryStream(fresh)) {
        for (Path file : left) {
          Files.delete(file);
        }
      }
      NodeFiles.syncFolder(folder);
    } catch (IOException e) {
      throw failure("cannot use " + folder, e);
    }
  }

  private Path file(String chunk) {
    return folder.resolve(chunk.substring(0, 2)).resolve(chunk);
  }

  private Object stripe(String chunk) {
    return stripes.get(Integer.parseInt(chunk, 0, 2, 16) % STRIPES);
  }

  /**
   * Returns once the chunk is on the disk. One that is there already counts as touched.
   *
   * @throws FlotillaException {@code STORAGE} if the disk is full or fails; then nothing is left
   */
  void write(String chunk, byte[] content, int length) {
    Path file = file(chunk);
    if (touched(chunk, length)) {
      return;
    }
    long usable = usableBytes.getAsLong();
    if (usable - length < reserveBytes) {
      throw full(usable);
    }
    Path half = fresh.resolve(chunk + "." + temporary.incrementAndGet());
    try {
      try {
        NodeFiles.writeForced(half, ByteBuffer.wrap(content, 0, length));
        Files.setLastModifiedTime(half, FileTime.from(clock.instant()));
        synchronized (stripe(chunk)) {
          Files.move(half, file, StandardCopyOption.ATOMIC_MOVE);
        }
        NodeFiles.syncFolder(folder.resolve(chunk.substring(0, 2)));
      } finally {
        Files.deleteIfExists(half);
      }
    } catch (IOException e) {
      throw failure("cannot write a chunk to " + folder, e);
    }
  }

  private FlotillaException full(long usable) {
    return new FlotillaException(
        Code.STORAGE,
        "the disk of "
            + folder
            + " has "
            + usable
            + " bytes left, of which "
            + reserveBytes
            + " are kept free",
        "Remove blobs or add a node with room, then try again.");
  }

  private boolean touched(String chunk, int length) {
    synchronized (stripe(chunk)) {
      Path file = file(chunk);
      try {
        if (!Files.exists(file)) {
          return false;
        }
        if (Files.size(file) != length) {
          setAside(chunk, "it has " + Files.size(file) + " bytes and not " + length);
          return false;
        }
        Files.setLastModifiedTime(file, FileTime.from(clock.instant()));
        return true;
      } catch (IOException e) {
        throw failure("cannot use " + file, e);
      }
    }
  }

  /** Whether it is there; if so it is safe from collection for another delay. */
  boolean touch(String chunk) {
    synchronized (stripe(chunk)) {
      try {
        Files.setLastModifiedTime(file(chunk), FileTime.from(clock.instant()));
        return true;
      } catch (NoSuchFileException absent) {
        return false;
      } catch (IOException e) {
        throw failure("cannot use " + file(chunk), e);
      }
    }
  }

  boolean has(String chunk) {
    return Files.exists(file(chunk));
  }

  /**
   * The chunk's content, compared with its digest.
   *
   * @return empty if it is not there
   * @throws FlotillaException {@code BAD_FILE} if it was damaged; it no longer is there then
   */
  Optional<byte[]> read(String chunk) {
    MessageDigest digest = BlobManifest.sha256();
    byte[] content;
    try {
      content = read(file(chunk), digest);
    } catch (NoSuchFileException absent) {
      return Optional.empty();
    } catch (IOException e) {
      // A disk that cannot read a file any more has damaged it.
      content = new byte[0];
      digest.reset();
      log.warn("cannot read chunk {}: {}", chunk, e.toString());
    }
    if (!HexFormat.of().formatHex(digest.digest()).equals(chunk)) {
      synchronized (stripe(chunk)) {
        setAside(chunk, "its content has another digest");
      }
      throw new FlotillaException(
          Code.BAD_FILE,
          "chunk " + chunk + " in " + folder + " is damaged",
          "Check the disk; another node's copy is used.");
    }
    return Optional.of(content);
  }

  /**
   * Each piece is digested while it is still in the processor's cache. By a stream, since a channel
   * fails when its reader is interrupted, which would be taken for damage.
   */
  private static byte[] read(Path file, MessageDigest digest) throws IOException {
    try (InputStream in = Files.newInputStream(file)) {
      byte[] content = new byte[Math.toIntExact(Files.size(file))];
      int at = 0;
      while (at < content.length) {
        int count = in.read(content, at, Math.min(PIECE_BYTES, content.length - at));
        if (count < 0) {
          throw new EOFException(file + " was cut short");
        }
        digest.update(content, at, count);
        at += count;
      }
      return content;
    }
  }

  private void setAside(String chunk, String why) {
    try {
      Files.move(
          file(chunk),
          setAside.resolve(chunk),
          StandardCopyOption.ATOMIC_MOVE,
          StandardCopyOption.REPLACE_EXISTING);
      damaged.incrementAndGet();
      log.warn("chunk {} in {} is damaged and was set aside: {}", chunk, folder, why);
    } catch (NoSuchFileException another) {
      // Another reader was first.
    } catch (IOException e) {
      throw failure("cannot set aside " + file(chunk), e);
    }
  }

  /** How many were found damaged since the start. */
  long damaged() {
    return damaged.get();
  }

  long usableBytes() {
    return usableBytes.getAsLong();
  }

  /** All chunks here, in order. */
  List<String> list() {
    List<String> chunks = new ArrayList<>();
    for (int i = 0; i < 256; i++) {
      chunks.addAll(list(i));
    }
    return chunks;
  }

  /** Those in one of the 256 folders, in order. */
  List<String> list(int folderNumber) {
    List<String> chunks = new ArrayList<>();
    Path shard = folder.resolve(String.format("%02x", folderNumber));
    try (DirectoryStream<Path> files = Files.newDirectoryStream(shard)) {
      for (Path file : files) {
        String name = String.valueOf(file.getFileName());
        if (name.length() == 64) {
          chunks.add(name);
        }
      }
    } catch (NoSuchFileException absent) {
      // A disk put in the place of another.
    } catch (IOException e) {
      throw failure("cannot read " + shard, e);
    }
    Collections.sort(chunks);
    return chunks;
  }

  /** All bytes of the chunks here. */
  long bytes() {
    long bytes = 0;
    for (String chunk : list()) {
      bytes += file(chunk).toFile().length();
    }
    return bytes;
  }

  /** Deletes a chunk that nobody said to need for so long; whether it did. */
  boolean drop(String chunk, Duration untouched) {
    synchronized (stripe(chunk)) {
      Path file = file(chunk);
      try {
        if (Files.getLastModifiedTime(file).toInstant().isAfter(clock.instant().minus(untouched))) {
          return false;
        }
        Files.delete(file);
        return true;
      } catch (NoSuchFileException absent) {
        return false;
      } catch (IOException e) {
        throw failure("cannot delete " + file, e);
      }
    }
  }

  /** Deletes what was set aside as damaged for so long. */
  void tidy(Duration kept) {
    try (DirectoryStream<Path> files = Files.newDirectoryStream(setAside)) {
      for (Path file : files) {
        if (Files.getLastModifiedTime(file).toInstant().isBefore(clock.instant().minus(kept))) {
          Files.deleteIfExists(file);
        }
      }
    } catch (IOException e) {
      log.warn("cannot tidy {}: {}", setAside, e.toString());
    }
  }

  static FlotillaException failure(String what, IOException cause) {
    return new FlotillaException(
        Code.STORAGE,
        what + ": " + cause,
        NodeFiles.isDiskFull(cause)
            ? "Remove blobs or add a node with room, then try again."
            : "Check the disk and its permissions.",
        cause);
  }
}

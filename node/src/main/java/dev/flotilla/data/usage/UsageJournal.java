package dev.flotilla.data.usage;

import dev.flotilla.Json;
import dev.flotilla.cluster.NodeFiles;
import java.io.DataInputStream;
import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Optional;
import java.util.zip.CRC32C;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * What this node has appended and not yet shipped, in files: {@code usage/NUMBER.log}, records of
 * length (4 bytes), CRC-32C (4 bytes) and JSON. A record that was written is in the system's hands:
 * it outlives this process. It is forced to the disk when its file is sealed. The file that is
 * being written is never read; the sealed ones are read, shipped and deleted.
 */
final class UsageJournal implements AutoCloseable {

  private static final Logger log = LoggerFactory.getLogger(UsageJournal.class);
  private static final String SUFFIX = ".log";
  private static final int RECORD_BYTES_MAX = 1 << 20;

  private final Path folder;
  private final long bytesMax;
  private long nextNumber;
  private @Nullable FileChannel channel;

  /**
   * Opens the folder; what is in it counts as sealed.
   *
   * @param bytesMax more than so much is refused, for lack of a majority that takes it
   */
  UsageJournal(Path folder, long bytesMax) throws IOException {
    this.folder = folder;
    this.bytesMax = bytesMax;
    Files.createDirectories(folder);
    for (Path left : files()) {
      nextNumber = Math.max(nextNumber, number(left) + 1);
    }
  }

  private static long number(Path file) {
    return Long.parseLong(String.valueOf(file.getFileName()).replace(SUFFIX, ""));
  }

  private List<Path> files() throws IOException {
    List<Path> files = new ArrayList<>();
    try (DirectoryStream<Path> all = Files.newDirectoryStream(folder, "*" + SUFFIX)) {
      all.forEach(files::add);
    }
    Collections.sort(files);
    return files;
  }

  /** Hands the events to the system; a part of them may have been written if it fails. */
  synchronized void append(List<UsageEvent> events) throws IOException {
    FileChannel open = channel;
    if (open == null) {
      long held = 0;
      for (Path each : files()) {
        held += Files.size(each);
      }
      if (held > bytesMax) {
        throw new IOException(
            "the journal of usage holds " + held + " bytes that were not shipped");
      }
      Path next = folder.resolve(String.format("%012d", nextNumber++) + SUFFIX);
      open = FileChannel.open(next, StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE);
      channel = open;
      NodeFiles.syncFolder(folder);
    }
    List<byte[]> records = events.stream().map(Json::write).toList();
    ByteBuffer frames =
        ByteBuffer.allocate(records.stream().mapToInt(record -> 8 + record.length).sum());
    for (byte[] record : records) {
      frames.putInt(record.length).putInt(checksum(record)).put(record);
    }
    frames.flip();
    long before = open.position();
    try {
      while (frames.hasRemaining()) {
        open.write(frames);
      }
    } catch (IOException e) {
      // What follows a torn record could not be read.
      open.truncate(before);
      throw e;
    }
  }

  private static int checksum(byte[] record) {
    CRC32C sum = new CRC32C();
    sum.update(record);
    return (int) sum.getValue();
  }

  /** Forces the file that is being written to the disk and ends it; then returns all that ended. */
  synchronized List<Path> seal() throws IOException {
    FileChannel open = channel;
    if (open != null) {
      open.force(true);
      open.close();
      channel = null;
    }
    return files();
  }

  /** A sealed file's events, up to the first damaged record. */
  List<UsageEvent> read(Path sealed) throws IOException {
    List<UsageEvent> events = new ArrayList<>();
    try (DataInputStream in =
        new DataInputStream(new java.io.BufferedInputStream(Files.newInputStream(sealed)))) {
      Optional<UsageEvent> next = next(in);
      while (next.isPresent()) {
        events.add(next.get());
        next = next(in);
      }
    }
    return events;
  }

  private static Optional<UsageEvent> next(DataInputStream in) throws IOException {
    try {
      int length = in.readInt();
      int checksum = in.readInt();
      if (length < 0 || length > RECORD_BYTES_MAX) {
        log.warn("the journal of usage ends in a damaged record");
        return Optional.empty();
      }
      byte[] record = in.readNBytes(length);
      if (record.length < length || checksum(record) != checksum) {
        log.warn("the journal of usage ends in a damaged record");
        return Optional.empty();
      }
      return Optional.of(Json.read(record, UsageEvent.class));
    } catch (EOFException end) {
      return Optional.empty();
    }
  }

  /** A sealed file has been shipped. */
  void delete(Path sealed) throws IOException {
    Files.deleteIfExists(sealed);
  }

  @Override
  public synchronized void close() throws IOException {
    if (channel != null) {
      channel.force(true);
      channel.close();
      channel = null;
    }
  }
}

package dev.flotilla.data.log;

import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import dev.flotilla.Json;
import dev.flotilla.cluster.NodeFiles;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.channels.Channels;
import java.nio.channels.FileChannel;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.jspecify.annotations.Nullable;

/**
 * One node's log as files of JSON lines, each named after the first sequence number in it. Used by
 * one thread at a time for writing; reading goes on beside.
 */
final class LogSegments implements AutoCloseable {

  /** A line and its number. */
  record Line(long seq, byte[] json) {}

  private static final String SUFFIX = ".jsonl";

  private final Path folder;
  private final long segmentBytes;
  private final TreeMap<Long, Path> segments = new TreeMap<>();
  private @Nullable FileChannel out;
  private long outBytes;
  private volatile long lastSeq;

  /** Opens the folder; what a crash left half written at the end is cut off. */
  LogSegments(Path folder, long segmentBytes) throws IOException {
    this.folder = folder;
    this.segmentBytes = segmentBytes;
    Files.createDirectories(folder);
    try (DirectoryStream<Path> files = Files.newDirectoryStream(folder, "*" + SUFFIX)) {
      for (Path file : files) {
        String name = file.getFileName().toString();
        segments.put(Long.parseLong(name.substring(0, name.length() - SUFFIX.length())), file);
      }
    }
    while (!segments.isEmpty() && lastSeq == 0) {
      Path last = segments.lastEntry().getValue();
      long whole = 0;
      for (Line line : lines(last, 0)) {
        whole += line.json().length + 1;
        lastSeq = line.seq();
      }
      try (FileChannel file = FileChannel.open(last, StandardOpenOption.WRITE)) {
        file.truncate(whole);
      }
      if (lastSeq == 0) {
        Files.delete(last);
        segments.pollLastEntry();
      }
    }
  }

  /** 0 if there is none. */
  long lastSeq() {
    return lastSeq;
  }

  /** The oldest number that may still be there; 0 if there is none. */
  synchronized long firstSeq() {
    return segments.isEmpty() ? 0 : segments.firstKey();
  }

  /** Numbers must ascend. Nothing of the lines is kept if this fails. */
  void append(List<Line> lines) throws IOException {
    if (lines.isEmpty()) {
      return;
    }
    FileChannel channel = writable(lines.getFirst().seq());
    int bytes = 0;
    for (Line line : lines) {
      bytes += line.json().length + 1;
    }
    ByteBuffer buffer = ByteBuffer.allocate(bytes);
    for (Line line : lines) {
      buffer.put(line.json()).put((byte) '\n');
    }
    buffer.flip();
    try {
      while (buffer.hasRemaining()) {
        channel.write(buffer, outBytes + buffer.position());
      }
    } catch (IOException e) {
      channel.truncate(outBytes);
      throw e;
    }
    outBytes += bytes;
    lastSeq = lines.getLast().seq();
  }

  private FileChannel writable(long first) throws IOException {
    if (out != null && outBytes >= segmentBytes) {
      out.force(true);
      out.close();
      out = null;
    }
    FileChannel channel = out;
    if (channel == null) {
      Path file = folder.resolve(String.format("%020d", first) + SUFFIX);
      channel = FileChannel.open(file, StandardOpenOption.CREATE, StandardOpenOption.WRITE);
      out = channel;
      outBytes = channel.size();
      synchronized (this) {
        segments.put(first, file);
      }
      NodeFiles.syncFolder(folder);
    }
    return channel;
  }

  void force() throws IOException {
    FileChannel channel = out;
    if (channel != null) {
      channel.force(false);
    }
  }

  /** Lines after a number, at most about so many bytes of them. */
  List<Line> after(long seq, long bytesMax) throws IOException {
    List<Path> files = new ArrayList<>();
    synchronized (this) {
      Long start = segments.floorKey(seq + 1);
      files.addAll((start == null ? segments : segments.tailMap(start, true)).values());
    }
    List<Line> found = new ArrayList<>();
    long bytes = 0;
    for (Path file : files) {
      for (Line line : lines(file, seq)) {
        found.add(line);
        bytes += line.json().length;
        if (bytes >= bytesMax) {
          return found;
        }
      }
    }
    return found;
  }

  /** Whole lines of a file whose number is above this one. */
  private static List<Line> lines(Path file, long above) throws IOException {
    List<Line> lines = new ArrayList<>();
    byte[] all;
    try (FileChannel channel = FileChannel.open(file, StandardOpenOption.READ);
        InputStream in = Channels.newInputStream(channel)) {
      all = in.readAllBytes();
    } catch (java.nio.file.NoSuchFileException retired) {
      return lines;
    }
    int start = 0;
    for (int i = 0; i < all.length; i++) {
      if (all[i] == '\n') {
        byte[] line = java.util.Arrays.copyOfRange(all, start, i);
        long seq = seq(line);
        if (seq <= 0) {
          return lines;
        }
        if (seq > above) {
          lines.add(new Line(seq, line));
        }
        start = i + 1;
      }
    }
    return lines;
  }

  /** The number in a line; 0 if it is damaged. */
  static long seq(byte[] json) {
    try (JsonParser parser = Json.MAPPER.createParser(json)) {
      while (parser.nextToken() != null) {
        if (parser.currentToken() == JsonToken.FIELD_NAME && parser.currentName().equals("seq")) {
          return parser.nextLongValue(0);
        }
      }
    } catch (IOException damaged) {
      return 0;
    }
    return 0;
  }

  /**
   * Deletes whole files that are too old or too many.
   *
   * @param keepAfterMs files last written before this go
   */
  synchronized boolean retire(long bytesMax, long keepAfterMs) throws IOException {
    long bytes = 0;
    boolean retired = false;
    for (Map.Entry<Long, Path> each : List.copyOf(segments.descendingMap().entrySet())) {
      bytes += Files.size(each.getValue());
      boolean newest = each.getKey().equals(segments.lastKey());
      if (!newest
          && (bytes > bytesMax
              || Files.getLastModifiedTime(each.getValue()).toMillis() < keepAfterMs)) {
        Files.delete(each.getValue());
        segments.remove(each.getKey());
        retired = true;
      }
    }
    return retired;
  }

  @Override
  public void close() throws IOException {
    if (out != null) {
      out.force(true);
      out.close();
      out = null;
    }
  }
}

package dev.flotilla.model;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.AtomicMoveNotSupportedException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.Locale;

/** Writes files that are whole or not there, and says what went wrong with one. */
final class WeightFiles {

  /** Writes a file's content. */
  @FunctionalInterface
  interface Content {
    void writeTo(FileChannel channel) throws IOException;
  }

  private WeightFiles() {}

  /** Writes under a temporary name beside the target, flushes to disk, then renames. */
  static void writeAtomically(Path target, Content content) {
    Path folder = target.toAbsolutePath().getParent();
    Path temporary = null;
    try {
      Files.createDirectories(folder);
      temporary = Files.createTempFile(folder, "." + target.getFileName() + "-", ".part");
      try (FileChannel channel = FileChannel.open(temporary, StandardOpenOption.WRITE)) {
        content.writeTo(channel);
        channel.force(true);
      }
      move(temporary, target);
      try (FileChannel entries = FileChannel.open(folder, StandardOpenOption.READ)) {
        entries.force(true);
      }
    } catch (IOException e) {
      throw failure("write", target, e);
    } finally {
      deleteQuietly(temporary);
    }
  }

  private static void move(Path from, Path to) throws IOException {
    try {
      Files.move(from, to, StandardCopyOption.ATOMIC_MOVE);
    } catch (AtomicMoveNotSupportedException e) {
      throw new IOException("this file system cannot rename atomically", e);
    }
  }

  private static void deleteQuietly(@org.jspecify.annotations.Nullable Path file) {
    if (file != null) {
      try {
        Files.deleteIfExists(file);
      } catch (IOException e) {
        // The write's own error says more; a left-over .part file harms nobody.
      }
    }
  }

  static void writeFully(FileChannel channel, ByteBuffer bytes) throws IOException {
    while (bytes.hasRemaining()) {
      channel.write(bytes);
    }
  }

  static FlotillaException failure(String verb, Path file, IOException e) {
    if (e instanceof NoSuchFileException) {
      return new FlotillaException(
          Code.NOT_FOUND, "no file " + e.getMessage(), "Check the path", e);
    }
    String reason = String.valueOf(e.getMessage());
    boolean full = reason.toLowerCase(Locale.ROOT).contains("no space left");
    return new FlotillaException(
        Code.STORAGE,
        "cannot " + verb + " " + file + ": " + reason,
        full ? "Free some disk space and try again" : "Check the disk and the permissions",
        e);
  }

  static FlotillaException bad(String where, String what) {
    return bad(where, what, "Fetch or convert the file again");
  }

  static FlotillaException bad(String where, String what, String remedy) {
    return new FlotillaException(Code.BAD_FILE, where + ": " + what, remedy);
  }
}

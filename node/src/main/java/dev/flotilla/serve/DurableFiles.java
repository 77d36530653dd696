package dev.flotilla.serve;

import dev.flotilla.FlotillaException;
import dev.flotilla.cluster.NodeFiles;
import java.io.IOException;
import java.nio.channels.FileChannel;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;

/** Files that are there whole or not at all, whatever happens to the machine. */
final class DurableFiles {

  private DurableFiles() {}

  /** Writes under a temporary name, forces it to the disk, and renames. */
  static void write(Path file, byte[] content) {
    try {
      Files.createDirectories(parent(file));
      NodeFiles.writeDurably(file, content, false);
    } catch (IOException e) {
      throw failure("cannot write " + file, e);
    }
  }

  /** Forces a finished temporary file to the disk and gives it its name. */
  static void publish(Path temporary, Path file) throws IOException {
    try (FileChannel channel = FileChannel.open(temporary, StandardOpenOption.READ)) {
      channel.force(true);
    }
    NodeFiles.publish(temporary, file);
  }

  private static Path parent(Path file) {
    Path parent = file.toAbsolutePath().getParent();
    if (parent == null) {
      throw new IllegalArgumentException("no file: " + file);
    }
    return parent;
  }

  /** Deletes a folder of plain files, if it is there. */
  static void deleteFolder(Path folder) {
    if (!Files.isDirectory(folder)) {
      return;
    }
    try {
      try (DirectoryStream<Path> entries = Files.newDirectoryStream(folder)) {
        for (Path entry : entries) {
          if (Files.isDirectory(entry)) {
            deleteFolder(entry);
          } else {
            Files.deleteIfExists(entry);
          }
        }
      }
      Files.deleteIfExists(folder);
    } catch (IOException e) {
      throw failure("cannot delete " + folder, e);
    }
  }

  static MessageDigest sha256() {
    try {
      return MessageDigest.getInstance("SHA-256");
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException("every JDK has SHA-256", e);
    }
  }

  static String hex(MessageDigest digest) {
    return HexFormat.of().formatHex(digest.digest());
  }

  static String sha256(byte[] content) {
    return HexFormat.of().formatHex(sha256().digest(content));
  }

  static FlotillaException failure(String what, IOException cause) {
    String message = String.valueOf(cause.getMessage());
    return new FlotillaException(
        FlotillaException.Code.STORAGE,
        what + ": " + (message.isEmpty() ? cause.toString() : message),
        NodeFiles.isDiskFull(cause)
            ? "Free disk space, then try again."
            : "Check the disk and its permissions.",
        cause);
  }
}

package dev.flotilla.cluster;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.channels.OverlappingFileLockException;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.Collections;
import java.util.IdentityHashMap;
import java.util.Locale;
import java.util.Objects;
import java.util.Set;
import java.util.stream.Stream;

/**
 * Files that are whole after any crash, what a disk's errors mean, and the lock that keeps a second
 * process out of a data folder.
 */
public final class NodeFiles {

  private NodeFiles() {}

  /** Held while a process uses the data folder. */
  record Lock(FileChannel channel, FileLock lock) implements AutoCloseable {
    @Override
    public void close() {
      try {
        channel.close();
      } catch (IOException e) {
        throw storage("cannot release the lock file", e);
      }
    }
  }

  static Lock lock(Path dataFolder) {
    Path file = dataFolder.resolve("node.lock");
    try {
      Files.createDirectories(dataFolder);
      FileChannel channel =
          FileChannel.open(file, StandardOpenOption.CREATE, StandardOpenOption.WRITE);
      FileLock lock = null;
      try {
        lock = channel.tryLock();
      } catch (OverlappingFileLockException e) {
        // Another node in this very process.
      }
      if (lock == null) {
        channel.close();
        throw new FlotillaException(
            Code.CONFLICT,
            "data folder " + dataFolder + " is in use by another node",
            "Stop that node (its process id is in node.pid), or choose another --data folder.");
      }
      return new Lock(channel, lock);
    } catch (IOException e) {
      throw storage("cannot lock the data folder " + dataFolder, e);
    }
  }

  /**
   * Writes a file so that it is whole after any crash, with its old content or the new one: temp
   * name, fsync, rename, fsync of the folder.
   *
   * @param secret only this user may read it
   */
  public static void writeDurably(Path file, byte[] content, boolean secret) throws IOException {
    Path temp = file.resolveSibling(file.getFileName() + ".tmp");
    Files.deleteIfExists(temp);
    if (secret && posix(file)) {
      // Created with the mode, not given it later: there is no moment in which others can read it.
      Files.createFile(
          temp, PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rw-------")));
    }
    writeForced(temp, ByteBuffer.wrap(content));
    publish(temp, file);
  }

  /** Writes a file and forces it to the disk; its name may not outlive a crash yet. */
  public static void writeForced(Path file, ByteBuffer content) throws IOException {
    try (FileChannel channel =
        FileChannel.open(
            file,
            StandardOpenOption.CREATE,
            StandardOpenOption.TRUNCATE_EXISTING,
            StandardOpenOption.WRITE)) {
      while (content.hasRemaining()) {
        channel.write(content);
      }
      channel.force(true);
    }
  }

  /** Gives a forced file its name, durably; what had the name is replaced. */
  public static void publish(Path forced, Path file) throws IOException {
    Files.move(forced, file, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
    syncFolder(parent(file));
  }

  static Path parent(Path file) {
    return Objects.requireNonNull(file.toAbsolutePath().getParent());
  }

  /** Makes new names inside the folder durable. */
  public static void syncFolder(Path folder) throws IOException {
    try (FileChannel channel = FileChannel.open(folder, StandardOpenOption.READ)) {
      channel.force(true);
    }
  }

  static void createPrivateFolder(Path folder) throws IOException {
    if (posix(parent(folder))) {
      Files.createDirectory(
          folder,
          PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rwx------")));
    } else {
      Files.createDirectory(folder);
    }
  }

  static boolean isEmptyOrAbsent(Path folder) throws IOException {
    if (!Files.isDirectory(folder)) {
      return true;
    }
    try (Stream<Path> children = Files.list(folder)) {
      return children.findAny().isEmpty();
    }
  }

  /** Deletes a folder and all in it, if it is there. */
  public static void deleteTree(Path folder) throws IOException {
    if (!Files.exists(folder, LinkOption.NOFOLLOW_LINKS)) {
      return;
    }
    try (Stream<Path> tree = Files.walk(folder)) {
      for (Path path : tree.sorted((a, b) -> b.compareTo(a)).toList()) {
        // Someone else may be deleting too.
        Files.deleteIfExists(path);
      }
    }
  }

  /** What an operator needs to know of a disk error. */
  static FlotillaException storage(String what, Throwable cause) {
    String reason = String.valueOf(cause.getMessage());
    if (isDiskFull(cause)) {
      return new FlotillaException(
          Code.STORAGE,
          what + ": no space left on the device",
          "Free some space on the disk that holds the data folder, then start the node again.",
          cause);
    }
    return new FlotillaException(
        Code.STORAGE,
        what + ": " + reason,
        "Check that the data folder exists, is writable, and that its disk works.",
        cause);
  }

  /** Whether the disk has no room, by what the system said, in the words of any cause. */
  public static boolean isDiskFull(Throwable thrown) {
    Set<Throwable> seen = Collections.newSetFromMap(new IdentityHashMap<>());
    for (Throwable t = thrown; t != null && seen.add(t); t = t.getCause()) {
      String text =
          t instanceof FileSystemException f ? String.valueOf(f.getReason()) : t.getMessage();
      if (text != null && text.toLowerCase(Locale.ROOT).contains("no space left")) {
        return true;
      }
    }
    return false;
  }

  private static boolean posix(Path path) {
    return path.getFileSystem().supportedFileAttributeViews().contains("posix");
  }
}

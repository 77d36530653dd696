package dev.flotilla.cluster;

import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Assumptions;

/** A file system of its own size, so that a disk can be full; needs the right to mount. */
public final class TinyDisk implements AutoCloseable {

  private final Path place;
  private final Path ballast;

  private TinyDisk(Path place) {
    this.place = place;
    this.ballast = place.resolve("ballast");
  }

  /** Skips the test where mounting is not allowed. */
  public static TinyDisk mount(Path place, int megabytes) throws IOException, InterruptedException {
    Files.createDirectories(place);
    Assumptions.assumeTrue(
        run("mount", "-t", "tmpfs", "-o", "size=" + megabytes + "m", "tmpfs", place.toString()),
        "this process may not mount a file system");
    return new TinyDisk(place);
  }

  public Path folder() {
    return place.resolve("node");
  }

  public long freeBytes() {
    return place.toFile().getUsableSpace();
  }

  /** Another program's file takes all but so much of the disk. */
  public void leave(long bytes) throws IOException {
    long take = freeBytes() - bytes;
    byte[] block = new byte[1 << 20];
    try (RandomAccessFile file = new RandomAccessFile(ballast.toFile(), "rw")) {
      file.seek(file.length());
      for (long written = 0; written < take; ) {
        int length = (int) Math.min(block.length, take - written);
        file.write(block, 0, length);
        written += length;
      }
    }
  }

  /** The other program's file is deleted. */
  public void free() throws IOException {
    Files.deleteIfExists(ballast);
  }

  private static boolean run(String... command) throws IOException, InterruptedException {
    try {
      Process process =
          new ProcessBuilder(command)
              .redirectErrorStream(true)
              .redirectOutput(ProcessBuilder.Redirect.DISCARD)
              .start();
      return process.waitFor(10, TimeUnit.SECONDS) && process.exitValue() == 0;
    } catch (IOException noSuchProgram) {
      return false;
    }
  }

  @Override
  public void close() throws IOException, InterruptedException {
    if (!run("umount", place.toString())) {
      run("umount", "-l", place.toString());
    }
  }
}

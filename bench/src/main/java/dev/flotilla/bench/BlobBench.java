package dev.flotilla.bench;

import dev.flotilla.cluster.ClusterNode;
import dev.flotilla.cluster.NodeFiles;
import dev.flotilla.data.DataPlane;
import dev.flotilla.data.blobs.Blobs;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.Callable;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.atomic.AtomicLong;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/**
 * Puts and gets of small and large blobs with one node and with three, next to plain files that are
 * forced to the same disk. All nodes run in this process and share the machine and its disk, so
 * three copies cost three writes of one disk; a put is answered when two of three are on it.
 */
@Command(
    name = "blobs",
    description = "Blobs of 4 KB and 8 MB, next to plain files with fsync.",
    mixinStandardHelpOptions = true)
final class BlobBench implements Callable<Integer> {

  /** Something that keeps contents under a key of its own choice. */
  interface Store {
    String put(byte[] content) throws IOException;

    long get(String key) throws IOException;
  }

  static final int SMALL = 4 << 10;
  static final int LARGE = 8 << 20;

  @Option(names = "--seconds", defaultValue = "3", description = "Of each; ${DEFAULT-VALUE}.")
  private double seconds;

  @Option(names = "--clients", defaultValue = "4", description = "Default ${DEFAULT-VALUE}.")
  private int clients;

  @Override
  public Integer call() throws Exception {
    Path folder = Files.createTempDirectory("flotilla-blobs");
    List<ClusterNode> clusters = new ArrayList<>();
    List<DataPlane> planes = new ArrayList<>();
    try {
      System.out.printf(
          "%-22s %-5s %6s %10s %9s %11s %11s%n",
          "store", "what", "bytes", "ops/s", "MB/s", "p50 us", "p99 us");
      measure("plain files, fsync", files(Files.createDirectories(folder.resolve("plain"))));
      ShardingBench.start(folder, 1, clusters, planes);
      measure("blobs, 1 node", blobs(planes.getFirst().blobs()));
      ShardingBench.start(folder, 2, clusters, planes);
      ShardingBench.start(folder, 3, clusters, planes);
      measure("blobs, 3 nodes", blobs(planes.getFirst().blobs()));
      return 0;
    } finally {
      planes.reversed().forEach(DataPlane::close);
      clusters.reversed().forEach(ClusterNode::close);
      NodeFiles.deleteTree(folder);
    }
  }

  private void measure(String name, Store store) throws Exception {
    for (int bytes : new int[] {SMALL, LARGE}) {
      List<String> kept = new ArrayList<>();
      say(name, "put", bytes, put(store, bytes, clients, seconds, kept));
      say(name, "get", bytes, get(store, bytes, clients, seconds, kept));
    }
  }

  /** Puts contents that are new in each of their chunks, and adds their keys to those kept. */
  static Load.Figures put(Store store, int bytes, int clients, double seconds, List<String> kept)
      throws Exception {
    return Load.run(
        clients,
        seconds,
        1,
        number -> {
          byte[] content = new byte[bytes];
          new Random().nextBytes(content);
          AtomicLong count = new AtomicLong();
          return () -> {
            for (int at = 0; at < bytes; at += SMALL) {
              ByteBuffer.wrap(content).putLong(at, count.incrementAndGet() << 8 | number);
            }
            String key = store.put(content);
            synchronized (kept) {
              kept.add(key);
            }
          };
        });
  }

  /** Gets some of those kept, at random. */
  static Load.Figures get(Store store, int bytes, int clients, double seconds, List<String> kept)
      throws Exception {
    return Load.run(
        clients,
        seconds,
        1,
        number ->
            () -> {
              String key = kept.get(ThreadLocalRandom.current().nextInt(kept.size()));
              if (store.get(key) != bytes) {
                throw new IllegalStateException(key + " has another length");
              }
            });
  }

  private static void say(String name, String what, int bytes, Load.Figures figures) {
    System.out.printf(
        "%-22s %-5s %6s %10.1f %9.1f %11.0f %11.0f%n",
        name,
        what,
        bytes == SMALL ? "4 KB" : "8 MB",
        figures.perSecond(),
        figures.perSecond() * bytes / 1e6,
        figures.p50Us(),
        figures.p99Us());
  }

  static Store blobs(Blobs blobs) {
    return new Store() {
      @Override
      public String put(byte[] content) {
        return blobs.put(Blobs.DEFAULT_BUCKET, new ByteArrayInputStream(content)).digest();
      }

      @Override
      public long get(String key) throws IOException {
        try (InputStream content = blobs.read(key, 0, Long.MAX_VALUE)) {
          return content.transferTo(java.io.OutputStream.nullOutputStream());
        }
      }
    };
  }

  /** As safe as one copy can be: forced, renamed, and the folder forced. */
  static Store files(Path folder) {
    AtomicLong names = new AtomicLong();
    return new Store() {
      @Override
      public String put(byte[] content) throws IOException {
        String name = Long.toString(names.incrementAndGet());
        Path half = folder.resolve(name + ".new");
        try (FileChannel channel =
            FileChannel.open(half, StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE)) {
          ByteBuffer left = ByteBuffer.wrap(content);
          while (left.hasRemaining()) {
            channel.write(left);
          }
          channel.force(true);
        }
        Files.move(half, folder.resolve(name), StandardCopyOption.ATOMIC_MOVE);
        try (FileChannel channel = FileChannel.open(folder, StandardOpenOption.READ)) {
          channel.force(true);
        }
        return name;
      }

      @Override
      public long get(String key) throws IOException {
        return Files.readAllBytes(folder.resolve(key)).length;
      }
    };
  }
}

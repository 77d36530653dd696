package dev.flotilla.data.cache;

import dev.flotilla.cluster.ClusterConfig;
import dev.flotilla.cluster.ClusterNode;
import dev.flotilla.data.grid.Environment;
import dev.flotilla.data.grid.Grid;
import dev.flotilla.data.grid.GridConfig;
import io.micrometer.core.instrument.simple.SimpleMeterRegistry;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.SecureRandom;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.concurrent.locks.LockSupport;

/**
 * Measures how long a near cache goes on with an old value after a put on another node has
 * returned: three nodes in this process, one writes, another reads its near cache without pause.
 * For each put it takes the beginning of the last read that returned the old value, relative to the
 * put's return: negative where coherence holds. Then the speed of near hits on one thread.
 *
 * <p>{@code NearStaleness FOLDER [ROUNDS] [FIRST_PORT]}; prints figures as lines of text.
 */
public final class NearStaleness {

  private static final int NODES = 3;
  private static final int PORTS = 7;
  private static final int HITS = 20_000_000;

  private record Node(ClusterNode cluster, Grid grid, GridCaches caches) implements AutoCloseable {
    @Override
    public void close() {
      caches.close();
      grid.close();
      cluster.close();
    }
  }

  private NearStaleness() {}

  /** Runs it. */
  public static void main(String[] arguments) throws IOException, InterruptedException {
    Path folder = Path.of(arguments[0]);
    int rounds = arguments.length > 1 ? Integer.parseInt(arguments[1]) : 2000;
    int port = arguments.length > 2 ? Integer.parseInt(arguments[2]) : 23_000;
    Files.createDirectories(folder);
    List<Node> nodes = new ArrayList<>();
    try {
      for (int i = 0; i < NODES; i++) {
        nodes.add(start(folder.resolve("node-" + i), port + PORTS * i, port, nodes));
      }
      measure(nodes, rounds);
    } finally {
      nodes.reversed().forEach(Node::close);
    }
  }

  private static Node start(Path folder, int port, int firstPort, List<Node> before) {
    ClusterConfig config =
        new ClusterConfig(
            folder,
            String.valueOf(folder.getFileName()),
            "127.0.0.1",
            "127.0.0.1",
            port,
            "0",
            InstantSource.system(),
            Map.of());
    ClusterNode cluster =
        before.isEmpty()
            ? ClusterNode.create(config)
            : ClusterNode.join(
                config, "127.0.0.1:" + firstPort, before.getFirst().cluster().invite());
    Grid grid = Grid.create(cluster, GridConfig.of(folder, "127.0.0.1", port));
    GridCaches caches =
        new GridCaches(
            new Environment(
                cluster,
                folder,
                "127.0.0.1",
                port,
                new SimpleMeterRegistry(),
                InstantSource.system(),
                System::nanoTime,
                new SecureRandom()),
            grid);
    cluster.start();
    grid.start();
    caches.start();
    return new Node(cluster, grid, caches);
  }

  private static byte[] bytes(long number) {
    return ByteBuffer.allocate(Long.BYTES).putLong(number).array();
  }

  private static void measure(List<Node> nodes, int rounds) throws InterruptedException {
    Cache writer = nodes.get(0).caches().create("staleness", CacheConfig.DEFAULT);
    writer.put("k", bytes(0));
    Cache reader = nodes.get(1).caches().cache("staleness");
    awaitNearHits(reader);
    // For each value, when the last read that returned it began; written by the reading thread.
    long[] lastReadNs = new long[rounds + 2];
    long[] returnedNs = new long[rounds + 2];
    Thread reading =
        Thread.ofPlatform()
            .daemon()
            .start(
                () -> {
                  int seen = 0;
                  while (seen <= rounds) {
                    long beganNs = System.nanoTime();
                    seen = (int) ByteBuffer.wrap(reader.get("k").orElseThrow()).getLong();
                    lastReadNs[seen] = beganNs;
                  }
                });
    long startNs = System.nanoTime();
    for (int i = 1; i <= rounds + 1; i++) {
      writer.put("k", bytes(i));
      returnedNs[i] = System.nanoTime();
      LockSupport.parkNanos(200_000);
    }
    long tookNs = System.nanoTime() - startNs;
    reading.join();
    long[] stalenessNs = new long[rounds];
    int observed = 0;
    int stale = 0;
    for (int i = 1; i <= rounds; i++) {
      if (lastReadNs[i - 1] != 0) {
        long staleness = lastReadNs[i - 1] - returnedNs[i];
        stalenessNs[observed++] = staleness;
        stale += staleness > 0 ? 1 : 0;
      }
    }
    CacheStatistics counted = reader.statistics();
    System.out.printf(
        "%d puts, %.0f/s; the old value was read in %d rounds; near hits %d, grid reads %d%n",
        rounds, rounds * 1e9 / tookNs, observed, counted.nearHits(), counted.gridHits());
    System.out.printf("stale reads that began after the put returned: %d%n", stale);
    long[] sorted = Arrays.copyOf(stalenessNs, observed);
    Arrays.sort(sorted);
    for (double quantile : new double[] {0, 0.5, 0.9, 0.99, 0.999, 1}) {
      System.out.printf(
          "last stale read minus return of the put, quantile %.3f: %.1f us%n",
          quantile, sorted[(int) Math.min(observed - 1, quantile * observed)] / 1e3);
    }
    hits(reader);
  }

  private static void awaitNearHits(Cache cache) throws InterruptedException {
    for (long before = -1; cache.statistics().nearHits() <= before || before < 0; ) {
      before = cache.statistics().nearHits();
      var _ = cache.get("k");
      var _ = cache.get("k");
      Thread.sleep(50);
    }
  }

  private static void hits(Cache cache) {
    long bytes = 0;
    long before = cache.statistics().nearHits();
    long startNs = System.nanoTime();
    for (int i = 0; i < HITS; i++) {
      bytes += cache.get("k").orElseThrow().length;
    }
    double seconds = (System.nanoTime() - startNs) / 1e9;
    System.out.printf(
        "near gets on one thread: %.0f/s (%.2f%% near hits, %d bytes)%n",
        HITS / seconds, 100.0 * (cache.statistics().nearHits() - before) / HITS, bytes);
  }
}

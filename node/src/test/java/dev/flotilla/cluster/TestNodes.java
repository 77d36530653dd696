package dev.flotilla.cluster;

import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.concurrent.Executor;
import java.util.function.BooleanSupplier;
import java.util.stream.IntStream;

/** Nodes on loopback for tests, on ports that were free a moment ago; stops them all at the end. */
public final class TestNodes implements AutoCloseable {

  static final String VERSION = "0.1.0";
  private static final Random RANDOM = new Random();

  private final Path folder;
  private final RaftRegistry.Tuning tuning;
  private final List<ClusterNode> started = new ArrayList<>();

  public TestNodes(Path folder) {
    this(folder, RaftRegistry.Tuning.DEFAULT);
  }

  TestNodes(Path folder, RaftRegistry.Tuning tuning) {
    this.folder = folder;
    this.tuning = tuning;
  }

  public ClusterConfig config(String name) {
    return config(name, InstantSource.system(), VERSION);
  }

  ClusterConfig config(String name, InstantSource clock, String version) {
    return new ClusterConfig(
        folder.resolve(name),
        name,
        "127.0.0.1",
        "127.0.0.1",
        freePorts(),
        version,
        clock,
        Map.of("cores", 2.0));
  }

  static String address(ClusterConfig config) {
    return config.advertisedHost() + ":" + config.httpPort();
  }

  public ClusterNode create(ClusterConfig config) {
    return track(ClusterNode.create(config, tuning));
  }

  ClusterNode start(ClusterConfig config) {
    ClusterNode node = create(config);
    node.start();
    return node;
  }

  public ClusterNode join(ClusterConfig config, ClusterConfig through, String token) {
    return track(ClusterNode.join(config, address(through), token, tuning));
  }

  ClusterNode joinAndStart(ClusterConfig config, ClusterConfig through, String token) {
    ClusterNode node = join(config, through, token);
    node.start();
    return node;
  }

  /** Those that were not killed. */
  public synchronized List<ClusterNode> running() {
    return started.stream().filter(ClusterNode::isOpen).toList();
  }

  static List<Registry.Write> put(Registry.Key key, String value) {
    return List.of(new Registry.Write(key, Optional.of(value.getBytes(StandardCharsets.UTF_8))));
  }

  static String value(ClusterNode node, Registry.Key key) {
    return node.registry()
        .get(key)
        .map(entry -> new String(entry.value(), StandardCharsets.UTF_8))
        .orElse("");
  }

  private synchronized ClusterNode track(ClusterNode node) {
    started.add(node);
    return node;
  }

  /** The first of seven ports in a row that are free now. */
  static int freePorts() {
    for (int attempt = 0; attempt < 1000; attempt++) {
      int base = 12_000 + 7 * RANDOM.nextInt(2_800);
      if (IntStream.rangeClosed(base, base + 6).allMatch(TestNodes::free)) {
        return base;
      }
    }
    throw new IllegalStateException("no seven free ports in a row");
  }

  private static boolean free(int port) {
    try (ServerSocket socket = new ServerSocket(port, 1, InetAddress.getLoopbackAddress())) {
      return socket.isBound();
    } catch (IOException e) {
      return false;
    }
  }

  /** Threads for what a test does meanwhile: not the common pool, which the registry needs. */
  public static final Executor MEANWHILE = task -> Thread.ofPlatform().daemon().start(task);

  public static void await(String what, Duration atMost, BooleanSupplier condition) {
    long deadlineNs = System.nanoTime() + atMost.toNanos();
    while (!condition.getAsBoolean()) {
      if (System.nanoTime() > deadlineNs) {
        throw new AssertionError("not within " + atMost + ": " + what);
      }
      try {
        Thread.sleep(10);
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        throw new AssertionError(e);
      }
    }
  }

  @Override
  public void close() {
    for (ClusterNode node : started.reversed()) {
      node.kill();
    }
  }
}

package dev.flotilla.serve;

import com.google.protobuf.ByteString;
import com.sun.management.HotSpotDiagnosticMXBean;
import dev.flotilla.FlotillaException;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.model.KernelGuard;
import dev.flotilla.model.LayerProbe;
import dev.flotilla.model.LayerSpeeds;
import dev.flotilla.serve.proto.Echoed;
import dev.flotilla.serve.proto.LinksGrpc;
import io.grpc.BindableService;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.StreamObserver;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.ValueLayout;
import java.lang.management.ManagementFactory;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;
import java.util.function.LongSupplier;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Warms the code of layers up, and measures this node in the background: once, how fast it runs
 * layers, and for each node that comes, the link to it. Works at low priority (but for {@link
 * #warmUpAtOnce}), and only while the node serves nothing: warms up as soon as the cluster has a
 * model that this node may have to take over; measures, for a while, only while the machine does
 * nothing else, for what is measured is kept for long.
 */
public final class Profiler implements AutoCloseable {

  private static final Logger log = LoggerFactory.getLogger(Profiler.class);
  private static final long POLL_MS = 500;
  private static final long IDLE_NS = TimeUnit.SECONDS.toNanos(3);

  /** Between the steps of a long prompt there is less. */
  private static final long UNUSED_NS = TimeUnit.SECONDS.toNanos(2);

  /** A machine that is busy for longer always is: then what it does besides belongs to it. */
  private static final long PATIENCE_NS = TimeUnit.MINUTES.toNanos(15);

  private static final double BUSY_LOAD = 0.3;
  private static final int NICE = 10;

  /** The level of compilation that knows vectors. */
  private static final int OPTIMIZING = 4;

  private static final int ECHOES_MIN = 15;
  private static final int ECHOES_MAX = 300;
  private static final long ROUND_NS = TimeUnit.MILLISECONDS.toNanos(300);
  private static final int HIDDEN_BYTES = 8 << 10;
  private static final int LARGE_BYTES = 1 << 20;
  private static final int ECHO_S = 5;

  private final Cluster cluster;
  private final Path folder;
  private final String version;
  private final int threads;
  private final LongSupplier work;
  private final BooleanSupplier models;
  private final LongSupplier nanoTime;
  private final Map<String, Link> links = new HashMap<>();
  private final Map<String, Double> profile;
  private boolean unpublished;
  private volatile boolean closed;
  private volatile @Nullable Thread atOnce;
  private @Nullable Thread thread;

  private record Link(double latencySeconds, double bytesPerSecond) {}

  /**
   * Adds its service, so it is made before the cluster starts.
   *
   * @param profile what is known of this node at its start
   * @param threads that slices compute with
   * @param work grows with all that this node serves
   * @param models whether the cluster serves any
   */
  public Profiler(
      Cluster cluster,
      Path folder,
      String version,
      Map<String, Double> profile,
      int threads,
      LongSupplier work,
      BooleanSupplier models,
      LongSupplier nanoTime) {
    this.cluster = cluster;
    this.folder = folder;
    this.version = version;
    this.profile = new TreeMap<>(profile);
    this.threads = threads;
    this.work = work;
    this.models = models;
    this.nanoTime = nanoTime;
    cluster.addService(service());
  }

  private static BindableService service() {
    return new LinksGrpc.LinksImplBase() {
      @Override
      public void echo(Echoed request, StreamObserver<Echoed> responses) {
        // Only what comes is timed: large messages are answered by small ones.
        responses.onNext(
            request.getContent().size() > HIDDEN_BYTES ? Echoed.getDefaultInstance() : request);
        responses.onCompleted();
      }
    };
  }

  /**
   * Warms up at once and at the usual priority, while the node is still starting: for a node that
   * has models, to which others' streams may come as soon as it serves.
   */
  public void warmUpAtOnce() {
    if (compilerOptimizes()) {
      atOnce = Thread.ofPlatform().name("warm-up").daemon().start(this::warmUp);
    }
  }

  /** Begins; the cluster has started. */
  public void start() {
    thread = Thread.ofPlatform().name("profiler").daemon().start(this::loop);
  }

  private void loop() {
    lowerPriority();
    try {
      Thread first = atOnce;
      if (first != null) {
        first.join(); // it may have broken off, and is not measured beside
      }
    } catch (InterruptedException e) {
      return; // only close() interrupts
    }
    boolean warm = !compilerOptimizes();
    long startNs = nanoTime.getAsLong();
    long unusedSinceNs = startNs;
    long idleSinceNs = startNs;
    long seen = work.getAsLong();
    while (!closed) {
      try {
        Thread.sleep(POLL_MS);
        if (work.getAsLong() != seen) {
          seen = work.getAsLong();
          unusedSinceNs = nanoTime.getAsLong();
          idleSinceNs = unusedSinceNs;
        }
        // Each try sets layers up first: beside streams it would only ever begin.
        if (!warm && models.getAsBoolean() && nanoTime.getAsLong() - unusedSinceNs >= UNUSED_NS) {
          warm = warmUp();
        }
        boolean patient = nanoTime.getAsLong() - startNs < PATIENCE_NS;
        if (patient && systemLoad() > BUSY_LOAD) {
          idleSinceNs = nanoTime.getAsLong();
        } else if (nanoTime.getAsLong() - idleSinceNs >= IDLE_NS) {
          measureLinks(seen);
          measureLayers(seen);
          publish();
        }
      } catch (InterruptedException e) {
        return; // only close() interrupts
      } catch (RuntimeException | Error e) {
        log.warn("this node could not be measured: {}; it is tried again", e.toString());
        idleSinceNs = nanoTime.getAsLong() + PATIENCE_NS;
      }
    }
  }

  /**
   * A node that has just started is the one that others' streams go to when the next one goes. What
   * it serves meanwhile warms it as well, and is not held up.
   *
   * @return whether that needs no other try
   */
  private boolean warmUp() {
    long startNs = nanoTime.getAsLong();
    long seen = work.getAsLong();
    try {
      boolean warm = new LayerProbe(threads, () -> idle(seen), nanoTime).warmUp();
      long tookMs = TimeUnit.NANOSECONDS.toMillis(nanoTime.getAsLong() - startNs);
      if (warm && tookMs > 0) { // else it was warm already
        log.info("warm after {} ms", tookMs);
      }
      return warm;
    } catch (RuntimeException | Error e) {
      log.warn("kernels could not be warmed up: {}; the first requests take longer", e.toString());
      return true;
    }
  }

  /** Without the optimizing compiler there is nothing to warm up for, and all of it takes long. */
  private static boolean compilerOptimizes() {
    HotSpotDiagnosticMXBean java =
        ManagementFactory.getPlatformMXBean(HotSpotDiagnosticMXBean.class);
    return Integer.parseInt(java.getVMOption("TieredStopAtLevel").getValue()) >= OPTIMIZING;
  }

  private void publish() {
    if (unpublished) {
      cluster.publish(profile);
      unpublished = false;
    }
  }

  private boolean idle(long seen) {
    return !closed && work.getAsLong() == seen;
  }

  private void measureLayers(long seen) {
    if (NodeProfile.speeds(profile).measured() || !idle(seen)) {
      return;
    }
    long startNs = nanoTime.getAsLong();
    Optional<LayerSpeeds> speeds = new LayerProbe(threads, () -> idle(seen), nanoTime).measure();
    if (speeds.isEmpty()) {
      return; // there is work now; later, then
    }
    profile.putAll(NodeProfile.figures(speeds.get()));
    NodeProfile.keep(folder, version, profile);
    unpublished = true;
    log.info(
        "this node measured itself in {} s: one row reads {} GB/s of q8_0 and {} GB/s of q4_0",
        TimeUnit.NANOSECONDS.toSeconds(nanoTime.getAsLong() - startNs),
        gigabytes("q8_0_bytes_per_second_rows_1"),
        gigabytes("q4_0_bytes_per_second_rows_1"));
    guard(speeds.get());
  }

  private void guard(LayerSpeeds speeds) {
    KernelGuard.figures(speeds, threads, nanoTime).stream()
        .filter(figure -> !figure.sound())
        .forEach(
            figure ->
                log.warn(
                    "a kernel is slower here than it should be: {}; if `flotilla bench kernels` says so"
                        + " too, another Java 25 may compile it better",
                    figure));
  }

  private double gigabytes(String figure) {
    return Math.round(profile.getOrDefault(figure, 0.0) / 1e8) / 10.0;
  }

  private void measureLinks(long seen) {
    boolean changed = false;
    for (NodeInfo node : cluster.nodes()) {
      boolean other = !node.id().equals(cluster.self()) && node.state() == NodeInfo.State.UP;
      if (other && !links.containsKey(node.id()) && idle(seen)) {
        try {
          links.put(node.id(), measure(cluster.channel(node.id())));
          changed = true;
        } catch (StatusRuntimeException | FlotillaException e) {
          log.debug("the link to {} cannot be measured now: {}", node.id(), e.toString());
        }
      }
    }
    if (changed) {
      double latency =
          median(links.values().stream().mapToDouble(Link::latencySeconds).sorted().toArray());
      double rate =
          median(links.values().stream().mapToDouble(Link::bytesPerSecond).sorted().toArray());
      profile.putAll(NodeProfile.figures(latency, rate));
      unpublished = true;
      log.info(
          "a hidden state takes {} us one way to another node, and {} MB pass in a second",
          Math.round(latency * 1e6),
          Math.round(rate / 1e6));
    }
  }

  private Link measure(ManagedChannel channel) {
    double small = echo(channel, HIDDEN_BYTES);
    double large = echo(channel, LARGE_BYTES);
    // The answer to the large message is small, as is half of the other's traffic.
    double seconds = Math.max(1e-6, large - small / 2);
    return new Link(small / 2, LARGE_BYTES / seconds);
  }

  /** Median seconds there and back, once it gets no faster: at first it is code that takes time. */
  private double echo(ManagedChannel channel, int bytes) {
    Echoed message = Echoed.newBuilder().setContent(ByteString.copyFrom(new byte[bytes])).build();
    return LayerProbe.steady(() -> echoes(channel, message));
  }

  /** As many as a round's time lets through, within bounds. */
  private double echoes(ManagedChannel channel, Echoed message) {
    List<Double> seconds = new ArrayList<>();
    long endNs = nanoTime.getAsLong() + ROUND_NS;
    while (seconds.size() < ECHOES_MIN
        || (seconds.size() < ECHOES_MAX && nanoTime.getAsLong() < endNs)) {
      long startNs = nanoTime.getAsLong();
      Echoed _ =
          LinksGrpc.newBlockingStub(channel)
              .withDeadlineAfter(ECHO_S, TimeUnit.SECONDS)
              .echo(message);
      seconds.add((nanoTime.getAsLong() - startNs) / 1e9);
    }
    return median(seconds.stream().mapToDouble(Double::doubleValue).sorted().toArray());
  }

  private static double median(double[] sorted) {
    return sorted[sorted.length / 2];
  }

  private static double systemLoad() {
    return ManagementFactory.getOperatingSystemMXBean()
            instanceof com.sun.management.OperatingSystemMXBean system
        ? system.getCpuLoad()
        : 0;
  }

  /** Of this thread, and of those that it starts; where that cannot be, nothing happens. */
  @SuppressWarnings("restricted") // the launcher grants native access
  private static void lowerPriority() {
    if (!"Linux".equals(System.getProperty("os.name"))) {
      return; // elsewhere the call would be for the whole process
    }
    try {
      Linker linker = Linker.nativeLinker();
      int _ =
          (int)
              linker
                  .downcallHandle(
                      linker.defaultLookup().findOrThrow("setpriority"),
                      FunctionDescriptor.of(
                          ValueLayout.JAVA_INT,
                          ValueLayout.JAVA_INT,
                          ValueLayout.JAVA_INT,
                          ValueLayout.JAVA_INT))
                  .invokeExact(0, 0, NICE);
    } catch (Throwable e) {
      log.debug("the profiler runs at the usual priority: {}", e.toString());
    }
  }

  /** Ends the measurement. */
  @Override
  public void close() {
    closed = true;
    Thread running = thread;
    if (running != null) {
      running.interrupt();
      Closing.join(running);
    }
  }
}

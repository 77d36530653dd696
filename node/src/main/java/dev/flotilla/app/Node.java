package dev.flotilla.app;

import dev.flotilla.FlotillaException;
import dev.flotilla.cluster.ClusterConfig;
import dev.flotilla.cluster.ClusterNode;
import dev.flotilla.cluster.DiskSpace;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.cluster.Registry;
import dev.flotilla.data.DataPlane;
import dev.flotilla.data.grid.Environment;
import dev.flotilla.gateway.ApiKeys;
import dev.flotilla.gateway.Gateway;
import dev.flotilla.gateway.GatewayConfig;
import dev.flotilla.gateway.GatewayServices;
import dev.flotilla.gateway.Invites;
import dev.flotilla.gateway.Restarts;
import dev.flotilla.gateway.StoredResponses;
import dev.flotilla.serve.NodeProfile;
import dev.flotilla.serve.Profiler;
import dev.flotilla.serve.Serving;
import dev.flotilla.train.TrainingService;
import io.micrometer.core.instrument.Gauge;
import io.micrometer.core.instrument.binder.jvm.JvmGcMetrics;
import io.micrometer.core.instrument.binder.jvm.JvmMemoryMetrics;
import io.micrometer.core.instrument.binder.system.ProcessorMetrics;
import io.micrometer.prometheusmetrics.PrometheusConfig;
import io.micrometer.prometheusmetrics.PrometheusMeterRegistry;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.SecureRandom;
import java.time.Duration;
import java.time.InstantSource;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.atomic.AtomicBoolean;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** One node: every package wired together. Started once, drained and closed once. */
final class Node {

  /** Where another node is joined, and with what. */
  record Join(String address, String token) {}

  /**
   * @param bind the address its ports listen on, and under which other nodes reach it
   * @param insecureHttp accept an HTTP API without TLS beyond loopback
   */
  record Options(
      Path data,
      String name,
      String bind,
      int port,
      boolean insecureHttp,
      Optional<Join> join,
      ModelSources sources) {}

  private static final Logger log = LoggerFactory.getLogger(Node.class);
  private static final long DOWNLOAD_PAUSE_MS = 500;
  private static final Duration DRAIN_PATIENCE = Duration.ofSeconds(30);

  /** As long of that, replicas stay for the sake of the requests that this node answers. */
  private static final Duration OWN_PATIENCE = Duration.ofSeconds(8);

  private final Options options;
  private final SecureRandom random = new SecureRandom();
  private final PrometheusMeterRegistry metrics =
      new PrometheusMeterRegistry(PrometheusConfig.DEFAULT);
  private final JvmGcMetrics garbage = new JvmGcMetrics();
  private final ClusterNode cluster;
  private final DataPlane data;
  private final LogFeed logFeed;
  private final Serving serving;
  private final Profiler profiler;
  private final TrainingService training;
  private final Imports imports;
  private final Gateway gateway;
  private final CompletableFuture<Optional<Restarts.Build>> end = new CompletableFuture<>();
  private volatile boolean restartable;
  private final AtomicBoolean stopped = new AtomicBoolean();
  private volatile GatewayServices.Health health =
      new GatewayServices.Health("starting", "this node is starting");

  /** Opens the data folder and joins if it must; the ports open at {@link #start}. */
  Node(Options options) {
    this.options = options;
    new JvmMemoryMetrics().bindTo(metrics);
    new ProcessorMetrics().bindTo(metrics);
    garbage.bindTo(metrics);
    Map<String, Double> profile = NodeProfile.measure(options.data(), Version.CURRENT);
    ClusterConfig config =
        new ClusterConfig(
            options.data(),
            options.name(),
            options.bind(),
            options.bind(),
            options.port(),
            Version.CURRENT,
            InstantSource.system(),
            profile);
    cluster =
        options
            .join()
            .map(join -> ClusterNode.join(config, join.address(), join.token()))
            .orElseGet(() -> ClusterNode.create(config));
    data =
        new DataPlane(
            new Environment(
                cluster,
                options.data(),
                options.bind(),
                options.port(),
                metrics,
                InstantSource.system(),
                System::nanoTime,
                random));
    logFeed = LogFeed.to(data);
    Gauge.builder("flotilla.disk.free.bytes", cluster.disk(), DiskSpace::freeBytes)
        .description("Free on the disk of the data folder")
        .register(metrics);
    Gauge.builder("flotilla.disk.reserve.bytes", cluster.disk(), DiskSpace::reserveBytes)
        .description("Below this much free, new data is refused")
        .register(metrics);
    int threads = Runtime.getRuntime().availableProcessors();
    serving =
        new Serving(
            cluster, options.data(), threads, metrics, InstantSource.system(), System::nanoTime);
    profiler =
        new Profiler(
            cluster,
            options.data(),
            Version.CURRENT,
            profile,
            threads,
            serving::work,
            () -> !serving.deployments().list().isEmpty(),
            System::nanoTime);
    training =
        new TrainingService(
            cluster,
            options.data(),
            new InetSocketAddress(options.bind(), options.port() + 4),
            this::addTrained,
            InstantSource.system(),
            0);
    Download download = new Download(options.sources().origins(), DOWNLOAD_PAUSE_MS);
    imports =
        new Imports(
            options.data(),
            options.name(),
            serving.models(),
            cluster.disk(),
            download,
            new HuggingFaceHub(options.sources().hub(), options.sources().token(), download));
    gateway =
        new Gateway(
            new GatewayConfig(
                options.bind(),
                options.port(),
                options.insecureHttp(),
                GatewayConfig.Limits.DEFAULTS),
            new GatewayServices(
                cluster,
                data,
                serving.deployments(),
                serving.generator(),
                serving.answers(),
                StoredResponses.in(data.caches()),
                serving.embedder(),
                training,
                imports,
                this::invite,
                restarts(),
                this::health,
                metrics,
                InstantSource.system(),
                System::nanoTime,
                random));
  }

  /** Sends this node's log to an OpenTelemetry collector, too. */
  void exportLog(String endpoint) {
    data.exportLog(endpoint);
  }

  /** Its data plane; used once the node has started. */
  DataPlane data() {
    return data;
  }

  /** Opens the ports, and returns once this node serves. */
  void start() {
    imports.tidy(InstantSource.system());
    if (serving.models().hasFiles()) {
      profiler.warmUpAtOnce();
    }
    gateway.start();
    starting("waiting for a majority of the cluster's nodes to decide with");
    cluster.start();
    starting("waiting for a majority of the data grid's members, or to be let in again by them");
    data.start();
    starting("opening models and jobs");
    serving.start();
    training.start();
    profiler.start();
    Path key = options.data().resolve("admin.key");
    boolean founded = cluster.registry().get(new Registry.Key("key", "admin")).isEmpty();
    if (founded || Files.exists(key)) {
      var _ =
          ApiKeys.ensureAdminKey(key, cluster.registry(), random, InstantSource.system().millis());
    }
    health = GatewayServices.Health.OK;
    cluster.onRemoved(this::leave);
    log.info("node {} ({}) serves on port {}", cluster.self(), options.name(), options.port());
  }

  private void starting(String what) {
    health = new GatewayServices.Health("starting", "this node is starting: " + what);
  }

  /** What {@code /health} says; while the node starts, what it waits for. */
  GatewayServices.Health health() {
    GatewayServices.Health now = health;
    return cluster
        .disk()
        .ownRefusal()
        .filter(why -> now.equals(GatewayServices.Health.OK))
        .map(why -> new GatewayServices.Health("storage", why))
        .orElse(now);
  }

  /** Once it was removed nothing here may go on: the others count without this node. */
  private void leave() {
    health =
        new GatewayServices.Health("removed", "this node was removed from its cluster for good");
    stop();
    end.complete(Optional.empty());
  }

  /** From now on the process can be told to restart; see {@link #awaitEnd}. */
  void restartable() {
    restartable = true;
  }

  /**
   * Returns when this node has been removed from its cluster, and has stopped; or when it is to
   * stop, and the process to start again with the build that this returns.
   */
  Optional<Restarts.Build> awaitEnd() throws InterruptedException {
    try {
      return end.get();
    } catch (ExecutionException e) {
      throw new IllegalStateException(e);
    }
  }

  private Restarts restarts() {
    return new Restarts() {
      @Override
      public Build running() {
        return Builds.running()
            .filter(build -> restartable)
            .orElseThrow(
                () ->
                    new FlotillaException(
                        FlotillaException.Code.INVALID,
                        "this node is part of another program, or was not started by its launcher",
                        "Restart that program."));
      }

      @Override
      public Build look(Path home) {
        return Builds.look(home);
      }

      @Override
      public void restart(Build next) {
        log.info("restarts with version {} in {}", next.version(), next.home());
        end.complete(Optional.of(next));
      }
    };
  }

  /** Lets running requests end, then closes everything. */
  void stop() {
    if (!stopped.compareAndSet(false, true)) {
      return;
    }
    log.info("stopping");
    try {
      gateway.startDraining();
      long endNs = System.nanoTime() + DRAIN_PATIENCE.toNanos();
      // What soon ends is not disturbed.
      boolean _ = gateway.awaitIdle(OWN_PATIENCE);
      leaveReplicas(Duration.ofNanos(endNs - System.nanoTime()));
      if (!gateway.awaitIdle(Duration.ofNanos(endNs - System.nanoTime()))) {
        log.warn("requests still ran after {} s; they are cut", DRAIN_PATIENCE.toSeconds());
      }
      gateway.close();
      profiler.close();
      training.close();
      serving.close();
      logFeed.close();
      data.close();
      cluster.close();
      garbage.close();
    } catch (Exception e) {
      log.error("the node did not stop cleanly", e);
    }
    log.info("stopped");
  }

  private void leaveReplicas(Duration patience) throws InterruptedException {
    try {
      List<String> left =
          serves() && hasOthers()
              ? serving.deployments().drain(cluster.self(), patience)
              : List.of();
      if (!left.isEmpty()) {
        log.warn("no other node has room for {}", left);
      }
    } catch (FlotillaException e) {
      log.warn("what runs here could not be placed elsewhere: {}", e.explanation());
    }
  }

  private boolean serves() {
    return serving.deployments().list().stream()
        .flatMap(deployment -> deployment.replicas().stream())
        .flatMap(replica -> replica.stages().stream())
        .anyMatch(stage -> stage.node().equals(cluster.self()));
  }

  private boolean hasOthers() {
    return cluster.nodes().stream()
        .anyMatch(node -> node.state() == NodeInfo.State.UP && !node.id().equals(cluster.self()));
  }

  private void addTrained(String job, String model, Path folder) {
    imports.addLocal(model, folder, Optional.empty());
    try {
      Checkpoints.keep(data.blobs(), job, folder);
    } catch (FlotillaException e) {
      // The model itself is safe; the job need not fail for its training files.
      log.warn("job {}: its checkpoint is only on this node: {}", job, e.explanation());
    }
    log.info("job {}: its model is {}", job, model);
  }

  private Invites.Invite invite() {
    String token = cluster.invite();
    return new Invites.Invite(
        token, "flotilla up --join " + options.bind() + ":" + options.port() + " --token " + token);
  }
}

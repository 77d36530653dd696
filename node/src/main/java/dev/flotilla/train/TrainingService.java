package dev.flotilla.train;

import com.google.protobuf.UnsafeByteOperations;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.cluster.Registry;
import dev.flotilla.train.TrainingRecord.Member;
import dev.flotilla.train.TrainingRecord.State;
import dev.flotilla.train.proto.CurvePoint;
import dev.flotilla.train.proto.CurveReply;
import dev.flotilla.train.proto.CurveRequest;
import dev.flotilla.train.proto.TextChunk;
import dev.flotilla.train.proto.TextRequest;
import dev.flotilla.train.proto.TrainingGrpc;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.io.OutputStream;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.time.Duration;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HexFormat;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.function.UnaryOperator;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Training jobs on a cluster. A job is a {@link TrainingRecord} in the registry; the controller
 * assigns its ranks to nodes; each node follows its copy of the registry and runs its own worker.
 *
 * <p>When a worker or a node is lost, the world of workers ends as a whole (a collective cannot go
 * on without a rank), and the job starts again from its first step, under a new attempt, on the
 * nodes that are left: a few times, then it fails with the reason. Whatever an old attempt still
 * says is told apart by its number.
 */
public final class TrainingService implements TrainingJobs, AutoCloseable {

  private static final Logger LOG = LoggerFactory.getLogger(TrainingService.class);

  /** The tunnel's port, counted from the HTTP API's. */
  private static final int TUNNEL_PORT_OFFSET = 4;

  private static final int ATTEMPTS_MAX = 5;
  private static final int HELD_OUT_QUESTIONS = 240;
  private static final int REPORTS = 100;
  private static final int CURVE_POINTS_KEPT = 200;
  private static final int CHUNK_BYTES = 1 << 20;
  private static final int COMMIT_TRIES = 20;
  private static final long MEET_TIMEOUT_NS = Duration.ofSeconds(90).toNanos();
  private static final long CURVE_TIMEOUT_MS = 2_000;

  /** A worker that only lost its peers waits so long for the culprit's node to say why. */
  private static final long SECOND_HAND_DELAY_MS = 2_000;

  private final Cluster cluster;
  private final Path folder;
  private final GradientTunnel tunnel;
  private final CheckpointSink sink;
  private final InstantSource clock;
  private final int threads;
  private final Map<String, LocalWorker> workers = new ConcurrentHashMap<>();
  private final ExecutorService background = Executors.newVirtualThreadPerTaskExecutor();
  private final Object reconciling = new Object();
  private volatile boolean closed;
  private AutoCloseable subscription = () -> {};

  /**
   * Adds its service and reconciler to the cluster, and opens the tunnel's port; make it before the
   * cluster starts, and call {@link #start} after.
   *
   * @param dataFolder the node's; jobs live in {@code data/training} below
   * @param tunnelAddress where other nodes' gradients come in: port P+4
   * @param workerThreads of libtorch in each worker; 0 for the cores, shared among the workers of a
   *     job that run on this machine's address
   */
  public TrainingService(
      Cluster cluster,
      Path dataFolder,
      InetSocketAddress tunnelAddress,
      CheckpointSink sink,
      InstantSource clock,
      int workerThreads) {
    this.cluster = cluster;
    this.folder = dataFolder.resolve("data").resolve("training");
    this.sink = sink;
    this.clock = clock;
    this.threads = workerThreads;
    this.tunnel = new GradientTunnel(cluster.tls(), tunnelAddress);
    cluster.addService(new Grpc());
    cluster.addReconciler(this::assign);
  }

  /** Begins to follow the registry; call once the cluster has started. */
  public void start() {
    subscription = cluster.registry().subscribe(() -> background.execute(this::follow));
  }

  // What callers ask for.

  @Override
  public String submit(TrainingConfig config) {
    TrainingConfigFile.check(config);
    String id = "train-" + UUID.randomUUID().toString().substring(0, 8);
    Optional<TrainingRecord.Text> text = config.text().map(content -> keepText(id, content));
    TrainingRecord job =
        new TrainingRecord(
            id,
            clock.millis(),
            config.withText(Optional.empty()),
            text,
            State.QUEUED,
            "",
            0,
            List.of(),
            List.of(),
            Optional.empty());
    Optional<Long> epoch =
        cluster
            .registry()
            .commit(
                List.of(new Registry.Condition(TrainingRecord.key(id), 0)), List.of(write(job)));
    if (epoch.isEmpty()) {
      throw new FlotillaException(Code.CONFLICT, "job " + id + " exists", "Submit again.");
    }
    LOG.info("job {}: submitted", id);
    return id;
  }

  @Override
  public JobView get(String id) {
    TrainingRecord job =
        record(id)
            .or(
                () -> {
                  cluster.registry().sync(); // it may be newer than this node's copy
                  return record(id);
                })
            .orElseThrow(
                () ->
                    new FlotillaException(
                        Code.NOT_FOUND,
                        "no training job " + id,
                        "List the jobs to see their ids."));
    return view(job, curve(job));
  }

  @Override
  public List<JobView> list() {
    return records().stream()
        .sorted(Comparator.comparingLong(TrainingRecord::createdAtMs).reversed())
        .map(job -> view(job, curve(job)))
        .toList();
  }

  @Override
  public void cancel(String id) {
    get(id);
    change(
        id, job -> job.state().ended() ? job : job.with(State.CANCELLED, "cancelled on request"));
  }

  /** Held-out accuracy by kind of question of a job that succeeded; empty until then. */
  public Map<String, Double> accuracyByKind(String id) {
    return record(id)
        .flatMap(TrainingRecord::result)
        .map(TrainingRecord.Result::accuracyByKind)
        .orElse(Map.of());
  }

  private static JobView view(TrainingRecord job, List<LossPoint> curve) {
    return new JobView(
        job.id(),
        job.state().name().toLowerCase(java.util.Locale.ROOT),
        job.reason(),
        job.members().stream().map(Member::node).toList(),
        job.config().steps(),
        curve,
        job.result().map(TrainingRecord.Result::heldOutAccuracy).orElse(Double.NaN),
        job.config().model());
  }

  /** The recorded curve of a job that ended; that of a running one from the node of its rank 0. */
  private List<LossPoint> curve(TrainingRecord job) {
    if (job.state() != State.RUNNING) {
      return job.curve();
    }
    String node = job.members().getFirst().node();
    if (node.equals(cluster.self())) {
      LocalWorker worker = workers.get(job.id());
      return worker == null || worker.job.attempt() != job.attempt()
          ? List.of()
          : List.copyOf(worker.curve);
    }
    try {
      CurveReply reply =
          TrainingGrpc.newBlockingStub(cluster.channel(node))
              .withDeadlineAfter(CURVE_TIMEOUT_MS, TimeUnit.MILLISECONDS)
              .curve(CurveRequest.newBuilder().setJob(job.id()).setAttempt(job.attempt()).build());
      return reply.getPointsList().stream()
          .map(
              point ->
                  new LossPoint(
                      point.getStep(),
                      point.getLoss(),
                      point.getValidationLoss(),
                      point.getTokensPerSecond()))
          .toList();
    } catch (StatusRuntimeException | FlotillaException e) {
      LOG.debug("job {}: no curve from {}: {}", job.id(), node, e.toString());
      return List.of();
    }
  }

  // What the controller does, on the Raft leader.

  private void assign(Cluster.Leadership leadership) {
    List<NodeInfo> alive = leadership.aliveNodes();
    for (Registry.Entry entry : cluster.registry().list(TrainingRecord.KIND)) {
      TrainingRecord job = Json.read(entry.value(), TrainingRecord.class);
      TrainingRecord next = decide(job, alive);
      if (!next.equals(job)) {
        leadership.commit(
            List.of(new Registry.Condition(entry.key(), entry.epoch())), List.of(write(next)));
        LOG.info(
            "job {}: {}, attempt {} {}", job.id(), next.state(), next.attempt(), next.reason());
      }
    }
  }

  /** What a job should be, given the nodes that answer. */
  static TrainingRecord decide(TrainingRecord job, List<NodeInfo> alive) {
    if (job.state() == State.RUNNING) {
      for (Member member : job.members()) {
        boolean there =
            alive.stream()
                .anyMatch(
                    node ->
                        node.id().equals(member.node())
                            && node.incarnation() == member.incarnation());
        if (!there) {
          return again(job, "lost node " + member.node());
        }
      }
      return job;
    }
    if (job.state() != State.QUEUED) {
      return job;
    }
    List<NodeInfo> usable =
        alive.stream().filter(node -> node.state() != NodeInfo.State.DRAINING).toList();
    int wanted = job.config().workers();
    if (usable.isEmpty() || (job.attempt() == 0 && usable.size() < wanted)) {
      String waits =
          "waits for %d nodes, of which %d answer".formatted(Math.max(1, wanted), usable.size());
      return job.with(State.QUEUED, waits);
    }
    int size = wanted == 0 ? usable.size() : Math.min(wanted, usable.size());
    size = Math.min(size, job.config().batch());
    return job.running(
        usable.subList(0, size).stream()
            .map(node -> new Member(node.id(), node.incarnation()))
            .toList());
  }

  private static TrainingRecord again(TrainingRecord job, String reason) {
    return job.attempt() < ATTEMPTS_MAX
        ? job.with(State.QUEUED, reason)
        : job.with(State.FAILED, reason + "; gave up after " + job.attempt() + " attempts");
  }

  // What each node does.

  /** A worker of this node. */
  private static final class LocalWorker {
    final TrainingRecord job;
    final int rank;
    final List<LossPoint> curve = new java.util.concurrent.CopyOnWriteArrayList<>();
    private Optional<GradientTunnel.Session> session = Optional.empty();
    private Optional<WorkerProcess> process = Optional.empty();
    private boolean stopped;

    LocalWorker(TrainingRecord job, int rank) {
      this.job = job;
      this.rank = rank;
    }

    synchronized boolean attach(GradientTunnel.Session opened) {
      session = Optional.of(opened);
      if (stopped) {
        opened.close();
      }
      return !stopped;
    }

    synchronized void attach(WorkerProcess started) {
      process = Optional.of(started);
      if (stopped) {
        started.close();
      }
    }

    synchronized void stop() {
      stopped = true;
      process.ifPresent(WorkerProcess::close);
      session.ifPresent(GradientTunnel.Session::close);
    }
  }

  /**
   * Starts and stops workers so that they are those which this node's copy of the registry asks
   * for.
   */
  private void follow() {
    synchronized (reconciling) {
      if (closed) {
        return;
      }
      List<TrainingRecord> jobs = records();
      for (LocalWorker worker : List.copyOf(workers.values())) {
        boolean current =
            jobs.stream()
                .anyMatch(
                    job ->
                        job.id().equals(worker.job.id())
                            && job.state() == State.RUNNING
                            && job.attempt() == worker.job.attempt());
        if (!current) {
          worker.stop();
          workers.remove(worker.job.id());
          LOG.info("job {}: worker {} stopped", worker.job.id(), worker.rank);
        }
      }
      for (TrainingRecord job : jobs) {
        int rank = job.state() == State.RUNNING ? rankHere(job) : -1;
        if (rank >= 0 && !workers.containsKey(job.id())) {
          LocalWorker worker = new LocalWorker(job, rank);
          workers.put(job.id(), worker);
          background.execute(() -> launch(worker));
        }
      }
    }
  }

  private int rankHere(TrainingRecord job) {
    Optional<NodeInfo> self =
        cluster.nodes().stream().filter(node -> node.id().equals(cluster.self())).findFirst();
    return self.map(node -> job.members().indexOf(new Member(node.id(), node.incarnation())))
        .orElse(-1);
  }

  private void launch(LocalWorker worker) {
    TrainingRecord job = worker.job;
    try {
      Optional<String> textFile = job.text().map(text -> fetchText(job.id(), text).toString());
      GradientTunnel.Session session =
          tunnel.open(new GradientTunnel.World(job.id(), job.attempt()), worker.rank, tunnels(job));
      if (!worker.attach(session)) {
        return;
      }
      WorkerConfig config =
          new WorkerConfig(
              job.id(),
              job.attempt(),
              worker.rank,
              job.members().size(),
              threads(job),
              job.config(),
              textFile,
              folder.resolve(job.id()).toString(),
              Math.max(1, job.config().steps() / REPORTS),
              HELD_OUT_QUESTIONS);
      worker.attach(WorkerProcess.start(config, new Events(worker, session)));
      LOG.info(
          "job {}: worker {} of {} started, attempt {}",
          job.id(),
          worker.rank,
          job.members().size(),
          job.attempt());
    } catch (RuntimeException e) {
      ended(worker, failure(e));
    }
  }

  private static WorkerEvent.Failed failure(RuntimeException e) {
    if (e instanceof FlotillaException known) {
      return new WorkerEvent.Failed(known.code(), known.explanation(), false);
    }
    LOG.error("a bug of ours", e);
    return new WorkerEvent.Failed(Code.FAILED, e.toString(), false);
  }

  private final class Events implements WorkerProcess.Listener {
    private final LocalWorker worker;
    private final GradientTunnel.Session session;

    Events(LocalWorker worker, GradientTunnel.Session session) {
      this.worker = worker;
      this.session = session;
    }

    @Override
    public void event(WorkerProcess process, WorkerEvent event) {
      switch (event) {
        case WorkerEvent.Address address ->
            process.introduce(session.exchange(address.blob(), MEET_TIMEOUT_NS));
        case WorkerEvent.Progress point ->
            worker.curve.add(
                new LossPoint(
                    point.step(), point.loss(), point.validationLoss(), point.tokensPerSecond()));
        case WorkerEvent.Done done -> {
          if (worker.rank == 0) {
            background.execute(() -> finish(worker, done));
          }
        }
        case WorkerEvent.Failed failed -> {}
      }
    }

    @Override
    public void failed(WorkerProcess process, WorkerEvent.Failed failure) {
      background.execute(() -> ended(worker, failure));
    }
  }

  private void finish(LocalWorker worker, WorkerEvent.Done done) {
    TrainingRecord job = worker.job;
    Path checkpoint = folder.resolve(job.id()).resolve(WorkerConfig.MODEL_FOLDER);
    try {
      sink.accept(job.id(), job.config().model(), checkpoint);
    } catch (RuntimeException e) {
      ended(worker, failure(e));
      return;
    }
    var result =
        new TrainingRecord.Result(
            done.heldOutAccuracy(),
            done.accuracyByKind(),
            cluster.self(),
            checkpoint.toString(),
            done.cpuSeconds());
    change(job.id(), now -> isCurrent(now, job) ? now.succeeded(thin(worker.curve), result) : now);
    LOG.info("job {}: succeeded, held-out accuracy {}", job.id(), done.heldOutAccuracy());
  }

  /** Reports that a worker ended: the job starts again, unless trying again cannot help. */
  private void ended(LocalWorker worker, WorkerEvent.Failed failure) {
    TrainingRecord job = worker.job;
    LOG.warn("job {}: worker {} ended: {}", job.id(), worker.rank, failure.reason());
    if (failure.peerLost()) {
      try {
        Thread.sleep(SECOND_HAND_DELAY_MS);
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        return;
      }
    }
    boolean permanent =
        switch (failure.code()) {
          case INVALID, BAD_FILE, CONFLICT -> true;
          default -> false;
        };
    change(
        job.id(),
        now -> {
          if (!isCurrent(now, job)) {
            return now;
          }
          return permanent
              ? now.with(State.FAILED, failure.reason())
              : again(now, "rank " + worker.rank + ": " + failure.reason());
        });
  }

  private static boolean isCurrent(TrainingRecord now, TrainingRecord job) {
    return now.state() == State.RUNNING && now.attempt() == job.attempt();
  }

  private static List<LossPoint> thin(List<LossPoint> curve) {
    int every = (curve.size() + CURVE_POINTS_KEPT - 1) / CURVE_POINTS_KEPT;
    List<LossPoint> kept = new ArrayList<>();
    for (int i = 0; i < curve.size(); i++) {
      if (i % every == 0 || i == curve.size() - 1) {
        kept.add(curve.get(i));
      }
    }
    return kept;
  }

  private List<InetSocketAddress> tunnels(TrainingRecord job) {
    return job.members().stream()
        .map(member -> info(member.node()))
        .map(node -> new InetSocketAddress(node.host(), node.httpPort() + TUNNEL_PORT_OFFSET))
        .toList();
  }

  private int threads(TrainingRecord job) {
    if (threads > 0) {
      return threads;
    }
    String host = info(cluster.self()).host();
    long here =
        job.members().stream().filter(member -> info(member.node()).host().equals(host)).count();
    return (int) Math.max(1, Runtime.getRuntime().availableProcessors() / Math.max(1, here));
  }

  private NodeInfo info(String node) {
    return cluster.nodes().stream()
        .filter(candidate -> candidate.id().equals(node))
        .findFirst()
        .orElseThrow(
            () -> new FlotillaException(Code.UNAVAILABLE, "no node " + node, "It was removed."));
  }

  // The registry.

  private Optional<TrainingRecord> record(String id) {
    return cluster
        .registry()
        .get(TrainingRecord.key(id))
        .map(entry -> Json.read(entry.value(), TrainingRecord.class));
  }

  private List<TrainingRecord> records() {
    return cluster.registry().list(TrainingRecord.KIND).stream()
        .map(entry -> Json.read(entry.value(), TrainingRecord.class))
        .toList();
  }

  private static Registry.Write write(TrainingRecord job) {
    return new Registry.Write(TrainingRecord.key(job.id()), Optional.of(Json.write(job)));
  }

  /**
   * Changes a record on the version it read, again if that changed meanwhile or no majority was
   * there.
   */
  private void change(String id, UnaryOperator<TrainingRecord> change) {
    Registry registry = cluster.registry();
    for (int i = 0; i < COMMIT_TRIES && !closed; i++) {
      try {
        registry.sync();
        Optional<Registry.Entry> entry = registry.get(TrainingRecord.key(id));
        if (entry.isEmpty()) {
          return;
        }
        TrainingRecord now = Json.read(entry.get().value(), TrainingRecord.class);
        TrainingRecord next = change.apply(now);
        var condition = new Registry.Condition(entry.get().key(), entry.get().epoch());
        if (next.equals(now)
            || registry.commit(List.of(condition), List.of(write(next))).isPresent()) {
          return;
        }
      } catch (FlotillaException e) {
        if (e.code() != Code.NO_MAJORITY && e.code() != Code.OUTCOME_UNKNOWN) {
          throw e;
        }
        LOG.warn("job {}: cannot record a change yet: {}", id, e.explanation());
      }
    }
    throw new FlotillaException(
        Code.NO_MAJORITY, "job " + id + ": its change was not decided", "Try again later.");
  }

  // The text.

  private TrainingRecord.Text keepText(String id, String text) {
    byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
    TrainingText.decode(bytes, "the text");
    try {
      Path file = textFile(id);
      Files.createDirectories(file.getParent());
      Path temporary = file.resolveSibling(".text.part");
      Files.write(temporary, bytes);
      Files.move(temporary, file, StandardCopyOption.ATOMIC_MOVE);
    } catch (IOException e) {
      throw storage("keep the training text", e);
    }
    return new TrainingRecord.Text(cluster.self(), sha256(bytes), bytes.length);
  }

  private Path textFile(String id) {
    return folder.resolve(id).resolve("text.txt");
  }

  /**
   * The text's file here; fetched, if need be, from the node that it was submitted to or a fellow.
   */
  private Path fetchText(String id, TrainingRecord.Text text) {
    Path file = textFile(id);
    if (Files.exists(file)) {
      return file;
    }
    Set<String> sources = new LinkedHashSet<>(List.of(text.node()));
    cluster.nodes().forEach(node -> sources.add(node.id()));
    sources.remove(cluster.self());
    for (String source : sources) {
      try {
        Files.createDirectories(file.getParent());
        Path temporary = file.resolveSibling(".text.part");
        MessageDigest digest = digest();
        long total = 0;
        try (OutputStream out = Files.newOutputStream(temporary)) {
          var chunks =
              TrainingGrpc.newBlockingStub(cluster.channel(source))
                  .withDeadlineAfter(60, TimeUnit.SECONDS)
                  .text(TextRequest.newBuilder().setJob(id).build());
          while (chunks.hasNext() && total <= text.bytes()) {
            byte[] chunk = chunks.next().getBytes().toByteArray();
            digest.update(chunk);
            total += chunk.length;
            out.write(chunk);
          }
        }
        if (HexFormat.of().formatHex(digest.digest()).equals(text.sha256())) {
          Files.move(temporary, file, StandardCopyOption.ATOMIC_MOVE);
          return file;
        }
        LOG.warn("job {}: the text from {} is damaged", id, source);
      } catch (StatusRuntimeException | FlotillaException e) {
        LOG.info("job {}: no text from {}: {}", id, source, e.toString());
      } catch (IOException e) {
        throw storage("keep the training text", e);
      }
    }
    throw new FlotillaException(
        Code.UNAVAILABLE,
        "no node has the text of job " + id,
        "Start the node that it was submitted to, or submit it again.");
  }

  private static MessageDigest digest() {
    try {
      return MessageDigest.getInstance("SHA-256");
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException(e);
    }
  }

  private static String sha256(byte[] bytes) {
    return HexFormat.of().formatHex(digest().digest(bytes));
  }

  private static FlotillaException storage(String what, IOException e) {
    return new FlotillaException(
        Code.STORAGE, "cannot " + what + ": " + e.getMessage(), "Free some space on that disk.", e);
  }

  /** What other nodes ask this one. */
  private final class Grpc extends TrainingGrpc.TrainingImplBase {

    @Override
    public void curve(CurveRequest request, StreamObserver<CurveReply> out) {
      LocalWorker worker = workers.get(request.getJob());
      CurveReply.Builder reply = CurveReply.newBuilder();
      if (worker != null && worker.job.attempt() == request.getAttempt()) {
        for (LossPoint point : worker.curve) {
          reply.addPoints(
              CurvePoint.newBuilder()
                  .setStep(point.step())
                  .setLoss(point.loss())
                  .setValidationLoss(point.validationLoss())
                  .setTokensPerSecond(point.tokensPerSecond()));
        }
      }
      out.onNext(reply.build());
      out.onCompleted();
    }

    @Override
    public void text(TextRequest request, StreamObserver<TextChunk> out) {
      if (record(request.getJob()).isEmpty() || !Files.exists(textFile(request.getJob()))) {
        out.onError(
            Status.NOT_FOUND.withDescription("no text of that job here").asRuntimeException());
        return;
      }
      try {
        byte[] bytes = Files.readAllBytes(textFile(request.getJob()));
        for (int from = 0; from < bytes.length; from += CHUNK_BYTES) {
          int length = Math.min(CHUNK_BYTES, bytes.length - from);
          out.onNext(
              TextChunk.newBuilder()
                  .setBytes(UnsafeByteOperations.unsafeWrap(bytes, from, length))
                  .build());
        }
        out.onCompleted();
      } catch (IOException e) {
        out.onError(Status.INTERNAL.withDescription(e.toString()).asRuntimeException());
      }
    }
  }

  /** Stops this node's workers; their jobs go on elsewhere. */
  @Override
  public void close() {
    closed = true;
    try {
      subscription.close();
    } catch (Exception e) {
      LOG.warn("closing the subscription: {}", e.toString());
    }
    synchronized (reconciling) {
      workers.values().forEach(LocalWorker::stop);
      workers.clear();
    }
    tunnel.close();
    background.shutdownNow();
  }
}

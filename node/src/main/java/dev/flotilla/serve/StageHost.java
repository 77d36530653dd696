package dev.flotilla.serve;

import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.Signal;
import dev.flotilla.Threads;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.Registry;
import dev.flotilla.model.AllReduce;
import dev.flotilla.model.LayerSlice;
import dev.flotilla.model.Pooling;
import dev.flotilla.serve.Placement.Placed;
import dev.flotilla.serve.proto.Accepted;
import dev.flotilla.serve.proto.ChainMessage;
import dev.flotilla.serve.proto.ChainReply;
import dev.flotilla.serve.proto.Copied;
import dev.flotilla.serve.proto.CopiesGrpc;
import dev.flotilla.serve.proto.CopyBegin;
import dev.flotilla.serve.proto.CopyMessage;
import dev.flotilla.serve.proto.CopyReply;
import dev.flotilla.serve.proto.EmbedRequest;
import dev.flotilla.serve.proto.Embedded;
import dev.flotilla.serve.proto.Finished;
import dev.flotilla.serve.proto.GenerateEvent;
import dev.flotilla.serve.proto.GenerateRequest;
import dev.flotilla.serve.proto.GenerationGrpc;
import dev.flotilla.serve.proto.Open;
import dev.flotilla.serve.proto.StagesGrpc;
import dev.flotilla.serve.proto.Token;
import dev.flotilla.tensor.KvLayout;
import io.grpc.BindableService;
import io.grpc.Status;
import io.grpc.stub.ServerCallStreamObserver;
import io.grpc.stub.StreamObserver;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Function;
import java.util.function.LongSupplier;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Makes this node's stages what the registry's placements say: loads the slices that they give it,
 * closes others, and starts a head or a worker on each. A slice whose layers stay in a new
 * placement stays loaded, with an empty cache. Work of any other epoch than the one loaded is
 * refused.
 */
final class StageHost implements AutoCloseable {

  private static final Logger log = LoggerFactory.getLogger(StageHost.class);
  private static final long PASS_NS = TimeUnit.MILLISECONDS.toNanos(500);
  private static final long RETRY_NS = TimeUnit.SECONDS.toNanos(1);
  private static final long PROGRESS_NS = TimeUnit.SECONDS.toNanos(1);
  private static final long PROGRESS_PERCENT = 5;

  /** Where slices come from. */
  interface Slices {

    /**
     * Loads one stage's layers, or a rank's share of them; may take long, and fetch from other
     * nodes.
     */
    LayerSlice load(Placement placement, int stage, AllReduce allReduce, LoadProgress progress);

    /** Loads the whole of a placement's draft model. */
    LayerSlice draft(Placement placement);
  }

  /** What this node does for one replica. */
  private static final class Local {
    final Placed placed;
    final int index;
    @Nullable Stage stage;
    @Nullable LayerSlice draft;
    final Optional<RankSums> sums;
    volatile @Nullable Head head;
    volatile @Nullable Worker worker;
    volatile String failure = "";

    /** How far the loading is; empty before the first report. */
    volatile String progress = "";

    long retryAtNs;

    /** What the head knows of where its copies go; of the thread that tells it. */
    Optional<Copier.Target> copyTarget = Optional.empty();

    Local(Placed placed, int index, long nowNs) {
      this.placed = placed;
      this.index = index;
      this.retryAtNs = nowNs;
      this.sums =
          placed.placement().tensor().isEmpty()
              ? Optional.empty()
              : Optional.of(new RankSums(index, placed.placement().stages().size()));
    }

    Placement placement() {
      return placed.placement();
    }

    /** Whether its slice also serves the other. */
    boolean sameLayers(Placement other, int otherIndex) {
      return placement().digest().equals(other.digest())
          && placement().cachePositions() == other.cachePositions()
          && placement().engine().kv() == other.engine().kv()
          // Sums are between the ranks of one placement.
          && placement().tensor().isEmpty()
          && other.tensor().isEmpty()
          && placement().layers(index).equals(other.layers(otherIndex));
    }
  }

  private final Cluster cluster;
  private final Slices slices;
  private final Grammars grammars;
  private final ServingMetrics metrics;
  private final LongSupplier nanoTime;
  private final Map<String, Local> locals = new ConcurrentHashMap<>();
  private final Map<String, ReplicaStatus> statuses = new ConcurrentHashMap<>();
  private final AtomicLong calls = new AtomicLong();
  private final AtomicLong work = new AtomicLong();
  private final Signal changed;
  private final Signal statusChanged;
  private final Signal copiesChanged;
  private final List<Threads.Started> threads = new ArrayList<>();
  private volatile boolean closed;
  private @Nullable AutoCloseable subscription;

  StageHost(
      Cluster cluster,
      Slices slices,
      Grammars grammars,
      ServingMetrics metrics,
      LongSupplier nanoTime) {
    this.cluster = cluster;
    this.slices = slices;
    this.grammars = grammars;
    this.metrics = metrics;
    this.nanoTime = nanoTime;
    this.changed = new Signal(cluster.threads());
    this.statusChanged = new Signal(cluster.threads());
    this.copiesChanged = new Signal(cluster.threads());
  }

  /** Grows with every step and every loading of layers here. */
  long work() {
    return work.get();
  }

  List<BindableService> services() {
    return List.of(new StageService(), new GenerationService(), new CopyService());
  }

  void start() {
    subscription =
        cluster
            .registry()
            .subscribe(
                () -> {
                  changed.raise();
                  copiesChanged.raise();
                });
    threads.add(start("stage-loader", changed, this::reconcile));
    threads.add(start("replica-status", statusChanged, this::report));
    threads.add(start("copy-targets", copiesChanged, this::copies));
  }

  private Threads.Started start(String name, Signal signal, Runnable pass) {
    return cluster
        .threads()
        .start(
            name,
            () -> {
              while (!closed) {
                try {
                  boolean _ = signal.await(PASS_NS);
                  pass.run();
                } catch (InterruptedException e) {
                  return;
                } catch (RuntimeException e) {
                  log.warn("{} of node {}: {}; it tries again", name, cluster.self(), e.toString());
                }
              }
            });
  }

  /** One pass of the loader. */
  private void reconcile() {
    Map<String, Placed> wanted = new HashMap<>();
    for (Placed placed : Placement.all(cluster.registry())) {
      if (placed.placement().stageOn(cluster.self()).isPresent()) {
        wanted.put(placed.placement().replica(), placed);
      }
    }
    Map<String, Stage> kept = new HashMap<>();
    for (Local local : List.copyOf(locals.values())) {
      Placed now = wanted.get(local.placement().replica());
      if (now == null || now.epoch() != local.placed.epoch()) {
        stop(local, Optional.ofNullable(now)).ifPresent(s -> kept.put(replica(local), s));
      }
    }
    for (Placed placed : wanted.values()) {
      String replica = placed.placement().replica();
      int index = placed.placement().stageOn(cluster.self()).orElseThrow();
      Local local =
          locals.computeIfAbsent(replica, r -> new Local(placed, index, nanoTime.getAsLong()));
      if (local.stage == null && nanoTime.getAsLong() - local.retryAtNs >= 0 && !closed) {
        load(local, Optional.ofNullable(kept.remove(replica)));
      }
    }
  }

  private static String replica(Local local) {
    return local.placement().replica();
  }

  /** Stops a replica's work here; returns its stage if the new placement can go on with it. */
  private Optional<Stage> stop(Local local, Optional<Placed> next) {
    locals.remove(replica(local));
    Head head = local.head;
    Worker worker = local.worker;
    if (head != null) {
      head.close();
    }
    if (worker != null) {
      worker.close();
    }
    statuses.remove(replica(local));
    if (local.draft != null) {
      local.draft.close();
    }
    Stage stage = local.stage;
    if (stage == null) {
      return Optional.empty();
    }
    int self = next.flatMap(n -> n.placement().stageOn(cluster.self())).orElse(-1);
    if (next.isPresent() && self >= 0 && local.sameLayers(next.get().placement(), self)) {
      return Optional.of(stage);
    }
    stage.close();
    log.info(
        "node {} closed layers {} of replica {}",
        cluster.self(),
        local.placement().layers(local.index),
        replica(local));
    return Optional.empty();
  }

  private void load(Local local, Optional<Stage> kept) {
    Placement placement = local.placement();
    long epoch = local.placed.epoch();
    int index = local.index;
    if (index == 0) {
      status(placement.replica(), new ReplicaStatus(epoch, ReplicaStatus.LOADING, ""));
    }
    Stage stage;
    try {
      stage = kept.isPresent() ? kept.get() : newStage(local);
      try {
        if (index == 0 && !placement.engine().draft().isEmpty()) {
          local.draft = slices.draft(placement);
        }
      } catch (RuntimeException e) {
        stage.close();
        throw e;
      }
    } catch (FlotillaException e) {
      log.warn(
          "node {} cannot load layers {} of replica {}: {}",
          cluster.self(),
          placement.layers(index),
          placement.replica(),
          e.explanation());
      local.failure = e.explanation();
      local.retryAtNs = nanoTime.getAsLong() + RETRY_NS;
      if (index == 0) {
        status(placement.replica(), new ReplicaStatus(epoch, ReplicaStatus.FAILED, local.failure));
      }
      return;
    }
    local.failure = "";
    local.stage = stage;
    int stages = placement.stages().size();
    if (index == 0) {
      local.head =
          new Head(
              placement.replica(),
              stage,
              placement.pipeline(),
              placement.engine().wire(),
              drafter(local),
              listener -> onward(local, index + 1, listener),
              local.sums.map(
                  sums -> new Followers(sums, (rank, listener) -> onward(local, rank, listener))),
              new Copier.Form(
                  placement.digest(),
                  placement.engine().kvLabel(),
                  KvLayout.VERSION,
                  stage.slice().config().layers(),
                  stage.slice().blockBytesOfLayer()),
              cluster::channel,
              (state, reason) ->
                  status(placement.replica(), new ReplicaStatus(epoch, state, reason)),
              metrics,
              nanoTime,
              cluster.threads());
    } else {
      local.worker =
          new Worker(
              placement.replica() + "/" + index,
              stage,
              local.sums.isPresent() ? WireType.F32 : placement.engine().wire(),
              local.sums,
              listener -> onward(local, index + 1, listener),
              cluster.threads());
    }
    log.info(
        "node {} has layers {} of replica {} (epoch {}, stage {} of {}){}",
        cluster.self(),
        placement.layers(index),
        placement.replica(),
        epoch,
        index + 1,
        stages,
        kept.isPresent() ? ", kept from before" : "");
  }

  private Stage newStage(Local local) {
    work.incrementAndGet();
    AllReduce allReduce = local.sums.isPresent() ? local.sums.get() : AllReduce.ALONE;
    Stage stage =
        new Stage(
            slices.load(local.placement(), local.index, allReduce, new Progress(local)),
            work::incrementAndGet);
    work.incrementAndGet();
    return stage;
  }

  /** Says how far a loading is, now and then: what the head says of it goes to the registry. */
  private final class Progress implements LoadProgress {
    private final Local local;
    private long saidNs = nanoTime.getAsLong();
    private long saidPercent;

    Progress(Local local) {
      this.local = local;
    }

    @Override
    public void at(long bytes, long of) {
      long percent = of == 0 ? 100 : 100 * bytes / of;
      long nowNs = nanoTime.getAsLong();
      if (percent - saidPercent < PROGRESS_PERCENT || nowNs - saidNs < PROGRESS_NS) {
        return;
      }
      saidNs = nowNs;
      saidPercent = percent;
      String replica = replica(local);
      local.progress = String.format(Locale.ROOT, "%d%% of %.2f GB", percent, of / 1e9);
      String said = "node " + cluster.self() + " has " + local.progress + " of its layers";
      log.info("{} of replica {}", said, replica);
      if (local.index == 0) {
        status(replica, new ReplicaStatus(local.placed.epoch(), ReplicaStatus.LOADING, said));
      }
    }
  }

  private static Drafter drafter(Local local) {
    Drafter lookup = local.placement().engine().speculate() ? new PromptLookup() : Drafter.NONE;
    LayerSlice draft = local.draft;
    if (draft == null) {
      return lookup;
    }
    Drafter model = new DraftModel(draft);
    return lookup.equals(Drafter.NONE) ? model : lookup.or(model);
  }

  private Chain onward(Local local, int next, Chain.Listener listener) {
    return Chain.open(
        cluster.channel(local.placement().stages().get(next).node()),
        replica(local),
        local.placed.epoch(),
        next,
        listener);
  }

  private void status(String replica, ReplicaStatus status) {
    if (!status.equals(statuses.put(replica, status))) {
      statusChanged.raise();
    }
  }

  /** One pass of the reporter: brings the registry up to what the heads here say. */
  private void report() {
    Registry registry = cluster.registry();
    statuses.forEach(
        (replica, status) -> {
          if (!ReplicaStatus.of(registry, replica).equals(Optional.of(status))) {
            registry.commit(
                List.of(new Registry.Condition(Placement.key(replica), status.epoch())),
                List.of(
                    new Registry.Write(
                        ReplicaStatus.key(replica), Optional.of(Json.write(status)))));
          }
        });
  }

  /** Tells the heads here where copies of their requests' KV cache go. */
  private void copies() {
    for (Local local : locals.values()) {
      Head head = local.head;
      Optional<Copier.Target> target = copyTarget(local.placement());
      if (head != null && !target.equals(local.copyTarget)) {
        local.copyTarget = target;
        head.copyTo(target);
      }
    }
  }

  private Optional<Copier.Target> copyTarget(Placement source) {
    Registry registry = cluster.registry();
    return DeploymentService.wanted(registry, source.model())
        .filter(wanted -> wanted.kvReplicas() > 0)
        .flatMap(_ -> CopyTarget.of(source, ReplicaStatus.ready(registry, source.model())))
        .map(p -> new Copier.Target(p.placement().replica(), p.epoch(), p.placement().head()));
  }

  /** The work here of exactly that placement, or why there is none. */
  private Local current(String replica, long epoch) {
    Local local = locals.get(replica);
    if (local != null && local.placed.epoch() > epoch) {
      throw new FlotillaException(
          FlotillaException.Code.CONFLICT,
          "placement " + epoch + " of replica " + replica + " is no more",
          "Look for the new one.");
    }
    if (local == null
        || local.placed.epoch() < epoch
        || (local.head == null && local.worker == null)) {
      String failure = local != null && local.placed.epoch() == epoch ? local.failure : "";
      boolean failed = !failure.isEmpty();
      throw new FlotillaException(
          failed ? FlotillaException.Code.FAILED : FlotillaException.Code.UNAVAILABLE,
          "node "
              + cluster.self()
              + (failed
                  ? " cannot load its layers of replica " + replica + ": " + failure
                  : " is loading its layers of replica "
                      + replica
                      + (local == null || local.progress.isEmpty() ? "" : ": " + local.progress)),
          "");
    }
    return local;
  }

  @Override
  public void close() {
    closed = true;
    Closing.unsubscribe(subscription);
    changed.raise();
    statusChanged.raise();
    copiesChanged.raise();
    for (Threads.Started thread : threads) {
      Closing.join(thread);
    }
    for (Local local : List.copyOf(locals.values())) {
      stop(local, Optional.empty());
    }
  }

  private final class StageService extends StagesGrpc.StagesImplBase {

    @Override
    public StreamObserver<ChainMessage> chain(StreamObserver<ChainReply> responses) {
      ServerCallStreamObserver<ChainReply> call = (ServerCallStreamObserver<ChainReply>) responses;
      Incoming incoming = new Incoming(new Replies<>(call));
      call.setOnCancelHandler(incoming::end);
      return incoming;
    }
  }

  private final class Incoming implements StreamObserver<ChainMessage> {
    private final Replies<ChainReply> replies;
    private final Worker.Session session;
    private @Nullable Worker worker;

    Incoming(Replies<ChainReply> replies) {
      this.replies = replies;
      this.session = new Worker.Session(replies);
    }

    @Override
    public void onNext(ChainMessage message) {
      if (message.hasOpen()) {
        open(message.getOpen());
      } else if (message.hasPartial()) {
        session.partial(Wire.floats(message.getPartial().getValues()));
      } else if (worker != null) {
        worker.step(session, message.getStep());
      }
    }

    private void open(Open open) {
      try {
        Worker found = current(open.getReplica(), open.getEpoch()).worker;
        if (found == null) {
          replies.fail(Status.INVALID_ARGUMENT.withDescription("the head has no chain to it"));
          return;
        }
        worker = found;
        found.open(session);
      } catch (FlotillaException e) {
        replies.fail(Wire.status(e).getStatus());
      }
    }

    void end() {
      if (worker != null) {
        worker.end(session);
      }
    }

    @Override
    public void onError(Throwable error) {
      end();
    }

    @Override
    public void onCompleted() {
      end();
      replies.complete();
    }
  }

  private final class CopyService extends CopiesGrpc.CopiesImplBase {

    @Override
    public StreamObserver<CopyMessage> copy(StreamObserver<CopyReply> responses) {
      ServerCallStreamObserver<CopyReply> call = (ServerCallStreamObserver<CopyReply>) responses;
      IncomingCopies incoming = new IncomingCopies(new Replies<>(call));
      call.setOnCancelHandler(incoming::end);
      return incoming;
    }
  }

  private final class IncomingCopies implements StreamObserver<CopyMessage> {
    private final Replies<CopyReply> replies;
    private final CopyReceiver receiver;
    private volatile @Nullable Head head;

    IncomingCopies(Replies<CopyReply> replies) {
      this.replies = replies;
      this.receiver = new CopyReceiver(replies);
    }

    @Override
    public void onNext(CopyMessage message) {
      Head begun = head;
      if (begun != null) {
        begun.receive(receiver, message);
      } else if (message.hasBegin()) {
        begin(message.getBegin());
      }
    }

    private void begin(CopyBegin begin) {
      try {
        Head found = current(begin.getReplica(), begin.getEpoch()).head;
        if (found == null) {
          replies.fail(Status.INVALID_ARGUMENT.withDescription("it is not the replica's head"));
          return;
        }
        head = found;
        found.receive(receiver, begin);
      } catch (FlotillaException e) {
        replies.fail(Wire.status(e).getStatus());
      }
    }

    void end() {
      Head begun = head;
      if (begun != null) {
        begun.ended(receiver);
      }
    }

    @Override
    public void onError(Throwable error) {
      end();
    }

    @Override
    public void onCompleted() {
      end();
      replies.complete();
    }
  }

  private final class GenerationService extends GenerationGrpc.GenerationImplBase {

    @Override
    public void generate(GenerateRequest request, StreamObserver<GenerateEvent> responses) {
      int[] tokens = Wire.ints(request.getTokensList());
      int[] endTokens = Wire.ints(request.getEndTokensList());
      submit(
          request.getReplica(),
          request.getEpoch(),
          placement ->
              new Scheduler.Submission(
                  request.getId(),
                  tokens,
                  request.getPrompt(),
                  Wire.claim(request.getTenant(), request.getPriority()),
                  new Scheduler.Continue(
                      new SamplingParameters(
                          request.getTemperature(),
                          request.getTopP(),
                          request.getTopK(),
                          request.getSeed()),
                      request.getMaxTokens(),
                      endTokens,
                      Wire.grammar(request.getGrammar())
                          .map(
                              grammar ->
                                  grammars.state(
                                      placement,
                                      grammar,
                                      endTokens,
                                      tokens,
                                      request.getPrompt())))),
          (ServerCallStreamObserver<GenerateEvent>) responses);
    }

    @Override
    public void embed(EmbedRequest request, StreamObserver<GenerateEvent> responses) {
      submit(
          request.getReplica(),
          request.getEpoch(),
          _ ->
              new Scheduler.Submission(
                  request.getId(),
                  Wire.ints(request.getTokensList()),
                  request.getTokensCount(),
                  Wire.claim(request.getTenant(), request.getPriority()),
                  new Scheduler.Embed(Pooling.valueOf(request.getPooling()))),
          (ServerCallStreamObserver<GenerateEvent>) responses);
    }

    private void submit(
        String replica,
        long epoch,
        Function<Placement, Scheduler.Submission> request,
        ServerCallStreamObserver<GenerateEvent> call) {
      Outgoing outgoing = new Outgoing(new Replies<>(call));
      Local local;
      Head head;
      try {
        local = current(replica, epoch);
        head = local.head;
        if (head == null) {
          throw new FlotillaException(
              FlotillaException.Code.CONFLICT,
              "node " + cluster.self() + " is not the head of " + replica,
              "");
        }
        head.checkOpen();
      } catch (FlotillaException e) {
        // Whatever is wrong here, the request may well go on elsewhere.
        outgoing.failed(
            new FlotillaException(FlotillaException.Code.UNAVAILABLE, e.explanation(), ""));
        return;
      }
      Scheduler.Submission submission;
      try {
        submission = request.apply(local.placement());
      } catch (FlotillaException e) {
        outgoing.failed(e);
        return;
      } catch (RuntimeException e) {
        log.error("a request to replica {} could not be read", replica, e);
        outgoing.failed(
            new FlotillaException(
                FlotillaException.Code.FAILED, "the request could not be read: " + e, "", e));
        return;
      }
      // A request may come back before its cancelled predecessor is gone: the call names it here.
      String id = submission.id() + "#" + calls.incrementAndGet();
      Head chosen = head;
      call.setOnCancelHandler(() -> chosen.cancel(id));
      head.submit(
          new Scheduler.Submission(
              id, submission.tokens(), submission.prompt(), submission.claim(), submission.goal()),
          outgoing);
    }
  }

  private record Outgoing(Replies<GenerateEvent> replies) implements Scheduler.Listener {

    @Override
    public void accepted() {
      replies.send(GenerateEvent.newBuilder().setAccepted(Accepted.getDefaultInstance()).build());
    }

    @Override
    public void token(int position, int token) {
      replies.send(
          GenerateEvent.newBuilder()
              .setToken(Token.newBuilder().setPosition(position).setToken(token))
              .build());
    }

    @Override
    public void copied(String replica) {
      replies.send(
          GenerateEvent.newBuilder().setCopied(Copied.newBuilder().setReplica(replica)).build());
    }

    @Override
    public void finished(Generator.FinishReason reason) {
      replies.send(
          GenerateEvent.newBuilder()
              .setFinished(Finished.newBuilder().setReason(reason.name()))
              .build());
      replies.complete();
    }

    @Override
    public void embedded(float[] vector) {
      replies.send(
          GenerateEvent.newBuilder()
              .setEmbedded(Embedded.newBuilder().setVector(Wire.bytes(vector)))
              .build());
      replies.complete();
    }

    @Override
    public void failed(FlotillaException error) {
      replies.send(GenerateEvent.newBuilder().setFailed(Wire.failed(error)).build());
      replies.complete();
    }
  }
}

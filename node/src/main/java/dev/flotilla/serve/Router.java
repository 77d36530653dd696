package dev.flotilla.serve;

import com.google.protobuf.Message;
import dev.flotilla.Agenda;
import dev.flotilla.FlotillaException;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.Registry;
import dev.flotilla.serve.Placement.Placed;
import dev.flotilla.serve.proto.EmbedRequest;
import dev.flotilla.serve.proto.GenerateEvent;
import dev.flotilla.serve.proto.GenerateRequest;
import dev.flotilla.serve.proto.GenerationGrpc;
import dev.flotilla.serve.proto.Token;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientResponseObserver;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentSkipListMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Consumer;
import java.util.function.LongSupplier;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Sends requests to replicas, and keeps them going. A running request is its tokens so far; an
 * attempt is a call to the head of one placement of a replica. When an attempt breaks, or its
 * placement is no more, the tokens so far go to a replica that is ready. Words of an attempt that
 * was given up count no more, and every token carries its position, so none is lost or doubled. A
 * text to embed is such a request too; nothing of it is left when an attempt breaks.
 */
final class Router implements Generator, Embedder, AutoCloseable {

  private static final Logger log = LoggerFactory.getLogger(Router.class);
  private static final long START_WAIT_NS = TimeUnit.SECONDS.toNanos(5);
  private static final long RESUME_WAIT_NS = TimeUnit.SECONDS.toNanos(60);
  private static final long RETRY_NS = TimeUnit.MILLISECONDS.toNanos(20);

  private record Target(String replica, long epoch, String head) {}

  private final Cluster cluster;
  private final ServingMetrics metrics;
  private final LongSupplier nanoTime;
  private final Agenda agenda;

  /** In the order in which they came. */
  private final Map<Long, Running> running = new ConcurrentSkipListMap<>();

  private final AtomicLong requests = new AtomicLong();
  private final Map<String, AtomicInteger> loads = new ConcurrentHashMap<>();
  private final AtomicLong turn = new AtomicLong();
  private @Nullable AutoCloseable subscription;

  Router(Cluster cluster, ServingMetrics metrics, LongSupplier nanoTime) {
    this.cluster = cluster;
    this.metrics = metrics;
    this.nanoTime = nanoTime;
    this.agenda = new Agenda("router", cluster.threads());
  }

  void start() {
    subscription = cluster.registry().subscribe(() -> agenda.add(this::placementsChanged));
  }

  private void placementsChanged() {
    running.values().forEach(Running::placementsChanged);
  }

  @Override
  public Generation resume(GenerationRequest request, int[] generated, Generator.Sink sink) {
    ModelRecord model = deployed(request.model());
    check(request, model);
    Generating generation = new Generating(request, generated, sink, model.maxLength());
    begin(generation, request.prompt().length);
    try {
      if (!cluster.threads().await(generation.accepted, RESUME_WAIT_NS)) {
        generation.cancel();
        throw new FlotillaException(
            FlotillaException.Code.UNAVAILABLE,
            "the replica of " + request.model() + " does not answer",
            "Try again later.");
      }
      boolean _ = generation.accepted.get();
    } catch (InterruptedException e) {
      generation.cancel();
      Thread.currentThread().interrupt();
      throw new FlotillaException(
          FlotillaException.Code.UNAVAILABLE, "the wait for a replica was interrupted", "");
    } catch (ExecutionException e) {
      if (e.getCause() instanceof FlotillaException refused) {
        throw refused;
      }
      throw new IllegalStateException(e.getCause());
    }
    return generation;
  }

  @Override
  public Runnable embed(EmbeddingRequest request, Embedder.Sink sink) {
    ModelRecord model = deployed(request.model());
    check(request.tokens(), model, model.maxLength());
    Embedding embedding = new Embedding(request, sink);
    begin(embedding, request.tokens().length);
    return embedding::cancel;
  }

  private void begin(Running request, int promptTokens) {
    running.put(request.number, request);
    metrics.prompt(promptTokens);
    request.attempt();
  }

  private ModelRecord deployed(String model) {
    ModelRecord record = ModelRecord.existing(cluster.registry(), model);
    if (cluster.registry().get(DeploymentService.key(model)).isEmpty()) {
      throw notDeployed(model);
    }
    return record;
  }

  private static FlotillaException notDeployed(String model) {
    return new FlotillaException(
        FlotillaException.Code.NOT_FOUND,
        "model " + model + " is not deployed",
        "Deploy it with `flotilla serve " + model + "`.");
  }

  private static void check(GenerationRequest request, ModelRecord model) {
    check(request.prompt(), model, model.maxLength() - 1);
    SamplingParameters sampling = request.sampling();
    if (request.maxTokens() < 1
        || !(sampling.temperature() >= 0 && sampling.temperature() < Float.POSITIVE_INFINITY)
        || !(sampling.topP() >= 0 && sampling.topP() <= 1)
        || sampling.topK() < 0) {
      throw new FlotillaException(
          FlotillaException.Code.INVALID,
          "max_tokens " + request.maxTokens() + ", " + sampling + " are out of range",
          "max_tokens is at least 1, temperature finite and not negative, top_p from 0 to 1, top_k"
              + " not negative.");
    }
  }

  private static void check(int[] tokens, ModelRecord model, int longest) {
    if (tokens.length == 0 || tokens.length > longest) {
      throw Scheduler.tooLong(tokens.length, model.maxLength(), longest);
    }
    for (int token : tokens) {
      if (token < 0 || token >= model.config().vocabularySize()) {
        throw new FlotillaException(
            FlotillaException.Code.INVALID,
            "token " + token + " is not one of the model's " + model.config().vocabularySize(),
            "Use the model's own tokenizer.");
      }
    }
  }

  /**
   * A replica that is ready, by the deployment's policy; those that just failed come last.
   *
   * @param copiedTo the one that is taken before all others; empty for none
   */
  private Optional<Target> choose(String model, Set<Target> avoided, String copiedTo) {
    Registry registry = cluster.registry();
    List<Target> ready = ready(model);
    List<Target> preferred = ready.stream().filter(t -> !avoided.contains(t)).toList();
    List<Target> choices = preferred.isEmpty() ? ready : preferred;
    if (choices.isEmpty()) {
      return Optional.empty();
    }
    Optional<Target> copy =
        choices.stream().filter(target -> target.replica().equals(copiedTo)).findFirst();
    if (copy.isPresent()) {
      return copy;
    }
    int start = (int) Math.floorMod(turn.getAndIncrement(), (long) choices.size());
    Target best = choices.get(start);
    if (!DeploymentService.ROUND_ROBIN.equals(routing(registry, model))) {
      for (int i = 1; i < choices.size(); i++) {
        Target other = choices.get((start + i) % choices.size());
        best = load(other).get() < load(best).get() ? other : best;
      }
    }
    return Optional.of(best);
  }

  private List<Target> ready(String model) {
    return ReplicaStatus.ready(cluster.registry(), model).stream()
        .map(p -> new Target(p.placement().replica(), p.epoch(), p.placement().head()))
        .toList();
  }

  private static String routing(Registry registry, String model) {
    return DeploymentService.wanted(registry, model)
        .map(Deployments.Wanted::routing)
        .orElse(DeploymentService.LEAST_LOAD);
  }

  private AtomicInteger load(Target target) {
    return loads.computeIfAbsent(target.replica(), r -> new AtomicInteger());
  }

  private boolean current(Target target) {
    Optional<Placed> placed = Placement.of(cluster.registry(), target.replica());
    return placed.isPresent() && placed.get().epoch() == target.epoch();
  }

  @Override
  public void close() {
    Closing.unsubscribe(subscription);
    for (Running request : running.values()) {
      request.fail(
          new FlotillaException(
              FlotillaException.Code.UNAVAILABLE, "this node stops", "Ask another node."));
    }
    agenda.close();
  }

  /** One request, from its start to its end, over all its attempts. */
  private abstract class Running {
    final long number = requests.incrementAndGet();
    final String id;
    final String model;
    final CompletableFuture<Boolean> accepted = new CompletableFuture<>();
    // Guarded by this:
    @Nullable Attempt attempt;
    boolean ended;
    boolean resuming;
    long progressNs = nanoTime.getAsLong();
    private final Set<Target> avoided = new HashSet<>();

    /** The replica that has a copy of what was computed of it. */
    private String copiedTo = "";

    Running(String id, String model) {
      this.id = id;
      this.model = model;
    }

    /** Ends it if an end was lost with the last attempt; whether it has ended. */
    abstract boolean complete();

    /** The call that makes an attempt. */
    abstract Consumer<GenerationGrpc.GenerationStub> call(Attempt attempt);

    /** What an attempt brings. */
    abstract void event(Attempt from, GenerateEvent event);

    /** It cannot go on. */
    abstract void tell(FlotillaException error);

    /** Makes an attempt, unless one runs. */
    void attempt() {
      Attempt next;
      Consumer<GenerationGrpc.GenerationStub> call;
      synchronized (this) {
        if (ended || attempt != null || complete()) {
          return;
        }
        if (cluster.registry().get(DeploymentService.key(model)).isEmpty()) {
          fail(notDeployed(model));
          return;
        }
        Optional<Target> target = choose(model, avoided, copiedTo);
        if (target.isEmpty()) {
          later("no replica of " + model + " is ready");
          return;
        }
        next = new Attempt(this, target.get());
        attempt = next;
        call = call(next);
      }
      load(next.target).incrementAndGet();
      next.begin(call);
    }

    private void later(String reason) {
      long waitNs = accepted.isDone() || resuming ? RESUME_WAIT_NS : START_WAIT_NS;
      if (nanoTime.getAsLong() - progressNs > waitNs) {
        fail(
            new FlotillaException(
                FlotillaException.Code.UNAVAILABLE,
                reason + ", after " + TimeUnit.NANOSECONDS.toSeconds(waitNs) + " s",
                "Try again later; `flotilla ps` shows what is missing."));
        return;
      }
      agenda.add(this::attempt, RETRY_NS);
    }

    void placementsChanged() {
      Attempt stale;
      synchronized (this) {
        stale = attempt;
        if (ended || (stale != null && current(stale.target))) {
          return;
        }
        if (stale != null) {
          giveUp("its placement is no more");
        }
      }
      if (stale != null) {
        stale.cancel();
      }
      attempt();
    }

    /** The attempt is over; what it still says counts no more. */
    void giveUp(String reason) {
      attempt = null;
      if (accepted.isDone() && !resuming) {
        resuming = true;
        metrics.resumed();
        log.info("request {} goes on elsewhere: {}", id, reason);
      }
    }

    void accepted(Attempt from) {
      synchronized (this) {
        if (attempt != from) {
          return;
        }
        avoided.clear();
      }
      accepted.complete(true);
    }

    synchronized void copied(Attempt from, String replica) {
      if (attempt == from) {
        copiedTo = replica;
      }
    }

    void failed(Attempt from, FlotillaException error) {
      synchronized (this) {
        if (attempt != from || ended) {
          return;
        }
        boolean busy = error.code() == FlotillaException.Code.BUSY;
        if (!busy && error.code() != FlotillaException.Code.UNAVAILABLE) {
          fail(error);
          return;
        }
        avoided.add(from.target);
        if (busy && !accepted.isDone() && avoided.containsAll(ready(model))) {
          fail(error);
          return;
        }
        giveUp(String.valueOf(error.getMessage()));
        later(String.valueOf(error.getMessage()));
      }
    }

    /** Ends it; whether it had not ended before. */
    synchronized boolean end() {
      boolean first = !ended;
      ended = true;
      running.remove(number);
      accepted.complete(true);
      return first;
    }

    synchronized void fail(FlotillaException error) {
      if (!ended) {
        ended = true;
        running.remove(number);
        tell(error);
      }
    }
  }

  /** A generation: its state is its tokens so far. */
  private final class Generating extends Running implements Generation {
    private final GenerationRequest request;
    private final Generator.Sink sink;
    private final int maxLength;
    // Guarded by this:
    private int[] tokens;
    private int length;

    Generating(GenerationRequest request, int[] generated, Generator.Sink sink, int maxLength) {
      super(request.id(), request.model());
      this.request = request;
      this.sink = sink;
      this.maxLength = maxLength;
      this.length = request.prompt().length + generated.length;
      this.tokens = Arrays.copyOf(request.prompt(), length);
      System.arraycopy(generated, 0, tokens, request.prompt().length, generated.length);
      if (generated.length > 0) {
        resuming = true;
        metrics.resumed();
      }
    }

    private int generated() {
      return length - request.prompt().length;
    }

    @Override
    boolean complete() {
      boolean complete = generated() >= request.maxTokens() || length >= maxLength;
      if (complete) {
        end(FinishReason.LENGTH);
      }
      return complete;
    }

    @Override
    Consumer<GenerationGrpc.GenerationStub> call(Attempt attempt) {
      GenerateRequest.Builder value =
          GenerateRequest.newBuilder()
              .setReplica(attempt.target.replica())
              .setEpoch(attempt.target.epoch())
              .setId(id)
              .setTemperature(request.sampling().temperature())
              .setTopP(request.sampling().topP())
              .setTopK(request.sampling().topK())
              .setSeed(request.sampling().seed())
              .setMaxTokens(request.maxTokens() - generated())
              .setPrompt(request.prompt().length)
              .setGrammar(request.grammar().orElse(""))
              .setTenant(request.claim().tenant())
              .setPriority(request.claim().priority().label());
      for (int i = 0; i < length; i++) {
        value.addTokens(tokens[i]);
      }
      for (int token : request.endTokens()) {
        value.addEndTokens(token);
      }
      GenerateRequest built = value.build();
      return stub -> stub.generate(built, attempt);
    }

    @Override
    void event(Attempt from, GenerateEvent event) {
      if (event.hasToken()) {
        token(from, event.getToken());
      } else if (event.hasFinished()) {
        finished(from, FinishReason.valueOf(event.getFinished().getReason()));
      }
    }

    private synchronized void token(Attempt from, Token token) {
      if (attempt != from || ended) {
        return;
      }
      if (token.getPosition() != length) {
        throw new IllegalStateException(
            "token of position " + token.getPosition() + " where " + length + " was due");
      }
      long nowNs = nanoTime.getAsLong();
      long elapsedNs = nowNs - progressNs;
      boolean resumed = resuming;
      if (resuming) {
        resuming = false;
        metrics.pause(elapsedNs);
      }
      if (generated() == 0) {
        metrics.firstToken(elapsedNs);
      } else {
        metrics.nextToken(elapsedNs);
      }
      progressNs = nowNs;
      if (length == tokens.length) {
        tokens = Arrays.copyOf(tokens, length + length / 2 + 8);
      }
      tokens[length++] = token.getToken();
      try {
        if (resumed && Boolean.getBoolean(ServingCore.DOUBLE_A_TOKEN)) {
          log.error("PLANTED FAULT ({})", ServingCore.DOUBLE_A_TOKEN);
          sink.token(token.getToken());
        }
        sink.token(token.getToken());
      } catch (RuntimeException e) {
        log.error("request {}: its receiver failed, so it is cancelled", id, e);
        end(FinishReason.CANCELLED);
        from.cancel();
      }
    }

    private synchronized void finished(Attempt from, FinishReason reason) {
      if (attempt == from) {
        end(reason);
      }
    }

    private synchronized void end(FinishReason reason) {
      if (end()) {
        sink.finished(reason);
      }
    }

    @Override
    void tell(FlotillaException error) {
      // Before it was accepted, start() throws it.
      if (!accepted.completeExceptionally(error)) {
        sink.failed(error);
      }
    }

    @Override
    public void cancel() {
      Attempt last;
      synchronized (this) {
        last = attempt;
        end(FinishReason.CANCELLED);
      }
      if (last != null) {
        last.cancel();
      }
    }
  }

  /** A text to embed: each attempt begins it anew. */
  private final class Embedding extends Running {
    private final EmbeddingRequest request;
    private final Embedder.Sink sink;

    Embedding(EmbeddingRequest request, Embedder.Sink sink) {
      super(request.id(), request.model());
      this.request = request;
      this.sink = sink;
    }

    @Override
    boolean complete() {
      return false;
    }

    @Override
    Consumer<GenerationGrpc.GenerationStub> call(Attempt attempt) {
      EmbedRequest.Builder value =
          EmbedRequest.newBuilder()
              .setReplica(attempt.target.replica())
              .setEpoch(attempt.target.epoch())
              .setId(id)
              .setPooling(request.pooling().name())
              .setTenant(request.claim().tenant())
              .setPriority(request.claim().priority().label());
      for (int token : request.tokens()) {
        value.addTokens(token);
      }
      EmbedRequest built = value.build();
      return stub -> stub.embed(built, attempt);
    }

    @Override
    void event(Attempt from, GenerateEvent event) {
      synchronized (this) {
        if (!event.hasEmbedded() || attempt != from || !end()) {
          return;
        }
      }
      metrics.embedded();
      sink.embedded(Wire.floats(event.getEmbedded().getVector()));
    }

    @Override
    synchronized void giveUp(String reason) {
      if (!resuming) {
        // Nothing is heard of a long text while it is computed: patience counts from its loss.
        progressNs = accepted.isDone() ? nanoTime.getAsLong() : progressNs;
      }
      super.giveUp(reason);
    }

    @Override
    void accepted(Attempt from) {
      super.accepted(from);
      synchronized (this) {
        resuming &= attempt != from;
      }
    }

    @Override
    void tell(FlotillaException error) {
      sink.failed(error);
    }

    void cancel() {
      Attempt last;
      synchronized (this) {
        last = attempt;
        end();
      }
      if (last != null) {
        last.cancel();
      }
    }
  }

  /** One call to one head. */
  private final class Attempt implements ClientResponseObserver<Message, GenerateEvent> {
    private final Running owner;
    private final Target target;
    private final AtomicInteger counted = new AtomicInteger(1);
    private volatile @Nullable ClientCallStreamObserver<Message> call;
    private volatile boolean cancelled;

    Attempt(Running owner, Target target) {
      this.owner = owner;
      this.target = target;
    }

    void begin(Consumer<GenerationGrpc.GenerationStub> invocation) {
      try {
        ManagedChannel channel = cluster.channel(target.head());
        invocation.accept(GenerationGrpc.newStub(channel));
      } catch (FlotillaException e) {
        over();
        owner.failed(
            this,
            new FlotillaException(FlotillaException.Code.UNAVAILABLE, e.explanation(), "", e));
      }
    }

    void cancel() {
      cancelled = true;
      ClientCallStreamObserver<Message> started = call;
      if (started != null) {
        started.cancel("the request does not want it any more", null);
      }
    }

    private void over() {
      if (counted.getAndSet(0) == 1) {
        load(target).decrementAndGet();
      }
    }

    @Override
    public void beforeStart(ClientCallStreamObserver<Message> started) {
      call = started;
    }

    @Override
    public void onNext(GenerateEvent event) {
      if (cancelled) {
        cancel(); // it was, before the call had started
        return;
      }
      switch (event.getKindCase()) {
        case ACCEPTED -> owner.accepted(this);
        case TOKEN, FINISHED, EMBEDDED -> owner.event(this, event);
        case COPIED -> owner.copied(this, event.getCopied().getReplica());
        case FAILED -> owner.failed(this, Wire.error(event.getFailed()));
        case KIND_NOT_SET -> {} // a newer version's
      }
    }

    @Override
    public void onError(Throwable error) {
      over();
      Status status = Status.fromThrowable(error);
      String reason = String.valueOf(status.getDescription());
      owner.failed(
          this,
          new FlotillaException(
              FlotillaException.Code.UNAVAILABLE,
              "the stream from node "
                  + target.head()
                  + " broke: "
                  + status.getCode()
                  + ", "
                  + reason,
              "",
              error));
    }

    @Override
    public void onCompleted() {
      over();
      owner.failed(
          this,
          new FlotillaException(
              FlotillaException.Code.UNAVAILABLE,
              "the stream from node " + target.head() + " ended early",
              ""));
    }
  }
}

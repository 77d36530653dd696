package dev.flotilla.serve;

import dev.flotilla.FlotillaException;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.Registry;
import dev.flotilla.serve.Placement.Placed;
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
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.LongSupplier;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Sends requests to replicas, and keeps them going. A running request is its tokens so far; an
 * attempt is a call to the head of one placement of a replica. When an attempt breaks, or its
 * placement is no more, the tokens so far go to a replica that is ready. Words of an attempt that
 * was given up count no more, and every token carries its position, so none is lost or doubled.
 */
final class Router implements Generator, AutoCloseable {

  private static final Logger log = LoggerFactory.getLogger(Router.class);
  private static final long START_WAIT_NS = TimeUnit.SECONDS.toNanos(5);
  private static final long RESUME_WAIT_NS = TimeUnit.SECONDS.toNanos(60);
  private static final long RETRY_MS = 20;

  private record Target(String replica, long epoch, String head) {}

  private final Cluster cluster;
  private final ServingMetrics metrics;
  private final LongSupplier nanoTime;
  private final ScheduledExecutorService timer =
      Executors.newSingleThreadScheduledExecutor(
          Thread.ofPlatform().name("router").daemon().factory());
  private final Set<Running> running = ConcurrentHashMap.newKeySet();
  private final Map<String, AtomicInteger> loads = new ConcurrentHashMap<>();
  private final AtomicLong turn = new AtomicLong();
  private @Nullable AutoCloseable subscription;

  Router(Cluster cluster, ServingMetrics metrics, LongSupplier nanoTime) {
    this.cluster = cluster;
    this.metrics = metrics;
    this.nanoTime = nanoTime;
  }

  void start() {
    subscription = cluster.registry().subscribe(() -> timer.execute(this::placementsChanged));
  }

  private void placementsChanged() {
    running.forEach(Running::placementsChanged);
  }

  @Override
  public Generation start(GenerationRequest request, Sink sink) {
    Registry registry = cluster.registry();
    ModelRecord model = ModelRecord.existing(registry, request.model());
    if (registry.get(DeploymentService.key(request.model())).isEmpty()) {
      throw notDeployed(request.model());
    }
    check(request, model);
    Running generation = new Running(request, sink, model.maxLength());
    running.add(generation);
    metrics.prompt(request.prompt().length);
    generation.attempt();
    try {
      generation.accepted.get(RESUME_WAIT_NS, TimeUnit.NANOSECONDS);
    } catch (TimeoutException e) {
      generation.cancel();
      throw new FlotillaException(
          FlotillaException.Code.UNAVAILABLE,
          "the replica of " + request.model() + " does not answer",
          "Try again later.",
          e);
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

  private static FlotillaException notDeployed(String model) {
    return new FlotillaException(
        FlotillaException.Code.NOT_FOUND,
        "model " + model + " is not deployed",
        "Deploy it with `flotilla serve " + model + "`.");
  }

  private static void check(GenerationRequest request, ModelRecord model) {
    int[] prompt = request.prompt();
    if (prompt.length == 0 || prompt.length >= model.maxLength()) {
      throw Scheduler.tooLong(prompt.length, model.maxLength());
    }
    for (int token : prompt) {
      if (token < 0 || token >= model.config().vocabularySize()) {
        throw new FlotillaException(
            FlotillaException.Code.INVALID,
            "token " + token + " is not one of the model's " + model.config().vocabularySize(),
            "Use the model's own tokenizer.");
      }
    }
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

  /** A replica that is ready, by the deployment's policy; those that just failed come last. */
  private Optional<Target> choose(String model, Set<Target> avoided) {
    Registry registry = cluster.registry();
    List<Target> ready =
        Placement.all(registry).stream()
            .filter(p -> p.placement().model().equals(model))
            .filter(p -> ReplicaStatus.ready(registry, p.placement().replica(), p.epoch()))
            .map(p -> new Target(p.placement().replica(), p.epoch(), p.placement().head()))
            .toList();
    List<Target> preferred = ready.stream().filter(t -> !avoided.contains(t)).toList();
    List<Target> choices = preferred.isEmpty() ? ready : preferred;
    if (choices.isEmpty()) {
      return Optional.empty();
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
    for (Running generation : running) {
      generation.fail(
          new FlotillaException(
              FlotillaException.Code.UNAVAILABLE, "this node stops", "Ask another node."));
    }
    timer.shutdownNow();
  }

  /** One request, from its start to its end, over all its attempts. */
  private final class Running implements Generation {
    final GenerationRequest request;
    final Sink sink;
    final int maxLength;
    final CompletableFuture<Boolean> accepted = new CompletableFuture<>();
    // Guarded by this:
    private int[] tokens;
    private int length;
    private @Nullable Attempt attempt;
    private boolean ended;
    private boolean resuming;
    private long progressNs = nanoTime.getAsLong();
    private final Set<Target> avoided = new HashSet<>();

    Running(GenerationRequest request, Sink sink, int maxLength) {
      this.request = request;
      this.sink = sink;
      this.maxLength = maxLength;
      this.tokens = request.prompt().clone();
      this.length = tokens.length;
    }

    private int generated() {
      return length - request.prompt().length;
    }

    /** Makes an attempt, unless one runs. */
    void attempt() {
      Attempt next;
      GenerateRequest value;
      synchronized (this) {
        if (ended || attempt != null) {
          return;
        }
        // The end itself may have been lost with the last attempt.
        if (generated() >= request.maxTokens() || length >= maxLength) {
          end(FinishReason.LENGTH);
          return;
        }
        if (cluster.registry().get(DeploymentService.key(request.model())).isEmpty()) {
          fail(notDeployed(request.model()));
          return;
        }
        Optional<Target> target = choose(request.model(), avoided);
        if (target.isEmpty()) {
          later("no replica of " + request.model() + " is ready");
          return;
        }
        next = new Attempt(this, target.get());
        attempt = next;
        value = value(target.get());
      }
      load(next.target).incrementAndGet();
      next.begin(value);
    }

    private void later(String reason) {
      long waitNs = accepted.isDone() ? RESUME_WAIT_NS : START_WAIT_NS;
      if (nanoTime.getAsLong() - progressNs > waitNs) {
        fail(
            new FlotillaException(
                FlotillaException.Code.UNAVAILABLE,
                reason + ", after " + TimeUnit.NANOSECONDS.toSeconds(waitNs) + " s",
                "Try again later; `flotilla ps` shows what is missing."));
        return;
      }
      timer.schedule(this::attempt, RETRY_MS, TimeUnit.MILLISECONDS);
    }

    private GenerateRequest value(Target target) {
      GenerateRequest.Builder value =
          GenerateRequest.newBuilder()
              .setReplica(target.replica())
              .setEpoch(target.epoch())
              .setId(request.id())
              .setTemperature(request.sampling().temperature())
              .setTopP(request.sampling().topP())
              .setTopK(request.sampling().topK())
              .setSeed(request.sampling().seed())
              .setMaxTokens(request.maxTokens() - generated());
      for (int i = 0; i < length; i++) {
        value.addTokens(tokens[i]);
      }
      for (int token : request.endTokens()) {
        value.addEndTokens(token);
      }
      return value.build();
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
    private void giveUp(String reason) {
      attempt = null;
      if (accepted.isDone() && !resuming) {
        resuming = true;
        metrics.resumed();
        log.info("request {} goes on elsewhere after {}: {}", request.id(), length, reason);
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

    synchronized void token(Attempt from, Token token) {
      if (attempt != from || ended) {
        return;
      }
      if (token.getPosition() != length) {
        throw new IllegalStateException(
            "token of position " + token.getPosition() + " where " + length + " was due");
      }
      long nowNs = nanoTime.getAsLong();
      long elapsedNs = nowNs - progressNs;
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
        sink.token(token.getToken());
      } catch (RuntimeException e) {
        log.error("request {}: its receiver failed, so it is cancelled", request.id(), e);
        end(FinishReason.CANCELLED);
        from.cancel();
      }
    }

    synchronized void finished(Attempt from, FinishReason reason) {
      if (attempt == from) {
        end(reason);
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
        if (busy && !accepted.isDone() && avoided.containsAll(all(request.model()))) {
          fail(error);
          return;
        }
        giveUp(String.valueOf(error.getMessage()));
        later(String.valueOf(error.getMessage()));
      }
    }

    private Set<Target> all(String model) {
      Set<Target> all = new HashSet<>();
      for (Placed p : Placement.all(cluster.registry())) {
        if (p.placement().model().equals(model)
            && ReplicaStatus.ready(cluster.registry(), p.placement().replica(), p.epoch())) {
          all.add(new Target(p.placement().replica(), p.epoch(), p.placement().head()));
        }
      }
      return all;
    }

    private synchronized void end(FinishReason reason) {
      if (!ended) {
        ended = true;
        running.remove(this);
        accepted.complete(true);
        sink.finished(reason);
      }
    }

    private synchronized void fail(FlotillaException error) {
      if (!ended) {
        ended = true;
        running.remove(this);
        // Before it was accepted, start() throws it.
        if (!accepted.completeExceptionally(error)) {
          sink.failed(error);
        }
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

  /** One call to one head. */
  private final class Attempt implements ClientResponseObserver<GenerateRequest, GenerateEvent> {
    private final Running owner;
    private final Target target;
    private final AtomicInteger counted = new AtomicInteger(1);
    private volatile @Nullable ClientCallStreamObserver<GenerateRequest> call;
    private volatile boolean cancelled;

    Attempt(Running owner, Target target) {
      this.owner = owner;
      this.target = target;
    }

    void begin(GenerateRequest value) {
      try {
        ManagedChannel channel = cluster.channel(target.head());
        GenerationGrpc.newStub(channel).generate(value, this);
      } catch (FlotillaException e) {
        over();
        owner.failed(
            this,
            new FlotillaException(FlotillaException.Code.UNAVAILABLE, e.explanation(), "", e));
      }
    }

    void cancel() {
      cancelled = true;
      ClientCallStreamObserver<GenerateRequest> started = call;
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
    public void beforeStart(ClientCallStreamObserver<GenerateRequest> started) {
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
        case TOKEN -> owner.token(this, event.getToken());
        case FINISHED ->
            owner.finished(this, FinishReason.valueOf(event.getFinished().getReason()));
        case FAILED -> owner.failed(this, Wire.error(event.getFailed()));
        case KIND_NOT_SET -> {} // a newer version's
      }
    }

    @Override
    public void onError(Throwable error) {
      over();
      owner.failed(
          this,
          new FlotillaException(
              FlotillaException.Code.UNAVAILABLE,
              "the stream from node " + target.head() + " broke: " + Status.fromThrowable(error),
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

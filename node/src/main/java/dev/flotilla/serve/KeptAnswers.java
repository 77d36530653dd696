package dev.flotilla.serve;

import dev.flotilla.FlotillaException;
import dev.flotilla.Signal;
import dev.flotilla.Threads;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.serve.Generator.FinishReason;
import dev.flotilla.serve.proto.AnswerUpdate;
import dev.flotilla.serve.proto.AnswersGrpc;
import dev.flotilla.serve.proto.KeepReply;
import dev.flotilla.serve.proto.KeepRequest;
import dev.flotilla.serve.proto.TakeReply;
import dev.flotilla.serve.proto.TakeRequest;
import io.grpc.BindableService;
import io.grpc.stub.StreamObserver;
import io.micrometer.core.instrument.Counter;
import io.micrometer.core.instrument.Gauge;
import io.micrometer.core.instrument.MeterRegistry;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The answers that run on this node, each with a copy on a second node, so that both the loss of a
 * connection and the loss of this node are survived: whichever node the client comes back to takes
 * the value, from here or from the copy, and goes on with it. There is one way to go on, whether
 * this node lives or not.
 *
 * <p>The second node is the same for all that runs here, until it is lost: the first that lives, in
 * an order of the nodes that follows from this one's id (rendezvous hashing, Thaler and Ravishankar
 * 1998). What is new goes there every {@link #BATCH_NS}, one batch at a time; a new answer goes at
 * once, and its first word to the client waits for that ({@link Kept#awaitCopy}). Tokens need not
 * wait: those that the copy lacks are drawn again, the same.
 *
 * <p>What nobody reads is kept for {@link #RETENTION_NS}, within {@link #BYTES_MAX}, the oldest
 * given up first. It does not go on meanwhile: what was computed is kept, and no machine works for
 * a client that has left.
 */
public final class KeptAnswers implements AutoCloseable {

  /** How long an answer that nobody reads is kept. */
  public static final long RETENTION_NS = TimeUnit.MINUTES.toNanos(5);

  /** How long tokens are gathered before they go to the second node. */
  static final long BATCH_NS = TimeUnit.MILLISECONDS.toNanos(100);

  private static final long BYTES_MAX = 64L << 20;
  private static final int BATCH_BYTES = 1 << 20;
  private static final int MESSAGE_BYTES = 3 << 20;
  private static final long PEER_TIMEOUT_NS = TimeUnit.SECONDS.toNanos(1);
  private static final long AVOID_NS = TimeUnit.SECONDS.toNanos(1);
  private static final long REMIND_NS = RETENTION_NS / 4;
  private static final Logger log = LoggerFactory.getLogger(KeptAnswers.class);

  private final Cluster cluster;
  private final Threads threads;
  private final AnswerCopies copies = new AnswerCopies(BYTES_MAX, RETENTION_NS);
  private final Signal changed;
  private final Signal urgent;
  private final Counter sentBytes;
  private final Counter taken;

  /** The node that has the copies; in another life it has none of them. */
  private record Keeper(String id, long incarnation) {}

  // Guarded by this:
  private final Map<String, Own> byId = new HashMap<>();
  private final Map<Long, Own> byNumber = new LinkedHashMap<>();

  /** Those of which the second node may lack something; a pass looks at no others. */
  private final Set<Own> news = new LinkedHashSet<>();

  /** Those whose reader waits for the copy. */
  private final Set<Own> awaited = new HashSet<>();

  /** Those of which the second node has something, longest unheard of first. */
  private final Set<Own> heardOf = new LinkedHashSet<>();

  /** Those that nobody reads, the longest first. */
  private final Set<Own> unread = new LinkedHashSet<>();

  private final List<Long> forgotten = new ArrayList<>();
  private final Map<String, Long> avoidedUntilNs = new HashMap<>();
  private long numbers;
  private long unreadBytes;
  private Keeper keeper = new Keeper("", 0);
  private Threads.@Nullable Started shipper;
  private @Nullable AutoCloseable subscription;
  private boolean closed;

  /** Of a node whose cluster has not started yet: adds its service. */
  public KeptAnswers(Cluster cluster, MeterRegistry meters) {
    this.cluster = cluster;
    this.threads = cluster.threads();
    this.changed = new Signal(threads);
    this.urgent = new Signal(threads);
    this.sentBytes =
        Counter.builder("flotilla.serve.answers.sent.bytes")
            .description("Sent to the second node, so that it can go on with what runs here")
            .register(meters);
    this.taken =
        Counter.builder("flotilla.serve.answers.taken")
            .description("Answers that this node went on with after their client came back")
            .register(meters);
    Gauge.builder("flotilla.serve.answers.copies", copies, AnswerCopies::count)
        .description("Answers of other nodes that this one could go on with")
        .register(meters);
    Gauge.builder("flotilla.serve.answers.copies.bytes", copies, AnswerCopies::bytes)
        .description("What these take of the memory")
        .register(meters);
    cluster.addService(service());
  }

  private BindableService service() {
    return new AnswersGrpc.AnswersImplBase() {
      @Override
      public void keep(KeepRequest request, StreamObserver<KeepReply> reply) {
        reply.onNext(copies.keep(request, threads.nanoTime()));
        reply.onCompleted();
      }

      @Override
      public void take(TakeRequest request, StreamObserver<TakeReply> reply) {
        reply.onNext(
            request.getForget()
                ? drop(request.getId(), request.getTenant())
                : request.hasTurn()
                    ? give(request.getId(), request.getTenant(), request.getTurn())
                    : look(request.getId(), request.getTenant()));
        reply.onCompleted();
      }
    };
  }

  /**
   * Keeps an answer that begins here.
   *
   * @param onTaken called, once at most, when another reader goes on with it
   */
  public Kept open(AnswerValue value, Runnable onTaken) {
    Own own;
    Runnable beforeTaken = () -> {};
    synchronized (this) {
      own = new Own(++numbers, new GrowingAnswer(value), onTaken);
      Own before = byId.put(value.id(), own);
      if (before != null && byNumber.remove(before.number, before)) {
        dropped(before);
      }
      if (before != null && !before.over) {
        // Two came back at once: the later one goes on.
        before.over = true;
        beforeTaken = before.onTaken;
      }
      byNumber.put(own.number, own);
      news.add(own);
      awaited.add(own);
      if (shipper == null && !closed) {
        shipper = threads.start("answers", this::ship);
        // Nodes come and go; a stream that waits for its next token must not wait for its copy.
        subscription = cluster.registry().subscribe(changed::raise);
      }
    }
    beforeTaken.run();
    urgent.raise();
    changed.raise();
    return own;
  }

  /**
   * Goes on with an answer, wherever it is: it runs here from now on, and nowhere else.
   *
   * @param tenant nobody else's is found
   * @param check is shown what is known of it first; if it throws, the answer stays where it is
   * @param onTaken as above
   * @throws FlotillaException {@code NOT_FOUND} if there is none, {@code UNAVAILABLE} if one may be
   *     on a node that does not answer
   */
  public Kept take(String id, String tenant, Consumer<AnswerValue> check, Runnable onTaken)
      throws InterruptedException {
    Optional<AnswerValue> here = AnswerWire.taken(look(id, tenant));
    here.ifPresent(check);
    Optional<AnswerValue> mine =
        here.flatMap(known -> AnswerWire.taken(give(id, tenant, known.turn())));
    Optional<AnswerValue> value = mine.isPresent() ? mine : search(id, tenant, here, check);
    if (value.isEmpty()) {
      throw new FlotillaException(
          FlotillaException.Code.NOT_FOUND,
          "there is no stream " + id + " to go on with",
          "It is known for "
              + TimeUnit.NANOSECONDS.toMinutes(RETENTION_NS)
              + " minutes after its connection was lost, to the key that began it. Send the request"
              + " without Last-Event-ID to begin anew.");
    }
    taken.increment();
    return open(value.get().next(), onTaken);
  }

  /**
   * What there is of an answer, wherever it is; it stays there.
   *
   * @param tenant nobody else's is found
   * @throws FlotillaException {@code UNAVAILABLE} if one may be on a node that does not answer
   */
  public Optional<AnswerValue> find(String id, String tenant) throws InterruptedException {
    TakeReply here = look(id, tenant);
    return here.getOwned()
        ? AnswerWire.taken(here)
        : ask(look(id, tenant, false), AnswerWire.taken(here)).found();
  }

  /**
   * Ends an answer, and drops what there is of it on all nodes.
   *
   * @param tenant nobody else's is found
   * @return whether there was one
   * @throws FlotillaException {@code UNAVAILABLE} if there may be some of it on a node that does
   *     not answer
   */
  public boolean forget(String id, String tenant) throws InterruptedException {
    Optional<AnswerValue> here = AnswerWire.taken(drop(id, tenant));
    Search dropped = ask(look(id, tenant, true), here);
    if (dropped.someFailed()) {
      throw unknown(id);
    }
    return dropped.found().isPresent();
  }

  /** Drops what this node has of an answer, and says what that was. */
  private TakeReply drop(String id, String tenant) {
    TakeReply found = look(id, tenant);
    Runnable onTaken = () -> {};
    synchronized (this) {
      Own own = byId.get(id);
      if (own != null && own.answer.start().tenant().equals(tenant)) {
        onTaken = own.over ? onTaken : own.onTaken;
        own.forget();
      }
    }
    onTaken.run();
    copies.forget(id, tenant);
    return found;
  }

  private static TakeRequest look(String id, String tenant, boolean forget) {
    return TakeRequest.newBuilder().setId(id).setTenant(tenant).setForget(forget).build();
  }

  private static FlotillaException unknown(String id) {
    return new FlotillaException(
        FlotillaException.Code.UNAVAILABLE,
        "not all nodes say whether they have the stream " + id,
        "Try again.");
  }

  /** What this node knows of an answer, if anything. */
  private TakeReply look(String id, String tenant) {
    synchronized (this) {
      Own own = byId.get(id);
      if (own != null && own.answer.start().tenant().equals(tenant)) {
        return AnswerWire.taken(own.answer.value(), !own.given);
      }
    }
    return copies
        .find(id, threads.nanoTime())
        .filter(value -> value.tenant().equals(tenant))
        .map(value -> AnswerWire.taken(value, false))
        .orElse(TakeReply.getDefaultInstance());
  }

  /** Gives away what is this node's, and its turn. */
  private TakeReply give(String id, String tenant, long turn) {
    Runnable onTaken;
    TakeReply reply;
    synchronized (this) {
      Own own = byId.get(id);
      if (own == null
          || own.given
          || own.answer.start().turn() != turn
          || !own.answer.start().tenant().equals(tenant)) {
        return TakeReply.getDefaultInstance();
      }
      reply = AnswerWire.taken(own.answer.value(), true);
      onTaken = own.over ? () -> {} : own.onTaken;
      own.over = true;
      own.given = true;
      unread(own);
    }
    onTaken.run();
    return reply;
  }

  /** Asks the others what they have. */
  private Search ask(TakeRequest request, Optional<AnswerValue> here) throws InterruptedException {
    Search search = new Search(here, request.getForget());
    for (NodeInfo node : cluster.nodes()) {
      if (!node.id().equals(cluster.self()) && node.state() != NodeInfo.State.LOST) {
        search.ask(node.id(), request);
      }
    }
    search.allAsked();
    boolean inTime = threads.await(search.done, PEER_TIMEOUT_NS);
    if (!inTime) {
      search.timedOut();
    }
    if (search.found().isEmpty() && search.someFailed()) {
      throw unknown(request.getId());
    }
    return search;
  }

  /** Asks the others what they have; who owns it, gives it away. */
  private Optional<AnswerValue> search(
      String id, String tenant, Optional<AnswerValue> here, Consumer<AnswerValue> check)
      throws InterruptedException {
    Search search = ask(look(id, tenant, false), here);
    Optional<AnswerValue> found = search.found();
    found.ifPresent(check);
    Optional<Owner> owner = search.owner();
    if (owner.isEmpty()) {
      return found;
    }
    Search giving = new Search(Optional.empty(), false);
    giving.ask(
        owner.get().node(),
        TakeRequest.newBuilder().setId(id).setTenant(tenant).setTurn(owner.get().turn()).build());
    giving.allAsked();
    boolean answered = threads.await(giving.done, PEER_TIMEOUT_NS) && !giving.someFailed();
    if (answered && giving.found().isEmpty()) {
      throw new FlotillaException(
          FlotillaException.Code.UNAVAILABLE,
          "another connection just went on with the stream " + id,
          "Try again.");
    }
    // One that is lost meanwhile gives nothing; what it had is known.
    return found.map(known -> giving.found().map(known::or).orElse(known));
  }

  private record Owner(String node, long turn) {}

  private final class Search {
    private final CompletableFuture<Boolean> done = new CompletableFuture<>();
    private Optional<AnswerValue> found;
    private Optional<Owner> owner = Optional.empty();
    private int open = 1;
    private boolean failed;
    private final boolean all;

    /**
     * @param all whether all are waited for, also when the owner has answered
     */
    Search(Optional<AnswerValue> here, boolean all) {
      found = here;
      this.all = all;
    }

    synchronized void timedOut() {
      failed |= open > 0 && !(owner.isPresent() && !all);
    }

    void ask(String node, TakeRequest request) {
      synchronized (this) {
        open++;
      }
      try {
        AnswersGrpc.newStub(cluster.channel(node))
            .take(
                request,
                new StreamObserver<>() {
                  @Override
                  public void onNext(TakeReply reply) {
                    heard(node, reply);
                  }

                  @Override
                  public void onError(Throwable error) {
                    log.debug("{} does not say whether it has {}", node, request.getId(), error);
                    answered(true);
                  }

                  @Override
                  public void onCompleted() {
                    answered(false);
                  }
                });
      } catch (FlotillaException e) {
        log.debug("{} left the cluster since it was listed", node);
        answered(false);
      }
    }

    private synchronized void heard(String node, TakeReply reply) {
      Optional<AnswerValue> theirs = AnswerWire.taken(reply);
      found = found.isEmpty() ? theirs : found.map(mine -> theirs.map(mine::or).orElse(mine));
      if (reply.getOwned()) {
        owner = theirs.map(value -> new Owner(node, value.turn()));
        if (!all) {
          done.complete(true);
        }
      }
    }

    private synchronized void answered(boolean withError) {
      failed |= withError;
      if (--open == 0) {
        done.complete(true);
      }
    }

    void allAsked() {
      answered(false);
    }

    synchronized Optional<AnswerValue> found() {
      return found;
    }

    /** Who says that it is theirs. */
    synchronized Optional<Owner> owner() {
      return owner;
    }

    synchronized boolean someFailed() {
      return failed;
    }
  }

  // What goes to the second node.

  /** What of an answer goes to the second node: what that has then. */
  private record Part(Own own, int[] lengths, boolean[] ends) {}

  private record Batch(String to, KeepRequest request, List<Part> parts, int forgotten) {}

  private void ship() {
    try {
      while (true) {
        boolean _ = changed.await(waitNs());
        // Tokens are gathered; a new answer is not kept waiting.
        boolean _ = urgent.await(BATCH_NS);
        Optional<Batch> batch = batch();
        while (batch.isPresent()) {
          send(batch.get());
          batch = batch();
        }
        synchronized (this) {
          if (closed) {
            return;
          }
        }
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  private synchronized long waitNs() {
    return avoidedUntilNs.isEmpty() ? REMIND_NS : AVOID_NS;
  }

  private synchronized Optional<Batch> batch() {
    long nowNs = threads.nanoTime();
    tidy(nowNs);
    Optional<Keeper> to = closed ? Optional.empty() : keeper(nowNs);
    if (to.isEmpty()) {
      // Nobody is there; whoever comes gets all of it.
      awaited.forEach(own -> own.copied.complete(true));
      awaited.clear();
      forgotten.clear();
      return Optional.empty();
    }
    if (!to.get().equals(keeper)) {
      keeper = to.get();
      forgotten.clear();
      byNumber.values().forEach(Own::unsent);
      heardOf.clear();
      log.debug("what runs here is also kept by {}", keeper.id());
    }
    KeepRequest.Builder request =
        KeepRequest.newBuilder()
            .setOwner(cluster.self())
            .setIncarnation(incarnation())
            .addAllForgotten(forgotten);
    List<Part> parts = new ArrayList<>();
    remind(nowNs);
    long bytes = 0;
    for (Iterator<Own> next = news.iterator(); next.hasNext() && bytes <= BATCH_BYTES; ) {
      Own own = next.next();
      Optional<AnswerUpdate> update = own.update(nowNs);
      if (update.isPresent()) {
        int size = update.get().getSerializedSize();
        if (size > MESSAGE_BYTES) {
          log.info("answer {} is too long for a copy", own.answer.start().id());
          own.refused = true;
          copied(own);
          next.remove();
          continue;
        }
        bytes += size;
        if (bytes > MESSAGE_BYTES) {
          break; // it goes with the next batch
        }
        request.addUpdates(update.get());
        parts.add(own.part());
      }
      next.remove();
    }
    return parts.isEmpty() && forgotten.isEmpty()
        ? Optional.empty()
        : Optional.of(new Batch(keeper.id(), request.build(), parts, forgotten.size()));
  }

  /** The second node forgets what it hears nothing of, and what runs may have no news for long. */
  private void remind(long nowNs) {
    for (Iterator<Own> oldest = heardOf.iterator(); oldest.hasNext(); ) {
      Own own = oldest.next();
      if (nowNs - own.sentNs <= REMIND_NS) {
        return;
      }
      oldest.remove();
      news.add(own);
    }
  }

  private void copied(Own own) {
    own.copied.complete(true);
    awaited.remove(own);
  }

  private long incarnation() {
    return cluster.nodes().stream()
        .filter(node -> node.id().equals(cluster.self()))
        .mapToLong(NodeInfo::incarnation)
        .findFirst()
        .orElse(0);
  }

  /** The node that has the copies, while it lives; else the next in this node's order. */
  private Optional<Keeper> keeper(long nowNs) {
    avoidedUntilNs.values().removeIf(untilNs -> untilNs - nowNs <= 0);
    List<Keeper> there =
        cluster.nodes().stream()
            .filter(node -> node.state() == NodeInfo.State.UP)
            .map(node -> new Keeper(node.id(), node.incarnation()))
            .filter(
                node -> !node.id().equals(cluster.self()) && !avoidedUntilNs.containsKey(node.id()))
            .toList();
    return there.contains(keeper)
        ? Optional.of(keeper)
        : there.stream().min(Comparator.comparing(this::rank));
  }

  private String rank(Keeper node) {
    return DurableFiles.sha256((cluster.self() + node.id()).getBytes(StandardCharsets.UTF_8));
  }

  private void send(Batch batch) throws InterruptedException {
    CompletableFuture<KeepReply> reply = new CompletableFuture<>();
    try {
      AnswersGrpc.newStub(cluster.channel(batch.to()))
          .keep(
              batch.request(),
              new StreamObserver<>() {
                @Override
                public void onNext(KeepReply value) {
                  reply.complete(value);
                }

                @Override
                public void onError(Throwable error) {
                  reply.completeExceptionally(error);
                }

                @Override
                public void onCompleted() {}
              });
    } catch (FlotillaException e) {
      reply.completeExceptionally(e);
    }
    boolean inTime = threads.await(reply, PEER_TIMEOUT_NS);
    sentBytes.increment(batch.request().getSerializedSize());
    if (inTime && !reply.isCompletedExceptionally()) {
      acknowledged(batch, reply.join());
    } else {
      log.info("node {} takes no copies of what runs here; another is asked", batch.to());
      synchronized (this) {
        avoidedUntilNs.put(batch.to(), threads.nanoTime() + AVOID_NS);
        batch.parts().forEach(part -> isNew(part.own()));
      }
      changed.raise();
    }
  }

  /** The second node may lack something of it; guarded by this. */
  private void isNew(Own own) {
    if (byNumber.get(own.number) == own) {
      news.add(own);
    }
  }

  private synchronized void acknowledged(Batch batch, KeepReply reply) {
    forgotten.subList(0, batch.forgotten()).clear();
    for (Part part : batch.parts()) {
      Own own = part.own();
      own.acknowledged(part);
      if (byNumber.get(own.number) == own) {
        heardOf.remove(own);
        heardOf.add(own);
      }
    }
    for (long number : reply.getUnknownList()) {
      Own own = byNumber.get(number);
      if (own != null) {
        own.unsent();
      }
    }
    for (long number : reply.getRefusedList()) {
      Own own = byNumber.get(number);
      if (own != null) {
        log.info("node {} has no room for answer {}", batch.to(), own.answer.start().id());
        own.refused = true;
      }
    }
    for (Part part : batch.parts()) {
      if (part.own().started) {
        copied(part.own());
      }
    }
  }

  // What nobody reads.

  /** It stays for a while; guarded by this. */
  private void unread(Own own) {
    if (own.unreadBytes == 0 && byNumber.containsKey(own.number)) {
      own.unreadSinceNs = threads.nanoTime();
      own.unreadBytes = own.answer.bytes();
      unreadBytes += own.unreadBytes;
      unread.add(own);
      tidy(own.unreadSinceNs);
    }
  }

  private void tidy(long nowNs) {
    while (!unread.isEmpty()) {
      Own oldest = unread.iterator().next();
      if (nowNs - oldest.unreadSinceNs <= RETENTION_NS && unreadBytes <= BYTES_MAX) {
        return;
      }
      byNumber.remove(oldest.number);
      dropped(oldest);
    }
  }

  private void dropped(Own own) {
    unreadBytes -= own.unreadBytes;
    byId.remove(own.answer.start().id(), own);
    List.of(news, awaited, heardOf, unread).forEach(set -> set.remove(own));
    forgotten.add(own.number);
    changed.raise();
  }

  /** How many answers of this node could be gone on with. */
  synchronized int count() {
    return byNumber.size();
  }

  /** This node's copy of an answer that runs elsewhere. */
  Optional<AnswerValue> copy(String id) {
    return copies.find(id, threads.nanoTime());
  }

  /** Ends the copying. */
  @Override
  public void close() {
    AutoCloseable subscribed;
    synchronized (this) {
      closed = true;
      subscribed = subscription;
      subscription = null;
    }
    Closing.unsubscribe(subscribed);
    urgent.raise();
    changed.raise();
  }

  /** An answer of this node; guarded by the outer object. */
  private final class Own implements Kept {
    private final long number;
    private final GrowingAnswer answer;
    private final Runnable onTaken;
    private final CompletableFuture<Boolean> copied = new CompletableFuture<>();

    /** How many tokens of each choice the second node has, and whether it knows of its end. */
    private final int[] sent;

    private final boolean[] sentEnds;
    private boolean started;
    private boolean refused;
    private long sentNs;

    /** Nobody reads it any more: what still comes is not wanted. */
    private boolean over;

    /** Another reader may have more of it by now. */
    private boolean given;

    private long unreadSinceNs;
    private long unreadBytes;

    Own(long number, GrowingAnswer answer, Runnable onTaken) {
      this.number = number;
      this.answer = answer;
      this.onTaken = onTaken;
      this.sent = new int[answer.choices()];
      this.sentEnds = new boolean[answer.choices()];
    }

    @Override
    public AnswerValue value() {
      synchronized (KeptAnswers.this) {
        return answer.value();
      }
    }

    @Override
    public void token(int choice, int token) {
      synchronized (KeptAnswers.this) {
        if (over) {
          return;
        }
        answer.add(choice, token);
        isNew(this);
      }
      changed.raise();
    }

    @Override
    public void ended(int choice, FinishReason reason) {
      synchronized (KeptAnswers.this) {
        if (over || reason == FinishReason.CANCELLED) {
          return;
        }
        answer.end(choice, reason);
        isNew(this);
      }
      changed.raise();
    }

    @Override
    public boolean awaitCopy(long timeoutNs) throws InterruptedException {
      return threads.await(copied, timeoutNs);
    }

    @Override
    public void forget() {
      synchronized (KeptAnswers.this) {
        over = true;
        if (byNumber.remove(number, this)) {
          dropped(this);
        }
      }
    }

    @Override
    public void close() {
      synchronized (KeptAnswers.this) {
        over = true;
        unread(this);
      }
    }

    /** The second node has none of it. */
    void unsent() {
      started = false;
      refused = false;
      Arrays.fill(sent, 0);
      Arrays.fill(sentEnds, false);
      isNew(this);
    }

    /** What the second node does not have. */
    Optional<AnswerUpdate> update(long nowNs) {
      if (refused) {
        return Optional.empty();
      }
      AnswerUpdate.Builder update = AnswerUpdate.newBuilder().setNumber(number);
      boolean news = !started || (!over && nowNs - sentNs > REMIND_NS);
      if (!started) {
        update.setStart(AnswerWire.start(answer.start()));
      }
      for (int choice = 0; choice < sent.length; choice++) {
        boolean newEnd = answer.end(choice).isPresent() && !sentEnds[choice];
        if (answer.length(choice) > sent[choice] || newEnd) {
          news = true;
          int[] tokens = answer.tokens(choice, sent[choice]);
          update.addChoices(AnswerWire.choice(choice, sent[choice], tokens, answer.end(choice)));
        }
      }
      return news ? Optional.of(update.build()) : Optional.empty();
    }

    /** What the second node has once it has the update made now. */
    Part part() {
      int[] lengths = new int[sent.length];
      boolean[] ends = new boolean[sent.length];
      for (int choice = 0; choice < sent.length; choice++) {
        lengths[choice] = answer.length(choice);
        ends[choice] = answer.end(choice).isPresent();
      }
      return new Part(this, lengths, ends);
    }

    void acknowledged(Part part) {
      started = true;
      sentNs = threads.nanoTime();
      System.arraycopy(part.lengths(), 0, sent, 0, sent.length);
      System.arraycopy(part.ends(), 0, sentEnds, 0, sent.length);
    }
  }
}

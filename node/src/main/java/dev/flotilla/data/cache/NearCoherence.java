package dev.flotilla.data.cache;

import com.google.protobuf.ByteString;
import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.data.proto.CacheStatisticsReply;
import dev.flotilla.data.proto.CacheStatisticsRequest;
import dev.flotilla.data.proto.Invalidation;
import dev.flotilla.data.proto.Invalidations;
import dev.flotilla.data.proto.InvalidationsDone;
import dev.flotilla.data.proto.LeaseReply;
import dev.flotilla.data.proto.LeaseRequest;
import dev.flotilla.data.proto.NearCachesGrpc;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.StreamObserver;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
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
import java.util.function.Function;
import java.util.function.LongSupplier;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Keeps every node's near cache coherent with the grid: writers invalidate, under leases.
 *
 * <p><b>In the words of MESI.</b> A near entry is in one of two states, <em>shared</em> (a copy of
 * what the grid holds; any number of nodes may have one, and answers reads from it alone) or
 * <em>invalid</em> (not there, or not to be used). There is neither <em>modified</em> nor
 * <em>exclusive</em>: writes go through to the grid at once, so that no near cache ever holds the
 * only copy of anything, and losing one loses nothing. A read miss takes an entry from invalid to
 * shared, by a read of the grid. A write on any node takes it from shared to invalid on all nodes.
 *
 * <p><b>Writing.</b> The write is done in the grid first; then each other node is told its keys;
 * only when all have answered, which means that they have forgotten them, does the write return. A
 * write of which it cannot be told whether it was done is told all the same. Messages to one node
 * travel together: while one is on its way, the next ones wait and then leave as one.
 *
 * <p><b>Leases</b> (Gray and Cheriton, "Leases: An Efficient Fault-Tolerant Mechanism for
 * Distributed File Cache Consistency", 1989). A node that cannot be told must not stop the writer
 * for ever, and must not go on reading. So a reader asks each other node of the grid for a lease,
 * several times per lease, and uses its near cache only while it has one from all of them, and has
 * seen a majority itself. The reader counts the lease from before it asked, the writer from after,
 * and a tenth longer for unequal clocks: a writer that has waited until a lease ran out knows that
 * the reader has stopped. A lease that ran out and is given again makes everything invalid first.
 * So does a writer that has left the grid, since what it did last may not have been told.
 *
 * <p><b>Filling.</b> What was read from the grid just before a write may arrive in the near cache
 * just after it was invalidated. So a fill carries a stamp taken before its read, and is dropped if
 * the key was invalidated since ({@link NearCache#fill}); and an epoch, by which it is invalid if
 * everything was.
 *
 * <p><b>The bound on staleness.</b> After a write has returned, no read that begins later, on any
 * node, returns what was there before: the bound is zero, on whatever side of a cut, for paused
 * nodes too. (Measured by {@code NearStaleness}: the last stale read began before the write
 * returned in every one of its rounds; docs/consistency.md has the distribution.) The price is that
 * a write waits for one round trip, or, when a node is cut off or dies, for the rest of its lease:
 * at most {@value #LEASE_MS} ms and a tenth, once. Before a write has returned, both values may be
 * read, the new one first on one node and the old one later on another: the register is regular,
 * not atomic; who needs more reads in a transaction. For a write that never returned (its node
 * died, or its outcome is unknown) and that the grid completes by itself later, the bound is
 * {@value #AGE_MS} ms: older entries are read again.
 */
final class NearCoherence extends NearCachesGrpc.NearCachesImplBase implements AutoCloseable {

  /** How long a promise holds. */
  static final long LEASE_MS = 2000;

  /** The oldest that a near entry gets. */
  static final long AGE_MS = 10_000;

  private static final long RENEW_MS = 400;
  private static final long RETRY_MS = 20;
  private static final long CALL_MS = 1000;

  /** A reader that could not be told for so long gets no new lease until it was. */
  private static final long UNDELIVERED_NS = 200_000_000L;

  private static final int BATCH = 500;
  private static final Logger log = LoggerFactory.getLogger(NearCoherence.class);

  /** The near caches of this node. */
  interface Local {

    /** Forgets the keys of a cache, or the whole of it. */
    void invalidate(Invalidation written);

    /** What this node has counted for a cache. */
    Optional<CacheStatistics> statistics(String cache);
  }

  private final Cluster cluster;
  private final Function<String, Optional<Set<String>>> majority;
  private final Local local;
  private final LongSupplier nanoTime;
  private final NearLeases leases;
  private final NearGrants grants = new NearGrants(LEASE_MS * 1_000_000L);
  private final Map<String, Mailbox> mailboxes = new ConcurrentHashMap<>();
  private final ScheduledExecutorService timer =
      Executors.newSingleThreadScheduledExecutor(
          Thread.ofPlatform().daemon().name("near-leases").factory());
  private volatile boolean closed;

  /**
   * @param majority the nodes that the grid has now, this one included; empty without a majority
   */
  NearCoherence(
      Cluster cluster,
      Function<String, Optional<Set<String>>> majority,
      Local local,
      LongSupplier nanoTime) {
    this.cluster = cluster;
    this.majority = majority;
    this.local = local;
    this.nanoTime = nanoTime;
    this.leases =
        new NearLeases(LEASE_MS * 1_000_000L, nanoTime.getAsLong(), Set.of(cluster.self()));
  }

  void start() {
    timer.scheduleWithFixedDelay(this::renew, 0, RENEW_MS, TimeUnit.MILLISECONDS);
  }

  /** As {@link NearLeases#epochAt}. */
  long epochAt(long nowNs) {
    return leases.epochAt(nowNs);
  }

  // The reader's half.

  private void renew() {
    try {
      long askedNs = nanoTime.getAsLong();
      Optional<Set<String>> seen = majority.apply("renewing near-cache leases");
      if (seen.isEmpty()) {
        return;
      }
      Set<String> writers = new HashSet<>(seen.get());
      writers.add(cluster.self());
      leases.require(writers);
      // What this node promises itself is that it sees a majority.
      leases.granted(cluster.self(), askedNs, nanoTime.getAsLong());
      for (String writer : writers) {
        if (!writer.equals(cluster.self())) {
          ask(writer);
        }
      }
    } catch (RuntimeException e) {
      // The timer must go on; without renewal the near cache is not used.
      log.warn("near-cache leases could not be renewed: {}", e.toString());
    }
  }

  private void ask(String writer) {
    long askedNs = nanoTime.getAsLong();
    try {
      NearCachesGrpc.newStub(cluster.channel(writer))
          .withDeadlineAfter(CALL_MS, TimeUnit.MILLISECONDS)
          .lease(
              LeaseRequest.newBuilder().setReader(cluster.self()).build(),
              new Reply<LeaseReply>() {
                @Override
                public void onNext(LeaseReply reply) {
                  if (reply.getGranted()) {
                    leases.granted(writer, askedNs, nanoTime.getAsLong());
                  }
                }
              });
    } catch (FlotillaException e) {
      log.debug("{} left the cluster: {}", writer, e.getMessage());
    }
  }

  @Override
  public void invalidate(Invalidations request, StreamObserver<InvalidationsDone> reply) {
    request.getWrittenList().forEach(this::forget);
    reply.onNext(InvalidationsDone.getDefaultInstance());
    reply.onCompleted();
  }

  /** Whatever any near cache of this node holds is not to be used any more. */
  void forgetAll() {
    leases.forgetAll();
  }

  private void forget(Invalidation written) {
    local.invalidate(written);
    if (written.getAll()) {
      leases.forgetAll();
    }
  }

  // The writer's half.

  @Override
  public void lease(LeaseRequest request, StreamObserver<LeaseReply> reply) {
    String reader = request.getReader();
    long nowNs = nanoTime.getAsLong();
    boolean granted = !closed && mailbox(reader).undeliveredNs(nowNs) < UNDELIVERED_NS;
    if (granted) {
      grants.grant(reader, nowNs);
    }
    reply.onNext(LeaseReply.newBuilder().setGranted(granted).build());
    reply.onCompleted();
  }

  /** Tells all nodes, this one first, and returns when none of them can use the old values. */
  void written(String cache, Collection<String> keys) {
    tell(Invalidation.newBuilder().setCache(cache).addAllKeys(keys).build());
  }

  /** As {@link #written}, for everything in a cache. */
  void writtenAll(String cache) {
    tell(Invalidation.newBuilder().setCache(cache).setAll(true).build());
  }

  private void tell(Invalidation written) {
    forget(written);
    Map<String, CompletableFuture<Void>> told = new HashMap<>();
    for (String reader : grants.holders(nanoTime.getAsLong())) {
      told.put(reader, mailbox(reader).send(written));
    }
    told.forEach(this::await);
  }

  private void await(String reader, CompletableFuture<Void> told) {
    boolean interrupted = false;
    while (!told.isDone() && grants.holds(reader, nanoTime.getAsLong())) {
      try {
        told.get(RETRY_MS, TimeUnit.MILLISECONDS);
      } catch (TimeoutException | ExecutionException stillWaiting) {
        log.trace("{} has not answered yet", reader);
      } catch (InterruptedException e) {
        // The write is done, and must not return before it is told.
        interrupted = true;
      }
    }
    if (interrupted) {
      Thread.currentThread().interrupt();
    }
  }

  private Mailbox mailbox(String reader) {
    return mailboxes.computeIfAbsent(reader, Mailbox::new);
  }

  /** What one reader is still to be told. */
  private final class Mailbox {

    private record Letter(Invalidation written, CompletableFuture<Void> told, long sinceNs) {}

    private final String reader;
    private final List<Letter> waiting = new ArrayList<>();
    private List<Letter> travelling = List.of();

    Mailbox(String reader) {
      this.reader = reader;
    }

    CompletableFuture<Void> send(Invalidation written) {
      CompletableFuture<Void> told = new CompletableFuture<>();
      synchronized (this) {
        waiting.add(new Letter(written, told, nanoTime.getAsLong()));
      }
      leave();
      return told;
    }

    /** How long the oldest letter has been waiting. */
    synchronized long undeliveredNs(long nowNs) {
      if (!travelling.isEmpty()) {
        return nowNs - travelling.getFirst().sinceNs();
      }
      return waiting.isEmpty() ? 0 : nowNs - waiting.getFirst().sinceNs();
    }

    private void leave() {
      List<Letter> batch;
      synchronized (this) {
        if (!travelling.isEmpty() || waiting.isEmpty()) {
          return;
        }
        List<Letter> next = waiting.subList(0, Math.min(BATCH, waiting.size()));
        batch = List.copyOf(next);
        next.clear();
        travelling = batch;
      }
      Invalidations.Builder message = Invalidations.newBuilder();
      batch.forEach(letter -> message.addWritten(letter.written()));
      try {
        NearCachesGrpc.newStub(cluster.channel(reader))
            .withDeadlineAfter(CALL_MS, TimeUnit.MILLISECONDS)
            .invalidate(
                message.build(),
                new Reply<InvalidationsDone>() {
                  @Override
                  public void onError(Throwable error) {
                    again();
                  }

                  @Override
                  public void onCompleted() {
                    arrived();
                  }
                });
      } catch (FlotillaException e) {
        again();
      }
    }

    private void arrived() {
      List<Letter> done;
      synchronized (this) {
        done = travelling;
        travelling = List.of();
      }
      done.forEach(letter -> letter.told().complete(null));
      leave();
    }

    /** Once the lease has run out, the reader will forget everything by itself. */
    private void again() {
      List<Letter> given = new ArrayList<>();
      synchronized (this) {
        if (closed || !grants.holds(reader, nanoTime.getAsLong())) {
          given.addAll(travelling);
          given.addAll(waiting);
          waiting.clear();
        } else {
          waiting.addAll(0, travelling);
        }
        travelling = List.of();
      }
      given.forEach(letter -> letter.told().complete(null));
      if (given.isEmpty() && !closed) {
        timer.schedule(this::leave, RETRY_MS, TimeUnit.MILLISECONDS);
      }
    }
  }

  // Statistics.

  @Override
  public void statistics(
      CacheStatisticsRequest request, StreamObserver<CacheStatisticsReply> reply) {
    CacheStatisticsReply.Builder own = CacheStatisticsReply.newBuilder();
    local
        .statistics(request.getCache())
        .ifPresent(counted -> own.setJson(ByteString.copyFrom(Json.write(counted))));
    reply.onNext(own.build());
    reply.onCompleted();
  }

  /** What the other nodes of the grid that answer have counted. */
  List<CacheStatistics> othersStatistics(String cache) {
    List<CacheStatistics> all = new ArrayList<>();
    for (String node : majority.apply("statistics of cache " + cache).orElse(Set.of())) {
      if (node.equals(cluster.self())) {
        continue;
      }
      try {
        ByteString json =
            NearCachesGrpc.newBlockingStub(cluster.channel(node))
                .withDeadlineAfter(CALL_MS, TimeUnit.MILLISECONDS)
                .statistics(CacheStatisticsRequest.newBuilder().setCache(cache).build())
                .getJson();
        if (!json.isEmpty()) {
          all.add(Json.read(json.toByteArray(), CacheStatistics.class));
        }
      } catch (StatusRuntimeException | FlotillaException e) {
        log.debug("{} does not tell its statistics: {}", node, e.getMessage());
      }
    }
    return all;
  }

  /** An answer that matters only if it comes. */
  private abstract static class Reply<T> implements StreamObserver<T> {
    @Override
    public void onNext(T reply) {}

    @Override
    public void onError(Throwable error) {
      log.debug("a node does not answer: {}", error.getMessage());
    }

    @Override
    public void onCompleted() {}
  }

  @Override
  public void close() {
    closed = true;
    timer.shutdownNow();
  }
}

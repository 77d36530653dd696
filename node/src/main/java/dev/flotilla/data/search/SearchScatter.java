package dev.flotilla.data.search;

import com.google.common.util.concurrent.FutureCallback;
import com.google.common.util.concurrent.Futures;
import com.google.common.util.concurrent.ListenableFuture;
import com.google.common.util.concurrent.MoreExecutors;
import com.google.protobuf.ByteString;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.data.grid.Grid;
import dev.flotilla.data.proto.IndexShardsGrpc;
import dev.flotilla.data.proto.IndexShardsGrpc.IndexShardsFutureStub;
import dev.flotilla.data.proto.ShardFrequenciesRequest;
import dev.flotilla.data.proto.ShardSearchRequest;
import io.micrometer.core.instrument.Counter;
import io.micrometer.core.instrument.MeterRegistry;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Consumer;
import java.util.function.Function;
import java.util.function.LongSupplier;
import java.util.function.Supplier;
import org.apache.lucene.index.Term;
import org.jspecify.annotations.Nullable;

/**
 * Searches all shards of an index, each on one of its replicas, and puts their hits together.
 *
 * <p>Two rounds, where words are ranked and there is more than one shard: first all shards count
 * the words, then each searches with the sums, so that scores do not depend on how documents are
 * spread. A replica that fails is followed by another at once, and one that is slow by another
 * beside it; the first to answer counts. A shard none of whose replicas answers in time is missing
 * from the answer, which says so.
 */
final class SearchScatter implements AutoCloseable {

  private static final long GRACE_MS = 250;
  private static final long MAJORITY_NS = 20_000_000;

  private record Majority(boolean seen, long atNs) {}

  private final Cluster cluster;
  private final Grid grid;
  private final IndexReplicas replicas;
  private final SearchPool pool;
  private final LongSupplier nanoTime;
  private final ExecutorService waiters = Executors.newVirtualThreadPerTaskExecutor();
  private final AtomicInteger turns = new AtomicInteger();
  private final Counter hedges;
  private final Counter partials;
  private volatile Majority majority = new Majority(false, 0);

  SearchScatter(
      Cluster cluster,
      Grid grid,
      IndexReplicas replicas,
      SearchPool pool,
      MeterRegistry metrics,
      LongSupplier nanoTime) {
    this.cluster = cluster;
    this.grid = grid;
    this.replicas = replicas;
    this.pool = pool;
    this.nanoTime = nanoTime;
    this.hedges = metrics.counter("flotilla.search.hedges");
    this.partials = metrics.counter("flotilla.search.partial");
  }

  SearchAnswer search(IndexCatalog.Known index, SearchRequest request) {
    boolean stale = !seesMajority();
    if (stale && !request.allowStale()) {
      throw new FlotillaException(
          Code.NO_MAJORITY,
          "searching index " + index.name() + ": this node cannot reach a majority of the nodes",
          "Try another node, or allow stale answers.");
    }
    SearchPlan plan = SearchPlan.of(index.schema(), request);
    if (index.settings().shards() == 1 && !Thread.currentThread().isVirtual()) {
      Optional<SearchHits> mine = here(index, plan);
      if (mine.isPresent()) {
        return answer(plan, List.of(mine.get()), List.of(), stale);
      }
    }
    long deadlineNs = nanoTime.getAsLong() + (request.timeoutMs() + GRACE_MS) * 1_000_000;
    Set<Integer> shards = new HashSet<>();
    for (int shard = 0; shard < index.settings().shards(); shard++) {
      shards.add(shard);
    }
    Optional<SearchFrequencies> frequencies = Optional.empty();
    if (shards.size() > 1 && plan.isScored()) {
      Map<Integer, SearchFrequencies> counted = count(index, plan, shards, deadlineNs);
      frequencies = Optional.of(SearchFrequencies.sum(List.copyOf(counted.values())));
      shards.retainAll(counted.keySet());
    }
    Map<Integer, SearchHits> hits = searchAll(index, plan, frequencies, shards, deadlineNs);
    List<Integer> missing = new ArrayList<>();
    for (int shard = 0; shard < index.settings().shards(); shard++) {
      if (!hits.containsKey(shard)) {
        missing.add(shard);
      }
    }
    if (hits.isEmpty()) {
      throw new FlotillaException(
          Code.UNAVAILABLE,
          "no replica of index " + index.name() + " answered",
          "They may be catching up; try again soon.");
    }
    if (!missing.isEmpty()) {
      partials.increment();
    }
    return answer(plan, List.copyOf(hits.values()), missing, stale);
  }

  /** As of a moment ago: an answer may be older than that in any case. */
  private boolean seesMajority() {
    Majority last = majority;
    long now = nanoTime.getAsLong();
    if (now - last.atNs > MAJORITY_NS || !last.seen) {
      last = new Majority(grid.hasMajority(), now);
      majority = last;
    }
    return last.seen;
  }

  /** The only shard, if it is here: on the caller's own thread. */
  private Optional<SearchHits> here(IndexCatalog.Known index, SearchPlan plan) {
    Optional<IndexShard> replica = replicas.local(index.name(), index.generation(), 0);
    if (replica.isEmpty() || !replica.get().ready()) {
      return Optional.empty();
    }
    try {
      return Optional.of(replica.get().search(plan, null));
    } catch (FlotillaException e) {
      if (IndexShardService.refusal(e).isPresent()) {
        throw e;
      }
      return Optional.empty();
    }
  }

  private Map<Integer, SearchFrequencies> count(
      IndexCatalog.Known index, SearchPlan plan, Set<Integer> shards, long deadlineNs) {
    Set<Term> terms = plan.terms();
    return gather(
        index,
        shards,
        deadlineNs,
        shard ->
            new Call<>(
                () -> replicas.require(index.name(), index.generation(), shard).frequencies(terms),
                stub ->
                    Futures.transform(
                        stub.frequencies(
                            ShardFrequenciesRequest.newBuilder()
                                .setAddress(IndexReplicas.message(index, shard))
                                .addAllTerms(SearchWire.terms(terms))
                                .build()),
                        SearchWire::fromMessage,
                        MoreExecutors.directExecutor())));
  }

  private Map<Integer, SearchHits> searchAll(
      IndexCatalog.Known index,
      SearchPlan plan,
      Optional<SearchFrequencies> frequencies,
      Set<Integer> shards,
      long deadlineNs) {
    ShardSearchRequest.Builder message =
        ShardSearchRequest.newBuilder()
            .setRequestJson(ByteString.copyFrom(Json.write(plan.request().toJson())));
    frequencies.ifPresent(all -> message.setFrequencies(SearchWire.toMessage(all)));
    ShardSearchRequest common = message.build();
    return gather(
        index,
        shards,
        deadlineNs,
        shard ->
            new Call<>(
                () ->
                    replicas
                        .require(index.name(), index.generation(), shard)
                        .search(plan, frequencies.orElse(null)),
                stub ->
                    Futures.transform(
                        stub.search(
                            common.toBuilder()
                                .setAddress(IndexReplicas.message(index, shard))
                                .build()),
                        SearchWire::fromMessage,
                        MoreExecutors.directExecutor())));
  }

  /** One question to a shard, as this node answers it and as another does. */
  private record Call<T>(
      Supplier<T> here, Function<IndexShardsFutureStub, ListenableFuture<T>> there) {}

  /** Asks all shards at once; those that answered, by shard. */
  private <T> Map<Integer, T> gather(
      IndexCatalog.Known index,
      Set<Integer> shards,
      long deadlineNs,
      Function<Integer, Call<T>> question) {
    Map<Integer, Future<Optional<T>>> asked = new HashMap<>();
    int turn = turns.getAndIncrement() & 0xffff;
    for (int shard : shards) {
      List<String> candidates = replicas.candidates(index, shard, turn);
      asked.put(shard, waiters.submit(() -> first(candidates, question.apply(shard), deadlineNs)));
    }
    Map<Integer, T> answers = new HashMap<>();
    asked.forEach(
        (shard, future) -> {
          try {
            future.get().ifPresent(answer -> answers.put(shard, answer));
          } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new FlotillaException(Code.FAILED, "interrupted", "", e);
          } catch (java.util.concurrent.ExecutionException e) {
            throw e.getCause() instanceof FlotillaException refused
                ? refused
                : new IllegalStateException("a search failed", e.getCause());
          }
        });
    return answers;
  }

  private <T> Optional<T> first(List<String> candidates, Call<T> call, long deadlineNs)
      throws InterruptedException {
    return SearchHedge.first(
        candidates,
        (node, outcomes) -> ask(node, call, deadlineNs - nanoTime.getAsLong(), outcomes),
        IndexShardService::refusal,
        hedges::increment,
        replicas.tuning().hedgeAfterMs() * 1_000_000,
        deadlineNs,
        nanoTime);
  }

  private <T> Future<?> ask(
      String node, Call<T> call, long leftNs, Consumer<SearchHedge.Outcome<T>> outcomes) {
    if (node.equals(cluster.self())) {
      CompletableFuture<T> mine = pool.submit(call.here);
      var _ =
          mine.whenComplete(
              (answer, failure) ->
                  outcomes.accept(
                      failure == null
                          ? new SearchHedge.Outcome<>(Optional.of(answer), Optional.empty())
                          : new SearchHedge.Outcome<>(
                              Optional.empty(),
                              Optional.of(
                                  failure instanceof CompletionException
                                          && failure.getCause() != null
                                      ? failure.getCause()
                                      : failure))));
      return mine;
    }
    ListenableFuture<T> theirs;
    try {
      theirs =
          call.there.apply(
              IndexShardsGrpc.newFutureStub(cluster.channel(node))
                  .withDeadlineAfter(leftNs, TimeUnit.NANOSECONDS));
    } catch (FlotillaException e) {
      theirs = Futures.immediateFailedFuture(e);
    }
    Futures.addCallback(
        theirs,
        new FutureCallback<T>() {
          @Override
          public void onSuccess(@Nullable T answer) {
            outcomes.accept(
                new SearchHedge.Outcome<>(Optional.ofNullable(answer), Optional.empty()));
          }

          @Override
          public void onFailure(Throwable failure) {
            outcomes.accept(new SearchHedge.Outcome<>(Optional.empty(), Optional.of(failure)));
          }
        },
        MoreExecutors.directExecutor());
    return theirs;
  }

  private static SearchAnswer answer(
      SearchPlan plan, List<SearchHits> shards, List<Integer> missing, boolean stale) {
    int k = plan.request().k();
    List<SearchHits.ShardHit> list = new ArrayList<>();
    List<SearchHits.ShardHit> nearest = new ArrayList<>();
    long total = 0;
    boolean exact = missing.isEmpty();
    boolean timedOut = false;
    for (SearchHits shard : shards) {
      list.addAll(shard.list());
      nearest.addAll(shard.nearest());
      total += shard.total();
      exact &= shard.totalIsExact() && !shard.timedOut();
      timedOut |= shard.timedOut();
    }
    if (shards.size() > 1) {
      list.sort(plan.order());
      nearest.sort(SearchHits.BY_SCORE);
    }
    List<SearchAnswer.Hit> hits = new ArrayList<>(k);
    String next = "";
    if (plan.isFused()) {
      for (SearchHits.Ranked ranked :
          first(
              SearchHits.fuse(List.of(first(list, plan.depth()), first(nearest, plan.depth()))),
              k)) {
        hits.add(hit(ranked.hit(), ranked.score()));
      }
    } else {
      List<SearchHits.ShardHit> best = first(plan.hasList() ? list : nearest, k);
      best.forEach(one -> hits.add(hit(one, one.score())));
      if (plan.hasList() && best.size() == k) {
        next = SearchPlan.next(best.getLast().sort());
      }
    }
    return new SearchAnswer(hits, missing, timedOut, stale, total, exact, next);
  }

  private static <T> List<T> first(List<T> all, int count) {
    return all.size() <= count ? all : all.subList(0, count);
  }

  private static SearchAnswer.Hit hit(SearchHits.ShardHit hit, double score) {
    return new SearchAnswer.Hit(hit.id(), score, hit.source(), hit.highlights());
  }

  @Override
  public void close() {
    waiters.shutdownNow();
  }
}

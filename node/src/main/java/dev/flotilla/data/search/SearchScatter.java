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
import java.io.IOException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Consumer;
import java.util.function.Function;
import java.util.function.LongSupplier;
import java.util.function.Supplier;
import org.apache.lucene.index.IndexReader;
import org.apache.lucene.index.MultiReader;
import org.apache.lucene.index.Term;
import org.apache.lucene.search.IndexSearcher;
import org.apache.lucene.store.AlreadyClosedException;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Searches all shards of an index, each on one of its replicas, and puts their hits together.
 *
 * <p>Shards that are all on this node are searched as one. Else there are two rounds, where words
 * are ranked and there is more than one shard: first all shards count the words, then each searches
 * with the sums, so that scores do not depend on how documents are spread. A replica that fails is
 * followed by another at once, and one that is slow by another beside it; the first to answer
 * counts. A shard none of whose replicas answers in time is missing from the answer, which says so.
 */
final class SearchScatter implements AutoCloseable {

  private static final Logger log = LoggerFactory.getLogger(SearchScatter.class);
  private static final long GRACE_MS = 250;

  /** The replicas of an index that was just made are up within this, as a rule. */
  private static final long FIRST_NS = 5_000_000_000L;

  private static final long FIRST_LOOK_MS = 20;
  private static final long MAJORITY_NS = 20_000_000;

  private record Majority(boolean seen, long atNs) {}

  private final Cluster cluster;
  private final Grid grid;
  private final IndexReplicas replicas;
  private final SearchPool pool;
  private final LongSupplier nanoTime;
  private final ExecutorService waiters = Executors.newVirtualThreadPerTaskExecutor();
  private final AtomicInteger turns = new AtomicInteger();

  /** Generations of which this node once gave a whole answer, or waited for one in vain. */
  private final Set<String> answered = ConcurrentHashMap.newKeySet();

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
    long beganNs = nanoTime.getAsLong();
    long deadlineNs = beganNs + (request.timeoutMs() + GRACE_MS) * 1_000_000;
    SearchAnswer answer = once(index, plan, deadlineNs, stale);
    if (answer.partial() && !answered.contains(index.generation())) {
      answer = untilWhole(index, plan, Math.min(deadlineNs, beganNs + FIRST_NS), stale, answer);
      answered.add(index.generation());
    } else if (!answer.partial()) {
      answered.add(index.generation());
    }
    if (answer.missingShards().size() == index.settings().shards()) {
      throw new FlotillaException(
          Code.UNAVAILABLE,
          "no replica of index " + index.name() + " answered",
          "They may be catching up; try again soon.");
    }
    if (answer.partial()) {
      partials.increment();
    }
    return answer;
  }

  /** Of an index that never answered whole, replicas may still be on their way: waits for them. */
  private SearchAnswer untilWhole(
      IndexCatalog.Known index, SearchPlan plan, long untilNs, boolean stale, SearchAnswer first) {
    SearchAnswer answer = first;
    while (answer.partial() && nanoTime.getAsLong() < untilNs) {
      try {
        Thread.sleep(FIRST_LOOK_MS);
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        throw new FlotillaException(Code.FAILED, "interrupted", "", e);
      }
      SearchAnswer now = once(index, plan, untilNs, stale);
      // Towards the end there is no time left for those that answered before.
      if (now.missingShards().size() <= answer.missingShards().size()) {
        answer = now;
      }
    }
    return answer;
  }

  private SearchAnswer once(
      IndexCatalog.Known index, SearchPlan plan, long deadlineNs, boolean stale) {
    return here(index, plan, deadlineNs)
        .map(best -> answer(plan, best, stale))
        .orElseGet(() -> everywhere(index, plan, deadlineNs, stale));
  }

  private SearchAnswer everywhere(
      IndexCatalog.Known index, SearchPlan plan, long deadlineNs, boolean stale) {
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

  /**
   * All shards as one, if all are here: a single search, which knows all frequencies by itself. On
   * the caller's own thread, unless that is a virtual one, which would keep others from running.
   */
  private Optional<ShardSearch.Best> here(
      IndexCatalog.Known index, SearchPlan plan, long deadlineNs) {
    List<IndexShard> shards = new ArrayList<>(index.settings().shards());
    for (int shard = 0; shard < index.settings().shards(); shard++) {
      Optional<IndexShard> replica = replicas.local(index.name(), index.generation(), shard);
      if (replica.isEmpty() || !replica.get().ready()) {
        return Optional.empty();
      }
      shards.add(replica.get());
    }
    if (!Thread.currentThread().isVirtual()) {
      return together(shards, plan);
    }
    CompletableFuture<Optional<ShardSearch.Best>> searching =
        pool.submit(() -> together(shards, plan));
    try {
      return searching.get(Math.max(1, deadlineNs - nanoTime.getAsLong()), TimeUnit.NANOSECONDS);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new FlotillaException(Code.FAILED, "interrupted", "", e);
    } catch (ExecutionException e) {
      Throwable cause = e.getCause() == null ? e : e.getCause();
      Optional<FlotillaException> refused = IndexShardService.refusal(cause);
      if (refused.isPresent()) {
        throw refused.get();
      }
      log.debug("not searched here: {}", cause.toString());
      return Optional.empty();
    } catch (TimeoutException e) {
      searching.cancel(true);
      return Optional.empty();
    }
  }

  /** Empty if one of them fails: asked one by one, it shows which. */
  private Optional<ShardSearch.Best> together(List<IndexShard> shards, SearchPlan plan) {
    List<IndexShard.Borrowed> borrowed = new ArrayList<>(shards.size());
    try {
      try {
        for (IndexShard shard : shards) {
          Optional<IndexShard.Borrowed> one = shard.borrow();
          if (one.isEmpty()) {
            return Optional.empty();
          }
          borrowed.add(one.get());
        }
        if (borrowed.size() == 1) {
          return Optional.of(
              new ShardSearch(plan, borrowed.getFirst().searcher(), null, nanoTime).best());
        }
        IndexReader[] readers =
            borrowed.stream()
                .map(one -> one.searcher().getIndexReader())
                .toArray(IndexReader[]::new);
        try (MultiReader all = new MultiReader(readers, false)) {
          return Optional.of(new ShardSearch(plan, new IndexSearcher(all), null, nanoTime).best());
        }
      } finally {
        for (IndexShard.Borrowed one : borrowed) {
          one.close();
        }
      }
    } catch (IOException | AlreadyClosedException e) {
      log.debug("not searched as one: {}", e.toString());
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
          } catch (ExecutionException e) {
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

  private static SearchAnswer answer(SearchPlan plan, ShardSearch.Best best, boolean stale) {
    List<SearchAnswer.Hit> hits = new ArrayList<>(best.hits().size());
    best.hits().forEach(one -> hits.add(hit(one.hit(), one.score())));
    String next =
        !plan.isFused() && plan.hasList() && hits.size() == plan.request().k()
            ? SearchPlan.next(best.hits().getLast().hit().sort())
            : "";
    return new SearchAnswer(
        hits, List.of(), best.timedOut(), stale, best.total(), best.totalIsExact(), next);
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
          SearchHits.first(
              SearchHits.fuse(
                  List.of(
                      SearchHits.first(list, plan.depth()),
                      SearchHits.first(nearest, plan.depth()))),
              k)) {
        hits.add(hit(ranked.hit(), ranked.score()));
      }
    } else {
      List<SearchHits.ShardHit> best = SearchHits.first(plan.hasList() ? list : nearest, k);
      best.forEach(one -> hits.add(hit(one, one.score())));
      if (plan.hasList() && best.size() == k) {
        next = SearchPlan.next(best.getLast().sort());
      }
    }
    return new SearchAnswer(hits, missing, timedOut, stale, total, exact, next);
  }

  private static SearchAnswer.Hit hit(SearchHits.ShardHit hit, double score) {
    return new SearchAnswer.Hit(hit.id(), score, hit.source(), hit.highlights());
  }

  @Override
  public void close() {
    waiters.shutdownNow();
  }
}

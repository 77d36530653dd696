package dev.flotilla.data.search;

import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.data.proto.IndexShardsGrpc;
import dev.flotilla.data.proto.ShardAddress;
import dev.flotilla.data.proto.ShardAwaitRequest;
import dev.flotilla.data.proto.ShardFrequencies;
import dev.flotilla.data.proto.ShardFrequenciesRequest;
import dev.flotilla.data.proto.ShardSearchReply;
import dev.flotilla.data.proto.ShardSearchRequest;
import dev.flotilla.data.proto.ShardState;
import io.grpc.Status;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** Answers other nodes for the replicas of this one. */
final class IndexShardService extends IndexShardsGrpc.IndexShardsImplBase {

  private static final Logger log = LoggerFactory.getLogger(IndexShardService.class);
  private static final int AWAIT_MS_MAX = 30_000;

  private final IndexCatalog catalog;
  private final IndexReplicas replicas;
  private final SearchPool pool;

  IndexShardService(IndexCatalog catalog, IndexReplicas replicas, SearchPool pool) {
    this.catalog = catalog;
    this.replicas = replicas;
    this.pool = pool;
  }

  private IndexShard replica(ShardAddress address) {
    return replicas.require(address.getIndex(), address.getGeneration(), address.getShard());
  }

  @Override
  public void frequencies(
      ShardFrequenciesRequest request, StreamObserver<ShardFrequencies> observer) {
    answer(
        observer,
        pool.submit(
            () ->
                SearchWire.toMessage(
                    replica(request.getAddress())
                        .frequencies(SearchWire.terms(request.getTermsList())))));
  }

  @Override
  public void search(ShardSearchRequest request, StreamObserver<ShardSearchReply> observer) {
    answer(observer, pool.submit(() -> SearchWire.toMessage(search(request))));
  }

  private SearchHits search(ShardSearchRequest request) {
    ShardAddress address = request.getAddress();
    IndexShard replica = replica(address);
    IndexSchema schema =
        catalog.require(address.getIndex(), address.getGeneration(), address.getEpoch()).schema();
    SearchRequest asked;
    try {
      asked = SearchRequest.fromJson(Json.MAPPER.readTree(request.getRequestJson().toByteArray()));
    } catch (IOException e) {
      throw new FlotillaException(
          FlotillaException.Code.INVALID, "not a search request: " + e.getMessage(), "", e);
    }
    return replica.search(
        SearchPlan.of(schema, asked),
        request.hasFrequencies() ? SearchWire.fromMessage(request.getFrequencies()) : null);
  }

  @Override
  public void await(ShardAwaitRequest request, StreamObserver<ShardState> observer) {
    ShardAddress address = request.getAddress();
    try {
      var _ =
          replicas.await(
              address.getIndex(),
              address.getGeneration(),
              address.getShard(),
              request.getSequence(),
              Math.min(request.getTimeoutMs(), AWAIT_MS_MAX));
      observer.onNext(stateOf(address));
      observer.onCompleted();
    } catch (FlotillaException e) {
      observer.onError(status(e).asRuntimeException());
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      observer.onError(Status.UNAVAILABLE.asRuntimeException());
    }
  }

  @Override
  public void state(ShardAddress address, StreamObserver<ShardState> observer) {
    try {
      observer.onNext(stateOf(address));
      observer.onCompleted();
    } catch (FlotillaException e) {
      observer.onError(status(e).asRuntimeException());
    }
  }

  private ShardState stateOf(ShardAddress address) {
    IndexShard replica = replica(address);
    SearchIndex.ReplicaStats stats = replica.stats("");
    return ShardState.newBuilder()
        .setState(stats.state())
        .setSearchable(stats.searchable())
        .setCommitted(replica.committed())
        .setDocuments(stats.documents())
        .setBytes(stats.bytes())
        .setSegments(stats.segments())
        .build();
  }

  private static <T> void answer(StreamObserver<T> observer, CompletableFuture<T> answer) {
    try {
      observer.onNext(answer.join());
      observer.onCompleted();
    } catch (CompletionException e) {
      if (e.getCause() instanceof FlotillaException known) {
        observer.onError(status(known).asRuntimeException());
      } else {
        log.error("a search failed", e.getCause());
        observer.onError(
            Status.INTERNAL.withDescription(String.valueOf(e.getCause())).asRuntimeException());
      }
    }
  }

  /** What another replica would refuse too is told from what it may do better. */
  private static Status status(FlotillaException e) {
    Status status =
        switch (e.code()) {
          case INVALID -> Status.INVALID_ARGUMENT;
          case TOO_LARGE -> Status.OUT_OF_RANGE;
          default -> Status.UNAVAILABLE;
        };
    return status.withDescription(e.explanation());
  }

  /** The inverse; empty for what another replica may do better. */
  static java.util.Optional<FlotillaException> refusal(Throwable failure) {
    if (failure instanceof FlotillaException known
        && (known.code() == FlotillaException.Code.INVALID
            || known.code() == FlotillaException.Code.TOO_LARGE)) {
      return java.util.Optional.of(known);
    }
    if (!(failure instanceof io.grpc.StatusRuntimeException remote)) {
      return java.util.Optional.empty();
    }
    String description = String.valueOf(remote.getStatus().getDescription());
    return switch (remote.getStatus().getCode()) {
      case INVALID_ARGUMENT ->
          java.util.Optional.of(
              new FlotillaException(FlotillaException.Code.INVALID, description, ""));
      case OUT_OF_RANGE ->
          java.util.Optional.of(
              new FlotillaException(FlotillaException.Code.TOO_LARGE, description, ""));
      default -> java.util.Optional.empty();
    };
  }
}

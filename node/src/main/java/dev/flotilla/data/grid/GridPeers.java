package dev.flotilla.data.grid;

import dev.flotilla.FlotillaException;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.data.proto.GridPeersGrpc;
import dev.flotilla.data.proto.GridStatus;
import dev.flotilla.data.proto.GridStatusRequest;
import io.grpc.stub.StreamObserver;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import java.util.function.LongSupplier;

/** What the grid's nodes say to each other about themselves, apart from the engine's own ways. */
final class GridPeers extends GridPeersGrpc.GridPeersImplBase {

  private record Answer(GridStatus status, long askedNs, long receivedNs) {}

  private static final long DEADLINE_MS = 1_000;
  private static final long FRESH_NS = 1_500_000_000L;

  private final Cluster cluster;
  private final Function<String, GridStatus> own;
  private final LongSupplier nanoTime;
  private final Map<String, Answer> answers = new ConcurrentHashMap<>();
  private final Set<String> asking = ConcurrentHashMap.newKeySet();

  /**
   * @param own this node's status, for the node that asks
   */
  GridPeers(Cluster cluster, Function<String, GridStatus> own, LongSupplier nanoTime) {
    this.cluster = cluster;
    this.own = own;
    this.nanoTime = nanoTime;
  }

  @Override
  public void status(GridStatusRequest request, StreamObserver<GridStatus> reply) {
    reply.onNext(own.apply(request.getAsker()));
    reply.onCompleted();
  }

  /** Asks every other node that is not being asked; answers come when they come. */
  void ask() {
    for (NodeInfo node : cluster.nodes()) {
      String id = node.id();
      if (id.equals(cluster.self()) || !asking.add(id)) {
        continue;
      }
      long askedNs = nanoTime.getAsLong();
      try {
        GridPeersGrpc.newStub(cluster.channel(id))
            .withDeadlineAfter(DEADLINE_MS, TimeUnit.MILLISECONDS)
            .status(
                GridStatusRequest.newBuilder().setAsker(cluster.self()).build(),
                new StreamObserver<>() {
                  @Override
                  public void onNext(GridStatus status) {
                    answers.put(id, new Answer(status, askedNs, nanoTime.getAsLong()));
                  }

                  @Override
                  public void onError(Throwable error) {
                    asking.remove(id);
                  }

                  @Override
                  public void onCompleted() {
                    asking.remove(id);
                  }
                });
      } catch (FlotillaException removedMeanwhile) {
        asking.remove(id);
      }
    }
  }

  /** What the nodes answered within the last moments, by id. */
  Map<String, GridStatus> fresh() {
    return fresh(nanoTime.getAsLong() - 2 * FRESH_NS);
  }

  /** The same, of those that were asked after a moment. */
  Map<String, GridStatus> fresh(long afterNs) {
    long now = nanoTime.getAsLong();
    Map<String, GridStatus> fresh = new ConcurrentHashMap<>();
    answers.forEach(
        (id, answer) -> {
          if (now - answer.receivedNs() < FRESH_NS && answer.askedNs() - afterNs > 0) {
            fresh.put(id, answer.status());
          }
        });
    return fresh;
  }

  /**
   * The last moment at which a majority of the members, this node included, certainly had this node
   * in its topology; long ago if never.
   */
  long confirmedNs(List<String> members) {
    List<Long> moments = new ArrayList<>();
    for (String member : members) {
      Answer answer = answers.get(member);
      if (member.equals(cluster.self())) {
        moments.add(nanoTime.getAsLong());
      } else if (answer != null && answer.status().getSeesAsker()) {
        moments.add(answer.askedNs());
      }
    }
    int majority = members.size() / 2 + 1;
    if (moments.size() < majority) {
      return nanoTime.getAsLong() - Long.MAX_VALUE / 2;
    }
    moments.sort(Comparator.reverseOrder());
    return moments.get(majority - 1);
  }
}

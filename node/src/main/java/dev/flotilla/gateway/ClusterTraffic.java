package dev.flotilla.gateway;

import dev.flotilla.FlotillaException;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.gateway.proto.ReportRequest;
import dev.flotilla.gateway.proto.TrafficReport;
import dev.flotilla.gateway.proto.TrafficReportsGrpc;
import io.grpc.stub.StreamObserver;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.function.LongSupplier;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** Sums up the traffic of all nodes: each reports its own, whoever is asked asks the others. */
final class ClusterTraffic extends TrafficReportsGrpc.TrafficReportsImplBase {

  private static final Logger log = LoggerFactory.getLogger(ClusterTraffic.class);
  private static final long PEER_TIMEOUT_MS = 400;
  private static final long FRESH_NS = 300_000_000L;

  private final Cluster cluster;
  private final Traffic traffic;
  private final LongSupplier nanoTime;
  private Map<String, TrafficReport> latest = Map.of();
  private long latestNs;

  ClusterTraffic(Cluster cluster, Traffic traffic, LongSupplier nanoTime) {
    this.cluster = cluster;
    this.traffic = traffic;
    this.nanoTime = nanoTime;
  }

  @Override
  public void report(ReportRequest request, StreamObserver<TrafficReport> reply) {
    reply.onNext(own());
    reply.onCompleted();
  }

  private TrafficReport own() {
    return TrafficReport.newBuilder()
        .setTokensPerSecond(traffic.tokensPerSecond())
        .setRequestsRunning(traffic.requestsRunning())
        .build();
  }

  /** What each node that answers reports, by id; at most a third of a second old. */
  synchronized Map<String, TrafficReport> reports() throws InterruptedException {
    long now = nanoTime.getAsLong();
    if (latest.isEmpty() || now - latestNs > FRESH_NS) {
      latest = ask();
      latestNs = nanoTime.getAsLong();
    }
    return latest;
  }

  private Map<String, TrafficReport> ask() throws InterruptedException {
    Map<String, Future<TrafficReport>> asked = new LinkedHashMap<>();
    for (NodeInfo node : cluster.nodes()) {
      if (!node.id().equals(cluster.self()) && node.state() != NodeInfo.State.LOST) {
        try {
          Future<TrafficReport> report =
              TrafficReportsGrpc.newFutureStub(cluster.channel(node.id()))
                  .withDeadlineAfter(PEER_TIMEOUT_MS, TimeUnit.MILLISECONDS)
                  .report(ReportRequest.getDefaultInstance());
          asked.put(node.id(), report);
        } catch (FlotillaException e) {
          log.debug("{} left the cluster since it was listed", node.id());
        }
      }
    }
    Map<String, TrafficReport> reports = new LinkedHashMap<>();
    reports.put(cluster.self(), own());
    for (Map.Entry<String, Future<TrafficReport>> entry : asked.entrySet()) {
      try {
        reports.put(entry.getKey(), entry.getValue().get());
      } catch (ExecutionException e) {
        // Its state shows that it is away; here it counts for nothing.
        log.debug("{} does not report its traffic: {}", entry.getKey(), e.getMessage());
      }
    }
    return reports;
  }
}

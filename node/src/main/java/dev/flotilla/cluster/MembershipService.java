package dev.flotilla.cluster;

import dev.flotilla.cluster.proto.EnterReply;
import dev.flotilla.cluster.proto.EnterRequest;
import dev.flotilla.cluster.proto.MembershipGrpc;
import dev.flotilla.cluster.proto.PingReply;
import dev.flotilla.cluster.proto.PingRequest;
import io.grpc.Status;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.time.InstantSource;
import java.util.function.LongSupplier;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** What every node answers to the others about itself, and the leader about the group. */
final class MembershipService extends MembershipGrpc.MembershipImplBase {

  private static final Logger LOG = LoggerFactory.getLogger(MembershipService.class);

  private final String self;
  private final LongSupplier incarnation;
  private final InstantSource clock;
  private final RaftRegistry registry;

  MembershipService(
      String self, LongSupplier incarnation, InstantSource clock, RaftRegistry registry) {
    this.self = self;
    this.incarnation = incarnation;
    this.clock = clock;
    this.registry = registry;
  }

  @Override
  public void ping(PingRequest request, StreamObserver<PingReply> observer) {
    observer.onNext(
        PingReply.newBuilder()
            .setNode(self)
            .setIncarnation(incarnation.getAsLong())
            .setClockMs(clock.millis())
            .build());
    observer.onCompleted();
  }

  @Override
  public void enter(EnterRequest request, StreamObserver<EnterReply> observer) {
    if (!request.getNode().equals(ClusterNode.PEER.get())) {
      observer.onError(
          Status.PERMISSION_DENIED
              .withDescription("node " + ClusterNode.PEER.get() + " cannot enter as another")
              .asRuntimeException());
      return;
    }
    try {
      boolean entered = registry.admit(request.getNode(), request.getHost(), request.getRaftPort());
      observer.onNext(
          EnterReply.newBuilder()
              .setEntered(entered)
              .setLeader(registry.leader().orElse(""))
              .build());
      observer.onCompleted();
    } catch (IOException | RuntimeException e) {
      LOG.warn("{}: node {} could not enter", self, request.getNode(), e);
      observer.onError(
          Status.UNAVAILABLE.withDescription(RaftRegistry.rootCause(e)).asRuntimeException());
    }
  }
}

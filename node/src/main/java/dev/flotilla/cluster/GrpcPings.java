package dev.flotilla.cluster;

import com.google.common.util.concurrent.FutureCallback;
import com.google.common.util.concurrent.Futures;
import dev.flotilla.cluster.proto.MembershipGrpc;
import dev.flotilla.cluster.proto.PingReply;
import dev.flotilla.cluster.proto.PingRequest;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;

/** Pings as calls of the membership service. */
final class GrpcPings implements Pings {

  private static final long TIMEOUT_MS = 1_500;

  private final String self;
  private final ClockWatch clocks;
  private final Function<NodeInfo, ManagedChannel> channels;

  GrpcPings(String self, ClockWatch clocks, Function<NodeInfo, ManagedChannel> channels) {
    this.self = self;
    this.clocks = clocks;
    this.channels = channels;
  }

  @Override
  public void ping(NodeInfo node, Consumer<Outcome> outcome) {
    ManagedChannel channel = channels.apply(node);
    Futures.addCallback(
        MembershipGrpc.newFutureStub(channel)
            .withDeadlineAfter(TIMEOUT_MS, TimeUnit.MILLISECONDS)
            .ping(PingRequest.newBuilder().setFromNode(self).build()),
        new FutureCallback<>() {
          @Override
          public void onSuccess(@Nullable PingReply reply) {
            if (reply != null) {
              clocks.heard(node.id(), reply.getClockMs());
            }
            outcome.accept(reply == null ? new Silent() : new Answered(reply.getIncarnation()));
          }

          @Override
          public void onFailure(Throwable thrown) {
            boolean refused = Status.fromThrowable(thrown).getCode() == Status.Code.UNAVAILABLE;
            outcome.accept(refused ? new Refused() : new Silent());
            if (refused) {
              // So that the next ping tries again, rather than wait for the channel's back-off.
              channel.resetConnectBackoff();
            }
          }
        },
        Runnable::run);
  }
}

package dev.flotilla.cluster;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import io.grpc.ClientInterceptor;
import io.grpc.ManagedChannel;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.netty.shaded.io.netty.handler.ssl.SslContext;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.TimeUnit;

/** One kept channel per node, replaced when the node's address changes. */
final class PeerChannels implements AutoCloseable {

  static final int MAX_MESSAGE_BYTES = 64 << 20;

  private record Kept(String host, int port, long incarnation, ManagedChannel channel) {}

  private final SslContext ssl;
  private final ClientInterceptor interceptor;
  private final Map<String, Kept> kept = new HashMap<>();
  private boolean closed;

  /**
   * @param interceptor of all calls
   */
  PeerChannels(SslContext ssl, ClientInterceptor interceptor) {
    this.ssl = ssl;
    this.interceptor = interceptor;
  }

  synchronized ManagedChannel to(String nodeId, String host, int servicePort, long incarnation) {
    if (closed) {
      throw new FlotillaException(Code.UNAVAILABLE, "this node is stopping", "");
    }
    Kept current = kept.get(nodeId);
    if (current != null && current.host.equals(host) && current.port == servicePort) {
      return current.channel;
    }
    if (current != null) {
      current.channel.shutdown();
    }
    ManagedChannel channel = open(nodeId, host, servicePort);
    kept.put(nodeId, new Kept(host, servicePort, incarnation, channel));
    return channel;
  }

  /** Follows what the registry says of the nodes. */
  synchronized void follow(List<NodeInfo> nodes) {
    Map<String, NodeInfo> byId = new HashMap<>();
    nodes.forEach(node -> byId.put(node.id(), node));
    for (String nodeId : List.copyOf(kept.keySet())) {
      Kept current = kept.get(nodeId);
      Optional<NodeInfo> node = Optional.ofNullable(byId.get(nodeId));
      if (current == null || node.isEmpty()) {
        continue;
      }
      NodeInfo info = node.get();
      if (!current.host.equals(info.host()) || current.port != info.httpPort() + 1) {
        current.channel.shutdown();
        kept.remove(nodeId);
      } else if (current.incarnation != info.incarnation()) {
        // It started again: do not wait for the back-off of the attempts that failed meanwhile.
        current.channel.resetConnectBackoff();
        kept.put(nodeId, new Kept(current.host, current.port, info.incarnation(), current.channel));
      }
    }
  }

  private ManagedChannel open(String nodeId, String host, int servicePort) {
    return NettyChannelBuilder.forAddress(host, servicePort)
        .overrideAuthority(Tls.authorityOf(nodeId))
        .sslContext(ssl)
        .intercept(interceptor)
        .maxInboundMessageSize(MAX_MESSAGE_BYTES)
        .keepAliveTime(5, TimeUnit.SECONDS)
        .keepAliveTimeout(5, TimeUnit.SECONDS)
        .disableRetry()
        .build();
  }

  @Override
  public void close() {
    List<Kept> closing;
    synchronized (this) {
      closed = true;
      closing = new ArrayList<>(kept.values());
      kept.clear();
    }
    closing.forEach(one -> one.channel.shutdownNow());
    for (Kept one : closing) {
      try {
        one.channel.awaitTermination(2, TimeUnit.SECONDS);
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        return;
      }
    }
  }
}

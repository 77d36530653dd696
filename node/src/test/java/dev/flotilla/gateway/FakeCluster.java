package dev.flotilla.gateway;

import dev.flotilla.FlotillaException;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.cluster.Registry;
import io.grpc.BindableService;
import io.grpc.ManagedChannel;
import io.grpc.Server;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ConcurrentHashMap;
import javax.net.ssl.SSLContext;

/** A membership whose nodes and states a test sets; gRPC between them is real, without TLS. */
final class FakeCluster implements Cluster {

  @Override
  public void remove(String nodeId) {
    throw new UnsupportedOperationException();
  }

  @Override
  public boolean isMember(String nodeId) {
    return true;
  }

  @Override
  public dev.flotilla.cluster.DiskSpace disk() {
    return dev.flotilla.cluster.DiskSpace.of(
        self(), java.nio.file.Path.of(System.getProperty("java.io.tmpdir")));
  }

  private final String self;
  private final FakeRegistry registry;
  private final Map<String, Integer> peerPorts = new ConcurrentHashMap<>();
  private final Map<String, ManagedChannel> channels = new LinkedHashMap<>();
  private final List<BindableService> services = new ArrayList<>();
  private Optional<Server> server = Optional.empty();

  volatile List<NodeInfo> nodes;
  volatile Optional<String> leader;

  FakeCluster(String self, FakeRegistry registry, List<NodeInfo> nodes) {
    this.self = self;
    this.registry = registry;
    this.nodes = nodes;
    this.leader = Optional.of(nodes.getFirst().id());
  }

  static NodeInfo node(String id, NodeInfo.State state) {
    return new NodeInfo(
        id, id, "127.0.0.1", 8000, "0.1.0", 4711, 1, state, Map.of("memory_bytes", 8e9));
  }

  void connect(String peer, FakeCluster other) {
    peerPorts.put(peer, other.server.orElseThrow().getPort());
  }

  @Override
  public String self() {
    return self;
  }

  @Override
  public List<NodeInfo> nodes() {
    return nodes;
  }

  @Override
  public Optional<String> leader() {
    return leader;
  }

  @Override
  public Registry registry() {
    return registry;
  }

  @Override
  public synchronized ManagedChannel channel(String nodeId) {
    Integer port = peerPorts.get(nodeId);
    if (port == null) {
      throw new FlotillaException(FlotillaException.Code.NOT_FOUND, "no node " + nodeId, "");
    }
    return channels.computeIfAbsent(
        nodeId,
        id ->
            NettyChannelBuilder.forAddress(
                    new InetSocketAddress(InetAddress.getLoopbackAddress(), port))
                .usePlaintext()
                .build());
  }

  @Override
  public void addService(BindableService service) {
    services.add(service);
  }

  @Override
  public void addReconciler(Reconciler reconciler) {
    // Nobody leads here.
  }

  @Override
  public SSLContext tls() {
    throw new UnsupportedOperationException();
  }

  @Override
  public void start() {
    NettyServerBuilder builder =
        NettyServerBuilder.forAddress(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0));
    services.forEach(builder::addService);
    try {
      server = Optional.of(builder.build().start());
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  @Override
  public synchronized void close() {
    channels.values().forEach(ManagedChannel::shutdownNow);
    server.ifPresent(Server::shutdownNow);
  }
}

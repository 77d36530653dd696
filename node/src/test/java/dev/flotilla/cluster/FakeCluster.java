package dev.flotilla.cluster;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import io.grpc.BindableService;
import io.grpc.ManagedChannel;
import io.grpc.Server;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.TimeUnit;
import javax.net.ssl.SSLContext;

/**
 * A node's membership without Raft, failure detection and TLS: a test says who is in the cluster,
 * in what state, and who leads. gRPC between the nodes is real, over loopback.
 */
public final class FakeCluster implements Cluster, Cluster.Leadership {

  private final String self;
  private final FakeRegistry registry;
  private final Map<String, FakeCluster> peers = new ConcurrentHashMap<>();
  private final Map<String, ManagedChannel> channels = new ConcurrentHashMap<>();
  private final List<BindableService> services = new ArrayList<>();
  private final List<Reconciler> reconcilers = new CopyOnWriteArrayList<>();
  private Optional<Server> server = Optional.empty();
  private int port;
  private volatile List<NodeInfo> nodes;
  private volatile Optional<String> leader;

  /** A node of a cluster that the first of the nodes leads. */
  public FakeCluster(String self, FakeRegistry registry, List<NodeInfo> nodes) {
    this.self = self;
    this.registry = registry;
    this.nodes = nodes;
    this.leader = nodes.stream().findFirst().map(NodeInfo::id);
  }

  /** A node of this name, in this state. */
  public static NodeInfo node(String id, NodeInfo.State state) {
    return node(id, state, Map.of("memory_bytes", 8e9));
  }

  /** A node of this name, in this state. */
  public static NodeInfo node(String id, NodeInfo.State state, Map<String, Double> profile) {
    return new NodeInfo(id, id, "127.0.0.1", 8000, "0.1.0", 4711, 1, state, profile);
  }

  /** Makes a started one reachable from here. */
  public void connect(FakeCluster peer) {
    peers.put(peer.self, peer);
  }

  /** Who is in the cluster now, as this node sees it. */
  public void nodes(List<NodeInfo> now) {
    nodes = now;
  }

  /** Who leads now. */
  public void leader(Optional<String> now) {
    leader = now;
  }

  /** Its streams, in both directions, break; nobody has noticed yet. */
  public void kill() {
    server.ifPresent(Server::shutdownNow);
    channels.values().forEach(ManagedChannel::shutdownNow);
  }

  /** One pass of every reconciler, as on the leader. */
  public void reconcile() {
    reconcilers.forEach(each -> each.reconcile(this));
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
  public List<NodeInfo> aliveNodes() {
    return nodes.stream().filter(node -> node.state() != NodeInfo.State.LOST).toList();
  }

  @Override
  public Optional<Long> commit(List<Registry.Condition> conditions, List<Registry.Write> writes) {
    return registry.commit(conditions, writes);
  }

  @Override
  public Optional<String> leader() {
    return leader;
  }

  @Override
  public FakeRegistry registry() {
    return registry;
  }

  @Override
  public ManagedChannel channel(String nodeId) {
    FakeCluster peer = peers.get(nodeId);
    if (peer == null) {
      throw new FlotillaException(Code.NOT_FOUND, "no node " + nodeId, "");
    }
    return channels.computeIfAbsent(
        nodeId, id -> NettyChannelBuilder.forAddress(loopback(peer.port)).usePlaintext().build());
  }

  private static InetSocketAddress loopback(int port) {
    return new InetSocketAddress(InetAddress.getLoopbackAddress(), port);
  }

  @Override
  public void addService(BindableService service) {
    services.add(service);
  }

  @Override
  public void addReconciler(Reconciler reconciler) {
    reconcilers.add(reconciler);
  }

  @Override
  public void remove(String nodeId) {
    throw new UnsupportedOperationException();
  }

  @Override
  public boolean isMember(String nodeId) {
    return true;
  }

  @Override
  public void publish(Map<String, Double> profile) {
    nodes =
        nodes.stream()
            .map(node -> node.id().equals(self) ? node.withProfile(profile) : node)
            .toList();
  }

  @Override
  public void drain(String nodeId, boolean drained) {
    var _ =
        registry.commit(
            List.of(),
            List.of(
                new Registry.Write(
                    Controller.drainKey(nodeId),
                    drained ? Optional.of(new byte[] {'1'}) : Optional.empty())));
    NodeInfo.State state = drained ? NodeInfo.State.DRAINING : NodeInfo.State.UP;
    nodes =
        nodes.stream()
            .map(node -> node.id().equals(nodeId) ? node.withState(state) : node)
            .toList();
  }

  @Override
  public DiskSpace disk() {
    return DiskSpace.of(self, Path.of(System.getProperty("java.io.tmpdir")));
  }

  @Override
  public SSLContext tls() {
    throw new UnsupportedOperationException();
  }

  @Override
  public void start() {
    NettyServerBuilder builder = NettyServerBuilder.forAddress(loopback(0));
    services.forEach(builder::addService);
    try {
      server = Optional.of(builder.build().start());
      port = server.get().getPort();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  @Override
  public void close() {
    kill();
    try {
      if (server.isPresent()) {
        var _ = server.get().awaitTermination(5, TimeUnit.SECONDS);
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }
}

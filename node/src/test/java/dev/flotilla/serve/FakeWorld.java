package dev.flotilla.serve;

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
import java.net.InetSocketAddress;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.TimeUnit;
import javax.net.ssl.SSLContext;

/**
 * Several nodes in one process around one in-memory registry: the semantics of {@link Cluster}
 * without Raft, failure detection and TLS, so that a test decides when a node is lost and noticed.
 * Streams are real gRPC over loopback.
 */
final class FakeWorld implements AutoCloseable {

  private final Map<Registry.Key, Registry.Entry> entries = new LinkedHashMap<>();
  private final List<Runnable> subscribers = new CopyOnWriteArrayList<>();
  private final Map<String, Node> nodes = new TreeMap<>();
  private long index;
  private String leader = "";
  private volatile boolean closed;
  private final Thread controller =
      Thread.ofPlatform().name("fake-controller").daemon().unstarted(this::control);

  synchronized Node add(String id, long memoryBytes) {
    Node node = addWithoutController(id, memoryBytes);
    if (leader.isEmpty()) {
      leader = id;
      controller.start();
    }
    return node;
  }

  /** For tests that are the controller themselves. */
  synchronized Node addWithoutController(String id, long memoryBytes) {
    Node node = new Node(id, memoryBytes);
    nodes.put(id, node);
    return node;
  }

  Node node(String id) {
    return nodes.get(id);
  }

  /** Kills a node's process: its streams break; nobody has noticed yet. */
  void kill(String id) {
    Node node = nodes.get(id);
    node.server.shutdownNow();
    nodes.values().forEach(n -> n.drop(id));
    node.dropAll();
  }

  /** The failure detector speaks. */
  void notice(String id, NodeInfo.State state) {
    synchronized (this) {
      nodes.get(id).state = state;
      if (leader.equals(id)) {
        leader =
            nodes.values().stream()
                .filter(n -> n.state == NodeInfo.State.UP)
                .map(Node::self)
                .findFirst()
                .orElse("");
      }
    }
    changed();
  }

  private void changed() {
    subscribers.forEach(Runnable::run);
  }

  private void control() {
    while (!closed) {
      Node acting;
      synchronized (this) {
        acting = nodes.get(leader);
      }
      if (acting != null) {
        for (Cluster.Reconciler reconciler : acting.reconcilers) {
          reconciler.reconcile(acting);
        }
      }
      try {
        Thread.sleep(20);
      } catch (InterruptedException e) {
        return;
      }
    }
  }

  @Override
  public void close() throws Exception {
    closed = true;
    controller.join();
    for (Node node : nodes.values()) {
      node.close();
    }
  }

  final class Node implements Cluster, Registry, Cluster.Leadership {

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

    private final String id;
    private final long memoryBytes;
    private final List<BindableService> services = new ArrayList<>();
    private final List<Reconciler> reconcilers = new CopyOnWriteArrayList<>();
    private final Map<String, ManagedChannel> channels = new ConcurrentHashMap<>();
    private volatile NodeInfo.State state = NodeInfo.State.UP;
    private Server server;
    private int port;

    Node(String id, long memoryBytes) {
      this.id = id;
      this.memoryBytes = memoryBytes;
    }

    NodeInfo info() {
      return new NodeInfo(
          id,
          id,
          "127.0.0.1",
          0,
          "test",
          0,
          1,
          state,
          Map.of(
              NodeProfile.MEMORY_BYTES,
              (double) memoryBytes,
              NodeProfile.WEIGHT_BYTES_PER_SECOND,
              1e9));
    }

    @Override
    public String self() {
      return id;
    }

    @Override
    public List<NodeInfo> nodes() {
      synchronized (FakeWorld.this) {
        return FakeWorld.this.nodes.values().stream().map(Node::info).toList();
      }
    }

    @Override
    public Optional<String> leader() {
      return Optional.of(leader);
    }

    @Override
    public Registry registry() {
      return this;
    }

    @Override
    public ManagedChannel channel(String nodeId) {
      Node peer = FakeWorld.this.nodes.get(nodeId);
      if (peer == null) {
        throw new FlotillaException(FlotillaException.Code.NOT_FOUND, "no node " + nodeId, "");
      }
      return channels.computeIfAbsent(
          nodeId,
          n -> NettyChannelBuilder.forAddress("127.0.0.1", peer.port).usePlaintext().build());
    }

    void drop(String nodeId) {
      ManagedChannel channel = channels.get(nodeId);
      if (channel != null) {
        channel.shutdownNow();
      }
    }

    void dropAll() {
      channels.values().forEach(ManagedChannel::shutdownNow);
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
    public SSLContext tls() {
      throw new UnsupportedOperationException();
    }

    @Override
    public void start() {
      NettyServerBuilder builder =
          NettyServerBuilder.forAddress(new InetSocketAddress("127.0.0.1", 0));
      services.forEach(builder::addService);
      try {
        server = builder.build().start();
        port = server.getPort();
      } catch (IOException e) {
        throw new IllegalStateException(e);
      }
    }

    @Override
    public void close() {
      dropAll();
      server.shutdownNow();
      try {
        server.awaitTermination(5, TimeUnit.SECONDS);
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
      }
    }

    @Override
    public Optional<Entry> get(Key key) {
      synchronized (FakeWorld.this) {
        return Optional.ofNullable(entries.get(key));
      }
    }

    @Override
    public List<Entry> list(String kind) {
      synchronized (FakeWorld.this) {
        return entries.values().stream()
            .filter(e -> e.key().kind().equals(kind))
            .sorted((a, b) -> a.key().name().compareTo(b.key().name()))
            .toList();
      }
    }

    @Override
    public long revision() {
      return index;
    }

    @Override
    public void sync() {}

    @Override
    public List<NodeInfo> aliveNodes() {
      return nodes().stream().filter(n -> n.state() == NodeInfo.State.UP).toList();
    }

    @Override
    public Optional<Long> commit(List<Condition> conditions, List<Write> writes) {
      long epoch;
      synchronized (FakeWorld.this) {
        for (Condition condition : conditions) {
          Entry entry = entries.get(condition.key());
          if ((entry == null ? 0 : entry.epoch()) != condition.epoch()) {
            return Optional.empty();
          }
        }
        epoch = ++index;
        for (Write write : writes) {
          if (write.value().isPresent()) {
            entries.put(write.key(), new Entry(write.key(), write.value().get(), epoch));
          } else {
            entries.remove(write.key());
          }
        }
      }
      changed();
      return Optional.of(epoch);
    }

    @Override
    public AutoCloseable subscribe(Runnable onChange) {
      subscribers.add(onChange);
      onChange.run();
      return () -> subscribers.remove(onChange);
    }
  }
}

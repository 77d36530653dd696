package dev.flotilla.cluster;

import com.google.common.util.concurrent.ListenableFuture;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.cluster.proto.EnterReply;
import dev.flotilla.cluster.proto.EnterRequest;
import dev.flotilla.cluster.proto.MembershipGrpc;
import dev.flotilla.cluster.proto.PingReply;
import dev.flotilla.cluster.proto.PingRequest;
import io.grpc.BindableService;
import io.grpc.Context;
import io.grpc.Contexts;
import io.grpc.Grpc;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Server;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.cert.X509Certificate;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLPeerUnverifiedException;
import javax.net.ssl.SSLSession;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * One node of a cluster: its identity, its copy of the registry, its ports, and, while it leads,
 * the controller.
 *
 * <p>A cluster starts with one node, which is also the only voter. The second and third become
 * voters when they join; later ones are listeners: they hold a copy and decide nothing. With
 * exactly two nodes the loss of either stops all decisions, because one of two is no majority; with
 * three, any one may die.
 */
public final class ClusterNode implements Cluster {

  /** The id of the node that makes the current call, for services added to this node. */
  public static final Context.Key<String> PEER = Context.key("flotilla-peer");

  static final Duration TOKEN_LIFETIME = Duration.ofHours(1);

  private static final Logger LOG = LoggerFactory.getLogger(ClusterNode.class);
  private static final long ENTER_TIMEOUT_NS = 30_000_000_000L;
  private static final long WAITING_NOTE_NS = 10_000_000_000L;
  private static final long ASK_NS = 3_000_000_000L;
  private static final long AGE_PATIENCE_MS = 2_000;
  private static final long VERSION_TIMEOUT_MS = 1_500;

  private final ClusterConfig config;
  private final Identity identity;
  private final NodeFiles.Lock lock;
  private final Tls tls;
  private final DiskSpace disk;
  private final RaftRegistry registry;
  private final VersionCheck versions;
  private final PeerChannels channels;
  private final FolderAge age;
  private final ClockWatch clocks;
  private final List<BindableService> services = new ArrayList<>();
  private final ClusterCore core;
  private final ExecutorService calls = Executors.newVirtualThreadPerTaskExecutor();

  private @Nullable Server server;
  private @Nullable JoinServer joinServer;
  private volatile boolean closed;
  private volatile @Nullable Runnable whenRemoved;
  private final AtomicBoolean removalNoticed = new AtomicBoolean();

  private ClusterNode(
      ClusterConfig config, Identity identity, NodeFiles.Lock lock, RaftRegistry.Tuning tuning) {
    this.config = config;
    this.identity = identity;
    this.lock = lock;
    this.tls = new Tls(identity, this::nodeAt, this::isRemoved);
    this.disk = DiskSpace.of(identity.nodeId(), config.dataFolder());
    this.registry =
        new RaftRegistry(
            config, identity, tls.raft(), identity.facts().peers().isEmpty(), tuning, disk);
    this.age = new FolderAge(config.dataFolder());
    this.clocks = new ClockWatch(identity.nodeId(), config.clock());
    this.versions = new VersionCheck(identity.nodeId(), config.version());
    this.channels = new PeerChannels(tls.client(), versions.saying());
    this.core =
        new ClusterCore(
            identity.nodeId(),
            registry,
            registry,
            new GrpcPings(identity.nodeId(), clocks, this::channel),
            threads());
    RefusedHandshakes.report();
  }

  /**
   * The node whose identity is in the data folder, or, if that has none, the first node of a new
   * cluster. Ports open at {@link #start}.
   *
   * @throws FlotillaException {@code CONFLICT} if another process uses the folder, or the node in
   *     it lives at another address; {@code BAD_FILE} if its files are damaged; {@code STORAGE} if
   *     the disk is full or not writable
   */
  public static ClusterNode create(ClusterConfig config) {
    return create(config, RaftRegistry.Tuning.DEFAULT);
  }

  static ClusterNode create(ClusterConfig config, RaftRegistry.Tuning tuning) {
    return open(config, tuning, () -> founded(config));
  }

  /**
   * A node that joins the cluster of which one node's HTTP API is at the address: proves itself
   * with the token, and gets an id and a certificate. If the data folder holds a node of that
   * cluster already, this is the same as {@link #create}, so that a node can always be started by
   * the same command.
   *
   * @param address {@code HOST:PORT} of the HTTP API
   * @param token from {@link #invite}
   * @throws FlotillaException {@code UNAUTHENTICATED} for a token that is wrong, used, expired or
   *     of another cluster; {@code INVALID} for a malformed token, another version or a wrong
   *     clock; {@code CONFLICT} if the data folder belongs to another cluster; {@code UNAVAILABLE}
   *     if nobody answers; and as {@link #create}
   */
  public static ClusterNode join(ClusterConfig config, String address, String token) {
    return join(config, address, token, RaftRegistry.Tuning.DEFAULT);
  }

  static ClusterNode join(
      ClusterConfig config, String address, String token, RaftRegistry.Tuning tuning) {
    JoinToken parsed = JoinToken.parse(token);
    Optional<Identity> existing = Identity.load(config.dataFolder());
    if (existing.isPresent()
        && !MessageDigest.isEqual(
            CertificateAuthority.fingerprint(existing.get().authority()),
            parsed.authorityFingerprint())) {
      // Before the folder is locked, so that nothing in it is touched.
      throw new FlotillaException(
          Code.CONFLICT,
          "data folder "
              + config.dataFolder()
              + " belongs to node "
              + existing.get().nodeId()
              + " of cluster "
              + existing.get().clusterId()
              + ", and the token is for another cluster",
          "Choose another --data folder for the new node, or start this one without --join.");
    }
    return open(
        config,
        tuning,
        () -> {
          if (existing.isPresent()) {
            return existing.get();
          }
          checkNoOrphans(config.dataFolder());
          return JoinClient.join(config, address, parsed);
        });
  }

  private static ClusterNode open(
      ClusterConfig config,
      RaftRegistry.Tuning tuning,
      java.util.function.Supplier<Identity> identify) {
    NodeFiles.Lock lock = NodeFiles.lock(config.dataFolder());
    try {
      Identity identity = identify.get();
      if (Files.exists(removalNote(config.dataFolder()))) {
        throw removed(identity, config.dataFolder());
      }
      checkAddress(config, identity);
      return new ClusterNode(config, identity, lock, tuning);
    } catch (RuntimeException e) {
      lock.close();
      throw e;
    }
  }

  private static Identity founded(ClusterConfig config) {
    return Identity.load(config.dataFolder())
        .orElseGet(
            () -> {
              checkNoOrphans(config.dataFolder());
              Identity identity = Identity.found(config);
              identity.save(config.dataFolder());
              LOG.info("new cluster {}, first node {}", identity.clusterId(), identity.nodeId());
              return identity;
            });
  }

  private static void checkNoOrphans(Path dataFolder) {
    try {
      if (!NodeFiles.isEmptyOrAbsent(dataFolder.resolve("data").resolve("raft"))) {
        throw new FlotillaException(
            Code.BAD_FILE,
            "data folder " + dataFolder + " holds a registry but no certificates",
            "Restore its certs folder from a backup, or choose an empty --data folder.");
      }
    } catch (IOException e) {
      throw NodeFiles.storage("cannot read " + dataFolder, e);
    }
  }

  private static void checkAddress(ClusterConfig config, Identity identity) {
    Identity.Facts facts = identity.facts();
    if (!facts.host().equals(config.advertisedHost()) || facts.httpPort() != config.httpPort()) {
      throw new FlotillaException(
          Code.CONFLICT,
          "the node in data folder "
              + config.dataFolder()
              + " is known to its cluster at "
              + facts.host()
              + ":"
              + facts.httpPort()
              + ", not at "
              + config.advertisedHost()
              + ":"
              + config.httpPort(),
          "Start it with --port "
              + facts.httpPort()
              + " at that address; to move it, join a new node and remove this one.");
    }
  }

  /**
   * A one-time token that lets one node join within an hour; only its hash is kept.
   *
   * @return one word, to be given to {@code --token}
   */
  public String invite() {
    Instant now = config.clock().instant();
    JoinToken token =
        JoinToken.create(
            CertificateAuthority.fingerprint(identity.authority()), now.plus(TOKEN_LIFETIME));
    Registry.Key key = new Registry.Key(JoinServer.TOKEN_KIND, JoinToken.hash(token.secret()));
    JoinServer.Invitation invitation =
        new JoinServer.Invitation(token.expiresAt().toEpochMilli(), "", "");
    List<Registry.Write> writes = new ArrayList<>();
    writes.add(new Registry.Write(key, Optional.of(Json.write(invitation))));
    // Old ones are kept for a day, so that a late try is told what is wrong with its token.
    Instant forget = now.minus(Duration.ofDays(1));
    for (Registry.Entry entry : registry.list(JoinServer.TOKEN_KIND)) {
      if (Json.read(entry.value(), JoinServer.Invitation.class).expiresAtMs()
          < forget.toEpochMilli()) {
        writes.add(new Registry.Write(entry.key(), Optional.empty()));
      }
    }
    if (registry.commit(List.of(new Registry.Condition(key, 0)), writes).isEmpty()) {
      throw new IllegalStateException("two random secrets are equal");
    }
    return token.text();
  }

  @Override
  public void remove(String nodeId) {
    if (nodeId.equals(self())) {
      throw new FlotillaException(
          Code.CONFLICT, "a node cannot remove itself", "Ask another node of the cluster.");
    }
    registry.sync();
    Registry.Key key = ClusterCore.nodeKey(nodeId);
    if (registry.get(key).isEmpty()) {
      throw noSuchNode(nodeId);
    }
    checkVotersLeft(nodeId);
    registry.commit(
        List.of(),
        List.of(
            new Registry.Write(key, Optional.empty()),
            new Registry.Write(
                new Registry.Key(Controller.REMOVED_KIND, nodeId), Optional.of(Json.write(nodeId))),
            new Registry.Write(Controller.drainKey(nodeId), Optional.empty())));
  }

  @Override
  public void drain(String nodeId, boolean drained) {
    core.drain(nodeId, drained);
  }

  /** The group can change only if a majority of those that are left answers. */
  private void checkVotersLeft(String nodeId) {
    List<String> left = new ArrayList<>(registry.voters());
    left.remove(nodeId);
    List<String> up =
        nodes().stream()
            .filter(node -> node.state() != NodeInfo.State.LOST)
            .map(NodeInfo::id)
            .toList();
    List<String> away = left.stream().filter(id -> !up.contains(id)).toList();
    if (2 * away.size() >= left.size()) {
      throw new FlotillaException(
          Code.CONFLICT,
          "without node "
              + nodeId
              + " the cluster could decide nothing more: of the voters left, "
              + String.join(", ", left)
              + ", these do not answer: "
              + String.join(", ", away),
          "Start or remove those first; --force cannot help here.");
    }
  }

  /** Calls back, once, when this node has been removed from the cluster. */
  public void onRemoved(Runnable action) {
    whenRemoved = action;
    noticeRemoval();
  }

  private void noticeRemoval() {
    if (!isRemoved(self()) || !removalNoticed.compareAndSet(false, true)) {
      return;
    }
    LOG.error("{}", removed(identity, config.dataFolder()).explanation());
    try {
      NodeFiles.writeDurably(removalNote(config.dataFolder()), Json.write(clusterId()), false);
    } catch (IOException e) {
      LOG.warn("{}: its removal could not be noted", self(), e);
    }
    Runnable action = whenRemoved;
    if (action != null) {
      Thread.ofPlatform().name("removed-" + self()).start(action);
    }
  }

  private static Path removalNote(Path dataFolder) {
    return Identity.folder(dataFolder).resolve("removed");
  }

  private static FlotillaException removed(Identity identity, Path dataFolder) {
    return new FlotillaException(
        Code.CONFLICT,
        "node "
            + identity.nodeId()
            + " was removed from cluster "
            + identity.clusterId()
            + " for good",
        "To let this machine join anew, move the data folder "
            + dataFolder
            + " away, get a token with `flotilla invite` on a node of the cluster, and start with"
            + " --join and --token.");
  }

  private List<Identity.Peer> others() {
    return nodes().stream()
        .filter(node -> !node.id().equals(self()))
        .map(node -> new Identity.Peer(node.id(), node.host(), node.httpPort()))
        .toList();
  }

  /**
   * Before anything of this node takes part: asks the others that live whether its folder is of
   * now. If none answers, all were down, and nobody knows better.
   *
   * @throws FlotillaException {@code CONFLICT} if the cluster has seen more starts of this node
   *     than its folder has
   */
  private void checkAge() {
    Optional<FolderAge.Note> note = age.note();
    if (note.isEmpty()) {
      return;
    }
    Set<Identity.Peer> known = new LinkedHashSet<>(note.get().peers());
    known.addAll(identity.facts().peers());
    List<CompletableFuture<Long>> answers =
        known.stream()
            .map(
                peer ->
                    CompletableFuture.supplyAsync(
                            () ->
                                JoinClient.ask(config, identity, peer)
                                    .flatMap(Joining.Reply::starts)
                                    .orElse(0L),
                            calls)
                        .completeOnTimeout(0L, AGE_PATIENCE_MS, TimeUnit.MILLISECONDS))
            .toList();
    long starts = answers.stream().mapToLong(CompletableFuture::join).max().orElse(0);
    if (starts > note.get().starts()) {
      FlotillaException old =
          new FlotillaException(
              Code.CONFLICT,
              "data folder "
                  + config.dataFolder()
                  + " is older than its cluster: it knows of "
                  + note.get().starts()
                  + " starts of node "
                  + self()
                  + ", the cluster of "
                  + starts
                  + "; it was put back from a backup",
              "What this node confirmed since then is not in it, so it must not take part. Remove it"
                  + " from the cluster on another node, empty the folder, and join anew.");
      LOG.error("{}", old.explanation());
      throw old;
    }
  }

  /** Whoever was down when it was removed hears it from nobody in the group: they refuse it. */
  private void askWhetherRemoved() {
    List<Identity.Peer> known = new ArrayList<>(identity.facts().peers());
    known.addAll(others());
    for (Identity.Peer peer : known) {
      if (JoinClient.ask(config, identity, peer).map(JoinClient::saysRemoved).orElse(false)) {
        try {
          NodeFiles.writeDurably(removalNote(config.dataFolder()), Json.write(clusterId()), false);
        } catch (IOException e) {
          LOG.warn("{}: its removal could not be noted", self(), e);
        }
        throw removed(identity, config.dataFolder());
      }
    }
  }

  @Override
  public String self() {
    return identity.nodeId();
  }

  /** The cluster's id, made by its first node. */
  public String clusterId() {
    return identity.clusterId();
  }

  @Override
  public List<NodeInfo> nodes() {
    return core.nodes();
  }

  @Override
  public Optional<String> leader() {
    return registry.leader();
  }

  @Override
  public Registry registry() {
    return registry;
  }

  /** Nodes whose wall clocks are far from this one's, as far as this one has asked. */
  Set<String> clocksOff() {
    return clocks.off();
  }

  boolean isOpen() {
    return !closed;
  }

  RaftRegistry raft() {
    return registry;
  }

  @Override
  public ManagedChannel channel(String nodeId) {
    Optional<NodeInfo> node =
        registry
            .get(ClusterCore.nodeKey(nodeId))
            .map(entry -> Json.read(entry.value(), NodeInfo.class));
    if (node.isPresent()) {
      return channel(node.get());
    }
    return identity.facts().peers().stream()
        .filter(peer -> peer.nodeId().equals(nodeId))
        .findFirst()
        .map(peer -> channels.to(nodeId, peer.host(), peer.httpPort() + 1, 0))
        .orElseThrow(() -> noSuchNode(nodeId));
  }

  private ManagedChannel channel(NodeInfo node) {
    return channels.to(node.id(), node.host(), node.httpPort() + 1, node.incarnation());
  }

  static FlotillaException noSuchNode(String nodeId) {
    return new FlotillaException(
        Code.NOT_FOUND, "no node " + nodeId + " in this cluster", "`flotilla ps` lists them.");
  }

  @Override
  public void addService(BindableService service) {
    services.add(service);
  }

  @Override
  public void addReconciler(Reconciler reconciler) {
    core.addReconciler(reconciler);
  }

  @Override
  public boolean isMember(String nodeId) {
    return registry.members().contains(nodeId);
  }

  @Override
  public DiskSpace disk() {
    return disk;
  }

  @Override
  public SSLContext tls() {
    return tls.context();
  }

  @Override
  public void start() {
    try {
      checkPorts();
      openServer();
      checkAge();
      registry.start();
      registry.subscribe(this::onChange);
      checkVersion();
      enter();
      awaitLeader();
      openJoinServer();
      checkVersion();
      register();
      disk.start(registry);
      core.open();
      LOG.info(
          "node {} ({}) is in cluster {}, led by {}",
          self(),
          config.name(),
          clusterId(),
          leader().orElse("nobody"));
    } catch (RuntimeException e) {
      kill();
      throw e;
    }
  }

  private void checkPorts() {
    checkPort(config.servicePort(), "node-to-node calls", 1);
    checkPort(config.raftPort(), "Raft", 2);
    checkPort(config.joinPort(), "joining", 3);
  }

  private void checkPort(int port, String use, int offset) {
    try (ServerSocket socket = new ServerSocket()) {
      socket.setReuseAddress(true);
      socket.bind(new InetSocketAddress(config.bindHost(), port));
    } catch (IOException | IllegalArgumentException e) {
      throw portInUse(port, use, offset, e);
    }
  }

  private FlotillaException portInUse(int port, String use, int offset, Exception cause) {
    return new FlotillaException(
        Code.CONFLICT,
        "cannot listen on "
            + config.bindHost()
            + ":"
            + port
            + " ("
            + use
            + ", --port + "
            + offset
            + "): "
            + cause.getMessage(),
        "Choose another --port (now "
            + config.httpPort()
            + "), or stop the program that uses this one.",
        cause);
  }

  private void openServer() {
    NettyServerBuilder builder =
        NettyServerBuilder.forAddress(
                new InetSocketAddress(config.bindHost(), config.servicePort()))
            .sslContext(tls.server())
            .executor(calls)
            .intercept(new PeerInterceptor(versions))
            .handshakeTimeout(10, TimeUnit.SECONDS)
            .maxInboundMessageSize(PeerChannels.MAX_MESSAGE_BYTES)
            // What a lost caller held here must not wait for the system's own hours.
            .keepAliveTime(5, TimeUnit.SECONDS)
            .keepAliveTimeout(5, TimeUnit.SECONDS)
            .permitKeepAliveTime(1, TimeUnit.SECONDS)
            .permitKeepAliveWithoutCalls(true)
            .addService(new MembershipService(self(), core::incarnation, config.clock(), registry));
    services.forEach(builder::addService);
    try {
      server = builder.build().start();
    } catch (IOException e) {
      throw portInUse(config.servicePort(), "node-to-node calls", 1, e);
    }
  }

  private void openJoinServer() {
    try {
      JoinServer opened =
          new JoinServer(config, identity, tls, registry, this::nodes, registry::voters);
      opened.start();
      joinServer = opened;
    } catch (IOException e) {
      throw portInUse(config.joinPort(), "joining", 3, e);
    }
  }

  /** Of nodes whose versions do not fit, the one that comes to the others does not start. */
  private void checkVersion() {
    Set<String> others = new HashSet<>();
    identity.facts().peers().forEach(peer -> others.add(peer.nodeId()));
    nodes().forEach(node -> others.add(node.id()));
    others.remove(self());
    List<ListenableFuture<PingReply>> answers = new ArrayList<>();
    for (String other : others) {
      answers.add(
          MembershipGrpc.newFutureStub(channel(other))
              .withDeadlineAfter(VERSION_TIMEOUT_MS, TimeUnit.MILLISECONDS)
              .ping(PingRequest.newBuilder().setFromNode(self()).build()));
    }
    for (ListenableFuture<PingReply> answer : answers) {
      try {
        PingReply _ = answer.get();
      } catch (ExecutionException e) {
        Status status = Status.fromThrowable(e);
        if (status.getCode() == Status.Code.FAILED_PRECONDITION) {
          throw new FlotillaException(
              Code.CONFLICT, "this node is refused: " + status.getDescription(), "");
        }
        // Who is silent does not refuse.
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        return;
      }
    }
  }

  /** Asks the leader, through whomever we know, to be let into the Raft group. */
  private void enter() {
    long deadlineNs = System.nanoTime() + ENTER_TIMEOUT_NS;
    EnterRequest request =
        EnterRequest.newBuilder()
            .setNode(self())
            .setHost(config.advertisedHost())
            .setRaftPort(config.raftPort())
            .build();
    String lastRefusal = "nobody answered";
    while (!registry.members().contains(self())) {
      for (Identity.Peer peer : identity.facts().peers()) {
        try {
          EnterReply reply =
              MembershipGrpc.newBlockingStub(channel(peer.nodeId()))
                  .withDeadlineAfter(8, TimeUnit.SECONDS)
                  .enter(request);
          if (reply.getEntered()) {
            break;
          }
          lastRefusal = "the leader is " + reply.getLeader();
        } catch (StatusRuntimeException e) {
          lastRefusal = peer.host() + ":" + peer.httpPort() + ": " + e.getStatus();
          if (e.getStatus().getCode() == Status.Code.UNAVAILABLE) {
            channel(peer.nodeId()).resetConnectBackoff();
          }
        }
      }
      if (System.nanoTime() > deadlineNs) {
        askWhetherRemoved();
      }
      if (closed || System.nanoTime() > deadlineNs) {
        throw new FlotillaException(
            Code.UNAVAILABLE,
            "node " + self() + " could not enter its cluster: " + lastRefusal,
            "Check that a majority of the cluster's nodes is up, then start this node again.");
      }
      sleep(100);
    }
  }

  /** However long it takes: the other nodes may be started by hand, one after the other. */
  private void awaitLeader() {
    long noteNs = System.nanoTime() + WAITING_NOTE_NS;
    long askNs = System.nanoTime() + ASK_NS;
    while (true) {
      if (leader().isPresent()) {
        try {
          registry.sync();
          return;
        } catch (FlotillaException e) {
          if (e.code() != Code.NO_MAJORITY) {
            throw e;
          }
        }
      }
      if (closed) {
        throw new FlotillaException(
            Code.UNAVAILABLE, "node " + self() + " was stopped before it found a leader", "");
      }
      if (System.nanoTime() > askNs) {
        askWhetherRemoved();
        askNs = System.nanoTime() + ASK_NS;
      }
      if (System.nanoTime() > noteNs) {
        LOG.warn(
            "node {} waits for a majority of the voters {}; start the others",
            self(),
            registry.voters());
        noteNs += WAITING_NOTE_NS;
      }
      sleep(20);
    }
  }

  private void register() {
    core.register(
        incarnation -> {
          age.started(incarnation);
          return new NodeInfo(
              self(),
              config.name(),
              config.advertisedHost(),
              config.httpPort(),
              config.version(),
              ProcessHandle.current().pid(),
              incarnation,
              NodeInfo.State.UP,
              config.profile());
        });
  }

  @Override
  public void publish(Map<String, Double> profile) {
    core.publish(profile);
  }

  private void onChange() {
    channels.follow(nodes());
    noticeRemoval();
    disk.follow(registry, nodes());
    core.changed();
    age.peers(others());
  }

  private static void sleep(long milliseconds) {
    try {
      Thread.sleep(milliseconds);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new FlotillaException(Code.UNAVAILABLE, "interrupted while starting", "", e);
    }
  }

  private boolean isRemoved(String nodeId) {
    return registry.get(new Registry.Key(Controller.REMOVED_KIND, nodeId)).isPresent();
  }

  /** Which node is expected at an address: all of a node's ports count. */
  private Optional<String> nodeAt(String host, int port) {
    for (NodeInfo node : nodes()) {
      if (node.host().equals(host) && isPortOf(node.httpPort(), port)) {
        return Optional.of(node.id());
      }
    }
    for (Identity.Peer peer : identity.facts().peers()) {
      if (peer.host().equals(host) && isPortOf(peer.httpPort(), port)) {
        return Optional.of(peer.nodeId());
      }
    }
    return Optional.empty();
  }

  private static boolean isPortOf(int httpPort, int port) {
    return port >= httpPort && port <= httpPort + 6;
  }

  @Override
  public void close() {
    if (!closed) {
      registry.handOver();
    }
    kill();
  }

  /** Closes without a word to the others, as if the process had died. */
  void kill() {
    synchronized (this) {
      if (closed) {
        return;
      }
      closed = true;
    }
    if (joinServer != null) {
      joinServer.close();
    }
    if (server != null) {
      server.shutdownNow();
    }
    core.close();
    disk.close();
    registry.close();
    channels.close();
    if (server != null) {
      try {
        server.awaitTermination(2, TimeUnit.SECONDS);
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
      }
    }
    calls.shutdownNow();
    lock.close();
  }

  private record PeerInterceptor(VersionCheck versions) implements ServerInterceptor {
    @Override
    public <Q, R> ServerCall.Listener<Q> interceptCall(
        ServerCall<Q, R> call, Metadata headers, ServerCallHandler<Q, R> next) {
      SSLSession session = call.getAttributes().get(Grpc.TRANSPORT_ATTR_SSL_SESSION);
      try {
        if (session != null
            && session.getPeerCertificates()[0] instanceof X509Certificate certificate) {
          String peer = CertificateAuthority.nodeId(certificate);
          Optional<Status> refusal = versions.refusal(peer, headers);
          if (refusal.isPresent()) {
            call.close(refusal.get(), new Metadata());
            return new ServerCall.Listener<>() {};
          }
          return Contexts.interceptCall(
              Context.current().withValue(PEER, peer), call, headers, next);
        }
      } catch (SSLPeerUnverifiedException e) {
        LOG.warn("a call without a peer certificate", e);
      }
      call.close(Status.UNAUTHENTICATED, new Metadata());
      return new ServerCall.Listener<>() {};
    }
  }
}

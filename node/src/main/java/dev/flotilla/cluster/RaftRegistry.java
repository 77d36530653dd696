package dev.flotilla.cluster;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Threads;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Optional;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.ratis.client.RaftClient;
import org.apache.ratis.client.RaftClientConfigKeys;
import org.apache.ratis.client.RaftClientRpc;
import org.apache.ratis.conf.Parameters;
import org.apache.ratis.conf.RaftProperties;
import org.apache.ratis.grpc.GrpcConfigKeys;
import org.apache.ratis.grpc.GrpcTlsConfig;
import org.apache.ratis.proto.RaftProtos.RaftPeerRole;
import org.apache.ratis.protocol.ClientId;
import org.apache.ratis.protocol.LeaderElectionManagementRequest;
import org.apache.ratis.protocol.Message;
import org.apache.ratis.protocol.RaftClientReply;
import org.apache.ratis.protocol.RaftClientRequest;
import org.apache.ratis.protocol.RaftGroup;
import org.apache.ratis.protocol.RaftGroupId;
import org.apache.ratis.protocol.RaftPeer;
import org.apache.ratis.protocol.RaftPeerId;
import org.apache.ratis.protocol.SetConfigurationRequest;
import org.apache.ratis.protocol.TransferLeadershipRequest;
import org.apache.ratis.protocol.exceptions.LeaderNotReadyException;
import org.apache.ratis.protocol.exceptions.RaftException;
import org.apache.ratis.protocol.exceptions.ReconfigurationInProgressException;
import org.apache.ratis.protocol.exceptions.StateMachineException;
import org.apache.ratis.retry.RetryPolicies;
import org.apache.ratis.server.RaftServer;
import org.apache.ratis.server.RaftServerConfigKeys;
import org.apache.ratis.server.storage.RaftStorage;
import org.apache.ratis.util.ExitUtils;
import org.apache.ratis.util.SizeInBytes;
import org.apache.ratis.util.TimeDuration;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** The registry ({@link RegistryClient}) over one Raft group (Apache Ratis). */
final class RaftRegistry implements Registry, ReplicatedLog, AutoCloseable {

  /**
   * What differs between a real node and a test.
   *
   * @param snapshotEntries commits between two snapshots
   * @param segmentBytes after which a log file is closed; whole files are purged
   * @param commitTimeoutMs how long a commit looks for a leader that confirms it
   */
  record Tuning(int snapshotEntries, int segmentBytes, int commitTimeoutMs) {
    static final Tuning DEFAULT = new Tuning(4096, 8 << 20, 8_000);
  }

  static final int MAX_VOTERS = 3;

  private static final Logger LOG = LoggerFactory.getLogger(RaftRegistry.class);
  private static final int ATTEMPT_TIMEOUT_MS = 2500;
  private static final long HAND_OVER_TIMEOUT_MS = 1000;
  private static final long REOPEN_LOOK_NS = TimeUnit.SECONDS.toNanos(1);

  private final String self;
  private final RegistryClient registry;
  private final Path folder;
  private final RaftGroupId groupId;
  private final Parameters parameters;
  private final RaftProperties properties;
  private final DiskSpace disk;
  private final RaftClient client;
  private final ClientId clientId = ClientId.randomId();
  private final AtomicLong callIds = new AtomicLong();
  private volatile RaftServer server;
  private volatile RegistryStateMachine stateMachine;
  private volatile @Nullable Throwable logFailure;
  private volatile boolean closed;

  /** Whether this node may stand for election. */
  private volatile boolean stands = true;

  /** The one that takes the place of one whose log failed; only the disk's thread uses it. */
  private RegistryStateMachine reopened;

  private boolean reopening;

  static {
    // Ratis would end the process on some errors; ours answers and logs.
    ExitUtils.disableSystemExit();
  }

  /**
   * @param founder whether this node starts the group, alone; all others are let in by the leader
   */
  RaftRegistry(
      ClusterConfig config,
      Identity identity,
      GrpcTlsConfig tls,
      boolean founder,
      Tuning tuning,
      DiskSpace disk) {
    this.self = identity.nodeId();
    this.registry =
        new RegistryClient(
            self, this, Threads.real(), TimeUnit.MILLISECONDS.toNanos(tuning.commitTimeoutMs));
    this.folder = config.dataFolder().resolve("data").resolve("raft");
    this.groupId =
        RaftGroupId.valueOf(
            UUID.nameUUIDFromBytes(identity.clusterId().getBytes(StandardCharsets.UTF_8)));
    this.disk = disk;
    this.stateMachine = stateMachineOfThis();
    this.reopened = stateMachine;
    RaftPeer selfPeer =
        RaftPeer.newBuilder()
            .setId(self)
            .setAddress(address(config.advertisedHost(), config.raftPort()))
            .build();
    boolean exists = Files.isDirectory(folder.resolve(groupId.getUuid().toString()));
    RaftGroup group =
        founder && !exists
            ? RaftGroup.valueOf(groupId, selfPeer)
            : RaftGroup.valueOf(groupId, List.of());
    this.parameters = parameters(tls);
    this.properties = properties(config, folder, tuning);
    try {
      Files.createDirectories(folder);
      this.server =
          open(
              group,
              exists ? RaftStorage.StartupOption.RECOVER : RaftStorage.StartupOption.FORMAT,
              stateMachine);
      this.client =
          RaftClient.newBuilder()
              .setClientId(clientId)
              .setRaftGroup(RaftGroup.valueOf(groupId, selfPeer))
              .setRetryPolicy(RetryPolicies.noRetry())
              .setProperties(properties)
              .setParameters(parameters)
              .build();
    } catch (IOException e) {
      throw NodeFiles.storage("cannot open the registry in " + folder, e);
    }
  }

  private RegistryStateMachine stateMachineOfThis() {
    return new RegistryStateMachine(
        new RegistryStateMachine.Listener() {
          @Override
          public void changed() {
            registry.changed();
          }

          @Override
          public void logFailed(Throwable cause) {
            logFailure = cause;
            disk.broke(
                "the registry's log in "
                    + folder
                    + " could not be written ("
                    + rootCause(cause)
                    + "); it is opened again once its disk has room");
            LOG.error("{}: the registry's log cannot be written", self, cause);
          }
        },
        disk);
  }

  private RaftServer open(
      RaftGroup group, RaftStorage.StartupOption option, RegistryStateMachine machine)
      throws IOException {
    return RaftServer.newBuilder()
        .setServerId(RaftPeerId.valueOf(self))
        .setGroup(group)
        .setOption(option)
        .setStateMachineRegistry(id -> machine)
        .setProperties(properties)
        .setParameters(parameters)
        .build();
  }

  private static Parameters parameters(GrpcTlsConfig tls) {
    Parameters parameters = new Parameters();
    GrpcConfigKeys.TLS.setConf(parameters, tls);
    GrpcConfigKeys.Server.setTlsConf(parameters, tls);
    GrpcConfigKeys.Client.setTlsConf(parameters, tls);
    GrpcConfigKeys.Admin.setTlsConf(parameters, tls);
    return parameters;
  }

  private static RaftProperties properties(ClusterConfig config, Path folder, Tuning tuning) {
    RaftProperties p = new RaftProperties();
    GrpcConfigKeys.Server.setHost(p, config.bindHost());
    GrpcConfigKeys.Server.setPort(p, config.raftPort());
    GrpcConfigKeys.setMessageSizeMax(p, SizeInBytes.valueOf("16MB"));
    RaftServerConfigKeys.setStorageDir(p, List.of(folder.toFile()));
    RaftServerConfigKeys.setRemovedGroupsDir(p, folder.resolveSibling("raft-removed").toFile());

    // A killed leader is replaced after 1.2 to 1.6 s; a pause of 1 s passes unnoticed, mostly.
    RaftServerConfigKeys.Rpc.setTimeoutMin(p, ms(1200));
    RaftServerConfigKeys.Rpc.setTimeoutMax(p, ms(1600));
    // At a start nobody leads: no need to wait that long. Pre-votes keep a restarted follower from
    // disturbing a group that has a leader.
    RaftServerConfigKeys.Rpc.setFirstElectionTimeoutMin(p, ms(150));
    RaftServerConfigKeys.Rpc.setFirstElectionTimeoutMax(p, ms(400));
    RaftServerConfigKeys.Rpc.setRequestTimeout(p, ms(2000));
    RaftServerConfigKeys.LeaderElection.setMemberMajorityAdd(p, true);
    RaftServerConfigKeys.LeaderElection.setPreVote(p, true);
    RaftServerConfigKeys.LeaderElection.setLeaderStepDownWaitTime(p, ms(3000));
    // Ratis closes a server whose process was paused this long; ours just goes on.
    RaftServerConfigKeys.setCloseThreshold(p, TimeDuration.valueOf(365, TimeUnit.DAYS));

    RaftServerConfigKeys.Log.setSegmentSizeMax(p, SizeInBytes.valueOf(tuning.segmentBytes));
    RaftServerConfigKeys.Log.setPreallocatedSize(
        p, SizeInBytes.valueOf(Math.min(tuning.segmentBytes, 1 << 20)));
    RaftServerConfigKeys.Log.Appender.setBufferByteLimit(p, SizeInBytes.valueOf(2 << 20));
    RaftServerConfigKeys.Log.setWriteBufferSize(p, SizeInBytes.valueOf(4 << 20));
    RaftServerConfigKeys.Log.setPurgeGap(p, Math.min(1024, tuning.snapshotEntries));
    // Enough of the log stays to start from the snapshot before the last.
    RaftServerConfigKeys.Log.setPurgePreservationLogNum(p, 2L * tuning.snapshotEntries);
    RaftServerConfigKeys.Log.setPurgeUptoSnapshotIndex(p, true);
    RaftServerConfigKeys.Snapshot.setAutoTriggerEnabled(p, true);
    RaftServerConfigKeys.Snapshot.setAutoTriggerThreshold(p, tuning.snapshotEntries);
    RaftServerConfigKeys.Snapshot.setCreationGap(p, 1);
    RaftServerConfigKeys.Snapshot.setRetentionFileNum(p, 2);
    RaftServerConfigKeys.Snapshot.setTriggerWhenRemoveEnabled(p, false);

    RaftClientConfigKeys.Rpc.setRequestTimeout(p, ms(ATTEMPT_TIMEOUT_MS));
    return p;
  }

  private static TimeDuration ms(int milliseconds) {
    return TimeDuration.valueOf(milliseconds, TimeUnit.MILLISECONDS);
  }

  private static String address(String host, int port) {
    return host.contains(":") ? "[" + host + "]:" + port : host + ":" + port;
  }

  void start() {
    try {
      server.start();
    } catch (IOException | RuntimeException e) {
      throw startFailed(e);
    }
  }

  /**
   * Replaces a server whose log could not be written, which Ratis gives up for good, by one that
   * goes on from what is on the disk; call it now and then once the disk has room. What this node
   * has of the registry stays as it was until the new server has all of it.
   */
  void reopenIfBroken() throws InterruptedException {
    if (logFailure == null || closed || disk.isLow()) {
      return;
    }
    try {
      if (!reopening) {
        LOG.info("{}: the disk has room, the registry is opened again", self);
        server.close();
        RegistryStateMachine next = stateMachineOfThis();
        RaftServer again =
            open(RaftGroup.valueOf(groupId, List.of()), RaftStorage.StartupOption.RECOVER, next);
        server = again;
        reopened = next;
        reopening = true;
        again.start();
      }
    } catch (IOException | RuntimeException e) {
      reopening = false;
      LOG.warn("{}: the registry cannot be opened again yet", self, e);
      return;
    }
    if (reopened.awaitApplied(appliedIndex(), REOPEN_LOOK_NS)) {
      stateMachine = reopened;
      stands = true;
      reopening = false;
      logFailure = null;
      disk.mended();
      registry.changed();
      LOG.info("{}: the registry is well again, at {}", self, appliedIndex());
    }
  }

  /**
   * Sees to it that this node stands for election only while it is a voter; call every second. A
   * listener may not, but Ratis lets it until it has been started again: when it misses the leader
   * for a while it would stand, find that it may not, shut down, and hang in that for good.
   *
   * @throws IOException if the registry is just starting or stopping
   */
  @Override
  public void standForElectionAsVoterOnly() throws IOException {
    RaftPeerId id = RaftPeerId.valueOf(self);
    boolean votes =
        division().getRaftConf().getAllPeers().stream().anyMatch(peer -> peer.getId().equals(id));
    if (!division().getInfo().isAlive() || votes == stands) {
      return;
    }
    long call = callIds.incrementAndGet();
    var _ =
        server.leaderElectionManagement(
            votes
                ? LeaderElectionManagementRequest.newResume(clientId, id, groupId, call)
                : LeaderElectionManagementRequest.newPause(clientId, id, groupId, call));
    stands = votes;
  }

  private FlotillaException startFailed(Exception e) {
    if (NodeFiles.isDiskFull(e)) {
      return NodeFiles.storage("cannot open the registry in " + folder, e);
    }
    return new FlotillaException(
        Code.BAD_FILE,
        "cannot open the registry in " + folder + ": " + rootCause(e),
        "If its files are damaged and other nodes of the cluster are well, empty this node's --data"
            + " folder and join again; else restore it from a backup.",
        e);
  }

  static String rootCause(Throwable thrown) {
    Throwable t = thrown;
    for (int depth = 0; depth < 20 && t.getCause() != null; depth++) {
      t = t.getCause();
    }
    return t.getClass().getSimpleName() + (t.getMessage() == null ? "" : ": " + t.getMessage());
  }

  RaftServer.Division division() {
    try {
      return server.getDivision(groupId);
    } catch (IOException e) {
      throw new FlotillaException(
          Code.UNAVAILABLE, "the registry of node " + self + " is not open", "Try again.", e);
    }
  }

  @Override
  public Optional<String> leader() {
    if (closed) {
      return Optional.empty();
    }
    RaftPeerId id = division().getInfo().getLeaderId();
    return Optional.ofNullable(id).map(RaftPeerId::toString);
  }

  @Override
  public boolean leads() {
    return !closed && division().getInfo().isLeaderReady();
  }

  /** Whether this node has heard from no leader for longer than it takes to elect one. */
  boolean missesLeader() {
    return division().getInfo().isCandidate();
  }

  @Override
  public List<String> members() {
    return division().getGroup().getPeers().stream().map(p -> p.getId().toString()).toList();
  }

  @Override
  public List<String> voters() {
    return division().getRaftConf().getCurrentPeers().stream()
        .map(p -> p.getId().toString())
        .toList();
  }

  RegistryStateMachine stateMachine() {
    return stateMachine;
  }

  /** Which node Raft expects at an address. */
  Optional<String> nodeAt(String address) {
    return division().getGroup().getPeers().stream()
        .filter(p -> address.equals(p.getAddress()))
        .map(p -> p.getId().toString())
        .findFirst();
  }

  /**
   * Lets a node into the group, as a voter while there are fewer than three, then as a listener;
   * only the leader can. Does nothing if it is in already.
   *
   * @return whether it is in now
   */
  synchronized boolean admit(String nodeId, String host, int raftPort) throws IOException {
    if (!leads()) {
      return false;
    }
    List<RaftPeer> voters = new ArrayList<>(division().getRaftConf().getCurrentPeers());
    List<RaftPeer> listeners =
        new ArrayList<>(division().getRaftConf().getCurrentPeers(RaftPeerRole.LISTENER));
    if (contains(voters, nodeId) || contains(listeners, nodeId)) {
      return true;
    }
    RaftPeerRole role = voters.size() < MAX_VOTERS ? RaftPeerRole.FOLLOWER : RaftPeerRole.LISTENER;
    RaftPeer peer =
        RaftPeer.newBuilder()
            .setId(nodeId)
            .setAddress(address(host, raftPort))
            .setStartupRole(role)
            .build();
    (role == RaftPeerRole.FOLLOWER ? voters : listeners).add(peer);
    LOG.info("{}: node {} enters the registry's group as {}", self, nodeId, role);
    return configure(voters, listeners);
  }

  @Override
  public synchronized boolean expel(String nodeId, List<String> alive) throws IOException {
    if (!leads()) {
      return false;
    }
    List<RaftPeer> voters = new ArrayList<>(division().getRaftConf().getCurrentPeers());
    List<RaftPeer> listeners =
        new ArrayList<>(division().getRaftConf().getCurrentPeers(RaftPeerRole.LISTENER));
    boolean voted = voters.removeIf(p -> p.getId().toString().equals(nodeId));
    boolean listened = listeners.removeIf(p -> p.getId().toString().equals(nodeId));
    if (!voted && !listened) {
      return true;
    }
    Optional<RaftPeer> promoted =
        listeners.stream().filter(peer -> alive.contains(peer.getId().toString())).findFirst();
    if (voters.size() < MAX_VOTERS && promoted.isPresent()) {
      listeners.remove(promoted.get());
      voters.add(RaftPeer.newBuilder(promoted.get()).setStartupRole(RaftPeerRole.FOLLOWER).build());
    }
    return configure(voters, listeners);
  }

  private boolean configure(List<RaftPeer> voters, List<RaftPeer> listeners) throws IOException {
    try {
      RaftClientReply reply =
          server.setConfiguration(
              new SetConfigurationRequest(
                  clientId,
                  RaftPeerId.valueOf(self),
                  groupId,
                  callIds.incrementAndGet(),
                  SetConfigurationRequest.Arguments.newBuilder()
                      .setServersInNewConf(voters)
                      .setListenersInNewConf(listeners)
                      .build()));
      if (!reply.isSuccess()) {
        LOG.warn("{}: the group's change failed", self, reply.getException());
      }
      return reply.isSuccess();
    } catch (ReconfigurationInProgressException e) {
      return false;
    }
  }

  private static boolean contains(Collection<RaftPeer> peers, String nodeId) {
    return peers.stream().anyMatch(p -> p.getId().toString().equals(nodeId));
  }

  @Override
  public RegistryState state() {
    return stateMachine.state();
  }

  @Override
  public long appliedIndex() {
    return stateMachine.getLastAppliedTermIndex().getIndex();
  }

  @Override
  public boolean awaitApplied(long index, long timeoutNs) throws InterruptedException {
    return stateMachine.awaitApplied(index, timeoutNs);
  }

  @Override
  public Answer propose(String leader, byte[] command) throws IOException, InterruptedException {
    checkDisk();
    RaftClientReply reply =
        send(
            leader,
            Message.valueOf(
                org.apache.ratis.thirdparty.com.google.protobuf.ByteString.copyFrom(command)));
    if (reply.isSuccess()) {
      return new Applied(reply.getMessage().getContent().toByteArray());
    }
    return switch (reply.getException()) {
      case StateMachineException e -> new NoRoom(e);
      case LeaderNotReadyException e -> new NotReady(e);
      // A leader that steps down says "not the leader" of commands it has in its log, too.
      case null -> new Unsure(Optional.empty());
      case RaftException e -> new Unsure(Optional.of(e));
    };
  }

  private RaftClientReply send(String leader, Message message)
      throws IOException, InterruptedException {
    RaftPeerId target = RaftPeerId.valueOf(leader);
    RaftClientRequest request =
        RaftClientRequest.newBuilder()
            .setClientId(clientId)
            .setLeaderId(target)
            .setGroupId(groupId)
            .setCallId(callIds.incrementAndGet())
            .setMessage(message)
            .setType(RaftClientRequest.writeRequestType())
            .build();
    if (leader.equals(self)) {
      return await(server.submitClientRequestAsync(request));
    }
    RaftClientRpc rpc = client.getClientRpc();
    rpc.addRaftPeers(division().getGroup().getPeers());
    try {
      return rpc.sendRequest(request);
    } catch (IOException e) {
      rpc.handleException(target, e, false);
      throw e;
    }
  }

  private static RaftClientReply await(CompletableFuture<RaftClientReply> reply)
      throws IOException, InterruptedException {
    try {
      return reply.get(ATTEMPT_TIMEOUT_MS, TimeUnit.MILLISECONDS);
    } catch (ExecutionException | TimeoutException e) {
      throw new IOException(e);
    }
  }

  private void checkDisk() {
    Throwable failure = logFailure;
    if (failure != null) {
      throw NodeFiles.storage("the registry's log in " + folder + " cannot be written", failure);
    }
  }

  @Override
  public Optional<Entry> get(Key key) {
    return registry.get(key);
  }

  @Override
  public List<Entry> list(String kind) {
    return registry.list(kind);
  }

  @Override
  public long revision() {
    return registry.revision();
  }

  @Override
  public void sync() {
    registry.sync();
  }

  @Override
  public Optional<Long> commit(List<Condition> conditions, List<Write> writes) {
    return registry.commit(conditions, writes);
  }

  @Override
  public AutoCloseable subscribe(Runnable onChange) {
    return registry.subscribe(onChange);
  }

  @Override
  public void handOver() {
    if (!leads()) {
      return;
    }
    for (String voter : voters()) {
      if (voter.equals(self)) {
        continue;
      }
      try {
        RaftClientReply reply =
            server.transferLeadership(
                new TransferLeadershipRequest(
                    clientId,
                    RaftPeerId.valueOf(self),
                    groupId,
                    callIds.incrementAndGet(),
                    RaftPeerId.valueOf(voter),
                    HAND_OVER_TIMEOUT_MS));
        if (reply.isSuccess()) {
          return;
        }
      } catch (IOException e) {
        LOG.info("{}: could not hand over to {}", self, voter, e);
      }
    }
  }

  @Override
  public void close() {
    closed = true;
    registry.close();
    try {
      client.close();
    } catch (IOException e) {
      LOG.warn("{}: cannot close the registry's client", self, e);
    }
    try {
      server.close();
    } catch (IOException e) {
      LOG.warn("{}: cannot close the registry", self, e);
    }
  }
}

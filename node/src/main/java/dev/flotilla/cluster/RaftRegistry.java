package dev.flotilla.cluster;

import com.google.protobuf.ByteString;
import com.google.protobuf.InvalidProtocolBufferException;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.cluster.proto.Command;
import dev.flotilla.cluster.proto.CommandCondition;
import dev.flotilla.cluster.proto.CommandResult;
import dev.flotilla.cluster.proto.CommandWrite;
import java.io.IOException;
import java.net.ConnectException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Optional;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CopyOnWriteArrayList;
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

/**
 * The registry as one Raft group (Apache Ratis). Reads come from this node's copy; a commit goes to
 * the leader.
 *
 * <p>A commit is sent only to a node that this one believes to be the leader. So when it fails, it
 * can be told whether anything was sent at all: if not, nothing was decided ({@code NO_MAJORITY});
 * if so, and no answer came, the command may stand in a log that a later majority adopts ({@code
 * OUTCOME_UNKNOWN}). Retries carry the same command id, and the state machine applies an id once.
 */
final class RaftRegistry implements Registry, AutoCloseable {

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
  private static final int MAX_COMMAND_BYTES = 1 << 20;
  private static final int ATTEMPT_TIMEOUT_MS = 2500;
  private static final long HAND_OVER_TIMEOUT_MS = 1000;
  private static final long RETRY_MS = 25;

  private final String self;
  private final long commitTimeoutNs;
  private final Path folder;
  private final RaftGroupId groupId;
  private final RaftServer server;
  private final RaftClient client;
  private final ClientId clientId = ClientId.randomId();
  private final AtomicLong callIds = new AtomicLong();
  private final RegistryStateMachine stateMachine;
  private final List<Subscription> subscriptions = new CopyOnWriteArrayList<>();
  private volatile @Nullable Throwable logFailure;
  private volatile boolean closed;

  /** Whether this node may stand for election; only the controller's thread uses it. */
  private boolean stands = true;

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
    this.commitTimeoutNs = TimeUnit.MILLISECONDS.toNanos(tuning.commitTimeoutMs);
    this.folder = config.dataFolder().resolve("data").resolve("raft");
    this.groupId =
        RaftGroupId.valueOf(
            UUID.nameUUIDFromBytes(identity.clusterId().getBytes(StandardCharsets.UTF_8)));
    this.stateMachine =
        new RegistryStateMachine(
            new RegistryStateMachine.Listener() {
              @Override
              public void changed() {
                signal();
              }

              @Override
              public void logFailed(Throwable cause) {
                logFailure = cause;
                disk.needsRestart(
                    "the registry's log in "
                        + folder
                        + " could not be written ("
                        + rootCause(cause)
                        + "); once its disk has room, this node must be started again");
                LOG.error("{}: the registry's log cannot be written", self, cause);
              }
            },
            disk);
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
    Parameters parameters = parameters(tls);
    RaftProperties properties = properties(config, folder, tuning);
    try {
      Files.createDirectories(folder);
      this.server =
          RaftServer.newBuilder()
              .setServerId(RaftPeerId.valueOf(self))
              .setGroup(group)
              .setOption(
                  exists ? RaftStorage.StartupOption.RECOVER : RaftStorage.StartupOption.FORMAT)
              .setStateMachineRegistry(id -> stateMachine)
              .setProperties(properties)
              .setParameters(parameters)
              .build();
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
   * Sees to it that this node stands for election only while it is a voter; call every second. A
   * listener may not, but Ratis lets it until it has been started again: when it misses the leader
   * for a while it would stand, find that it may not, shut down, and hang in that for good.
   *
   * @throws IOException if the registry is just starting or stopping
   */
  void standForElectionAsVoterOnly() throws IOException {
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

  /** The leader as far as this node knows; empty during an election. */
  Optional<String> leader() {
    if (closed) {
      return Optional.empty();
    }
    RaftPeerId id = division().getInfo().getLeaderId();
    return Optional.ofNullable(id).map(RaftPeerId::toString);
  }

  /** Whether this node leads and has applied everything that was decided before. */
  boolean leads() {
    return !closed && division().getInfo().isLeaderReady();
  }

  /** Whether this node has heard from no leader for longer than it takes to elect one. */
  boolean missesLeader() {
    return division().getInfo().isCandidate();
  }

  /** Voters and listeners of the group as this node knows it. */
  List<String> members() {
    return division().getGroup().getPeers().stream().map(p -> p.getId().toString()).toList();
  }

  List<String> voters() {
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

  /**
   * Takes a node out of the group and makes a listener a voter in its place; only the leader.
   *
   * @param alive those that may become voters
   */
  synchronized boolean expel(String nodeId, List<String> alive) throws IOException {
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
  public Optional<Entry> get(Key key) {
    return Optional.ofNullable(stateMachine.state().entries().get(key));
  }

  @Override
  public List<Entry> list(String kind) {
    return List.copyOf(
        stateMachine
            .state()
            .entries()
            .subMap(new Key(kind, ""), new Key(kind + "\0", ""))
            .values());
  }

  @Override
  public long revision() {
    return stateMachine.getLastAppliedTermIndex().getIndex();
  }

  /**
   * A command without writes, through the log: when it is applied here, so is all that was decided
   * before it. (Ratis's own linearizable read took 300 ms right after a write, because it waits for
   * a follower to report the new commit index with the next heartbeat; its lease would be quick but
   * rests on clocks.)
   */
  @Override
  public void sync() {
    try {
      commit(List.of(), List.of());
    } catch (FlotillaException e) {
      if (e.code() == Code.OUTCOME_UNKNOWN) {
        // Nothing was written, so nothing is unknown.
        throw new FlotillaException(
            Code.NO_MAJORITY, "no majority confirmed a read in time", e.remedy(), e);
      }
      throw e;
    }
  }

  @Override
  public Optional<Long> commit(List<Condition> conditions, List<Write> writes) {
    Command.Builder command = Command.newBuilder().setId(randomId());
    for (Condition condition : conditions) {
      command.addConditions(
          CommandCondition.newBuilder()
              .setKind(condition.key().kind())
              .setName(condition.key().name())
              .setEpoch(condition.epoch()));
    }
    for (Write write : writes) {
      CommandWrite.Builder one =
          CommandWrite.newBuilder().setKind(write.key().kind()).setName(write.key().name());
      write.value().ifPresent(value -> one.setValue(ByteString.copyFrom(value)));
      command.addWrites(one);
    }
    byte[] bytes = command.build().toByteArray();
    if (bytes.length > MAX_COMMAND_BYTES) {
      throw new FlotillaException(
          Code.TOO_LARGE,
          "a registry commit of " + bytes.length + " bytes exceeds " + MAX_COMMAND_BYTES,
          "Keep large values in files and put their digests into the registry.");
    }
    Message reply =
        call(
            Message.valueOf(
                org.apache.ratis.thirdparty.com.google.protobuf.ByteString.copyFrom(bytes)));
    try {
      CommandResult result = CommandResult.parseFrom(reply.getContent().asReadOnlyByteBuffer());
      // Also after a failed condition: the caller wants to read what changed.
      awaitApplied(result.getRevision());
      return result.getEpoch() == 0 ? Optional.empty() : Optional.of(result.getEpoch());
    } catch (InvalidProtocolBufferException e) {
      throw new IllegalStateException("the registry's leader answers nonsense", e);
    }
  }

  private static ByteString randomId() {
    UUID id = UUID.randomUUID();
    return ByteString.copyFrom(
        ByteBuffer.allocate(16)
            .putLong(id.getMostSignificantBits())
            .putLong(id.getLeastSignificantBits())
            .flip());
  }

  /** Sends to the leader, again and again until the time is up. */
  private Message call(Message message) {
    long deadlineNs = System.nanoTime() + commitTimeoutNs;
    boolean ambiguous = false;
    Optional<Exception> last = Optional.empty();
    while (System.nanoTime() < deadlineNs && !closed) {
      checkDisk();
      Optional<String> leader = leader();
      if (leader.isPresent()) {
        try {
          RaftClientReply reply = send(leader.get(), message);
          if (reply.isSuccess()) {
            return reply.getMessage();
          }
          RaftException refusal = reply.getException();
          if (refusal instanceof StateMachineException && !ambiguous) {
            throw new FlotillaException(
                Code.STORAGE,
                "the registry decided nothing: " + rootCause(refusal),
                "Free some space on that node's disk; the registry goes on by itself then.",
                refusal);
          }
          last = Optional.ofNullable(refusal);
          // A leader that steps down says "not the leader" of commands it has in its log, too.
          ambiguous |= !(refusal instanceof LeaderNotReadyException);
        } catch (IOException e) {
          last = Optional.of(e);
          ambiguous |= !refused(e);
        }
      }
      pause();
    }
    throw noAnswer(ambiguous, last);
  }

  private RaftClientReply send(String leader, Message message) throws IOException {
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

  private RaftClientReply await(CompletableFuture<RaftClientReply> reply) throws IOException {
    try {
      return reply.get(ATTEMPT_TIMEOUT_MS, TimeUnit.MILLISECONDS);
    } catch (ExecutionException | TimeoutException e) {
      throw new IOException(e);
    } catch (InterruptedException e) {
      throw interrupted();
    }
  }

  private static boolean refused(Throwable thrown) {
    Throwable t = thrown;
    for (int depth = 0; depth < 20 && t != null; depth++) {
      if (t instanceof ConnectException) {
        return true;
      }
      t = t.getCause();
    }
    return false;
  }

  private FlotillaException noAnswer(boolean unknown, Optional<Exception> last) {
    String reason = last.map(e -> " (" + rootCause(e) + ")").orElse("");
    FlotillaException thrown =
        unknown
            ? new FlotillaException(
                Code.OUTCOME_UNKNOWN,
                "the leader did not confirm the decision in time" + reason,
                "Read again to see whether it was made, then repeat it if not.")
            : new FlotillaException(
                Code.NO_MAJORITY,
                "no majority of the cluster's voters can be reached, so nothing was decided"
                    + reason,
                "Start the nodes that are down, or mend the network between them.");
    last.ifPresent(thrown::initCause);
    return thrown;
  }

  private void checkDisk() {
    Throwable failure = logFailure;
    if (failure != null) {
      throw NodeFiles.storage("the registry's log in " + folder + " cannot be written", failure);
    }
  }

  private void awaitApplied(long index) {
    try {
      if (!stateMachine.awaitApplied(index, commitTimeoutNs)) {
        throw new FlotillaException(
            Code.UNAVAILABLE,
            "node " + self + " lags behind the registry: at " + revision() + " of " + index,
            "It was decided all the same; check the network between this node and the leader.");
      }
    } catch (InterruptedException e) {
      throw interrupted();
    }
  }

  private void pause() {
    try {
      Thread.sleep(RETRY_MS);
    } catch (InterruptedException e) {
      throw interrupted();
    }
  }

  private FlotillaException interrupted() {
    Thread.currentThread().interrupt();
    return new FlotillaException(
        Code.OUTCOME_UNKNOWN, "interrupted while node " + self + " waited for a decision", "");
  }

  @Override
  public AutoCloseable subscribe(Runnable onChange) {
    Subscription subscription = new Subscription(onChange);
    subscriptions.add(subscription);
    subscription.thread.start();
    return subscription;
  }

  private void signal() {
    for (Subscription one : subscriptions) {
      one.signal();
    }
  }

  /** Its own thread, so that a slow subscriber delays nobody else. */
  private final class Subscription implements AutoCloseable {

    private final Runnable onChange;
    private final Thread thread;
    private boolean pending = true;
    private boolean ended;

    Subscription(Runnable onChange) {
      this.onChange = onChange;
      this.thread = Thread.ofPlatform().daemon().name("registry-" + self).unstarted(this::run);
    }

    synchronized void signal() {
      pending = true;
      notifyAll();
    }

    private synchronized boolean awaitSignal() throws InterruptedException {
      while (!pending && !ended) {
        wait();
      }
      pending = false;
      return !ended;
    }

    private void run() {
      try {
        while (awaitSignal()) {
          try {
            onChange.run();
          } catch (RuntimeException e) {
            LOG.error("{}: a subscriber to the registry failed", self, e);
          }
        }
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
      }
    }

    @Override
    public void close() {
      subscriptions.remove(this);
      synchronized (this) {
        ended = true;
        notifyAll();
      }
    }
  }

  /** If this node leads, makes another voter the leader, so that a planned stop causes no gap. */
  void handOver() {
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
    for (Subscription one : subscriptions) {
      one.close();
    }
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

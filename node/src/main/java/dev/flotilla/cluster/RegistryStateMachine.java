package dev.flotilla.cluster;

import com.google.protobuf.InvalidProtocolBufferException;
import dev.flotilla.cluster.proto.Command;
import dev.flotilla.cluster.proto.CommandResult;
import java.io.File;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.Objects;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Stream;
import org.apache.ratis.io.MD5Hash;
import org.apache.ratis.proto.RaftProtos.LogEntryProto;
import org.apache.ratis.protocol.Message;
import org.apache.ratis.protocol.RaftClientRequest;
import org.apache.ratis.protocol.RaftGroupId;
import org.apache.ratis.protocol.RaftGroupMemberId;
import org.apache.ratis.protocol.RaftPeerId;
import org.apache.ratis.server.RaftServer;
import org.apache.ratis.server.protocol.TermIndex;
import org.apache.ratis.server.raftlog.RaftLog;
import org.apache.ratis.server.storage.FileInfo;
import org.apache.ratis.server.storage.RaftStorage;
import org.apache.ratis.server.storage.WholeMetadataFile;
import org.apache.ratis.statemachine.StateMachineStorage;
import org.apache.ratis.statemachine.TransactionContext;
import org.apache.ratis.statemachine.impl.BaseStateMachine;
import org.apache.ratis.statemachine.impl.SimpleStateMachineStorage;
import org.apache.ratis.statemachine.impl.SingleFileSnapshotInfo;
import org.apache.ratis.thirdparty.com.google.protobuf.ByteString;
import org.apache.ratis.util.LifeCycle;
import org.apache.ratis.util.MD5FileUtil;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Puts {@link RegistryState} under Ratis: applies committed commands, writes and loads snapshots,
 * and tells a listener when something changed.
 *
 * <p>The life cycle must pass through PAUSING, PAUSED, STARTING and RUNNING when a snapshot from
 * the leader is installed; Ratis waits for these states, and loses the group for good if they do
 * not come.
 */
final class RegistryStateMachine extends BaseStateMachine {

  /** Called on Ratis's threads; must return at once. */
  interface Listener {

    /** An entry was written, or the leader is another. */
    void changed();

    /** The Raft log cannot be written. */
    void logFailed(Throwable cause);
  }

  private static final Logger LOG = LoggerFactory.getLogger(RegistryStateMachine.class);

  private final RegistryState state = new RegistryState();
  private final SimpleStateMachineStorage storage = new SimpleStateMachineStorage();
  private final Listener listener;
  private final DiskSpace disk;
  private final Object applied = new Object();
  private final AtomicInteger snapshotsInstalled = new AtomicInteger();

  RegistryStateMachine(Listener listener, DiskSpace disk) {
    this.listener = listener;
    this.disk = disk;
  }

  RegistryState state() {
    return state;
  }

  int snapshotsInstalled() {
    return snapshotsInstalled.get();
  }

  /**
   * Waits until this copy has applied an index.
   *
   * @return whether it has
   */
  boolean awaitApplied(long index, long timeoutNs) throws InterruptedException {
    long deadlineNs = System.nanoTime() + timeoutNs;
    synchronized (applied) {
      while (getLastAppliedTermIndex().getIndex() < index) {
        long remainingMs = (deadlineNs - System.nanoTime()) / 1_000_000;
        if (remainingMs <= 0) {
          return false;
        }
        applied.wait(remainingMs);
      }
      return true;
    }
  }

  @Override
  public void initialize(RaftServer server, RaftGroupId groupId, RaftStorage raftStorage)
      throws IOException {
    WholeMetadataFile.install(raftStorage);
    super.initialize(server, groupId, raftStorage);
    getLifeCycle()
        .startAndTransition(
            () -> {
              setAsideTornSnapshots(raftStorage.getStorageDir().getStateMachineDir().toPath());
              storage.init(raftStorage);
              load();
            },
            IOException.class);
  }

  @Override
  public void pause() {
    getLifeCycle().transition(LifeCycle.State.PAUSING);
    getLifeCycle().transition(LifeCycle.State.PAUSED);
  }

  @Override
  public void reinitialize() throws IOException {
    getLifeCycle()
        .startAndTransition(
            () -> {
              storage.loadLatestSnapshot();
              load();
            },
            IOException.class);
    snapshotsInstalled.incrementAndGet();
    wakeWaiters();
    listener.changed();
  }

  @Override
  public StateMachineStorage getStateMachineStorage() {
    return storage;
  }

  /** On the leader, before a command comes into its log: a log that finds no room is broken. */
  @Override
  public TransactionContext startTransaction(RaftClientRequest request) throws IOException {
    TransactionContext transaction = super.startTransaction(request);
    if (disk.isExhausted()) {
      transaction.setException(
          new IOException("the disk of node " + getId() + ", which leads, is full"));
    }
    return transaction;
  }

  @Override
  public CompletableFuture<Message> applyTransaction(TransactionContext transaction) {
    LogEntryProto entry = Objects.requireNonNull(transaction.getLogEntry());
    long index = entry.getIndex();
    Command command;
    try {
      command =
          Command.parseFrom(
              entry.getStateMachineLogEntry().getLogData().asReadOnlyByteBuffer().duplicate());
    } catch (InvalidProtocolBufferException e) {
      // The same on every node, so skipping it keeps them equal.
      LOG.error("{}: log entry {} is not a command", getId(), index, e);
      updateLastAppliedTermIndex(entry.getTerm(), index);
      return CompletableFuture.failedFuture(e);
    }
    CommandResult result = state.apply(command, index);
    updateLastAppliedTermIndex(entry.getTerm(), index);
    wakeWaiters();
    if (result.getEpoch() == index && command.getWritesCount() > 0) {
      listener.changed();
    }
    return CompletableFuture.completedFuture(
        Message.valueOf(ByteString.copyFrom(result.toByteArray())));
  }

  @Override
  public void notifyTermIndexUpdated(long term, long index) {
    super.notifyTermIndexUpdated(term, index);
    wakeWaiters();
  }

  @Override
  public void notifyLeaderChanged(RaftGroupMemberId member, RaftPeerId leader) {
    listener.changed();
  }

  @Override
  public void notifyLeaderReady() {
    listener.changed();
  }

  @Override
  public void notifyLogFailed(Throwable cause, @Nullable LogEntryProto failedEntry) {
    listener.logFailed(cause);
  }

  private void wakeWaiters() {
    synchronized (applied) {
      applied.notifyAll();
    }
  }

  /**
   * Temp file, fsync, checksum, rename: a snapshot file that carries its final name is whole, and
   * if the disk damages it later, the checksum tells.
   */
  @Override
  public long takeSnapshot() throws IOException {
    TermIndex last = getLastAppliedTermIndex();
    if (last.getIndex() < 0) {
      return RaftLog.INVALID_LOG_INDEX;
    }
    File file = storage.getSnapshotFile(last.getTerm(), last.getIndex());
    Path temp = file.toPath().resolveSibling(file.getName() + ".tmp");
    NodeFiles.writeForced(temp, ByteBuffer.wrap(state.toSnapshot()));
    MD5Hash checksum = MD5FileUtil.computeMd5ForFile(temp.toFile());
    MD5FileUtil.saveMD5File(file, checksum);
    NodeFiles.publish(temp, file.toPath());
    storage.updateLatestSnapshot(
        new SingleFileSnapshotInfo(
            new FileInfo(file.toPath(), checksum), last.getTerm(), last.getIndex()));
    LOG.info("{}: snapshot of the registry at {}", getId(), last);
    return last.getIndex();
  }

  private void load() throws IOException {
    SingleFileSnapshotInfo latest = storage.getLatestSnapshot();
    if (latest == null) {
      state.clear();
      setLastAppliedTermIndex(TermIndex.INITIAL_VALUE);
      return;
    }
    Path file = latest.getFile().getPath();
    MD5FileUtil.verifySavedMD5(file.toFile(), MD5FileUtil.computeMd5ForFile(file.toFile()));
    state.load(Files.readAllBytes(file));
    setLastAppliedTermIndex(latest.getTermIndex());
  }

  /** Renames snapshots that do not match their checksum, so that the one before is used. */
  private void setAsideTornSnapshots(Path folder) throws IOException {
    if (!Files.isDirectory(folder)) {
      return;
    }
    try (Stream<Path> files = Files.list(folder)) {
      for (Path file : files.toList()) {
        String name = file.getFileName().toString();
        if (!SimpleStateMachineStorage.SNAPSHOT_REGEX.matcher(name).matches()) {
          continue;
        }
        try {
          MD5FileUtil.verifySavedMD5(file.toFile(), MD5FileUtil.computeMd5ForFile(file.toFile()));
        } catch (IOException | RuntimeException e) {
          LOG.warn("{}: snapshot {} is damaged, using the one before", getId(), file, e);
          Files.move(
              file, file.resolveSibling(name + ".corrupt"), StandardCopyOption.REPLACE_EXISTING);
        }
      }
    }
  }
}

package dev.flotilla.data;

import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.CopyOnWriteArrayList;
import org.apache.ignite.IgniteException;
import org.apache.ignite.cluster.ClusterNode;
import org.apache.ignite.internal.managers.communication.GridIoMessage;
import org.apache.ignite.internal.processors.cache.distributed.GridDistributedTxFinishRequest;
import org.apache.ignite.internal.processors.cache.distributed.GridDistributedTxFinishResponse;
import org.apache.ignite.internal.processors.cache.distributed.GridDistributedTxPrepareRequest;
import org.apache.ignite.internal.processors.cache.distributed.GridDistributedTxPrepareResponse;
import org.apache.ignite.internal.processors.cache.distributed.dht.GridDhtTxFinishRequest;
import org.apache.ignite.internal.processors.cache.distributed.dht.GridDhtTxFinishResponse;
import org.apache.ignite.internal.processors.cache.distributed.dht.GridDhtTxPrepareRequest;
import org.apache.ignite.internal.processors.cache.distributed.dht.GridDhtTxPrepareResponse;
import org.apache.ignite.internal.processors.cache.distributed.near.GridNearTxFinishRequest;
import org.apache.ignite.internal.processors.cache.distributed.near.GridNearTxFinishResponse;
import org.apache.ignite.internal.processors.cache.distributed.near.GridNearTxPrepareRequest;
import org.apache.ignite.internal.processors.cache.distributed.near.GridNearTxPrepareResponse;
import org.apache.ignite.internal.processors.cache.version.GridCacheVersion;
import org.apache.ignite.lang.IgniteInClosure;
import org.apache.ignite.lang.IgniteRunnable;
import org.apache.ignite.lang.IgniteUuid;
import org.apache.ignite.plugin.extensions.communication.Message;
import org.apache.ignite.spi.communication.tcp.TcpCommunicationSpi;
import org.jspecify.annotations.Nullable;

/**
 * Carries the engine's messages, and stops chosen transactions at chosen steps of their commit:
 * from such a step on nothing of the transaction leaves this process or comes in. Once all of them
 * have been stopped the process can end, as {@code kill -9} ends it: in the middle of each.
 *
 * <p>A transaction's coordinator asks the first owner of each partition to prepare, those ask the
 * other owners, and all answer back up; the same again to finish. To stop between two of such
 * requests, the second is held back until the first one is answered: it has certainly been carried
 * out by then.
 */
final class StoppingMessages extends TcpCommunicationSpi {

  /** Where a transaction can stop; named by the process's part in it. */
  enum Step {
    COORDINATOR_BEFORE_PREPARE(true, GridNearTxPrepareRequest.class, GridDhtTxPrepareRequest.class),
    COORDINATOR_BETWEEN_PREPARES(GridNearTxPrepareRequest.class, GridNearTxPrepareResponse.class),
    COORDINATOR_BEFORE_FINISH(true, GridNearTxFinishRequest.class, GridDhtTxFinishRequest.class),
    COORDINATOR_BETWEEN_FINISHES(GridNearTxFinishRequest.class, GridNearTxFinishResponse.class),
    /** It has committed everywhere, and nobody is told: the program itself stops here. */
    COORDINATOR_BEFORE_ANSWER(true),
    OWNER_ASKED_TO_PREPARE(false, GridNearTxPrepareRequest.class),
    OWNER_BETWEEN_PREPARES(GridDhtTxPrepareRequest.class, GridDhtTxPrepareResponse.class),
    OWNER_PREPARED(true, GridNearTxPrepareResponse.class),
    OWNER_ASKED_TO_FINISH(false, GridNearTxFinishRequest.class),
    OWNER_BETWEEN_FINISHES(GridDhtTxFinishRequest.class, GridDhtTxFinishResponse.class),
    OWNER_FINISHED(true, GridNearTxFinishResponse.class),
    BACKUP_ASKED_TO_PREPARE(false, GridDhtTxPrepareRequest.class),
    BACKUP_PREPARED(true, GridDhtTxPrepareResponse.class),
    BACKUP_ASKED_TO_FINISH(false, GridDhtTxFinishRequest.class),
    BACKUP_FINISHED(true, GridDhtTxFinishResponse.class);

    private final boolean sending;
    private final Set<Class<?>> stops;
    private final @Nullable Class<?> heldBack;

    /** Stops in place of sending, or of taking in, such a message. */
    Step(boolean sending, Class<?>... stops) {
      this.sending = sending;
      this.stops = Set.of(stops);
      this.heldBack = null;
    }

    /** Sends one such message, and stops when it is answered. */
    Step(Class<?> requests, Class<?> answer) {
      this.sending = false;
      this.stops = Set.of(answer);
      this.heldBack = requests;
    }

    boolean isCoordinators() {
      return name().startsWith("COORDINATOR");
    }
  }

  /** A transaction that is to be stopped. */
  private static final class Watched {
    final Step step;
    final IgniteUuid transaction;
    private final Set<GridCacheVersion> versions = new HashSet<>();
    private boolean sent;
    private boolean stopped;

    Watched(Step step, IgniteUuid transaction) {
      this.step = step;
      this.transaction = transaction;
    }

    synchronized boolean isStopped() {
      return stopped;
    }

    synchronized boolean passes(Message message, boolean sending) {
      if (!isIts(message)) {
        return true;
      }
      if (step.sending == sending
          && step.stops.contains(message.getClass())
          && (step.heldBack == null || sent)) {
        stopped = true;
      }
      if (stopped) {
        return false;
      }
      if (sending && message.getClass() == step.heldBack) {
        boolean first = !sent;
        sent = true;
        return first;
      }
      return true;
    }

    /** An owner's part of it has a version of its own, which its first message tells. */
    private boolean isIts(Message message) {
      if (message instanceof GridDhtTxPrepareRequest prepare
          && prepare.nearXidVersion().asIgniteUuid().equals(transaction)) {
        versions.add(prepare.version());
      }
      return switch (message) {
        case GridDistributedTxPrepareRequest prepare -> isIts(prepare.version());
        case GridDistributedTxPrepareResponse answer -> isIts(answer.version());
        case GridDistributedTxFinishRequest finish -> isIts(finish.version());
        case GridDistributedTxFinishResponse answer -> isIts(answer.xid());
        default -> false;
      };
    }

    private boolean isIts(GridCacheVersion version) {
      return version.asIgniteUuid().equals(transaction) || versions.contains(version);
    }
  }

  private final List<Watched> watched = new CopyOnWriteArrayList<>();

  /** From now on. */
  void stopAt(Step step, IgniteUuid transaction) {
    watched.add(new Watched(step, transaction));
  }

  /** The steps at which none has stopped yet. */
  List<Step> awaited() {
    return watched.stream().filter(each -> !each.isStopped()).map(each -> each.step).toList();
  }

  @Override
  public void sendMessage(ClusterNode node, Message message) {
    if (passes(message, true)) {
      super.sendMessage(node, message);
    }
  }

  @Override
  public void sendMessage(
      ClusterNode node, Message message, IgniteInClosure<IgniteException> acknowledged) {
    if (passes(message, true)) {
      super.sendMessage(node, message, acknowledged);
    }
  }

  @Override
  protected void notifyListener(UUID sender, Message message, IgniteRunnable after) {
    if (passes(message, false)) {
      super.notifyListener(sender, message, after);
    } else {
      after.run();
    }
  }

  private boolean passes(Message message, boolean sending) {
    return !(message instanceof GridIoMessage io)
        || watched.stream().allMatch(each -> each.passes(io.message(), sending));
  }
}

package dev.flotilla.cluster;

import dev.flotilla.Threads;
import io.grpc.BindableService;
import io.grpc.ManagedChannel;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import javax.net.ssl.SSLContext;

/** This node's membership of a cluster: what the packages above see of it. */
public interface Cluster extends AutoCloseable {

  /** This node's id. */
  String self();

  /**
   * All nodes that ever joined and were not removed, by id, from this node's copy of the registry.
   */
  List<NodeInfo> nodes();

  /** The current Raft leader's id, as far as this node knows. */
  Optional<String> leader();

  /** What the cluster has decided. */
  Registry registry();

  /**
   * A mutual-TLS channel to another node, shared and kept; do not shut it down. Calls on it fail
   * with {@code UNAVAILABLE} at once when the peer's process is gone.
   *
   * @throws dev.flotilla.FlotillaException {@code NOT_FOUND} if there is no such node
   */
  ManagedChannel channel(String nodeId);

  /** Serves a gRPC service to other nodes over mutual TLS; call before {@link #start}. */
  void addService(BindableService service);

  /** Runs on the Raft leader only; call before {@link #start}. */
  void addReconciler(Reconciler reconciler);

  /**
   * Takes a node out of the cluster for good: its certificate is refused from now on, and the
   * leader takes it out of the Raft group. Whether it holds something that nobody else has is the
   * caller's to see to.
   *
   * @throws dev.flotilla.FlotillaException {@code NOT_FOUND} if there is no such node, {@code
   *     CONFLICT} if it is this one, or if of the voters left no majority answers; {@code
   *     NO_MAJORITY}
   */
  void remove(String nodeId);

  /**
   * Asks that nothing new be placed on a node, and that what runs on it go elsewhere where it can;
   * its state is {@code DRAINING} then. Forgotten when the node starts again.
   *
   * @param drained whether to ask so, or to take that back
   * @throws dev.flotilla.FlotillaException {@code NOT_FOUND} if there is no such node; {@code
   *     NO_MAJORITY}
   */
  void drain(String nodeId, boolean drained);

  /**
   * The epoch of the last decision to drain a node; 0 if there was none. What is newer is not to be
   * placed on it while it is {@code DRAINING}.
   */
  default long drainedSince(String nodeId) {
    return registry().get(Controller.drainKey(nodeId)).map(Registry.Entry::epoch).orElse(0L);
  }

  /** Whether the group of those that decide has let go of a node. */
  boolean isMember(String nodeId);

  /**
   * Makes this node's profile known in place of the one that it started with.
   *
   * @param profile what it measured of itself, by name with units
   */
  void publish(Map<String, Double> profile);

  /** The clock and the threads that this node's parts live by. */
  default Threads threads() {
    return Threads.real();
  }

  /** How much room the disks have; what stores data asks it first. */
  DiskSpace disk();

  /**
   * This node's certificate and the cluster's authority, for sockets outside gRPC. A server socket
   * made from it must be told {@code setNeedClientAuth(true)}, or it takes anyone. A client socket
   * must be made with the peer's host and port: where these are a node's (its HTTP port to six
   * above), only that node's certificate is accepted.
   */
  SSLContext tls();

  /**
   * Opens the ports, joins or recovers, and returns once this node is part of a cluster with a
   * leader.
   */
  void start();

  /** Leaves the ports; the data stays. */
  @Override
  void close();

  /**
   * Compares what is wanted with what is there, and acts. Called on the leader's controller thread
   * at every change of the registry or of a node's liveness, and at least every second; must not
   * block for long.
   */
  interface Reconciler {

    /** One pass; may be called again before its effects show. */
    void reconcile(Leadership leadership);
  }

  /** The right to act as controller for one term. */
  interface Leadership {

    /**
     * Nodes that answer now, by id; the controller also writes this to the registry as their state.
     */
    List<NodeInfo> aliveNodes();

    /**
     * As {@link Registry#commit}, and also conditional on this node still being the controller:
     * after another took over, nothing is written and the result is empty.
     */
    Optional<Long> commit(List<Registry.Condition> conditions, List<Registry.Write> writes);
  }
}

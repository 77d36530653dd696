package dev.flotilla.cluster;

import java.io.IOException;
import java.util.List;
import java.util.Optional;

/**
 * The replicated log under the registry, as one node has it: which commands a majority of the
 * voters has accepted, in which order. Raft in a real cluster, a model of it in a simulated one.
 */
public interface ReplicatedLog {

  /** What a leader says to a command. */
  sealed interface Answer {}

  /** It was applied; a {@code CommandResult}. */
  record Applied(byte[] result) implements Answer {}

  /** It was not taken into the log, for sure; worth another try. */
  record NotReady(Exception reason) implements Answer {}

  /** It was not taken into the log, for sure, because the leader's disk has no room. */
  record NoRoom(Exception reason) implements Answer {}

  /** Something else; it may be in the log. */
  record Unsure(Optional<Exception> reason) implements Answer {}

  /** This node's copy of what the commands made. */
  RegistryState state();

  /** The index up to which this node's copy has been applied. */
  long appliedIndex();

  /** Waits until this node's copy has applied an index; whether it has. */
  boolean awaitApplied(long index, long timeoutNs) throws InterruptedException;

  /** The leader as far as this node knows; empty during an election. */
  Optional<String> leader();

  /** Whether this node leads, as far as it knows, and has applied what was decided before. */
  boolean leads();

  /**
   * Sends a command to the node that this one believes to be the leader, and waits for its answer.
   *
   * @throws IOException if no answer came; the command may be in the log, unless the cause is a
   *     {@link java.net.ConnectException}
   * @throws dev.flotilla.FlotillaException if this node's own log is broken
   */
  Answer propose(String leader, byte[] command) throws IOException, InterruptedException;

  /** Voters and listeners of the group as this node knows it. */
  List<String> members();

  /** Of the members, those that elect and may lead. */
  List<String> voters();

  /**
   * Sees to it that this node stands for election only while it is a voter; call every second.
   *
   * @throws IOException if the log is just starting or stopping
   */
  void standForElectionAsVoterOnly() throws IOException;

  /** If this node leads, makes another voter the leader, so that a planned stop causes no gap. */
  void handOver();

  /**
   * Takes a node out of the group and makes a listener a voter in its place; only the leader.
   *
   * @param alive those that may become voters
   */
  boolean expel(String nodeId, List<String> alive) throws IOException;
}

package dev.flotilla.cluster;

import java.util.List;
import java.util.Optional;

/**
 * What the cluster has decided: a small map of versioned entries, replicated by Raft. Every node
 * holds a copy that lags by milliseconds; decisions are made by {@link #commit}, which names the
 * versions it rests on.
 *
 * <p>An entry's epoch is the index in the Raft log of the commit that last wrote it: it only ever
 * grows, and serves as a fencing token.
 */
public interface Registry {

  /** Where an entry lives, such as kind {@code "deployment"}, name {@code "demo"}. */
  record Key(String kind, String name) {}

  /**
   * An entry as it stood at one revision. The value's meaning is up to the package that owns the
   * kind.
   */
  record Entry(Key key, byte[] value, long epoch) {}

  /** One write; an empty value deletes. */
  record Write(Key key, Optional<byte[]> value) {}

  /** A version that a commit rests on; epoch 0 means that the entry must not exist. */
  record Condition(Key key, long epoch) {}

  /** One entry of this node's copy, which may lag behind the decision by milliseconds. */
  Optional<Entry> get(Key key);

  /** All entries of a kind in this node's copy, by name. */
  List<Entry> list(String kind);

  /** The Raft index up to which this node's copy has been applied. */
  long revision();

  /**
   * Waits until this node's copy is as new as everything that was committed anywhere before the
   * call.
   *
   * @throws dev.flotilla.FlotillaException {@code NO_MAJORITY} if no majority confirms in time
   */
  void sync();

  /**
   * Writes all or nothing: all if every condition holds. When this returns, a majority has it on
   * disk, and this node's copy shows it. Safe to repeat: a retried command is applied once.
   *
   * @return the epoch that the written entries now carry, or empty if a condition did not hold
   * @throws dev.flotilla.FlotillaException {@code NO_MAJORITY} if nothing was decided, {@code
   *     OUTCOME_UNKNOWN} if that cannot be told
   */
  Optional<Long> commit(List<Condition> conditions, List<Write> writes);

  /**
   * Calls back, on a thread of the registry's own, soon after this node's copy changed; several
   * changes may come as one call. Also called once right away.
   *
   * @return closes the subscription
   */
  AutoCloseable subscribe(Runnable onChange);
}

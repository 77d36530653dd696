package dev.flotilla.data.sql;

import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.function.Function;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;

/**
 * Transactions over tables, caches and queues, wherever in the cluster their entries are: all of it
 * or nothing, by two-phase commit.
 *
 * <p>The body runs on the calling thread, and everything that it does there with {@code sql()},
 * {@code cache(name)} and {@code queue(name)} takes part; what other threads do does not.
 *
 * <p>Errors, after all of which nothing was done unless said otherwise: {@code CONFLICT} if another
 * transaction came first or two waited for each other; {@code BUSY} if it waited for a lock, or
 * ran, for too long; {@code NO_MAJORITY}; {@code OUTCOME_UNKNOWN} if it cannot be told whether it
 * was done: what ran under the caller's own id ({@link #runOnce}) can be run again, and is done
 * once.
 */
public interface Transactions {

  /** What a transaction may count on. */
  enum Mode {
    /**
     * Serializable. What it reads and writes, rows and conditions too, is locked at the first touch
     * until the end; who comes second waits.
     */
    PESSIMISTIC,
    /**
     * As {@link #PESSIMISTIC}, but a SELECT locks nothing: it sees what has been committed when it
     * runs, and may see other values when run again. An UPDATE or DELETE still locks what it
     * touches before it reads it, so none is lost; a value that a SELECT read and the caller writes
     * back may be stale. Keys read from caches are locked.
     */
    READ_COMMITTED,
    /**
     * Serializable, without waiting: locks only to commit, and fails with {@code CONFLICT} if an
     * entry read or written has changed meanwhile. For caches and queues; SQL is refused.
     */
    OPTIMISTIC
  }

  /**
   * How to run one.
   *
   * @param timeout after which it is rolled back, from 100 ms to 10 minutes
   */
  record Options(Mode mode, Duration timeout) {

    /** With a time-out of 10 s. */
    public static Options of(Mode mode) {
      return new Options(mode, Duration.ofSeconds(10));
    }
  }

  /** Runs the body in one transaction, and commits it when the body returns. */
  <T> T run(Options options, Function<Transaction, T> body);

  /** As above, with the defaults of a mode. */
  default <T> T run(Mode mode, Function<Transaction, T> body) {
    return run(Options.of(mode), body);
  }

  /**
   * As {@link #run}, once for an id that the caller chose, however often it is tried in a day: the
   * id is recorded in the same transaction.
   *
   * @return empty if a run with this id had committed before, and this one did nothing
   */
  <T> Optional<T> runOnce(String id, Options options, Function<Transaction, T> body);

  /** What a step of a list does. */
  sealed interface Step {

    /** One SQL statement; no DDL. */
    record Statement(String statement, List<@Nullable Object> arguments) implements Step {}

    /** Puts a value into a cache, or removes it if empty. */
    record Put(String cache, String key, Optional<byte[]> value) implements Step {}

    /** Reads a value from a cache. */
    record Get(String cache, String key) implements Step {}

    /** Sends a message. */
    record Send(String queue, String key, byte[] body) implements Step {}

    /** Acknowledges messages received before. */
    record Acknowledge(String queue, List<String> receipts) implements Step {}
  }

  /**
   * What a step brought.
   *
   * @param value of a {@link Step.Get}; the id of a {@link Step.Send}, as UTF-8
   */
  record StepResult(Optional<SqlResult> sql, Optional<byte[]> value) {}

  /**
   * The outcome of a list of steps.
   *
   * @param results one for each step; none if {@code repeated} and they were larger than 64 KiB
   * @param repeated whether a run with the same id had committed before, and this one did nothing
   */
  record Outcome(String id, List<StepResult> results, boolean repeated) {}

  /**
   * Runs steps in order, in one transaction.
   *
   * @param id the caller's, as in {@link #runOnce}: a second run with it returns the first outcome
   * @throws dev.flotilla.FlotillaException {@code INVALID} for other than 1 to 1,000 steps; {@code
   *     CONFLICT} also if a run with this id has committed that had other steps
   */
  Outcome run(Options options, List<Step> steps, Optional<String> id);

  /** Opens a transaction that is worked on step by step, from any thread. */
  Session begin(Options options);

  /**
   * As {@link #begin}, once for an id that the caller chose, as in {@link #runOnce}.
   *
   * @return empty if a transaction with this id had committed before
   */
  Optional<Session> beginOnce(String id, Options options);

  /** A session that is open on this node. */
  Optional<Session> session(String id);

  /**
   * A transaction that is open across calls. It is of this node, and rolled back when its time-out
   * is over.
   */
  interface Session {

    /** The transaction's id. */
    String id();

    /**
     * Runs a step; if it fails, the whole is rolled back.
     *
     * @throws dev.flotilla.FlotillaException as the step says, or {@code NOT_FOUND} if the session
     *     has ended
     */
    StepResult step(Step step);

    /** As {@link #step}, for a statement with limits of its own, and a way to stop it. */
    SqlResult sql(Sql.Request request, Sql.Cancel cancel);

    /**
     * Runs some work as a part of the transaction: what it does on its thread with caches, queues
     * and SQL belongs to it. If the work fails, the transaction stays open.
     */
    <T> T call(Supplier<T> work);

    /** Commits. */
    void commit();

    /** Undoes all of it. */
    void rollback();
  }

  /** How far a transaction is. */
  enum State {
    ACTIVE,
    COMMITTING,
    COMMITTED,
    ROLLED_BACK,
    /** Its originator was lost; the engine resolves it by itself, one way or the other. */
    UNKNOWN
  }

  /** A node that holds entries of a transaction, and the caches and partitions of them. */
  record Participant(String node, List<String> partitions) {}

  /** An operation, and when it was done. */
  record StepDone(String what, long atMs) {}

  /** A transaction as seen from outside. */
  record View(
      String id,
      Mode mode,
      State state,
      String originator,
      long startedAtMs,
      Optional<Long> endedAtMs,
      String error,
      List<Participant> participants,
      List<StepDone> steps) {}

  /** Those that run, and the last ones that ran, newest first, on all nodes that answer. */
  List<View> list();

  /** One of them; kept for a while after its end. */
  Optional<View> find(String id);
}

package dev.flotilla.data.sql;

import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * Work of several steps that cannot be rolled back as one transaction: calls to the world outside,
 * or work of hours. Each step may have a compensation, which undoes it; when a step fails for good,
 * those of the steps before it run, last first.
 *
 * <p>How far a saga is stands in the grid. One node drives it, chosen in the registry; when that
 * node dies, another goes on from the last step recorded. So a step may run twice, in part or
 * wholly: it must do its work once for its {@link Context#key}, as {@link Transactions#runOnce}
 * does.
 *
 * <p>What sagas there are is code, registered under the same name on every node before it starts.
 */
public interface Sagas {

  /**
   * What a step is told.
   *
   * @param key the saga's id and the step's name, and {@code undo} for a compensation: the same in
   *     every attempt
   * @param results of the steps before, by name
   */
  record Context(
      String id, String key, Map<String, String> parameters, Map<String, String> results) {}

  /** Does or undoes a step. */
  @FunctionalInterface
  interface Action {
    /**
     * A {@link dev.flotilla.FlotillaException} of a code that says to try again ({@code BUSY},
     * {@code UNAVAILABLE}, {@code NO_MAJORITY}, {@code OUTCOME_UNKNOWN}, {@code CONFLICT}) is tried
     * again, some times; any other exception is a failure for good.
     *
     * @return a result for the steps after it, up to 64 KiB
     */
    String run(Context context);
  }

  /** A step. */
  record Step(String name, Action action, Optional<Action> compensation) {}

  /** How far a saga is. */
  enum State {
    RUNNING,
    COMPENSATING,
    DONE,
    /** A step failed, and all before it are undone. */
    COMPENSATED,
    /** A compensation failed again and again; a person must look. */
    STUCK
  }

  /**
   * A saga as seen from outside.
   *
   * @param stepsDone those done and not undone
   * @param error of the step that failed
   */
  record View(
      String id,
      String saga,
      State state,
      Map<String, String> parameters,
      Map<String, String> results,
      int stepsDone,
      String error,
      long updatedAtMs) {}

  /** Makes a saga known on this node. */
  void register(String saga, List<Step> steps);

  /**
   * Starts one; it runs on whether the caller waits or not. A second start under the same id does
   * nothing, for a day after its end. When this returns, some node drives it; when it fails it may
   * have begun or not, and is to be started again under the same id.
   *
   * @throws dev.flotilla.FlotillaException {@code NOT_FOUND} if it is not registered here, {@code
   *     INVALID} for a bad id or parameters of more than 64 KiB
   */
  void start(String saga, String id, Map<String, String> parameters);

  /** One of them; kept for a day after its end. */
  Optional<View> find(String id);

  /**
   * Waits for the end of one.
   *
   * @return as it is at the end, or when the time is over
   */
  View await(String id, Duration timeout) throws InterruptedException;
}

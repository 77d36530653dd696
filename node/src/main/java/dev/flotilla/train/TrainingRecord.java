package dev.flotilla.train;

import dev.flotilla.cluster.Registry;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * A job as the registry holds it: kind {@code training}, name = id.
 *
 * @param config without its text
 * @param text where the text came from; empty for the small world
 * @param reason why it waits, was started again, or failed
 * @param attempt how often it has been started; fences the worlds of its workers
 * @param members who runs it now, or ran it last, by rank
 * @param curve the loss curve of a finished job, thinned out
 */
record TrainingRecord(
    String id,
    long createdAtMs,
    TrainingConfig config,
    Optional<Text> text,
    State state,
    String reason,
    long attempt,
    List<Member> members,
    List<TrainingJobs.LossPoint> curve,
    Optional<Result> result) {

  static final String KIND = "training";

  enum State {
    QUEUED,
    RUNNING,
    SUCCEEDED,
    FAILED,
    CANCELLED;

    boolean ended() {
      return this != QUEUED && this != RUNNING;
    }
  }

  /** The text of a job: the node that it was submitted to, and its digest. */
  record Text(String node, String sha256, long bytes) {}

  /** A worker's node, and which start of it: after another, its worker is gone. */
  record Member(String node, long incarnation) {}

  /**
   * What came out.
   *
   * @param accuracyByKind held-out accuracy by kind of question
   * @param node has the checkpoint
   * @param checkpoint its folder there
   * @param cpuSeconds of rank 0's process
   */
  record Result(
      double heldOutAccuracy,
      Map<String, Double> accuracyByKind,
      String node,
      String checkpoint,
      double cpuSeconds) {}

  static Registry.Key key(String id) {
    return new Registry.Key(KIND, id);
  }

  TrainingRecord running(List<Member> workers) {
    return new TrainingRecord(
        id,
        createdAtMs,
        config,
        text,
        State.RUNNING,
        reason,
        attempt + 1,
        workers,
        List.of(),
        Optional.empty());
  }

  TrainingRecord with(State other, String why) {
    return new TrainingRecord(
        id, createdAtMs, config, text, other, why, attempt, members, curve, result);
  }

  TrainingRecord succeeded(List<TrainingJobs.LossPoint> points, Result outcome) {
    return new TrainingRecord(
        id,
        createdAtMs,
        config,
        text,
        State.SUCCEEDED,
        "",
        attempt,
        members,
        points,
        Optional.of(outcome));
  }
}

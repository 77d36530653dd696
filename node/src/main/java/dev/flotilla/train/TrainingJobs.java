package dev.flotilla.train;

import java.util.List;

/** Training on the cluster: submits jobs and follows them, from any node. */
public interface TrainingJobs {

  /**
   * One point of a loss curve; {@code validationLoss} is NaN where it was not measured at this
   * step.
   */
  record LossPoint(int step, double loss, double validationLoss, double tokensPerSecond) {}

  /**
   * A job: {@code queued}, {@code running}, {@code succeeded}, {@code failed} or {@code cancelled}.
   *
   * @param reason why it failed and what to do; empty otherwise
   * @param nodes the nodes its workers run on, by rank
   * @param steps how many there will be
   * @param curve every reported point so far
   * @param heldOutAccuracy share of held-out questions answered right in the trainer; NaN until
   *     measured
   * @param model the name under which the result is added to the cluster's models
   */
  record JobView(
      String id,
      String state,
      String reason,
      List<String> nodes,
      int steps,
      List<LossPoint> curve,
      double heldOutAccuracy,
      String model) {}

  /** Submits a job; the controller starts it. Returns its id. */
  String submit(TrainingConfig config);

  /** One job, with its curve. */
  JobView get(String id);

  /** All jobs, newest first. */
  List<JobView> list();

  /** Stops a job; what it has checkpointed stays. */
  void cancel(String id);
}

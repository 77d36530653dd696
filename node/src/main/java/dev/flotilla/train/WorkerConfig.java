package dev.flotilla.train;

import java.util.Optional;

/**
 * What a worker process is to do; the node writes it to a file, as JSON.
 *
 * @param attempt the world's epoch
 * @param worldSize how many workers there are
 * @param threads of libtorch
 * @param training without its text
 * @param textFile where the text is
 * @param folder where the worker may write; rank 0 leaves the checkpoint in {@code model} there
 * @param reportEverySteps how often rank 0 reports progress
 * @param heldOutQuestions how many rank 0 asks at the end
 */
record WorkerConfig(
    String job,
    long attempt,
    int rank,
    int worldSize,
    int threads,
    TrainingConfig training,
    Optional<String> textFile,
    String folder,
    int reportEverySteps,
    int heldOutQuestions) {

  /** The checkpoint's folder below {@link #folder}. */
  static final String MODEL_FOLDER = "model";
}

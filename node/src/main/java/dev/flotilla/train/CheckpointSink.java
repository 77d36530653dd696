package dev.flotilla.train;

import java.nio.file.Path;

/** Takes up what a job has trained, on the node where its rank 0 ran. */
@FunctionalInterface
public interface CheckpointSink {

  /**
   * Called before the job counts as succeeded, on a thread that may block; may be called again for
   * the same job after a crash.
   *
   * @param hfFolder a complete Hugging Face folder; it stays
   * @throws dev.flotilla.FlotillaException if it cannot be taken up; the job fails with its reason
   */
  void accept(String jobId, String modelName, Path hfFolder);
}

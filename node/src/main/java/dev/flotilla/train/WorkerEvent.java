package dev.flotilla.train;

import com.fasterxml.jackson.annotation.JsonSubTypes;
import com.fasterxml.jackson.annotation.JsonTypeInfo;
import dev.flotilla.FlotillaException;
import java.util.Map;

/** What a worker process tells its node, one JSON object a line on its standard output. */
@JsonTypeInfo(use = JsonTypeInfo.Id.NAME, property = "event")
@JsonSubTypes({
  @JsonSubTypes.Type(value = WorkerEvent.Address.class, name = "address"),
  @JsonSubTypes.Type(value = WorkerEvent.Progress.class, name = "progress"),
  @JsonSubTypes.Type(value = WorkerEvent.Done.class, name = "done"),
  @JsonSubTypes.Type(value = WorkerEvent.Failed.class, name = "failed")
})
sealed interface WorkerEvent {

  /** Where its Gloo listens; the node answers with {@link Peers} on the standard input. */
  record Address(byte[] blob) implements WorkerEvent {}

  /** A point of the loss curve, from rank 0. */
  record Progress(int step, double loss, double validationLoss, double tokensPerSecond)
      implements WorkerEvent {}

  /**
   * All steps are done. Rank 0 has written the checkpoint.
   *
   * @param heldOutAccuracy NaN if the data has no questions
   * @param accuracyByKind the same by kind of question
   * @param cpuSeconds that the process took
   */
  record Done(double heldOutAccuracy, Map<String, Double> accuracyByKind, double cpuSeconds)
      implements WorkerEvent {}

  /**
   * It cannot go on, and exits.
   *
   * @param peerLost whether only because another worker is gone
   */
  record Failed(FlotillaException.Code code, String reason, boolean peerLost)
      implements WorkerEvent {}

  /** The node's answer to {@link Address}: what this worker's Gloo is to see, by rank. */
  record Peers(java.util.List<byte[]> blobs) {}
}

package dev.flotilla.data.queue;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;

/** Which hand-out of which message to which group. */
record QueueReceipt(
    String group, int partition, long sequence, int attempt, int owner, int generation) {

  String text() {
    return group
        + "~"
        + partition
        + "~"
        + sequence
        + "~"
        + attempt
        + "~"
        + Integer.toHexString(owner)
        + "~"
        + generation;
  }

  /** The inverse, for a queue of so many partitions. */
  static QueueReceipt parse(String text, int partitions) {
    String[] parts = text.split("~", -1);
    try {
      if (parts.length == 6) {
        QueueReceipt receipt =
            new QueueReceipt(
                parts[0],
                Integer.parseInt(parts[1]),
                Long.parseLong(parts[2]),
                Integer.parseInt(parts[3]),
                Integer.parseUnsignedInt(parts[4], 16),
                Integer.parseInt(parts[5]));
        if (receipt.partition >= 0
            && receipt.partition < partitions
            && receipt.sequence >= 0
            && receipt.attempt > 0) {
          return receipt;
        }
      }
    } catch (NumberFormatException malformed) {
      // Said below.
    }
    throw new FlotillaException(
        Code.INVALID, "that is no receipt of this queue", "Give one that receive answered.");
  }

  /** Whether the message is still this hand-out's, as far as the group's progress goes. */
  boolean isGood(QueueProgress progress) {
    QueueProgress.Trouble trouble = progress.troubled().get(sequence);
    return generation == progress.generation()
        && !progress.isDone(sequence)
        && (trouble == null || (trouble.attempts() == attempt && trouble.owner() == owner));
  }
}

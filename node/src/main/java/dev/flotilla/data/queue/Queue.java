package dev.flotilla.data.queue;

import dev.flotilla.cluster.Fence;
import dev.flotilla.data.grid.Grid;
import dev.flotilla.data.sql.Transactions;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.Flow;

/**
 * A durable queue of the cluster.
 *
 * <p>Messages are spread over partitions by the hash of their key. Each consumer group gets every
 * message; within a group a message goes to one consumer at a time, and messages of one key one
 * after the other: the next is handed out when the one before is acknowledged or dead. A message
 * that is not acknowledged within its visibility is handed out again.
 *
 * <p>Delivery alone is at least once. An effect happens exactly once if it is in the same
 * transaction as the acknowledgement ({@link Transactions}): of two consumers of one message the
 * second to commit is refused, whatever clocks and nodes did meanwhile.
 *
 * <p>Inside {@code transactions().run} all operations but {@link #receive} take part in it. Errors
 * are those of {@link Grid#write}, and {@code BUSY} where the queue is full.
 */
public interface Queue {

  /** The largest body, in bytes. */
  int BODY_BYTES_MAX = 256 << 10;

  /** The largest key, in bytes of UTF-8. */
  int KEY_BYTES_MAX = 1024;

  /** The most messages of one call. */
  int BATCH_MAX = 1_000;

  /** The most bytes of the bodies of one call to send. */
  int SEND_BYTES_MAX = 4 << 20;

  /** The group of those who name none. */
  String DEFAULT_GROUP = "default";

  /**
   * A message to be sent.
   *
   * @param key messages of one key are handed out in order; empty for no order
   * @param dedupId a second message with it within {@link QueueConfig#dedupMs} is not sent, and
   *     answers the first one's id
   * @param delay not handed out before
   * @param priority 0 to 9; of what may be handed out, wherever it is, higher comes first; of one
   *     key the older one first all the same
   */
  record Outgoing(String key, byte[] body, Optional<String> dedupId, Duration delay, int priority) {

    /** At once, with no id and the usual priority. */
    public static Outgoing of(String key, byte[] body) {
      return new Outgoing(key, body, Optional.empty(), Duration.ZERO, 0);
    }
  }

  /**
   * A message that was handed out.
   *
   * @param receipt to acknowledge it with; worth nothing once it was handed out again
   * @param attempt 1 at first
   */
  record Message(String id, String receipt, String key, byte[] body, int attempt) {}

  /** A message that was handed out too often, and set aside. */
  record Dead(String id, String group, String key, byte[] body, long diedAtMs) {}

  /** A group's backlog: not acknowledged, and of these handed out now. */
  record GroupStats(String group, long depth, long inFlight, long dead) {}

  /** A queue as it stands. */
  record Stats(String queue, QueueConfig config, long sent, List<GroupStats> groups) {}

  /** Its name. */
  String name();

  /** Sends all or none of those of one partition; returns their ids in order. */
  List<String> send(List<Outgoing> messages, Optional<Fence> fence);

  /** Sends one. */
  default String send(Outgoing message) {
    return send(List.of(message), Optional.empty()).getFirst();
  }

  /**
   * Hands out what is there. A group that receives for the first time gets what is sent from then
   * on, and older messages after a {@link #replay}; {@link #DEFAULT_GROUP} gets all of them.
   *
   * @param consumer who asks, for people
   * @param visibility how long they stay invisible to others
   * @param wait how long to wait if nothing is there
   */
  List<Message> receive(String group, String consumer, int max, Duration visibility, Duration wait)
      throws InterruptedException;

  /**
   * Acknowledges messages, all or none of one partition.
   *
   * @throws dev.flotilla.FlotillaException {@code CONFLICT} if one was handed out again since, or
   *     is acknowledged already; {@code INVALID} if a receipt is none
   */
  void acknowledge(List<String> receipts, Optional<Fence> fence);

  /** Gives messages back, to be handed out again after the delay. */
  void giveBack(List<String> receipts, Duration delay);

  /** As it stands. */
  Stats stats();

  /** Dead messages, oldest first. */
  List<Dead> dead(int max);

  /** Sends dead messages again, as new ones; returns how many. */
  int redrive(int max);

  /**
   * Lets a group read again from a moment on; what is older than the retention is gone.
   *
   * @param fromMs messages sent at or after it are handed out again
   */
  void replay(String group, long fromMs);

  /**
   * Messages as a stream, as many as are asked for; each must be acknowledged. Cancelling stops it.
   */
  default Flow.Publisher<Message> publisher(String group, String consumer, Duration visibility) {
    return subscriber ->
        subscriber.onSubscribe(
            new QueueSubscription(this, group, consumer, visibility, subscriber));
  }
}

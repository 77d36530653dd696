package dev.flotilla.data.queue;

import dev.flotilla.data.queue.QueueProgress.Trouble;
import java.util.ArrayList;
import java.util.List;
import java.util.TreeMap;

/**
 * What a group has in hand of one partition: in the memory of the partition's owner, the node that
 * hands it out. Pure; for one thread at a time.
 *
 * <p>Handing out costs no write, as long as nothing can go wrong by forgetting it. The first
 * hand-out of a message that certainly was not handed out before is kept here only: if the owner is
 * lost, the next one hands the message out again, as if its visibility were over. Every other
 * hand-out is durable before it happens, as {@link Trouble}: the second and later ones, and those
 * of messages which a former owner may have handed out, that is all that lay in the window when
 * this one began.
 *
 * <p>From this follow two things. A receipt is good if its message is not done with and carries no
 * trouble but the receipt's own: whoever acknowledges needs no owner to know that the message was
 * not handed out again. And of each message one hand-out at most goes uncounted, so that it is
 * handed out at most once more than allowed before it is dead, however many owners it takes with
 * it.
 */
final class QueueDelivery {

  /** Messages beyond the floor that may be handed out at the same time. */
  static final int WINDOW = 1_000;

  /**
   * A message to hand out.
   *
   * @param attempt which time it is
   * @param durable whether this must be written first
   */
  record Offer(QueueBatch.Sent message, int attempt, boolean durable) {}

  private final int owner;
  private final int generation;
  private long doubtfulBelow;
  private final TreeMap<Long, Long> handedUntilMs = new TreeMap<>();

  /**
   * @param owner tells this owner's time from every other
   * @param progress as it stands when this owner begins
   * @param firstCertain no message from this sequence on can have been handed out by another
   */
  QueueDelivery(int owner, QueueProgress progress, long firstCertain) {
    this.owner = owner;
    this.generation = progress.generation();
    doubt(progress, firstCertain);
  }

  /** Others may have handed out in between. */
  void doubt(QueueProgress progress, long firstCertain) {
    doubtfulBelow = Math.min(firstCertain, progress.floor() + WINDOW);
  }

  /** Tells this owner's time from every other. */
  int owner() {
    return owner;
  }

  /** The replays that it knows of; with another it is made anew. */
  int generation() {
    return generation;
  }

  /** What may be handed out now. */
  List<Offer> next(
      Iterable<QueueBatch.Sent> window, QueueProgress progress, long nowMs, int max, int highest) {
    handedUntilMs.headMap(progress.floor()).clear();
    List<Offer> offers = new ArrayList<>();
    for (QueueBatch.Sent message :
        QueueWindow.next(
            window,
            progress::isDone,
            sequence -> notBeforeMs(sequence, progress) > nowMs,
            nowMs,
            max,
            highest)) {
      int before = attempts(message.sequence(), progress);
      offers.add(new Offer(message, before + 1, before > 0 || message.sequence() < doubtfulBelow));
    }
    return offers;
  }

  private int attempts(long sequence, QueueProgress progress) {
    Trouble trouble = progress.troubled().get(sequence);
    if (trouble != null) {
      return trouble.attempts();
    }
    return handedUntilMs.containsKey(sequence) ? 1 : 0;
  }

  private long notBeforeMs(long sequence, QueueProgress progress) {
    Trouble trouble = progress.troubled().get(sequence);
    return trouble != null ? trouble.notBeforeMs() : handedUntilMs.getOrDefault(sequence, 0L);
  }

  /** Notes a hand-out that need not be durable. */
  void handedOut(long sequence, long untilMs) {
    handedUntilMs.put(sequence, untilMs);
  }

  /** How many are handed out now, or given back and not due. */
  int held(QueueProgress progress, long nowMs) {
    long held =
        handedUntilMs.entrySet().stream()
            .filter(each -> each.getValue() > nowMs)
            .filter(each -> !progress.isDone(each.getKey()))
            .filter(each -> !progress.troubled().containsKey(each.getKey()))
            .count();
    held += progress.troubled().values().stream().filter(t -> t.notBeforeMs() > nowMs).count();
    return (int) held;
  }
}

package dev.flotilla.serve;

import dev.flotilla.serve.proto.AnswerUpdate;
import dev.flotilla.serve.proto.ChoiceUpdate;
import dev.flotilla.serve.proto.KeepReply;
import dev.flotilla.serve.proto.KeepRequest;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Copies of the answers that run on other nodes, for when these die. A copy may lag behind: what it
 * lacks follows from what it has. What comes twice, late or out of order changes nothing, for all
 * of it carries its position; where something is missing, the sender is told.
 *
 * <p>Copies live for a while after the last word of them. Where there is no room, those of answers
 * that have ended go first, the oldest before the others; those that run stay, and new ones are
 * refused.
 */
final class AnswerCopies {

  private static final Logger log = LoggerFactory.getLogger(AnswerCopies.class);

  private record Handle(String owner, long incarnation, long number) {}

  private static final class Copy {
    private final GrowingAnswer answer;
    private long heardNs;
    private long bytes;

    Copy(GrowingAnswer answer) {
      this.answer = answer;
    }
  }

  private final long bytesMax;
  private final long retentionNs;

  /** Longest unheard of first. */
  private final LinkedHashMap<Handle, Copy> copies = new LinkedHashMap<>();

  private long bytes;

  /**
   * @param bytesMax of all of them
   * @param retentionNs for which one is kept after the last word of it
   */
  AnswerCopies(long bytesMax, long retentionNs) {
    this.bytesMax = bytesMax;
    this.retentionNs = retentionNs;
  }

  /** Takes in what a sender says is new. */
  synchronized KeepReply keep(KeepRequest request, long nowNs) {
    expire(nowNs);
    KeepReply.Builder reply = KeepReply.newBuilder();
    for (long number : request.getForgottenList()) {
      remove(new Handle(request.getOwner(), request.getIncarnation(), number));
    }
    for (AnswerUpdate update : request.getUpdatesList()) {
      Handle handle = new Handle(request.getOwner(), request.getIncarnation(), update.getNumber());
      Copy copy = copies.remove(handle);
      if (copy == null && !update.hasStart()) {
        reply.addUnknown(update.getNumber());
        continue;
      }
      if (copy == null) {
        copy = new Copy(new GrowingAnswer(AnswerWire.value(update.getStart())));
      }
      bytes -= copy.bytes;
      copy.heardNs = nowNs;
      if (!extend(copy.answer, update)) {
        reply.addUnknown(update.getNumber());
        if (update.hasStart()) {
          log.error(
              "answer {} of node {}: what came does not fit what was there",
              update.getStart().getId(),
              request.getOwner());
        }
        continue;
      }
      copy.bytes = copy.answer.bytes();
      if (makeRoom(copy.bytes)) {
        copies.put(handle, copy);
        bytes += copy.bytes;
      } else {
        reply.addRefused(update.getNumber());
      }
    }
    return reply.build();
  }

  private static boolean extend(GrowingAnswer answer, AnswerUpdate update) {
    for (ChoiceUpdate choice : update.getChoicesList()) {
      int index = choice.getChoice();
      if (index < 0
          || index >= answer.choices()
          || !answer.add(index, choice.getPosition(), Wire.ints(choice.getTokensList()))) {
        return false;
      }
      AnswerWire.end(choice).ifPresent(reason -> answer.end(index, reason));
    }
    return true;
  }

  private boolean makeRoom(long wanted) {
    Iterator<Copy> oldest = copies.values().iterator();
    while (bytes + wanted > bytesMax && oldest.hasNext()) {
      Copy copy = oldest.next();
      if (copy.answer.ended()) {
        bytes -= copy.bytes;
        oldest.remove();
      }
    }
    return bytes + wanted <= bytesMax;
  }

  private void expire(long nowNs) {
    Iterator<Copy> oldest = copies.values().iterator();
    while (oldest.hasNext()) {
      Copy copy = oldest.next();
      if (nowNs - copy.heardNs <= retentionNs) {
        return;
      }
      bytes -= copy.bytes;
      oldest.remove();
    }
  }

  private void remove(Handle handle) {
    Copy copy = copies.remove(handle);
    if (copy != null) {
      bytes -= copy.bytes;
    }
  }

  /** The answer, as far as it is known, whoever it came from. */
  synchronized Optional<AnswerValue> find(String id, long nowNs) {
    expire(nowNs);
    List<AnswerValue> found = new ArrayList<>();
    for (Map.Entry<Handle, Copy> entry : copies.entrySet()) {
      if (entry.getValue().answer.start().id().equals(id)) {
        found.add(entry.getValue().answer.value());
      }
    }
    return found.stream().reduce(AnswerValue::or);
  }

  /** Drops an answer, whoever it came from. */
  synchronized void forget(String id, String tenant) {
    copies
        .values()
        .removeIf(
            copy -> {
              boolean meant =
                  copy.answer.start().id().equals(id)
                      && copy.answer.start().tenant().equals(tenant);
              bytes -= meant ? copy.bytes : 0;
              return meant;
            });
  }

  /** What all of them take. */
  synchronized long bytes() {
    return bytes;
  }

  /** How many there are. */
  synchronized int count() {
    return copies.size();
  }
}

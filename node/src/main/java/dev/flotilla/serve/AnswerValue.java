package dev.flotilla.serve;

import dev.flotilla.serve.Generator.FinishReason;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/**
 * An answer as a value: with it any node can go on with it, and write it as it was begun.
 *
 * @param id unique in the cluster
 * @param turn how many nodes have gone on with it
 * @param rendering how the gateway writes it; opaque here
 * @param requests one per choice, all of the same model, limits, grammar and claim
 * @param progress what there is of each choice
 */
public record AnswerValue(
    String id,
    long turn,
    byte[] rendering,
    List<GenerationRequest> requests,
    List<Progress> progress) {

  /**
   * What there is of one choice.
   *
   * @param tokens generated so far
   * @param end why it ended, if it has
   */
  public record Progress(int[] tokens, Optional<FinishReason> end) {

    /** Of what has not begun. */
    public static final Progress NONE = new Progress(new int[0], Optional.empty());
  }

  /** Copies the lists. */
  public AnswerValue {
    requests = List.copyOf(requests);
    progress = List.copyOf(progress);
    if (requests.isEmpty() || requests.size() != progress.size()) {
      throw new IllegalArgumentException(requests.size() + " choices, " + progress.size());
    }
  }

  /** One that has not begun. */
  public static AnswerValue of(String id, byte[] rendering, List<GenerationRequest> requests) {
    return new AnswerValue(
        id, 0, rendering, requests, requests.stream().map(r -> Progress.NONE).toList());
  }

  /** Whose it is. */
  public String tenant() {
    return requests.getFirst().claim().tenant();
  }

  /** The same, for the next node that goes on with it. */
  AnswerValue next() {
    return new AnswerValue(id, turn + 1, rendering, requests, progress);
  }

  /**
   * The same answer as two nodes know it: of each choice what is longer. Tokens follow from the
   * requests, so one is always the other's beginning.
   */
  AnswerValue or(AnswerValue other) {
    List<Progress> longest = new ArrayList<>();
    for (int choice = 0; choice < progress.size(); choice++) {
      Progress mine = progress.get(choice);
      Progress theirs = other.progress.get(choice);
      boolean fewer = mine.tokens().length < theirs.tokens().length;
      longest.add(
          fewer || (mine.end().isEmpty() && mine.tokens().length == theirs.tokens().length)
              ? theirs
              : mine);
    }
    return new AnswerValue(id, Math.max(turn, other.turn), rendering, requests, longest);
  }
}

package dev.flotilla.serve;

import dev.flotilla.serve.AnswerValue.Progress;
import dev.flotilla.serve.Generator.FinishReason;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.IdentityHashMap;
import java.util.List;
import java.util.Optional;

/** An answer that more tokens come to; its owner sees to it that one thread at a time does. */
final class GrowingAnswer {

  private static final int OVERHEAD_BYTES = 512;

  private final AnswerValue start;
  private final int[][] tokens;
  private final int[] lengths;
  private final List<Optional<FinishReason>> ends = new ArrayList<>();
  private final long startBytes;

  GrowingAnswer(AnswerValue value) {
    start = value;
    int choices = value.progress().size();
    tokens = new int[choices][];
    lengths = new int[choices];
    for (int choice = 0; choice < choices; choice++) {
      Progress progress = value.progress().get(choice);
      tokens[choice] = progress.tokens().clone();
      lengths[choice] = tokens[choice].length;
      ends.add(progress.end());
    }
    IdentityHashMap<int[], Boolean> prompts = new IdentityHashMap<>();
    value.requests().forEach(request -> prompts.put(request.prompt(), true));
    startBytes =
        OVERHEAD_BYTES
            + value.rendering().length
            + 2L * value.requests().getFirst().grammar().map(String::length).orElse(0)
            + prompts.keySet().stream().mapToLong(prompt -> 4L * prompt.length).sum();
  }

  /** As it was before its first token. */
  AnswerValue start() {
    return start;
  }

  int choices() {
    return lengths.length;
  }

  /** How many tokens there are of a choice. */
  int length(int choice) {
    return lengths[choice];
  }

  Optional<FinishReason> end(int choice) {
    return ends.get(choice);
  }

  /** Whether nothing more will come to it. */
  boolean ended() {
    return ends.stream().allMatch(Optional::isPresent);
  }

  void add(int choice, int token) {
    if (lengths[choice] == tokens[choice].length) {
      tokens[choice] = Arrays.copyOf(tokens[choice], lengths[choice] + lengths[choice] / 2 + 16);
    }
    tokens[choice][lengths[choice]++] = token;
  }

  /**
   * Adds what of these is new.
   *
   * @param position of the first of them among those generated
   * @return whether they fit what is there: no gap before them, and the same where both have some
   */
  boolean add(int choice, int position, int[] more) {
    int known = lengths[choice] - position;
    if (position < 0 || known < 0) {
      return false;
    }
    int common = Math.min(known, more.length);
    if (!Arrays.equals(tokens[choice], position, position + common, more, 0, common)) {
      return false;
    }
    for (int i = common; i < more.length; i++) {
      add(choice, more[i]);
    }
    return true;
  }

  void end(int choice, FinishReason reason) {
    ends.set(choice, Optional.of(reason));
  }

  /** The tokens of a choice from a position on. */
  int[] tokens(int choice, int from) {
    return Arrays.copyOfRange(tokens[choice], from, lengths[choice]);
  }

  /** All that there is now. */
  AnswerValue value() {
    List<Progress> progress = new ArrayList<>();
    for (int choice = 0; choice < lengths.length; choice++) {
      progress.add(new Progress(tokens(choice, 0), ends.get(choice)));
    }
    return new AnswerValue(start.id(), start.turn(), start.rendering(), start.requests(), progress);
  }

  /** What it takes of the memory, about. */
  long bytes() {
    long bytes = startBytes;
    for (int[] each : tokens) {
      bytes += 64 + 4L * each.length;
    }
    return bytes;
  }
}

package dev.flotilla.gateway;

import dev.flotilla.serve.Generator.FinishReason;
import java.util.ArrayList;
import java.util.List;

/** Makes a {@link Recording} while an answer is given. */
final class Recorder {

  private final List<List<Integer>> tokens = new ArrayList<>();
  private final List<FinishReason> reasons = new ArrayList<>();

  Recorder(int choices) {
    for (int i = 0; i < choices; i++) {
      tokens.add(new ArrayList<>());
      reasons.add(FinishReason.STOP);
    }
  }

  void token(int choice, int token) {
    tokens.get(choice).add(token);
  }

  void finished(int choice, FinishReason reason) {
    reasons.set(choice, reason);
  }

  /** What was recorded; call it when every choice has ended. */
  Recording recording() {
    List<Recording.Choice> choices = new ArrayList<>();
    for (int i = 0; i < tokens.size(); i++) {
      choices.add(new Recording.Choice(List.copyOf(tokens.get(i)), reasons.get(i)));
    }
    return new Recording(choices);
  }
}

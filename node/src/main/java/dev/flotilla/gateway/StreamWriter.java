package dev.flotilla.gateway;

import java.util.ArrayList;
import java.util.List;

/** Writes an answer's events, each with its {@link StreamPosition}, from where the client is on. */
final class StreamWriter implements AnswerWriter {

  private final EventStream out;
  private final AnswerFormat format;
  private final boolean usageWanted;
  private final StreamPosition had;

  /** Of each choice, the steps that were made. */
  private final int[] made;

  private boolean usage;

  /**
   * @param had what the client has; it is not written again
   */
  StreamWriter(EventStream out, Rendering rendering, StreamPosition had) {
    this.out = out;
    this.format = rendering.format();
    this.usageWanted = rendering.usage();
    this.had = had;
    this.made = new int[had.steps().size()];
    this.usage = had.usage();
  }

  @Override
  public void open(int choice) {
    if (step(choice)) {
      out.event(format.opening(choice), "id: " + id());
    }
  }

  @Override
  public void text(int choice, String piece) {
    if (step(choice) && !piece.isEmpty()) {
      out.event(format.delta(choice, piece), "id: " + id());
    }
  }

  @Override
  public void end(int choice, String rest, String finishReason) {
    text(choice, rest);
    if (step(choice)) {
      out.event(format.closing(choice, finishReason), "id: " + id());
    } else if (made[choice] < had.steps().get(choice)) {
      throw StreamPosition.invalid(
          "choice " + choice + " has " + made[choice] + " steps, not " + had.steps().get(choice));
    }
  }

  @Override
  public void close(int promptTokens, int completionTokens) {
    if (usageWanted && !usage) {
      usage = true;
      out.event(format.usageChunk(promptTokens, completionTokens), "id: " + id());
    }
    out.done();
  }

  @Override
  public void failed(ApiError error) {
    out.event(error.body());
  }

  /** Makes a step; whether the client does not have it. */
  private boolean step(int choice) {
    return ++made[choice] > had.steps().get(choice);
  }

  private String id() {
    List<Integer> steps = new ArrayList<>();
    for (int choice = 0; choice < made.length; choice++) {
      steps.add(Math.max(made[choice], had.steps().get(choice)));
    }
    return new StreamPosition(had.answer(), steps, usage).text();
  }
}

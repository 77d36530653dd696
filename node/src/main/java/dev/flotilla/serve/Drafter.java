package dev.flotilla.serve;

import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;

/**
 * Guesses what a model will say, so that several of its tokens can be computed in one step
 * (Leviathan et al., 2023). A guess costs and saves time; it changes no token, for each one is
 * drawn from the model's own logits all the same, and a guess counts only where it says what was
 * drawn.
 */
interface Drafter {

  /**
   * A sequence whose next tokens are wanted.
   *
   * @param sequence names it, as long as it stays in the cache
   * @param tokens the first {@code length} are its own
   * @param most so many tokens at most, at least one
   */
  record Context(long sequence, int[] tokens, int length, int most, SamplingParameters sampling) {}

  /** Guesses for each, in order; fewer tokens than asked for, or none, are all right. */
  List<int[]> draft(List<Context> contexts);

  /** A sequence is gone. */
  void forget(long sequence);

  /** All are gone. */
  void clear();

  /** What this one guesses, and where it guesses nothing, what another does. */
  default Drafter or(Drafter other) {
    Drafter first = this;
    return new Drafter() {
      @Override
      public List<int[]> draft(List<Context> contexts) {
        List<int[]> guesses = new ArrayList<>(first.draft(contexts));
        List<Context> open = new ArrayList<>();
        for (int i = 0; i < guesses.size(); i++) {
          if (guesses.get(i).length == 0) {
            open.add(contexts.get(i));
          }
        }
        Iterator<int[]> others = other.draft(open).iterator();
        guesses.replaceAll(guess -> guess.length == 0 ? others.next() : guess);
        return guesses;
      }

      @Override
      public void forget(long sequence) {
        first.forget(sequence);
        other.forget(sequence);
      }

      @Override
      public void clear() {
        first.clear();
        other.clear();
      }
    };
  }

  /** Guesses nothing. */
  Drafter NONE =
      new Drafter() {
        @Override
        public List<int[]> draft(List<Context> contexts) {
          return contexts.stream().map(context -> new int[0]).toList();
        }

        @Override
        public void forget(long sequence) {}

        @Override
        public void clear() {}
      };
}

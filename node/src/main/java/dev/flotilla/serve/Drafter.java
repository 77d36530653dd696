package dev.flotilla.serve;

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

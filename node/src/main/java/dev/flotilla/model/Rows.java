package dev.flotilla.model;

import dev.flotilla.tensor.KvBlocks;
import java.util.Arrays;
import java.util.List;

/**
 * Which rows of a step belong to which sequence: its runs, one after another. A later run may see
 * what an earlier one of the same step computes, so runs are worked on in their order.
 *
 * <p>Rows of a prompt and rows of what was generated go different routes, the one made for many
 * rows, the other for few, and may differ in their last bits. So each token keeps its route, also
 * when it is computed again: a prompt's in chunks of {@link #CHUNK} positions, the others one by
 * one, however many of them a step has.
 */
public record Rows(List<Run> runs) {

  /**
   * Positions of a prompt that are computed together. Chunks begin at the multiples of it, whatever
   * of them is already in the cache or lies behind the prompt's end.
   */
  public static final int CHUNK = 128;

  /**
   * Consecutive positions of one sequence.
   *
   * @param blocks of the KV cache that the sequence has, in order, at least up to its last row here
   * @param position of the first row
   * @param count how many rows
   * @param prompt whether they go the prompt's route; then all are in one chunk
   */
  public record Run(int[] blocks, int position, int count, boolean prompt) {

    /** Rejects what no scheduler means. */
    public Run {
      if (position < 0 || count < 1 || position + count > blocks.length * KvBlocks.POSITIONS) {
        throw new IllegalArgumentException(
            count + " rows from position " + position + " in " + blocks.length + " blocks");
      }
    }

    /** The position behind the last row. */
    public int end() {
      return position + count;
    }
  }

  /** Keeps the list as it is now. */
  public Rows {
    runs = List.copyOf(runs);
  }

  /** How many rows there are. */
  public int count() {
    return runs.stream().mapToInt(Run::count).sum();
  }

  /** The position of each row in its sequence. */
  public int[] positions() {
    int[] positions = new int[count()];
    int row = 0;
    for (Run run : runs) {
      for (int i = 0; i < run.count(); i++) {
        positions[row++] = run.position() + i;
      }
    }
    return positions;
  }

  /** Whether each row goes the prompt's route. */
  public boolean[] prompts() {
    boolean[] prompts = new boolean[count()];
    int row = 0;
    for (Run run : runs) {
      Arrays.fill(prompts, row, row + run.count(), run.prompt());
      row += run.count();
    }
    return prompts;
  }
}

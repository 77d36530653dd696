package dev.flotilla.serve;

import dev.flotilla.model.Pooling;
import java.util.List;

/**
 * One step's rows, as the scheduler gives them to a replica's stages.
 *
 * @param number rises by one from step to step
 * @param tokens the token id of each row
 * @param sequences the cache sequence of each row
 * @param positions the position of each row in its sequence
 * @param draws the rows whose successor is to be drawn
 * @param pools the rows that add to embeddings
 * @param releases sequences that every stage forgets before it runs the rows
 */
record Batch(
    long number,
    int[] tokens,
    long[] sequences,
    int[] positions,
    List<Draw> draws,
    List<Pool> pools,
    long[] releases) {

  /**
   * A token to draw.
   *
   * @param row whose logits count
   * @param position of the drawn token in its sequence
   */
  record Draw(int row, int position, SamplingParameters sampling) {}

  /**
   * Rows of one sequence that add to its embedding.
   *
   * @param row the first of them
   * @param rows how many follow one another
   * @param length tokens of the whole sequence: with the last one's row the embedding is complete
   */
  record Pool(int row, int rows, int length, Pooling pooling) {}

  int rows() {
    return tokens.length;
  }
}

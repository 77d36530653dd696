package dev.flotilla.serve;

import java.util.List;

/**
 * One step's rows, as the scheduler gives them to a replica's stages.
 *
 * @param number rises by one from step to step
 * @param tokens the token id of each row
 * @param sequences the cache sequence of each row
 * @param positions the position of each row in its sequence
 * @param draws the rows whose successor is to be drawn
 * @param releases sequences that every stage forgets before it runs the rows
 */
record Batch(
    long number,
    int[] tokens,
    long[] sequences,
    int[] positions,
    List<Draw> draws,
    long[] releases) {

  /**
   * A token to draw.
   *
   * @param row whose logits count
   * @param position of the drawn token in its sequence
   */
  record Draw(int row, int position, SamplingParameters sampling) {}

  int rows() {
    return tokens.length;
  }
}

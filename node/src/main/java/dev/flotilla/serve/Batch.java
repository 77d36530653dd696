package dev.flotilla.serve;

import dev.flotilla.model.Pooling;
import dev.flotilla.model.Rows;
import dev.flotilla.text.TokenMask;
import java.util.List;
import java.util.Optional;

/**
 * One step's rows, as the scheduler gives them to a replica's stages.
 *
 * @param number rises by one from step to step
 * @param tokens the token id of each row
 * @param rows which sequence's each row is
 * @param draws the rows whose successor is to be drawn
 * @param pools the rows that add to embeddings
 * @param releases texts to embed that the last stage forgets before it pools
 * @param imports parts of blocks from another replica, by their block here: each stage writes what
 *     of them is its layers', before it runs the rows
 * @param exports blocks that each stage reads, after it has run the rows
 */
record Batch(
    long number,
    int[] tokens,
    Rows rows,
    List<Draw> draws,
    List<Pool> pools,
    long[] releases,
    List<BlockPart> imports,
    List<Export> exports) {

  /** Rows, and nothing of other replicas. */
  Batch(long number, int[] tokens, Rows rows, List<Draw> draws, List<Pool> pools, long[] releases) {
    this(number, tokens, rows, draws, pools, releases, List.of(), List.of());
  }

  /** The same without what is drawn and pooled. */
  Batch rowsOnly() {
    return new Batch(number, tokens, rows, List.of(), List.of(), releases, imports, exports);
  }

  /**
   * A block to read.
   *
   * @param id of the export
   */
  record Export(int block, long id) {}

  /**
   * A token to draw.
   *
   * @param row whose logits count
   * @param position of the drawn token in its sequence
   * @param allowed the tokens that it may be, where a grammar says so
   */
  record Draw(int row, int position, SamplingParameters sampling, Optional<TokenMask> allowed) {}

  /**
   * Rows of one sequence that add to its embedding.
   *
   * @param sequence names it
   * @param row the first of them
   * @param position of that row in the sequence
   * @param rows how many follow one another
   * @param length tokens of the whole sequence: with the last one's row the embedding is complete
   */
  record Pool(long sequence, int row, int position, int rows, int length, Pooling pooling) {}
}

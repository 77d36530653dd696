package dev.flotilla.model;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.tensor.WeightType;
import java.util.ArrayList;
import java.util.List;

/**
 * What one of several machines has of every layer: some heads of keys and values with the query
 * heads that read them, and a part of the feed-forward part (of each expert, where there are
 * several). It multiplies by its rows of the matrices that make these, and by its columns of those
 * that take them back to the hidden state; the sums over all machines of the latter are the layer's
 * results (Shoeybi et al. 2019, "Megatron-LM", section 3).
 *
 * <p>Rank 0 has the embedding and the output, too.
 *
 * @param rank of this machine
 * @param firstHead of the key and value heads here
 * @param heads of keys and values here
 * @param firstInner of the feed-forward part's elements here
 * @param inner how many of them are here
 */
public record TensorShare(int rank, int firstHead, int heads, int firstInner, int inner) {

  /** All of it on one machine. */
  static TensorShare whole(ModelConfig config) {
    return new TensorShare(0, 0, config.kvHeads(), 0, config.feedForward());
  }

  /**
   * The shares of all ranks.
   *
   * @param heads of keys and values, by rank
   * @param inner elements of the feed-forward part, by rank
   */
  public static List<TensorShare> of(List<Integer> heads, List<Integer> inner) {
    List<TensorShare> shares = new ArrayList<>();
    int head = 0;
    int element = 0;
    for (int rank = 0; rank < heads.size(); rank++) {
      shares.add(new TensorShare(rank, head, heads.get(rank), element, inner.get(rank)));
      head += heads.get(rank);
      element += inner.get(rank);
    }
    return shares;
  }

  /** The shape of what is here. */
  ModelConfig of(ModelConfig whole) {
    return new ModelConfig(
        whole.architecture(),
        whole.vocabularySize(),
        whole.width(),
        whole.layers(),
        heads * (whole.heads() / whole.kvHeads()),
        heads,
        whole.headWidth(),
        inner,
        whole.contextLength(),
        whole.ropeTheta(),
        whole.rmsEpsilon(),
        whole.tiedEmbeddings(),
        whole.variant());
  }

  /**
   * A run of a matrix's rows or columns.
   *
   * @param count how many
   */
  record Span(int first, int count) {}

  /** Which rows of a weight are here. */
  Span rows(ModelConfig config, String weight, int rows) {
    return switch (plain(weight)) {
      case "attn_q" -> queries(config);
      case "attn_k", "attn_v" ->
          new Span(firstHead * config.headWidth(), heads * config.headWidth());
      case "ffn_gate", "ffn_up" -> new Span(firstInner, inner);
      default -> new Span(0, rows);
    };
  }

  /** Which columns of a weight are here. */
  Span columns(ModelConfig config, String weight, int columns) {
    return switch (plain(weight)) {
      case "attn_output" -> queries(config);
      case "ffn_down" -> new Span(firstInner, inner);
      default -> new Span(0, columns);
    };
  }

  private Span queries(ModelConfig config) {
    int width = config.heads() / config.kvHeads() * config.headWidth();
    return new Span(firstHead * width, heads * width);
  }

  /** Whether products with a matrix are parts of a sum over all machines. */
  static boolean isSummed(String matrix) {
    return matrix.equals("attn_output") || matrix.equals("ffn_down");
  }

  /** Without the number of an expert, and without its kind. */
  private static String plain(String weight) {
    int dot = weight.indexOf('.');
    return dot < 0 ? weight : weight.substring(0, dot);
  }

  /**
   * Columns are cut between the blocks of their type.
   *
   * @throws FlotillaException {@code INVALID} if they do not begin and end between blocks
   */
  static void requireBlocks(Span columns, WeightType type, String tensor) {
    if (columns.first() % type.blockElements() != 0
        || columns.count() % type.blockElements() != 0) {
      throw new FlotillaException(
          Code.INVALID,
          "columns "
              + columns.first()
              + " to "
              + (columns.first() + columns.count() - 1)
              + " of "
              + tensor
              + " are not whole blocks of "
              + type.blockElements(),
          "Share the model over fewer machines, or use a type of smaller blocks, such as q8_0.");
    }
  }
}

package dev.flotilla.tensor;

import org.bytedeco.pytorch.DoubleOptional;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptional;
import org.bytedeco.pytorch.global.torch;

/**
 * Causal grouped-query attention of a training batch: the rows are {@code sequences · length}
 * tokens, sequence after sequence, and every row sees the earlier rows of its own document in its
 * own sequence.
 *
 * <p>Several documents packed into one sequence are kept apart by a mask, so that a packed document
 * has the very distribution that a lone one has when the model serves.
 */
public final class TorchAttention implements Attention<Tensor> {

  private final int sequences;
  private final int length;
  private final int heads;
  private final int kvHeads;
  private final TensorOptional mask;
  private final boolean causal;

  private TorchAttention(
      int sequences, int length, int heads, int kvHeads, TensorOptional mask, boolean causal) {
    this.sequences = sequences;
    this.length = length;
    this.heads = heads;
    this.kvHeads = kvHeads;
    this.mask = mask;
    this.causal = causal;
  }

  /** Every sequence is one document. */
  public static TorchAttention causal(int sequences, int length, int heads, int kvHeads) {
    return new TorchAttention(sequences, length, heads, kvHeads, new TensorOptional(), true);
  }

  /**
   * Sequences packed from documents. The mask belongs to the caller's pointer scope.
   *
   * @param documents {@code [sequences · length]}: which document of its sequence a row belongs to
   */
  public static TorchAttention packed(
      int sequences, int length, int heads, int kvHeads, int[] documents) {
    float[] bias = new float[sequences * length * length];
    for (int s = 0; s < sequences; s++) {
      for (int row = 0; row < length; row++) {
        for (int seen = 0; seen < length; seen++) {
          boolean visible =
              seen <= row && documents[s * length + seen] == documents[s * length + row];
          bias[(s * length + row) * length + seen] = visible ? 0 : Float.NEGATIVE_INFINITY;
        }
      }
    }
    Tensor mask = torch.tensor(bias).view(sequences, 1, length, length);
    return new TorchAttention(sequences, length, heads, kvHeads, new TensorOptional(mask), false);
  }

  @Override
  public Tensor attend(int layer, Tensor query, Tensor key, Tensor value) {
    Tensor attended =
        torch.scaled_dot_product_attention(
            split(query, heads),
            expand(split(key, kvHeads)),
            expand(split(value, kvHeads)),
            mask,
            0.0,
            causal,
            new DoubleOptional(),
            false);
    return attended.transpose(1, 2).reshape((long) sequences * length, -1);
  }

  /** {@code [rows, heads · headWidth]} to {@code [sequences, heads, length, headWidth]}. */
  private Tensor split(Tensor x, int parts) {
    return x.view(sequences, length, parts, -1).transpose(1, 2);
  }

  /** Repeats each key or value head for the query heads that share it. */
  private Tensor expand(Tensor x) {
    if (kvHeads == heads) {
      return x;
    }
    long width = x.size(3);
    return x.unsqueeze(2)
        .expand(sequences, kvHeads, heads / kvHeads, length, width)
        .reshape(sequences, heads, length, width);
  }
}

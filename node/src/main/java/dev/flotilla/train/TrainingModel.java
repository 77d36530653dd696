package dev.flotilla.train;

import dev.flotilla.model.Decoder;
import dev.flotilla.model.ModelConfig;
import dev.flotilla.tensor.TorchAttention;
import dev.flotilla.tensor.TorchOps;
import java.util.Arrays;
import java.util.List;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.NoGradGuard;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptional;
import org.bytedeco.pytorch.global.torch;

/** The model over libtorch: its loss and gradients on sequences, and its next tokens. */
final class TrainingModel implements AutoCloseable {

  private static final long SUM = 2;

  private final ModelConfig config;
  private final Parameters parameters;
  private final TorchOps ops = new TorchOps();
  private final Decoder<Tensor, Tensor> decoder;

  TrainingModel(ModelConfig config, long seed) {
    this.config = config;
    this.parameters = new Parameters(config, seed);
    this.decoder = new Decoder<>(config, ops, 0, parameters.blocks(), new float[0]);
  }

  ModelConfig config() {
    return config;
  }

  Parameters parameters() {
    return parameters;
  }

  /** Loss summed over the targets, and how many targets there were. */
  record Loss(double sum, int targets) {
    double mean() {
      return sum / targets;
    }
  }

  /**
   * Sets the gradients to those of the summed loss over the sequences, with the sum and the number
   * of targets behind them. No sequences give zeros.
   */
  void gradients(List<Sequence> sequences) {
    Tensor gradients = parameters.gradients();
    gradients.zero_();
    if (sequences.isEmpty()) {
      return;
    }
    try (var _ = new PointerScope()) {
      int targets = Batch.targetCount(sequences);
      Tensor loss = loss(Batch.of(sequences));
      loss.backward();
      gradients.narrow(0, parameters.count(), 1).fill_(loss.detach());
      gradients.narrow(0, parameters.count() + 1, 1).fill_(new Scalar(targets));
    }
  }

  /** The loss without gradients. */
  Loss evaluate(List<Sequence> sequences) {
    try (var _ = new PointerScope();
        var _ = new NoGradGuard()) {
      return new Loss(loss(Batch.of(sequences)).item_float(), Batch.targetCount(sequences));
    }
  }

  private Tensor loss(Batch batch) {
    Tensor hidden = hidden(batch.tokens(), batch.positions(), attention(batch));
    Tensor asked = hidden.index_select(0, TorchOps.indexes(batch.targetRows()));
    Tensor logits = decoder.logits(asked, parameters.finalNorm(), parameters.embedding());
    return torch.cross_entropy_loss(
        logits, TorchOps.indexes(batch.targets()), new TensorOptional(), SUM, -100, 0.0);
  }

  private Tensor hidden(int[] tokens, int[] positions, TorchAttention attention) {
    return decoder.layers(decoder.embed(parameters.embedding(), tokens), positions, attention);
  }

  private TorchAttention attention(Batch batch) {
    int heads = config.heads();
    return batch.packed()
        ? TorchAttention.packed(
            batch.sequences(), batch.length(), heads, config.kvHeads(), batch.documents())
        : TorchAttention.causal(batch.sequences(), batch.length(), heads, config.kvHeads());
  }

  /**
   * The most likely next token of each prompt, the lowest id among equals.
   *
   * @param prompts token ids; shorter ones are padded behind their end, where no row looks
   */
  int[] nextTokens(List<int[]> prompts) {
    int length = prompts.stream().mapToInt(p -> p.length).max().orElse(0);
    int[] tokens = new int[prompts.size() * length];
    int[] positions = new int[tokens.length];
    int[] last = new int[prompts.size()];
    for (int p = 0; p < prompts.size(); p++) {
      int[] prompt = prompts.get(p);
      System.arraycopy(prompt, 0, tokens, p * length, prompt.length);
      last[p] = p * length + prompt.length - 1;
      for (int i = 0; i < length; i++) {
        positions[p * length + i] = i;
      }
    }
    try (var _ = new PointerScope();
        var _ = new NoGradGuard()) {
      var attention =
          TorchAttention.causal(prompts.size(), length, config.heads(), config.kvHeads());
      Tensor hidden = hidden(tokens, positions, attention).index_select(0, TorchOps.indexes(last));
      float[] logits =
          Parameters.floats(
              decoder.logits(hidden, parameters.finalNorm(), parameters.embedding()).contiguous());
      int[] next = new int[prompts.size()];
      for (int p = 0; p < next.length; p++) {
        int row = p * config.vocabularySize();
        for (int token = 1; token < config.vocabularySize(); token++) {
          if (logits[row + token] > logits[row + next[p]]) {
            next[p] = token;
          }
        }
      }
      return next;
    }
  }

  @Override
  public void close() {
    ops.close();
    parameters.close();
  }

  /** Sequences side by side, as the flat rows that the model takes. */
  private record Batch(
      int sequences,
      int length,
      int[] tokens,
      int[] positions,
      int[] documents,
      int[] targetRows,
      int[] targets,
      boolean packed) {

    static Batch of(List<Sequence> sequences) {
      int length = sequences.getFirst().length();
      int rows = sequences.size() * length;
      int[] tokens = new int[rows];
      int[] positions = new int[rows];
      int[] documents = new int[rows];
      int[] targetRows = new int[rows];
      int[] targets = new int[rows];
      int count = 0;
      for (int s = 0; s < sequences.size(); s++) {
        Sequence sequence = sequences.get(s);
        System.arraycopy(sequence.tokens(), 0, tokens, s * length, length);
        System.arraycopy(sequence.positions(), 0, positions, s * length, length);
        System.arraycopy(sequence.documents(), 0, documents, s * length, length);
        for (int i = 0; i < length; i++) {
          if (sequence.targets()[i] != Sequence.NO_TARGET) {
            targetRows[count] = s * length + i;
            targets[count++] = sequence.targets()[i];
          }
        }
      }
      return new Batch(
          sequences.size(),
          length,
          tokens,
          positions,
          documents,
          Arrays.copyOf(targetRows, count),
          Arrays.copyOf(targets, count),
          Arrays.stream(documents).anyMatch(document -> document != 0));
    }

    static int targetCount(List<Sequence> sequences) {
      int count = 0;
      for (Sequence sequence : sequences) {
        for (int target : sequence.targets()) {
          count += target == Sequence.NO_TARGET ? 0 : 1;
        }
      }
      return count;
    }
  }
}

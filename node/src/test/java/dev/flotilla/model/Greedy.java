package dev.flotilla.model;

import java.nio.file.Path;
import java.util.Arrays;

/** Runs a GGUF file in one slice. */
final class Greedy {

  /** All tokens, and the logits of every position. */
  record Result(int[] tokens, float[][] logits) {}

  private Greedy() {}

  /** Continues a prompt by the most likely token each time. */
  static Result run(Path gguf, int[] prompt, int generate) {
    try (GgufFile source = GgufFile.open(gguf)) {
      int layers = source.header().modelConfig().layers();
      LayerRange all = new LayerRange(0, layers - 1);
      try (LayerSlice slice = PackedSlice.load(source, all, 1, KvFormat.F32, 256)) {
        int[] tokens = Arrays.copyOf(prompt, prompt.length + generate);
        float[][] logits = new float[tokens.length][];
        Sequences sequences = new Sequences(slice.blocks());
        for (int t = 0; t < tokens.length; t++) {
          if (t >= prompt.length) {
            tokens[t] = argmax(logits[t - 1]);
          }
          float[] hidden = slice.embed(new int[] {tokens[t]});
          slice.forward(hidden, sequences.rows(new long[] {1}, new int[] {t}));
          logits[t] = slice.logits(hidden, new int[] {0});
        }
        return new Result(tokens, logits);
      }
    }
  }

  static int argmax(float[] values) {
    int best = 0;
    for (int i = 1; i < values.length; i++) {
      if (values[i] > values[best]) {
        best = i;
      }
    }
    return best;
  }
}

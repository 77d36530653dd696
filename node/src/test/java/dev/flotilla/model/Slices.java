package dev.flotilla.model;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/** Runs a GGUF file cut into slices. */
final class Slices {

  private Slices() {}

  /**
   * Loads slices.
   *
   * @param firsts the first layer of each
   */
  static List<LayerSlice> load(Path file, int threads, int positions, int... firsts) {
    List<LayerSlice> slices = new ArrayList<>();
    try (GgufFile source = GgufFile.open(file)) {
      int layers = source.header().modelConfig().layers();
      for (int i = 0; i < firsts.length; i++) {
        int last = i + 1 < firsts.length ? firsts[i + 1] - 1 : layers - 1;
        slices.add(
            PackedSlice.load(
                source, new LayerRange(firsts[i], last), threads, KvFormat.F32, positions));
      }
    }
    return slices;
  }

  /** All tokens of one sequence in chunks of the given size; the logits of every row. */
  static float[] run(List<LayerSlice> slices, int[] tokens, int chunk) {
    return run(slices, new Sequences(slices.getFirst().blocks()), 1, tokens, chunk);
  }

  /** The same beside other sequences. */
  static float[] run(
      List<LayerSlice> slices, Sequences cached, long sequence, int[] tokens, int chunk) {
    int vocabulary = slices.getFirst().config().vocabularySize();
    float[] logits = new float[tokens.length * vocabulary];
    for (int from = 0; from < tokens.length; from += chunk) {
      int[] part = Arrays.copyOfRange(tokens, from, Math.min(tokens.length, from + chunk));
      float[] hidden = slices.getFirst().embed(part);
      long[] sequences = new long[part.length];
      int[] positions = new int[part.length];
      int[] rows = new int[part.length];
      for (int i = 0; i < part.length; i++) {
        sequences[i] = sequence;
        positions[i] = from + i;
        rows[i] = i;
      }
      Rows step = cached.rows(sequences, positions);
      for (LayerSlice slice : slices) {
        slice.forward(hidden, step);
      }
      float[] result = slices.getLast().logits(hidden, rows);
      System.arraycopy(result, 0, logits, from * vocabulary, result.length);
    }
    return logits;
  }

  /** The same, with slices of its own. */
  static float[] run(Path file, int threads, int[] tokens, int chunk, int... firsts) {
    List<LayerSlice> slices = load(file, threads, 64, firsts);
    try {
      return run(slices, tokens, chunk);
    } finally {
      close(slices);
    }
  }

  static void close(List<LayerSlice> slices) {
    slices.forEach(LayerSlice::close);
  }
}

package dev.flotilla.model;

import java.util.ArrayList;
import java.util.List;

/**
 * A tensor of a block, as files have it, and the weights that the block takes from it: one of the
 * same name, or several where a file keeps matrices stacked.
 *
 * @param name in GGUF, behind {@code blk.N.}
 * @param huggingFace its name behind {@code model.layers.N.}; a {@code *} stands for the number of
 *     an expert, whose matrices are apart there
 * @param shape fastest dimension first
 * @param interleaved whether GGUF has its rows in the order of rotary pairs side by side, where
 *     Hugging Face and we have first halves before second ones
 * @param weights what is cut from its rows, in order; together all of them
 */
record Part(
    String name, String huggingFace, List<Integer> shape, boolean interleaved, List<Cut> weights) {

  /** A weight made of the next so many rows. */
  record Cut(String name, int rows) {}

  /** A matrix {@code [out, in]}. */
  static Part matrix(String name, String huggingFace, int in, int out) {
    return new Part(
        name + ".weight",
        huggingFace + ".weight",
        List.of(in, out),
        false,
        List.of(new Cut(name + ".weight", out)));
  }

  /** A matrix whose result is turned by rope, in files of the Llama family. */
  static Part interleaved(String name, String huggingFace, int in, int out) {
    Part plain = matrix(name, huggingFace, in, out);
    return new Part(plain.name, plain.huggingFace, plain.shape, true, plain.weights);
  }

  /** A factor for every element. */
  static Part gain(String name, String huggingFace, int width) {
    return new Part(
        name + ".weight",
        huggingFace + ".weight",
        List.of(width),
        false,
        List.of(new Cut(name + ".weight", 1)));
  }

  /** The bias of a matrix. */
  Part bias() {
    String of = name.replace(".weight", ".bias");
    return new Part(
        of,
        huggingFace.replace(".weight", ".bias"),
        shape.subList(1, 2),
        interleaved,
        List.of(new Cut(of, 1)));
  }

  /** The same matrix of every expert, one above the other. */
  static Part experts(String name, String huggingFace, int in, int out, int experts) {
    List<Cut> weights = new ArrayList<>();
    for (int expert = 0; expert < experts; expert++) {
      weights.add(new Cut(name + "." + expert + ".weight", out));
    }
    return new Part(
        name + "_exps.weight", huggingFace + ".weight", List.of(in, out, experts), false, weights);
  }

  /** Two or more matrices one above the other. */
  static Part stacked(String name, String huggingFace, int in, Cut... weights) {
    int out = 0;
    List<Cut> cuts = new ArrayList<>();
    for (Cut weight : weights) {
      out += weight.rows();
      cuts.add(new Cut(weight.name() + ".weight", weight.rows()));
    }
    return new Part(name + ".weight", huggingFace + ".weight", List.of(in, out), false, cuts);
  }

  /** The tensor in one layer, under its whole names. */
  Part at(int layer) {
    return new Part(
        ModelTensors.block(layer) + name,
        "model.layers." + layer + "." + huggingFace,
        shape,
        interleaved,
        weights);
  }

  /** Whether it is a gain or a bias, which are kept in full precision. */
  boolean vector() {
    return shape.size() == 1;
  }
}

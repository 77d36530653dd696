package dev.flotilla.model;

import dev.flotilla.FlotillaException;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * The tensors of a model: their names in GGUF and in Hugging Face folders, and their shapes.
 *
 * <p>GGUF keeps the rows of query and key matrices of some architectures in the interleaved order
 * of rotary pairs; Hugging Face and we keep them half-split.
 */
final class ModelTensors {

  static final String EMBEDDING = "token_embd.weight";
  static final String FINAL_NORM = "output_norm.weight";
  static final String OUTPUT = "output.weight";
  static final String ROPE_FACTORS = "rope_freqs.weight";
  static final String LONG_FACTORS = "rope_factors_long.weight";
  static final String SHORT_FACTORS = "rope_factors_short.weight";

  private ModelTensors() {}

  /** What the names of a layer's tensors begin with. */
  static String block(int layer) {
    return "blk." + layer + ".";
  }

  /** All tensors of a model by their names in GGUF, in the order of a file. */
  static Map<String, Part> all(ModelConfig c) {
    Map<String, Part> all = new LinkedHashMap<>();
    put(all, Part.matrix("token_embd", "model.embed_tokens", c.width(), c.vocabularySize()));
    for (String name : factorNames(c)) {
      put(all, factors(name, c));
    }
    for (int layer = 0; layer < c.layers(); layer++) {
      for (Part part : c.architecture().definition().parts(c)) {
        put(all, part.at(layer));
      }
    }
    put(all, Part.gain("output_norm", "model.norm", c.width()));
    if (!c.tiedEmbeddings()) {
      put(all, Part.matrix("output", "lm_head", c.width(), c.vocabularySize()));
    }
    return all;
  }

  private static void put(Map<String, Part> all, Part part) {
    all.put(part.name(), part);
  }

  /** Hugging Face has these numbers in config.json. */
  private static Part factors(String name, ModelConfig c) {
    int turned = c.variant().ropeWidth() > 0 ? c.variant().ropeWidth() : c.headWidth();
    return new Part(name, "", List.of(turned / 2), false, List.of(new Part.Cut(name, 1)));
  }

  private static List<String> factorNames(ModelConfig c) {
    return switch (c.variant().stretch().kind()) {
      case FACTORS -> List.of(ROPE_FACTORS);
      case LONG -> List.of(LONG_FACTORS, SHORT_FACTORS);
      default -> List.of();
    };
  }

  /** The tensor of rotary factors that the model uses. */
  static Optional<String> usedFactors(ModelConfig c) {
    Stretch stretch = c.variant().stretch();
    return switch (stretch.kind()) {
      case FACTORS -> Optional.of(ROPE_FACTORS);
      case LONG ->
          Optional.of(c.contextLength() > stretch.originalContext() ? LONG_FACTORS : SHORT_FACTORS);
      default -> Optional.empty();
    };
  }

  /** The names of the tensors that a slice needs. */
  static List<String> names(ModelConfig c, LayerRange range) {
    if (range.last() >= c.layers()) {
      throw new FlotillaException(
          FlotillaException.Code.INVALID,
          "layers " + range.first() + " to " + range.last() + " of " + c.layers(),
          "");
    }
    boolean last = range.last() == c.layers() - 1;
    List<String> names = new ArrayList<>();
    if (range.first() == 0 || (last && c.tiedEmbeddings())) {
      names.add(EMBEDDING);
    }
    usedFactors(c).ifPresent(names::add);
    for (int layer = range.first(); layer <= range.last(); layer++) {
      for (Part part : c.architecture().definition().parts(c)) {
        names.add(block(layer) + part.name());
      }
    }
    if (last) {
      names.add(FINAL_NORM);
      if (!c.tiedEmbeddings()) {
        names.add(OUTPUT);
      }
    }
    return names;
  }

  /** Which row of the interleaved order holds a row of the half-split one. */
  static int interleavedRow(int halfSplitRow, int headWidth) {
    int head = halfSplitRow / headWidth;
    int i = halfSplitRow % headWidth;
    int half = headWidth / 2;
    return head * headWidth + 2 * (i % half) + i / half;
  }

  /** The inverse of {@link #interleavedRow}. */
  static int halfSplitRow(int interleavedRow, int headWidth) {
    int head = interleavedRow / headWidth;
    int i = interleavedRow % headWidth;
    return head * headWidth + i % 2 * (headWidth / 2) + i / 2;
  }
}

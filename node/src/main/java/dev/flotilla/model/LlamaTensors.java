package dev.flotilla.model;

import dev.flotilla.FlotillaException;
import dev.flotilla.model.GgufHeader.TensorInfo;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * The names and shapes of a Llama model's tensors in GGUF, and its metadata keys.
 *
 * <p>GGUF keeps the rows of the query and key matrices of this architecture in the interleaved
 * order of rotary pairs; Hugging Face and our {@link Llama} keep them half-split.
 */
final class LlamaTensors {

  static final String EMBEDDING = "token_embd.weight";
  static final String FINAL_NORM = "output_norm.weight";
  static final String OUTPUT = "output.weight";

  private LlamaTensors() {}

  static String block(int layer, String part) {
    return "blk." + layer + "." + part + ".weight";
  }

  /** All tensors of a model with their shapes, fastest dimension first, in the order of a file. */
  static Map<String, List<Integer>> shapes(ModelConfig c) {
    int query = c.heads() * c.headWidth();
    int kv = c.kvHeads() * c.headWidth();
    Map<String, List<Integer>> shapes = new LinkedHashMap<>();
    shapes.put(EMBEDDING, List.of(c.width(), c.vocabularySize()));
    for (int layer = 0; layer < c.layers(); layer++) {
      shapes.put(block(layer, "attn_norm"), List.of(c.width()));
      shapes.put(block(layer, "attn_q"), List.of(c.width(), query));
      shapes.put(block(layer, "attn_k"), List.of(c.width(), kv));
      shapes.put(block(layer, "attn_v"), List.of(c.width(), kv));
      shapes.put(block(layer, "attn_output"), List.of(query, c.width()));
      shapes.put(block(layer, "ffn_norm"), List.of(c.width()));
      shapes.put(block(layer, "ffn_gate"), List.of(c.width(), c.feedForward()));
      shapes.put(block(layer, "ffn_up"), List.of(c.width(), c.feedForward()));
      shapes.put(block(layer, "ffn_down"), List.of(c.feedForward(), c.width()));
    }
    shapes.put(FINAL_NORM, List.of(c.width()));
    if (!c.tiedEmbeddings()) {
      shapes.put(OUTPUT, List.of(c.width(), c.vocabularySize()));
    }
    return shapes;
  }

  /** The tensors that a slice needs. */
  static List<String> names(ModelConfig c, LayerRange range) {
    if (range.last() >= c.layers()) {
      throw new FlotillaException(
          FlotillaException.Code.INVALID,
          "layers " + range.first() + " to " + range.last() + " of " + c.layers(),
          "");
    }
    boolean last = range.last() == c.layers() - 1;
    List<String> names = new ArrayList<>();
    for (String name : shapes(c).keySet()) {
      boolean wanted =
          switch (name) {
            case EMBEDDING -> range.first() == 0 || (last && c.tiedEmbeddings());
            case FINAL_NORM, OUTPUT -> last;
            default -> {
              int layer = Integer.parseInt(name.substring(4, name.indexOf('.', 4)));
              yield layer >= range.first() && layer <= range.last();
            }
          };
      if (wanted) {
        names.add(name);
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

  static ModelConfig config(GgufHeader header) {
    Map<String, Object> metadata = header.metadata();
    Object architecture = metadata.getOrDefault("general.architecture", "");
    if (!architecture.equals("llama")) {
      throw bad("the architecture is \"" + architecture + "\"; only \"llama\" runs here so far");
    }
    refuseVariants(metadata);
    int width = integer(metadata, "llama.embedding_length");
    int heads = integer(metadata, "llama.attention.head_count");
    int headWidth = integer(metadata, "llama.attention.key_length", width / heads);
    TensorInfo embedding =
        header.tensor(EMBEDDING).orElseThrow(() -> bad("there is no tensor " + EMBEDDING));
    ModelConfig config =
        new ModelConfig(
            embedding.rows(),
            width,
            integer(metadata, "llama.block_count"),
            heads,
            integer(metadata, "llama.attention.head_count_kv", heads),
            headWidth,
            integer(metadata, "llama.feed_forward_length"),
            integer(metadata, "llama.context_length"),
            (float) number(metadata, "llama.rope.freq_base", Optional.of(10000.0)),
            (float) number(metadata, "llama.attention.layer_norm_rms_epsilon", Optional.empty()),
            header.tensor(OUTPUT).isEmpty());
    if ((long) heads * headWidth > Integer.MAX_VALUE) {
      throw bad("llama.attention.head_count is " + heads + " and the heads' width " + headWidth);
    }
    if (config.heads() % config.kvHeads() != 0) {
      throw bad("llama.attention.head_count_kv " + config.kvHeads() + " does not divide " + heads);
    }
    if (headWidth % 2 != 0
        || integer(metadata, "llama.rope.dimension_count", headWidth) != headWidth
        || integer(metadata, "llama.attention.value_length", headWidth) != headWidth) {
      throw bad(
          "llama.rope.dimension_count or llama.attention.value_length is not the head's width "
              + headWidth);
    }
    if (metadata.get("tokenizer.ggml.tokens") instanceof List<?> tokens
        && tokens.size() != config.vocabularySize()) {
      throw bad(
          "tokenizer.ggml.tokens has "
              + tokens.size()
              + " entries, but "
              + EMBEDDING
              + " has "
              + config.vocabularySize()
              + " rows");
    }
    requireTensors(header, config);
    return config;
  }

  private static void requireTensors(GgufHeader header, ModelConfig config) {
    if ((long) config.layers() * 9 > header.tensors().size()) {
      throw bad(
          "llama.block_count is "
              + config.layers()
              + ", too many for "
              + header.tensors().size()
              + " tensors");
    }
    Map<String, List<Integer>> shapes = shapes(config);
    shapes.forEach(
        (name, shape) -> {
          TensorInfo info =
              header.tensor(name).orElseThrow(() -> bad("there is no tensor " + name));
          if (!info.shape().equals(shape)) {
            throw bad("tensor " + name + " has shape " + info.shape() + ", not " + shape);
          }
        });
    for (TensorInfo info : header.tensors()) {
      if (!shapes.containsKey(info.name())) {
        throw bad("tensor " + info.name() + " belongs to a variant that does not run here");
      }
    }
  }

  private static void refuseVariants(Map<String, Object> metadata) {
    if (metadata.get("llama.expert_count") instanceof Long experts && experts > 0) {
      throw bad("llama.expert_count is " + experts + "; mixtures of experts do not run here yet");
    }
    Object scaling = metadata.getOrDefault("llama.rope.scaling.type", "none");
    if (!scaling.equals("none")) {
      throw bad(
          "llama.rope.scaling.type is \"" + scaling + "\"; scaled rope does not run here yet");
    }
  }

  private static int integer(Map<String, Object> metadata, String key) {
    Object value = metadata.get(key);
    if (!(value instanceof Long number) || number < 1 || number > Integer.MAX_VALUE) {
      throw bad(key + (value == null ? " is missing" : " is " + value));
    }
    return number.intValue();
  }

  private static int integer(Map<String, Object> metadata, String key, int otherwise) {
    return metadata.containsKey(key) ? integer(metadata, key) : otherwise;
  }

  private static double number(
      Map<String, Object> metadata, String key, Optional<Double> otherwise) {
    Object value = metadata.get(key);
    if (value == null && otherwise.isPresent()) {
      return otherwise.get();
    }
    if (!(value instanceof Double number) || !(number > 0) || number.isInfinite()) {
      throw bad(key + (value == null ? " is missing" : " is " + value));
    }
    return number;
  }

  private static FlotillaException bad(String what) {
    return WeightFiles.bad("GGUF model", what, "Give a llama model in F32, F16 or Q8_0");
  }
}

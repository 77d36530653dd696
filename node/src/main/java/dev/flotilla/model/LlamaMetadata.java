package dev.flotilla.model;

import dev.flotilla.tensor.WeightType;
import java.util.LinkedHashMap;
import java.util.Map;

/** The metadata of a Llama GGUF file that follow from the model's shape. */
final class LlamaMetadata {

  private LlamaMetadata() {}

  static Map<String, Object> of(String name, ModelConfig c, WeightType type) {
    Map<String, Object> metadata = new LinkedHashMap<>();
    metadata.put("general.architecture", "llama");
    metadata.put("general.type", "model");
    metadata.put("general.name", name);
    metadata.put("general.file_type", fileType(type));
    metadata.put("general.quantization_version", 2);
    metadata.put("llama.vocab_size", c.vocabularySize());
    metadata.put("llama.context_length", c.contextLength());
    metadata.put("llama.embedding_length", c.width());
    metadata.put("llama.block_count", c.layers());
    metadata.put("llama.feed_forward_length", c.feedForward());
    metadata.put("llama.attention.head_count", c.heads());
    metadata.put("llama.attention.head_count_kv", c.kvHeads());
    metadata.put("llama.attention.key_length", c.headWidth());
    metadata.put("llama.attention.value_length", c.headWidth());
    metadata.put("llama.rope.dimension_count", c.headWidth());
    metadata.put("llama.rope.freq_base", c.ropeTheta());
    metadata.put("llama.attention.layer_norm_rms_epsilon", c.rmsEpsilon());
    return metadata;
  }

  private static int fileType(WeightType type) {
    return switch (type) {
      case F32 -> 0;
      case F16 -> 1;
      case Q8_0 -> 7;
    };
  }

  /** The type that a matrix gets where a model is to be of the given one. */
  static WeightType matrixType(WeightType wanted, int columns) {
    return columns % wanted.blockElements() == 0 ? wanted : WeightType.F16;
  }
}

package dev.flotilla.model;

import dev.flotilla.FlotillaException;
import dev.flotilla.model.GgufHeader.TensorInfo;
import dev.flotilla.tensor.WeightType;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * A model's shape as the metadata of a GGUF file say it, under keys that begin with the
 * architecture's name; and the metadata of a shape. Keys and defaults are those of llama.cpp.
 */
final class GgufConfig {

  /** Traits that would change the result, and that no architecture here has. */
  private static final List<String> UNKNOWN_TRAITS =
      List.of(
          "attention.max_alibi_bias",
          "attention.clamp_kqv",
          "attention.layer_norm_epsilon",
          "attention.temperature_scale",
          "embedding_scale",
          "residual_scale",
          "logit_scale",
          "expert_shared_count",
          "expert_shared_feed_forward_length",
          "leading_dense_block_count",
          "expert_weights_scale",
          "rope.scaling.yarn_ext_factor",
          "rope.scaling.yarn_attn_factor",
          "rope.scaling.yarn_beta_fast",
          "rope.scaling.yarn_beta_slow",
          "rope.scaling.yarn_log_multiplier",
          "rope.scaling.alpha");

  private static final int MAX_EXPERTS = 1024;
  private static final float GEMMA3_LOCAL_THETA = 10_000;

  private final GgufHeader header;
  private final Architecture architecture;

  private GgufConfig(GgufHeader header, Architecture architecture) {
    this.header = header;
    this.architecture = architecture;
  }

  /**
   * Reads and checks the shape, and that the file has every tensor and no other.
   *
   * @throws FlotillaException {@code BAD_FILE} naming the architecture, key or tensor
   */
  static ModelConfig read(GgufHeader header) {
    GgufSplit.requireWhole(header.metadata());
    Object name = header.metadata().getOrDefault("general.architecture", "");
    Architecture architecture =
        Architecture.ofGguf(String.valueOf(name))
            .orElseThrow(
                () ->
                    WeightFiles.bad(
                        "GGUF model",
                        "the architecture is \"" + name + "\", which does not run here",
                        "Give a model of one of these: " + Architecture.ggufNames()));
    ModelConfig config = new GgufConfig(header, architecture).config();
    requireTensors(header, config);
    return config;
  }

  private ModelConfig config() {
    for (String trait : UNKNOWN_TRAITS) {
      Object value = header.metadata().get(key(trait));
      if (value instanceof Number number && number.doubleValue() != 0) {
        throw bad(key(trait) + " is " + value + ", a trait that does not run here");
      }
    }
    boolean mixture = architecture == Architecture.QWEN3_MOE;
    if (!mixture && integer("expert_count", 0) > 0) {
      throw bad(key("expert_count") + " is set; of mixtures of experts only qwen3moe runs here");
    }
    Stretch stretch = stretch();
    int width = integer("embedding_length");
    int heads = integer("attention.head_count");
    int headWidth = integer("attention.key_length", Math.max(1, width / heads));
    TensorInfo embedding =
        header
            .tensor(ModelTensors.EMBEDDING)
            .orElseThrow(() -> bad("there is no tensor " + ModelTensors.EMBEDDING));
    int context = integer("context_length");
    ModelConfig config =
        new ModelConfig(
            architecture,
            embedding.rows(),
            width,
            integer("block_count"),
            heads,
            integer("attention.head_count_kv", heads),
            headWidth,
            integer(mixture ? "expert_feed_forward_length" : "feed_forward_length"),
            context,
            number("rope.freq_base", 10_000),
            number("attention.layer_norm_rms_epsilon"),
            header.tensor(ModelTensors.OUTPUT).isEmpty(),
            variant(width, heads, headWidth, context, stretch));
    check(config);
    return config;
  }

  private Variant variant(int width, int heads, int headWidth, int context, Stretch stretch) {
    boolean mixture = architecture == Architecture.QWEN3_MOE;
    int turned = integer("rope.dimension_count", headWidth);
    return new Variant(
        window(context),
        fullEvery(),
        architecture == Architecture.GEMMA3 ? number("rope.freq_base_swa", GEMMA3_LOCAL_THETA) : 0,
        turned == headWidth ? 0 : turned,
        stretch,
        attentionScale(width, heads, headWidth),
        architecture == Architecture.GEMMA2 ? number("attn_logit_softcapping", 50) : 0,
        architecture == Architecture.GEMMA2 ? number("final_logit_softcapping", 30) : 0,
        mixture ? integer("expert_count") : 0,
        mixture ? integer("expert_used_count") : 0);
  }

  private int window(int context) {
    int window =
        integer("attention.sliding_window", architecture == Architecture.GEMMA2 ? 4096 : 0);
    return switch (architecture) {
      case LLAMA, PHI3, GEMMA2, GEMMA3 -> window;
      case QWEN2, QWEN3, QWEN3_MOE, SMOLLM3 -> {
        if (window > 0 && window < context) {
          throw bad(
              key("attention.sliding_window") + " is " + window + ", which does not run here");
        }
        yield 0;
      }
    };
  }

  private int fullEvery() {
    int usual =
        switch (architecture) {
          case GEMMA2 -> 2;
          case GEMMA3 -> 6;
          default -> 0;
        };
    return integer("attention.sliding_window_pattern", usual);
  }

  private Stretch stretch() {
    String kind = String.valueOf(value("rope.scaling.type", "none"));
    int original = integer("rope.scaling.original_context_length", 0);
    float amplitude = number("rope.scaling.attn_factor", 0);
    if (header.tensor(ModelTensors.LONG_FACTORS).isPresent()) {
      if (original == 0) {
        throw bad(key("rope.scaling.original_context_length") + " is missing");
      }
      return new Stretch(Stretch.Kind.LONG, 1, original, amplitude);
    }
    if (header.tensor(ModelTensors.ROPE_FACTORS).isPresent()) {
      return new Stretch(Stretch.Kind.FACTORS, 1, 0, 0);
    }
    return switch (kind) {
      case "none" -> Stretch.NONE;
      case "linear" -> new Stretch(Stretch.Kind.LINEAR, number("rope.scaling.factor"), 0, 0);
      case "yarn" -> {
        if (original == 0) {
          throw bad(key("rope.scaling.original_context_length") + " is missing");
        }
        float factor = number("rope.scaling.factor");
        if (amplitude != 0 && amplitude != 1) {
          throw bad(key("rope.scaling.attn_factor") + " is " + amplitude + " with yarn");
        }
        yield new Stretch(Stretch.Kind.YARN, factor, original, 0);
      }
      default -> throw bad(key("rope.scaling.type") + " is \"" + kind + "\"");
    };
  }

  /** The largest Gemmas scale by another width than the head's; files do not say so. */
  private float attentionScale(int width, int heads, int headWidth) {
    float scale = number("attention.scale", 0);
    int layers = integer("block_count");
    boolean largest =
        (architecture == Architecture.GEMMA2 && layers == 46)
            || (architecture == Architecture.GEMMA3 && layers == 62);
    return scale == 0 && largest && width / heads != headWidth
        ? 1 / (float) Math.sqrt((double) width / heads)
        : scale;
  }

  private void check(ModelConfig c) {
    long heads = c.heads() + 2L * c.kvHeads();
    if (heads * c.headWidth() > Integer.MAX_VALUE || 2L * c.feedForward() > Integer.MAX_VALUE) {
      throw bad(
          key("attention.head_count")
              + " is "
              + c.heads()
              + ", the heads' width "
              + c.headWidth()
              + " and "
              + key("feed_forward_length")
              + " "
              + c.feedForward()
              + ": too large together");
    }
    if (c.heads() % c.kvHeads() != 0) {
      throw bad(
          key("attention.head_count_kv") + " " + c.kvHeads() + " does not divide " + c.heads());
    }
    int turned = c.variant().ropeWidth() > 0 ? c.variant().ropeWidth() : c.headWidth();
    if (turned % 2 != 0
        || turned > c.headWidth()
        || integer("attention.value_length", c.headWidth()) != c.headWidth()) {
      throw bad(
          key("rope.dimension_count")
              + " is "
              + turned
              + " or "
              + key("attention.value_length")
              + " does not fit the head's width "
              + c.headWidth());
    }
    Variant v = c.variant();
    if (v.experts() > MAX_EXPERTS || v.expertsUsed() > v.experts()) {
      throw bad(key("expert_used_count") + " is " + v.expertsUsed() + " of " + v.experts());
    }
    if (header.metadata().get("tokenizer.ggml.tokens") instanceof List<?> tokens
        && tokens.size() != c.vocabularySize()) {
      throw bad(
          "tokenizer.ggml.tokens has "
              + tokens.size()
              + " entries, but "
              + ModelTensors.EMBEDDING
              + " has "
              + c.vocabularySize()
              + " rows");
    }
  }

  private static void requireTensors(GgufHeader header, ModelConfig config) {
    int parts = config.architecture().definition().parts(config).size();
    if ((long) config.layers() * parts > header.tensors().size()) {
      throw bad(
          config.architecture().gguf()
              + ".block_count is "
              + config.layers()
              + ", too many for "
              + header.tensors().size()
              + " tensors");
    }
    Map<String, Part> all = ModelTensors.all(config);
    all.forEach(
        (name, part) -> {
          TensorInfo info =
              header.tensor(name).orElseThrow(() -> bad("there is no tensor " + name));
          if (!info.shape().equals(part.shape())) {
            throw bad("tensor " + name + " has shape " + info.shape() + ", not " + part.shape());
          }
        });
    for (TensorInfo info : header.tensors()) {
      if (!all.containsKey(info.name())) {
        throw bad("tensor " + info.name() + " belongs to a variant that does not run here");
      }
    }
  }

  /**
   * The metadata of a model.
   *
   * @param type of most of its matrices
   */
  static Map<String, Object> metadata(String name, ModelConfig c, WeightType type) {
    Map<String, Object> metadata = new LinkedHashMap<>();
    String prefix = c.architecture().gguf() + ".";
    Variant v = c.variant();
    metadata.put("general.architecture", c.architecture().gguf());
    metadata.put("general.type", "model");
    metadata.put("general.name", name);
    metadata.put("general.file_type", GgufTypes.fileType(type));
    metadata.put("general.quantization_version", 2);
    metadata.put(prefix + "vocab_size", c.vocabularySize());
    metadata.put(prefix + "context_length", c.contextLength());
    metadata.put(prefix + "embedding_length", c.width());
    metadata.put(prefix + "block_count", c.layers());
    metadata.put(prefix + "feed_forward_length", c.feedForward());
    metadata.put(prefix + "attention.head_count", c.heads());
    metadata.put(prefix + "attention.head_count_kv", c.kvHeads());
    metadata.put(prefix + "attention.key_length", c.headWidth());
    metadata.put(prefix + "attention.value_length", c.headWidth());
    metadata.put(
        prefix + "rope.dimension_count", v.ropeWidth() > 0 ? v.ropeWidth() : c.headWidth());
    metadata.put(prefix + "rope.freq_base", c.ropeTheta());
    metadata.put(prefix + "attention.layer_norm_rms_epsilon", c.rmsEpsilon());
    putVariant(metadata, prefix, v);
    if (v.experts() > 0) {
      metadata.put(prefix + "expert_feed_forward_length", c.feedForward());
    }
    return metadata;
  }

  private static void putVariant(Map<String, Object> metadata, String prefix, Variant v) {
    putIfSet(metadata, prefix + "attention.sliding_window", v.window());
    putIfSet(metadata, prefix + "attention.sliding_window_pattern", v.fullEvery());
    putIfSet(metadata, prefix + "rope.freq_base_swa", v.localRopeTheta());
    putIfSet(metadata, prefix + "attention.scale", v.attentionScale());
    putIfSet(metadata, prefix + "attn_logit_softcapping", v.attentionCap());
    putIfSet(metadata, prefix + "final_logit_softcapping", v.logitCap());
    putIfSet(metadata, prefix + "expert_count", v.experts());
    putIfSet(metadata, prefix + "expert_used_count", v.expertsUsed());
    Stretch stretch = v.stretch();
    switch (stretch.kind()) {
      case LINEAR, YARN -> {
        boolean linear = stretch.kind() == Stretch.Kind.LINEAR;
        metadata.put(prefix + "rope.scaling.type", linear ? "linear" : "yarn");
        metadata.put(prefix + "rope.scaling.factor", stretch.factor());
      }
      case LONG -> metadata.put(prefix + "rope.scaling.type", "longrope");
      default -> {}
    }
    putIfSet(metadata, prefix + "rope.scaling.original_context_length", stretch.originalContext());
    putIfSet(metadata, prefix + "rope.scaling.attn_factor", stretch.amplitude());
  }

  private static void putIfSet(Map<String, Object> metadata, String key, Number value) {
    if (value.doubleValue() != 0) {
      metadata.put(key, value);
    }
  }

  private String key(String name) {
    return architecture.gguf() + "." + name;
  }

  private Object value(String name, Object otherwise) {
    return header.metadata().getOrDefault(key(name), otherwise);
  }

  private Object present(String name) {
    if (!header.metadata().containsKey(key(name))) {
      throw bad(key(name) + " is missing");
    }
    return value(name, "");
  }

  private int integer(String name) {
    Object value = present(name);
    if (!(value instanceof Long number) || number < 1 || number > Integer.MAX_VALUE) {
      throw bad(key(name) + " is " + value);
    }
    return number.intValue();
  }

  private int integer(String name, int otherwise) {
    return header.metadata().containsKey(key(name)) && !value(name, 0L).equals(0L)
        ? integer(name)
        : otherwise;
  }

  private float number(String name) {
    Object value = present(name);
    if (!(value instanceof Double number) || !(number > 0) || number.isInfinite()) {
      throw bad(key(name) + " is " + value);
    }
    return number.floatValue();
  }

  private float number(String name, float otherwise) {
    return header.metadata().containsKey(key(name)) && !value(name, 0.0).equals(0.0)
        ? number(name)
        : otherwise;
  }

  private static FlotillaException bad(String what) {
    return WeightFiles.bad(
        "GGUF model", what, "Fetch it again, or give a model that runs here: see the README");
  }
}

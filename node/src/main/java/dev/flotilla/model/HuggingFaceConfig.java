package dev.flotilla.model;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.tensor.Rope;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.function.IntPredicate;

/**
 * A model's shape as a Hugging Face {@code config.json} says it. Names and defaults are those of
 * transformers; what does not run here is refused by its field.
 *
 * @param config the shape
 * @param ropeFactors what GGUF keeps as tensors, by their names there
 */
record HuggingFaceConfig(ModelConfig config, Map<String, float[]> ropeFactors) {

  private static final int MAX_LAYERS = 10_000;
  private static final int MAX_EXPERTS = 1024;
  private static final int GEMMA_WINDOW = 4096;
  private static final int SMOLLM3_UNTURNED_EVERY = 4;

  /**
   * Reads {@code config.json}; of a model with several parts, the language part.
   *
   * @throws FlotillaException {@code NOT_FOUND} or {@code BAD_FILE} naming the field
   */
  static HuggingFaceConfig read(Path file) {
    return parse(JsonFiles.read(file), file.toString());
  }

  /** The same, of what is read already. */
  static HuggingFaceConfig parse(JsonNode json, String where) {
    String kind = json.path("model_type").asText();
    Architecture architecture =
        Architecture.ofHuggingFace(kind)
            .orElseThrow(
                () ->
                    WeightFiles.bad(
                        where,
                        "model_type is \"" + kind + "\", which does not run here",
                        "Give a model of one of these: " + Architecture.huggingFaceNames()));
    JsonNode language = json.path("text_config");
    return new Reader(where, language.isObject() ? language : json, architecture).read();
  }

  private record Reader(String where, JsonNode json, Architecture architecture) {

    HuggingFaceConfig read() {
      refuseTraits();
      int width = integer("hidden_size");
      int heads = gemma3Default("num_attention_heads", 8);
      int headWidth = integer("head_dim", usualHeadWidth(width, heads));
      int context = gemma3Default("max_position_embeddings", 131_072);
      int layers = integer("num_hidden_layers");
      if (layers > MAX_LAYERS) {
        throw bad("num_hidden_layers is " + layers);
      }
      JsonNode rope = rope();
      float theta = number(rope, "rope_theta", number(json, "rope_theta", usualTheta()));
      int turned = turned(rope, headWidth);
      boolean mixture = architecture == Architecture.QWEN3_MOE;
      Map<String, float[]> factors = factors(rope, turned, theta, context);
      ModelConfig config =
          new ModelConfig(
              architecture,
              gemma3Default("vocab_size", 262_208),
              width,
              layers,
              heads,
              integer("num_key_value_heads", architecture == Architecture.GEMMA3 ? 4 : heads),
              headWidth,
              integer(mixture ? "moe_intermediate_size" : "intermediate_size"),
              context,
              theta,
              number(json, "rms_norm_eps", 1e-6f),
              json.path("tie_word_embeddings").asBoolean(usuallyTied()),
              new Variant(
                  window(),
                  fullEvery(),
                  localTheta(),
                  turned == headWidth ? 0 : turned,
                  stretch(rope, context),
                  attentionScale(headWidth),
                  cap("attn_logit_softcapping"),
                  cap("final_logit_softcapping"),
                  mixture
                      ? integer(json.has("num_experts") ? "num_experts" : "num_local_experts")
                      : 0,
                  mixture ? integer("num_experts_per_tok") : 0));
      check(config);
      return new HuggingFaceConfig(config, factors);
    }

    /** Gemma 3's files leave out what is as in its class. */
    private int gemma3Default(String field, int otherwise) {
      return architecture == Architecture.GEMMA3 ? integer(field, otherwise) : integer(field);
    }

    private boolean gemma() {
      return architecture == Architecture.GEMMA2 || architecture == Architecture.GEMMA3;
    }

    private void refuseTraits() {
      if (gemma()) {
        String field = json.has("hidden_activation") ? "hidden_activation" : "hidden_act";
        only(json, field, "gelu_pytorch_tanh");
      } else {
        only(json, "hidden_act", "silu");
      }
      only(json, "attention_bias", "false");
      only(json, "mlp_bias", "false");
      only(json, "quantization_config", "null");
      only(json, "use_bidirectional_attention", "false");
      switch (architecture) {
        case QWEN2, QWEN3, SMOLLM3 -> only(json, "use_sliding_window", "false");
        case QWEN3_MOE -> {
          only(json, "use_sliding_window", "false");
          only(json, "norm_topk_prob", "true");
          only(json, "decoder_sparse_step", "1");
          if (!json.path("norm_topk_prob").asBoolean()) {
            throw bad("norm_topk_prob is not true");
          }
          if (!json.path("mlp_only_layers").isEmpty()) {
            throw bad("mlp_only_layers is " + json.path("mlp_only_layers"));
          }
        }
        default -> {}
      }
    }

    private int usualHeadWidth(int width, int heads) {
      return switch (architecture) {
        case GEMMA2, GEMMA3 -> 256;
        case QWEN3, QWEN3_MOE -> 128;
        default -> Math.max(1, width / heads);
      };
    }

    private float usualTheta() {
      return switch (architecture) {
        case GEMMA3 -> 1_000_000;
        case SMOLLM3 -> 2_000_000;
        default -> 10_000;
      };
    }

    private boolean usuallyTied() {
      return gemma() || architecture == Architecture.SMOLLM3;
    }

    private int window() {
      return switch (architecture) {
        case GEMMA2, GEMMA3 -> integer("sliding_window", GEMMA_WINDOW);
        case LLAMA, PHI3 -> integer("sliding_window", 0);
        default -> 0;
      };
    }

    private int fullEvery() {
      return switch (architecture) {
        case GEMMA2 -> 2;
        case GEMMA3 ->
            integer("sliding_window_pattern", integer("_sliding_window_pattern", everyFull()));
        default -> 0;
      };
    }

    /** Newer files list the kind of every layer. */
    private int everyFull() {
      JsonNode kinds = json.path("layer_types");
      for (int layer = 0; layer < kinds.size(); layer++) {
        if (kinds.path(layer).asText().equals("full_attention")) {
          return layer + 1;
        }
      }
      return Math.max(6, kinds.size() + 1);
    }

    private float attentionScale(int headWidth) {
      float scalar = gemma() ? number(json, "query_pre_attn_scalar", 256) : headWidth;
      return scalar == headWidth ? 0 : 1 / (float) Math.sqrt(scalar);
    }

    private float cap(String field) {
      return architecture == Architecture.GEMMA2 ? number(json, field, 0) : 0;
    }

    /**
     * Where rope is described: {@code rope_parameters} in newer files, with one for each kind of
     * layer in Gemma's; {@code rope_scaling} in older ones.
     */
    private JsonNode rope() {
      JsonNode parameters = json.path("rope_parameters");
      if (parameters.path("full_attention").isObject()) {
        return parameters.path("full_attention");
      }
      return parameters.isObject() ? parameters : json.path("rope_scaling");
    }

    private float localTheta() {
      if (architecture != Architecture.GEMMA3) {
        return 0;
      }
      JsonNode local = json.path("rope_parameters").path("sliding_attention");
      return number(local, "rope_theta", number(json, "rope_local_base_freq", 10_000));
    }

    private int turned(JsonNode rope, int headWidth) {
      float share = number(rope, "partial_rotary_factor", number(json, "partial_rotary_factor", 1));
      return (int) (headWidth * share);
    }

    private String ropeType(JsonNode rope) {
      return rope.path("rope_type").asText(rope.path("type").asText("default"));
    }

    private Stretch stretch(JsonNode rope, int context) {
      String type = ropeType(rope);
      only(rope, "mscale", "null");
      only(rope, "short_mscale", "null");
      return switch (type) {
        case "default" -> Stretch.NONE;
        case "linear" -> new Stretch(Stretch.Kind.LINEAR, positive(rope, "factor"), 0, 0);
        case "llama3" -> new Stretch(Stretch.Kind.FACTORS, 1, 0, 0);
        case "yarn" -> {
          only(rope, "attention_factor", "null");
          int original = originalContext(rope, context);
          yield new Stretch(Stretch.Kind.YARN, positive(rope, "factor"), original, 0);
        }
        case "longrope", "su" -> {
          int original = originalContext(rope, context);
          double factor = (double) context / original;
          float usual =
              factor <= 1 ? 1 : (float) Math.sqrt(1 + Math.log(factor) / Math.log(original));
          float amplitude = number(rope, "attention_factor", usual);
          yield new Stretch(Stretch.Kind.LONG, 1, original, amplitude);
        }
        default -> throw bad("rope_type is \"" + type + "\"");
      };
    }

    private int originalContext(JsonNode rope, int context) {
      String field = "original_max_position_embeddings";
      return integer(rope, field, integer(field, context));
    }

    private Map<String, float[]> factors(JsonNode rope, int turned, float theta, int context) {
      return switch (ropeType(rope)) {
        case "llama3" -> Map.of(ModelTensors.ROPE_FACTORS, llama3(rope, turned, theta, context));
        case "longrope", "su" ->
            Map.of(
                ModelTensors.LONG_FACTORS,
                numbers(rope, "long_factor", turned / 2),
                ModelTensors.SHORT_FACTORS,
                numbers(rope, "short_factor", turned / 2));
        default -> Map.of();
      };
    }

    /**
     * Llama 3.1's rule: frequencies that turn often within the original context stay, slow ones are
     * divided by the factor, and those between by something between.
     */
    private float[] llama3(JsonNode rope, int turned, float theta, int context) {
      double factor = positive(rope, "factor");
      double low = positive(rope, "low_freq_factor");
      double high = positive(rope, "high_freq_factor");
      double original = originalContext(rope, context);
      if (high <= low) {
        throw bad("high_freq_factor is " + high + ", not above low_freq_factor " + low);
      }
      float[] factors = Rope.frequencies(turned, theta);
      for (int i = 0; i < factors.length; i++) {
        double turns = original * factors[i] / (2 * Math.PI);
        double kept = Math.clamp((turns - low) / (high - low), 0.0, 1.0);
        factors[i] = (float) (1 / ((1 - kept) / factor + kept));
      }
      return factors;
    }

    private void check(ModelConfig c) {
      Variant v = c.variant();
      int turned = v.ropeWidth() > 0 ? v.ropeWidth() : c.headWidth();
      if (c.heads() % c.kvHeads() != 0
          || turned % 2 != 0
          || turned > c.headWidth()
          || turned < 2
          || (c.heads() + 2L * c.kvHeads()) * c.headWidth() > Integer.MAX_VALUE
          || 2L * c.feedForward() > Integer.MAX_VALUE
          || v.experts() > MAX_EXPERTS
          || v.expertsUsed() > v.experts()) {
        throw bad("these sizes make no model: " + c);
      }
      requireLayers(
          "layer_types", c, layer -> c.windowed(layer), "sliding_attention", "full_attention");
      if (architecture == Architecture.SMOLLM3) {
        requireLayers(
            "no_rope_layers", c, layer -> (layer + 1) % SMOLLM3_UNTURNED_EVERY != 0, "1", "0");
      }
    }

    /** Refuses a list of layers that is not the architecture's own pattern. */
    private void requireLayers(
        String field, ModelConfig c, IntPredicate pattern, String yes, String no) {
      JsonNode kinds = json.path(field);
      for (int layer = 0; layer < Math.min(kinds.size(), c.layers()); layer++) {
        String kind = kinds.path(layer).asText();
        if (!kind.equals(pattern.test(layer) ? yes : no)) {
          throw bad(field + " has \"" + kind + "\" for layer " + layer);
        }
      }
    }

    private void only(JsonNode node, String field, String value) {
      JsonNode there = node.path(field);
      if (!there.isMissingNode() && !there.isNull() && !there.asText().equals(value)) {
        throw WeightFiles.bad(
            where,
            field + " is " + there,
            "Only \"" + value + "\" runs here so far; give another model");
      }
    }

    private int integer(String field) {
      return integer(json, field);
    }

    private int integer(JsonNode node, String field) {
      JsonNode value = node.path(field);
      if (!value.isIntegralNumber() || !value.canConvertToInt() || value.asInt() < 1) {
        throw bad(field + (value.isMissingNode() ? " is missing" : " is " + value));
      }
      return value.asInt();
    }

    private int integer(String field, int otherwise) {
      return integer(json, field, otherwise);
    }

    private int integer(JsonNode node, String field, int otherwise) {
      return node.hasNonNull(field) ? integer(node, field) : otherwise;
    }

    private float positive(JsonNode node, String field) {
      float value = number(node, field, 0);
      if (value == 0) {
        throw bad(field + " of rope is missing");
      }
      return value;
    }

    private float number(JsonNode node, String field, float otherwise) {
      if (!node.hasNonNull(field)) {
        return otherwise;
      }
      JsonNode value = node.path(field);
      if (!value.isNumber() || !(value.floatValue() > 0) || Float.isInfinite(value.floatValue())) {
        throw bad(field + " is " + value);
      }
      return value.floatValue();
    }

    private float[] numbers(JsonNode node, String field, int count) {
      List<Float> values = new ArrayList<>();
      for (JsonNode value : node.path(field)) {
        if (!value.isNumber()
            || !(value.floatValue() > 0)
            || Float.isInfinite(value.floatValue())) {
          throw bad(field + " has " + value);
        }
        values.add(value.floatValue());
      }
      if (values.size() != count) {
        throw bad(field + " has " + values.size() + " numbers, not " + count);
      }
      float[] result = new float[count];
      for (int i = 0; i < count; i++) {
        result[i] = values.get(i);
      }
      return result;
    }

    private FlotillaException bad(String what) {
      return WeightFiles.bad(where, what, "Give a model that runs here: see the README");
    }
  }

  /**
   * A {@code config.json} that Hugging Face's {@code LlamaForCausalLM} reads.
   *
   * @param bosToken the id of the token that begins a text
   * @param eosToken the id of the token that ends an answer
   */
  static String llamaJson(ModelConfig c, int bosToken, int eosToken) {
    ObjectNode json = Json.MAPPER.createObjectNode();
    json.putArray("architectures").add("LlamaForCausalLM");
    json.put("model_type", "llama")
        .put("vocab_size", c.vocabularySize())
        .put("hidden_size", c.width())
        .put("num_hidden_layers", c.layers())
        .put("num_attention_heads", c.heads())
        .put("num_key_value_heads", c.kvHeads())
        .put("head_dim", c.headWidth())
        .put("intermediate_size", c.feedForward())
        .put("max_position_embeddings", c.contextLength())
        .put("rope_theta", c.ropeTheta())
        .put("rms_norm_eps", c.rmsEpsilon())
        .put("tie_word_embeddings", c.tiedEmbeddings())
        .put("hidden_act", "silu")
        .put("attention_bias", false)
        .put("mlp_bias", false)
        .put("bos_token_id", bosToken)
        .put("eos_token_id", eosToken)
        .put("torch_dtype", "float32");
    return json.toPrettyString() + "\n";
  }
}

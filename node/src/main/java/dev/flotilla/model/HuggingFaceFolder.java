package dev.flotilla.model;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;

/**
 * A Llama model as a Hugging Face folder: {@code config.json} and safetensors. Its tensors are
 * named {@code model.layers.N.self_attn.q_proj.weight} and so on.
 */
public final class HuggingFaceFolder implements AutoCloseable {

  private final Path folder;
  private final ModelConfig config;
  private final Safetensors tensors;

  private HuggingFaceFolder(Path folder, ModelConfig config, Safetensors tensors) {
    this.folder = folder;
    this.config = config;
    this.tensors = tensors;
  }

  /**
   * Opens a folder; the architecture is checked before any weights are touched.
   *
   * @throws FlotillaException {@code NOT_FOUND}, {@code BAD_FILE} or {@code STORAGE}
   */
  public static HuggingFaceFolder open(Path folder) {
    if (!Files.isDirectory(folder)) {
      throw new FlotillaException(
          FlotillaException.Code.NOT_FOUND, folder + " is not a folder", "Check the path");
    }
    ModelConfig config = readConfig(folder.resolve("config.json"));
    return new HuggingFaceFolder(folder, config, Safetensors.open(folder));
  }

  /** The model's shape. */
  public ModelConfig config() {
    return config;
  }

  /** Where it is. */
  public Path folder() {
    return folder;
  }

  /**
   * A tensor under its name in Hugging Face's layout.
   *
   * @param shape slowest dimension first, which it must have
   * @throws FlotillaException {@code BAD_FILE} if it is missing or has another shape
   */
  public Safetensors.Tensor tensor(String name, List<Integer> shape) {
    return tensors.tensor(name, shape);
  }

  @Override
  public void close() {
    tensors.close();
  }

  /**
   * The Hugging Face name of a tensor that GGUF names so.
   *
   * @param ggufName such as {@code blk.0.attn_q.weight}
   */
  static String nameOf(String ggufName) {
    return switch (ggufName) {
      case LlamaTensors.EMBEDDING -> "model.embed_tokens.weight";
      case LlamaTensors.FINAL_NORM -> "model.norm.weight";
      case LlamaTensors.OUTPUT -> "lm_head.weight";
      default -> {
        int dot = ggufName.indexOf('.', 4);
        String part = ggufName.substring(dot + 1, ggufName.lastIndexOf('.'));
        yield "model.layers." + ggufName.substring(4, dot) + "." + partName(part) + ".weight";
      }
    };
  }

  private static String partName(String part) {
    return switch (part) {
      case "attn_norm" -> "input_layernorm";
      case "attn_q" -> "self_attn.q_proj";
      case "attn_k" -> "self_attn.k_proj";
      case "attn_v" -> "self_attn.v_proj";
      case "attn_output" -> "self_attn.o_proj";
      case "ffn_norm" -> "post_attention_layernorm";
      case "ffn_gate" -> "mlp.gate_proj";
      case "ffn_up" -> "mlp.up_proj";
      case "ffn_down" -> "mlp.down_proj";
      default -> throw new IllegalArgumentException(part);
    };
  }

  /**
   * Reads {@code config.json}.
   *
   * @throws FlotillaException {@code NOT_FOUND} or {@code BAD_FILE} naming the field
   */
  public static ModelConfig readConfig(Path file) {
    JsonNode json = JsonFiles.read(file);
    String where = file.toString();
    String kind = json.path("model_type").asText();
    if (!kind.equals("llama")) {
      throw WeightFiles.bad(
          where,
          "model_type is \"" + kind + "\"",
          "Only \"llama\" runs here so far; give a model of that family");
    }
    refuse(where, json, "hidden_act", "silu");
    refuse(where, json, "attention_bias", "false");
    refuse(where, json, "mlp_bias", "false");
    // Older folders have rope_theta and rope_scaling at the top, newer ones under rope_parameters.
    JsonNode rope = json.has("rope_parameters") ? json.path("rope_parameters") : json;
    refuse(where, rope, "rope_type", "default");
    if (json.path("rope_scaling").isObject()) {
      refuse(where, json.path("rope_scaling"), "rope_type", "default");
      refuse(where, json.path("rope_scaling"), "type", "default");
    }
    int width = integer(where, json, "hidden_size");
    int heads = integer(where, json, "num_attention_heads");
    ModelConfig config =
        new ModelConfig(
            integer(where, json, "vocab_size"),
            width,
            integer(where, json, "num_hidden_layers"),
            heads,
            integer(where, json, "num_key_value_heads", heads),
            integer(where, json, "head_dim", width / heads),
            integer(where, json, "intermediate_size"),
            integer(where, json, "max_position_embeddings"),
            (float) rope.path("rope_theta").asDouble(10000),
            (float) json.path("rms_norm_eps").asDouble(1e-6),
            json.path("tie_word_embeddings").asBoolean(false));
    if (config.heads() % config.kvHeads() != 0
        || config.headWidth() % 2 != 0
        || (long) heads * config.headWidth() > Integer.MAX_VALUE
        || config.layers() > 10_000
        || !(config.ropeTheta() > 0)
        || !(config.rmsEpsilon() > 0)) {
      throw WeightFiles.bad(where, "these sizes make no model: " + config);
    }
    return config;
  }

  /**
   * A {@code config.json} that Hugging Face's {@code LlamaForCausalLM} reads.
   *
   * @param bosToken the id of the token that begins a text
   * @param eosToken the id of the token that ends an answer
   */
  public static String configJson(ModelConfig c, int bosToken, int eosToken) {
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

  private static void refuse(String where, JsonNode json, String field, String only) {
    JsonNode value = json.path(field);
    if (!value.isMissingNode() && !value.isNull() && !value.asText().equals(only)) {
      throw WeightFiles.bad(
          where,
          field + " is " + value,
          "Only \"" + only + "\" runs here so far; give another model");
    }
  }

  private static int integer(String where, JsonNode json, String field) {
    JsonNode value = json.path(field);
    if (!value.isIntegralNumber() || !value.canConvertToInt() || value.asInt() < 1) {
      throw WeightFiles.bad(
          where, field + (value.isMissingNode() ? " is missing" : " is " + value));
    }
    return value.asInt();
  }

  private static int integer(String where, JsonNode json, String field, int otherwise) {
    return json.hasNonNull(field) ? integer(where, json, field) : otherwise;
  }
}

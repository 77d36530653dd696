package dev.flotilla.train;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.model.ModelConfig;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;

/**
 * A trained model as a Hugging Face folder that other programs can load: weights in safetensors
 * (F32), the configuration of a {@code LlamaForCausalLM}, tokenizer and chat template. Written
 * beside its place and then renamed, so it is there whole or not at all.
 */
final class Checkpoint {

  private Checkpoint() {}

  /**
   * Writes the folder, in place of an older one.
   *
   * @throws FlotillaException {@code STORAGE} if the disk is full or fails
   */
  static void write(Path folder, TrainingModel model, TrainingData data) {
    Path temporary = folder.resolveSibling("." + folder.getFileName() + ".part");
    try {
      delete(temporary);
      Files.createDirectories(temporary);
      writeWeights(temporary.resolve("model.safetensors"), model);
      ModelConfig config = model.config();
      writeJson(temporary, "config.json", configuration(config));
      writeJson(temporary, "generation_config.json", generation());
      write(temporary.resolve("tokenizer.json"), data.tokenizerJson());
      writeJson(temporary, "tokenizer_config.json", tokenizer(config, data.chatTemplate()));
      writeJson(temporary, "special_tokens_map.json", specialTokens());
      write(temporary.resolve("chat_template.jinja"), data.chatTemplate());
      delete(folder);
      Files.move(temporary, folder, StandardCopyOption.ATOMIC_MOVE);
    } catch (IOException e) {
      throw new FlotillaException(
          Code.STORAGE,
          "cannot write the checkpoint " + folder + ": " + e.getMessage(),
          "Free some space on that disk.",
          e);
    }
  }

  private static ObjectNode configuration(ModelConfig config) {
    ObjectNode json = Json.MAPPER.createObjectNode();
    json.putArray("architectures").add("LlamaForCausalLM");
    json.put("model_type", "llama");
    json.put("vocab_size", config.vocabularySize());
    json.put("hidden_size", config.width());
    json.put("intermediate_size", config.feedForward());
    json.put("num_hidden_layers", config.layers());
    json.put("num_attention_heads", config.heads());
    json.put("num_key_value_heads", config.kvHeads());
    json.put("head_dim", config.headWidth());
    json.put("max_position_embeddings", config.contextLength());
    json.put("hidden_act", "silu");
    json.put("rms_norm_eps", config.rmsEpsilon());
    json.put("rope_theta", config.ropeTheta());
    json.putNull("rope_scaling");
    json.put("attention_bias", false);
    json.put("mlp_bias", false);
    json.put("tie_word_embeddings", config.tiedEmbeddings());
    json.put("bos_token_id", id(TrainingData.BEGIN));
    json.put("eos_token_id", id(TrainingData.END));
    json.put("torch_dtype", "float32");
    return json;
  }

  private static ObjectNode generation() {
    ObjectNode json = Json.MAPPER.createObjectNode();
    json.put("bos_token_id", id(TrainingData.BEGIN));
    json.put("eos_token_id", id(TrainingData.END));
    json.put("do_sample", false);
    return json;
  }

  private static ObjectNode tokenizer(ModelConfig config, String chatTemplate) {
    ObjectNode json = specialTokens();
    json.put("tokenizer_class", "PreTrainedTokenizerFast");
    json.put("model_max_length", config.contextLength());
    json.put("add_bos_token", false);
    json.put("add_eos_token", false);
    json.put("clean_up_tokenization_spaces", false);
    json.put("chat_template", chatTemplate);
    return json;
  }

  private static ObjectNode specialTokens() {
    ObjectNode json = Json.MAPPER.createObjectNode();
    json.put("bos_token", TrainingData.BEGIN);
    json.put("eos_token", TrainingData.END);
    return json;
  }

  private static int id(String specialToken) {
    return TrainingData.SPECIAL_TOKENS.indexOf(specialToken);
  }

  /** The format: length of the header as 64 bits, the header as JSON, then the tensors' bytes. */
  private static void writeWeights(Path file, TrainingModel model) throws IOException {
    Map<String, float[]> weights = model.parameters().copy();
    Map<String, List<Long>> shapes = model.parameters().shapesByName();
    ObjectNode header = Json.MAPPER.createObjectNode();
    header.putObject("__metadata__").put("format", "pt");
    long offset = 0;
    for (var entry : weights.entrySet()) {
      ObjectNode tensor = header.putObject(entry.getKey());
      tensor.put("dtype", "F32");
      var shape = tensor.putArray("shape");
      shapes.getOrDefault(entry.getKey(), List.of()).forEach(shape::add);
      tensor.putArray("data_offsets").add(offset).add(offset += 4L * entry.getValue().length);
    }
    String json = Json.MAPPER.writeValueAsString(header);
    byte[] text = (json + " ".repeat((8 - json.length() % 8) % 8)).getBytes(StandardCharsets.UTF_8);
    try (FileChannel channel = open(file)) {
      writeFully(channel, little(8).putLong(text.length).flip());
      writeFully(channel, ByteBuffer.wrap(text));
      for (float[] values : weights.values()) {
        ByteBuffer bytes = little(4 * values.length);
        bytes.asFloatBuffer().put(values);
        writeFully(channel, bytes);
      }
      channel.force(true);
    }
  }

  private static ByteBuffer little(int bytes) {
    return ByteBuffer.allocate(bytes).order(ByteOrder.LITTLE_ENDIAN);
  }

  private static void writeJson(Path folder, String name, ObjectNode json) throws IOException {
    write(folder.resolve(name), json.toPrettyString() + "\n");
  }

  private static void write(Path file, String text) throws IOException {
    try (FileChannel channel = open(file)) {
      writeFully(channel, StandardCharsets.UTF_8.encode(text));
      channel.force(true);
    }
  }

  private static FileChannel open(Path file) throws IOException {
    return FileChannel.open(file, StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE);
  }

  private static void writeFully(FileChannel channel, ByteBuffer bytes) throws IOException {
    while (bytes.hasRemaining()) {
      channel.write(bytes);
    }
  }

  private static void delete(Path folder) throws IOException {
    if (Files.exists(folder)) {
      try (Stream<Path> files = Files.walk(folder)) {
        for (Path file : files.sorted(Comparator.reverseOrder()).toList()) {
          Files.delete(file);
        }
      }
    }
  }
}

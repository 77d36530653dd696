package dev.flotilla.train;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.cluster.NodeFiles;
import dev.flotilla.model.HuggingFaceFolder;
import dev.flotilla.model.ModelConfig;
import dev.flotilla.model.Safetensors;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

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
      NodeFiles.deleteTree(temporary);
      Files.createDirectories(temporary);
      writeWeights(temporary.resolve("model.safetensors"), model);
      ModelConfig config = model.config();
      write(
          temporary.resolve("config.json"),
          HuggingFaceFolder.configJson(config, id(TrainingData.BEGIN), id(TrainingData.END)));
      writeJson(temporary, "generation_config.json", generation());
      write(temporary.resolve("tokenizer.json"), data.tokenizerJson());
      writeJson(temporary, "tokenizer_config.json", tokenizer(config, data.chatTemplate()));
      writeJson(temporary, "special_tokens_map.json", specialTokens());
      write(temporary.resolve("chat_template.jinja"), data.chatTemplate());
      NodeFiles.deleteTree(folder);
      Files.move(temporary, folder, StandardCopyOption.ATOMIC_MOVE);
    } catch (IOException e) {
      throw new FlotillaException(
          Code.STORAGE,
          "cannot write the checkpoint " + folder + ": " + e.getMessage(),
          "Free some space on that disk.",
          e);
    }
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

  private static void writeWeights(Path file, TrainingModel model) {
    Map<String, List<Integer>> shapes = model.parameters().shapesByName();
    List<Safetensors.Tensor> tensors = new ArrayList<>();
    model
        .parameters()
        .copy()
        .forEach(
            (name, values) ->
                tensors.add(
                    Safetensors.Tensor.of(name, shapes.getOrDefault(name, List.of()), values)));
    Safetensors.write(file, Map.of("format", "pt"), tensors);
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
}

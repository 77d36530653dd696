package dev.flotilla.model;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.tensor.WeightType;
import dev.flotilla.text.Tokenizer;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Locale;
import java.util.Map;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

class GgufConverterTest {

  @TempDir Path folder;

  @ParameterizedTest
  @ValueSource(booleans = {true, false})
  void theConvertedModelComputesWhatTheFolderSays(boolean tied) throws IOException {
    ModelConfig config = TestFolders.write(folder, tied);
    Path gguf = folder.resolve("out/model.gguf");
    GgufConverter.convert(folder, gguf, "test", WeightType.F32);
    assertThat(GgufHeader.read(gguf).modelConfig()).isEqualTo(config);
    Greedy.Result ours = Greedy.run(gguf, new int[] {0, 65, 110, 40}, 20);
    try (HuggingFaceFolder source = HuggingFaceFolder.open(folder)) {
      double[][] wanted = new ReferenceLlama(source).logits(ours.tokens());
      for (int t = 0; t < wanted.length; t++) {
        for (int i = 0; i < wanted[t].length; i++) {
          assertThat((double) ours.logits()[t][i]).isCloseTo(wanted[t][i], within(2e-4));
        }
      }
    }
  }

  @Test
  void whatEmbeddingsArePooledFromAreTheReferencesStates() throws IOException {
    ModelConfig config = TestFolders.write(folder, true);
    Path gguf = folder.resolve("model.gguf");
    GgufConverter.convert(folder, gguf, "test", WeightType.F32);
    int[] tokens = {0, 65, 110, 40, 7, 7};
    try (HuggingFaceFolder source = HuggingFaceFolder.open(folder);
        GgufFile file = GgufFile.open(gguf);
        LayerSlice slice =
            PackedSlice.load(file, new LayerRange(0, config.layers() - 1), 1, KvFormat.F32, 64)) {
      double[][] wanted = new ReferenceLlama(source).normalised(tokens);
      float[] hidden = slice.embed(tokens);
      slice.forward(hidden, new Sequences(slice.blocks()).prompt(1, 6));
      float[] states = slice.normalised(hidden, new int[] {0, 1, 2, 3, 4, 5});
      for (int t = 0; t < tokens.length; t++) {
        for (int i = 0; i < config.width(); i++) {
          assertThat((double) states[t * config.width() + i]).isCloseTo(wanted[t][i], within(2e-4));
        }
      }
    }
  }

  @ParameterizedTest
  @CsvSource({"MEAN, mean_tokens", "FIRST, cls_token", "LAST, lasttoken"})
  void howAModelPoolsComesAlong(Pooling pooling, String mode) throws IOException {
    TestFolders.write(folder, true);
    Path gguf = folder.resolve("model.gguf");
    GgufConverter.convert(folder, gguf, "test", WeightType.Q8_0);
    assertThat(Pooling.of(GgufHeader.read(gguf).metadata())).contains(Pooling.MEAN);
    Files.createDirectory(folder.resolve("1_Pooling"));
    Files.writeString(
        folder.resolve("1_Pooling/config.json"), "{\"pooling_mode_" + mode + "\": true}");
    GgufConverter.convert(folder, gguf, "test", WeightType.Q8_0);
    assertThat(Pooling.of(GgufHeader.read(gguf).metadata())).contains(pooling);
    assertThat(Pooling.of(Map.of("general.architecture", "llama", "llama.pooling_type", 4L)))
        .isEmpty();
  }

  @ParameterizedTest
  @CsvSource({"F16, 0.02", "Q8_0, 0.2"})
  void smallerTypesStayNear(WeightType type, double tolerance) throws IOException {
    TestFolders.write(folder, true);
    Path gguf = folder.resolve("model.gguf");
    GgufConverter.convert(folder, gguf, "test", type);
    Greedy.Result ours = Greedy.run(gguf, new int[] {0, 65, 110, 40, 7}, 0);
    try (HuggingFaceFolder source = HuggingFaceFolder.open(folder)) {
      double[][] wanted = new ReferenceLlama(source).logits(ours.tokens());
      for (int t = 0; t < wanted.length; t++) {
        for (int i = 0; i < wanted[t].length; i++) {
          assertThat((double) ours.logits()[t][i]).isCloseTo(wanted[t][i], within(tolerance));
        }
      }
    }
  }

  @Test
  void theTokenizerAndTheTemplateComeAlong() throws IOException {
    TestFolders.write(folder, false);
    Path gguf = folder.resolve("model.gguf");
    GgufConverter.convert(folder, gguf, "test", WeightType.Q8_0);
    GgufHeader header = GgufHeader.read(gguf);
    assertThat(header.metadata())
        .containsEntry("general.name", "test")
        .containsEntry("tokenizer.chat_template", TestFolders.TEMPLATE)
        .containsEntry("tokenizer.ggml.bos_token_id", 0L)
        .containsEntry("tokenizer.ggml.eos_token_id", 1L)
        .containsEntry("tokenizer.ggml.add_bos_token", false);
    try (Tokenizer before = Tokenizer.fromFile(folder.resolve("tokenizer.json"));
        Tokenizer after = Tokenizer.fromGguf(header.metadata(), "test")) {
      assertThat(after.encode(TestFolders.TEXT)).isEqualTo(before.encode(TestFolders.TEXT));
      assertThat(after.specialId("<|end|>")).hasValue(1);
    }
  }

  @Test
  void howItsMakersSampleAndAllItsEndsComeAlong() throws IOException {
    TestFolders.write(folder, true);
    Files.writeString(
        folder.resolve("generation_config.json"),
        "{\"do_sample\":true,\"temperature\":0.6,\"top_p\":0.9,\"top_k\":20,\"eos_token_id\":[1,0]}");
    Path gguf = folder.resolve("model.gguf");
    GgufConverter.convert(folder, gguf, "test", WeightType.Q8_0);
    assertThat(GgufHeader.read(gguf).metadata())
        .containsEntry("general.sampling.temp", (double) 0.6f)
        .containsEntry("general.sampling.top_p", (double) 0.9f)
        .containsEntry("general.sampling.top_k", 20L)
        .containsEntry("tokenizer.ggml.eos_token_id", 1L)
        .containsEntry("tokenizer.ggml.eot_token_id", 0L);
    Files.writeString(folder.resolve("generation_config.json"), "{\"do_sample\":false}");
    GgufConverter.convert(folder, gguf, "test", WeightType.Q8_0);
    assertThat(GgufHeader.read(gguf).metadata()).containsEntry("general.sampling.temp", 0.0);
  }

  /** What a tokenizer.json says beyond GGUF's own metadata must not be lost on the way. */
  @ParameterizedTest
  @CsvSource({"llama-bpe, '\\p{N}{1,3}'", "qwen2, '\\p{N}'", "huggingface, '\\p{N}{1,4}'"})
  void tokenizersWithOtherWordsKeepTheirTokens(String pre, String digits) throws IOException {
    TestFolders.write(folder, true);
    Path file = folder.resolve("tokenizer.json");
    ObjectNode json = (ObjectNode) Json.MAPPER.readTree(Files.readString(file));
    String regex =
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
            + digits
            + "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
    ArrayNode steps =
        json.putObject("pre_tokenizer").put("type", "Sequence").putArray("pretokenizers");
    ObjectNode split = steps.addObject().put("type", "Split");
    split.putObject("pattern").put("Regex", regex);
    split.put("behavior", "Isolated").put("invert", false);
    steps
        .addObject()
        .put("type", "ByteLevel")
        .put("add_prefix_space", false)
        .put("trim_offsets", true)
        .put("use_regex", false);
    json.putObject("normalizer").put("type", "NFC");
    Files.writeString(file, json.toString());
    Path gguf = folder.resolve("model.gguf");
    GgufConverter.convert(folder, gguf, "test", WeightType.Q8_0);
    GgufHeader header = GgufHeader.read(gguf);
    assertThat(header.metadata()).containsEntry("tokenizer.ggml.pre", pre);
    String text = TestFolders.TEXT + "e\u0301 12345 don't";
    try (Tokenizer before = Tokenizer.fromFile(file);
        Tokenizer after = Tokenizer.fromGguf(header.metadata(), "test")) {
      assertThat(after.encode(text)).isEqualTo(before.encode(text));
    }
  }

  /** A tokenizer.json of pieces, such as Llama 2's and Gemma's. */
  @Test
  void tokenizersOfPiecesComeAlong() throws IOException {
    TestFolders.write(folder, true);
    Path file = folder.resolve("tokenizer.json");
    StringBuilder vocabulary = new StringBuilder("\"<unk>\":0,\"<s>\":1,\"</s>\":2");
    for (int i = 0; i < 256; i++) {
      vocabulary.append(",\"<0x%02X>\":%d".formatted(i, i + 3));
    }
    String[] pieces = {"▁", "l", "a", "m", "p", "▁l", "am", "amp", "▁lamp"};
    for (int i = 0; i < pieces.length; i++) {
      vocabulary.append(",\"%s\":%d".formatted(pieces[i], 259 + i));
    }
    Files.writeString(
        file,
        """
        {"version":"1.0","added_tokens":[
          {"id":1,"content":"<s>","special":true,"single_word":false,"lstrip":false,"rstrip":false,"normalized":false},
          {"id":2,"content":"</s>","special":true,"single_word":false,"lstrip":false,"rstrip":false,"normalized":false}],
         "normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},
           {"type":"Replace","pattern":{"String":" "},"content":"▁"}]},
         "pre_tokenizer":null,
         "post_processor":{"type":"TemplateProcessing",
           "single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],
           "pair":[{"Sequence":{"id":"A","type_id":0}},{"Sequence":{"id":"B","type_id":1}}],
           "special_tokens":{"<s>":{"id":"<s>","ids":[1],"tokens":["<s>"]}}},
         "decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},
           {"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]},
         "model":{"type":"BPE","unk_token":"<unk>","fuse_unk":true,"byte_fallback":true,
           "vocab":{%s},"merges":["▁ l","a m","am p","▁l amp"]}}
        """
            .formatted(vocabulary));
    Files.writeString(
        folder.resolve("generation_config.json"), "{\"bos_token_id\":1,\"eos_token_id\":2}");
    Path gguf = folder.resolve("model.gguf");
    GgufConverter.convert(folder, gguf, "test", WeightType.Q8_0);
    Map<String, Object> metadata = new HashMap<>(GgufHeader.read(gguf).metadata());
    assertThat(metadata)
        .containsEntry("tokenizer.ggml.model", "llama")
        .containsEntry("tokenizer.ggml.add_bos_token", true)
        .containsEntry("tokenizer.ggml.add_space_prefix", true);
    try (Tokenizer before = Tokenizer.fromFile(file);
        Tokenizer after = Tokenizer.fromGguf(metadata, "test")) {
      assertThat(after.encode("lamp é")).isEqualTo(before.encode("lamp é")).startsWith(267);
      // And as a program reads it that knows only the pieces and their scores.
      metadata.remove(Tokenizer.GGUF_JSON);
      try (Tokenizer pieceByPiece = Tokenizer.fromGguf(metadata, "test")) {
        assertThat(pieceByPiece.encode("lamp é")).isEqualTo(before.encode("lamp é"));
      }
    }
  }

  @Test
  void theRowOrdersOfRotaryPairsAreInverses() {
    int[] rows = IntStream.range(0, 96).map(r -> ModelTensors.interleavedRow(r, 48)).toArray();
    assertThat(rows).startsWith(0, 2, 4).doesNotHaveDuplicates();
    assertThat(rows[24]).isEqualTo(1);
    assertThat(rows[48]).isEqualTo(48);
    for (int row = 0; row < 96; row++) {
      assertThat(ModelTensors.halfSplitRow(rows[row], 48)).isEqualTo(row);
    }
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "\"model_type\" : \"llama\" | \"model_type\" : \"mamba\" | \"mamba\"",
        "\"hidden_act\" : \"silu\"  | \"hidden_act\" : \"gelu\"  | hidden_act",
        "\"mlp_bias\" : false       | \"mlp_bias\" : true        | mlp_bias",
        "\"hidden_size\" : 64       | \"hidden_size\" : -64      | hidden_size is -64",
        "\"hidden_size\" : 64       | \"width\" : 64             | hidden_size is missing",
        "\"head_dim\" : 16          | \"head_dim\" : 17          | make no model",
        "\"vocab_size\" : 300       | \"vocab_size\" : 301       | has shape",
        "\"num_hidden_layers\" : 3  | \"num_hidden_layers\" : 4  | model.layers.3.",
      })
  void foldersThatDoNotFitAreRefusedByTheirField(String line, String instead, String message)
      throws IOException {
    TestFolders.write(folder, true);
    Path config = folder.resolve("config.json");
    String json = Files.readString(config);
    assertThat(json).contains(line);
    Files.writeString(config, json.replace(line, instead));
    assertRefused(message);
  }

  @Test
  void tokenizersThatDoNotFitAreRefused() throws IOException {
    TestFolders.write(folder, true);
    Path file = folder.resolve("tokenizer.json");
    String json = Files.readString(file);
    Files.writeString(file, json.replace("ByteLevel", "Metaspace"));
    assertRefused("neither a byte-level BPE");
    Files.writeString(file, json.replace("\"<|end|>\" : 1,", "\"<|end|>\" : 1000000000,"));
    assertRefused("outside vocab_size");
    Files.writeString(file, json.substring(0, 1000));
    assertRefused("not JSON");
    assertThat(folder.resolve("model.gguf")).doesNotExist();
  }

  private void assertRefused(String message) {
    assertThatThrownBy(
            () ->
                GgufConverter.convert(folder, folder.resolve("model.gguf"), "test", WeightType.F32))
        .isInstanceOfSatisfying(
            FlotillaException.class,
            e -> {
              assertThat(e.code()).isEqualTo(Code.BAD_FILE);
              assertThat(e.explanation().toLowerCase(Locale.ROOT))
                  .contains(message.toLowerCase(Locale.ROOT));
            });
  }
}

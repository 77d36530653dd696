package dev.flotilla.model;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.tensor.WeightType;
import dev.flotilla.text.Tokenizer;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
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
        LayerSlice slice = PackedSlice.load(file, new LayerRange(0, config.layers() - 1), 1, 64)) {
      double[][] wanted = new ReferenceLlama(source).normalised(tokens);
      float[] hidden = slice.embed(tokens);
      slice.forward(hidden, new long[6], new int[] {0, 1, 2, 3, 4, 5});
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
    assertRefused("not a byte-level BPE");
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

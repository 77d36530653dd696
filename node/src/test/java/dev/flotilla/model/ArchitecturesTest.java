package dev.flotilla.model;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.tensor.WeightType;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;

class ArchitecturesTest {

  @TempDir Path folder;

  static List<String> names() {
    return RecordedModels.names();
  }

  private Path converted(String name, WeightType type) throws IOException {
    RecordedModels.write(name, folder.resolve(name));
    Path gguf = folder.resolve(name + ".gguf");
    GgufConverter.convert(folder.resolve(name), gguf, name, type);
    return gguf;
  }

  @ParameterizedTest
  @MethodSource("names")
  void transformersHadTheSameLogits(String name) throws IOException {
    float[][] ours =
        Greedy.run(converted(name, WeightType.F32), RecordedModels.tokens(), 0).logits();
    assertThat(Arrays.stream(ours).mapToInt(Greedy::argmax).toArray())
        .isEqualTo(RecordedModels.best(name));
    float[][] wanted = RecordedModels.logits(name);
    for (int i = 0; i < wanted.length; i++) {
      float[] row = ours[RecordedModels.positions()[i]];
      for (int token = 0; token < row.length; token++) {
        assertThat(Math.abs(row[token] - wanted[i][token]))
            .as("%s, position %d, token %d", name, RecordedModels.positions()[i], token)
            .isLessThanOrEqualTo(2e-5f);
      }
    }
  }

  @Test
  void aShapeThatAnEarlierVersionKeptIsAPlainLlama() {
    String kept =
        "{\"vocabularySize\":263,\"width\":64,\"layers\":3,\"heads\":4,\"kvHeads\":2,\"headWidth\":16,"
            + "\"feedForward\":96,\"contextLength\":256,\"ropeTheta\":10000.0,\"rmsEpsilon\":1.0E-5,"
            + "\"tiedEmbeddings\":true}";
    ModelConfig read = Json.read(kept.getBytes(StandardCharsets.UTF_8), ModelConfig.class);
    assertThat(read).isEqualTo(TestModels.TIED);
    assertThat(Json.read(Json.write(read), ModelConfig.class)).isEqualTo(read);
  }

  @ParameterizedTest
  @MethodSource("names")
  void ggufSaysTheSameShapeAsTheFolder(String name) throws IOException {
    Path gguf = converted(name, WeightType.F32);
    ModelConfig fromFolder =
        HuggingFaceFolder.readConfig(folder.resolve(name).resolve("config.json"));
    assertThat(GgufHeader.read(gguf).modelConfig()).isEqualTo(fromFolder);
  }

  @ParameterizedTest
  @MethodSource("names")
  void oneToManySlicesAndChunksOfAnySizeGiveTheSameBits(String name) throws IOException {
    Path gguf = converted(name, WeightType.Q8_0);
    float[] wanted = Slices.run(gguf, 1, RecordedModels.tokens(), 1, 0);
    int layers = GgufHeader.read(gguf).modelConfig().layers();
    List<int[]> cuts = new ArrayList<>(List.of(new int[] {0}, new int[] {0, layers - 1}));
    cuts.add(IntStream.range(0, layers).toArray());
    for (int[] firsts : cuts) {
      for (int chunk : new int[] {1, 5, 24}) {
        assertThat(Slices.run(gguf, 2, RecordedModels.tokens(), chunk, firsts))
            .as("%s, slices %s, chunk %d", name, Arrays.toString(firsts), chunk)
            .isEqualTo(wanted);
      }
    }
  }

  @ParameterizedTest
  @CsvSource({
    "llama, model_type, mamba, model_type is \"mamba\"",
    "llama, hidden_act, gelu, hidden_act is \"gelu\"",
    "llama, attention_bias, true, attention_bias is true",
    "qwen2, use_sliding_window, true, use_sliding_window is true",
    "qwen3-moe, decoder_sparse_step, 2, decoder_sparse_step is 2",
    "qwen3-moe, norm_topk_prob, false, norm_topk_prob is false",
    "qwen3-moe, num_experts_per_tok, 9, these sizes make no model",
    "gemma2, hidden_activation, silu, hidden_activation is \"silu\"",
    "gemma3, _sliding_window_pattern, 3, layer_types has",
    "phi3-long, partial_rotary_factor, 0, partial_rotary_factor is 0",
    "smollm3, num_hidden_layers, 0, num_hidden_layers is 0",
    "llama3, num_key_value_heads, 3, these sizes make no model",
  })
  void whatDoesNotRunHereIsRefusedByItsField(
      String name, String field, String value, String message) {
    ObjectNode json = RecordedModels.config(name).deepCopy();
    json.set(field, json(value));
    assertThatThrownBy(() -> HuggingFaceConfig.parse(json, "config.json"))
        .isInstanceOfSatisfying(
            FlotillaException.class, e -> assertThat(e.code()).isEqualTo(Code.BAD_FILE))
        .hasMessageContaining(message);
  }

  private static JsonNode json(String value) {
    var nodes = JsonNodeFactory.instance;
    return switch (value) {
      case "true", "false" -> nodes.booleanNode(value.equals("true"));
      default ->
          value.matches("\\d+") ? nodes.numberNode(Integer.parseInt(value)) : nodes.textNode(value);
    };
  }
}

package dev.flotilla.app;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.model.Architecture;
import dev.flotilla.model.GgufConverter;
import dev.flotilla.model.ModelConfig;
import dev.flotilla.model.RandomModel;
import dev.flotilla.model.Stretch;
import dev.flotilla.model.Variant;
import dev.flotilla.tensor.WeightType;
import java.nio.file.Path;
import java.util.Map;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Models of other architectures and weight types on their way through a whole node. */
class ImportsTest {

  private static final ModelConfig GEMMA =
      new ModelConfig(
          Architecture.GEMMA3,
          300,
          64,
          7,
          4,
          1,
          32,
          96,
          256,
          1_000_000f,
          1e-6f,
          true,
          new Variant(8, 6, 10_000, 0, Stretch.NONE, 0, 0, 0, 0, 0));

  @TempDir static Path folder;
  private static TestNode node;
  private static Path gguf;

  @BeforeAll
  static void start() {
    node = TestNode.start(folder.resolve("one"));
    gguf = folder.resolve("gemma.gguf");
    RandomModel.write(gguf, GEMMA, WeightType.F32, 3);
  }

  @AfterAll
  static void stop() {
    node.close();
  }

  private static long bytes(String model) {
    for (JsonNode view : node.client().get("/api/models")) {
      if (view.path("name").asText().equals(model)) {
        return view.path("bytes").asLong();
      }
    }
    throw new AssertionError("no model " + model);
  }

  @Test
  void aModelIsQuantizedAsAskedAndAnswers() throws Exception {
    assertThat(node.run("pull", gguf.toString(), "--name", "whole")).isZero();
    assertThat(node.run("pull", gguf.toString(), "--name", "eight", "--quantize", "q8_0")).isZero();
    assertThat(node.run("pull", gguf.toString(), "--name", "four", "--quantize", "q4_0")).isZero();
    assertThat(bytes("eight")).isLessThan(bytes("whole") / 2);
    assertThat(bytes("four")).isLessThan(bytes("eight"));
    // What the node made is what the same conversion makes elsewhere.
    Path here = folder.resolve("here.gguf");
    GgufConverter.requantize(gguf, here, WeightType.Q4_0);
    assertThat(here.toFile()).hasSize(bytes("four"));
    Waiting.deployed(
        node.client(), Map.of("model", "four", "replicas", 1, "stages", 1, "force", true), s -> {});
    JsonNode answer =
        node.client()
            .post(
                "/v1/completions",
                Map.of("model", "four", "prompt", "Hello", "max_tokens", 20, "ignore_eos", true));
    assertThat(answer.path("usage").path("completion_tokens").asInt()).isEqualTo(20);
  }

  @Test
  void anUnknownTypeIsRefusedByName() {
    assertThatThrownBy(
            () ->
                node.client()
                    .post(
                        "/api/models",
                        Map.of("name", "x", "source", gguf.toString(), "quantize", "q2_k")))
        .isInstanceOfSatisfying(
            FlotillaException.class,
            e -> assertThat(e.code()).isEqualTo(FlotillaException.Code.INVALID))
        .hasMessageContaining("quantize is \"q2_k\"");
    assertThat(node.run("pull", gguf.toString(), "--name", "x", "--quantize", "q2_k")).isEqualTo(2);
  }
}

package dev.flotilla.app;

import static java.nio.charset.StandardCharsets.UTF_8;
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
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
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
  private static TestHub hub;
  private static TestNode node;
  private static Path gguf;

  @BeforeAll
  static void start() throws Exception {
    hub = new TestHub();
    node =
        TestNode.start(
            folder.resolve("one"),
            ModelSources.of(
                Map.of("HF_ENDPOINT", hub.at("").toString(), "HF_TOKEN", "secret"), false));
    gguf = folder.resolve("gemma.gguf");
    RandomModel.write(gguf, GEMMA, WeightType.F32, 3);
  }

  @AfterAll
  static void stop() {
    node.close();
    hub.close();
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

  @Test
  void aModelIsFetchedFromAnAddressWithItsProgress() throws Exception {
    hub.put("/files/gemma.gguf", Files.readAllBytes(gguf));
    hub.breaks.add(100_000);
    List<String> seen = new ArrayList<>();
    node.client().stream(
        "/api/models",
        Map.of("name", "fetched", "source", hub.at("/files/gemma.gguf").toString()),
        event -> seen.add(event.toString()));
    assertThat(seen.getLast()).contains("\"name\":\"fetched\"");
    assertThat(bytes("fetched")).isEqualTo(Files.size(gguf));
    assertThat(folder.resolve("one/data/downloads")).isEmptyDirectory();
  }

  @Test
  void aModelIsFetchedFromTheHubByItsName() throws Exception {
    hub.put("/team/tiny-gguf/tiny-f32.gguf", Files.readAllBytes(gguf));
    hub.put("/team/tiny-gguf/tiny-q8_0.gguf", new byte[] {1});
    hub.put("/team/tiny-gguf/README.md", new byte[] {1});
    hub.token = Optional.of("secret");
    try {
      assertThat(node.run("pull", "team/tiny-gguf:f32")).isZero();
      assertThat(bytes("tiny-f32")).isEqualTo(Files.size(gguf));
      refused("team/tiny-gguf", FlotillaException.Code.INVALID, "tiny-f32, tiny-q8_0");
      refused("team/nothing", FlotillaException.Code.NOT_FOUND, "neither safetensors nor GGUF");
    } finally {
      hub.token = Optional.empty();
    }
  }

  @Test
  void aFolderOfTheHubIsFetchedWithWhatBelongsToIt() throws Exception {
    hub.put("/team/folder/config.json", "{\"model_type\":\"unheard\"}".getBytes(UTF_8));
    hub.put("/team/folder/model.safetensors", new byte[] {1});
    hub.put("/team/folder/consolidated.safetensors", new byte[] {1});
    hub.put("/team/folder/picture.png", new byte[] {1});
    hub.asked.clear();
    refused("team/folder", FlotillaException.Code.INVALID, "unheard");
    assertThat(hub.asked)
        .anyMatch(asked -> asked.contains("config.json"))
        .anyMatch(asked -> asked.contains("/model.safetensors"))
        .noneMatch(asked -> asked.contains("consolidated") || asked.contains("picture"));
  }

  @Test
  void whatIsNoSourceIsRefused() {
    refused("http://127.0.0.2/x.gguf", FlotillaException.Code.INVALID, "private network");
    refused("file:///etc/passwd", FlotillaException.Code.INVALID, "not a source of models");
    refused(hub.at("/x.bin").toString(), FlotillaException.Code.INVALID, "GGUF file");
    refused(hub.at("/x.gguf").toString(), FlotillaException.Code.NOT_FOUND, "404");
    assertThat(node.run("pull", "nowhere.gguf")).isEqualTo(1);
  }

  private static void refused(String source, FlotillaException.Code code, String said) {
    assertThatThrownBy(
            () -> node.client().post("/api/models", Map.of("name", "refused", "source", source)))
        .hasMessageContaining(said)
        .isInstanceOfSatisfying(FlotillaException.class, e -> assertThat(e.code()).isEqualTo(code));
    assertThatThrownBy(
            () ->
                node.client().stream(
                    "/api/models", Map.of("name", "refused", "source", source), e -> {}))
        .hasMessageContaining(said);
  }
}

package dev.flotilla.app;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import com.openai.client.OpenAIClient;
import com.openai.client.okhttp.OpenAIOkHttpClient;
import com.openai.models.completions.CompletionCreateParams;
import dev.flotilla.FlotillaException;
import dev.flotilla.client.Client;
import dev.flotilla.model.ModelConfig;
import dev.flotilla.model.RandomModel;
import dev.flotilla.tensor.WeightType;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.MethodOrderer;
import org.junit.jupiter.api.Order;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestMethodOrder;
import org.junit.jupiter.api.io.TempDir;

/** Three nodes as three processes, through the commands' own client: a story in order. */
@TestMethodOrder(MethodOrderer.OrderAnnotation.class)
class NodesTest {

  private static final String MODEL = "random";
  private static final int TOKENS = 120;
  private static final int CONTEXT = 256;

  @TempDir static Path folder;
  private static TestProcesses nodes;
  private static Client client;

  @BeforeAll
  static void startThree() throws Exception {
    nodes = new TestProcesses(folder);
    nodes.add("one");
    client = nodes.client(0);
    NodeProcess two = nodes.begin("two");
    nodes.begin("three").awaitReady();
    two.awaitReady();
  }

  @AfterAll
  static void stop() {
    nodes.close();
  }

  private static JsonNode deploy(int stages) throws InterruptedException {
    return Waiting.deployed(
        client, Map.of("model", MODEL, "replicas", 1, "stages", stages, "force", true), s -> {});
  }

  private static Map<String, Object> request(double temperature) {
    Map<String, Object> body = new HashMap<>();
    body.put("model", MODEL);
    body.put("prompt", "The ship's log says");
    body.put("temperature", temperature);
    body.put("cache", false);
    body.put("seed", 7);
    body.put("max_tokens", TOKENS);
    body.put("ignore_eos", true);
    return body;
  }

  private static String text(double temperature) {
    JsonNode answer = client.post("/v1/completions", request(temperature));
    return answer.path("choices").path(0).path("text").asText();
  }

  @Test
  @Order(1)
  void aModelSplitOverOneTwoAndThreeNodesSaysTheSame() throws Exception {
    Path file = folder.resolve("random.gguf");
    RandomModel.write(
        file,
        new ModelConfig(300, 64, 6, 4, 2, 16, 128, CONTEXT, 10_000f, 1e-5f, false),
        WeightType.Q8_0,
        3);
    client.post("/api/models", Map.of("name", MODEL, "source", file.toString()));
    List<String> greedy = new ArrayList<>();
    List<String> seeded = new ArrayList<>();
    for (int stages = 1; stages <= 3; stages++) {
      assertThat(Waiting.stagesOf(deploy(stages))).isEqualTo(stages);
      greedy.add(text(0));
      seeded.add(text(1));
    }
    assertThat(greedy).containsOnly(greedy.getFirst());
    assertThat(seeded).containsOnly(seeded.getFirst());
    assertThat(seeded.getFirst()).isNotEqualTo(greedy.getFirst());
  }

  @Test
  @Order(2)
  void theOfficialClientStreamsAndDoesNot() {
    OpenAIClient openAi =
        OpenAIOkHttpClient.builder()
            .baseUrl(client.base() + "v1")
            .apiKey(Client.keyIn(nodes.node(0).folder()).orElseThrow())
            .build();
    CompletionCreateParams asked =
        CompletionCreateParams.builder()
            .model(MODEL)
            .prompt("The ship's log says")
            .temperature(0.0)
            .maxTokens(20)
            .build();
    String whole = openAi.completions().create(asked).choices().getFirst().text();
    StringBuilder streamed = new StringBuilder();
    try (var stream = openAi.completions().createStreaming(asked)) {
      stream.stream().forEach(part -> part.choices().forEach(c -> streamed.append(c.text())));
    }
    assertThat(whole).isNotEmpty();
    assertThat(streamed.toString()).isEqualTo(whole);
    openAi.close();
  }

  @Test
  @Order(3)
  void badRequestsGetOneClearErrorAndTheNodeStaysUp() throws Exception {
    Map<String, Object> body = request(0);
    body.put("model", "nobody");
    assertThatThrownBy(() -> client.post("/v1/completions", body)).hasMessageContaining("nobody");
    body.put("model", MODEL);
    body.put("prompt", "x".repeat(5000));
    assertThatThrownBy(() -> client.post("/v1/completions", body))
        .hasMessageContaining("" + CONTEXT);
    Path cut = folder.resolve("cut.gguf");
    byte[] bytes = Files.readAllBytes(folder.resolve("random.gguf"));
    Files.write(cut, Arrays.copyOf(bytes, bytes.length / 2));
    assertThatThrownBy(
            () -> client.post("/api/models", Map.of("name", "cut", "source", cut.toString())))
        .isInstanceOf(FlotillaException.class)
        .hasMessageContaining("cut.gguf");
    assertThat(client.get("/api/models")).hasSize(1);
    assertThat(client.get("/health").path("status").asText()).isEqualTo("ok");
  }

  @Test
  @Order(4)
  void aTokenIsGoodOnceAndAPortForOneProgram() throws Exception {
    List<String> noToken = List.of("--join", nodes.address(), "--token", "no-token");
    try (NodeProcess late = nodes.begin("late", nodes.port(3), noToken)) {
      assertThatThrownBy(late::awaitReady).hasMessageContaining("token");
      assertThat(late.awaitEnd()).isEqualTo(1);
    }
    int taken = nodes.port(0);
    try (NodeProcess same = nodes.begin("same", taken, List.of())) {
      assertThatThrownBy(same::awaitReady).hasMessageContaining("port " + taken);
      assertThat(same.awaitEnd()).isEqualTo(1);
    }
  }

  @Test
  @Order(5)
  void aStreamOutlivesTheNodeThatHeldItsLastLayers() throws Exception {
    deploy(3);
    String undisturbed = text(1);
    NodeProcess victim = Demo.stageHolder(client, MODEL, nodes.all().subList(1, 3));
    AtomicInteger pieces = new AtomicInteger();
    DemoStream stream =
        DemoStream.read(
            client,
            "/v1/completions",
            request(1),
            () -> {
              if (pieces.incrementAndGet() == 10) {
                victim.kill();
              }
            });
    assertThat(stream.text()).isEqualTo(undisturbed);
    assertThat(stream.tokens()).isEqualTo(TOKENS);
    JsonNode after = Waiting.find(client, MODEL);
    assertThat(after.path("state").asText()).isEqualTo("degraded");
    assertThat(Waiting.stagesOf(after)).isEqualTo(2);
  }

  @Test
  @Order(6)
  void aNodeThatIsAskedToStopEndsWithZero() throws Exception {
    NodeProcess first = nodes.node(0);
    first.terminate();
    assertThat(first.awaitEnd()).isZero();
    assertThat(first.folder().resolve("node.pid")).doesNotExist();
  }
}

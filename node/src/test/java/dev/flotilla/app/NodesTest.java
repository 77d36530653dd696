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
  private static final List<DemoNode> nodes = new ArrayList<>();
  private static int port;
  private static Client client;

  @BeforeAll
  static void startThree() throws Exception {
    port = Demo.freePorts(18_000);
    DemoNode first = start("one", List.of());
    first.awaitReady();
    client = new Client(first.url(), Client.keyIn(first.folder()));
    for (String name : List.of("two", "three")) {
      start(name, joining(invite()));
    }
    for (DemoNode node : nodes) {
      node.awaitReady();
    }
  }

  @AfterAll
  static void stop() {
    nodes.forEach(DemoNode::close);
  }

  private static DemoNode start(String name, List<String> join) throws Exception {
    DemoNode node = process(name, port + 10 * nodes.size(), join);
    nodes.add(node);
    return node;
  }

  private static DemoNode process(String name, int itsPort, List<String> join) throws Exception {
    List<String> program =
        List.of(
            Path.of(System.getProperty("java.home"), "bin", "java").toString(),
            "@" + Path.of(System.getProperty("flotilla.home"), "node", "jvm.options"),
            "-Xmx512m",
            "-cp",
            System.getProperty("java.class.path"),
            "dev.flotilla.app.Main");
    return new DemoNode(program, name, folder.resolve(name), itsPort, join);
  }

  private static String invite() {
    return client.post("/api/invites", Map.of()).path("token").asText();
  }

  private static List<String> joining(String token) {
    return List.of("--join", "127.0.0.1:" + port, "--token", token);
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
            .apiKey(Client.keyIn(nodes.getFirst().folder()).orElseThrow())
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
    try (DemoNode late = process("late", port + 30, joining("no-token"))) {
      assertThatThrownBy(late::awaitReady).hasMessageContaining("token");
      assertThat(late.awaitEnd()).isEqualTo(1);
    }
    try (DemoNode same = process("same", port, List.of())) {
      assertThatThrownBy(same::awaitReady).hasMessageContaining("port " + port);
      assertThat(same.awaitEnd()).isEqualTo(1);
    }
  }

  @Test
  @Order(5)
  void aStreamOutlivesTheNodeThatHeldItsLastLayers() throws Exception {
    deploy(3);
    String undisturbed = text(1);
    DemoNode victim = holder(Waiting.find(client, MODEL).path("replicas").path(0).path("stages"));
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
    DemoNode first = nodes.getFirst();
    first.terminate();
    assertThat(first.awaitEnd()).isZero();
    assertThat(first.folder().resolve("node.pid")).doesNotExist();
  }

  /** The last stage's node that is not the one the client talks to. */
  private static DemoNode holder(JsonNode stages) {
    Map<String, String> names = new HashMap<>();
    client
        .get("/api/cluster")
        .path("nodes")
        .forEach(node -> names.put(node.path("id").asText(), node.path("name").asText()));
    for (int i = stages.size() - 1; i >= 0; i--) {
      String name = names.get(stages.path(i).path("node").asText());
      for (DemoNode node : nodes.subList(1, nodes.size())) {
        if (node.name().equals(name)) {
          return node;
        }
      }
    }
    throw new AssertionError("only the first node holds layers: " + stages);
  }
}

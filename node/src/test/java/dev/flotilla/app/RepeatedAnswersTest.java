package dev.flotilla.app;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.Json;
import dev.flotilla.client.Client;
import dev.flotilla.cluster.TestNodes;
import dev.flotilla.model.ModelConfig;
import dev.flotilla.model.RandomModel;
import dev.flotilla.tensor.WeightType;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The response cache and the usage ledger, on a real node that is really killed. */
class RepeatedAnswersTest {

  @TempDir Path folder;

  private static Map<String, Object> request(Object... more) {
    Map<String, Object> body = new HashMap<>();
    body.put("model", "random");
    body.put("prompt", "The ship's log says");
    body.put("temperature", 0);
    body.put("max_tokens", 20);
    body.put("ignore_eos", true);
    for (int i = 0; i < more.length; i += 2) {
      body.put(String.valueOf(more[i]), more[i + 1]);
    }
    return body;
  }

  private static Client.Answer ask(Client client, Map<String, Object> body) {
    return client.exchange(
        "POST", "/v1/completions", Map.of("Content-Type", "application/json"), Json.write(body));
  }

  private static String text(Client.Answer answer) {
    return Json.read(answer.body(), JsonNode.class).path("choices").path(0).path("text").asText();
  }

  private static String mark(Client.Answer answer) {
    return answer.header("x-flotilla-cache").orElse("none");
  }

  private static void deploy(Client client, Path file, long seed) throws Exception {
    RandomModel.write(
        file,
        new ModelConfig(300, 64, 2, 4, 2, 16, 128, 256, 10_000f, 1e-5f, false),
        WeightType.Q8_0,
        seed);
    client.post("/api/models", Map.of("name", "random", "source", file.toString()));
    Waiting.deployed(
        client, Map.of("model", "random", "replicas", 1, "stages", 1, "force", true), s -> {});
  }

  @Test
  void determinedAnswersAreRepeatedAndEveryAnswerIsCountedOnceThroughKillNine() throws Exception {
    try (TestProcesses nodes = new TestProcesses(folder)) {
      NodeProcess node = nodes.add("only");
      Client client = nodes.client(0);
      deploy(client, folder.resolve("a.gguf"), 3);
      int[] asked = {0};
      TestNodes.await(
          "a hit",
          Duration.ofSeconds(20),
          () -> {
            asked[0]++;
            return mark(ask(client, request())).equals("hit");
          });
      Client.Answer whole = ask(client, request());
      Client.Answer fresh = ask(client, request("cache", false));
      Client.Answer drawn = ask(client, request("temperature", 1));
      asked[0] += 3;
      assertThat(mark(whole)).isEqualTo("hit");
      assertThat(mark(fresh)).isEqualTo("none");
      assertThat(mark(drawn)).isEqualTo("none");
      assertThat(text(whole)).isEqualTo(text(fresh)).isNotEmpty();
      // Another limit, seed, stop, grammar or number of choices is another question.
      for (Map<String, Object> other :
          List.of(
              request("max_tokens", 21),
              request("temperature", 1, "seed", 5),
              request("temperature", 1, "seed", 6),
              request("n", 2),
              request("ignore_eos", false),
              request("ignore_eos", false, "grammar", "root ::= [a-f]{30}"),
              request("ignore_eos", false, "grammar", "root ::= [a-g]{30}"),
              request("stop", "zzz"))) {
        assertThat(mark(ask(client, other))).as("%s", other).isEqualTo("miss");
        asked[0]++;
      }
      // Greedy answers do not depend on the seed.
      assertThat(mark(ask(client, request("seed", 99)))).isEqualTo("hit");
      Client.Answer streamed = ask(client, request("stream", true));
      asked[0] += 2;
      assertThat(mark(streamed)).isEqualTo("hit");
      StringBuilder pieces = new StringBuilder();
      for (String line : new String(streamed.body(), StandardCharsets.UTF_8).split("\n")) {
        if (line.startsWith("data: {")) {
          pieces.append(
              Json.MAPPER
                  .readTree(line.substring(6))
                  .path("choices")
                  .path(0)
                  .path("text")
                  .asText());
        }
      }
      assertThat(pieces.toString()).isEqualTo(text(fresh));
      // The moment after an answer.
      ask(client, request("cache", false, "max_tokens", 2));
      asked[0]++;
      node.kill();
      node.restart();
      node.awaitReady();
      Client again = nodes.client(0);
      TestNodes.await(
          "every answer in the ledger",
          Duration.ofSeconds(10),
          () -> usage(again).path("requests").asInt() >= asked[0]);
      JsonNode row = usage(again);
      assertThat(row.path("requests").asInt()).isEqualTo(asked[0]);
      assertThat(row.path("cached_requests").asInt()).isEqualTo(4);
      JsonNode rebuilt = again.post("/api/usage/rebuild", Map.of());
      assertThat(rebuilt.path("events").asInt()).isEqualTo(asked[0]);
      assertThat(usage(again)).isEqualTo(row);
      assertThat(
              Main.run(
                  "usage", "--by", "key", "--url", node.url(), "--data", node.folder().toString()))
          .isZero();
      // Other weights under the same name are another model.
      again.delete("/api/deployments/random");
      again.delete("/api/models/random");
      deploy(again, folder.resolve("b.gguf"), 4);
      Client.Answer other = ask(again, request());
      assertThat(mark(other)).isEqualTo("miss");
      assertThat(text(other)).isNotEqualTo(text(whole));
    }
  }

  private static JsonNode usage(Client client) {
    return client.get("/api/usage?by=model").path("rows").path(0);
  }
}

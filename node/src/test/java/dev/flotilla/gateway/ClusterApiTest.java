package dev.flotilla.gateway;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.cluster.FakeCluster;
import dev.flotilla.cluster.FakeRegistry;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.train.TrainingJobs.JobView;
import dev.flotilla.train.TrainingJobs.LossPoint;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

class ClusterApiTest {

  private TestGateway gateway;

  @BeforeEach
  void start() {
    gateway = new TestGateway();
  }

  @AfterEach
  void stop() {
    gateway.close();
  }

  private static String codeOf(HttpResponse<String> response) {
    return TestGateway.json(response).at("/error/code").asText();
  }

  @Test
  void theClusterIsShownAsTheContractSays() {
    JsonNode cluster = TestGateway.json(gateway.get("/api/cluster"));
    assertThat(cluster.get("nodes")).hasSize(3);
    JsonNode first = cluster.at("/nodes/0");
    assertThat(first.get("address").asText()).isEqualTo("127.0.0.1:8000");
    assertThat(first.get("state").asText()).isEqualTo("up");
    assertThat(first.get("pid").asLong()).isEqualTo(4711);
    assertThat(first.get("roles")).extracting(JsonNode::asText).contains("controller", "stage");
    assertThat(cluster.at("/nodes/2/state").asText()).isEqualTo("lost");
    assertThat(cluster.get("leader").asText()).isEqualTo("node-a");
    assertThat(cluster.get("epoch").asLong()).isEqualTo(gateway.registry.revision());
  }

  @Test
  void deploymentsComeAndGo() {
    JsonNode before = TestGateway.json(gateway.get("/api/deployments"));
    assertThat(before.at("/0/replicas/0/stages/1/first_layer").asInt()).isEqualTo(4);
    assertThat(before.at("/0/replicas/0/stages/1/node").asText()).isEqualTo("node-b");
    HttpResponse<String> deployed =
        gateway.post(
            "/api/deployments",
            """
            {"model":"tiny","replicas":2,"stages":3,"kv":"q8_0","wire":"bf16","speculate":true,
            "draft":"small","kv_replicas":1}
            """);
    assertThat(deployed.statusCode()).isEqualTo(202);
    JsonNode wanted = TestGateway.json(deployed).get("wanted");
    assertThat(wanted.get("kv").asText()).isEqualTo("q8_0");
    assertThat(wanted.get("wire").asText()).isEqualTo("bf16");
    assertThat(wanted.get("speculate").asBoolean()).isTrue();
    assertThat(wanted.get("draft").asText()).isEqualTo("small");
    assertThat(wanted.get("kv_replicas").asInt()).isEqualTo(1);
    assertThat(TestGateway.json(deployed).at("/wanted/stages").asInt()).isEqualTo(3);
    assertThat(gateway.delete("/api/deployments/tiny").statusCode()).isEqualTo(200);
    assertThat(gateway.delete("/api/deployments/tiny").statusCode()).isEqualTo(404);
    assertThat(TestGateway.json(gateway.get("/v1/models")).get("data")).isEmpty();
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      textBlock =
          """
          model    | {}
          model    | {"model":5}
          replicas | {"model":"tiny","replicas":0}
          stages   | {"model":"tiny","stages":-1}
          tensor   | {"model":"tiny","tensor":0}
          routing  | {"model":"tiny","routing":"random"}
          force    | {"model":"tiny","force":"yes"}
          kv       | {"model":"tiny","kv":"f64"}
          kv       | {"model":"tiny","kv":16}
          wire     | {"model":"tiny","wire":"q8_0"}
          speculate | {"model":"tiny","speculate":"yes"}
          draft    | {"model":"tiny","draft":["m"]}
          kv_replicas | {"model":"tiny","replicas":3,"kv_replicas":2}
          kv_replicas | {"model":"tiny","replicas":2,"kv_replicas":-1}
          """)
  void aDeploymentsFieldsAreChecked(String field, String body) {
    HttpResponse<String> response = gateway.post("/api/deployments", body);
    assertThat(response.statusCode()).isEqualTo(400);
    assertThat(TestGateway.json(response).at("/error/param").asText()).isEqualTo(field);
  }

  @Test
  void anUnknownModelIsNotFoundAnywhere() {
    assertThat(gateway.post("/api/deployments", "{\"model\":\"no\"}").statusCode()).isEqualTo(404);
    assertThat(gateway.get("/api/plan?model=no").statusCode()).isEqualTo(404);
    assertThat(gateway.delete("/api/models/no").statusCode()).isEqualTo(404);
    assertThat(gateway.get("/v1/models/no").statusCode()).isEqualTo(404);
  }

  @Test
  void aPlanIsShownOrRefusedWithItsReason() {
    JsonNode plan = TestGateway.json(gateway.get("/api/plan?model=tiny&stages=2"));
    assertThat(plan.get("predicted_tokens_per_second").asDouble()).isEqualTo(12.5);
    HttpResponse<String> refused = gateway.get("/api/plan?model=tiny&stages=9");
    assertThat(refused.statusCode()).isEqualTo(400);
    assertThat(refused.body()).contains("only 3 nodes are up").contains("Ask for fewer stages.");
    assertThat(gateway.get("/api/plan?model=tiny&stages=x").statusCode()).isEqualTo(400);
    assertThat(gateway.get("/api/plan").statusCode()).isEqualTo(400);
    plan = TestGateway.json(gateway.get("/api/plan?model=tiny&tensor=2"));
    assertThat(plan.get("ranks").asInt()).isEqualTo(2);
    assertThat(gateway.get("/api/plan?model=tiny&tensor=2&stages=2").statusCode()).isEqualTo(400);
    assertThat(gateway.get("/api/plan?model=tiny&tensor=0").statusCode()).isEqualTo(400);
  }

  @Test
  void modelsAreAddedListedAndRemoved() {
    assertThat(
            gateway
                .post("/api/models", "{\"name\":\"fresh\",\"source\":\"/models/fresh.gguf\"}")
                .statusCode())
        .isEqualTo(201);
    assertThat(gateway.imported).containsExactly("fresh from /models/fresh.gguf");
    assertThat(
            gateway.post("/api/models", "{\"name\":\"../x\",\"source\":\"/m.gguf\"}").statusCode())
        .isEqualTo(400);
    assertThat(gateway.post("/api/models", "{\"name\":\"x\",\"source\":\"/missing\"}").statusCode())
        .isEqualTo(404);
    JsonNode models = TestGateway.json(gateway.get("/api/models"));
    assertThat(models.at("/0/layers").asInt()).isEqualTo(8);
    assertThat(gateway.delete("/api/models/tiny").statusCode()).isEqualTo(200);
  }

  @Test
  void trainingJobsAreSubmittedFollowedAndCancelled() {
    HttpResponse<String> submitted =
        gateway.post(
            "/api/training",
            """
            {"model":"new","seed":3,"vocabulary_size":512,"width":64,"layers":2,"heads":4,
             "kv_heads":2,"feed_forward":128,"context_length":128,"batch":8,"steps":100,
             "learning_rate":0.003,"warmup_steps":10}
            """);
    assertThat(submitted.statusCode()).as(submitted.body()).isEqualTo(202);
    assertThat(gateway.training.submitted.getFirst().kvHeads()).isEqualTo(2);
    assertThat(gateway.post("/api/training", "{\"model\":\"new\"}").statusCode()).isEqualTo(400);
    gateway.training.jobs.add(
        new JobView(
            "job-9",
            "running",
            "",
            List.of("node-a", "node-b"),
            100,
            List.of(new LossPoint(1, 6.2, Double.NaN, 900), new LossPoint(2, 6.1, 6.15, 910)),
            Double.NaN,
            "new"));
    HttpResponse<String> list = gateway.get("/api/training");
    assertThat(TestGateway.json(list).at("/0/latest/loss").asDouble()).isEqualTo(6.1);
    HttpResponse<String> job = gateway.get("/api/training/job-9");
    assertThat(job.body()).doesNotContain("NaN");
    assertThat(TestGateway.json(job).at("/curve/1/validation_loss").asDouble()).isEqualTo(6.15);
    assertThat(TestGateway.json(job).at("/curve/0").has("validation_loss")).isFalse();
    assertThat(gateway.delete("/api/training/job-9").statusCode()).isEqualTo(200);
    assertThat(gateway.get("/api/training/job-9").statusCode()).isEqualTo(404);
  }

  @Test
  void anInvitationHasItsTokenAndCommand() {
    HttpResponse<String> invite =
        gateway.send(
            gateway.request("/api/invites").POST(HttpRequest.BodyPublishers.noBody()).build());
    assertThat(invite.statusCode()).isEqualTo(201);
    assertThat(TestGateway.json(invite).get("command").asText()).contains("--join");
  }

  @Test
  void statisticsAreSummedOverTheNodesThatAnswer() throws Exception {
    List<NodeInfo> nodes =
        List.of(
            FakeCluster.node("node-a", NodeInfo.State.UP),
            FakeCluster.node("node-b", NodeInfo.State.UP),
            FakeCluster.node("node-c", NodeInfo.State.LOST));
    try (TestGateway second =
        new TestGateway(GatewayConfig.Limits.DEFAULTS, 0, gateway.registry, "node-b", nodes)) {
      gateway.cluster.connect(second.cluster);
      second.generator.answer = r -> new int[0];
      second.generator.delayMs = 5;
      try (RawHttp client = new RawHttp(second.gateway.port())) {
        String body = "{\"model\":\"tiny\",\"prompt\":\"x\",\"max_tokens\":190}";
        client.send(
            "POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
                + gateway.key
                + "\r\nContent-Length: "
                + body.length()
                + "\r\n\r\n"
                + body);
        assertThat(
                TestGateway.soon(
                    () ->
                        TestGateway.json(gateway.get("/api/stats"))
                                .get("cluster_tokens_per_second")
                                .asDouble()
                            > 0))
            .isTrue();
        JsonNode stats = TestGateway.json(gateway.get("/api/stats"));
        assertThat(stats.get("tokens_per_second").asDouble()).isZero();
        assertThat(stats.get("cluster_requests_running").asInt()).isEqualTo(1);
        assertThat(stats.get("nodes")).hasSize(2);
      }
      second.cluster.close();
      assertThat(gateway.get("/api/stats").statusCode()).isEqualTo(200);
    }
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "/metrics",
        "/v1/models",
        "/v1/models/tiny",
        "/api/cluster",
        "/api/deployments",
        "/api/stats",
        "/api/training",
        "/no/such/path"
      })
  void nothingButHealthAndTheConsoleIsShownWithoutAKey(String path) {
    HttpResponse<String> response = gateway.send(HttpRequest.newBuilder(gateway.uri(path)).build());
    assertThat(response.statusCode()).isEqualTo(401);
    assertThat(codeOf(response)).isEqualTo("missing_api_key");
    assertThat(response.headers().firstValue("WWW-Authenticate")).hasValue("Bearer");
    assertThat(response.headers().map()).doesNotContainKey("access-control-allow-origin");
  }

  @Test
  void pathsAndMethodsThatAreNotThereSaySo() {
    assertThat(gateway.get("/no/such/path").statusCode()).isEqualTo(404);
    assertThat(gateway.get("/v1/models/").statusCode()).isEqualTo(404);
    assertThat(gateway.get("/v1/models/a/b").statusCode()).isEqualTo(404);
    HttpResponse<String> wrong = gateway.delete("/api/cluster");
    assertThat(wrong.statusCode()).isEqualTo(405);
    assertThat(wrong.headers().firstValue("Allow")).hasValue("GET");
  }

  @Test
  void healthFollowsTheNodeAndTheCluster() {
    HttpRequest health = HttpRequest.newBuilder(gateway.uri("/health")).build();
    HttpResponse<String> ok = gateway.send(health);
    assertThat(ok.statusCode()).isEqualTo(200);
    assertThat(ok.body()).isEqualTo("{\"status\":\"ok\"}");
    gateway.health = new GatewayServices.Health("loading", "2 of 4 layers");
    HttpResponse<String> loading = gateway.send(health);
    assertThat(loading.statusCode()).isEqualTo(503);
    assertThat(loading.body()).contains("loading").contains("2 of 4 layers");
    gateway.health = GatewayServices.Health.OK;
    gateway.cluster.leader(Optional.empty());
    assertThat(gateway.send(health).body()).contains("no_majority");
  }

  @Test
  void metricsAreInPrometheusForm() {
    gateway.post("/v1/completions", "{\"model\":\"tiny\",\"prompt\":\"x\"}");
    assertThat(gateway.get("/metrics").body())
        .contains("flotilla_generated_tokens_total 6.0")
        .contains("flotilla_time_to_first_token_seconds_count 1")
        .contains("# TYPE flotilla_requests_running gauge");
  }

  @Test
  void theConsoleIsServedUnderAStrictPolicy() {
    HttpResponse<String> page = gateway.send(HttpRequest.newBuilder(gateway.uri("/")).build());
    assertThat(page.statusCode()).isEqualTo(200);
    assertThat(page.headers().firstValue("Content-Security-Policy").orElse(""))
        .contains("default-src 'none'")
        .doesNotContain("unsafe");
    assertThat(page.body()).doesNotContain("style=").doesNotContain("onclick");
    String tag = page.headers().firstValue("ETag").orElseThrow();
    for (String file : List.of("console.css", "console.js", "favicon.svg")) {
      assertThat(page.body()).contains(file);
      assertThat(gateway.send(HttpRequest.newBuilder(gateway.uri("/" + file)).build()).statusCode())
          .isEqualTo(200);
    }
    HttpResponse<String> again =
        gateway.send(HttpRequest.newBuilder(gateway.uri("/")).header("If-None-Match", tag).build());
    assertThat(again.statusCode()).isEqualTo(304);
    assertThat(again.body()).isEmpty();
  }

  @Test
  void aPortInUseIsNamedWithWhatToDo() {
    assertThatThrownBy(
            () ->
                new TestGateway(
                    GatewayConfig.Limits.DEFAULTS,
                    gateway.gateway.port(),
                    new FakeRegistry(),
                    "node-x",
                    List.of(FakeCluster.node("node-x", NodeInfo.State.UP))))
        .isInstanceOfSatisfying(
            FlotillaException.class,
            e ->
                assertThat(e.explanation())
                    .contains("port " + gateway.gateway.port())
                    .contains("--port"));
  }

  @Test
  void anOpenNetworkNeedsConsent() {
    assertThatThrownBy(() -> gateway.boundTo("0.0.0.0", false))
        .isInstanceOfSatisfying(
            FlotillaException.class, e -> assertThat(e.explanation()).contains("--insecure-http"));
    assertThatThrownBy(() -> gateway.boundTo("no.such.host.invalid", false))
        .isInstanceOf(FlotillaException.class)
        .hasMessageContaining("no.such.host.invalid");
    try (Gateway open = gateway.boundTo("0.0.0.0", true)) {
      open.start();
      assertThat(open.port()).isPositive();
    }
  }
}

package dev.flotilla.gateway;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.cluster.FakeCluster;
import dev.flotilla.cluster.FakeRegistry;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.cluster.Registry;
import dev.flotilla.data.DataPlane;
import dev.flotilla.data.grid.Environment;
import dev.flotilla.serve.Deployments.StageView;
import dev.flotilla.serve.KeptAnswers;
import io.micrometer.core.instrument.simple.SimpleMeterRegistry;
import io.micrometer.prometheusmetrics.PrometheusConfig;
import io.micrometer.prometheusmetrics.PrometheusMeterRegistry;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.security.SecureRandom;
import java.time.Duration;
import java.time.Instant;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;

/** A real gateway on a free port; fakes behind it. */
final class TestGateway implements AutoCloseable {

  static final GatewayConfig.Limits SHORT =
      new GatewayConfig.Limits(
          Duration.ofSeconds(2),
          Duration.ofMillis(600),
          Duration.ofMillis(800),
          Duration.ofMillis(700),
          Duration.ofMillis(300),
          200_000,
          16 << 10,
          500,
          300);

  final FakeRegistry registry;
  final FakeCluster cluster;
  final FakeDeployments deployments = new FakeDeployments();
  final FakeGenerator generator = new FakeGenerator();
  final FakeEmbedder embedder = new FakeEmbedder();
  final FakeTraining training = new FakeTraining();
  final List<Restarts.Build> restarted = new ArrayList<>();
  private final Restarts restarts =
      new Restarts() {
        @Override
        public Build running() {
          return new Build(Path.of("/opt/flotilla"), "0.1.0");
        }

        @Override
        public Build look(Path home) {
          return new Build(home, home.getFileName().toString());
        }

        @Override
        public void restart(Build next) {
          restarted.add(next);
        }
      };

  final List<String> imported = new ArrayList<>();
  volatile GatewayServices.Health health = GatewayServices.Health.OK;
  private final GatewayServices services;
  final Gateway gateway;
  final String key;
  final HttpClient http = HttpClient.newHttpClient();

  TestGateway() {
    this(
        GatewayConfig.Limits.DEFAULTS,
        0,
        new FakeRegistry(),
        "node-a",
        List.of(
            FakeCluster.node("node-a", NodeInfo.State.UP),
            FakeCluster.node("node-b", NodeInfo.State.UP),
            FakeCluster.node("node-c", NodeInfo.State.LOST)));
  }

  TestGateway(GatewayConfig.Limits limits) {
    this(
        limits,
        0,
        new FakeRegistry(),
        "node-a",
        List.of(FakeCluster.node("node-a", NodeInfo.State.UP)));
  }

  TestGateway(
      GatewayConfig.Limits limits,
      int port,
      FakeRegistry registry,
      String self,
      List<NodeInfo> nodes) {
    this(limits, port, registry, self, nodes, new ConcurrentHashMap<>());
  }

  /**
   * @param responses those that are stored
   */
  TestGateway(
      GatewayConfig.Limits limits,
      int port,
      FakeRegistry registry,
      String self,
      List<NodeInfo> nodes,
      Map<String, byte[]> responses) {
    this.registry = registry;
    this.cluster = new FakeCluster(self, registry, nodes);
    deployments.add(
        "tiny", 200, List.of(new StageView("node-a", 0, 3), new StageView("node-b", 4, 7)));
    this.services =
        new GatewayServices(
            cluster,
            new DataPlane(
                new Environment(
                    cluster,
                    Path.of("target", "never-started"),
                    "127.0.0.1",
                    8000,
                    new SimpleMeterRegistry(),
                    InstantSource.system(),
                    System::nanoTime,
                    new Random(1))),
            deployments,
            generator,
            new KeptAnswers(cluster, new SimpleMeterRegistry()),
            new StoredResponses() {
              @Override
              public void put(String id, byte[] response) {
                responses.put(id, response);
              }

              @Override
              public Optional<byte[]> find(String id) {
                return Optional.ofNullable(responses.get(id));
              }

              @Override
              public boolean remove(String id) {
                return responses.remove(id) != null;
              }
            },
            embedder,
            training,
            new ModelImports() {
              @Override
              public void add(
                  String name, String source, Optional<String> quantize, Progress progress) {
                if (source.contains("missing")) {
                  throw new FlotillaException(
                      FlotillaException.Code.NOT_FOUND, "no file " + source, "Give another.");
                }
                imported.add(
                    name + " from " + source + quantize.map(type -> " as " + type).orElse(""));
              }

              @Override
              public void remove(String name) {
                deployments.models.removeIf(m -> m.name().equals(name));
              }
            },
            () -> new Invites.Invite("flt-1", "flotilla up --join 127.0.0.1:8003 --token flt-1"),
            restarts,
            () -> health,
            new PrometheusMeterRegistry(PrometheusConfig.DEFAULT),
            () -> Instant.ofEpochSecond(1_800_000_000),
            System::nanoTime,
            new SecureRandom());
    this.gateway = new Gateway(new GatewayConfig("127.0.0.1", port, false, limits), services);
    this.key = registry.list("key").isEmpty() ? adminKey(registry) : "made by another gateway";
    cluster.start();
    gateway.start();
  }

  private static String adminKey(FakeRegistry registry) {
    try {
      Path folder = Files.createTempDirectory("gateway-test");
      Path file = folder.resolve("admin.key");
      String key = ApiKeys.ensureAdminKey(file, registry, new SecureRandom(), 0);
      Files.delete(file);
      Files.delete(folder);
      return key;
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** Another gateway over the same services. */
  Gateway boundTo(String host, boolean insecureHttp) {
    return new Gateway(
        new GatewayConfig(host, 0, insecureHttp, GatewayConfig.Limits.DEFAULTS), services);
  }

  URI uri(String path) {
    return URI.create("http://127.0.0.1:" + gateway.port() + path);
  }

  HttpRequest.Builder request(String path) {
    return HttpRequest.newBuilder(uri(path)).header("Authorization", "Bearer " + key);
  }

  HttpResponse<String> send(HttpRequest request) {
    try {
      return http.send(request, HttpResponse.BodyHandlers.ofString());
    } catch (IOException | InterruptedException e) {
      throw new AssertionError(e);
    }
  }

  HttpResponse<String> get(String path) {
    return send(request(path).build());
  }

  HttpResponse<String> delete(String path) {
    return send(request(path).DELETE().build());
  }

  HttpResponse<String> post(String path, String body) {
    return send(request(path).POST(HttpRequest.BodyPublishers.ofString(body)).build());
  }

  /** The JSON of a response. */
  static JsonNode json(HttpResponse<String> response) {
    return Json.read(response.body().getBytes(StandardCharsets.UTF_8), JsonNode.class);
  }

  /** Waits up to five seconds. */
  static boolean soon(BooleanSupplier condition) throws InterruptedException {
    long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(20);
    while (!condition.getAsBoolean()) {
      if (System.nanoTime() > deadline) {
        return false;
      }
      Thread.sleep(5);
    }
    return true;
  }

  /** Makes one more key of the API known. */
  void addKey(String name, String key) {
    try {
      byte[] digest =
          MessageDigest.getInstance("SHA-256").digest(key.getBytes(StandardCharsets.UTF_8));
      ApiKeys.Key hashed = new ApiKeys.Key(name, HexFormat.of().formatHex(digest), 0);
      Registry.Key place = new Registry.Key("key", name);
      Registry.Write write = new Registry.Write(place, Optional.of(Json.write(hashed)));
      if (registry.commit(List.of(), List.of(write)).isEmpty()) {
        throw new IllegalStateException("key " + name + " was not taken");
      }
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException(e);
    }
  }

  @Override
  public void close() {
    gateway.close();
    cluster.close();
    http.close();
  }
}

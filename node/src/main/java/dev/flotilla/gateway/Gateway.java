package dev.flotilla.gateway;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.gateway.GatewayHandler.Access;
import dev.flotilla.gateway.GatewayHandler.Route;
import dev.flotilla.gateway.GatewayServices.Health;
import java.io.IOException;
import java.net.InetAddress;
import java.net.UnknownHostException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import org.eclipse.jetty.http.UriCompliance;
import org.eclipse.jetty.server.HttpConfiguration;
import org.eclipse.jetty.server.HttpConnectionFactory;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;
import org.eclipse.jetty.util.thread.QueuedThreadPool;
import org.eclipse.jetty.util.thread.ScheduledExecutorScheduler;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * This node's HTTP server: OpenAI's endpoints, the cluster's API, metrics and the console.
 *
 * <p>Make it before the cluster starts, since it adds a service for other nodes; start it whenever
 * {@code /health} should answer, which may be before the cluster has started.
 */
public final class Gateway implements AutoCloseable {

  private static final Logger log = LoggerFactory.getLogger(Gateway.class);
  private static final int HTTP2_STREAMS_MAX = 1024;

  private final GatewayConfig config;
  private final GatewayServices services;
  private final GatewayHandler handler;
  private final Server server;
  private final ServerConnector connector;

  /**
   * Wires it; opens nothing yet.
   *
   * @throws FlotillaException {@code INVALID} for an address that is not loopback, without consent
   */
  public Gateway(GatewayConfig config, GatewayServices services) {
    refuseOpenNetwork(config);
    this.config = config;
    this.services = services;
    Traffic traffic = new Traffic(services.metrics(), services.nanoTime());
    ClusterTraffic clusterTraffic =
        new ClusterTraffic(services.cluster(), traffic, services.nanoTime());
    services.cluster().addService(clusterTraffic);
    ServedModels models = new ServedModels(services.deployments(), services.clock());
    ApiKeys keys = new ApiKeys(services.cluster()::registry, services.nanoTime());
    Embeddings embeddings =
        new Embeddings(
            services.embedder(), new EmbeddingCache(services.data().caches()), services.metrics());
    TextVectors vectors = new TextVectors(models, embeddings, services::newRequestId);
    services.data().registerJob(new EmbedJob(services.data().search(), vectors));
    AnswerService answers = new AnswerService(services, models, traffic);
    List<Route> routes =
        routes(new OpenAiApi(services, answers), new ClusterApi(services, clusterTraffic));
    routes.addAll(new ResponsesApi(services, answers).routes());
    routes.addAll(new EmbeddingsApi(services, models, traffic, embeddings).routes());
    routes.addAll(new SearchApi(services, vectors).routes());
    routes.addAll(new JdbcApi(services, keys).routes());
    this.handler = new GatewayHandler(routes, keys, config.limits());
    QueuedThreadPool threads = new QueuedThreadPool(16, 2);
    threads.setName("http");
    threads.setVirtualThreadsExecutor(
        Executors.newThreadPerTaskExecutor(Thread.ofVirtual().name("http-request-", 0).factory()));
    this.server = new Server(threads, new ScheduledExecutorScheduler("http-timer", true), null);
    this.connector = connector(server, config);
    server.addConnector(connector);
    server.setHandler(handler);
    server.setErrorHandler(new JsonErrors());
  }

  private static void refuseOpenNetwork(GatewayConfig config) {
    boolean loopback;
    try {
      loopback = InetAddress.getByName(config.host()).isLoopbackAddress();
    } catch (UnknownHostException e) {
      throw new FlotillaException(
          FlotillaException.Code.INVALID,
          "the address to bind, " + config.host() + ", is not known",
          "Give an address of this machine with --bind.",
          e);
    }
    if (!loopback && !config.insecureHttp()) {
      throw new FlotillaException(
          FlotillaException.Code.INVALID,
          "binding the HTTP API to "
              + config.host()
              + " would send keys and text over the network unencrypted",
          "Leave --bind out and put a TLS proxy in front, or accept it with --insecure-http.");
    }
  }

  private static ServerConnector connector(Server server, GatewayConfig config) {
    HttpConfiguration http = new HttpConfiguration();
    http.setSendServerVersion(false);
    http.setRequestHeaderSize(config.limits().headerBytes());
    // Paths name entries, not files: an encoded slash or dot is a character like others.
    http.setUriCompliance(
        UriCompliance.DEFAULT.with(
            "names",
            UriCompliance.Violation.AMBIGUOUS_PATH_SEPARATOR,
            UriCompliance.Violation.AMBIGUOUS_PATH_ENCODING,
            UriCompliance.Violation.AMBIGUOUS_PATH_SEGMENT,
            UriCompliance.Violation.SUSPICIOUS_PATH_CHARACTERS));
    http.setIdleTimeout(config.limits().idle().toMillis());
    UpgradeOnlyPriorKnowledge http2 = new UpgradeOnlyPriorKnowledge(http);
    http2.setMaxConcurrentStreams(HTTP2_STREAMS_MAX);
    http2.setStreamIdleTimeout(config.limits().idle().toMillis());
    ServerConnector connector =
        new ServerConnector(server, 1, 1, new HttpConnectionFactory(http), http2);
    connector.setHost(config.host());
    connector.setPort(config.port());
    connector.setIdleTimeout(config.limits().idle().toMillis());
    return connector;
  }

  private List<Route> routes(OpenAiApi openAi, ClusterApi cluster) {
    ConsoleFiles console = new ConsoleFiles();
    List<Route> routes = new ArrayList<>();
    for (String path : console.paths()) {
      routes.add(Route.of("GET", path, Access.OPEN, console::send));
    }
    // The console's, the scrapers' and OpenAI's clients; and what only names things of the cluster.
    routes.addAll(
        List.of(
            Route.of("GET", "/health", Access.OPEN, this::health),
            Route.of("GET", "/metrics", Access.KEY, this::metrics),
            Route.of("GET", "/v1/models", Access.KEY, openAi::models),
            Route.named("GET", "/v1/models/*", Access.KEY, openAi::model),
            Route.of("POST", "/v1/chat/completions", Access.WORK, openAi::chat),
            Route.of("POST", "/v1/completions", Access.WORK, openAi::completions),
            Route.of("GET", "/api/cluster", Access.KEY, cluster::cluster),
            Route.of("GET", "/api/deployments", Access.KEY, cluster::deployments),
            Route.of("POST", "/api/deployments", Access.WORK, cluster::deploy),
            Route.named("DELETE", "/api/deployments/*", Access.WORK, cluster::undeploy),
            Route.of("GET", "/api/plan", Access.KEY, cluster::plan),
            Route.of("GET", "/api/models", Access.KEY, cluster::models),
            Route.of("POST", "/api/models", Access.WORK, cluster::addModel),
            Route.named("DELETE", "/api/models/*", Access.WORK, cluster::removeModel),
            Route.of("GET", "/api/training", Access.KEY, cluster::trainings),
            Route.of("POST", "/api/training", Access.WORK, cluster::train),
            Route.named("GET", "/api/training/*", Access.KEY, cluster::training),
            Route.named("DELETE", "/api/training/*", Access.WORK, cluster::cancelTraining),
            Route.of("POST", "/api/invites", Access.WORK, cluster::invite),
            Route.of("GET", "/api/stats", Access.KEY, cluster::stats)));
    routes.replaceAll(Route::lenient);
    routes.addAll(new LocksApi(services).routes());
    routes.addAll(new NodesApi(services).routes());
    routes.addAll(new BackupsApi(services).routes());
    routes.addAll(new JobsApi(services).routes());
    routes.addAll(new CacheApi(services).routes());
    routes.addAll(new QueueApi(services).routes());
    routes.addAll(new ShardingApi(services).routes());
    routes.addAll(new LogApi(services, this::draining).routes());
    routes.addAll(new SqlApi(services).routes());
    routes.addAll(new TransactionsApi(services).routes());
    routes.addAll(new UsageApi(services).routes());
    routes.addAll(new BlobApi(services).routes());
    return routes;
  }

  private boolean draining() {
    return handler.draining();
  }

  private void health(Exchange exchange) {
    Health health = health();
    ObjectNode body = Json.MAPPER.createObjectNode().put("status", health.status());
    if (!health.ok()) {
      body.put("reason", health.reason());
      exchange.putHeader("Retry-After", "2");
    }
    exchange.send(health.ok() ? 200 : 503, body);
  }

  private Health health() {
    if (handler.draining()) {
      return new Health("draining", "this node is stopping");
    }
    Health own = services.health().get();
    if (own.ok() && services.cluster().leader().isEmpty()) {
      return new Health("no_majority", "a majority of the cluster's nodes cannot be reached");
    }
    return own;
  }

  private void metrics(Exchange exchange) {
    exchange.send(
        200,
        "text/plain; version=0.0.4; charset=utf-8",
        services.metrics().scrape().getBytes(StandardCharsets.UTF_8));
  }

  /**
   * Opens the port.
   *
   * @throws FlotillaException {@code CONFLICT} if another program has the port
   */
  public void start() {
    try {
      connector.open();
    } catch (IOException e) {
      throw new FlotillaException(
          FlotillaException.Code.CONFLICT,
          "port " + config.port() + " on " + config.host() + " cannot be used: " + e.getMessage(),
          "Stop the program that has it, or choose another port with --port.",
          e);
    }
    try {
      server.start();
    } catch (Exception e) {
      throw new FlotillaException(
          FlotillaException.Code.FAILED, "the HTTP server does not start: " + e, "", e);
    }
    watchHeaders();
    log.info("HTTP API on {}:{}", config.host(), port());
  }

  private void watchHeaders() {
    SlowHeaders slowHeaders = new SlowHeaders(connector, config.limits(), services.nanoTime());
    long everyMs = Math.clamp(config.limits().header().toMillis() / 4, 50, 1000);
    Runnable look =
        new Runnable() {
          @Override
          public void run() {
            slowHeaders.run();
            connector.getScheduler().schedule(this, everyMs, TimeUnit.MILLISECONDS);
          }
        };
    connector.getScheduler().schedule(look, everyMs, TimeUnit.MILLISECONDS);
  }

  /** The port it listens on. */
  public int port() {
    return connector.getLocalPort();
  }

  /** Refuses new work from now on, and {@code /health} answers 503. */
  public void startDraining() {
    handler.startDraining();
  }

  /**
   * Waits for what runs to end.
   *
   * @return whether all of it ended in time
   */
  public boolean awaitIdle(Duration patience) throws InterruptedException {
    long deadlineNs = services.nanoTime().getAsLong() + patience.toNanos();
    while (handler.running() > 0) {
      if (services.nanoTime().getAsLong() > deadlineNs) {
        return false;
      }
      Thread.sleep(20);
    }
    return true;
  }

  /** Requests being handled now. */
  int requestsRunning() {
    return handler.running();
  }

  /** Closes the port and all connections; what still ran is stopped. */
  @Override
  public void close() {
    try {
      server.stop();
    } catch (Exception e) {
      log.warn("the HTTP server did not stop cleanly", e);
    }
  }
}

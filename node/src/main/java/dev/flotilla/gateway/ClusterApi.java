package dev.flotilla.gateway;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.Names;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.gateway.proto.TrafficReport;
import dev.flotilla.serve.Deployments.DeploymentView;
import dev.flotilla.serve.Deployments.ModelView;
import dev.flotilla.serve.Deployments.ReplicaView;
import dev.flotilla.serve.Deployments.StageView;
import dev.flotilla.serve.Deployments.Wanted;
import dev.flotilla.serve.Engine;
import dev.flotilla.train.TrainingConfig;
import dev.flotilla.train.TrainingJobs;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;

/** The cluster's own API, {@code /api/…}: see {@code docs/contract.md}. */
final class ClusterApi {

  private static final int COUNT_MAX = 1000;

  private final GatewayServices services;
  private final ClusterTraffic traffic;

  ClusterApi(GatewayServices services, ClusterTraffic traffic) {
    this.services = services;
    this.traffic = traffic;
  }

  void cluster(Exchange exchange) {
    Cluster cluster = services.cluster();
    String leader = cluster.leader().orElse("");
    List<String> holders =
        services.deployments().list().stream()
            .flatMap(deployment -> deployment.replicas().stream())
            .flatMap(replica -> replica.stages().stream())
            .map(StageView::node)
            .toList();
    ObjectNode body = object();
    ArrayNode nodes = body.putArray("nodes");
    for (NodeInfo node : cluster.nodes()) {
      ObjectNode n = nodes.addObject();
      n.put("id", node.id());
      n.put("name", node.name());
      n.put("address", node.host() + ":" + node.httpPort());
      n.put("state", node.state().name().toLowerCase(Locale.ROOT));
      n.put("pid", node.pid());
      n.put("version", node.version());
      n.put("incarnation", node.incarnation());
      ArrayNode roles = n.putArray("roles");
      if (node.id().equals(leader)) {
        roles.add("controller");
      }
      if (holders.contains(node.id())) {
        roles.add("stage");
      }
      ObjectNode profile = n.putObject("profile");
      node.profile().forEach((name, value) -> putNumber(profile, name, value));
    }
    body.put("self", cluster.self());
    body.put("leader", leader);
    body.put("epoch", cluster.registry().revision());
    exchange.sendCopy(body, services.hasMajority());
  }

  void deployments(Exchange exchange) {
    ArrayNode list = Json.MAPPER.createArrayNode();
    List<ModelView> models = services.deployments().models();
    services.deployments().list().forEach(d -> list.add(deploymentNode(d, models)));
    exchange.sendCopy(list, services.hasMajority());
  }

  private static ObjectNode deploymentNode(DeploymentView deployment, List<ModelView> models) {
    ObjectNode node = object();
    node.put("model", deployment.model());
    node.put("state", deployment.state());
    node.put("reason", deployment.reason());
    models.stream()
        .filter(model -> model.name().equals(deployment.model()))
        .findFirst()
        .ifPresent(model -> node.put("layers", model.config().layers()));
    node.putObject("wanted")
        .put("replicas", deployment.wanted().replicas())
        .put("stages", deployment.wanted().stages())
        .put("tensor", deployment.wanted().tensor())
        .put("routing", deployment.wanted().routing())
        .put("kv", deployment.wanted().engine().kvLabel())
        .put("wire", deployment.wanted().engine().wireLabel())
        .put("speculate", deployment.wanted().engine().speculate())
        .put("draft", deployment.wanted().engine().draft())
        .put("kv_replicas", deployment.wanted().kvReplicas());
    ArrayNode replicas = node.putArray("replicas");
    for (ReplicaView replica : deployment.replicas()) {
      ObjectNode r = replicas.addObject();
      r.put("id", replica.id());
      r.put("state", replica.state());
      r.put("epoch", replica.epoch());
      r.put("copied_to", replica.copiedTo());
      ArrayNode stages = r.putArray("stages");
      for (StageView stage : replica.stages()) {
        stages
            .addObject()
            .put("node", stage.node())
            .put("first_layer", stage.firstLayer())
            .put("last_layer", stage.lastLayer());
      }
    }
    return node;
  }

  void deploy(Exchange exchange) {
    Fields fields = exchange.json();
    String model = existingModel(fields.requiredText("model"));
    String routing = fields.text("routing").orElse("least_load");
    if (!List.of("least_load", "round_robin").contains(routing)) {
      throw ApiError.invalid("routing", "routing must be least_load or round_robin.");
    }
    services
        .deployments()
        .deploy(
            new Wanted(
                model,
                fields.integer("replicas", 1, 1, COUNT_MAX),
                fields.integer("stages", 0, 0, COUNT_MAX),
                fields.integer("tensor", 1, 1, COUNT_MAX),
                routing,
                fields.flag("force", false),
                engine(fields),
                fields.integer("kv_replicas", 0, 0, 1)),
            LocksApi.fence(fields));
    List<ModelView> models = services.deployments().models();
    exchange.send(
        202,
        services.deployments().list().stream()
            .filter(d -> d.model().equals(model))
            .findFirst()
            .map(d -> deploymentNode(d, models))
            .orElseGet(() -> object().put("model", model).put("state", "loading")));
  }

  private static Engine engine(Fields fields) {
    String kv = oneOf(fields, "kv", "f16", "f32", "q8_0");
    String wire = oneOf(fields, "wire", "f32", "bf16");
    return Engine.of(kv, wire, fields.flag("speculate", false), fields.text("draft").orElse(""));
  }

  /** A field that may have one of a few values, the first one where it is absent. */
  private static String oneOf(Fields fields, String name, String... values) {
    String value = fields.text(name).orElse(values[0]);
    if (!List.of(values).contains(value)) {
      throw ApiError.invalid(name, name + " must be one of " + String.join(", ", values) + ".");
    }
    return value;
  }

  void undeploy(Exchange exchange, String model) {
    if (services.deployments().list().stream().noneMatch(d -> d.model().equals(model))) {
      throw ApiError.of(404, "not_found", "That model is not deployed.");
    }
    // A body is optional here, and holds the fence.
    byte[] body = exchange.body();
    services
        .deployments()
        .remove(model, body.length == 0 ? Optional.empty() : LocksApi.fence(Fields.read(body)));
    exchange.send(200, object().put("model", model).put("state", "removed"));
  }

  void plan(Exchange exchange) {
    String model =
        existingModel(
            exchange
                .query("model")
                .orElseThrow(
                    () -> ApiError.invalid("model", "Name a model, as /api/plan?model=NAME.")));
    int stages = count(exchange, "stages", 0);
    int tensor = count(exchange, "tensor", 1);
    if (tensor > 1 && stages > 1) {
      throw ApiError.invalid("tensor", "Leave stages or tensor out: a model is split one way.");
    }
    exchange.send(
        200,
        Json.MAPPER.valueToTree(
            tensor > 1
                ? services.deployments().tensorPlan(model, tensor, Engine.DEFAULT)
                : services.deployments().plan(model, stages, Engine.DEFAULT)));
  }

  private static int count(Exchange exchange, String name, int least) {
    int count;
    try {
      count = Integer.parseInt(exchange.query(name).orElse("" + least));
    } catch (NumberFormatException e) {
      count = -1;
    }
    if (count < least || count > COUNT_MAX) {
      throw ApiError.invalid(
          name, name + " must be an integer from " + least + " to " + COUNT_MAX + ".");
    }
    return count;
  }

  void models(Exchange exchange) {
    ArrayNode list = Json.MAPPER.createArrayNode();
    services.deployments().models().forEach(model -> list.add(modelNode(model)));
    exchange.send(200, list);
  }

  private static ObjectNode modelNode(ModelView model) {
    return object()
        .put("name", model.name())
        .put("digest", model.digest())
        .put("bytes", model.bytes())
        .put("created_at_ms", model.createdAtMs())
        .put("layers", model.config().layers())
        .put("width", model.config().width())
        .put("vocabulary_size", model.config().vocabularySize())
        .put("context_length", model.config().contextLength());
  }

  void addModel(Exchange exchange) {
    Fields fields = exchange.json();
    String name = validName("name", fields.requiredText("name"));
    String source = fields.requiredText("source");
    Optional<String> quantize = fields.text("quantize");
    if (exchange.header("Accept").orElse("").contains("text/event-stream")) {
      ImportStream.send(
          exchange,
          progress -> {
            services.imports().add(name, source, quantize, progress);
            return model(name);
          });
    } else {
      services.imports().add(name, source, quantize, (what, bytes, total) -> {});
      exchange.send(201, model(name));
    }
  }

  private ObjectNode model(String name) {
    return services.deployments().models().stream()
        .filter(m -> m.name().equals(name))
        .findFirst()
        .map(ClusterApi::modelNode)
        .orElseGet(() -> object().put("name", name));
  }

  void removeModel(Exchange exchange, String name) {
    services.imports().remove(existingModel(name));
    exchange.send(200, object().put("name", name).put("state", "removed"));
  }

  private String existingModel(String name) {
    List<String> names = services.deployments().models().stream().map(ModelView::name).toList();
    if (!names.contains(name)) {
      throw new ApiError(
          404,
          "model_not_found",
          Optional.of("model"),
          "There is no such model. Models: "
              + (names.isEmpty()
                  ? "none; add one with `flotilla pull`."
                  : String.join(", ", names)));
    }
    return name;
  }

  private static String validName(String field, String name) {
    if (!Names.fits(name)) {
      throw ApiError.invalid(
          field,
          field
              + " must be 1 to 128 letters, digits, dots, dashes or underscores, and begin with a"
              + " letter or digit.");
    }
    return name;
  }

  void trainings(Exchange exchange) {
    ArrayNode list = Json.MAPPER.createArrayNode();
    services.training().list().forEach(job -> list.add(jobNode(job, false)));
    exchange.send(200, list);
  }

  void training(Exchange exchange, String id) {
    exchange.send(200, jobNode(services.training().get(id), true));
  }

  private static ObjectNode jobNode(TrainingJobs.JobView job, boolean withCurve) {
    ObjectNode node = object();
    node.put("id", job.id());
    node.put("state", job.state());
    node.put("reason", job.reason());
    node.put("model", job.model());
    node.put("steps", job.steps());
    ArrayNode nodes = node.putArray("nodes");
    job.nodes().forEach(nodes::add);
    putNumber(node, "held_out_accuracy", job.heldOutAccuracy());
    if (!job.curve().isEmpty()) {
      node.set("latest", pointNode(job.curve().getLast()));
    }
    if (withCurve) {
      ArrayNode curve = node.putArray("curve");
      job.curve().forEach(point -> curve.add(pointNode(point)));
    }
    return node;
  }

  private static ObjectNode pointNode(TrainingJobs.LossPoint point) {
    ObjectNode node = object().put("step", point.step());
    putNumber(node, "loss", point.loss());
    putNumber(node, "validation_loss", point.validationLoss());
    putNumber(node, "tokens_per_second", point.tokensPerSecond());
    return node;
  }

  void train(Exchange exchange) {
    Fields f = exchange.json();
    TrainingConfig config =
        new TrainingConfig(
            validName("model", f.requiredText("model")),
            f.text("text"),
            f.integer("seed", Long.MIN_VALUE, Long.MAX_VALUE).orElse(0L),
            f.integer("workers", 0, 0, COUNT_MAX),
            positive(f, "vocabulary_size"),
            positive(f, "width"),
            positive(f, "layers"),
            positive(f, "heads"),
            positive(f, "kv_heads"),
            positive(f, "feed_forward"),
            positive(f, "context_length"),
            positive(f, "batch"),
            positive(f, "steps"),
            number(f, "learning_rate"),
            f.integer("warmup_steps", 0, 0, Integer.MAX_VALUE),
            f.number("weight_decay", 0, 10).orElse(0.1),
            f.number("gradient_clip", 0, 1e6).orElse(1.0));
    if (services.deployments().models().stream().anyMatch(m -> m.name().equals(config.model()))) {
      throw new FlotillaException(
          FlotillaException.Code.CONFLICT,
          "there is a model " + config.model() + " already",
          "Give the new one another name, or remove that one with flotilla rm.");
    }
    exchange.send(202, object().put("id", services.training().submit(config)));
  }

  private static int positive(Fields fields, String name) {
    return (int) fields.requiredInteger(name, 1, Integer.MAX_VALUE);
  }

  private static double number(Fields fields, String name) {
    return fields.number(name, 0, 1e6).orElseThrow(() -> ApiError.missing(name));
  }

  void cancelTraining(Exchange exchange, String id) {
    services.training().cancel(id);
    exchange.send(200, object().put("id", id).put("state", "cancelled"));
  }

  void invite(Exchange exchange) {
    Invites.Invite invite = services.invites().invite();
    exchange.send(201, object().put("token", invite.token()).put("command", invite.command()));
  }

  void stats(Exchange exchange) throws InterruptedException {
    Map<String, TrafficReport> reports = traffic.reports();
    ObjectNode body = object();
    TrafficReport own =
        reports.getOrDefault(services.cluster().self(), TrafficReport.getDefaultInstance());
    body.put("node", services.cluster().self());
    body.put("tokens_per_second", own.getTokensPerSecond());
    body.put("requests_running", own.getRequestsRunning());
    List<TrafficReport> all = new ArrayList<>(reports.values());
    body.put(
        "cluster_tokens_per_second",
        all.stream().mapToDouble(TrafficReport::getTokensPerSecond).sum());
    body.put(
        "cluster_requests_running", all.stream().mapToInt(TrafficReport::getRequestsRunning).sum());
    ArrayNode nodes = body.putArray("nodes");
    reports.forEach(
        (id, report) ->
            nodes
                .addObject()
                .put("id", id)
                .put("tokens_per_second", report.getTokensPerSecond())
                .put("requests_running", report.getRequestsRunning()));
    exchange.send(200, body);
  }

  /** JSON has no NaN: what was not measured is left out. */
  private static void putNumber(ObjectNode node, String name, double value) {
    if (Double.isFinite(value)) {
      node.put(name, value);
    }
  }

  private static ObjectNode object() {
    return Json.MAPPER.createObjectNode();
  }
}

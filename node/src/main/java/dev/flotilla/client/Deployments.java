package dev.flotilla.client;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** What the cluster serves, by its HTTP API. */
public final class Deployments {

  /** Layers, first to last, on a node. */
  public record Stage(String node, int firstLayer, int lastLayer) {}

  /** One copy of the model: {@code loading}, {@code ready} or {@code failed}. */
  public record Replica(String id, String state, List<Stage> stages) {}

  /**
   * A deployment: {@code loading}, {@code ready}, {@code degraded} or {@code failed}, with the
   * reason where it is not ready.
   */
  public record Deployment(String model, String state, String reason, List<Replica> replicas) {}

  private final Client client;

  /** Through this client. */
  public Deployments(Client client) {
    this.client = client;
  }

  /** All of them. */
  public List<Deployment> list() {
    List<Deployment> deployments = new ArrayList<>();
    for (JsonNode deployment : client.get("/api/deployments")) {
      List<Replica> replicas = new ArrayList<>();
      for (JsonNode replica : deployment.path("replicas")) {
        List<Stage> stages = new ArrayList<>();
        for (JsonNode stage : replica.path("stages")) {
          stages.add(
              new Stage(
                  stage.path("node").asText(),
                  stage.path("first_layer").asInt(),
                  stage.path("last_layer").asInt()));
        }
        replicas.add(
            new Replica(replica.path("id").asText(), replica.path("state").asText(), stages));
      }
      deployments.add(
          new Deployment(
              deployment.path("model").asText(),
              deployment.path("state").asText(),
              deployment.path("reason").asText(),
              replicas));
    }
    return deployments;
  }

  /**
   * Wants a model served; returns at once, the cluster does the rest.
   *
   * @param replicas how many copies answer
   * @param stages over how many nodes each is split; 0 leaves it to the planner
   */
  public void deploy(String model, int replicas, int stages) {
    Map<String, Object> body = new LinkedHashMap<>();
    body.put("model", model);
    body.put("replicas", replicas);
    body.put("stages", stages);
    client.post("/api/deployments", body);
  }

  /** Wants a model served no more. */
  public void remove(String model) {
    client.delete("/api/deployments/" + Client.encode(model));
  }
}

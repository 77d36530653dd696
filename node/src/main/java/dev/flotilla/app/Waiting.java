package dev.flotilla.app;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.client.Client;
import java.time.Duration;
import java.util.Map;
import java.util.function.Consumer;

/** Waits for the cluster to bring about what a client asked for. */
final class Waiting {

  private static final Duration DEPLOY_PATIENCE = Duration.ofMinutes(30);
  private static final int POLL_MS = 100;

  private Waiting() {}

  /**
   * Posts a deployment, and waits until it is ready with what was asked for.
   *
   * @param onState hears each new state, with its reason, once
   */
  static JsonNode deployed(Client client, Map<String, Object> wanted, Consumer<String> onState)
      throws InterruptedException {
    client.post("/api/deployments", wanted);
    String model = String.valueOf(wanted.get("model"));
    int stages = ((Number) wanted.getOrDefault("stages", 0)).intValue();
    String last = "";
    long end = System.nanoTime() + DEPLOY_PATIENCE.toNanos();
    while (System.nanoTime() < end) {
      JsonNode deployment = find(client, model);
      String state = deployment.path("state").asText();
      String described = model + ": " + state + reason(deployment);
      if (!described.equals(last)) {
        onState.accept(described);
        last = described;
      }
      if (state.equals("failed")) {
        throw new FlotillaException(
            FlotillaException.Code.FAILED, "cannot deploy " + described, "");
      }
      if (state.equals("ready") && (stages == 0 || stagesOf(deployment) == stages)) {
        return deployment;
      }
      Thread.sleep(POLL_MS);
    }
    throw new FlotillaException(
        FlotillaException.Code.UNAVAILABLE,
        model + " was not ready after " + DEPLOY_PATIENCE.toMinutes() + " minutes",
        "See flotilla ps for its state, and DIR/logs/node.log on its nodes.");
  }

  /** A deployment by its model's name; a missing node where there is none. */
  static JsonNode find(Client client, String model) {
    for (JsonNode deployment : client.get("/api/deployments")) {
      if (deployment.path("model").asText().equals(model)) {
        return deployment;
      }
    }
    return com.fasterxml.jackson.databind.node.MissingNode.getInstance();
  }

  static int stagesOf(JsonNode deployment) {
    return deployment.path("replicas").path(0).path("stages").size();
  }

  private static String reason(JsonNode deployment) {
    String reason = deployment.path("reason").asText();
    return reason.isEmpty() ? "" : " (" + reason + ")";
  }
}

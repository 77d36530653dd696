package dev.flotilla.app;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.Json;
import dev.flotilla.client.Client;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import picocli.CommandLine.Command;

/** Shows what runs: nodes, deployments, training jobs. */
@Command(
    name = "ps",
    description = "Show the nodes, the deployments and the training jobs.",
    mixinStandardHelpOptions = true)
final class PsCommand extends ClientCommand {

  @Override
  public Integer call() {
    Client client = client();
    JsonNode cluster = client.get("/api/cluster");
    JsonNode deployments = client.get("/api/deployments");
    JsonNode jobs = client.get("/api/training");
    if (asJson) {
      return print(
          Json.MAPPER.valueToTree(
              Map.of("cluster", cluster, "deployments", deployments, "training", jobs)));
    }
    List<List<String>> rows = new ArrayList<>();
    for (JsonNode node : cluster.path("nodes")) {
      rows.add(
          List.of(
              node.path("id").asText(),
              node.path("name").asText(),
              node.path("address").asText(),
              node.path("state").asText(),
              roles(node)));
    }
    table(List.of("NODE", "NAME", "ADDRESS", "STATE", "ROLES"), rows);
    for (JsonNode deployment : deployments) {
      System.out.println();
      printDeployment(deployment);
    }
    for (JsonNode job : jobs) {
      System.out.println();
      System.out.printf(
          "training %s: %s, model %s%s%n",
          job.path("id").asText(),
          job.path("state").asText(),
          job.path("model").asText(),
          job.path("reason").asText().isEmpty() ? "" : " (" + job.path("reason").asText() + ")");
    }
    return 0;
  }

  private static String roles(JsonNode node) {
    List<String> roles = new ArrayList<>();
    node.path("roles").forEach(role -> roles.add(role.asText()));
    return String.join(", ", roles);
  }

  static void printDeployment(JsonNode deployment) {
    String reason = deployment.path("reason").asText();
    System.out.printf(
        "%s: %s%s%n",
        deployment.path("model").asText(),
        deployment.path("state").asText(),
        reason.isEmpty() ? "" : " (" + reason + ")");
    for (JsonNode replica : deployment.path("replicas")) {
      String copiedTo = replica.path("copied_to").asText();
      System.out.printf(
          "  %s %s: %s%s%n",
          replica.path("id").asText(),
          replica.path("state").asText(),
          placement(replica),
          copiedTo.isEmpty() ? "" : "; KV cache copied to " + copiedTo);
    }
  }

  /** One replica's layers and nodes on one line. */
  static String placement(JsonNode replica) {
    List<String> stages = new ArrayList<>();
    for (JsonNode stage : replica.path("stages")) {
      stages.add(
          "layers "
              + stage.path("first_layer").asInt()
              + "-"
              + stage.path("last_layer").asInt()
              + " on "
              + stage.path("node").asText());
    }
    return String.join(", ", stages);
  }
}

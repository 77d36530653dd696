package dev.flotilla.app;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.client.Client;
import java.util.ArrayList;
import java.util.List;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** Shows where a model's layers would go. */
@Command(
    name = "plan",
    description = "Show where a model's layers would go and the predicted speed.",
    mixinStandardHelpOptions = true)
final class PlanCommand extends ClientCommand {

  @Parameters(paramLabel = "MODEL", description = "A model of the cluster.")
  private String model = "";

  @Option(
      names = "--stages",
      paramLabel = "N",
      defaultValue = "0",
      description = "Over so many nodes (default: the planner chooses).")
  private int stages;

  @Override
  public Integer call() {
    JsonNode plan = client().get("/api/plan?model=" + Client.encode(model) + "&stages=" + stages);
    if (asJson) {
      return print(plan);
    }
    List<List<String>> rows = new ArrayList<>();
    for (JsonNode stage : plan.path("stages")) {
      rows.add(
          List.of(
              stage.path("node").asText(),
              stage.path("first_layer").asInt() + "-" + stage.path("last_layer").asInt()));
    }
    table(List.of("NODE", "LAYERS"), rows);
    System.out.printf(
        "predicted: %.1f tokens/s; on one node: %.1f tokens/s%n",
        plan.path("predicted_tokens_per_second").asDouble(),
        plan.path("one_node").path("predicted_tokens_per_second").asDouble());
    return 0;
  }
}

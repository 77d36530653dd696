package dev.flotilla.app;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.client.Client;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** Shows where a model's layers would go, and how fast that is predicted to be. */
@Command(
    name = "plan",
    description = "Show where a model's layers would go and the predicted speed, also for 1 node.",
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

  @Option(
      names = "--tensor",
      paramLabel = "T",
      defaultValue = "1",
      description = "With every layer shared out over so many nodes (default ${DEFAULT-VALUE}).")
  private int tensor;

  @Override
  public Integer call() {
    JsonNode plan =
        client()
            .get(
                "/api/plan?model="
                    + Client.encode(model)
                    + "&stages="
                    + stages
                    + "&tensor="
                    + tensor);
    if (asJson) {
      return print(plan);
    }
    List<List<String>> rows = new ArrayList<>();
    boolean shared = plan.has("ranks");
    for (JsonNode stage : plan.path(shared ? "ranks" : "stages")) {
      rows.add(
          List.of(
              stage.path("name").asText(),
              stage.path("node").asText(),
              shared
                  ? stage.path("kv_heads").asText() + ", " + stage.path("inner").asText()
                  : stage.path("first_layer").asInt() + "-" + stage.path("last_layer").asInt(),
              gigabytes(stage.path("weight_bytes")),
              gigabytes(stage.path("kv_bytes")),
              gigabytes(stage.path("memory_bytes")),
              number(stage.path("predicted_step_ms"))));
    }
    String what = shared ? "KV HEADS, INNER" : "LAYERS";
    table(List.of("NAME", "NODE", what, "WEIGHTS", "KV CACHE", "MEMORY", "MS A TOKEN"), rows);
    System.out.println();
    List<List<String>> speeds = new ArrayList<>();
    speeds.add(speeds("predicted", plan));
    JsonNode alone = plan.path("one_node");
    if (rows.size() > 1 && alone.has("stages")) {
      speeds.add(speeds("on " + alone.path("stages").path(0).path("name").asText(), alone));
    }
    table(
        List.of(
            "TOKENS/S",
            "ONE STREAM",
            plan.path("streams").asInt() + " STREAMS",
            "FIRST TOKEN OF A PROMPT OF " + plan.path("prompt_tokens").asInt()),
        speeds);
    if (alone.has("reason")) {
      System.out.println("on one node: " + alone.path("reason").asText());
    }
    List<String> leftOut = new ArrayList<>();
    plan.path("left_out").forEach(name -> leftOut.add(name.asText()));
    if (!leftOut.isEmpty()) {
      System.out.println("not used: " + String.join(", ", leftOut));
    }
    if (!plan.path("measured").asBoolean()) {
      System.out.println(
          "A guess: not every node has measured how fast it runs layers yet. It does so once it has"
              + " nothing else to do.");
    }
    return 0;
  }

  private static List<String> speeds(String where, JsonNode plan) {
    return List.of(
        where,
        number(plan.path("predicted_tokens_per_second")),
        number(plan.path("predicted_pipelined_tokens_per_second")),
        String.format(Locale.ROOT, "%.0f ms", plan.path("predicted_first_token_ms").asDouble()));
  }

  private static String number(JsonNode value) {
    return String.format(Locale.ROOT, "%.1f", value.asDouble());
  }

  private static String gigabytes(JsonNode bytes) {
    return String.format(Locale.ROOT, "%.2f GB", bytes.asDouble() / 1e9);
  }
}

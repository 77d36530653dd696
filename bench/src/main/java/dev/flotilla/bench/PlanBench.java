package dev.flotilla.bench;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/**
 * What the planner predicts from what nodes measured of themselves, beside what they then do: a
 * replica over all nodes given, and one on one of them.
 */
@Command(
    name = "plan",
    description = "What the planner predicts, beside what is then measured.",
    mixinStandardHelpOptions = true)
final class PlanBench implements Callable<Integer> {

  private static final double TARGET = 0.2;

  /** Letters of a prompt beside what makes it different from others. */
  private static final int NUMBER = 8;

  @Option(
      names = "--model",
      required = true,
      paramLabel = "FILE",
      description = "A GGUF file whose tokens are bytes; `bench make-model` writes one.")
  private Path model = Path.of("");

  @Option(names = "--tokens", defaultValue = "48", description = "Of a stream; ${DEFAULT-VALUE}.")
  private int tokens;

  @Option(names = "--rounds", defaultValue = "3", description = "Default ${DEFAULT-VALUE}.")
  private int rounds;

  @Option(
      names = "--node",
      required = true,
      paramLabel = "CORES",
      description = "A node and its cores, as taskset takes them; once for each node.")
  private List<String> nodes = List.of();

  @Option(
      names = "--tensor",
      description = "With every layer shared out over the nodes, instead of stages.")
  private boolean tensor;

  @Option(names = "--json", description = "Print JSON.")
  private boolean asJson;

  private int prompts;

  /** One figure; measured is the median of the rounds. */
  private record Row(
      String what,
      String figure,
      double predicted,
      double measured,
      double error,
      List<Double> rounds) {

    static Row of(String what, String figure, double predicted, List<Double> rounds) {
      double measured = InferenceBench.median(rounds);
      return new Row(what, figure, predicted, measured, predicted / measured - 1, rounds);
    }
  }

  @Override
  public Integer call() throws Exception {
    if (!Files.isRegularFile(model)) {
      throw new FlotillaException(
          FlotillaException.Code.INVALID, "no file " + model, "Give --model FILE.");
    }
    List<Row> rows = new ArrayList<>();
    if (!asJson) {
      System.out.printf(
          "%-22s %-22s %9s %9s %7s  %s%n", "", "", "predicted", "measured", "error", "each round");
    }
    try (PinnedNodes cluster = new PinnedNodes(nodes)) {
      measure(cluster, nodes.size(), rows);
      if (nodes.size() > 1) {
        measure(cluster, 1, rows);
      }
    }
    if (asJson) {
      System.out.println(Json.MAPPER.writeValueAsString(rows));
    }
    return 0;
  }

  private void add(List<Row> rows, Row row) {
    rows.add(row);
    if (!asJson) {
      System.out.printf(
          "%-22s %-22s %9.1f %9.1f %6.0f%%  %s%s%n",
          row.what(),
          row.figure(),
          row.predicted(),
          row.measured(),
          100 * row.error(),
          row.rounds().stream().map(each -> String.format("%.1f", each)).toList(),
          Math.abs(row.error()) > TARGET ? "  beyond 20%" : "");
    }
  }

  private void measure(PinnedNodes nodes, int count, List<Row> rows) throws Exception {
    String split = tensor && count > 1 ? "tensor" : "stages";
    String what = count == 1 ? "one node" : count + (tensor ? " ranks" : " stages");
    nodes.add(model);
    String plan = "/api/plan?model=" + PinnedNodes.MODEL + "&" + split + "=" + count;
    PinnedNodes.await(
        "the nodes did not measure themselves",
        () -> nodes.client().get(plan).path("measured").asBoolean());
    JsonNode predicted = nodes.client().get(plan);
    int length = predicted.path("prompt_tokens").asInt();
    int streams = predicted.path("streams").asInt();
    nodes.deploy(model, count, Map.of(split, count));
    double _ = nodes.seconds(prompts(1, length), 8);
    double _ = nodes.seconds(prompts(streams, 2 * NUMBER), 8);
    List<Double> one = new ArrayList<>();
    List<Double> many = new ArrayList<>();
    List<Double> first = new ArrayList<>();
    for (int round = 0; round < rounds; round++) {
      double begun = nodes.seconds(prompts(1, length), 1);
      first.add(1e3 * begun);
      one.add(tokens / (nodes.seconds(prompts(1, length), 1 + tokens) - begun));
      double together = nodes.seconds(prompts(streams, 2 * NUMBER), 1);
      many.add(
          streams * tokens / (nodes.seconds(prompts(streams, 2 * NUMBER), 1 + tokens) - together));
    }
    add(
        rows,
        Row.of(
            what,
            "one stream, tokens/s",
            predicted.path("predicted_tokens_per_second").asDouble(),
            one));
    add(
        rows,
        Row.of(
            what,
            streams + " streams, tokens/s",
            predicted.path("predicted_pipelined_tokens_per_second").asDouble(),
            many));
    add(
        rows,
        Row.of(
            what,
            "first token of " + length + ", ms",
            predicted.path("predicted_first_token_ms").asDouble(),
            first));
  }

  /** Prompts of so many bytes, which begin differently, so that no cache knows them. */
  private List<String> prompts(int count, int length) {
    List<String> texts = new ArrayList<>();
    for (int i = 0; i < count; i++) {
      texts.add(String.format("%0" + NUMBER + "d", ++prompts) + "a".repeat(length - NUMBER));
    }
    return texts;
  }
}

package dev.flotilla.bench;

import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/**
 * Streams over two stages, each a process pinned to a core of its own, beside one stage: on one of
 * these cores, and on both. What two cores hold together and split over two stages is the same
 * work, so the second figure shows what the pipeline keeps of it.
 */
@Command(
    name = "pipeline",
    description = "Streams over two stages pinned to a core each, beside one stage.",
    mixinStandardHelpOptions = true)
final class PipelineBench implements Callable<Integer> {

  @Option(
      names = "--model",
      required = true,
      paramLabel = "FILE",
      description = "A GGUF file; `bench make-model` writes one.")
  private Path model = Path.of("");

  @Option(names = "--streams", defaultValue = "8", description = "Default ${DEFAULT-VALUE}.")
  private int streams;

  @Option(names = "--tokens", defaultValue = "64", description = "Of each; ${DEFAULT-VALUE}.")
  private int tokens;

  @Option(names = "--rounds", defaultValue = "3", description = "Default ${DEFAULT-VALUE}.")
  private int rounds;

  @Option(names = "--kv", defaultValue = "f16", description = "Default ${DEFAULT-VALUE}.")
  private String kv = "";

  @Option(names = "--wire", defaultValue = "f32", description = "Default ${DEFAULT-VALUE}.")
  private String wire = "";

  @Option(names = "--cores", split = ",", defaultValue = "0,1", description = "Two of them.")
  private int[] cores = {};

  @Option(names = "--json", description = "Print JSON.")
  private boolean asJson;

  @Override
  public Integer call() throws Exception {
    if (!Files.isRegularFile(model) || cores.length != 2) {
      throw new FlotillaException(
          FlotillaException.Code.INVALID,
          cores.length == 2 ? "no file " + model : "two cores are wanted",
          "Give --model FILE and --cores A,B.");
    }
    Map<String, Object> figures = new LinkedHashMap<>();
    figures.put("streams", streams);
    try (PinnedNodes pair = new PinnedNodes(List.of("" + cores[0], "" + cores[1]))) {
      figures.put("two_stages_a_core_each", measure(pair, 2));
      figures.put("one_stage_one_core", measure(pair, 1));
    }
    try (PinnedNodes both = new PinnedNodes(List.of(cores[0] + "," + cores[1]))) {
      figures.put("one_stage_both_cores", measure(both, 1));
    }
    if (asJson) {
      System.out.println(Json.MAPPER.writeValueAsString(figures));
    } else {
      System.out.printf("%d streams of %d tokens, median of %d%n", streams, tokens, rounds);
      figures.forEach(
          (name, value) -> {
            if (value instanceof Double rate) {
              System.out.printf("%-24s %7.1f tokens/s%n", name.replace('_', ' '), rate);
            }
          });
    }
    return 0;
  }

  private double measure(PinnedNodes nodes, int stages) throws Exception {
    nodes.deploy(model, stages, Map.of("stages", stages, "kv", kv, "wire", wire));
    double _ = round(nodes, 0);
    double[] rates = new double[rounds];
    for (int i = 0; i < rounds; i++) {
      rates[i] = round(nodes, i + 1);
    }
    Arrays.sort(rates);
    return rates[rounds / 2];
  }

  /** All streams at once; tokens a second of all together. */
  private double round(PinnedNodes nodes, int number) throws Exception {
    List<String> prompts = new ArrayList<>();
    for (int i = 0; i < streams; i++) {
      prompts.add("Stream " + i + " of round " + number + " says:");
    }
    return streams * tokens / nodes.seconds(prompts, tokens);
  }
}

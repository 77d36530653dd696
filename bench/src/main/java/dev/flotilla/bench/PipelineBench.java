package dev.flotilla.bench;

import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.Callable;
import java.util.stream.IntStream;
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

  private static final int PROMPT_MAX = 64;

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

  @Option(
      names = "--llama",
      description = "Folder of llama.cpp's llama-server and ggml-rpc-server.")
  private Optional<Path> llama = Optional.empty();

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
    List<String> coreEach = List.of("" + cores[0], "" + cores[1]);
    try (PinnedNodes pair = new PinnedNodes(coreEach)) {
      double ours = measure(pair, 2);
      figures.put("two_stages_a_core_each", ours);
      if (llama.isPresent()) {
        double theirs = measurePeer(llama.get(), coreEach);
        figures.put("llama_two_rpc_workers", theirs);
        figures.put("ratio", ours / theirs);
      }
      figures.put("one_stage_one_core", measure(pair, 1));
    }
    try (PinnedNodes both = new PinnedNodes(List.of(cores[0] + "," + cores[1]))) {
      figures.put("one_stage_both_cores", measure(both, 1));
    }
    if (asJson) {
      System.out.println(Json.MAPPER.writeValueAsString(figures));
    } else {
      System.out.printf(
          "%d streams of %d tokens, tokens/s, median of %d%n", streams, tokens, rounds);
      figures.forEach(
          (name, value) -> {
            if (value instanceof Double rate) {
              System.out.printf("%-24s %8.2f%n", name.replace('_', ' '), rate);
            }
          });
    }
    return 0;
  }

  private double measure(PinnedNodes nodes, int stages) throws Exception {
    nodes.deploy(model, stages, Map.of("stages", stages, "kv", kv, "wire", wire));
    return median(number -> nodes.seconds(prompts(number), tokens));
  }

  private double measurePeer(Path folder, List<String> coreEach) throws Exception {
    try (LlamaServer server =
        new LlamaServer(folder, model, coreEach, 1, streams, PROMPT_MAX + tokens)) {
      return median(
          number ->
              PinnedNodes.seconds(
                  prompts(number),
                  tokens,
                  prompt -> server.complete(prompt, tokens, 0).path("tokens_predicted").asInt()));
    }
  }

  /** One round: all streams at once. */
  private interface Round {
    double seconds(int number) throws Exception;
  }

  /** Tokens a second of all streams together, after a round that compiles. */
  private double median(Round round) throws Exception {
    double _ = round.seconds(0);
    List<Double> rates = new ArrayList<>();
    for (int i = 1; i <= rounds; i++) {
      rates.add(streams * tokens / round.seconds(i));
    }
    return InferenceBench.median(rates);
  }

  private List<String> prompts(int round) {
    return IntStream.range(0, streams)
        .mapToObj(i -> "Stream " + i + " of round " + round + " says:")
        .toList();
  }
}

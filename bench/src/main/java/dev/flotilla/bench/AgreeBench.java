package dev.flotilla.bench;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.model.GgufFile;
import dev.flotilla.model.KvFormat;
import dev.flotilla.model.LayerRange;
import dev.flotilla.model.LayerSlice;
import dev.flotilla.model.PackedSlice;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/**
 * How far our greedy text and llama.cpp's go together on the same file, and how far logits are
 * apart along llama.cpp's. It tells log-probabilities, not logits; so what is compared is logits
 * less the logarithm of the sum of all their exponentials.
 */
@Command(
    name = "agree",
    description = "Greedy text and logits beside llama.cpp's, on the same files.",
    mixinStandardHelpOptions = true)
final class AgreeBench implements Callable<Integer> {

  @Option(names = "--model", required = true, split = ",", description = "GGUF files.")
  private List<Path> models = List.of();

  @Option(names = "--llama", required = true, description = "Folder of llama.cpp's llama-server.")
  private Path llama = Path.of("");

  @Option(names = "--prompt", defaultValue = "64", description = "Tokens; ${DEFAULT-VALUE}.")
  private int promptTokens;

  @Option(names = "--tokens", defaultValue = "128", description = "Generated; ${DEFAULT-VALUE}.")
  private int tokens;

  @Option(
      names = "--likeliest",
      defaultValue = "1000",
      description = "How many logits are compared for each token; ${DEFAULT-VALUE}.")
  private int likeliest;

  @Option(names = "--seed", defaultValue = "1", description = "Of the prompt; ${DEFAULT-VALUE}.")
  private long seed;

  @Option(names = "--json", description = "Print JSON.")
  private boolean asJson;

  @Override
  public Integer call() throws Exception {
    List<Map<String, Object>> all = new ArrayList<>();
    for (Path model : models) {
      Map<String, Object> figures = compare(model);
      all.add(figures);
      if (!asJson) {
        System.out.printf(
            "%-24s equal for %d of %d tokens; the likeliest is the same at %d; logits within %.4f,"
                + " median of each token's largest difference %.4f, spread of logits %.2f%n",
            figures.values().toArray());
      }
    }
    if (asJson) {
      System.out.println(Json.MAPPER.writeValueAsString(all));
    }
    return 0;
  }

  private Map<String, Object> compare(Path model) throws IOException, InterruptedException {
    int positions = promptTokens + tokens + 1;
    int threads = Runtime.getRuntime().availableProcessors();
    try (GgufFile file = GgufFile.open(model)) {
      int words = file.header().modelConfig().vocabularySize();
      int[] prompt = new SplittableRandom(seed).ints(promptTokens, words / 10, words).toArray();
      JsonNode theirs;
      try (LlamaServer server = new LlamaServer(llama, model, List.of(), threads, 1, positions)) {
        theirs = server.complete(prompt, tokens, likeliest);
      }
      if (theirs.path("tokens_evaluated").asInt() != promptTokens
          || theirs.path("tokens").size() != tokens) {
        throw new FlotillaException(
            FlotillaException.Code.FAILED,
            String.format(
                "llama-server read %d tokens and generated %d, not %d and %d",
                theirs.path("tokens_evaluated").asInt(),
                theirs.path("tokens").size(),
                promptTokens,
                tokens),
            "Take another version of it");
      }
      LayerRange layers = new LayerRange(0, file.header().modelConfig().layers() - 1);
      try (LayerSlice slice = PackedSlice.load(file, layers, threads, KvFormat.F16, positions)) {
        return compare(model, slice, prompt, theirs);
      }
    }
  }

  private Map<String, Object> compare(Path model, LayerSlice slice, int[] prompt, JsonNode theirs) {
    int equal = -1;
    int same = 0;
    double spread = 0;
    List<Double> differences = new ArrayList<>();
    float[] logits = InferenceBench.promptLogits(slice, 1, prompt);
    for (int i = 0; i < tokens; i++) {
      int token = theirs.path("tokens").path(i).asInt();
      boolean agrees = InferenceBench.mostLikely(logits, 1)[0] == token;
      same += agrees ? 1 : 0;
      equal = !agrees && equal < 0 ? i : equal;
      double logSum = logSum(logits);
      double largest = 0;
      double lowest = Double.POSITIVE_INFINITY;
      double highest = Double.NEGATIVE_INFINITY;
      for (JsonNode each : theirs.path("completion_probabilities").path(i).path("top_logprobs")) {
        double ours = logits[each.path("id").asInt()] - logSum;
        double their = each.path("logprob").asDouble();
        largest = Math.max(largest, Math.abs(ours - their));
        lowest = Math.min(lowest, their);
        highest = Math.max(highest, their);
      }
      differences.add(largest);
      spread = Math.max(spread, highest - lowest);
      logits = InferenceBench.stepLogits(slice, new int[] {token}, prompt.length + i);
    }
    Map<String, Object> figures = new LinkedHashMap<>();
    figures.put("model", model.getFileName().toString());
    figures.put("equal_prefix", equal < 0 ? tokens : equal);
    figures.put("tokens", tokens);
    figures.put("same_likeliest", same);
    figures.put("largest_difference", differences.stream().mapToDouble(d -> d).max().orElse(0));
    figures.put("median_difference", InferenceBench.median(differences));
    figures.put("spread", spread);
    return figures;
  }

  private static double logSum(float[] logits) {
    double highest = Double.NEGATIVE_INFINITY;
    for (float logit : logits) {
      highest = Math.max(highest, logit);
    }
    double sum = 0;
    for (float logit : logits) {
      sum += Math.exp(logit - highest);
    }
    return highest + Math.log(sum);
  }
}

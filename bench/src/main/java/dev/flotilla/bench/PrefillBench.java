package dev.flotilla.bench;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.Json;
import dev.flotilla.model.LayerSlice;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/** How fast a prompt is read. */
@Command(
    name = "prefill",
    description = "Tokens/s of reading one prompt, beside llama.cpp.",
    mixinStandardHelpOptions = true)
final class PrefillBench extends InferenceBench {

  @Option(names = "--tokens", defaultValue = "512", description = "Default ${DEFAULT-VALUE}.")
  private int tokens;

  @Override
  String what() {
    return "prefill of " + tokens;
  }

  @Override
  int positions() {
    return tokens;
  }

  @Override
  double ours(LayerSlice slice) {
    long startNs = System.nanoTime();
    prompt(slice, 1, tokens);
    double seconds = (System.nanoTime() - startNs) / 1e9;
    return tokens / seconds;
  }

  @Override
  List<String> peer() {
    return new ArrayList<>(
        List.of("llama-bench", "-o", "json", "-fa", "1", "-n", "0", "-r", "1", "-p", "" + tokens));
  }

  @Override
  double peerFigure(String output) throws IOException {
    JsonNode runs = Json.MAPPER.readTree(output);
    return runs.path(0).path("avg_ts").asDouble();
  }
}

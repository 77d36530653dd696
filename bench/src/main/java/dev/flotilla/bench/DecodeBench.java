package dev.flotilla.bench;

import dev.flotilla.Json;
import dev.flotilla.model.LayerSlice;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/** How fast one stream generates. */
@Command(
    name = "decode",
    description = "Tokens/s of one stream, beside llama.cpp.",
    mixinStandardHelpOptions = true)
final class DecodeBench extends InferenceBench {

  @Option(names = "--tokens", defaultValue = "64", description = "Default ${DEFAULT-VALUE}.")
  private int tokens;

  @Override
  String what() {
    return "decode of one stream";
  }

  @Override
  int positions() {
    return tokens + 1;
  }

  @Override
  double ours(LayerSlice slice) {
    int[] next = prompt(slice, 1, 1);
    long startNs = System.nanoTime();
    for (int i = 0; i < tokens; i++) {
      next = step(slice, next, 1 + i);
    }
    double seconds = (System.nanoTime() - startNs) / 1e9;
    return tokens / seconds;
  }

  @Override
  List<String> peer() {
    return new ArrayList<>(
        List.of("llama-bench", "-o", "json", "-fa", "1", "-p", "0", "-r", "1", "-n", "" + tokens));
  }

  @Override
  double peerFigure(String output) throws IOException {
    return Json.MAPPER.readTree(output).path(0).path("avg_ts").asDouble();
  }
}

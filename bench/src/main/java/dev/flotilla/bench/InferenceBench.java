package dev.flotilla.bench;

import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.model.GgufFile;
import dev.flotilla.model.KvFormat;
import dev.flotilla.model.LayerRange;
import dev.flotilla.model.LayerSlice;
import dev.flotilla.model.PackedSlice;
import dev.flotilla.model.Rows;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.SplittableRandom;
import java.util.concurrent.Callable;
import java.util.stream.IntStream;
import picocli.CommandLine.Option;

/**
 * Tokens a second of a whole model on this machine, beside llama.cpp where its programs are given:
 * rounds of the one and the other in turns, so that what else the machine does meets both.
 */
abstract class InferenceBench implements Callable<Integer> {

  @Option(names = "--model", required = true, description = "A GGUF file; see make-model.")
  private Path model = Path.of("");

  @Option(names = "--threads", description = "Default: the machine's processors.")
  private int threads = Runtime.getRuntime().availableProcessors();

  @Option(names = "--rounds", defaultValue = "5", description = "Default ${DEFAULT-VALUE}.")
  private int rounds;

  @Option(
      names = "--llama",
      description = "Folder of llama.cpp's llama-bench and llama-batched-bench.")
  private Optional<Path> llama = Optional.empty();

  @Option(names = "--json", description = "Prints one JSON object.")
  private boolean json;

  /** What is measured, as the figures call it. */
  abstract String what();

  /** How many positions the cache must hold. */
  abstract int positions();

  /**
   * One round of ours.
   *
   * @return tokens a second
   */
  abstract double ours(LayerSlice slice);

  /** The program of llama.cpp that does the same, and its arguments. */
  abstract List<String> peer();

  /** The figure in what that program prints. */
  abstract double peerFigure(String output) throws IOException;

  @Override
  public Integer call() throws Exception {
    List<Double> ours = new ArrayList<>();
    List<Double> theirs = new ArrayList<>();
    double gigabytes;
    double loadSeconds;
    long startNs = System.nanoTime();
    try (GgufFile file = GgufFile.open(model);
        LayerSlice slice =
            PackedSlice.load(
                file,
                new LayerRange(0, file.header().modelConfig().layers() - 1),
                threads,
                KvFormat.F16,
                positions())) {
      loadSeconds = (System.nanoTime() - startNs) / 1e9;
      gigabytes = slice.weightBytes() / 1e9;
      for (int i = 0; i < 2; i++) {
        ours(slice); // compiles
      }
      for (int round = 0; round < rounds; round++) {
        ours.add(ours(slice));
        if (llama.isPresent()) {
          theirs.add(peer(llama.get()));
        }
      }
    }
    say(ours, theirs, gigabytes, loadSeconds);
    return 0;
  }

  private double peer(Path folder) throws IOException, InterruptedException {
    List<String> command = new ArrayList<>(peer());
    command.set(0, folder.resolve(command.getFirst()).toString());
    command.addAll(List.of("-m", model.toString(), "-t", "" + threads));
    Process process =
        new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.DISCARD).start();
    String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    if (process.waitFor() != 0) {
      throw new FlotillaException(
          FlotillaException.Code.FAILED,
          String.join(" ", command) + " ended with " + process.exitValue(),
          "Run it by hand to see why");
    }
    return peerFigure(output);
  }

  private void say(List<Double> ours, List<Double> theirs, double gigabytes, double loadSeconds) {
    Map<String, Object> figures = new LinkedHashMap<>();
    figures.put("what", what());
    figures.put("model", model.getFileName().toString());
    figures.put("threads", threads);
    figures.put("load_s", loadSeconds);
    figures.put("weights_gb", gigabytes);
    figures.put("tokens_per_s", median(ours));
    figures.put("rounds", ours);
    if (!theirs.isEmpty()) {
      figures.put("llama_tokens_per_s", median(theirs));
      figures.put("llama_rounds", theirs);
      figures.put("ratio", median(ours) / median(theirs));
    }
    if (json) {
      System.out.println(new String(Json.write(figures), StandardCharsets.UTF_8));
      return;
    }
    System.out.printf(
        "%s, %s, %d threads: %.1f tokens/s (%s)%n",
        what(), model.getFileName(), threads, median(ours), list(ours));
    System.out.printf("weights %.2f GB, loaded in %.1f s%n", gigabytes, loadSeconds);
    if (!theirs.isEmpty()) {
      System.out.printf(
          "llama.cpp: %.1f tokens/s (%s); ratio %.2f%n",
          median(theirs), list(theirs), median(ours) / median(theirs));
    }
  }

  private static String list(List<Double> values) {
    return String.join(", ", values.stream().map(v -> String.format("%.1f", v)).toList());
  }

  static double median(List<Double> values) {
    double[] sorted = values.stream().mapToDouble(Double::doubleValue).sorted().toArray();
    return sorted.length == 0
        ? Double.NaN
        : (sorted[(sorted.length - 1) / 2] + sorted[sorted.length / 2]) / 2;
  }

  /**
   * Reads a prompt of random tokens into each sequence, all in one step.
   *
   * @return each sequence's most likely next token
   */
  static int[] prompt(LayerSlice slice, int sequences, int length) {
    int[] tokens =
        new SplittableRandom(1)
            .ints((long) sequences * length, 0, slice.config().vocabularySize())
            .toArray();
    return mostLikely(promptLogits(slice, sequences, tokens), sequences);
  }

  /**
   * Reads the prompts of some sequences, equally long and one behind the other, all in one step.
   *
   * @return the logits behind each, sequences x words
   */
  static float[] promptLogits(LayerSlice slice, int sequences, int[] tokens) {
    int length = tokens.length / sequences;
    List<Rows.Run> runs = new ArrayList<>();
    for (int sequence = 0; sequence < sequences; sequence++) {
      for (int first = 0; first < length; first += Rows.CHUNK) {
        int count = Math.min(Rows.CHUNK, length - first);
        runs.add(new Rows.Run(blocks(slice, sequence, sequences), first, count, true));
      }
    }
    float[] hidden = slice.embed(tokens);
    slice.forward(hidden, new Rows(runs));
    int[] last = IntStream.range(0, sequences).map(s -> (s + 1) * length - 1).toArray();
    return slice.logits(hidden, last);
  }

  /** One token more for each sequence; returns each one's most likely next. */
  static int[] step(LayerSlice slice, int[] tokens, int position) {
    return mostLikely(stepLogits(slice, tokens, position), tokens.length);
  }

  /** One token more for each sequence; returns the logits behind it, sequences x words. */
  static float[] stepLogits(LayerSlice slice, int[] tokens, int position) {
    float[] hidden = slice.embed(tokens);
    slice.forward(
        hidden,
        new Rows(
            IntStream.range(0, tokens.length)
                .mapToObj(s -> new Rows.Run(blocks(slice, s, tokens.length), position, 1, false))
                .toList()));
    return slice.logits(hidden, IntStream.range(0, tokens.length).toArray());
  }

  /** An equal share of the cache for each. */
  private static int[] blocks(LayerSlice slice, int sequence, int sequences) {
    int share = slice.blocks() / sequences;
    return IntStream.range(sequence * share, (sequence + 1) * share).toArray();
  }

  static int[] mostLikely(float[] logits, int rows) {
    int width = logits.length / rows;
    int[] best = new int[rows];
    for (int row = 0; row < rows; row++) {
      for (int i = 1; i < width; i++) {
        if (logits[row * width + i] > logits[row * width + best[row]]) {
          best[row] = i;
        }
      }
    }
    return best;
  }
}

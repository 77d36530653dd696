package dev.flotilla.bench;

import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.model.GgufFile;
import dev.flotilla.model.KvFormat;
import dev.flotilla.model.LayerRange;
import dev.flotilla.model.LayerSlice;
import dev.flotilla.model.PackedSlice;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/**
 * How long it takes until a model is in memory: from its file, beside plain reading of that file;
 * and on two nodes, where the second one fetches the layers of its stage from the first, and the
 * next time has them on its own disk.
 */
@Command(
    name = "load",
    description = "Seconds until a model's layers are in memory, from disk and from a peer.",
    mixinStandardHelpOptions = true)
final class LoadBench implements Callable<Integer> {

  private static final int BUFFER = 1 << 20;

  @Option(names = "--model", required = true, description = "A GGUF file; see make-model.")
  private Path model = Path.of("");

  @Option(names = "--threads", description = "Default: the machine's processors.")
  private int threads = Runtime.getRuntime().availableProcessors();

  @Option(names = "--rounds", defaultValue = "3", description = "Default ${DEFAULT-VALUE}.")
  private int rounds;

  @Option(names = "--json", description = "Print JSON.")
  private boolean asJson;

  @Override
  public Integer call() throws Exception {
    if (!Files.isRegularFile(model)) {
      throw new FlotillaException(
          FlotillaException.Code.INVALID, "no file " + model, "Give --model FILE.");
    }
    if (rounds < 1) {
      throw new FlotillaException(
          FlotillaException.Code.INVALID, "no rounds", "Give --rounds 1 or more.");
    }
    double gigabytes = Files.size(model) / 1e9;
    Map<String, Double> figures = new LinkedHashMap<>();
    figures.put("file_gb", gigabytes);
    List<Double> reads = new ArrayList<>();
    List<Double> loads = new ArrayList<>();
    for (int round = 0; round <= rounds; round++) {
      double read = seconds(this::read);
      double load = seconds(this::load);
      if (round > 0) { // the first compiles, and brings the file into the page cache
        reads.add(read);
        loads.add(load);
      }
    }
    figures.put("plain_read_s", InferenceBench.median(reads));
    figures.put("load_s", InferenceBench.median(loads));
    figures.put("load_gb_per_s", gigabytes / InferenceBench.median(loads));
    try (PinnedNodes nodes = new PinnedNodes(List.of(cores(), cores()))) {
      figures.put("add_model_s", seconds(() -> nodes.add(model)));
      figures.put("first_start_two_stages_s", seconds(() -> start(nodes)));
      figures.put("then_on_first_node_gb", nodes.modelBytes(0) / 1e9);
      figures.put("then_on_second_node_gb", nodes.modelBytes(1) / 1e9);
      nodes.withdraw();
      figures.put("second_start_two_stages_s", seconds(() -> start(nodes)));
    }
    if (asJson) {
      System.out.println(Json.MAPPER.writeValueAsString(figures));
    } else {
      figures.forEach(
          (name, value) -> System.out.printf("%-26s %8.2f%n", name.replace('_', ' '), value));
    }
    return 0;
  }

  private String cores() {
    return "0-" + (Runtime.getRuntime().availableProcessors() - 1);
  }

  private static void start(PinnedNodes nodes) throws InterruptedException {
    nodes.deployAdded(2, Map.of("stages", 2));
  }

  private void read() throws IOException {
    byte[] buffer = new byte[BUFFER];
    try (InputStream in = Files.newInputStream(model)) {
      while (in.read(buffer) >= 0) {}
    }
  }

  private void load() throws IOException {
    try (GgufFile file = GgufFile.open(model);
        LayerSlice slice =
            PackedSlice.load(
                file,
                new LayerRange(0, file.header().modelConfig().layers() - 1),
                threads,
                KvFormat.F16,
                64)) {
      if (slice.weightBytes() == 0) {
        throw new IllegalStateException("nothing loaded");
      }
    }
  }

  /** What is timed. */
  private interface Step {
    void run() throws IOException, InterruptedException;
  }

  private static double seconds(Step step) throws IOException, InterruptedException {
    long startNs = System.nanoTime();
    step.run();
    return (System.nanoTime() - startNs) / 1e9;
  }
}

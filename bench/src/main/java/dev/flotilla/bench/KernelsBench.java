package dev.flotilla.bench;

import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.model.KernelGuard;
import dev.flotilla.model.LayerSpeeds;
import dev.flotilla.tensor.KvType;
import dev.flotilla.tensor.MachineLimits;
import dev.flotilla.tensor.WeightType;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.results.RunResult;
import org.openjdk.jmh.runner.Runner;
import org.openjdk.jmh.runner.RunnerException;
import org.openjdk.jmh.runner.options.OptionsBuilder;
import org.openjdk.jmh.runner.options.TimeValue;
import org.openjdk.jmh.runner.options.VerboseMode;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/**
 * How fast each weight type's products are, and attention over the KV cache, beside what the
 * machine can do: by JMH, each in a process of its own, so that none lives on what the compiler
 * knows of another. The build runs it as a guard.
 */
@Command(
    name = "kernels",
    description = {
      "Each kernel's rate beside the machine's limits.",
      "Fails if one is slower than it should be, five times in a row."
    },
    mixinStandardHelpOptions = true)
final class KernelsBench implements Callable<Integer> {

  /** A neighbour of this machine may take a figure's time. */
  private static final int TRIES = 5;

  private static final TimeValue ITERATION = TimeValue.milliseconds(200);
  private static final int WARM_UPS = 2;
  private static final int ITERATIONS = 3;

  @Option(names = "--threads", description = "Default: the machine's processors.")
  private int threads = Runtime.getRuntime().availableProcessors();

  @Option(names = "--type", split = ",", description = "Weight types. Default: all.")
  private List<WeightType> types = List.of(WeightType.values());

  @Option(
      names = "--rows",
      split = ",",
      description = "Of activations: 1, 4, 8 or 512, which is a prompt. Default: all.")
  private List<Integer> rows = LayerSpeeds.ROWS;

  @Option(names = "--json", description = "Print JSON.")
  private boolean asJson;

  @Override
  public Integer call() throws Exception {
    if (!LayerSpeeds.ROWS.containsAll(rows)) {
      throw new FlotillaException(
          FlotillaException.Code.INVALID,
          "there are no figures for rows " + rows,
          "Those that there are: " + LayerSpeeds.ROWS + ".");
    }
    MachineLimits limits = MachineLimits.measure(threads, ProductBenchmark.BYTES, System::nanoTime);
    if (!asJson) {
      System.out.printf(
          "%d threads: memory reads at %.1f GB/s, %.0f billion multiplications a second%n",
          threads, limits.bytesPerSecond() / 1e9, limits.multiplicationsPerSecond() / 1e9);
    }
    List<KernelGuard.Figure> figures = new ArrayList<>();
    for (WeightType type : types) {
      for (int count : rows) {
        figures.add(printed(figure(() -> product(type, count, limits))));
      }
    }
    for (KvType cache : List.of(KvType.F16, KvType.Q8_0)) {
      for (int count : List.of(1, LayerSpeeds.PROMPT)) {
        if (rows.contains(count)) {
          figures.add(printed(figure(() -> attention(cache, count, limits))));
        }
      }
    }
    if (asJson) {
      Map<String, Object> all = new LinkedHashMap<>();
      all.put("limits", limits);
      all.put("kernels", figures);
      System.out.println(Json.MAPPER.writeValueAsString(all));
    }
    return figures.stream().allMatch(KernelGuard.Figure::sound) ? 0 : 1;
  }

  private KernelGuard.Figure printed(KernelGuard.Figure figure) {
    if (!asJson) {
      System.out.println((figure.sound() ? "  " : "! ") + figure);
    }
    return figure;
  }

  private static KernelGuard.Figure figure(Callable<KernelGuard.Figure> measured) throws Exception {
    KernelGuard.Figure best = measured.call();
    for (int i = 1; i < TRIES && !best.sound(); i++) {
      KernelGuard.Figure again = measured.call();
      best = again.share() > best.share() ? again : best;
    }
    return best;
  }

  private KernelGuard.Figure product(WeightType type, int count, MachineLimits limits)
      throws RunnerException {
    double seconds = seconds(ProductBenchmark.class, type.name(), count);
    return KernelGuard.figure(type, count, seconds / ProductBenchmark.bytes(type), limits);
  }

  private KernelGuard.Figure attention(KvType cache, int count, MachineLimits limits)
      throws RunnerException {
    double seconds = seconds(AttentionBenchmark.class, cache.name(), count);
    return KernelGuard.attention(
        cache,
        count,
        AttentionBenchmark.bytesPerElement(cache),
        seconds / AttentionBenchmark.elements(count),
        limits);
  }

  /** The best iteration's. */
  private double seconds(Class<?> benchmark, String type, int count) throws RunnerException {
    RunResult result =
        new Runner(
                new OptionsBuilder()
                    .include(benchmark.getName())
                    .param("type", type)
                    .param("rows", String.valueOf(count))
                    .param("threads", String.valueOf(threads))
                    .mode(Mode.AverageTime)
                    .forks(1)
                    .warmupIterations(WARM_UPS)
                    .warmupTime(ITERATION)
                    .measurementIterations(ITERATIONS)
                    .measurementTime(ITERATION)
                    .verbosity(VerboseMode.SILENT)
                    .output("/dev/null")
                    .shouldFailOnError(true)
                    .build())
            .runSingle();
    return result.getPrimaryResult().getStatistics().getMin();
  }
}

package dev.flotilla.bench;

import dev.flotilla.Json;
import dev.flotilla.model.KernelGuard;
import dev.flotilla.model.LayerProbe;
import dev.flotilla.model.LayerSpeeds;
import dev.flotilla.tensor.MachineLimits;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/**
 * How fast each weight type's products are, beside what the machine can do. Fails when one is
 * slower than it should be.
 */
@Command(
    name = "kernels",
    description = "Each kernel's rate beside the machine's limits; fails if one is too slow.",
    mixinStandardHelpOptions = true)
final class KernelsBench implements Callable<Integer> {

  @Option(names = "--threads", description = "Default: the machine's processors.")
  private int threads = Runtime.getRuntime().availableProcessors();

  @Option(names = "--json", description = "Print JSON.")
  private boolean asJson;

  @Override
  public Integer call() throws Exception {
    MachineLimits limits = MachineLimits.measure(threads, System::nanoTime);
    LayerSpeeds speeds =
        new LayerProbe(threads, () -> true, System::nanoTime).measure().orElseThrow();
    List<KernelGuard.Figure> figures = KernelGuard.figures(speeds, limits);
    if (asJson) {
      Map<String, Object> all = new LinkedHashMap<>();
      all.put("limits", limits);
      all.put("kernels", figures);
      System.out.println(Json.MAPPER.writeValueAsString(all));
    } else {
      System.out.printf(
          "%d threads: memory reads at %.1f GB/s, %.0f billion multiplications a second%n",
          threads, limits.bytesPerSecond() / 1e9, limits.multiplicationsPerSecond() / 1e9);
      figures.forEach(figure -> System.out.println((figure.sound() ? "  " : "! ") + figure));
    }
    return figures.stream().allMatch(KernelGuard.Figure::sound) ? 0 : 1;
  }
}

package dev.flotilla.bench;

import dev.flotilla.FlotillaException;
import dev.flotilla.model.ModelConfig;
import dev.flotilla.model.RandomModel;
import dev.flotilla.tensor.WeightType;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Locale;
import java.util.concurrent.Callable;
import java.util.stream.Collectors;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/** Writes the model that inference is measured on: 1.1 billion random weights, a plain Llama. */
@Command(
    name = "make-model",
    description = "Writes a GGUF file of a Llama of 1.1 billion random weights.",
    mixinStandardHelpOptions = true)
final class MakeModel implements Callable<Integer> {

  private static final int LAYERS = 16;

  @Option(names = "--type", required = true, description = "f32, f16, bf16, q8_0, q4_0, q4_k ...")
  private String type = "";

  @Option(names = "--out", required = true, description = "Where the file goes.")
  private Path out = Path.of("");

  @Option(
      names = "--layers",
      defaultValue = "" + LAYERS,
      description = "Fewer for quick work; ${DEFAULT-VALUE}.")
  private int layers;

  @Option(names = "--seed", defaultValue = "1", description = "Default ${DEFAULT-VALUE}.")
  private long seed;

  @Override
  public Integer call() throws Exception {
    RandomModel.write(out, shape(layers), type(type), seed);
    System.out.printf("%s: %.2f GB%n", out, Files.size(out) / 1e9);
    return 0;
  }

  /** 2048 wide, 8192 in the feed-forward part, 32 heads over 8 of keys and values, 32,000 words. */
  static ModelConfig shape(int layers) {
    return new ModelConfig(32_000, 2048, layers, 32, 8, 64, 8192, 8192, 10_000f, 1e-5f, false);
  }

  static WeightType type(String name) {
    try {
      return WeightType.valueOf(name.toUpperCase(Locale.ROOT));
    } catch (IllegalArgumentException e) {
      throw new FlotillaException(
          FlotillaException.Code.INVALID,
          "no weight type " + name,
          "Take one of "
              + Arrays.stream(WeightType.values())
                  .map(t -> t.name().toLowerCase(Locale.ROOT))
                  .collect(Collectors.joining(", ")),
          e);
    }
  }
}

package dev.flotilla.app;

import dev.flotilla.model.GgufConverter;
import dev.flotilla.tensor.WeightType;
import java.nio.file.Path;
import java.util.Locale;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** Turns a Hugging Face folder into a GGUF file that llama.cpp loads too; needs no node. */
@Command(
    name = "convert",
    description = "Turn a Hugging Face folder into a GGUF file; needs no running node.",
    mixinStandardHelpOptions = true)
final class ConvertCommand implements Callable<Integer> {

  private enum Type {
    f32,
    f16,
    bf16,
    q8_0,
    q4_0
  }

  @Parameters(index = "0", paramLabel = "FOLDER", description = "With safetensors in it.")
  private Path folder = Path.of("");

  @Parameters(index = "1", paramLabel = "FILE", description = "The GGUF file to write.")
  private Path file = Path.of("");

  @Option(
      names = "--type",
      paramLabel = "TYPE",
      defaultValue = "q8_0",
      description = "Of the weights: f32, f16, bf16, q8_0 or q4_0 (default ${DEFAULT-VALUE}).")
  private Type type = Type.q8_0;

  @Override
  public Integer call() {
    Path source = folder.toAbsolutePath().normalize();
    GgufConverter.convert(
        source,
        file.toAbsolutePath(),
        String.valueOf(source.getFileName()),
        WeightType.valueOf(type.name().toUpperCase(Locale.ROOT)));
    System.out.println("wrote " + file);
    return 0;
  }
}

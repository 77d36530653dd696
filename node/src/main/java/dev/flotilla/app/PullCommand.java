package dev.flotilla.app;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.model.GgufSplit;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.Optional;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** Adds a model to the cluster. */
@Command(
    name = "pull",
    description = "Add a model: a GGUF file or a Hugging Face folder on this machine.",
    mixinStandardHelpOptions = true)
final class PullCommand extends ClientCommand {

  @Parameters(
      paramLabel = "SOURCE",
      description = "A .gguf file, any part of a split one, or a folder with safetensors.")
  private Path source = Path.of("");

  @Option(names = "--name", paramLabel = "NAME", description = "Its name (default: the file's).")
  private Optional<String> name = Optional.empty();

  private enum Type {
    q8_0,
    q4_0,
    bf16,
    f16,
    f32
  }

  @Option(
      names = "--quantize",
      paramLabel = "TYPE",
      description =
          "Store the weights as ${COMPLETION-CANDIDATES}"
              + " (default: q8_0 for a folder, as it is for a GGUF file).")
  private Optional<Type> quantize = Optional.empty();

  @Override
  public Integer call() {
    Path file = source.toAbsolutePath().normalize();
    if (!Files.exists(file)) {
      throw new FlotillaException(
          FlotillaException.Code.NOT_FOUND,
          "there is no " + file,
          "SOURCE is a GGUF file or a Hugging Face folder on the machine of the node.");
    }
    String model = name.orElseGet(() -> nameOf(file));
    Map<String, String> body = new HashMap<>(Map.of("name", model, "source", file.toString()));
    quantize.ifPresent(type -> body.put("quantize", type.name()));
    JsonNode added = client().post("/api/models", body);
    if (asJson) {
      return print(added);
    }
    System.out.println("added " + model + "; deploy it with: flotilla serve " + model);
    return 0;
  }

  private static String nameOf(Path file) {
    return GgufSplit.isPart(file)
        ? GgufSplit.nameOf(file)
        : String.valueOf(file.getFileName()).replaceFirst("\\.gguf$", "");
  }
}

package dev.flotilla.app;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import java.nio.file.Files;
import java.nio.file.Path;
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

  @Parameters(paramLabel = "SOURCE", description = "A .gguf file, or a folder with safetensors.")
  private Path source = Path.of("");

  @Option(names = "--name", paramLabel = "NAME", description = "Its name (default: the file's).")
  private Optional<String> name = Optional.empty();

  @Override
  public Integer call() {
    Path file = source.toAbsolutePath().normalize();
    if (!Files.exists(file)) {
      throw new FlotillaException(
          FlotillaException.Code.NOT_FOUND,
          "there is no " + file,
          "SOURCE is a GGUF file or a Hugging Face folder on the machine of the node.");
    }
    String model =
        name.orElseGet(() -> String.valueOf(file.getFileName()).replaceFirst("\\.gguf$", ""));
    JsonNode added = client().post("/api/models", Map.of("name", model, "source", file.toString()));
    if (asJson) {
      return print(added);
    }
    System.out.println("added " + model + "; deploy it with: flotilla serve " + model);
    return 0;
  }
}

package dev.flotilla.app;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.model.GgufSplit;
import java.nio.file.Files;
import java.nio.file.InvalidPathException;
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
    description = "Add a model: from a file or folder, an address, or the Hugging Face hub.",
    mixinStandardHelpOptions = true)
final class PullCommand extends ClientCommand {

  @Parameters(
      paramLabel = "SOURCE",
      description =
          "A .gguf file, any part of a split one, or a folder with safetensors, on the machine of"
              + " the node; the http(s) address of a .gguf file; or OWNER/NAME[:VARIANT][@REVISION]"
              + " on the Hugging Face hub (HF_TOKEN and HF_ENDPOINT are the node's).")
  private String source = "";

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
    String named = resolved(source);
    String model = name.orElseGet(() -> nameOf(named));
    Map<String, String> body = new HashMap<>(Map.of("name", model, "source", named));
    quantize.ifPresent(type -> body.put("quantize", type.name()));
    JsonNode added;
    try (PullProgress progress = PullProgress.start()) {
      client().stream("/api/models", body, progress::take);
      added = progress.result();
    }
    if (asJson) {
      return print(added);
    }
    System.out.println("added " + model + "; deploy it with: flotilla serve " + model);
    return 0;
  }

  /** A path as the node needs it, or what is none as it is. */
  private static String resolved(String source) {
    boolean address = source.startsWith("http://") || source.startsWith("https://");
    if (address || source.startsWith("hf:")) {
      return source;
    }
    try {
      Path file = Path.of(source).toAbsolutePath().normalize();
      if (Files.exists(file)) {
        return file.toString();
      }
    } catch (InvalidPathException e) {
      // Said below.
    }
    if (HuggingFaceHub.isId(source)) {
      return source;
    }
    throw new FlotillaException(
        FlotillaException.Code.NOT_FOUND,
        "there is no " + source,
        "SOURCE is a GGUF file or a Hugging Face folder on the machine of the node, an http(s)"
            + " address, or OWNER/NAME on the Hugging Face hub.");
  }

  private static String nameOf(String source) {
    if (!source.startsWith("/") && HuggingFaceHub.isId(source)) {
      return HuggingFaceHub.nameOf(source);
    }
    Path file = Path.of(source.replaceFirst("[?#].*$", ""));
    return GgufSplit.isPart(file)
        ? GgufSplit.nameOf(file)
        : String.valueOf(file.getFileName()).replaceFirst("\\.gguf$", "");
  }
}

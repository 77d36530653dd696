package dev.flotilla.app;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.dataformat.yaml.YAMLMapper;
import dev.flotilla.FlotillaException;
import dev.flotilla.client.Client;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Locale;
import java.util.Map;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.IDefaultValueProvider;
import picocli.CommandLine.Model.ArgSpec;
import picocli.CommandLine.Model.OptionSpec;

/**
 * Where an option's value comes from when no flag gives it: {@code FLOTILLA_NAME} in the
 * environment, then {@code name} in the YAML file that {@code FLOTILLA_CONFIG} names ({@code
 * ~/.flotilla/config.yaml} by default).
 */
final class Defaults implements IDefaultValueProvider {

  private final Map<String, String> environment;
  private final JsonNode file;

  Defaults(Map<String, String> environment) {
    this.environment = environment;
    this.file = readFile(environment);
  }

  @Override
  public @Nullable String defaultValue(ArgSpec argument) {
    if (!(argument instanceof OptionSpec option) || option.arity().max() == 0) {
      return null;
    }
    String name = option.longestName().replaceFirst("^-+", "");
    if (name.equals("name") && !option.command().name().equals("up")) {
      // FLOTILLA_NAME is the node's; a model is named where it is added.
      return null;
    }
    String variable = "FLOTILLA_" + name.replace('-', '_').toUpperCase(Locale.ROOT);
    String fromEnvironment = environment.get(variable);
    if (fromEnvironment != null) {
      return fromEnvironment;
    }
    JsonNode fromFile = file.get(name.replace('-', '_'));
    return fromFile == null ? null : fromFile.asText();
  }

  private static JsonNode readFile(Map<String, String> environment) {
    YAMLMapper yaml = new YAMLMapper();
    String named = environment.get("FLOTILLA_CONFIG");
    Path path = named == null ? Client.defaultFolder().resolve("config.yaml") : Path.of(named);
    if (!Files.exists(path)) {
      if (named != null) {
        throw new FlotillaException(
            FlotillaException.Code.INVALID,
            "FLOTILLA_CONFIG names " + path + ", which does not exist",
            "Create it, or unset the variable.");
      }
      return yaml.createObjectNode();
    }
    try {
      JsonNode content = yaml.readTree(path.toFile());
      return content == null || content.isMissingNode() ? yaml.createObjectNode() : content;
    } catch (IOException e) {
      throw new FlotillaException(
          FlotillaException.Code.INVALID,
          path + " is not a YAML file: " + e.getMessage(),
          "Mend it; each line is an option's name, a colon and its value.",
          e);
    }
  }
}

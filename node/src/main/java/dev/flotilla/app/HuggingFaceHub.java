package dev.flotilla.app;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.model.GgufSplit;
import java.io.IOException;
import java.net.URI;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Names on the Hugging Face hub, or on another server with its interface: {@code
 * OWNER/NAME[:VARIANT][@REVISION]}, where a variant is a quantization that the names of GGUF files
 * tell, such as {@code q4_k_m}.
 */
final class HuggingFaceHub {

  /** Where the hub is unless {@code HF_ENDPOINT} says otherwise. */
  static final URI ENDPOINT = URI.create("https://huggingface.co");

  private static final Pattern ID =
      Pattern.compile(
          "(?:hf:)?([A-Za-z0-9][\\w.-]{0,95}/[A-Za-z0-9][\\w.-]{0,95})(?::([\\w.-]{1,64}))?"
              + "(?:@([\\w.-]{1,64}))?");
  private static final Pattern PATH = Pattern.compile("[\\w][\\w.+-]*(/[\\w][\\w.+-]*)*");
  private static final Set<String> BESIDE =
      Set.of(
          "config.json",
          "generation_config.json",
          "tokenizer.json",
          "tokenizer_config.json",
          "special_tokens_map.json",
          "chat_template.jinja",
          "chat_template.json",
          "model.safetensors.index.json",
          "modules.json",
          "1_Pooling/config.json");
  private static final int LIST_BYTES = 8 << 20;
  private static final int PAGES = 20;

  private final URI endpoint;
  private final Optional<String> token;
  private final Download download;

  HuggingFaceHub(URI endpoint, Optional<String> token, Download download) {
    this.endpoint = endpoint;
    this.token = token;
    this.download = download;
  }

  /** Whether a source is written as a name on the hub. */
  static boolean isId(String source) {
    return ID.matcher(source).matches() && !source.contains("..");
  }

  /** What a model from there is called where nobody says. */
  static String nameOf(String id) {
    Matcher matcher = matched(id);
    String repository = matcher.group(1);
    String name = repository.substring(repository.indexOf('/') + 1).replaceFirst("(?i)-gguf$", "");
    return matcher.group(2) == null ? name : name + "-" + matcher.group(2);
  }

  private static Matcher matched(String id) {
    Matcher matcher = ID.matcher(id);
    if (!matcher.matches()) {
      throw new IllegalArgumentException(id + " is no name on the hub");
    }
    return matcher;
  }

  private record Listed(String path, Optional<String> sha256) {}

  /** The files of a model that are to be fetched: of a folder, or the parts of a GGUF. */
  List<Download.Wanted> files(String id) {
    Matcher matcher = matched(id);
    String repository = matcher.group(1);
    String revision = Optional.ofNullable(matcher.group(3)).orElse("main");
    List<Listed> all = list(repository, revision);
    return choose(id, Optional.ofNullable(matcher.group(2)), all).stream()
        .map(
            listed ->
                new Download.Wanted(
                    at("/" + repository + "/resolve/" + revision + "/" + listed.path()),
                    listed.path(),
                    listed.sha256(),
                    token))
        .toList();
  }

  private List<Listed> list(String repository, String revision) {
    List<Listed> files = new ArrayList<>();
    Optional<URI> page =
        Optional.of(at("/api/models/" + repository + "/tree/" + revision + "?recursive=true"));
    for (int number = 0; page.isPresent(); number++) {
      if (number == PAGES) {
        throw new FlotillaException(
            Code.INVALID, repository + " has too many files", "Download it, and name the folder.");
      }
      Download.Page read = download.page(page.get(), token, LIST_BYTES);
      try {
        for (JsonNode entry : Json.MAPPER.readTree(read.body())) {
          String path = entry.path("path").asText();
          if (entry.path("type").asText().equals("file") && PATH.matcher(path).matches()) {
            files.add(
                new Listed(
                    path,
                    Optional.of(entry.path("lfs").path("oid").asText())
                        .filter(oid -> oid.matches("[0-9a-f]{64}"))));
          }
        }
      } catch (IOException e) {
        throw new FlotillaException(
            Code.UNAVAILABLE, page.get() + " did not answer with a list of files", "", e);
      }
      page = read.next();
    }
    return files;
  }

  private static List<Listed> choose(String id, Optional<String> variant, List<Listed> all) {
    if (variant.isEmpty()) {
      List<Listed> weights =
          all.stream()
              .filter(f -> f.path().endsWith(".safetensors") && !f.path().contains("/"))
              .filter(f -> !f.path().startsWith("consolidated"))
              .toList();
      if (!weights.isEmpty()) {
        List<Listed> folder =
            new ArrayList<>(all.stream().filter(f -> BESIDE.contains(f.path())).toList());
        folder.addAll(weights);
        return folder;
      }
    }
    List<Listed> ggufs =
        all.stream()
            .filter(f -> f.path().endsWith(".gguf") && !f.path().contains("mmproj"))
            .filter(f -> variant.isEmpty() || isVariant(f.path(), variant.get()))
            .toList();
    Set<String> models = new TreeSet<>();
    ggufs.forEach(f -> models.add(model(f.path())));
    if (models.size() == 1) {
      return ggufs;
    }
    Set<String> others = new TreeSet<>();
    all.stream().filter(f -> f.path().endsWith(".gguf")).forEach(f -> others.add(model(f.path())));
    throw new FlotillaException(
        others.isEmpty() ? Code.NOT_FOUND : Code.INVALID,
        id
            + (others.isEmpty()
                ? " has neither safetensors nor GGUF files"
                : " does not name one of its GGUF files: " + String.join(", ", others)),
        others.isEmpty()
            ? "Name another."
            : "Add what tells one from the others, as in NAME:q8_0.");
  }

  /** The model that a file is, or is a part of. */
  private static String model(String path) {
    Path file = Path.of(path);
    return GgufSplit.isPart(file) ? GgufSplit.nameOf(file) : path.replaceFirst("\\.gguf$", "");
  }

  private static boolean isVariant(String path, String variant) {
    return Pattern.compile(
            "(^|[^a-z0-9])" + Pattern.quote(variant.toLowerCase(Locale.ROOT)) + "([^a-z0-9_]|$)")
        .matcher(path.toLowerCase(Locale.ROOT))
        .find();
  }

  private URI at(String path) {
    return URI.create(endpoint.toString().replaceFirst("/+$", "") + path);
  }
}

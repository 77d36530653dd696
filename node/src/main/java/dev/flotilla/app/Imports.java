package dev.flotilla.app;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.cluster.DiskSpace;
import dev.flotilla.gateway.ModelImports;
import dev.flotilla.model.GgufConverter;
import dev.flotilla.model.GgufSplit;
import dev.flotilla.serve.ModelStore;
import dev.flotilla.tensor.WeightType;
import java.io.IOException;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.nio.file.DirectoryStream;
import java.nio.file.FileVisitResult;
import java.nio.file.Files;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.nio.file.SimpleFileVisitor;
import java.nio.file.attribute.BasicFileAttributes;
import java.nio.file.attribute.FileTime;
import java.time.Duration;
import java.time.InstantSource;
import java.util.HexFormat;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.stream.IntStream;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Adds models from where they are: a path on this node, an http(s) address of a GGUF file, or a
 * name on the Hugging Face hub. What is fetched waits in {@code data/downloads/} until the model is
 * added; what a break left there is gone on with by the same source, for a week.
 */
final class Imports implements ModelImports {

  private static final Logger log = LoggerFactory.getLogger(Imports.class);
  private static final String CONVERTED = "import-";
  private static final Duration KEPT = Duration.ofDays(7);

  private final Path data;
  private final String node;
  private final ModelStore models;
  private final DiskSpace disk;
  private final Download download;
  private final HuggingFaceHub hub;
  private final Set<Path> busy = ConcurrentHashMap.newKeySet();

  /**
   * @param dataFolder of the node
   * @param node its name, for errors
   */
  Imports(
      Path dataFolder,
      String node,
      ModelStore models,
      DiskSpace disk,
      Download download,
      HuggingFaceHub hub) {
    this.data = dataFolder.resolve("data");
    this.node = node;
    this.models = models;
    this.disk = disk;
    this.download = download;
    this.hub = hub;
  }

  @Override
  public void add(String name, String source, Optional<String> quantize, Progress progress) {
    Optional<WeightType> type = quantize.map(Imports::weightType);
    if (source.startsWith("http://") || source.startsWith("https://")) {
      fetched(name, source, type, parts(address(source)), progress);
    } else if (HuggingFaceHub.isId(source)) {
      progress.at("listing " + source, 0, 0);
      fetched(name, source, type, hub.files(source), progress);
    } else if (source.matches("[a-z][a-z0-9+]+:.*")) {
      throw new FlotillaException(
          Code.INVALID,
          source + " is not a source of models",
          "Name a path on node " + node + ", an http(s) address, or a name on the hub.");
    } else {
      progress.at("reading " + source, 0, 0);
      addLocal(name, path(source), type);
    }
  }

  @Override
  public void remove(String name) {
    models.remove(name);
  }

  private void fetched(
      String name,
      String source,
      Optional<WeightType> type,
      List<Download.Wanted> files,
      Progress progress) {
    Path folder = data.resolve("downloads").resolve(digest(source));
    if (!busy.add(folder)) {
      throw new FlotillaException(
          Code.CONFLICT, source + " is being added already", "Wait for it to end.");
    }
    try {
      Path model = folder;
      for (Download.Wanted wanted : files) {
        Path file =
            download.file(
                wanted, folder, () -> disk.checkRoom("downloading " + source), progress::at);
        model = wanted.name().endsWith(".gguf") ? file : model;
      }
      progress.at("adding " + name, 0, 0);
      addLocal(name, model, type);
      deleteFolder(folder);
    } catch (IOException e) {
      throw new FlotillaException(
          Code.STORAGE, "cannot write to " + folder + ": " + e.getMessage(), "Make room.", e);
    } finally {
      busy.remove(folder);
    }
  }

  private static URI address(String source) {
    try {
      return URI.create(source);
    } catch (IllegalArgumentException e) {
      throw new FlotillaException(
          Code.INVALID, source + " is not an address", "It looks like https://HOST/FILE.gguf.", e);
    }
  }

  /** A GGUF file's address, or those of all parts if it is that of one. */
  private static List<Download.Wanted> parts(URI address) {
    Path path = path(String.valueOf(address.getPath()));
    String name = String.valueOf(path.getFileName());
    if (!name.endsWith(".gguf")) {
      throw new FlotillaException(
          Code.INVALID,
          address + " is not the address of a GGUF file",
          "Name a .gguf file, or OWNER/NAME on the hub for safetensors.");
    }
    if (!GgufSplit.isPart(path)) {
      return List.of(new Download.Wanted(address, name, Optional.empty(), Optional.empty()));
    }
    return IntStream.rangeClosed(1, GgufSplit.countOf(path))
        .mapToObj(number -> GgufSplit.sibling(path, number))
        .map(
            part ->
                new Download.Wanted(
                    URI.create(address.toString().replace(name, part)),
                    part,
                    Optional.empty(),
                    Optional.empty()))
        .toList();
  }

  private static Path path(String source) {
    try {
      return Path.of(source);
    } catch (InvalidPathException e) {
      throw new FlotillaException(
          Code.INVALID, "the source is not a path: " + e.getReason(), "Name a file or folder.", e);
    }
  }

  /** A GGUF file as it is unless a type is given; a Hugging Face folder by way of Q8_0. */
  void addLocal(String name, Path source, Optional<WeightType> type) {
    if (!source.isAbsolute() || !Files.exists(source)) {
      throw new FlotillaException(
          Code.NOT_FOUND,
          "there is no " + source + " on node " + node,
          "Name a GGUF file or a Hugging Face folder by its whole path on that node.");
    }
    boolean folder = Files.isDirectory(source);
    if (!folder && type.isEmpty() && !GgufSplit.isPart(source)) {
      var _ = models.add(name, source);
      return;
    }
    try {
      Path converted = Files.createTempFile(data, CONVERTED, ".gguf");
      Path joined = converted.resolveSibling(converted.getFileName() + ".joined");
      try {
        if (folder) {
          GgufConverter.convert(source, converted, name, type.orElse(WeightType.Q8_0));
        } else if (type.isEmpty()) {
          GgufSplit.join(source, converted);
        } else if (GgufSplit.isPart(source)) {
          GgufSplit.join(source, joined);
          GgufConverter.requantize(joined, converted, type.get());
        } else {
          GgufConverter.requantize(source, converted, type.get());
        }
        var _ = models.add(name, converted);
      } finally {
        Files.deleteIfExists(joined);
        Files.deleteIfExists(converted);
      }
    } catch (IOException e) {
      throw new FlotillaException(
          Code.STORAGE,
          "cannot convert " + source + ": " + e.getMessage(),
          "Make room in " + data + ", then try again.",
          e);
    }
  }

  private static WeightType weightType(String name) {
    for (WeightType type : GgufConverter.TYPES) {
      if (type.name().equalsIgnoreCase(name)) {
        return type;
      }
    }
    throw new FlotillaException(
        Code.INVALID,
        "quantize is \"" + name + "\"",
        "Give one of " + GgufConverter.TYPES + " in small letters.");
  }

  /** Deletes what a kill left of conversions, and downloads that nobody went on with. */
  void tidy(InstantSource clock) {
    try (DirectoryStream<Path> left = Files.newDirectoryStream(data, CONVERTED + "*")) {
      for (Path file : left) {
        Files.delete(file);
      }
      Path downloads = data.resolve("downloads");
      if (!Files.isDirectory(downloads)) {
        return;
      }
      FileTime oldest = FileTime.from(clock.instant().minus(KEPT));
      try (DirectoryStream<Path> folders = Files.newDirectoryStream(downloads)) {
        for (Path folder : folders) {
          if (lastWritten(folder).compareTo(oldest) < 0) {
            deleteFolder(folder);
          }
        }
      }
    } catch (IOException e) {
      log.warn("cannot tidy {}: {}", data, e.toString());
    }
  }

  private static FileTime lastWritten(Path folder) throws IOException {
    FileTime last = Files.getLastModifiedTime(folder);
    try (DirectoryStream<Path> files = Files.newDirectoryStream(folder)) {
      for (Path file : files) {
        FileTime time = Files.getLastModifiedTime(file);
        last = time.compareTo(last) > 0 ? time : last;
      }
    }
    return last;
  }

  private static void deleteFolder(Path folder) throws IOException {
    Files.walkFileTree(
        folder,
        new SimpleFileVisitor<>() {
          @Override
          public FileVisitResult visitFile(Path file, BasicFileAttributes attributes)
              throws IOException {
            Files.delete(file);
            return FileVisitResult.CONTINUE;
          }

          @Override
          public FileVisitResult postVisitDirectory(
              Path each, @org.jspecify.annotations.Nullable IOException e) throws IOException {
            Files.delete(each);
            return FileVisitResult.CONTINUE;
          }
        });
  }

  private static String digest(String source) {
    return HexFormat.of()
        .formatHex(Download.sha256().digest(source.getBytes(StandardCharsets.UTF_8)))
        .substring(0, 32);
  }
}

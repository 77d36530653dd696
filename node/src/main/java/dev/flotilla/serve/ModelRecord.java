package dev.flotilla.serve;

import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.cluster.Registry;
import dev.flotilla.model.KvFormat;
import dev.flotilla.model.ModelConfig;
import dev.flotilla.model.PackedSlice;
import dev.flotilla.plan.Footprint;
import java.util.List;
import java.util.Optional;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;

/**
 * A model that the cluster has (registry kind {@code model}).
 *
 * @param digest SHA-256 of the GGUF file, in hexadecimal
 * @param manifestDigest SHA-256 of its {@link Manifest} as JSON
 * @param bytes of the file
 * @param layerBytes of the largest layer's tensors
 * @param embeddingBytes of the embedding table
 * @param headBytes of the output matrix and the last norm
 * @param streams what a step reads of them; records of earlier versions do not have it
 * @param holders nodes that have the whole file, rising
 */
record ModelRecord(
    String name,
    String digest,
    String manifestDigest,
    long bytes,
    long createdAtMs,
    ModelConfig config,
    long layerBytes,
    long embeddingBytes,
    long headBytes,
    Footprint.@Nullable Streams streams,
    List<String> holders) {

  static final String KIND = "model";

  private static final Pattern NAME = Pattern.compile("[A-Za-z0-9._-]{1,128}");
  private static final int MIN_POSITIONS = 4096;
  private static final int MAX_POSITIONS = 16_384;

  /** Rejects names that are no plain file names. */
  static String checkedName(String name) {
    if (!NAME.matcher(name).matches() || name.contains("..") || name.equals(".")) {
      throw new FlotillaException(
          FlotillaException.Code.INVALID,
          "not a model name: " + printable(name),
          "Use 1 to 128 letters, digits, dots, dashes and underscores, without two dots in a row.");
    }
    return name;
  }

  private static String printable(String name) {
    String cut = name.length() > 60 ? name.substring(0, 60) + "…" : name;
    return cut.replaceAll("\\p{Cntrl}", "?");
  }

  static Registry.Key key(String name) {
    return new Registry.Key(KIND, name);
  }

  static Optional<ModelRecord> of(Registry registry, String name) {
    return registry.get(key(name)).map(ModelRecord::read);
  }

  static ModelRecord existing(Registry registry, String name) {
    return of(registry, name)
        .orElseThrow(
            () ->
                new FlotillaException(
                    FlotillaException.Code.NOT_FOUND,
                    "no model " + printable(name),
                    "List the models that there are, or add it."));
  }

  static List<ModelRecord> all(Registry registry) {
    return registry.list(KIND).stream().map(ModelRecord::read).toList();
  }

  static ModelRecord read(Registry.Entry entry) {
    return Json.read(entry.value(), ModelRecord.class);
  }

  ModelRecord withHolders(List<String> nodes) {
    return new ModelRecord(
        name,
        digest,
        manifestDigest,
        bytes,
        createdAtMs,
        config,
        layerBytes,
        embeddingBytes,
        headBytes,
        streams,
        nodes.stream().sorted().distinct().toList());
  }

  /** Positions that a replica's KV cache holds: room for four full contexts, within bounds. */
  int cachePositions() {
    return Math.clamp(4L * config.contextLength(), MIN_POSITIONS, MAX_POSITIONS);
  }

  /** Tokens that one sequence may have, prompt included. */
  int maxLength() {
    return Math.min(config.contextLength(), cachePositions());
  }

  Footprint footprint(KvFormat kv) {
    long kvBytes = PackedSlice.cacheBytesPerPosition(config, kv, 1) * cachePositions();
    Footprint footprint = new Footprint(config, layerBytes, embeddingBytes, headBytes, kvBytes);
    return streams == null ? footprint : footprint.with(streams);
  }
}

package dev.flotilla.data.search;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import java.util.Collections;
import java.util.Locale;
import java.util.Map;
import java.util.TreeMap;

/**
 * How an index keeps its documents. Shards and vectors stand from its making; fields are added as
 * documents bring them.
 *
 * <p>As JSON {@code {"shards","replicas","refresh_ms","analyzer","fields":{NAME:{"type",
 * "analyzer"}},"vector":{"dimensions","similarity","quantization"}}}; all may be left out.
 *
 * @param shards parts by hash of the document's id, 1 to 64
 * @param replicas nodes that search each shard, 1 to 5; fewer where there are fewer nodes
 * @param refreshMs after how long at most a replica looks for changes and shows them, 20 to 60,000
 * @param analyzer of the documents' text: {@code standard}, {@code english}, {@code chinese},
 *     {@code cjk} (any of Chinese, Japanese, Korean, by pairs), {@code whitespace}
 * @param fields by name
 */
public record IndexSettings(
    int shards,
    int replicas,
    int refreshMs,
    String analyzer,
    Map<String, IndexField> fields,
    Vectors vectors) {

  /** What most want: two shards, each on two nodes, standard analysis. */
  public static final IndexSettings DEFAULTS =
      new IndexSettings(2, 2, 500, "standard", Map.of(), Vectors.DEFAULTS);

  static final int SHARDS_MAX = 64;
  static final int REPLICAS_MAX = 5;
  static final int FIELDS_MAX = 1000;
  static final int DIMENSIONS_MAX = 4096;

  /**
   * Vectors of an index.
   *
   * @param dimensions 0 until the first vector comes, at most 4,096
   */
  public record Vectors(int dimensions, Similarity similarity, Quantization quantization) {

    /** Cosine, not quantised. */
    public static final Vectors DEFAULTS = new Vectors(0, Similarity.COSINE, Quantization.FLOAT32);
  }

  /**
   * What makes two vectors near. Scores: cosine (1 + c) / 2; dot 1 + d, and 1 / (1 - d) below zero;
   * euclidean 1 / (1 + d²).
   */
  public enum Similarity {
    COSINE,
    /** The inner product, of vectors of any length. */
    DOT,
    EUCLIDEAN
  }

  /**
   * How vectors are compared in the search graph; the best are compared again in full precision.
   */
  public enum Quantization {
    FLOAT32,
    INT8,
    INT4
  }

  /** Checks the bounds and copies the fields, in order of name. */
  public IndexSettings {
    within("shards", shards, 1, SHARDS_MAX);
    within("replicas", replicas, 1, REPLICAS_MAX);
    within("refresh_ms", refreshMs, 20, 60_000);
    SearchAnalyzers.check(analyzer, "analyzer");
    within("vector.dimensions", vectors.dimensions, 0, DIMENSIONS_MAX);
    if (fields.size() > FIELDS_MAX) {
      throw invalid("an index has at most " + FIELDS_MAX + " fields");
    }
    for (var field : fields.entrySet()) {
      IndexSchema.checkFieldName(field.getKey());
      if (!field.getValue().analyzer().isEmpty()) {
        SearchAnalyzers.check(field.getValue().analyzer(), "fields." + field.getKey());
      }
    }
    fields = Collections.unmodifiableMap(new TreeMap<>(fields));
  }

  private static void within(String name, int value, int least, int most) {
    if (value < least || value > most) {
      throw invalid(name + " must be from " + least + " to " + most + ", not " + value);
    }
  }

  private static FlotillaException invalid(String message) {
    return new FlotillaException(Code.INVALID, message, "");
  }

  /** The same with these fields too. */
  public IndexSettings withFields(Map<String, IndexField> more) {
    Map<String, IndexField> all = new TreeMap<>(fields);
    all.putAll(more);
    return new IndexSettings(shards, replicas, refreshMs, analyzer, all, vectors);
  }

  /** The same with vectors of this kind. */
  public IndexSettings withVectors(Vectors other) {
    return new IndexSettings(shards, replicas, refreshMs, analyzer, fields, other);
  }

  /** The same with another analyzer of the text. */
  public IndexSettings withAnalyzer(String other) {
    return new IndexSettings(shards, replicas, refreshMs, other, fields, vectors);
  }

  /** The same with so many shards, each on so many nodes. */
  public IndexSettings withShards(int shards, int replicas) {
    return new IndexSettings(shards, replicas, refreshMs, analyzer, fields, vectors);
  }

  /** The same that shows changes after this time. */
  public IndexSettings withRefreshMs(int refreshMs) {
    return new IndexSettings(shards, replicas, refreshMs, analyzer, fields, vectors);
  }

  /** In the form above. */
  public ObjectNode toJson() {
    ObjectNode json = Json.MAPPER.createObjectNode();
    json.put("shards", shards).put("replicas", replicas).put("refresh_ms", refreshMs);
    json.put("analyzer", analyzer);
    ObjectNode all = json.putObject("fields");
    fields.forEach(
        (name, field) -> {
          ObjectNode one = all.putObject(name).put("type", lower(field.type()));
          if (!field.analyzer().isEmpty()) {
            one.put("analyzer", field.analyzer());
          }
        });
    json.putObject("vector")
        .put("dimensions", vectors.dimensions)
        .put("similarity", lower(vectors.similarity))
        .put("quantization", lower(vectors.quantization));
    return json;
  }

  /**
   * The inverse.
   *
   * @throws FlotillaException {@code INVALID} naming what is wrong
   */
  public static IndexSettings fromJson(JsonNode json) {
    SearchJson at = SearchJson.of(json, "");
    at.only("shards", "replicas", "refresh_ms", "analyzer", "fields", "vector");
    Map<String, IndexField> fields = new TreeMap<>();
    at.object("fields")
        .ifPresent(
            all ->
                all.names()
                    .forEach(
                        name -> {
                          SearchJson one = all.object(name).orElseThrow();
                          one.only("type", "analyzer");
                          fields.put(
                              name,
                              new IndexField(
                                  one.choice("type", IndexField.Type.class)
                                      .orElseThrow(() -> one.wrong("type", "is required")),
                                  one.text("analyzer").orElse("")));
                        }));
    Vectors vectors =
        at.object("vector")
            .map(
                vector -> {
                  vector.only("dimensions", "similarity", "quantization");
                  return new Vectors(
                      vector.integer("dimensions", 0, 0, DIMENSIONS_MAX),
                      vector.choice("similarity", Similarity.class).orElse(Similarity.COSINE),
                      vector
                          .choice("quantization", Quantization.class)
                          .orElse(Quantization.FLOAT32));
                })
            .orElse(Vectors.DEFAULTS);
    return new IndexSettings(
        at.integer("shards", DEFAULTS.shards, 1, SHARDS_MAX),
        at.integer("replicas", DEFAULTS.replicas, 1, REPLICAS_MAX),
        at.integer("refresh_ms", DEFAULTS.refreshMs, 20, 60_000),
        at.text("analyzer").orElse(DEFAULTS.analyzer),
        fields,
        vectors);
  }

  private static String lower(Enum<?> value) {
    return value.name().toLowerCase(Locale.ROOT);
  }
}

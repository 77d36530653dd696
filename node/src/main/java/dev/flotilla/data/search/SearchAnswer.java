package dev.flotilla.data.search;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * What was found. As JSON {@code {"hits":[{"id","score","text","fields","highlights"}],"partial",
 * "missing_shards","timed_out","stale","total","total_is_exact","next"}}.
 *
 * @param hits best first; equal ones by id
 * @param missingShards shards of which no replica answered; the answer is partial if there are any
 * @param timedOut whether a shard stopped early, so that better hits may be missing
 * @param stale whether the node that answered sees no majority of the cluster
 * @param total how many match by their words, or, where a vector is searched, how many nearest were
 *     weighed; at least if not exact
 * @param next what {@code search_after} takes for the next page; empty after the last and where
 *     vectors are searched
 */
public record SearchAnswer(
    List<Hit> hits,
    List<Integer> missingShards,
    boolean timedOut,
    boolean stale,
    long total,
    boolean totalIsExact,
    String next) {

  /**
   * One document found.
   *
   * @param score comparable within one answer only
   * @param source the document's text and fields as JSON, read when asked for
   * @param highlights by field, the best passages with each match in {@code <em>}
   */
  public record Hit(String id, double score, byte[] source, Map<String, String> highlights) {

    /** The document's fields. */
    public Map<String, Object> fields() {
      return IndexDocument.fieldsFrom(sourceJson());
    }

    /** The document's text. */
    public String text() {
      return sourceJson().path("text").asText();
    }

    private JsonNode sourceJson() {
      try {
        return Json.MAPPER.readTree(source);
      } catch (IOException e) {
        throw new FlotillaException(
            Code.FAILED, "document " + id + " is not JSON as it was stored", "", e);
      }
    }

    ObjectNode toJson() {
      ObjectNode json = Json.MAPPER.createObjectNode().put("id", id).put("score", score);
      JsonNode parts = sourceJson();
      json.set("fields", parts.path("fields"));
      if (parts.has("text")) {
        json.set("text", parts.get("text"));
      }
      if (!highlights.isEmpty()) {
        ObjectNode shown = json.putObject("highlights");
        highlights.forEach(shown::put);
      }
      return json;
    }
  }

  /** Whether a shard is missing, or stopped early. */
  public boolean partial() {
    return timedOut || !missingShards.isEmpty();
  }

  /** The ids, best first. */
  public List<String> ids() {
    return hits.stream().map(Hit::id).toList();
  }

  /** In the form above. */
  public ObjectNode toJson() {
    ObjectNode json = Json.MAPPER.createObjectNode();
    ArrayNode all = json.putArray("hits");
    hits.forEach(hit -> all.add(hit.toJson()));
    json.put("partial", partial());
    ArrayNode missing = json.putArray("missing_shards");
    missingShards.forEach(missing::add);
    json.put("timed_out", timedOut).put("stale", stale);
    json.put("total", total).put("total_is_exact", totalIsExact).put("next", next);
    return json;
  }

  /** The inverse. */
  public static SearchAnswer fromJson(JsonNode json) {
    List<Hit> hits = new ArrayList<>();
    for (JsonNode hit : json.path("hits")) {
      ObjectNode source = Json.MAPPER.createObjectNode();
      source.set("fields", hit.path("fields"));
      if (hit.has("text")) {
        source.set("text", hit.path("text"));
      }
      Map<String, String> highlights = new LinkedHashMap<>();
      for (Map.Entry<String, JsonNode> shown : hit.path("highlights").properties()) {
        highlights.put(shown.getKey(), shown.getValue().asText());
      }
      hits.add(
          new Hit(
              hit.path("id").asText(),
              hit.path("score").asDouble(),
              Json.write(source),
              Collections.unmodifiableMap(highlights)));
    }
    List<Integer> missing = new ArrayList<>();
    json.path("missing_shards").forEach(shard -> missing.add(shard.asInt()));
    return new SearchAnswer(
        hits,
        missing,
        json.path("timed_out").asBoolean(),
        json.path("stale").asBoolean(),
        json.path("total").asLong(),
        json.path("total_is_exact").asBoolean(),
        json.path("next").asText());
  }
}

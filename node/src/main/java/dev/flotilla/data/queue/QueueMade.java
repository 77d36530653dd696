package dev.flotilla.data.queue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.Json;

/**
 * What the catalog has of a queue.
 *
 * @param id tells it from others that had its name; empty for those of earlier builds
 */
record QueueMade(String name, QueueConfig config, String id) {

  static final String ENGINE_PREFIX = "flotilla.queue.";

  static QueueMade decode(String name, byte[] value) {
    return new QueueMade(
        name,
        Json.read(value, QueueConfig.class),
        Json.read(value, JsonNode.class).path("id").asText());
  }

  byte[] encode() {
    ObjectNode json = Json.MAPPER.valueToTree(config);
    return Json.write(json.put("id", id));
  }

  /** The engine's cache with its entries; never the name of another. */
  String engineName() {
    return ENGINE_PREFIX + name + (id.isEmpty() ? "" : "." + id);
  }
}

package dev.flotilla.client;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.data.cache.Cache;
import dev.flotilla.data.cache.CacheConfig;
import dev.flotilla.data.cache.CacheStatistics;
import java.io.IOException;
import java.time.Duration;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;

/** A cache of a cluster, reached over HTTP. */
final class HttpCache implements Cache {

  private static final byte[] NOTHING = new byte[0];

  private final Client client;
  private final String name;

  HttpCache(Client client, String name) {
    this.client = client;
    this.name = name;
  }

  private String path() {
    return "/api/caches/" + Client.encode(name);
  }

  private String path(String key) {
    if (key.isEmpty()) {
      throw new FlotillaException(Code.INVALID, "a cache's key must not be empty", "");
    }
    // Dots alone would be taken for a way up the path.
    return path() + "/" + Client.encode(key).replace(".", "%2E");
  }

  private static String query(Optional<Duration> ttl) {
    return ttl.map(time -> "?ttl_ms=" + time.toMillis()).orElse("");
  }

  private static Map<String, String> ifMatch(long version) {
    return version == 0
        ? Map.of("If-None-Match", "*")
        : Map.of("If-Match", "\"" + String.format("%016x", version) + "\"");
  }

  private static long version(Client.Answer answer) {
    return Long.parseLong(answer.header("etag").orElse("0").replace("\"", ""), 16);
  }

  private static JsonNode json(Client.Answer answer) {
    return Json.read(answer.body(), JsonNode.class);
  }

  @Override
  public String name() {
    return name;
  }

  @Override
  public CacheConfig config() {
    return HttpCaches.config(client.get(path()));
  }

  @Override
  public Optional<Entry> entry(String key) {
    Client.Answer answer = client.exchange("GET", path(key), Map.of(), NOTHING, 404);
    if (answer.status() == 404) {
      return Optional.empty();
    }
    long expiresAtMs = answer.header("x-flotilla-expires-at-ms").map(Long::parseLong).orElse(0L);
    return Optional.of(new Entry(answer.body(), version(answer), expiresAtMs));
  }

  @Override
  public Map<String, byte[]> getAll(Collection<String> keys) {
    ObjectNode asked = Json.MAPPER.createObjectNode();
    ArrayNode names = asked.putArray("keys");
    keys.forEach(names::add);
    Client.Answer answer =
        client.exchange("POST", path() + "/get-all", Map.of(), Json.write(asked), 404);
    Map<String, byte[]> all = new LinkedHashMap<>();
    if (answer.status() != 404) {
      json(answer)
          .path("entries")
          .properties()
          .forEach(entry -> all.put(entry.getKey(), base64(entry.getValue())));
    }
    return all;
  }

  private static byte[] base64(JsonNode node) {
    try {
      return node.binaryValue();
    } catch (IOException e) {
      throw new FlotillaException(Code.FAILED, "the node answered with wrong Base64", "", e);
    }
  }

  @Override
  public long put(String key, byte[] value, Optional<Duration> ttl) {
    return version(client.exchange("PUT", path(key) + query(ttl), Map.of(), value));
  }

  @Override
  public void putAll(Map<String, byte[]> entries, Optional<Duration> ttl) {
    ObjectNode body = Json.MAPPER.createObjectNode();
    ObjectNode values = body.putObject("entries");
    entries.forEach(values::put);
    ttl.ifPresent(time -> body.put("ttl_ms", time.toMillis()));
    var _ = client.post(path() + "/put-all", body);
  }

  @Override
  public Optional<Long> compareAndSet(
      String key, long expectedVersion, byte[] value, Optional<Duration> ttl) {
    Client.Answer answer =
        client.exchange("PUT", path(key) + query(ttl), ifMatch(expectedVersion), value, 412);
    return answer.status() == 412 ? Optional.empty() : Optional.of(version(answer));
  }

  @Override
  public Optional<Long> compareAndSet(
      String key, Optional<byte[]> expected, byte[] value, Optional<Duration> ttl) {
    ObjectNode body = Json.MAPPER.createObjectNode().put("value", value);
    expected.ifPresent(bytes -> body.put("expected", bytes));
    ttl.ifPresent(time -> body.put("ttl_ms", time.toMillis()));
    JsonNode answer = client.post(path(key) + "/compare-and-set", body);
    return answer.path("set").asBoolean()
        ? Optional.of(Long.parseLong(answer.path("version").asText(), 16))
        : Optional.empty();
  }

  @Override
  public long increment(String key, long by) {
    return client.post(path(key) + "/increment", Map.of("by", by)).path("value").asLong();
  }

  @Override
  public Optional<byte[]> getAndPut(String key, byte[] value, Optional<Duration> ttl) {
    return old(client.exchange("POST", path(key) + "/swap" + query(ttl), Map.of(), value));
  }

  @Override
  public Optional<byte[]> getAndRemove(String key) {
    return old(client.exchange("POST", path(key) + "/take", Map.of(), NOTHING, 404));
  }

  private static Optional<byte[]> old(Client.Answer answer) {
    return answer.status() == 200 ? Optional.of(answer.body()) : Optional.empty();
  }

  @Override
  public boolean remove(String key, long expectedVersion) {
    return client
            .exchange("DELETE", path(key), ifMatch(expectedVersion), NOTHING, 404, 412)
            .status()
        == 200;
  }

  @Override
  public void clear() {
    var _ = client.exchange("POST", path() + "/clear", Map.of(), NOTHING);
  }

  @Override
  public CacheStatistics statistics() {
    JsonNode counted = client.get(path()).path("statistics");
    return new CacheStatistics(
        counted.path("near_hits").asLong(),
        counted.path("grid_hits").asLong(),
        counted.path("misses").asLong(),
        counted.path("loads").asLong(),
        counted.path("load_failures").asLong(),
        counted.path("writes").asLong(),
        counted.path("near_evictions").asLong(),
        counted.path("grid_evictions").asLong(),
        counted.path("expired").asLong(),
        counted.path("near_entries").asLong(),
        counted.path("near_bytes").asLong(),
        counted.path("entries").asLong(),
        counted.path("bytes").asLong());
  }
}

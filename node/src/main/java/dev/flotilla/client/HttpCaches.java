package dev.flotilla.client;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.data.cache.Cache;
import dev.flotilla.data.cache.CacheConfig;
import dev.flotilla.data.cache.Caches;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Optional;

/** The caches of a cluster, reached over HTTP. */
public final class HttpCaches implements Caches {

  private final Client client;

  /** The caches of the cluster that the client speaks to. */
  public HttpCaches(Client client) {
    this.client = client;
  }

  private static String path(String name) {
    return "/api/caches/" + Client.encode(name);
  }

  static CacheConfig config(JsonNode node) {
    return new CacheConfig(
        CacheConfig.Mode.valueOf(node.path("mode").asText().toUpperCase(Locale.ROOT)),
        node.path("ttl_ms").asLong(),
        node.path("max_entries").asLong(),
        node.path("max_bytes").asLong(),
        node.path("near_bytes").asLong(),
        node.has("store") ? Optional.of(node.path("store").asText()) : Optional.empty(),
        node.path("write_through").asBoolean(),
        node.path("load_timeout_ms").asLong());
  }

  /** Made by the first put, if nobody makes it before. */
  @Override
  public Cache cache(String name) {
    return new HttpCache(client, name);
  }

  @Override
  public Optional<Cache> find(String name) {
    return exists(name) ? Optional.of(cache(name)) : Optional.empty();
  }

  private boolean exists(String name) {
    return list().stream().anyMatch(named -> named.name().equals(name));
  }

  @Override
  public Cache create(String name, CacheConfig config) {
    var _ = client.post(path(name), lowerCase(config));
    return cache(name);
  }

  private static JsonNode lowerCase(CacheConfig config) {
    var node = (com.fasterxml.jackson.databind.node.ObjectNode) Client.snakeCase(config);
    node.put("mode", config.mode().name().toLowerCase(Locale.ROOT));
    return node;
  }

  @Override
  public List<Named> list() {
    List<Named> all = new ArrayList<>();
    for (JsonNode node : client.get("/api/caches")) {
      all.add(new Named(node.path("name").asText(), config(node)));
    }
    return all;
  }

  @Override
  public boolean drop(String name) {
    try {
      client.delete(path(name));
      return true;
    } catch (FlotillaException e) {
      if (e.code() == Code.NOT_FOUND) {
        return false;
      }
      throw e;
    }
  }
}

package dev.flotilla.gateway;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.data.cache.Cache;
import dev.flotilla.data.cache.CacheConfig;
import dev.flotilla.data.cache.CacheStatistics;
import dev.flotilla.data.cache.Caches;
import dev.flotilla.gateway.GatewayHandler.Access;
import dev.flotilla.gateway.GatewayHandler.Route;
import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * Caches over HTTP. A key is one segment of the path, percent-encoded: any characters, slashes too.
 * A version is an ETag, sixteen hexadecimal digits in quotes.
 *
 * <ul>
 *   <li>{@code GET /api/caches}, {@code POST|GET|DELETE /api/caches/{cache}}: make, show with
 *       statistics, drop
 *   <li>{@code PUT|GET|DELETE /api/caches/{cache}/{key}?ttl_ms=}: bytes; {@code If-None-Match: *}
 *       puts if absent, {@code If-Match} puts or deletes that version, or with {@code *} any that
 *       is there; 412 if it is not so
 *   <li>{@code POST …/{key}/increment {"by"}} → {@code {"value"}}
 *   <li>{@code POST …/{key}/compare-and-set {"expected","value","ttl_ms"}} (Base64; no {@code
 *       expected} for absent) → {@code {"set","version"}}
 *   <li>{@code POST …/{key}/swap} (bytes) and {@code …/take}: put or remove, answered with what was
 *       there, or 204
 *   <li>{@code POST /api/caches/{cache}/get-all {"keys"}} → {@code {"entries"}} (Base64), {@code
 *       …/put-all {"entries","ttl_ms"}}, {@code …/clear}
 * </ul>
 */
final class CacheApi {

  private static final String OWN = "flotilla.";
  private static final String BYTES = "application/octet-stream";

  /** Of {@code If-Match}: whatever version is there, but one. */
  private static final Optional<String> ANY = Optional.of("*");

  private final GatewayServices services;

  CacheApi(GatewayServices services) {
    this.services = services;
  }

  List<Route> routes() {
    return List.of(
        Route.of("GET", "/api/caches", Access.KEY, this::list),
        Route.named("POST", "/api/caches/*", Access.WORK, this::create)
            .fields(
                "mode",
                "ttl_ms",
                "max_entries",
                "max_bytes",
                "near_bytes",
                "store",
                "write_through",
                "load_timeout_ms"),
        Route.named("GET", "/api/caches/*", Access.KEY, this::show),
        Route.named("DELETE", "/api/caches/*", Access.WORK, this::drop),
        route("GET", "", Access.KEY, this::get),
        route("PUT", "", Access.WORK, this::put).query("ttl_ms"),
        route("DELETE", "", Access.WORK, this::remove),
        route("POST", "/increment", Access.WORK, this::increment).fields("by"),
        route("POST", "/compare-and-set", Access.WORK, this::compareAndSet)
            .fields("expected", "value", "ttl_ms"),
        route("POST", "/swap", Access.WORK, this::swap).query("ttl_ms"),
        route("POST", "/take", Access.WORK, this::take),
        inTransactions(Route.named("POST", "/api/caches/*/get-all", Access.KEY, this::getAll))
            .fields("keys", "allow_stale"),
        inTransactions(Route.named("POST", "/api/caches/*/put-all", Access.WORK, this::putAll))
            .fields("entries", "ttl_ms"),
        Route.named("POST", "/api/caches/*/clear", Access.WORK, this::clear));
  }

  @FunctionalInterface
  private interface EntryAction {
    void run(Exchange exchange, String cache, String key);
  }

  private Route route(String method, String suffix, Access access, EntryAction action) {
    return inTransactions(
        new Route(
            method,
            "/api/caches/*/*" + suffix,
            access,
            (exchange, segments) -> action.run(exchange, segments.get(0), segments.get(1))));
  }

  private Route inTransactions(Route route) {
    return TransactionsApi.takingPart(services, route);
  }

  private Caches caches() {
    return services.data().caches();
  }

  /** To write to: made if there is none. */
  private Cache cache(String name) {
    refuseOwn(name);
    return caches().cache(name);
  }

  /** To read: a cache that nobody made holds nothing. */
  private Cache made(String name) {
    refuseOwn(name);
    return caches()
        .find(name)
        .orElseThrow(
            () ->
                new FlotillaException(
                    Code.NOT_FOUND, "there is no cache " + name, "A first put makes it."));
  }

  private static void refuseOwn(String name) {
    if (name.startsWith(OWN)) {
      throw new FlotillaException(
          Code.INVALID, "caches whose names start with " + OWN + " are Flotilla's own", "");
    }
  }

  private static Optional<Duration> ttl(Exchange exchange) {
    return exchange
        .query("ttl_ms")
        .map(
            text -> {
              try {
                return Duration.ofMillis(Long.parseLong(text));
              } catch (NumberFormatException e) {
                throw ApiError.invalid("ttl_ms", "ttl_ms must be a whole number of milliseconds.");
              }
            });
  }

  private static Optional<Duration> ttl(Fields fields) {
    return fields.integer("ttl_ms", 1, Long.MAX_VALUE / 1_000_000).map(Duration::ofMillis);
  }

  private static String text(long version) {
    return String.format("%016x", version);
  }

  private static String tag(long version) {
    return "\"" + text(version) + "\"";
  }

  private static Optional<Long> version(Exchange exchange, String header) {
    return exchange
        .header(header)
        .map(
            tag -> {
              try {
                return Long.parseLong(tag.replace("\"", ""), 16);
              } catch (NumberFormatException e) {
                throw ApiError.invalid(header, header + " must be an ETag that a read gave.");
              }
            });
  }

  private void list(Exchange exchange) {
    ArrayNode all = Json.MAPPER.createArrayNode();
    for (Caches.Named named : caches().list()) {
      all.add(node(named.name(), named.config()));
    }
    exchange.send(200, all);
  }

  private static ObjectNode node(String name, CacheConfig config) {
    ObjectNode node =
        Json.MAPPER
            .createObjectNode()
            .put("name", name)
            .put("mode", config.mode().name().toLowerCase(java.util.Locale.ROOT))
            .put("ttl_ms", config.ttlMs())
            .put("max_entries", config.maxEntries())
            .put("max_bytes", config.maxBytes())
            .put("near_bytes", config.nearBytes())
            .put("write_through", config.writeThrough())
            .put("load_timeout_ms", config.loadTimeoutMs());
    config.store().ifPresent(store -> node.put("store", store));
    return node;
  }

  private void create(Exchange exchange, String name) {
    refuseOwn(name);
    Fields fields = exchange.json();
    CacheConfig standard = CacheConfig.DEFAULT;
    CacheConfig config =
        new CacheConfig(
            mode(fields.text("mode").orElse("partitioned")),
            fields.integer("ttl_ms", 0, Long.MAX_VALUE).orElse(standard.ttlMs()),
            fields.integer("max_entries", 1, Long.MAX_VALUE).orElse(standard.maxEntries()),
            fields.integer("max_bytes", 1, Long.MAX_VALUE).orElse(standard.maxBytes()),
            fields.integer("near_bytes", 0, Long.MAX_VALUE).orElse(standard.nearBytes()),
            fields.text("store"),
            fields.flag("write_through", false),
            fields.integer("load_timeout_ms", 1, Long.MAX_VALUE).orElse(standard.loadTimeoutMs()));
    exchange.send(200, node(name, caches().create(name, config).config()));
  }

  private static CacheConfig.Mode mode(String name) {
    return switch (name) {
      case "partitioned" -> CacheConfig.Mode.PARTITIONED;
      case "replicated" -> CacheConfig.Mode.REPLICATED;
      default -> throw ApiError.invalid("mode", "mode must be partitioned or replicated.");
    };
  }

  private void show(Exchange exchange, String name) {
    Cache cache = caches().find(name).orElseGet(() -> made(name));
    ObjectNode node = node(name, cache.config());
    CacheStatistics counted = cache.statistics();
    node.putObject("statistics")
        .put("near_hits", counted.nearHits())
        .put("grid_hits", counted.gridHits())
        .put("misses", counted.misses())
        .put("loads", counted.loads())
        .put("load_failures", counted.loadFailures())
        .put("writes", counted.writes())
        .put("near_evictions", counted.nearEvictions())
        .put("grid_evictions", counted.gridEvictions())
        .put("expired", counted.expired())
        .put("near_entries", counted.nearEntries())
        .put("near_bytes", counted.nearBytes())
        .put("entries", counted.entries())
        .put("bytes", counted.bytes());
    exchange.send(200, node);
  }

  private void drop(Exchange exchange, String name) {
    refuseOwn(name);
    if (!caches().drop(name)) {
      throw new FlotillaException(Code.NOT_FOUND, "there is no cache " + name, "");
    }
    exchange.send(200, Json.MAPPER.createObjectNode().put("dropped", name));
  }

  private void get(Exchange exchange, String cache, String key) {
    Cache.Entry entry = made(cache).entry(key).orElseThrow(() -> noKey(cache));
    exchange.putHeader("ETag", tag(entry.version()));
    exchange.putHeader("Cache-Control", "no-store");
    if (entry.expiresAtMs() != 0) {
      exchange.putHeader("X-Flotilla-Expires-At-Ms", Long.toString(entry.expiresAtMs()));
    }
    exchange.send(200, BYTES, entry.value());
  }

  private static ApiError noKey(String cache) {
    return ApiError.of(404, "key_not_found", "Cache " + cache + " has no entry of that key.");
  }

  private void put(Exchange exchange, String name, String key) {
    Cache cache = cache(name);
    byte[] value = exchange.body();
    boolean there = exchange.header("If-Match").equals(ANY);
    Optional<Long> expected = there ? Optional.empty() : version(exchange, "If-Match");
    Optional<String> absent = exchange.header("If-None-Match");
    if (absent.isPresent() && !absent.get().equals("*")) {
      throw ApiError.invalid("If-None-Match", "If-None-Match takes only * here.");
    }
    Optional<Long> version;
    if (there) {
      version = replace(cache, key, value, ttl(exchange));
    } else if (expected.isPresent() || absent.isPresent()) {
      version = cache.compareAndSet(key, expected.orElse(0L), value, ttl(exchange));
    } else {
      version = Optional.of(cache.put(key, value, ttl(exchange)));
    }
    long written = version.orElseThrow(CacheApi::changed);
    exchange.putHeader("ETag", tag(written));
    exchange.send(200, Json.MAPPER.createObjectNode().put("version", text(written)));
  }

  /** Whatever version is there; empty if none is. */
  private static Optional<Long> replace(
      Cache cache, String key, byte[] value, Optional<Duration> ttl) {
    while (true) {
      Optional<Cache.Entry> before = cache.entry(key);
      if (before.isEmpty()) {
        return Optional.empty();
      }
      Optional<Long> written = cache.compareAndSet(key, before.get().version(), value, ttl);
      if (written.isPresent()) {
        return written;
      }
      // Somebody else wrote meanwhile: it is theirs that is replaced.
    }
  }

  private static ApiError changed() {
    return ApiError.of(
        412, "precondition_failed", "The entry is not as expected; nothing was done. Read again.");
  }

  private void remove(Exchange exchange, String name, String key) {
    Cache cache = made(name);
    boolean there = exchange.header("If-Match").equals(ANY);
    Optional<Long> expected = there ? Optional.empty() : version(exchange, "If-Match");
    boolean removed = expected.isPresent() ? cache.remove(key, expected.get()) : cache.remove(key);
    if ((there || expected.isPresent()) && !removed) {
      throw changed();
    }
    exchange.send(200, Json.MAPPER.createObjectNode().put("removed", removed));
  }

  private void increment(Exchange exchange, String name, String key) {
    long by = exchange.json().integer("by", Long.MIN_VALUE, Long.MAX_VALUE).orElse(1L);
    exchange.send(200, Json.MAPPER.createObjectNode().put("value", cache(name).increment(key, by)));
  }

  private void compareAndSet(Exchange exchange, String name, String key) {
    Fields fields = exchange.json();
    byte[] value =
        fields
            .node("value")
            .map(node -> base64(node, "value"))
            .orElseThrow(() -> ApiError.missing("value", ", in Base64"));
    Optional<Long> version =
        cache(name)
            .compareAndSet(
                key,
                fields.node("expected").map(node -> base64(node, "expected")),
                value,
                ttl(fields));
    ObjectNode answer = Json.MAPPER.createObjectNode().put("set", version.isPresent());
    version.ifPresent(written -> answer.put("version", text(written)));
    exchange.send(200, answer);
  }

  private static byte[] base64(JsonNode node, String name) {
    if (!node.isTextual()) {
      throw ApiError.invalid(name, name + " must be a string, in Base64.");
    }
    try {
      return node.binaryValue();
    } catch (IOException e) {
      throw ApiError.invalid(name, name + " is not Base64.");
    }
  }

  private void swap(Exchange exchange, String name, String key) {
    sendOld(exchange, cache(name).getAndPut(key, exchange.body(), ttl(exchange)));
  }

  private void take(Exchange exchange, String name, String key) {
    sendOld(exchange, made(name).getAndRemove(key));
  }

  private static void sendOld(Exchange exchange, Optional<byte[]> old) {
    exchange.putHeader("Cache-Control", "no-store");
    exchange.send(old.isPresent() ? 200 : 204, BYTES, old.orElse(new byte[0]));
  }

  private void getAll(Exchange exchange, String name) {
    Fields fields = exchange.json();
    JsonNode keys =
        fields
            .node("keys")
            .filter(JsonNode::isArray)
            .orElseThrow(() -> ApiError.invalid("keys", "keys must be an array of strings."));
    List<String> asked = new ArrayList<>();
    for (JsonNode key : keys) {
      if (!key.isTextual()) {
        throw ApiError.invalid("keys", "keys must be an array of strings.");
      }
      asked.add(key.textValue());
    }
    exchange.maybeStale(
        fields,
        () -> {
          ObjectNode answer = Json.MAPPER.createObjectNode();
          ObjectNode entries = answer.putObject("entries");
          made(name).getAll(asked).forEach(entries::put);
          exchange.send(200, answer);
        });
  }

  private void putAll(Exchange exchange, String name) {
    Fields fields = exchange.json();
    JsonNode entries =
        fields
            .node("entries")
            .filter(JsonNode::isObject)
            .orElseThrow(() -> ApiError.invalid("entries", "entries must be an object."));
    Map<String, byte[]> values = new LinkedHashMap<>();
    entries
        .properties()
        .forEach(entry -> values.put(entry.getKey(), base64(entry.getValue(), "entries")));
    cache(name).putAll(values, ttl(fields));
    exchange.send(200, Json.MAPPER.createObjectNode().put("written", values.size()));
  }

  private void clear(Exchange exchange, String name) {
    made(name).clear();
    exchange.send(200, Json.MAPPER.createObjectNode().put("cleared", name));
  }
}

package dev.flotilla.data.search;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.cluster.Registry;
import dev.flotilla.data.grid.Grid;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.UnaryOperator;
import java.util.random.RandomGenerator;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Which indexes there are and what their fields mean: a decision of the cluster, kept in the
 * registry (kind {@code "index"}).
 */
final class IndexCatalog {

  private static final Logger log = LoggerFactory.getLogger(IndexCatalog.class);
  private static final String KIND = "index";
  private static final int TRIES = 20;

  /** As the registry holds it. */
  record Entry(String generation, JsonNode settings) {}

  /** An index at one version of its settings. */
  record Known(String name, String generation, long epoch, IndexSchema schema, IndexStore store) {
    IndexSettings settings() {
      return schema.settings();
    }
  }

  private final Registry registry;
  private final Grid grid;
  private final RandomGenerator random;
  private final Map<String, Known> known = new ConcurrentHashMap<>();

  IndexCatalog(Registry registry, Grid grid, RandomGenerator random) {
    this.registry = registry;
    this.grid = grid;
    this.random = random;
  }

  private static Registry.Key key(String name) {
    return new Registry.Key(KIND, name);
  }

  List<String> names() {
    return registry.list(KIND).stream().map(entry -> entry.key().name()).sorted().toList();
  }

  List<Known> all() {
    List<Known> all = new ArrayList<>();
    names().forEach(name -> find(name).ifPresent(all::add));
    return all;
  }

  /** An index as this node's copy of the registry has it. */
  Optional<Known> find(String name) {
    Optional<Registry.Entry> entry = registry.get(key(name));
    if (entry.isEmpty()) {
      known.remove(name);
      return Optional.empty();
    }
    Known last = known.get(name);
    if (last != null && last.epoch == entry.get().epoch()) {
      return Optional.of(last);
    }
    Entry value = Json.read(entry.get().value(), Entry.class);
    Known now =
        new Known(
            name,
            value.generation,
            entry.get().epoch(),
            new IndexSchema(IndexSettings.fromJson(value.settings)),
            last != null && last.generation.equals(value.generation)
                ? last.store
                : new IndexStore(grid, random, name, value.generation));
    known.put(name, now);
    return Optional.of(now);
  }

  Known require(String name) {
    return find(name)
        .orElseThrow(
            () ->
                new FlotillaException(
                    Code.NOT_FOUND,
                    "there is no index " + name,
                    "Store a document in it, or make it, first."));
  }

  /** An index at least as new as another node has seen it. */
  Known require(String name, String generation, long epoch) {
    Optional<Known> mine = find(name);
    if (mine.isEmpty() || mine.get().epoch < epoch) {
      registry.sync();
      mine = find(name);
    }
    return mine.filter(one -> one.generation.equals(generation))
        .orElseThrow(
            () -> new FlotillaException(Code.NOT_FOUND, "there is no such index " + name, ""));
  }

  /** Makes it; empty if it is there already. */
  Optional<Known> create(String name, IndexSettings settings) {
    String generation = HexFormat.of().toHexDigits(random.nextLong());
    Optional<Long> epoch =
        registry.commit(
            List.of(new Registry.Condition(key(name), 0)),
            List.of(write(name, new Entry(generation, settings.toJson()))));
    return epoch.isEmpty() ? Optional.empty() : find(name);
  }

  /** Changes the settings, on top of whatever others changed meanwhile. */
  Known update(String name, UnaryOperator<IndexSettings> change) {
    for (int i = 0; i < TRIES; i++) {
      Known now = require(name);
      IndexSettings wanted = change.apply(now.settings());
      if (wanted.equals(now.settings())) {
        return now;
      }
      Optional<Long> epoch =
          registry.commit(
              List.of(new Registry.Condition(key(name), now.epoch)),
              List.of(write(name, new Entry(now.generation, wanted.toJson()))));
      if (epoch.isPresent()) {
        return require(name);
      }
      registry.sync();
    }
    throw new FlotillaException(
        Code.BUSY, "the fields of index " + name + " are being changed by many", "Try again.");
  }

  /** Forgets it; what it was, if it was. */
  Optional<Known> remove(String name) {
    for (int i = 0; i < TRIES; i++) {
      registry.sync();
      Optional<Known> now = find(name);
      if (now.isEmpty()
          || registry
              .commit(
                  List.of(new Registry.Condition(key(name), now.get().epoch)),
                  List.of(new Registry.Write(key(name), Optional.empty())))
              .isPresent()) {
        return now;
      }
    }
    throw new FlotillaException(
        Code.BUSY, "index " + name + " is being changed by many", "Try again.");
  }

  /** Removes documents of indexes that are gone, where their removal was cut short. */
  void destroyOrphans() {
    List<String> there =
        grid.read("looking for indexes", ignite -> List.copyOf(ignite.cacheNames())).stream()
            .filter(cache -> cache.startsWith(IndexStore.CACHE_PREFIX))
            .toList();
    // After the caches were listed: what has a cache by then was decided before.
    registry.sync();
    List<String> known =
        all().stream().map(one -> IndexStore.cacheName(one.name, one.generation)).toList();
    for (String cache : there) {
      if (!known.contains(cache)) {
        log.info("removing {}, whose index is gone", cache);
        var _ =
            grid.write(
                "removing " + cache,
                ignite -> {
                  ignite.destroyCache(cache);
                  return true;
                });
      }
    }
  }

  private static Registry.Write write(String name, Entry entry) {
    return new Registry.Write(key(name), Optional.of(Json.write(entry)));
  }
}

package dev.flotilla.data.cache;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.Names;
import dev.flotilla.cluster.Registry;
import dev.flotilla.data.grid.Environment;
import dev.flotilla.data.grid.Grid;
import dev.flotilla.data.grid.GridMembers;
import dev.flotilla.data.proto.Invalidation;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;

/**
 * The caches; how each was made stands in the registry (kind {@code "cache"}), where one of several
 * who make it at once wins.
 *
 * <p>Each is a cache of the engine with a name that was never used before, {@link Made#engineName}.
 * So what is done late to one that was dropped, such as its destruction, does nothing to one that
 * has been made since under the same name. One that is dropped is noted in the registry (kind
 * {@code "cache-drop"}) until the engine's is gone, which every node sees to.
 */
public final class GridCaches implements Caches, AutoCloseable {

  static final String KIND = "cache";
  private static final String DROPPED_KIND = "cache-drop";

  /**
   * What the registry has of a cache.
   *
   * @param id tells it from others that had its name; empty for those of earlier builds
   */
  record Made(String name, CacheConfig config, String id) {

    static Made of(Registry.Entry entry) {
      JsonNode json = Json.read(entry.value(), JsonNode.class);
      return new Made(
          entry.key().name(),
          Json.read(entry.value(), CacheConfig.class),
          json.path("id").asText());
    }

    byte[] encode() {
      ObjectNode json = Json.MAPPER.valueToTree(config);
      return Json.write(json.put("id", id));
    }

    String engineName() {
      return "flotilla.cache." + name + (id.isEmpty() ? "" : "." + id);
    }
  }

  /** The engine's name of a cache; empty if there is none. */
  public static Optional<String> engineName(Registry registry, String name) {
    return registry.get(new Registry.Key(KIND, name)).map(Made::of).map(Made::engineName);
  }

  private final Environment environment;
  private final Grid grid;
  private final NearCoherence coherence;
  private final CacheLoads loads;
  private final CacheBounds bounds;
  private final Map<String, CacheStore> stores = new ConcurrentHashMap<>();

  /** One in use, and the version of the registry's entry by which it was opened. */
  private record Opened(GridCache cache, long epoch) {}

  private final Map<String, Opened> open = new ConcurrentHashMap<>();

  /** Wires them; make it before the cluster starts, since it serves other nodes. */
  public GridCaches(Environment environment, Grid grid) {
    this.environment = environment;
    this.grid = grid;
    this.coherence =
        new NearCoherence(
            environment.cluster(), this::visible, new OpenCaches(), environment.nanoTime());
    this.loads = new CacheLoads(grid, environment.clock(), environment.random());
    this.bounds =
        new CacheBounds(grid, environment.clock(), coherence, this::openCaches, this::finishDrops);
    environment.cluster().addService(coherence);
  }

  private Optional<Set<String>> visible(String what) {
    try {
      Grid.Seen<Set<String>> seen = grid.readAny(what, Grid::visible);
      return seen.stale() ? Optional.empty() : Optional.of(seen.value());
    } catch (FlotillaException notUp) {
      return Optional.empty();
    }
  }

  /** Begins to keep near caches and bounds; the grid is up. */
  public void start() {
    // While a backup is restored nothing comes near, and what is near is of before.
    Registry registry = environment.cluster().registry();
    var _ =
        registry.subscribe(
            () -> {
              open.forEach(
                  (name, opened) -> {
                    if (!entry(name).map(Made::of).equals(Optional.of(opened.cache().made()))) {
                      forget(name, opened);
                    }
                  });
              if (registry.get(GridMembers.GATE).isPresent()) {
                open.values().forEach(each -> each.cache().forgetAll());
                coherence.forgetAll();
              }
            });
    coherence.start();
    bounds.start();
  }

  /** Registers what caches of this node may have behind them; before they are used. */
  public void register(String name, CacheStore store) {
    stores.put(name, store);
  }

  private List<GridCache> openCaches() {
    return environment.cluster().registry().list(KIND).stream().map(this::open).toList();
  }

  @Override
  public Cache cache(String name) {
    Optional<Registry.Entry> made = entry(name);
    Opened found = open.get(name);
    if (found != null && made.isPresent() && made.get().epoch() == found.epoch()) {
      return found.cache();
    }
    checkName(name);
    return made.isPresent() ? open(made.get()) : create(name, CacheConfig.DEFAULT);
  }

  @Override
  public Optional<Cache> find(String name) {
    checkName(name);
    return entry(name).map(this::open);
  }

  private Optional<Registry.Entry> entry(String name) {
    return environment.cluster().registry().get(new Registry.Key(KIND, name));
  }

  /** As the registry has it; one that was dropped and made anew is another. */
  private GridCache open(Registry.Entry entry) {
    return open.compute(
            entry.key().name(),
            (name, there) -> {
              if (there != null && there.epoch() >= entry.epoch()) {
                return there;
              }
              Made made = Made.of(entry);
              if (there != null && there.cache().made().equals(made)) {
                return new Opened(there.cache(), entry.epoch());
              }
              if (there != null) {
                there.cache().retire();
              }
              return new Opened(opened(made), entry.epoch());
            })
        .cache();
  }

  private GridCache opened(Made made) {
    return new GridCache(
        made,
        new GridCache.Surroundings(
            grid,
            coherence,
            loads,
            this::store,
            this::isListed,
            environment.metrics(),
            environment.clock(),
            environment.nanoTime(),
            environment.random()));
  }

  private boolean isListed(GridCache cache) {
    environment.cluster().registry().sync();
    return entry(cache.name()).map(Made::of).filter(cache.made()::equals).isPresent();
  }

  private void forget(String name, Opened forgotten) {
    if (open.remove(name, forgotten)) {
      forgotten.cache().retire();
    }
  }

  private CacheStore store(String name) {
    CacheStore store = stores.get(name);
    if (store == null) {
      throw new FlotillaException(
          Code.INVALID,
          "no store " + name + " is registered on node " + environment.cluster().self(),
          "Register it on every node that uses the cache.");
    }
    return store;
  }

  @Override
  public Cache create(String name, CacheConfig config) {
    checkName(name);
    if (config.store().isPresent()) {
      CacheStore store = store(config.store().get());
      if (config.writeThrough() && !store.writable()) {
        throw new FlotillaException(
            Code.INVALID,
            "cache " + name + " cannot write through: its store only reads",
            "Leave write_through out.");
      }
    }
    Registry registry = environment.cluster().registry();
    Registry.Key key = new Registry.Key(KIND, name);
    if (entry(name).isEmpty()) {
      if (grid.inTransaction()) {
        throw new FlotillaException(
            Code.INVALID,
            "cache " + name + " does not exist, and cannot be made inside a transaction",
            "Make it first.");
      }
      String id = Long.toString(environment.random().nextLong() >>> 1, 36);
      var _ =
          registry.commit(
              List.of(new Registry.Condition(key, 0)),
              List.of(new Registry.Write(key, Optional.of(new Made(name, config, id).encode()))));
      registry.sync();
    }
    Optional<Registry.Entry> entry = entry(name);
    Optional<Made> made = entry.map(Made::of);
    if (entry.isPresent() && made.map(Made::config).equals(Optional.of(config))) {
      GridCache cache = open(entry.get());
      cache.ensure();
      return cache;
    }
    throw new FlotillaException(
        Code.CONFLICT,
        "cache "
            + name
            + " exists with another configuration: "
            + made.map(there -> there.config().differences(config))
                .orElse("it was dropped meanwhile"),
        "Use it as it is, or drop it first.");
  }

  static void checkName(String name) {
    Names.check("a cache", name);
  }

  @Override
  public List<Named> list() {
    return environment.cluster().registry().list(KIND).stream()
        .map(Made::of)
        .map(each -> new Named(each.name(), each.config()))
        .toList();
  }

  @Override
  public boolean drop(String name) {
    checkName(name);
    Optional<Registry.Entry> entry = entry(name);
    if (entry.isEmpty()) {
      return false;
    }
    String engineName = Made.of(entry.get()).engineName();
    Optional<Long> dropped =
        environment
            .cluster()
            .registry()
            .commit(
                List.of(new Registry.Condition(entry.get().key(), entry.get().epoch())),
                List.of(
                    new Registry.Write(entry.get().key(), Optional.empty()),
                    new Registry.Write(
                        new Registry.Key(DROPPED_KIND, engineName),
                        Optional.of(Json.write(name)))));
    if (dropped.isPresent()) {
      finishDrop(name, engineName);
      Optional.ofNullable(open.get(name))
          .filter(opened -> opened.cache().made().engineName().equals(engineName))
          .ifPresent(opened -> forget(name, opened));
    }
    return dropped.isPresent();
  }

  /** What is to be destroyed still, because who dropped it could not. */
  private void finishDrops() {
    for (Registry.Entry entry : environment.cluster().registry().list(DROPPED_KIND)) {
      finishDrop(Json.read(entry.value(), String.class), entry.key().name());
    }
  }

  private void finishDrop(String name, String engineName) {
    // A backup of before may have brought it back.
    if (!engineName(environment.cluster().registry(), name).equals(Optional.of(engineName))) {
      grid.write(
          "dropping cache " + name,
          ignite -> {
            ignite.destroyCache(engineName);
            return true;
          });
      coherence.writtenAll(name);
    }
    var _ =
        environment
            .cluster()
            .registry()
            .commit(
                List.of(),
                List.of(
                    new Registry.Write(
                        new Registry.Key(DROPPED_KIND, engineName), Optional.empty())));
  }

  /** The near caches of this node, as other nodes' writes reach them. */
  private final class OpenCaches implements NearCoherence.Local {

    @Override
    public void invalidate(Invalidation written) {
      Opened opened = open.get(written.getCache());
      if (opened == null) {
        return;
      }
      written.getKeysList().forEach(opened.cache()::forget);
      if (written.getAll()) {
        opened.cache().forgetAll();
        if (entry(written.getCache()).isEmpty()) {
          forget(written.getCache(), opened);
        }
      }
    }

    @Override
    public Optional<CacheStatistics> statistics(String cache) {
      return Optional.ofNullable(open.get(cache)).map(each -> each.cache().ownStatistics());
    }
  }

  @Override
  public void close() {
    bounds.close();
    coherence.close();
  }
}

package dev.flotilla.data.cache;

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
 * The caches, each an engine cache {@code flotilla.cache.NAME}; how each was made stands in the
 * registry (kind {@code "cache"}), where one of several who make it at once wins.
 */
public final class GridCaches implements Caches, AutoCloseable {

  static final String KIND = "cache";

  private final Environment environment;
  private final Grid grid;
  private final NearCoherence coherence;
  private final CacheLoads loads;
  private final CacheBounds bounds;
  private final Map<String, CacheStore> stores = new ConcurrentHashMap<>();
  private final Map<String, GridCache> open = new ConcurrentHashMap<>();

  /** Wires them; make it before the cluster starts, since it serves other nodes. */
  public GridCaches(Environment environment, Grid grid) {
    this.environment = environment;
    this.grid = grid;
    this.coherence =
        new NearCoherence(
            environment.cluster(), this::visible, new OpenCaches(), environment.nanoTime());
    this.loads = new CacheLoads(grid, environment.clock(), environment.random());
    this.bounds = new CacheBounds(grid, environment.clock(), coherence, this::openCaches);
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
              if (registry.get(GridMembers.GATE).isPresent()) {
                open.values().forEach(GridCache::forgetAll);
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
    return list().stream().map(named -> open(named.name(), named.config())).toList();
  }

  @Override
  public Cache cache(String name) {
    GridCache found = open.get(name);
    if (found != null) {
      return found;
    }
    checkName(name);
    Optional<CacheConfig> made = config(name);
    return made.isPresent() ? open(name, made.get()) : create(name, CacheConfig.DEFAULT);
  }

  @Override
  public Optional<Cache> find(String name) {
    checkName(name);
    return config(name).map(config -> open(name, config));
  }

  private Optional<CacheConfig> config(String name) {
    return environment
        .cluster()
        .registry()
        .get(new Registry.Key(KIND, name))
        .map(entry -> Json.read(entry.value(), CacheConfig.class));
  }

  private GridCache open(String name, CacheConfig config) {
    return open.computeIfAbsent(
        name,
        same ->
            new GridCache(
                same,
                config,
                new GridCache.Surroundings(
                    grid,
                    coherence,
                    loads,
                    this::store,
                    environment.metrics(),
                    environment.clock(),
                    environment.nanoTime(),
                    environment.random())));
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
    if (config(name).isEmpty()) {
      if (grid.inTransaction()) {
        throw new FlotillaException(
            Code.INVALID,
            "cache " + name + " does not exist, and cannot be made inside a transaction",
            "Make it first.");
      }
      var _ =
          registry.commit(
              List.of(new Registry.Condition(key, 0)),
              List.of(new Registry.Write(key, Optional.of(Json.write(config)))));
      registry.sync();
    }
    Optional<CacheConfig> made = config(name);
    if (made.isPresent() && made.get().equals(config)) {
      GridCache cache = open(name, config);
      cache.ensure();
      return cache;
    }
    throw new FlotillaException(
        Code.CONFLICT,
        "cache "
            + name
            + " exists with another configuration: "
            + made.map(there -> there.differences(config)).orElse("it was dropped meanwhile"),
        "Use it as it is, or drop it first.");
  }

  static void checkName(String name) {
    Names.check("a cache", name);
  }

  @Override
  public List<Named> list() {
    return environment.cluster().registry().list(KIND).stream()
        .map(e -> new Named(e.key().name(), Json.read(e.value(), CacheConfig.class)))
        .toList();
  }

  @Override
  public boolean drop(String name) {
    checkName(name);
    Optional<Registry.Entry> entry =
        environment.cluster().registry().get(new Registry.Key(KIND, name));
    if (entry.isEmpty()) {
      return false;
    }
    Optional<Long> dropped =
        environment
            .cluster()
            .registry()
            .commit(
                List.of(new Registry.Condition(entry.get().key(), entry.get().epoch())),
                List.of(new Registry.Write(entry.get().key(), Optional.empty())));
    if (dropped.isPresent()) {
      grid.write(
          "dropping cache " + name,
          ignite -> {
            ignite.destroyCache(GridCache.gridName(name));
            return true;
          });
      coherence.writtenAll(name);
      open.remove(name);
    }
    return dropped.isPresent();
  }

  /** The near caches of this node, as other nodes' writes reach them. */
  private final class OpenCaches implements NearCoherence.Local {

    @Override
    public void invalidate(Invalidation written) {
      GridCache cache = open.get(written.getCache());
      if (cache == null) {
        return;
      }
      written.getKeysList().forEach(cache::forget);
      if (written.getAll()) {
        cache.forgetAll();
        if (config(written.getCache()).isEmpty()) {
          open.remove(written.getCache());
        }
      }
    }

    @Override
    public Optional<CacheStatistics> statistics(String cache) {
      return Optional.ofNullable(open.get(cache)).map(GridCache::ownStatistics);
    }
  }

  @Override
  public void close() {
    bounds.close();
    coherence.close();
  }
}

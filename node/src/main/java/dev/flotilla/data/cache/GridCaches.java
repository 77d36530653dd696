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
              open.keySet().stream().filter(name -> entry(name).isEmpty()).forEach(this::forget);
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

  private static CacheConfig config(Registry.Entry entry) {
    return Json.read(entry.value(), CacheConfig.class);
  }

  /** As the registry has it; one that was dropped and made anew otherwise is another. */
  private GridCache open(Registry.Entry entry) {
    return open.compute(
            entry.key().name(),
            (name, there) -> {
              if (there != null && there.epoch() >= entry.epoch()) {
                return there;
              }
              CacheConfig config = config(entry);
              if (there != null && there.cache().config().equals(config)) {
                return new Opened(there.cache(), entry.epoch());
              }
              if (there != null) {
                there.cache().retire();
              }
              return new Opened(made(name, config), entry.epoch());
            })
        .cache();
  }

  private GridCache made(String name, CacheConfig config) {
    return new GridCache(
        name,
        config,
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
    return entry(cache.name()).map(GridCaches::config).filter(cache.config()::equals).isPresent();
  }

  private void forget(String name) {
    Opened forgotten = open.remove(name);
    if (forgotten != null) {
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
      var _ =
          registry.commit(
              List.of(new Registry.Condition(key, 0)),
              List.of(new Registry.Write(key, Optional.of(Json.write(config)))));
      registry.sync();
    }
    Optional<Registry.Entry> made = entry(name);
    if (made.isPresent() && config(made.get()).equals(config)) {
      GridCache cache = open(made.get());
      cache.ensure();
      return cache;
    }
    throw new FlotillaException(
        Code.CONFLICT,
        "cache "
            + name
            + " exists with another configuration: "
            + made.map(there -> config(there).differences(config))
                .orElse("it was dropped meanwhile"),
        "Use it as it is, or drop it first.");
  }

  static void checkName(String name) {
    Names.check("a cache", name);
  }

  @Override
  public List<Named> list() {
    return environment.cluster().registry().list(KIND).stream()
        .map(each -> new Named(each.key().name(), config(each)))
        .toList();
  }

  @Override
  public boolean drop(String name) {
    checkName(name);
    Optional<Registry.Entry> entry = entry(name);
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
      forget(name);
    }
    return dropped.isPresent();
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
          forget(written.getCache());
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

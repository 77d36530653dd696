package dev.flotilla.data.cache;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.StaleReads;
import dev.flotilla.data.cache.NearCache.Near;
import dev.flotilla.data.grid.Grid;
import dev.flotilla.data.grid.Grid.TransactionMode;
import dev.flotilla.data.grid.TransactionScope;
import io.micrometer.core.instrument.FunctionCounter;
import io.micrometer.core.instrument.Gauge;
import io.micrometer.core.instrument.Meter;
import io.micrometer.core.instrument.MeterRegistry;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.atomic.LongAdder;
import java.util.function.Function;
import java.util.function.LongSupplier;
import java.util.function.Predicate;
import java.util.random.RandomGenerator;
import org.apache.ignite.Ignite;
import org.apache.ignite.IgniteCache;
import org.apache.ignite.cache.CacheMode;
import org.apache.ignite.cache.CachePeekMode;
import org.apache.ignite.configuration.CacheConfiguration;

/**
 * A cache in the grid with a near cache in front. The near hit is the fast path: one look-up, two
 * volatile reads and the clock; it touches neither the engine nor a lock.
 */
final class GridCache implements Cache {

  /**
   * What all caches of a node stand on.
   *
   * @param listed whether the registry has this cache, after all that was committed before the call
   */
  record Surroundings(
      Grid grid,
      NearCoherence coherence,
      CacheLoads loads,
      Function<String, CacheStore> stores,
      Predicate<GridCache> listed,
      MeterRegistry metrics,
      InstantSource clock,
      LongSupplier nanoTime,
      RandomGenerator random) {}

  private static final long AGE_NS = NearCoherence.AGE_MS * 1_000_000L;

  private final GridCaches.Made made;
  private final String name;
  private final CacheConfig config;
  private final Surroundings around;
  private final Grid grid;
  private final boolean hasNear;
  private final NearCache near;
  private final String engineName;
  private final List<Meter> meters = new ArrayList<>();
  private volatile long localBytes;
  private volatile boolean retired;

  private final LongAdder nearHits = new LongAdder();
  private final LongAdder gridHits = new LongAdder();
  private final LongAdder misses = new LongAdder();
  private final LongAdder loads = new LongAdder();
  private final LongAdder loadFailures = new LongAdder();
  private final LongAdder writes = new LongAdder();
  private final LongAdder gridEvictions = new LongAdder();
  private final LongAdder expired = new LongAdder();

  GridCache(GridCaches.Made made, Surroundings around) {
    this.made = made;
    this.name = made.name();
    this.engineName = made.engineName();
    this.config = made.config();
    this.around = around;
    this.grid = around.grid();
    this.hasNear = config.nearBytes() > 0;
    this.near = new NearCache(config.nearBytes());
    count("near.hits", nearHits);
    count("grid.hits", gridHits);
    count("misses", misses);
    count("loads", loads);
    count("load.failures", loadFailures);
    count("writes", writes);
    count("grid.evictions", gridEvictions);
    meters.add(
        Gauge.builder("flotilla.cache.near.bytes", near, NearCache::bytes)
            .tag("cache", name)
            .register(around.metrics()));
  }

  private void count(String what, LongAdder counted) {
    meters.add(
        FunctionCounter.builder("flotilla.cache." + what, counted, LongAdder::sum)
            .tag("cache", name)
            .register(around.metrics()));
  }

  /** Tells it from others that had its name. */
  GridCaches.Made made() {
    return made;
  }

  @Override
  public String name() {
    return name;
  }

  @Override
  public CacheConfig config() {
    return config;
  }

  // The engine's cache.

  private CacheConfiguration<String, byte[]> configure(CacheConfiguration<String, byte[]> made) {
    // Caches of one mode share partitions, and files: a new one costs little.
    return config.mode() == CacheConfig.Mode.REPLICATED
        ? made.setCacheMode(CacheMode.REPLICATED).setGroupName("flotilla.caches.replicated")
        : made.setGroupName("flotilla.caches");
  }

  /**
   * The engine's cache.
   *
   * @throws FlotillaException {@code NOT_FOUND} if this one was dropped
   */
  IgniteCache<String, byte[]> engine(Ignite ignite) {
    if (isMissing(Grid.hasCache(ignite, engineName))) {
      ensure();
    }
    return grid.cache(ignite, engineName, this::configure);
  }

  /**
   * Makes what the engine needs, if it is not there and the registry has this cache. Who holds a
   * cache that was dropped must not make it again: nobody would list or bound it.
   */
  void ensure() {
    boolean missing = isMissing(grid.hasCache(engineName));
    grid.ensureCache(engineName, this::configure);
    if (missing && !around.listed().test(this)) {
      // Dropped since it was looked up: by then there was nothing to drop.
      grid.write(
          what("dropping"),
          ignite -> {
            ignite.destroyCache(engineName);
            return true;
          });
      retire();
      throw dropped();
    }
    if (config.store().isPresent()) {
      around.loads().ensure();
    }
  }

  /** Whether the engine has yet to make it. */
  private boolean isMissing(boolean there) {
    if (!retired) {
      if (there) {
        return false;
      }
      // Without it, who is to know whether it was never made or has gone: the registry.
      if (around.listed().test(this)) {
        return true;
      }
      retire();
    }
    throw dropped();
  }

  private FlotillaException dropped() {
    return new FlotillaException(
        Code.NOT_FOUND,
        "cache " + name + " was dropped",
        "Ask for it by its name again: that finds one made since, or makes it.");
  }

  private String what(String doing) {
    return doing + " cache " + name;
  }

  // Reading.

  @Override
  public Optional<Entry> entry(String key) {
    if (hasNear && !grid.inTransaction()) {
      Near found = near.find(key);
      if (found != null) {
        long nowNs = around.nanoTime().getAsLong();
        if (found.epoch() == around.coherence().epochAt(nowNs) && found.untilNs() - nowNs > 0) {
          nearHits.increment();
          return Optional.of(copied(found.value()));
        }
      }
    }
    checkKey(key);
    return entryFromGrid(key);
  }

  private static Entry copied(CacheValue value) {
    return new Entry(value.bytes().clone(), value.version(), value.expiresAtMs());
  }

  private Optional<Entry> entryFromGrid(String key) {
    if (grid.inTransaction()) {
      Optional<CacheValue> found = counted(grid.read(what("reading"), ignite -> find(ignite, key)));
      step("get", List.of(key));
      // Waits for nobody, and keeps nothing: the transaction may be rolled back.
      return found.isPresent() || config.store().isEmpty()
          ? found.map(CacheValue::entry)
          : load(key).map(bytes -> new Entry(bytes, 0, 0));
    }
    long nowNs = around.nanoTime().getAsLong();
    long epoch = around.coherence().epochAt(nowNs);
    long stamp = near.stamp(key);
    Optional<CacheValue> found = counted(grid.read(what("reading"), ignite -> find(ignite, key)));
    if (found.isPresent()) {
      fill(key, found.get(), nowNs, epoch, stamp);
      return found.map(GridCache::copied);
    }
    // A load is written, which wants a majority: what is not held is not there.
    return config.store().isPresent() && !StaleReads.marked()
        ? around.loads().load(new LoadTarget(key)).map(GridCache::copied)
        : Optional.empty();
  }

  private Optional<CacheValue> counted(Optional<CacheValue> found) {
    (found.isPresent() ? gridHits : misses).increment();
    return found;
  }

  private Optional<CacheValue> find(Ignite ignite, String key) {
    return Optional.ofNullable(engine(ignite).get(key))
        .map(CacheValue::decode)
        .filter(value -> value.liveAt(around.clock().millis()));
  }

  private void fill(String key, CacheValue value, long readNs, long epoch, long stamp) {
    if (hasNear && epoch >= 0) {
      long untilNs = readNs + AGE_NS;
      if (value.expiresAtMs() != 0) {
        long leftMs = value.expiresAtMs() - around.clock().millis();
        untilNs = Math.min(untilNs, readNs + leftMs * 1_000_000L);
      }
      near.fill(key, new Near(value, untilNs, epoch), stamp);
    }
  }

  @Override
  public Map<String, byte[]> getAll(Collection<String> keys) {
    checkCount(keys.size());
    keys.forEach(GridCache::checkKey);
    boolean joined = grid.inTransaction();
    Map<String, byte[]> all = new HashMap<>();
    Set<String> missing = new TreeSet<>();
    long nowNs = around.nanoTime().getAsLong();
    long epoch = around.coherence().epochAt(nowNs);
    Map<String, Long> stamps = new HashMap<>();
    for (String key : keys) {
      Near found = joined || !hasNear ? null : near.find(key);
      if (found != null && found.epoch() == epoch && found.untilNs() - nowNs > 0) {
        all.put(key, found.value().bytes().clone());
      } else {
        missing.add(key);
        stamps.put(key, near.stamp(key));
      }
    }
    nearHits.add(all.size());
    if (missing.isEmpty()) {
      return all;
    }
    Map<String, byte[]> read = grid.read(what("reading"), ignite -> engine(ignite).getAll(missing));
    step("get", missing);
    for (String key : missing) {
      byte[] encoded = read.get(key);
      Optional<CacheValue> value =
          counted(
              Optional.ofNullable(encoded)
                  .map(CacheValue::decode)
                  .filter(v -> v.liveAt(around.clock().millis())));
      if (value.isPresent()) {
        if (!joined) {
          fill(key, value.get(), nowNs, epoch, stamps.getOrDefault(key, -1L));
        }
        all.put(key, value.get().bytes().clone());
      }
    }
    return all;
  }

  // Loading.

  private Optional<byte[]> load(String key) {
    try {
      Optional<byte[]> loaded = around.stores().apply(config.store().orElseThrow()).load(key);
      loaded.ifPresent(bytes -> checkValue(bytes));
      loads.increment();
      return loaded;
    } catch (RuntimeException | Error e) {
      loadFailures.increment();
      throw e;
    }
  }

  private String claimKey(String key) {
    return engineName + "\n" + key;
  }

  private final class LoadTarget implements CacheLoads.Target {
    private final String key;

    LoadTarget(String key) {
      this.key = key;
    }

    @Override
    public String claimKey() {
      return GridCache.this.claimKey(key);
    }

    @Override
    public String what() {
      return GridCache.this.what("loading into");
    }

    @Override
    public long timeoutMs() {
      return config.loadTimeoutMs();
    }

    @Override
    public Optional<byte[]> load() {
      return GridCache.this.load(key);
    }

    @Override
    public Optional<CacheValue> find(Ignite ignite) {
      return GridCache.this.find(ignite, key);
    }

    @Override
    public CacheValue keep(Ignite ignite, byte[] loaded) {
      CacheValue value = fresh(loaded, Optional.empty());
      engine(ignite).put(key, value.encode());
      return value;
    }

    @Override
    public void kept() {
      around.coherence().written(name, List.of(key));
    }
  }

  // Writing.

  private CacheValue fresh(byte[] value, Optional<Duration> ttl) {
    long nowMs = around.clock().millis();
    long ttlMs = ttl.map(Duration::toMillis).orElse(config.ttlMs());
    if (ttl.isPresent() && (ttlMs < 1 || ttlMs > CacheConfig.TTL_MS_MAX)) {
      throw new FlotillaException(
          Code.INVALID,
          "the time to live must be from 1 to " + CacheConfig.TTL_MS_MAX + " ms",
          "Leave it out for the cache's own.");
    }
    return new CacheValue(newVersion(), ttlMs == 0 ? 0 : nowMs + ttlMs, nowMs, value);
  }

  /** Random, so that no counter need be kept for entries that have gone; never 0. */
  private long newVersion() {
    return Math.max(1, around.random().nextLong() >>> 1);
  }

  /**
   * Changes entries inside a transaction, this thread's or one of its own, and tells all near
   * caches when it has ended, whatever came of it.
   */
  private <T> T write(Collection<String> keys, Function<Ignite, T> operation) {
    String what = what("writing");
    Function<Ignite, T> superseding =
        config.store().isEmpty()
            ? operation
            : ignite -> {
              new TreeSet<>(keys).forEach(key -> around.loads().supersede(ignite, claimKey(key)));
              return operation.apply(ignite);
            };
    ensure();
    if (grid.inTransaction()) {
      if (config.writeThrough()) {
        throw new FlotillaException(
            Code.INVALID,
            what + ": it writes through to a store, which could not be rolled back",
            "Write it outside of the transaction.");
      }
      grid.afterTransaction(() -> around.coherence().written(name, keys));
      T result = grid.write(what, superseding);
      writes.add(keys.size());
      return result;
    }
    try {
      T result = grid.transact(what, TransactionMode.PESSIMISTIC, superseding);
      writes.add(keys.size());
      return result;
    } finally {
      around.coherence().written(name, keys);
    }
  }

  /** Decides what each key will hold, given the engine under the locks; and what to return. */
  private record Changes<T>(Map<String, Optional<CacheValue>> values, T result) {}

  /**
   * As {@link #write}, and to the store too if the cache writes through: the store's part comes
   * last before the commit, and is undone if the commit is then refused.
   */
  private <T> T writeThrough(Collection<String> keys, Function<Ignite, Changes<T>> decision) {
    Map<String, Optional<byte[]>> undo = new TreeMap<>();
    try {
      return write(
          keys,
          ignite -> {
            Changes<T> changes = decision.apply(ignite);
            apply(ignite, changes.values());
            if (config.writeThrough() && !changes.values().isEmpty()) {
              store(changes.values(), undo);
            }
            return changes.result();
          });
    } catch (FlotillaException e) {
      if (!undo.isEmpty() && e.code() != Code.OUTCOME_UNKNOWN) {
        around.stores().apply(config.store().orElseThrow()).write(undo);
      }
      throw e;
    }
  }

  private void store(Map<String, Optional<CacheValue>> values, Map<String, Optional<byte[]>> undo) {
    CacheStore store = around.stores().apply(config.store().orElseThrow());
    Map<String, Optional<byte[]>> before = new TreeMap<>();
    Map<String, Optional<byte[]>> after = new TreeMap<>();
    values.forEach(
        (key, value) -> {
          before.put(key, store.load(key));
          after.put(key, value.map(CacheValue::bytes));
        });
    store.write(after);
    undo.putAll(before);
  }

  /** Says what this thread's transaction, if it is in one, has done here. */
  private void step(String did, Collection<String> keys) {
    if (!keys.isEmpty()) {
      TransactionScope.current()
          .ifPresent(scope -> scope.step("cache " + name + ": " + did + " " + keys));
    }
  }

  private void apply(Ignite ignite, Map<String, Optional<CacheValue>> changes) {
    Map<String, byte[]> puts = new TreeMap<>();
    Set<String> removals = new TreeSet<>();
    changes.forEach(
        (key, value) -> {
          if (value.isPresent()) {
            puts.put(key, value.get().encode());
          } else {
            removals.add(key);
          }
        });
    if (!puts.isEmpty()) {
      engine(ignite).putAll(puts);
    }
    if (!removals.isEmpty()) {
      engine(ignite).removeAll(removals);
    }
    step("put", puts.keySet());
    step("remove", removals);
  }

  @Override
  public long put(String key, byte[] value, Optional<Duration> ttl) {
    checkKey(key);
    checkValue(value);
    CacheValue written = fresh(value, ttl);
    return writeThrough(
        List.of(key),
        ignite -> new Changes<>(Map.of(key, Optional.of(written)), written.version()));
  }

  @Override
  public void putAll(Map<String, byte[]> entries, Optional<Duration> ttl) {
    checkCount(entries.size());
    Map<String, Optional<CacheValue>> changes = new TreeMap<>();
    entries.forEach(
        (key, value) -> {
          checkKey(key);
          checkValue(value);
          changes.put(key, Optional.of(fresh(value, ttl)));
        });
    if (!changes.isEmpty()) {
      var _ = writeThrough(changes.keySet(), ignite -> new Changes<>(changes, true));
    }
  }

  /** Reads an entry, decides, and writes it, under the entry's lock. */
  private <T> T change(String key, Function<Optional<CacheValue>, Changes<T>> decision) {
    checkKey(key);
    return writeThrough(List.of(key), ignite -> decision.apply(find(ignite, key)));
  }

  private static <T> Changes<T> nothing(T result) {
    return new Changes<>(Map.of(), result);
  }

  private static <T> Changes<T> to(String key, Optional<CacheValue> value, T result) {
    return new Changes<>(Map.of(key, value), result);
  }

  @Override
  public Optional<Long> compareAndSet(
      String key, long expectedVersion, byte[] value, Optional<Duration> ttl) {
    checkValue(value);
    CacheValue written = fresh(value, ttl);
    return change(
        key,
        found ->
            found.map(CacheValue::version).orElse(0L) == expectedVersion
                ? to(key, Optional.of(written), Optional.of(written.version()))
                : nothing(Optional.empty()));
  }

  @Override
  public Optional<Long> compareAndSet(
      String key, Optional<byte[]> expected, byte[] value, Optional<Duration> ttl) {
    checkValue(value);
    CacheValue written = fresh(value, ttl);
    return change(
        key,
        found ->
            found.isPresent() == expected.isPresent()
                    && (found.isEmpty()
                        || Arrays.equals(found.get().bytes(), expected.orElseThrow()))
                ? to(key, Optional.of(written), Optional.of(written.version()))
                : nothing(Optional.empty()));
  }

  @Override
  public long increment(String key, long by) {
    return change(
        key,
        found -> {
          long sum = sum(found, by);
          byte[] text = Long.toString(sum).getBytes(StandardCharsets.US_ASCII);
          CacheValue written = fresh(text, Optional.empty());
          long expiresAtMs = found.isEmpty() ? written.expiresAtMs() : found.get().expiresAtMs();
          return to(
              key,
              Optional.of(
                  new CacheValue(written.version(), expiresAtMs, written.writtenAtMs(), text)),
              sum);
        });
  }

  private long sum(Optional<CacheValue> found, long by) {
    try {
      long before =
          found.isEmpty()
              ? 0
              : Long.parseLong(new String(found.get().bytes(), StandardCharsets.US_ASCII));
      return Math.addExact(before, by);
    } catch (NumberFormatException e) {
      throw new FlotillaException(
          Code.INVALID,
          what("incrementing in") + ": the value is not a decimal number",
          "Increment only what was written as one.",
          e);
    } catch (ArithmeticException e) {
      throw new FlotillaException(
          Code.INVALID, what("incrementing in") + ": the sum does not fit 64 bits", "", e);
    }
  }

  @Override
  public Optional<byte[]> getAndPut(String key, byte[] value, Optional<Duration> ttl) {
    checkValue(value);
    CacheValue written = fresh(value, ttl);
    return change(key, found -> to(key, Optional.of(written), found.map(CacheValue::bytes)));
  }

  @Override
  public Optional<byte[]> getAndRemove(String key) {
    return change(
        key,
        found ->
            found.isPresent() || config.writeThrough()
                ? to(key, Optional.empty(), found.map(CacheValue::bytes))
                : nothing(Optional.empty()));
  }

  @Override
  public boolean remove(String key, long expectedVersion) {
    return change(
        key,
        found ->
            found.isPresent() && found.get().version() == expectedVersion
                ? to(key, Optional.empty(), true)
                : nothing(false));
  }

  @Override
  public void clear() {
    if (grid.inTransaction()) {
      throw new FlotillaException(
          Code.INVALID, what("clearing") + " cannot be part of a transaction", "");
    }
    try {
      grid.write(
          what("clearing"),
          ignite -> {
            engine(ignite).removeAll();
            return true;
          });
    } finally {
      around.coherence().writtenAll(name);
    }
  }

  // What coherence and bounds do with it.

  /** Forgets a key that was written. */
  void forget(String key) {
    near.invalidate(key);
  }

  /** Gives the near cache's memory back; the leases' epoch makes it invalid. */
  void forgetAll() {
    near.clear();
  }

  /** It was dropped: who still holds it is refused. */
  void retire() {
    retired = true;
    near.retire();
    meters.forEach(around.metrics()::remove);
  }

  void evicted(long count) {
    gridEvictions.add(count);
  }

  void expired(long count) {
    expired.add(count);
  }

  void localBytes(long bytes) {
    localBytes = bytes;
  }

  /** What this node has counted by itself; the entries are all nodes' together. */
  CacheStatistics ownStatistics() {
    return new CacheStatistics(
        nearHits.sum(),
        gridHits.sum(),
        misses.sum(),
        loads.sum(),
        loadFailures.sum(),
        writes.sum(),
        near.evictions(),
        gridEvictions.sum(),
        expired.sum(),
        near.size(),
        near.bytes(),
        0,
        localBytes);
  }

  @Override
  public CacheStatistics statistics() {
    long entries =
        grid.read(what("counting"), ignite -> engine(ignite).sizeLong(CachePeekMode.PRIMARY));
    return around.coherence().othersStatistics(name).stream()
        .reduce(ownStatistics(), CacheStatistics::plus)
        .withEntries(entries);
  }

  // Bounds of what callers give.

  private static void checkKey(String key) {
    // Most keys are far too short to need their length counted.
    if (key.isEmpty()) {
      throw new FlotillaException(Code.INVALID, "a cache's key must not be empty", "");
    }
    if (3 * key.length() > KEY_BYTES_MAX
        && key.getBytes(StandardCharsets.UTF_8).length > KEY_BYTES_MAX) {
      throw new FlotillaException(
          Code.TOO_LARGE,
          "the key is longer than " + KEY_BYTES_MAX + " bytes",
          "Use a digest of it.");
    }
  }

  private static void checkValue(byte[] value) {
    if (value.length > VALUE_BYTES_MAX) {
      throw new FlotillaException(
          Code.TOO_LARGE,
          "the value has " + value.length + " bytes, more than the " + VALUE_BYTES_MAX + " allowed",
          "Keep it as a blob, and cache its digest.");
    }
  }

  private static void checkCount(int count) {
    if (count > KEYS_MAX) {
      throw new FlotillaException(
          Code.TOO_LARGE,
          count + " keys at once are more than the " + KEYS_MAX + " allowed",
          "Ask for fewer at a time.");
    }
  }
}

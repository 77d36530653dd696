package dev.flotilla.data.cache;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.data.grid.Grid;
import java.time.InstantSource;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.Function;
import java.util.random.RandomGenerator;
import javax.cache.expiry.CreatedExpiryPolicy;
import javax.cache.expiry.Duration;
import org.apache.ignite.Ignite;
import org.apache.ignite.IgniteCache;
import org.apache.ignite.configuration.CacheConfiguration;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * One load per key at a time over the whole cluster, so that a popular key that expires does not
 * send everyone to the store at once.
 *
 * <p>Within a node, the first to miss loads, and the others wait for its future. Between nodes, a
 * claim in the grid decides: whoever writes it loads, the others look again until the value is
 * there. A claim counts until its time is over or its node is gone; then another takes it. A load's
 * result is kept only if its claim is still there and nobody wrote the key meanwhile, so that a
 * slow load never replaces something newer.
 */
final class CacheLoads {

  private static final String CLAIMS = "flotilla.cache-claims";
  private static final Logger log = LoggerFactory.getLogger(CacheLoads.class);
  private static final long LOOK_MS_MIN = 5;
  private static final long LOOK_MS_MAX = 50;

  /** What a cache lends to the load of one of its keys. */
  interface Target {

    /** Names the key among those of all caches. */
    String claimKey();

    String what();

    long timeoutMs();

    /** From the store. */
    Optional<byte[]> load();

    /** The live value in the grid. */
    Optional<CacheValue> find(Ignite ignite);

    /** Writes what was loaded to the grid. */
    CacheValue keep(Ignite ignite, byte[] loaded);

    /** After {@link #keep} has been committed. */
    void kept();
  }

  private sealed interface Claim {}

  private record Found(CacheValue value) implements Claim {}

  private record Mine(String claim) implements Claim {}

  private record Theirs() implements Claim {}

  private final Grid grid;
  private final InstantSource clock;
  private final RandomGenerator random;
  private final Map<String, CompletableFuture<Optional<CacheValue>>> flights =
      new ConcurrentHashMap<>();

  CacheLoads(Grid grid, InstantSource clock, RandomGenerator random) {
    this.grid = grid;
    this.clock = clock;
    this.random = random;
  }

  private IgniteCache<String, String> claims(Ignite ignite) {
    return grid.cache(ignite, CLAIMS, CacheLoads::configure);
  }

  private static CacheConfiguration<String, String> configure(
      CacheConfiguration<String, String> claims) {
    return claims.setExpiryPolicyFactory(
        CreatedExpiryPolicy.factoryOf(new Duration(TimeUnit.MINUTES, 20)));
  }

  /** Makes the place for claims. */
  void ensure() {
    grid.ensureCache(CLAIMS, CacheLoads::configure);
  }

  /** A write inside the running transaction makes any load under way worthless. */
  void supersede(Ignite ignite, String claimKey) {
    claims(ignite).remove(claimKey);
  }

  /** Loads, or waits for who does. */
  Optional<CacheValue> load(Target target) {
    CompletableFuture<Optional<CacheValue>> own = new CompletableFuture<>();
    CompletableFuture<Optional<CacheValue>> first = flights.putIfAbsent(target.claimKey(), own);
    if (first != null) {
      return await(first, target);
    }
    try {
      Optional<CacheValue> loaded = loadAlone(target);
      own.complete(loaded);
      return loaded;
    } catch (RuntimeException | Error e) {
      own.completeExceptionally(e);
      throw e;
    } finally {
      flights.remove(target.claimKey(), own);
    }
  }

  private static Optional<CacheValue> await(
      CompletableFuture<Optional<CacheValue>> flight, Target target) {
    try {
      return flight.get(target.timeoutMs(), TimeUnit.MILLISECONDS);
    } catch (TimeoutException e) {
      throw tooSlow(target);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new FlotillaException(Code.FAILED, "interrupted", "", e);
    } catch (ExecutionException e) {
      if (e.getCause() instanceof FlotillaException known) {
        throw known;
      }
      throw new FlotillaException(
          Code.FAILED, target.what() + ": the load failed: " + e.getCause(), "Try again.", e);
    }
  }

  private static FlotillaException tooSlow(Target target) {
    return new FlotillaException(
        Code.BUSY,
        target.what() + ": another load of it took longer than " + target.timeoutMs() + " ms",
        "Try again; its load_timeout_ms bounds this.");
  }

  private Optional<CacheValue> loadAlone(Target target) {
    long deadlineMs = clock.millis() + target.timeoutMs();
    long lookMs = LOOK_MS_MIN;
    while (true) {
      switch (claim(target)) {
        case Found(CacheValue value) -> {
          return Optional.of(value);
        }
        case Mine(String claim) -> {
          return loadUnder(claim, target);
        }
        case Theirs() -> {
          if (clock.millis() > deadlineMs) {
            throw tooSlow(target);
          }
          sleep(lookMs);
          lookMs = Math.min(LOOK_MS_MAX, 2 * lookMs);
        }
      }
    }
  }

  private static void sleep(long ms) {
    try {
      Thread.sleep(ms);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new FlotillaException(Code.FAILED, "interrupted", "", e);
    }
  }

  private Claim claim(Target target) {
    // A look without locks, since many may be waiting here.
    Claim seen =
        grid.read(
            target.what(),
            ignite -> {
              Optional<CacheValue> value = target.find(ignite);
              if (value.isPresent()) {
                return new Found(value.get());
              }
              return counts(ignite, claims(ignite).get(target.claimKey()))
                  ? new Theirs()
                  : new Mine("");
            });
    return seen instanceof Mine ? transact(target.what(), i -> claim(i, target)) : seen;
  }

  private Claim claim(Ignite ignite, Target target) {
    String key = target.claimKey();
    if (counts(ignite, claims(ignite).get(key))) {
      return new Theirs();
    }
    Optional<CacheValue> value = target.find(ignite);
    if (value.isPresent()) {
      return new Found(value.get());
    }
    String mine =
        grid.self()
            + "|"
            + Long.toHexString(random.nextLong())
            + "|"
            + (clock.millis() + target.timeoutMs());
    claims(ignite).put(key, mine);
    return new Mine(mine);
  }

  private boolean counts(Ignite ignite, @Nullable String claim) {
    if (claim == null) {
      return false;
    }
    String[] parts = claim.split("\\|", -1);
    return clock.millis() < Long.parseLong(parts[2]) && Grid.visible(ignite).contains(parts[0]);
  }

  private Optional<CacheValue> loadUnder(String claim, Target target) {
    Optional<byte[]> loaded;
    try {
      loaded = target.load();
    } catch (RuntimeException | Error e) {
      release(claim, target);
      throw e;
    }
    if (loaded.isEmpty()) {
      release(claim, target);
      return Optional.empty();
    }
    CacheValue value =
        transact(
            target.what(),
            ignite -> {
              boolean mine = Objects.equals(claims(ignite).get(target.claimKey()), claim);
              if (mine) {
                claims(ignite).remove(target.claimKey());
              }
              Optional<CacheValue> newer = target.find(ignite);
              if (newer.isPresent()) {
                return newer.get();
              }
              return mine
                  ? target.keep(ignite, loaded.get())
                  // Superseded: good for this reader, which asked before, but not for keeping.
                  : new CacheValue(0, 0, 0, loaded.get());
            });
    target.kept();
    return Optional.of(value);
  }

  private void release(String claim, Target target) {
    try {
      var _ =
          transact(
              target.what(),
              ignite ->
                  Objects.equals(claims(ignite).get(target.claimKey()), claim)
                      && claims(ignite).remove(target.claimKey()));
    } catch (FlotillaException e) {
      // It runs out by itself; what went wrong before matters more.
      log.warn("the claim to {} stays until it runs out: {}", target.what(), e.getMessage());
    }
  }

  private <T> T transact(String what, Function<Ignite, T> operation) {
    return grid.transact(what, Grid.TransactionMode.PESSIMISTIC, operation);
  }
}

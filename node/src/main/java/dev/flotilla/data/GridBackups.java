package dev.flotilla.data;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.Registry;
import dev.flotilla.data.grid.Grid;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.time.Instant;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.regex.Pattern;
import javax.cache.Cache;
import org.apache.ignite.Ignite;
import org.apache.ignite.IgniteCache;
import org.apache.ignite.IgniteCheckedException;
import org.apache.ignite.IgniteException;
import org.apache.ignite.cache.CacheAtomicityMode;
import org.apache.ignite.internal.IgniteEx;
import org.apache.ignite.internal.processors.cache.persistence.snapshot.IgniteSnapshotManager;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Backups by the engine's snapshots. The registry lists them; what it says of tables and caches is
 * laid into a cache of the grid just before each point, and so is part of it.
 */
final class GridBackups implements Backups {

  /** The registry's and the manifest's record. */
  record Stored(String name, String folder, List<Long> pointsMs) {

    Backup view() {
      return new Backup(
          name,
          folder.isEmpty() ? Optional.empty() : Optional.of(folder),
          pointsMs.stream().map(Instant::ofEpochMilli).toList());
    }
  }

  private static final Logger log = LoggerFactory.getLogger(Grid.class);
  private static final String KIND = "backup";
  private static final String REGISTRY_CACHE = "flotilla.registry";
  private static final long FOLDERS_GONE_NS = 30_000_000_000L;
  private static final Pattern NAME = Pattern.compile("[A-Za-z0-9_]{1,64}");

  private final Cluster cluster;
  private final Grid grid;
  private final InstantSource clock;
  private final List<String> kinds;

  /**
   * @param kinds those entries of the registry that say what the grid's contents mean
   */
  GridBackups(Cluster cluster, Grid grid, InstantSource clock, List<String> kinds) {
    this.cluster = cluster;
    this.grid = grid;
    this.clock = clock;
    this.kinds = List.copyOf(kinds);
  }

  @Override
  public Backup create(String name, Optional<String> folder) {
    checkName(name);
    folder.ifPresent(GridBackups::checkFolder);
    if (cluster.registry().get(key(name)).isPresent()) {
      throw new FlotillaException(
          Code.CONFLICT, "there is a backup " + name, "Choose another name, or add a point to it.");
    }
    long nowMs = clock.millis();
    snapshot(name, folder, false);
    Stored stored = new Stored(name, folder.orElse(""), List.of(nowMs));
    store(0, stored);
    log.info("backup {} made", name);
    return stored.view();
  }

  @Override
  public Backup addPoint(String name) {
    checkName(name);
    Registry.Entry entry = cluster.registry().get(key(name)).orElseThrow(() -> missing(name));
    Stored before = Json.read(entry.value(), Stored.class);
    List<Long> points = new ArrayList<>(before.pointsMs());
    points.add(clock.millis());
    snapshot(name, before.view().folder(), true);
    Stored stored = new Stored(name, before.folder(), points);
    store(entry.epoch(), stored);
    log.info("backup {}: point {} added", name, points.size() - 1);
    return stored.view();
  }

  private void store(long epoch, Stored stored) {
    var _ =
        cluster
            .registry()
            .commit(
                List.of(new Registry.Condition(key(stored.name()), epoch)),
                List.of(new Registry.Write(key(stored.name()), Optional.of(Json.write(stored)))))
            .orElseThrow(
                () ->
                    new FlotillaException(
                        Code.CONFLICT,
                        "backup " + stored.name() + " was changed by somebody else meanwhile",
                        "Look at the list of backups."));
    if (!stored.folder().isEmpty()) {
      writeManifest(stored);
    }
  }

  private void snapshot(String name, Optional<String> folder, boolean point) {
    String what = point ? "adding a point to backup " + name : "making backup " + name;
    grid.write(
        what,
        ignite -> {
          IgniteCache<String, byte[]> copy = registryCache(ignite);
          copy.clear();
          for (String kind : kinds) {
            for (Registry.Entry entry : cluster.registry().list(kind)) {
              copy.put(kind + "\n" + entry.key().name(), entry.value());
            }
          }
          return true;
        });
    grid.write(
        what,
        ignite -> {
          try {
            snapshots(ignite).createSnapshot(name, folder.orElse(null), point, false).get();
            return true;
          } catch (IgniteException e) {
            throw new FlotillaException(
                point ? Code.CONFLICT : Code.FAILED,
                what + " failed, and nothing was kept: " + deepest(e),
                point ? "Make a new backup." : "Look at the nodes' logs and disks.",
                e);
          }
        });
  }

  private IgniteCache<String, byte[]> registryCache(Ignite ignite) {
    return ignite.getOrCreateCache(
        grid.<String, byte[]>cacheConfig(REGISTRY_CACHE, CacheAtomicityMode.TRANSACTIONAL));
  }

  @Override
  public List<Backup> list() {
    return cluster.registry().list(KIND).stream()
        .map(entry -> Json.read(entry.value(), Stored.class))
        .sorted(Comparator.comparing(stored -> stored.pointsMs().getFirst()))
        .map(Stored::view)
        .toList();
  }

  @Override
  public Instant restore(String name, Optional<String> folder, Optional<Instant> at) {
    checkName(name);
    folder.ifPresent(GridBackups::checkFolder);
    Stored stored =
        cluster
            .registry()
            .get(key(name))
            .map(entry -> Json.read(entry.value(), Stored.class))
            .or(() -> folder.flatMap(f -> readManifest(f, name)))
            .orElseThrow(() -> missing(name));
    int point = pointAt(stored, at);
    Optional<String> place = folder.or(() -> stored.view().folder());
    grid.restoring("restoring backup " + name, ignite -> check(ignite, name, place, point));
    long closed = grid.close("restoring backup " + name);
    grid.restoring(
        "restoring backup " + name,
        ignite -> {
          replace(ignite, name, place, point);
          bringRegistry(ignite);
          return true;
        });
    grid.open(closed);
    log.warn("backup {}: gone back to point {}", name, point);
    return Instant.ofEpochMilli(stored.pointsMs().get(point));
  }

  /** The last point that is not after the moment. */
  static int pointAt(Stored stored, Optional<Instant> at) {
    int last = stored.pointsMs().size() - 1;
    if (at.isEmpty()) {
      return last;
    }
    for (int point = last; point >= 0; point--) {
      if (stored.pointsMs().get(point) <= at.get().toEpochMilli()) {
        return point;
      }
    }
    throw new FlotillaException(
        Code.NOT_FOUND,
        "backup " + stored.name() + " has no point as old as " + at.get(),
        "Its first is " + Instant.ofEpochMilli(stored.pointsMs().getFirst()) + ".");
  }

  private static boolean check(Ignite ignite, String name, Optional<String> folder, int point) {
    try {
      var result =
          point == 0
              ? snapshots(ignite).checkSnapshot(name, folder.orElse(null)).get()
              : snapshots(ignite).checkSnapshot(name, folder.orElse(null), point).get();
      if (!result.exceptions().isEmpty()) {
        throw damaged(name, deepest(result.exceptions().values().iterator().next()));
      }
      var hashes = result.idleVerifyResult();
      // Copies of caches without transactions may differ at a point: see the interface.
      if (point == 0 && hashes != null && hashes.hasConflicts()) {
        throw damaged(name, "its copies of a partition differ");
      }
      return true;
    } catch (IgniteCheckedException | IgniteException e) {
      if (point > 0 && deepest(e).contains("single snapshot metafile")) {
        throw new FlotillaException(
            Code.INVALID,
            "backup "
                + name
                + " was made by other nodes, and its later points can be gone back to"
                + " only by the nodes that made them",
            "Name the moment of its first point with --at.");
      }
      throw damaged(name, deepest(e));
    }
  }

  private static FlotillaException damaged(String name, String why) {
    return new FlotillaException(
        Code.BAD_FILE,
        "backup " + name + " cannot be used, and nothing was changed: " + why,
        "Bring back the parts of all its nodes, or use another backup.");
  }

  private static void replace(Ignite ignite, String name, Optional<String> folder, int point) {
    long deadlineNs = System.nanoTime() + FOLDERS_GONE_NS;
    while (true) {
      ignite.destroyCaches(ignite.cacheNames());
      try {
        snapshots(ignite).restoreSnapshot(name, folder.orElse(null), null, point, false).get();
        return;
      } catch (IgniteException e) {
        // The other nodes delete the folders of destroyed caches a little later.
        if (!deepest(e).contains("directory is not empty") || System.nanoTime() > deadlineNs) {
          throw e;
        }
      }
      try {
        Thread.sleep(200);
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        throw new IgniteException(e);
      }
    }
  }

  /** The registry's entries of our kinds become those of the backup. */
  private void bringRegistry(Ignite ignite) {
    List<Registry.Write> writes = new ArrayList<>();
    Set<Registry.Key> kept = new HashSet<>();
    IgniteCache<String, byte[]> copy = ignite.cache(REGISTRY_CACHE);
    for (Cache.Entry<String, byte[]> entry : copy) {
      String[] parts = entry.getKey().split("\n", 2);
      Registry.Key key = new Registry.Key(parts[0], parts[1]);
      kept.add(key);
      writes.add(new Registry.Write(key, Optional.of(entry.getValue())));
    }
    for (String kind : kinds) {
      for (Registry.Entry entry : cluster.registry().list(kind)) {
        if (!kept.contains(entry.key())) {
          writes.add(new Registry.Write(entry.key(), Optional.empty()));
        }
      }
    }
    if (!writes.isEmpty()) {
      var _ = cluster.registry().commit(List.of(), writes).orElseThrow();
    }
  }

  private static IgniteSnapshotManager snapshots(Ignite ignite) {
    return ((IgniteEx) ignite).context().cache().context().snapshotMgr();
  }

  private static Path manifest(String folder, String name) {
    return Path.of(folder).resolve(name + ".json");
  }

  private static void writeManifest(Stored stored) {
    Path file = manifest(stored.folder(), stored.name());
    try {
      Path temporary = file.resolveSibling(file.getFileName() + ".tmp");
      Files.write(temporary, Json.write(stored));
      Files.move(
          temporary, file, StandardCopyOption.REPLACE_EXISTING, StandardCopyOption.ATOMIC_MOVE);
    } catch (IOException e) {
      throw new FlotillaException(
          Code.STORAGE,
          "backup " + stored.name() + " was made, but not its list of points: " + e.getMessage(),
          "Add a point once " + stored.folder() + " has space.",
          e);
    }
  }

  private static Optional<Stored> readManifest(String folder, String name) {
    try {
      return Optional.of(Json.read(Files.readAllBytes(manifest(folder, name)), Stored.class));
    } catch (IOException e) {
      return Optional.empty();
    }
  }

  private static Registry.Key key(String name) {
    return new Registry.Key(KIND, name);
  }

  private static void checkName(String name) {
    if (!NAME.matcher(name).matches()) {
      throw new FlotillaException(
          Code.INVALID,
          "a backup's name must be 1 to 64 letters, digits and underscores",
          "Choose another name.");
    }
  }

  private static void checkFolder(String folder) {
    if (!folder.startsWith("/") || folder.indexOf('\0') >= 0) {
      throw new FlotillaException(
          Code.INVALID,
          "a backup's folder must be an absolute path on every node",
          "Begin it with a slash.");
    }
  }

  private static FlotillaException missing(String name) {
    return new FlotillaException(
        Code.NOT_FOUND,
        "there is no backup " + name,
        "Look at the list of backups; to use one of another cluster, name its folder.");
  }

  private static String deepest(Throwable e) {
    Throwable cause = e;
    while (cause.getCause() != null) {
      cause = cause.getCause();
    }
    return String.valueOf(cause.getMessage());
  }
}

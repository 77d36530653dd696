package dev.flotilla.data;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.Lease;
import dev.flotilla.cluster.Locks;
import dev.flotilla.cluster.NodeFiles;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.cluster.Registry;
import dev.flotilla.data.grid.Grid;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import java.util.UUID;
import java.util.function.Supplier;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import javax.cache.Cache;
import org.apache.ignite.Ignite;
import org.apache.ignite.IgniteCache;
import org.apache.ignite.IgniteCheckedException;
import org.apache.ignite.IgniteException;
import org.apache.ignite.internal.IgniteEx;
import org.apache.ignite.internal.processors.cache.persistence.snapshot.IgniteSnapshotManager;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Backups by the engine's snapshots. The registry lists them; what it says of tables and caches is
 * laid into a cache of the grid just before each point, and so is part of it.
 */
final class GridBackups implements Backups {

  /**
   * The registry's and the manifest's record.
   *
   * @param changesFromMs since when changes are written behind the copy; 0 if they are not
   * @param changesToMs up to when, once they are not any more; 0 before
   * @param without see {@link Backup}; null from earlier builds
   */
  record Stored(
      String name,
      String folder,
      List<Long> pointsMs,
      long changesFromMs,
      long changesToMs,
      @Nullable List<String> without) {

    Optional<String> place() {
      return folder.isEmpty() ? Optional.empty() : Optional.of(folder);
    }
  }

  /** A deleted backup of which these nodes may still have their parts. */
  record Remains(String folder, Set<String> nodes) {

    /** Empty when no node is left. */
    Optional<Remains> without(String node) {
      Set<String> left = new TreeSet<>(nodes);
      left.remove(node);
      return left.isEmpty() ? Optional.empty() : Optional.of(new Remains(folder, left));
    }
  }

  private static final Logger log = LoggerFactory.getLogger(Grid.class);
  private static final String KIND = "backup";
  private static final String REGISTRY_CACHE = "flotilla.registry";
  static final String REMAINS_KIND = "backup-remains";
  private static final String LOCK = "flotilla.backups";
  private static final long JOURNALS_NS = 60_000_000_000L;
  private static final long FOLDERS_GONE_NS = 30_000_000_000L;
  private static final long PARTS_GONE_NS = 10_000_000_000L;
  private static final Pattern NAME = Pattern.compile("[A-Za-z0-9_]{1,64}");

  private final Cluster cluster;
  private final Grid grid;
  private final Locks locks;
  private final InstantSource clock;
  private final List<String> kinds;
  private final Optional<ChangeJournal> journal;
  private final BackupFolders folders;

  /**
   * @param journal writes changes behind the last backup
   * @param kinds those entries of the registry that say what the grid's contents mean
   */
  GridBackups(
      Cluster cluster,
      Grid grid,
      Locks locks,
      InstantSource clock,
      List<String> kinds,
      Optional<ChangeJournal> journal) {
    this.cluster = cluster;
    this.grid = grid;
    this.locks = locks;
    this.clock = clock;
    this.kinds = List.copyOf(kinds);
    this.journal = journal;
    this.folders = new BackupFolders(cluster);
  }

  /** One at a time in the cluster: each rests on what the one before left. */
  private <T> T alone(Supplier<T> action) {
    String holder = cluster.self() + "/" + UUID.randomUUID();
    try (Lease lease =
        locks
            .lease(Locks.Request.exclusive(LOCK, holder))
            .orElseThrow(
                () ->
                    new FlotillaException(
                        Code.CONFLICT,
                        "another backup is being made, restored or deleted",
                        "Nothing was done; wait for it to end."))) {
      log.debug("backups: {} has the turn", lease.grant().holder());
      return action.get();
    }
  }

  @Override
  public Backup create(String name, Optional<String> folder) {
    checkName(name);
    folder.ifPresent(GridBackups::checkFolder);
    return alone(() -> createAlone(name, folder));
  }

  private Backup createAlone(String name, Optional<String> folder) {
    if (cluster.registry().get(key(name)).isPresent()) {
      throw new FlotillaException(
          Code.CONFLICT, "there is a backup " + name, "Choose another name, or add a point to it.");
    }
    awaitGone(name);
    folder.ifPresent(place -> folders.check(place, name));
    Optional<ChangeJournal.Current> followedBefore = current();
    Optional<Registry.Entry> storedBefore =
        followedBefore.flatMap(before -> cluster.registry().get(key(before.backup())));
    if (journal.isPresent()) {
      follow(Optional.of(new ChangeJournal.Current(name, folder.orElse(""))), name);
    }
    List<String> without = lostMembers();
    long nowMs;
    try {
      if (journal.isPresent()) {
        awaitJournals(name);
      }
      nowMs = clock.millis();
      snapshot(name, folder, false);
    } catch (RuntimeException e) {
      if (journal.isPresent()) {
        followAgain(followedBefore, storedBefore);
      }
      throw e;
    }
    // The copy is of some moment since its beginning: what was changed until now may be in or not.
    Stored stored =
        new Stored(
            name,
            folder.orElse(""),
            List.of(nowMs),
            journal.isPresent() ? clock.millis() : 0,
            0,
            without);
    store(0, stored);
    if (without.isEmpty()) {
      log.info("backup {} made", name);
    } else {
      log.warn("backup {} made without nodes {}, which are lost", name, without);
    }
    return view(stored);
  }

  private List<String> lostMembers() {
    return cluster.nodes().stream()
        .filter(node -> node.state() == NodeInfo.State.LOST && grid.isMember(node.id()))
        .map(NodeInfo::name)
        .toList();
  }

  /** Until no node has parts of a deleted backup of that name, which would be in the way. */
  private void awaitGone(String name) {
    long deadlineNs = System.nanoTime() + PARTS_GONE_NS;
    while (true) {
      Set<String> left =
          cluster
              .registry()
              .get(new Registry.Key(REMAINS_KIND, name))
              .map(entry -> Json.read(entry.value(), Remains.class).nodes())
              .orElse(Set.of());
      List<String> having =
          cluster.nodes().stream()
              .filter(node -> left.contains(node.id()))
              .map(NodeInfo::name)
              .toList();
      if (having.isEmpty()) {
        return;
      }
      if (System.nanoTime() > deadlineNs) {
        throw new FlotillaException(
            Code.CONFLICT,
            "nodes " + having + " still have parts of a deleted backup " + name,
            "Choose another name, or wait until they are up and have deleted them.");
      }
      pause(100);
    }
  }

  private Optional<ChangeJournal.Current> current() {
    return cluster
        .registry()
        .get(ChangeJournal.CURRENT)
        .map(entry -> Json.read(entry.value(), ChangeJournal.Current.class));
  }

  /** From now on changes are written behind that backup; the one before is good up to now. */
  private void follow(Optional<ChangeJournal.Current> wanted, String fresh) {
    List<Registry.Write> writes = new ArrayList<>();
    writes.add(new Registry.Write(ChangeJournal.CURRENT, wanted.map(Json::write)));
    writes.add(new Registry.Write(new Registry.Key(REMAINS_KIND, fresh), Optional.empty()));
    current()
        .flatMap(before -> cluster.registry().get(key(before.backup())))
        .map(entry -> Json.read(entry.value(), Stored.class))
        .filter(before -> before.changesFromMs() > 0)
        .ifPresent(
            before -> {
              Stored ended =
                  new Stored(
                      before.name(),
                      before.folder(),
                      before.pointsMs(),
                      before.changesFromMs(),
                      JournalCover.goodUntil(before.changesFromMs(), sessions(before.name())),
                      before.without());
              writes.add(new Registry.Write(key(before.name()), Optional.of(Json.write(ended))));
            });
    var _ = cluster.registry().commit(List.of(), writes).orElseThrow();
  }

  /** As if there had been no other: the nodes go on with its lists where they left them. */
  private void followAgain(
      Optional<ChangeJournal.Current> before, Optional<Registry.Entry> storedBefore) {
    List<Registry.Write> writes = new ArrayList<>();
    writes.add(new Registry.Write(ChangeJournal.CURRENT, before.map(Json::write)));
    storedBefore.ifPresent(
        stored -> writes.add(new Registry.Write(stored.key(), Optional.of(stored.value()))));
    var _ = cluster.registry().commit(List.of(), writes).orElseThrow();
  }

  private List<ChangeJournal.Progress> progress(String name) {
    return cluster.registry().list(ChangeJournal.PROGRESS_KIND).stream()
        .map(entry -> Json.read(entry.value(), ChangeJournal.Progress.class))
        .filter(each -> each.backup().equals(name))
        .toList();
  }

  private List<ChangeJournal.Session> sessions(String name) {
    return progress(name).stream().flatMap(each -> each.sessions().stream()).toList();
  }

  /** What changes behind the copy must be written from before it on, by every node. */
  private void awaitJournals(String name) {
    long deadlineNs = System.nanoTime() + JOURNALS_NS;
    while (true) {
      Set<String> missing = new HashSet<>();
      for (NodeInfo node : cluster.nodes()) {
        if (node.state() != NodeInfo.State.LOST && grid.isMember(node.id())) {
          missing.add(node.id());
        }
      }
      for (Registry.Entry entry : cluster.registry().list(ChangeJournal.PROGRESS_KIND)) {
        ChangeJournal.Progress said = Json.read(entry.value(), ChangeJournal.Progress.class);
        if (said.backup().equals(name) && !said.sessions().isEmpty()) {
          missing.remove(entry.key().name());
        }
      }
      if (missing.isEmpty()) {
        return;
      }
      if (System.nanoTime() > deadlineNs) {
        throw new FlotillaException(
            Code.FAILED,
            "backup " + name + " was not made: these nodes do not write changes: " + missing,
            "Look at their logs and disks, and whether they have all their copies.");
      }
      pause(100);
    }
  }

  private static void pause(long ms) {
    try {
      Thread.sleep(ms);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IgniteException(e);
    }
  }

  private Backup view(Stored stored) {
    Optional<Moments> moments = Optional.empty();
    if (stored.changesFromMs() > 0) {
      long toMs =
          stored.changesToMs() > 0
              ? stored.changesToMs()
              : JournalCover.goodUntil(stored.changesFromMs(), sessions(stored.name()));
      String trouble =
          progress(stored.name()).stream()
              .map(ChangeJournal.Progress::trouble)
              .filter(each -> !each.isEmpty())
              .findFirst()
              .orElse("");
      moments =
          Optional.of(
              new Moments(
                  Instant.ofEpochMilli(stored.changesFromMs()),
                  Instant.ofEpochMilli(toMs),
                  stored.changesToMs() > 0 ? "" : trouble));
    }
    return new Backup(
        stored.name(),
        stored.place(),
        stored.pointsMs().stream().map(Instant::ofEpochMilli).toList(),
        moments,
        stored.without() == null ? List.of() : stored.without());
  }

  @Override
  public Backup addPoint(String name) {
    checkName(name);
    return alone(() -> addPointAlone(name));
  }

  private Backup addPointAlone(String name) {
    Registry.Entry entry = cluster.registry().get(key(name)).orElseThrow(() -> missing(name));
    Stored before = Json.read(entry.value(), Stored.class);
    List<Long> points = new ArrayList<>(before.pointsMs());
    points.add(clock.millis());
    snapshot(name, before.place(), true);
    Stored stored =
        new Stored(
            name,
            before.folder(),
            points,
            before.changesFromMs(),
            before.changesToMs(),
            before.without());
    store(entry.epoch(), stored);
    log.info("backup {}: point {} added", name, points.size() - 1);
    return view(stored);
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
    return ignite.getOrCreateCache(grid.<String, byte[]>cacheConfig(REGISTRY_CACHE));
  }

  @Override
  public List<Backup> list() {
    return cluster.registry().list(KIND).stream()
        .map(entry -> Json.read(entry.value(), Stored.class))
        .sorted(Comparator.comparing(stored -> stored.pointsMs().getFirst()))
        .map(this::view)
        .toList();
  }

  @Override
  public Instant restore(String name, Optional<String> folder, Optional<Instant> at) {
    checkName(name);
    folder.ifPresent(GridBackups::checkFolder);
    folder.ifPresent(GridBackups::checkIsFolder);
    return alone(() -> restoreAlone(name, folder, at));
  }

  private Instant restoreAlone(String name, Optional<String> folder, Optional<Instant> at) {
    Stored stored =
        cluster
            .registry()
            .get(key(name))
            .map(entry -> Json.read(entry.value(), Stored.class))
            .or(() -> folder.flatMap(f -> readManifest(f, name)))
            .orElseThrow(() -> missing(name));
    Optional<String> place = folder.or(stored::place);
    if (at.isPresent()
        && journal.isPresent()
        && stored.changesFromMs() > 0
        && at.get().toEpochMilli() >= stored.changesFromMs()) {
      return restoreMoment(stored, place, at.get());
    }
    int point = pointAt(stored, at);
    grid.restoring("restoring backup " + name, ignite -> check(ignite, name, place, point));
    long closed = grid.close("restoring backup " + name);
    grid.restoring(
        "restoring backup " + name,
        ignite -> {
          replace(ignite, name, place, point);
          bringRegistry(copied(ignite));
          return true;
        });
    endJournal();
    grid.open(closed);
    log.warn("backup {}: gone back to point {}", name, point);
    return Instant.ofEpochMilli(stored.pointsMs().get(point));
  }

  private Instant restoreMoment(Stored stored, Optional<String> place, Instant moment) {
    String name = stored.name();
    String what = "restoring backup " + name;
    JournalReplay replay =
        JournalReplay.plan(
            journal.orElseThrow().folder(place.orElse(""), name),
            name,
            stored.changesFromMs(),
            moment.toEpochMilli());
    grid.restoring(what, ignite -> check(ignite, name, place, 0));
    long closed = grid.close(what);
    // Before anything is changed: the lists behind the last backup end with what there was.
    endJournal();
    grid.restoring(
        what,
        ignite -> {
          replace(ignite, name, place, 0);
          try {
            replay.apply(ignite, clock.millis());
          } catch (IgniteCheckedException e) {
            throw new IgniteException(e);
          }
          bringRegistry(
              replay.registry().stream()
                  .collect(
                      Collectors.toMap(
                          each -> new Registry.Key(each.kind(), each.name()),
                          JournalFrames.Meaning::value)));
          return true;
        });
    grid.open(closed);
    log.warn("backup {}: gone back to {}", name, moment);
    return moment;
  }

  /** What is there from now on does not follow from the copy. */
  private void endJournal() {
    if (journal.isPresent() && current().isPresent()) {
      follow(Optional.empty(), "");
    }
  }

  @Override
  public void delete(String name) {
    checkName(name);
    var _ =
        alone(
            () -> {
              deleteAlone(name);
              return name;
            });
  }

  private void deleteAlone(String name) {
    Registry.Entry entry = cluster.registry().get(key(name)).orElseThrow(() -> missing(name));
    Stored stored = Json.read(entry.value(), Stored.class);
    if (current().filter(each -> each.backup().equals(name)).isPresent()) {
      follow(Optional.empty(), "");
    }
    var _ =
        cluster
            .registry()
            .commit(
                List.of(),
                List.of(
                    new Registry.Write(key(name), Optional.empty()),
                    new Registry.Write(
                        new Registry.Key(REMAINS_KIND, name),
                        Optional.of(
                            Json.write(
                                new Remains(
                                    stored.folder(),
                                    cluster.nodes().stream()
                                        .map(NodeInfo::id)
                                        .collect(Collectors.toSet())))))))
            .orElseThrow();
    log.info("backup {} is deleted", name);
  }

  @Override
  public List<String> prune(Optional<Duration> age, Optional<Long> bytes) {
    List<String> deleted = new ArrayList<>();
    List<Backup> newestFirst = list().reversed();
    long sum = 0;
    for (Backup backup : newestFirst) {
      Instant last = backup.anyMoment().map(Moments::to).orElse(backup.points().getLast());
      sum += journal.map(each -> each.bytes(backup.folder().orElse(""), backup.name())).orElse(0L);
      boolean old = age.isPresent() && last.isBefore(clock.instant().minus(age.get()));
      boolean large = bytes.isPresent() && sum > bytes.get();
      if (!backup.equals(newestFirst.getFirst()) && (old || large)) {
        delete(backup.name());
        deleted.add(backup.name());
      }
    }
    return deleted;
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
      pause(200);
    }
  }

  private static Map<Registry.Key, byte[]> copied(Ignite ignite) {
    Map<Registry.Key, byte[]> entries = new HashMap<>();
    IgniteCache<String, byte[]> copy = ignite.cache(REGISTRY_CACHE);
    for (Cache.Entry<String, byte[]> entry : copy) {
      String[] parts = entry.getKey().split("\n", 2);
      entries.put(new Registry.Key(parts[0], parts[1]), entry.getValue());
    }
    return entries;
  }

  /** The registry's entries of our kinds become those of the backup. */
  private void bringRegistry(Map<Registry.Key, byte[]> entries) {
    List<Registry.Write> writes = new ArrayList<>();
    Set<Registry.Key> kept = entries.keySet();
    entries.forEach((key, value) -> writes.add(new Registry.Write(key, Optional.of(value))));
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
      NodeFiles.writeDurably(file, Json.write(stored), false);
    } catch (IOException e) {
      throw new FlotillaException(
          Code.STORAGE,
          "backup " + stored.name() + " was made, but not its list of points: " + e.getMessage(),
          "Add a point once " + stored.folder() + " has space.",
          e);
    }
  }

  /** Of a backup that lies in a folder of its own. */
  static void deleteManifest(String folder, String name) throws IOException {
    if (!folder.isEmpty()) {
      Files.deleteIfExists(manifest(folder, name));
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

  private static void checkIsFolder(String folder) {
    if (Files.exists(Path.of(folder)) && !Files.isDirectory(Path.of(folder))) {
      throw new FlotillaException(
          Code.INVALID, folder + " is no folder", "Name the one that holds the backup's parts.");
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

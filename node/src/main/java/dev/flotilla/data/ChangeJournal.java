package dev.flotilla.data;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.NodeFiles;
import dev.flotilla.cluster.Registry;
import dev.flotilla.data.JournalFrames.Change;
import dev.flotilla.data.JournalFrames.Changes;
import dev.flotilla.data.JournalFrames.Definition;
import dev.flotilla.data.JournalFrames.Definitions;
import dev.flotilla.data.JournalFrames.Frame;
import dev.flotilla.data.JournalFrames.Header;
import dev.flotilla.data.JournalFrames.Meaning;
import dev.flotilla.data.JournalFrames.Types;
import dev.flotilla.data.JournalFrames.UpTo;
import dev.flotilla.data.grid.Environment;
import dev.flotilla.data.grid.Grid;
import io.micrometer.core.instrument.Gauge;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.ref.WeakReference;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.stream.Stream;
import org.apache.ignite.Ignite;
import org.apache.ignite.IgniteCheckedException;
import org.apache.ignite.IgniteException;
import org.apache.ignite.binary.BinaryType;
import org.apache.ignite.events.CacheEvent;
import org.apache.ignite.internal.GridKernalContext;
import org.apache.ignite.internal.IgniteEx;
import org.apache.ignite.internal.binary.BinaryTypeImpl;
import org.apache.ignite.internal.pagemem.wal.IgniteWriteAheadLogManager;
import org.apache.ignite.internal.pagemem.wal.WALIterator;
import org.apache.ignite.internal.pagemem.wal.record.DataEntry;
import org.apache.ignite.internal.pagemem.wal.record.DataRecord;
import org.apache.ignite.internal.pagemem.wal.record.LazyDataEntry;
import org.apache.ignite.internal.pagemem.wal.record.TxRecord;
import org.apache.ignite.internal.pagemem.wal.record.WALRecord;
import org.apache.ignite.internal.processors.cache.CacheGroupContext;
import org.apache.ignite.internal.processors.cache.DynamicCacheDescriptor;
import org.apache.ignite.internal.processors.cache.GridCacheContext;
import org.apache.ignite.internal.processors.cache.GridCacheOperation;
import org.apache.ignite.internal.processors.cache.distributed.dht.topology.GridDhtPartitionState;
import org.apache.ignite.internal.processors.cache.persistence.wal.WALPointer;
import org.apache.ignite.internal.processors.cache.version.GridCacheVersion;
import org.apache.ignite.transactions.TransactionState;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Writes what changes on this node behind a backup's full copy, so that one can go back to any
 * moment since, on any other nodes too.
 *
 * <p>The engine's write-ahead log tells of every committed change and of the steps of every
 * transaction, with moments; but it is the engine's own, of one node, and soon reused. So one
 * thread follows it and writes what matters in a form of its own: cache, key, value, the change's
 * number in its partition (the same on all copies, so that the order of a key's changes is known
 * and copies need to be taken once), and the transaction, which is the same on all nodes.
 *
 * <p>A node's list is good up to a moment: all that was logged before is in it, and no transaction
 * was prepared before that has not ended. A transaction commits on a node only after all have
 * prepared it; so with all lists good up to that moment, those that have something of a transaction
 * by then have all of it.
 *
 * <p>A batch is written only when this node has been part of the majority after it was read: what a
 * lone node did is not the cluster's. What cannot be followed any more (the engine was started
 * again, the log was faster) ends this node's session, and a new one begins once this node has all
 * of its copies; {@link JournalCover} says what sessions together are good for.
 */
final class ChangeJournal implements AutoCloseable {

  /** Which backup is followed by a journal now; one at a time. */
  record Current(String backup, String folder) {}

  /** What a node says of its list. */
  record Session(long fromMs, long upToMs, int members) {}

  /** All of a node's sessions of a backup; the last is still written. */
  record Progress(String backup, List<Session> sessions, String trouble) {}

  static final Registry.Key CURRENT = new Registry.Key("backup-journal", "current");
  static final String PROGRESS_KIND = "backup-journal-node";

  private static final Logger log = LoggerFactory.getLogger(Grid.class);
  private static final long PERIOD_MS = 500;
  private static final long TELL_MS = 2_000;

  /** Longer than any transaction may take. */
  private static final long PREPARED_MAX_MS = 60_000;

  /**
   * A list that another backup's took the place of: if that one fails, it is gone on with, from the
   * same place of the same engine's log.
   */
  private record Suspended(
      Current backup,
      List<Session> sessions,
      WeakReference<Ignite> engine,
      Map<GridCacheVersion, Long> prepared) {}

  /**
   * How large a list may become on each node.
   *
   * @param fileBytes after which a new file is begun
   * @param listBytes of all its files, after which nothing more is written
   */
  record Limits(long fileBytes, long listBytes) {
    static final Limits DEFAULTS =
        new Limits(64L << 20, Long.getLong("flotilla.backup.changes-bytes-max", 16L << 30));
  }

  private record Lifecycle(long atMs, String cache, boolean started) {}

  private final Cluster cluster;
  private final Grid grid;
  private final InstantSource clock;
  private final Path ownFolder;
  private final Path snapshots;
  private final List<String> kinds;
  private final Limits limits;
  private final ConcurrentLinkedQueue<Lifecycle> lifecycle = new ConcurrentLinkedQueue<>();
  private volatile long meaningsChangedMs;
  private volatile boolean closed;
  private volatile long upToMs;
  private volatile boolean following;
  private @Nullable Thread thread;

  // Of the journal's thread alone.
  private @Nullable Current current;
  private @Nullable Suspended suspended;
  private @Nullable Ignite engine;
  private @Nullable WALPointer pointer;
  private final Map<GridCacheVersion, Long> prepared = new HashMap<>();
  private final TreeMap<String, Definition> definitions = new TreeMap<>();
  private final Map<String, Integer> forms = new HashMap<>();
  private final Set<String> types = new HashSet<>();

  /** The engine gives caches new ids when it starts; those of the list go on. */
  private final Map<String, String> aliases = new HashMap<>();

  private List<Registry.Entry> meanings = List.of();
  private List<Session> past = List.of();
  private long sessionMs;
  private int sequence;
  private int members;
  private @Nullable FileChannel file;
  private long toldMs;
  private String trouble = "";

  /** Read, and not yet on the disk. */
  private final List<Frame> unwritten = new ArrayList<>();

  ChangeJournal(Environment environment, Grid grid, List<String> kinds, Limits limits) {
    this.cluster = environment.cluster();
    this.grid = grid;
    this.clock = environment.clock();
    this.ownFolder = environment.folder().toAbsolutePath().resolve("data").resolve("backups");
    this.snapshots =
        environment.folder().toAbsolutePath().resolve("data").resolve("grid").resolve("snapshots");
    this.kinds = List.copyOf(kinds);
    this.limits = limits;
    Gauge.builder("flotilla.backup.lag.seconds", this, ChangeJournal::lagSeconds)
        .description("How far this node's list of changes behind a backup's full copy is behind")
        .register(environment.metrics());
  }

  double lagSeconds() {
    return following ? Math.max(0, clock.millis() - upToMs) / 1e3 : 0;
  }

  /** How much was read and is not written. */
  int waiting() {
    return unwritten.size();
  }

  /** Where a backup's lists of changes lie. */
  static Path folder(Path ownFolder, String folder, String backup) {
    return (folder.isEmpty() ? ownFolder : Path.of(folder)).resolve(backup + ".changes");
  }

  Path folder(String folder, String backup) {
    return folder(ownFolder, folder, backup);
  }

  void start() {
    grid.onStart(
        ignite ->
            ignite
                .events()
                .localListen(
                    event -> {
                      CacheEvent each = (CacheEvent) event;
                      lifecycle.add(
                          new Lifecycle(
                              clock.millis(),
                              each.cacheName(),
                              event.type()
                                  == org.apache.ignite.events.EventType.EVT_CACHE_STARTED));
                      return true;
                    },
                    org.apache.ignite.events.EventType.EVT_CACHE_STARTED,
                    org.apache.ignite.events.EventType.EVT_CACHE_STOPPED));
    var _ = cluster.registry().subscribe(() -> meaningsChangedMs = clock.millis());
    thread = Thread.ofPlatform().daemon().name("change-journal").start(this::run);
  }

  private void run() {
    while (!closed) {
      try {
        pass();
        Thread.sleep(PERIOD_MS);
      } catch (InterruptedException e) {
        break;
      } catch (FlotillaException e) {
        log.info("changes are not written now: {}", e.explanation());
        tellTrouble(e.explanation());
        pause();
      } catch (RuntimeException | IOException e) {
        if (!closed) {
          log.warn("changes are not written now", e);
          tellTrouble(e.toString());
          pause();
        }
      }
    }
    closeFile();
  }

  private void tellTrouble(String what) {
    trouble = what;
    Current now = current;
    if (now != null) {
      try {
        tell(now, false);
      } catch (FlotillaException e) {
        log.info("nor can it be told: {}", e.explanation());
      }
    }
  }

  private static void pause() {
    try {
      Thread.sleep(1_000);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  /** What this node's part of a backup takes. */
  long bytes(String folder, String backup) {
    return size(copyFolder(folder, backup)) + size(folder(folder, backup));
  }

  private Path copyFolder(String folder, String backup) {
    return (folder.isEmpty() ? snapshots : Path.of(folder)).resolve(backup);
  }

  private static long size(Path folder) {
    try (Stream<Path> tree = Files.walk(folder)) {
      return tree.mapToLong(file -> file.toFile().isFile() ? file.toFile().length() : 0).sum();
    } catch (IOException | UncheckedIOException absent) {
      return 0;
    }
  }

  /** Deletes what this node has of backups that are no more; of each once. */
  private void tidy() {
    for (Registry.Entry entry : cluster.registry().list(GridBackups.REMAINS_KIND)) {
      GridBackups.Remains remains = Json.read(entry.value(), GridBackups.Remains.class);
      if (!remains.nodes().contains(cluster.self())) {
        continue;
      }
      String backup = entry.key().name();
      try {
        // Another node may share the folder.
        NodeFiles.deleteTree(copyFolder(remains.folder(), backup));
        NodeFiles.deleteTree(folder(remains.folder(), backup));
        GridBackups.deleteManifest(remains.folder(), backup);
      } catch (IOException | UncheckedIOException e) {
        log.info("backup {} is not deleted here yet: {}", backup, e.toString());
        continue;
      }
      // If another node was first to say so, it is said at the next look.
      var _ =
          cluster
              .registry()
              .commit(
                  List.of(new Registry.Condition(entry.key(), entry.epoch())),
                  List.of(
                      new Registry.Write(
                          entry.key(), remains.without(cluster.self()).map(Json::write))));
    }
  }

  private void pass() throws IOException {
    tidy();
    Optional<Current> wanted =
        cluster.registry().get(CURRENT).map(entry -> Json.read(entry.value(), Current.class));
    if (!Objects.equals(wanted.orElse(null), current)) {
      change(wanted);
      trouble = "";
    }
    Current now = current;
    following = now != null;
    if (now == null) {
      return;
    }
    if (pointer == null) {
      beginSession(now);
      return;
    }
    // Nothing more is read before what was read is written: else it would pile up in memory.
    if (!grid.read(
        "following changes", unwritten.isEmpty() ? this::read : ignite -> ignite.equals(engine))) {
      log.warn("changes of this node could not be followed: a new list begins");
      endSession();
      return;
    }
    append(now);
    trouble = "";
    tell(now, false);
  }

  private void change(Optional<Current> wanted) {
    Suspended before = suspended;
    suspended =
        pointer != null && current != null && engine != null
            ? new Suspended(current, sessions(), new WeakReference<>(engine), Map.copyOf(prepared))
            : null;
    endSession();
    current = wanted.orElse(null);
    if (before != null && before.backup().equals(current)) {
      past = before.sessions();
      // Kept for the beginning of the session, which takes it up.
      suspended = before;
    } else {
      past = wanted.map(this::pastSessions).orElse(List.of());
    }
  }

  /** Whether this session goes on with one that another took the place of. */
  private boolean isTakenUp(Ignite ignite, Current now) {
    return suspended != null
        && suspended.backup().equals(now)
        && ignite.equals(suspended.engine().get())
        && !past.isEmpty();
  }

  private List<Session> pastSessions(Current backup) {
    return cluster
        .registry()
        .get(new Registry.Key(PROGRESS_KIND, cluster.self()))
        .map(entry -> Json.read(entry.value(), Progress.class))
        .filter(progress -> progress.backup().equals(backup.backup()))
        .map(Progress::sessions)
        .orElse(List.of());
  }

  /** From the log's end on, if this node has all that it is to hold. */
  private void beginSession(Current now) throws IOException {
    prepared.clear();
    aliases.clear();
    definitions.clear();
    forms.clear();
    types.clear();
    meanings = List.of();
    lifecycle.clear();
    unwritten.clear();
    Optional<WALPointer> begin = grid.read("following changes", ignite -> begin(ignite, now));
    if (begin.isEmpty()) {
      return;
    }
    openFile(now);
    append(now);
    pointer = begin.get();
    tell(now, true);
  }

  private Optional<WALPointer> begin(Ignite ignite, Current now) {
    unwritten.clear();
    if (!isWhole(ignite)) {
      return Optional.empty();
    }
    engine = ignite;
    members = ignite.cluster().forServers().nodes().size();
    long nowMs = clock.millis();
    boolean alone = members == 1 && ignite.cluster().currentBaselineTopology().size() == 1;
    boolean takenUp = isTakenUp(ignite, now);
    Optional<Resumed> resumed =
        alone || takenUp
            ? resumed(now).filter(each -> isThere(ignite, each.pointer()))
            : Optional.empty();
    if (resumed.isPresent()) {
      if (takenUp && suspended != null) {
        prepared.putAll(suspended.prepared());
      }
      // Nobody can have changed anything while the only node was down.
      past = past.subList(0, Math.max(0, past.size() - 1));
      sessionMs = resumed.get().header().sessionMs();
      sequence = resumed.get().header().sequence() + 1;
      upToMs = resumed.get().upTo().atMs();
      for (Definition each : resumed.get().definitions().caches()) {
        DynamicCacheDescriptor there =
            ((IgniteEx) ignite).context().cache().cacheDescriptor(each.name());
        if (there != null) {
          aliases.put(id(there), each.incarnation());
        }
      }
    } else {
      sessionMs = nowMs;
      sequence = 0;
      upToMs = nowMs;
    }
    if (takenUp) {
      suspended = null;
    }
    define(ignite, unwritten, nowMs, true);
    return Optional.of(
        resumed.map(Resumed::pointer).orElseGet(() -> wal(ignite).lastWritePointer()));
  }

  /** Where this node's last session ended. */
  private record Resumed(Header header, UpTo upTo, Definitions definitions) {

    WALPointer pointer() {
      return new WALPointer(upTo.segment(), upTo.offset(), 0);
    }
  }

  private Optional<Resumed> resumed(Current now) {
    if (past.isEmpty()) {
      return Optional.empty();
    }
    Path folder = folder(now.folder(), now.backup());
    String prefix = cluster.self() + "-" + past.getLast().fromMs() + "-";
    try (var files = Files.newDirectoryStream(folder, prefix + "*")) {
      List<Path> sorted = new ArrayList<>();
      files.forEach(sorted::add);
      if (sorted.isEmpty()) {
        return Optional.empty();
      }
      sorted.sort(Comparator.naturalOrder());
      Map<Class<?>, Frame> last = new HashMap<>();
      for (Path each : sorted) {
        JournalFrames.read(each, frame -> last.put(frame.getClass(), frame));
      }
      return last.get(Header.class) instanceof Header header
              && last.get(UpTo.class) instanceof UpTo upTo
              && last.get(Definitions.class) instanceof Definitions known
          ? Optional.of(new Resumed(header, upTo, known))
          : Optional.empty();
    } catch (IOException | FlotillaException e) {
      log.warn("this node's list of changes cannot be gone on with: {}", e.toString());
      return Optional.empty();
    }
  }

  private static boolean isThere(Ignite ignite, WALPointer at) {
    boolean there = wal(ignite).reserve(at);
    if (there) {
      wal(ignite).release(at);
    }
    return there;
  }

  private void endSession() {
    Current now = current;
    if (pointer != null && now != null) {
      past = sessions();
    }
    pointer = null;
    engine = null;
    unwritten.clear();
    closeFile();
  }

  private List<Session> sessions() {
    List<Session> all = new ArrayList<>(past);
    if (pointer != null) {
      all.add(new Session(sessionMs, upToMs, members));
    }
    return all;
  }

  private static boolean isWhole(Ignite ignite) {
    for (CacheGroupContext group : ((IgniteEx) ignite).context().cache().cacheGroups()) {
      for (var partition : group.topology().localPartitions()) {
        if (!group.systemCache() && partition.state() == GridDhtPartitionState.MOVING) {
          return false;
        }
      }
    }
    return true;
  }

  private static IgniteWriteAheadLogManager wal(Ignite ignite) {
    return ((IgniteEx) ignite).context().cache().context().wal();
  }

  /** What was logged since the last time. */
  private boolean read(Ignite ignite) {
    WALPointer from = Objects.requireNonNull(pointer);
    IgniteWriteAheadLogManager wal = wal(ignite);
    if (!ignite.equals(engine) || !isWhole(ignite) || !wal.reserve(from)) {
      return false;
    }
    long nowMs = clock.millis();
    List<Frame> frames = new ArrayList<>();
    WALPointer next = from;
    flush(wal);
    try (WALIterator records =
        wal.replay(
            from,
            (type, at) ->
                type == WALRecord.RecordType.DATA_RECORD_V2
                    || type == WALRecord.RecordType.TX_RECORD)) {
      while (records.hasNextX()) {
        var record = records.nextX();
        if (record.get1().compareTo(from) < 0) {
          continue;
        }
        next = record.get1().next();
        switch (record.get2()) {
          case TxRecord step -> follow(step);
          case DataRecord data -> take(ignite, data, frames);
          default -> {}
        }
      }
    } catch (IgniteCheckedException e) {
      throw new IgniteException(e);
    } finally {
      wal.release(from);
    }
    define(ignite, frames, nowMs, false);
    // What comes into being in the log must not stand before its definition.
    frames.sort(Comparator.comparingInt(frame -> frame instanceof Changes ? 1 : 0));
    members = Math.max(members, ignite.cluster().forServers().nodes().size());
    prepared.values().removeIf(atMs -> nowMs - atMs > PREPARED_MAX_MS);
    long goodMs =
        Math.min(
            nowMs, prepared.values().stream().mapToLong(Long::longValue).min().orElse(nowMs) - 1);
    frames.add(new UpTo(goodMs, members, next.index(), next.fileOffset()));
    unwritten.addAll(frames);
    pointer = next;
    return true;
  }

  /** Steps of transactions stay in memory until something else is forced, and would be missed. */
  private static void flush(IgniteWriteAheadLogManager wal) {
    try {
      wal.flush(null, true);
    } catch (IgniteCheckedException e) {
      throw new IgniteException(e);
    }
  }

  private void follow(TxRecord step) {
    if (step.state() == TransactionState.PREPARED) {
      prepared.putIfAbsent(step.nearXidVersion(), step.timestamp());
    } else {
      prepared.remove(step.nearXidVersion());
    }
  }

  private void take(Ignite ignite, DataRecord data, List<Frame> frames) {
    Map<GridCacheVersion, List<Change>> changes = new HashMap<>();
    for (DataEntry entry : data.writeEntries()) {
      // Without a transaction is only what was copied from another node: not a change.
      if (entry.nearXidVersion() == null || entry.op() == GridCacheOperation.READ) {
        continue;
      }
      change(ignite, entry, data.timestamp())
          .ifPresent(
              change ->
                  changes
                      .computeIfAbsent(entry.nearXidVersion(), id -> new ArrayList<>())
                      .add(change));
    }
    changes.forEach(
        (id, list) ->
            frames.add(
                new Changes(
                    new JournalFrames.Transaction(
                        id.topologyVersion(), id.nodeOrderAndDrIdRaw(), id.order()),
                    data.timestamp(),
                    list)));
  }

  private Optional<Change> change(Ignite ignite, DataEntry entry, long atMs) {
    GridKernalContext context = ((IgniteEx) ignite).context();
    GridCacheContext<?, ?> cache = context.cache().context().cacheContext(entry.cacheId());
    // One that is gone by now: what was in it matters only to moments before that.
    Optional<Definition> definition = definitionOf(context, entry.cacheId(), atMs);
    if (definition.isEmpty()) {
      return Optional.empty();
    }
    try {
      boolean removed = entry.op() == GridCacheOperation.DELETE;
      byte keyType;
      byte[] key;
      byte valueType = 0;
      byte[] value = new byte[0];
      if (entry instanceof LazyDataEntry lazy) {
        keyType = lazy.getKeyType();
        key = lazy.getKeyBytes();
        if (!removed) {
          valueType = lazy.getValType();
          value = lazy.getValBytes();
        }
      } else {
        var values = Objects.requireNonNull(cache).cacheObjectContext();
        keyType = entry.key().cacheObjectType();
        key = entry.key().valueBytes(values);
        if (!removed) {
          valueType = entry.value().cacheObjectType();
          value = entry.value().valueBytes(values);
        }
      }
      return Optional.of(
          new Change(
              definition.get().name(),
              definition.get().incarnation(),
              entry.partitionId(),
              entry.partitionCounter(),
              keyType,
              key,
              valueType,
              value,
              entry.expireTime()));
    } catch (IgniteCheckedException e) {
      throw new IgniteException(e);
    }
  }

  /** The cache of that number as it was then; it may have been dropped or made since. */
  private Optional<Definition> definitionOf(GridKernalContext context, int cacheId, long atMs) {
    for (Lifecycle event : lifecycle) {
      if (!event.started() && event.atMs() >= atMs && numberOf(event.cache()) == cacheId) {
        return Optional.ofNullable(definitions.get(event.cache()));
      }
    }
    DynamicCacheDescriptor descriptor = context.cache().cacheDescriptor(cacheId);
    if (descriptor != null) {
      return Optional.of(
          new Definition(descriptor.cacheName(), incarnation(descriptor), new byte[0]));
    }
    return definitions.values().stream()
        .filter(known -> numberOf(known.name()) == cacheId)
        .findFirst();
  }

  private static int numberOf(String cache) {
    return org.apache.ignite.internal.util.typedef.internal.CU.cacheId(cache);
  }

  /** What has come, gone or changed its form since the last time. */
  private void define(Ignite ignite, List<Frame> frames, long nowMs, boolean all) {
    GridKernalContext context = ((IgniteEx) ignite).context();
    TreeMap<String, Definition> now = new TreeMap<>();
    context
        .cache()
        .cacheDescriptors()
        .forEach(
            (name, descriptor) -> {
              if (descriptor.cacheType().userCache()) {
                now.put(name, definition(context, descriptor));
              }
            });
    for (Lifecycle event = lifecycle.poll(); event != null; event = lifecycle.poll()) {
      Definition made = now.get(event.cache());
      if (event.started() && made != null) {
        definitions.put(event.cache(), made);
      } else if (!event.started()) {
        definitions.remove(event.cache());
      }
      frames.add(definitions(event.atMs()));
    }
    long changedMs = meaningsChangedMs;
    List<Registry.Entry> means = new ArrayList<>();
    kinds.forEach(kind -> means.addAll(cluster.registry().list(kind)));
    boolean meant =
        !means.stream()
            .map(Registry.Entry::epoch)
            .toList()
            .equals(meanings.stream().map(Registry.Entry::epoch).toList());
    if (meant) {
      meanings = means;
    }
    if (all || meant || !same(now)) {
      definitions.clear();
      definitions.putAll(now);
      frames.add(definitions(meant && !all ? Math.min(nowMs, changedMs) : nowMs));
    }
    types(context).ifPresent(frames::add);
  }

  private boolean same(Map<String, Definition> now) {
    return now.size() == definitions.size()
        && now.values().stream()
            .allMatch(
                each -> {
                  Definition known = definitions.get(each.name());
                  return known != null
                      && known.incarnation().equals(each.incarnation())
                      && java.util.Arrays.equals(known.form(), each.form());
                });
  }

  private Definitions definitions(long atMs) {
    return new Definitions(
        atMs,
        List.copyOf(definitions.values()),
        meanings.stream()
            .map(entry -> new Meaning(entry.key().kind(), entry.key().name(), entry.value()))
            .toList());
  }

  private String incarnation(DynamicCacheDescriptor descriptor) {
    return aliases.getOrDefault(id(descriptor), id(descriptor));
  }

  /** Caches that come up together have one deployment id. */
  private static String id(DynamicCacheDescriptor descriptor) {
    return descriptor.cacheName() + "/" + descriptor.deploymentId();
  }

  private Definition definition(GridKernalContext context, DynamicCacheDescriptor descriptor) {
    String name = descriptor.cacheName();
    String incarnation = incarnation(descriptor);
    int form = descriptor.schema().entities().toString().hashCode();
    Definition known = definitions.get(name);
    // Writing it down takes long enough to do it only when it has changed.
    if (known != null
        && known.incarnation().equals(incarnation)
        && Objects.equals(forms.get(name), form)) {
      return known;
    }
    try {
      ByteArrayOutputStream bytes = new ByteArrayOutputStream();
      context
          .marshallerContext()
          .jdkMarshaller()
          .marshal(descriptor.toStoredData(context.cache().splitter()), bytes);
      forms.put(name, form);
      return new Definition(name, incarnation, bytes.toByteArray());
    } catch (IgniteCheckedException e) {
      throw new IgniteException(e);
    }
  }

  private Optional<Types> types(GridKernalContext context) {
    List<byte[]> unknown = new ArrayList<>();
    for (BinaryType type : context.cacheObjects().metadata()) {
      if (type instanceof BinaryTypeImpl known
          && types.add(known.typeName() + known.fieldNames() + known.metadata().schemas().size())) {
        try {
          ByteArrayOutputStream bytes = new ByteArrayOutputStream();
          context.marshallerContext().jdkMarshaller().marshal(known.metadata(), bytes);
          unknown.add(bytes.toByteArray());
        } catch (IgniteCheckedException e) {
          throw new IgniteException(e);
        }
      }
    }
    return unknown.isEmpty() ? Optional.empty() : Optional.of(new Types(unknown));
  }

  private void openFile(Current now) throws IOException {
    Path folder = folder(now.folder(), now.backup());
    Files.createDirectories(folder);
    checkSize(folder);
    Path path = file(folder);
    while (Files.exists(path)) {
      // Begun by a process that ended before it wrote anything.
      sequence++;
      path = file(folder);
    }
    file = FileChannel.open(path, StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE);
    try {
      write(List.of(new Header(now.backup(), cluster.self(), sessionMs, sequence)));
    } catch (IOException e) {
      closeFile();
      Files.deleteIfExists(path);
      throw e;
    }
    sequence++;
  }

  private Path file(Path folder) {
    return folder.resolve(String.format("%s-%d-%06d.changes", cluster.self(), sessionMs, sequence));
  }

  private void checkSize(Path folder) throws IOException {
    long bytes = 0;
    try (var files = Files.newDirectoryStream(folder, cluster.self() + "-*")) {
      for (Path each : files) {
        bytes += Files.size(each);
      }
    }
    if (bytes > limits.listBytes()) {
      throw new FlotillaException(
          Code.STORAGE,
          "the changes since the backup take " + (bytes >> 20) + " MB on this node, too much",
          "Make a new backup, and delete this one when it is not needed any more.");
    }
  }

  private void append(Current now) throws IOException {
    cluster.disk().checkRoom("writing changes behind backup " + now.backup());
    if (file == null || file.size() > limits.fileBytes()) {
      closeFile();
      openFile(now);
    }
    write(unwritten);
    for (Frame frame : unwritten) {
      if (frame instanceof UpTo upTo) {
        upToMs = Math.max(upToMs, upTo.atMs());
      }
    }
    unwritten.clear();
  }

  /** On the disk when it returns, or not at all. */
  private void write(List<Frame> frames) throws IOException {
    FileChannel out = Objects.requireNonNull(file);
    long before = out.position();
    try {
      for (Frame frame : frames) {
        ByteBuffer bytes = ByteBuffer.wrap(JournalFrames.bytes(frame));
        while (bytes.hasRemaining()) {
          out.write(bytes);
        }
      }
      out.force(false);
    } catch (IOException e) {
      out.truncate(before);
      out.position(before);
      throw e;
    }
  }

  private void closeFile() {
    FileChannel open = file;
    file = null;
    if (open != null) {
      try {
        open.close();
      } catch (IOException e) {
        log.warn("cannot close a list of changes: {}", e.toString());
      }
    }
  }

  private void tell(Current now, boolean always) {
    long nowMs = clock.millis();
    if (!always && nowMs - toldMs < TELL_MS) {
      return;
    }
    toldMs = nowMs;
    cluster
        .registry()
        .commit(
            List.of(),
            List.of(
                new Registry.Write(
                    new Registry.Key(PROGRESS_KIND, cluster.self()),
                    Optional.of(Json.write(new Progress(now.backup(), sessions(), trouble))))));
  }

  @Override
  public void close() {
    closed = true;
    if (thread != null) {
      thread.interrupt();
      try {
        thread.join(5_000);
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
      }
    }
  }
}

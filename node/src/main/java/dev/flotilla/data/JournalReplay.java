package dev.flotilla.data;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.IoReason;
import dev.flotilla.data.ChangeJournal.Session;
import dev.flotilla.data.JournalFrames.Change;
import dev.flotilla.data.JournalFrames.Changes;
import dev.flotilla.data.JournalFrames.Definition;
import dev.flotilla.data.JournalFrames.Definitions;
import dev.flotilla.data.JournalFrames.Frame;
import dev.flotilla.data.JournalFrames.Header;
import dev.flotilla.data.JournalFrames.Meaning;
import dev.flotilla.data.JournalFrames.Transaction;
import dev.flotilla.data.JournalFrames.Types;
import dev.flotilla.data.JournalFrames.UpTo;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.NavigableMap;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.stream.Collectors;
import javax.cache.expiry.CreatedExpiryPolicy;
import javax.cache.expiry.Duration;
import org.apache.ignite.Ignite;
import org.apache.ignite.IgniteCache;
import org.apache.ignite.IgniteCheckedException;
import org.apache.ignite.cache.QueryEntity;
import org.apache.ignite.cache.affinity.AffinityKey;
import org.apache.ignite.internal.GridKernalContext;
import org.apache.ignite.internal.IgniteEx;
import org.apache.ignite.internal.binary.BinaryMetadata;
import org.apache.ignite.internal.binary.BinaryObjectEx;
import org.apache.ignite.internal.binary.BinaryTypeImpl;
import org.apache.ignite.internal.processors.cache.CacheObject;
import org.apache.ignite.internal.processors.cache.CacheObjectContext;
import org.apache.ignite.internal.processors.cache.StoredCacheData;
import org.apache.ignite.internal.processors.cache.binary.CacheObjectBinaryProcessorImpl;
import org.apache.ignite.internal.processors.query.QueryEntityEx;
import org.apache.ignite.internal.processors.query.QueryField;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Brings a full copy that was just restored to a later moment, by the changes that nodes wrote
 * behind it ({@link ChangeJournal}).
 *
 * <p>A transaction's moment is the last at which a node applied something of it. Those whose moment
 * is not after the wanted one count, except one that changed a key after a transaction that does
 * not count: clocks of nodes differ a little, and what builds on something cannot be there without
 * it. Of each key the change with the highest number counts, whatever node's list it comes from.
 */
final class JournalReplay {

  private static final Logger log = LoggerFactory.getLogger(JournalReplay.class);
  private static final int BATCH = 256;

  /** Transactions do not spread over more. */
  private static final long SPREAD_MS = 60_000;

  /** One node's list, as far as it is whole. */
  record Listing(Session session, List<Path> files) {}

  private record Key(String cache, ByteBuffer key) {}

  private record Step(long number, Transaction transaction) {}

  private final List<Listing> listings;
  private final List<String> damage;
  private final long fromMs;
  private final long toMs;

  private final Map<Transaction, Long> moments = new HashMap<>();
  private final Map<Key, List<Step>> steps = new HashMap<>();
  private final Set<Transaction> out = new HashSet<>();
  private final List<byte[]> types = new ArrayList<>();
  private Optional<Definitions> before = Optional.empty();
  private Optional<Definitions> wanted = Optional.empty();

  private JournalReplay(List<Listing> listings, List<String> damage, long fromMs, long toMs) {
    this.listings = listings;
    this.damage = damage;
    this.fromMs = fromMs;
    this.toMs = toMs;
  }

  /**
   * Reads what there is, and changes nothing.
   *
   * @param folder of the lists of changes, of all nodes as far as they are at hand
   * @param fromMs since when there is a full copy
   * @throws FlotillaException {@code NOT_FOUND} if the moment is out of range, {@code BAD_FILE} if
   *     it is because a list is damaged or a file of it is missing
   */
  static JournalReplay plan(Path folder, String backup, long fromMs, long toMs) {
    List<String> damage = new ArrayList<>();
    List<Listing> listings = listings(folder, backup, damage);
    JournalReplay replay = new JournalReplay(listings, damage, fromMs, toMs);
    replay.checkRange(backup);
    replay.look();
    return replay;
  }

  static List<Session> sessions(Path folder, String backup) {
    return listings(folder, backup, new ArrayList<>()).stream().map(Listing::session).toList();
  }

  private void checkRange(String backup) {
    long untilMs = JournalCover.goodUntil(fromMs, listings.stream().map(Listing::session).toList());
    if (toMs >= fromMs && toMs <= untilMs) {
      return;
    }
    String range =
        java.time.Instant.ofEpochMilli(fromMs) + " to " + java.time.Instant.ofEpochMilli(untilMs);
    if (damage.isEmpty() || toMs < fromMs) {
      throw new FlotillaException(
          Code.NOT_FOUND,
          "backup "
              + backup
              + " can be gone back to from "
              + range
              + ", not to "
              + java.time.Instant.ofEpochMilli(toMs),
          "Name a moment in between; where lists of changes of other nodes are missing here, bring"
              + " them together.");
    }
    throw new FlotillaException(
        Code.BAD_FILE,
        "backup "
            + backup
            + " can be gone back to only from "
            + range
            + ", for "
            + String.join("; ", damage),
        "Bring back those files from a copy or those of another node, or name an earlier moment.");
  }

  private static List<Listing> listings(Path folder, String backup, List<String> damage) {
    Map<String, TreeMap<Integer, Path>> found = new TreeMap<>();
    try (var files = Files.newDirectoryStream(folder, "*.changes")) {
      for (Path file : files) {
        String name = String.valueOf(file.getFileName());
        int dash = name.lastIndexOf('-');
        int sequence =
            Integer.parseInt(name.substring(dash + 1, name.length() - ".changes".length()));
        found.computeIfAbsent(name.substring(0, dash), n -> new TreeMap<>()).put(sequence, file);
      }
    } catch (NoSuchFileException absent) {
      return List.of();
    } catch (IOException | RuntimeException e) {
      throw new FlotillaException(
          Code.STORAGE,
          "cannot read "
              + folder
              + ": "
              + (e instanceof IOException io ? IoReason.of(io) : "it holds files of other names"),
          "Check the disk.",
          e);
    }
    List<Listing> listings = new ArrayList<>();
    found.forEach((name, files) -> listing(name, files, backup, damage).ifPresent(listings::add));
    return listings;
  }

  private static Optional<Listing> listing(
      String name, NavigableMap<Integer, Path> files, String backup, List<String> damage) {
    List<Path> whole = new ArrayList<>();
    long[] upTo = {0};
    long[] from = {0};
    int[] members = {1};
    for (int sequence = 0; sequence <= files.lastEntry().getKey(); sequence++) {
      Path file = files.get(sequence);
      if (file == null) {
        damage.add(String.format("%s-%06d.changes is missing", name, sequence));
        break;
      }
      try {
        whole.add(file);
        JournalFrames.read(
            file,
            frame -> {
              if (frame instanceof Header header) {
                if (!header.backup().equals(backup)) {
                  throw new FlotillaException(
                      Code.BAD_FILE, file + " is of backup " + header.backup(), "");
                }
                from[0] = header.sessionMs();
              } else if (frame instanceof UpTo until) {
                upTo[0] = Math.max(upTo[0], until.atMs());
                members[0] = Math.max(members[0], until.members());
              }
            });
      } catch (FlotillaException e) {
        damage.add(String.valueOf(e.getMessage()));
        break;
      }
    }
    return upTo[0] == 0
        ? Optional.empty()
        : Optional.of(new Listing(new Session(from[0], upTo[0], members[0]), whole));
  }

  private void each(Consumer<Frame> action) {
    for (Listing listing : listings) {
      for (Path file : listing.files()) {
        try {
          JournalFrames.read(file, action);
        } catch (FlotillaException e) {
          if (e.code() != Code.BAD_FILE) {
            throw e;
          }
          log.warn("{}; what stands before is used", e.getMessage());
        }
      }
    }
  }

  /** Finds out what there was at the moment, and which transactions count. */
  private void look() {
    each(
        frame -> {
          switch (frame) {
            case Types some -> types.addAll(some.types());
            case Definitions some -> {
              before = latest(before, some, fromMs);
              wanted = latest(wanted, some, toMs);
            }
            case Changes some when Math.abs(some.atMs() - toMs) <= SPREAD_MS -> {
              moments.merge(some.transaction(), some.atMs(), Math::max);
              for (Change change : some.changes()) {
                steps
                    .computeIfAbsent(key(change), k -> new ArrayList<>())
                    .add(new Step(change.number(), some.transaction()));
              }
            }
            default -> {}
          }
        });
    moments.forEach(
        (transaction, atMs) -> {
          if (atMs > toMs) {
            out.add(transaction);
          }
        });
    steps.values().forEach(list -> list.sort(Comparator.comparingLong(Step::number)));
    boolean more = true;
    while (more) {
      more = false;
      for (List<Step> list : steps.values()) {
        boolean behind = false;
        for (Step step : list) {
          if (out.contains(step.transaction())) {
            behind = true;
          } else if (behind) {
            more |= out.add(step.transaction());
          }
        }
      }
    }
  }

  private static Key key(Change change) {
    return new Key(change.cache() + "\n" + change.incarnation(), ByteBuffer.wrap(change.key()));
  }

  private static Optional<Definitions> latest(
      Optional<Definitions> known, Definitions other, long atMs) {
    return other.atMs() <= atMs && (known.isEmpty() || other.atMs() >= known.get().atMs())
        ? Optional.of(other)
        : known;
  }

  /** What the registry said at the moment. */
  List<Meaning> registry() {
    return wanted.orElseThrow().registry();
  }

  /** How many transactions after the moment were left out. */
  int leftOut() {
    return out.size();
  }

  /** Does it, on a grid that holds the full copy. */
  void apply(Ignite ignite, long nowMs) throws IgniteCheckedException {
    GridKernalContext context = ((IgniteEx) ignite).context();
    addTypes(context);
    define(ignite, context);
    Map<String, String> incarnations =
        wanted.orElseThrow().caches().stream()
            .collect(Collectors.toMap(Definition::name, Definition::incarnation));
    Map<Key, Long> applied = new HashMap<>();
    Map<String, Map<Object, Change>> batches = new HashMap<>();
    each(
        frame -> {
          if (!(frame instanceof Changes some)
              || out.contains(some.transaction())
              || (!moments.containsKey(some.transaction()) && some.atMs() > toMs)) {
            return;
          }
          for (Change change : some.changes()) {
            if (!change.incarnation().equals(incarnations.get(change.cache()))) {
              continue;
            }
            Key key = key(change);
            if (applied.getOrDefault(key, -1L) >= change.number()) {
              continue;
            }
            applied.put(key, change.number());
            Map<Object, Change> batch =
                batches.computeIfAbsent(change.cache(), name -> new LinkedHashMap<>());
            batch.put(key.key(), change);
            if (batch.size() >= BATCH) {
              write(ignite, context, change.cache(), batch.values(), nowMs);
              batch.clear();
            }
          }
        });
    batches.forEach((name, batch) -> write(ignite, context, name, batch.values(), nowMs));
  }

  private void addTypes(GridKernalContext context) throws IgniteCheckedException {
    CacheObjectBinaryProcessorImpl objects =
        (CacheObjectBinaryProcessorImpl) context.cacheObjects();
    for (byte[] bytes : types) {
      BinaryMetadata type =
          context
              .marshallerContext()
              .jdkMarshaller()
              .unmarshal(bytes, JournalReplay.class.getClassLoader());
      objects.addMeta(type.typeId(), new BinaryTypeImpl(objects.binaryContext(), type), false);
    }
  }

  /** Caches and tables become those of the moment. */
  private void define(Ignite ignite, GridKernalContext context) throws IgniteCheckedException {
    Map<String, Definition> then = byName(wanted.orElseThrow());
    Map<String, Definition> copied = byName(before.orElseThrow());
    List<StoredCacheData> create = new ArrayList<>();
    for (String name : List.copyOf(ignite.cacheNames())) {
      Definition definition = then.get(name);
      if (definition == null
          || !copied.containsKey(name)
          || !copied.get(name).incarnation().equals(definition.incarnation())) {
        ignite.destroyCache(name);
      }
    }
    Set<String> there = new HashSet<>(ignite.cacheNames());
    for (Definition definition : then.values()) {
      StoredCacheData form =
          context
              .marshallerContext()
              .jdkMarshaller()
              .unmarshal(definition.form(), JournalReplay.class.getClassLoader());
      form.queryEntities().forEach(JournalReplay::forgetUnsetSizes);
      form.config().getQueryEntities().forEach(JournalReplay::forgetUnsetSizes);
      if (there.contains(definition.name())) {
        alter(context, definition.name(), form);
      } else {
        create.add(form);
      }
    }
    if (!create.isEmpty()) {
      // As the engine's own restore does it.
      context.cache().dynamicStartCachesByStoredConf(create, true, true, false, null).get();
    }
  }

  /** The engine's copies of a table's form say -1 where nothing was set, and then refuse that. */
  @SuppressWarnings("NullAway")
  private static void forgetUnsetSizes(QueryEntity entity) {
    if (entity instanceof QueryEntityEx table) {
      if (table.getPrimaryKeyInlineSize() != null && table.getPrimaryKeyInlineSize() < 0) {
        table.setPrimaryKeyInlineSize(null);
      }
      if (table.getAffinityKeyInlineSize() != null && table.getAffinityKeyInlineSize() < 0) {
        table.setAffinityKeyInlineSize(null);
      }
    }
  }

  private static Map<String, Definition> byName(Definitions definitions) {
    return definitions.caches().stream()
        .collect(Collectors.toMap(Definition::name, each -> each, (a, b) -> b, TreeMap::new));
  }

  /** Columns and indexes that were added or dropped behind the full copy. */
  private static void alter(GridKernalContext context, String cache, StoredCacheData form)
      throws IgniteCheckedException {
    Collection<QueryEntity> now = context.cache().cacheDescriptor(cache).schema().entities();
    String schema = context.query().schemaManager() == null ? "PUBLIC" : schema(form, cache);
    for (QueryEntity wanted : form.queryEntities()) {
      Optional<QueryEntity> there =
          now.stream().filter(e -> e.getTableName().equals(wanted.getTableName())).findFirst();
      if (there.isEmpty()) {
        continue;
      }
      List<QueryField> missing = new ArrayList<>();
      wanted
          .getFields()
          .forEach(
              (name, type) -> {
                if (!there.get().getFields().containsKey(name)) {
                  missing.add(new QueryField(name, type, true));
                }
              });
      if (!missing.isEmpty()) {
        context
            .query()
            .dynamicColumnAdd(cache, schema, wanted.getTableName(), missing, false, true)
            .get();
      }
      List<String> surplus =
          there.get().getFields().keySet().stream()
              .filter(name -> !wanted.getFields().containsKey(name))
              .toList();
      if (!surplus.isEmpty()) {
        context
            .query()
            .dynamicColumnRemove(cache, schema, wanted.getTableName(), surplus, false, true)
            .get();
      }
      Set<String> indexes =
          there.get().getIndexes().stream()
              .map(index -> index.getName())
              .collect(Collectors.toSet());
      for (var index : wanted.getIndexes()) {
        if (!indexes.contains(index.getName())) {
          context
              .query()
              .dynamicIndexCreate(cache, schema, wanted.getTableName(), index, true, 0)
              .get();
        }
      }
    }
  }

  private static String schema(StoredCacheData form, String cache) {
    String schema = form.config().getSqlSchema();
    return schema == null ? cache : schema;
  }

  private static void write(
      Ignite ignite,
      GridKernalContext context,
      String name,
      Collection<Change> changes,
      long nowMs) {
    IgniteCache<Object, Object> cache = ignite.cache(name).withKeepBinary();
    CacheObjectContext values =
        context
            .cache()
            .context()
            .cacheContext(org.apache.ignite.internal.util.typedef.internal.CU.cacheId(name))
            .cacheObjectContext();
    // One by one: two pairs of a key and where it lies are equal to Java, if only the keys are.
    for (Change change : changes) {
      Object key = plain(context, values, change.keyType(), change.key());
      boolean expired = change.expiresMs() > 0 && change.expiresMs() <= nowMs;
      if (change.valueType() == 0 || expired) {
        cache.remove(key);
      } else if (change.expiresMs() > 0) {
        cache
            .withExpiryPolicy(
                new CreatedExpiryPolicy(
                    new Duration(TimeUnit.MILLISECONDS, change.expiresMs() - nowMs)))
            .put(key, plain(context, values, change.valueType(), change.value()));
      } else {
        cache.put(key, plain(context, values, change.valueType(), change.value()));
      }
    }
  }

  /** Keys of the engine's own classes must be what they are, for they say where an entry lies. */
  private static Object plain(
      GridKernalContext context, CacheObjectContext values, byte type, byte[] bytes) {
    CacheObject object = context.cacheObjects().toCacheObject(values, type, bytes);
    if (object instanceof BinaryObjectEx row) {
      // The engine's own pair of a key and where it lies, which has no type of its own.
      return row.typeId() == context.cacheObjects().typeId(AffinityKey.class.getName())
          ? row.deserialize()
          : row;
    }
    return object.value(values, false);
  }
}

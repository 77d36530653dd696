package dev.flotilla.data.sql;

import dev.flotilla.data.grid.Grid;
import java.util.ArrayList;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import org.apache.ignite.Ignite;
import org.apache.ignite.binary.BinaryObjectBuilder;
import org.apache.ignite.cache.QueryEntity;
import org.apache.ignite.cache.affinity.Affinity;
import org.apache.ignite.cache.affinity.AffinityFunction;
import org.apache.ignite.cache.affinity.AffinityKey;
import org.apache.ignite.cache.affinity.rendezvous.RendezvousAffinityFunction;
import org.apache.ignite.configuration.CacheConfiguration;
import org.apache.ignite.internal.IgniteEx;
import org.jspecify.annotations.Nullable;

/**
 * Makes SQL in transactions serializable, which the engine does not: it reads a statement's rows
 * without locks, computes new values, and only then locks the rows to write them, so of two {@code
 * UPDATE … SET n = n - 1} one is lost.
 *
 * <p>Here every partition of every table has a lock entry, a key in a cache of our own, and a
 * statement first writes the entries of the partitions it may touch, in its own transaction: those
 * of the primary keys that its condition names, else all of the table. The engine's two-phase
 * locking, deadlock detection and recovery then hold for conditions as they do for keys.
 *
 * <p>Why a lock entry per partition and not per table: when a transaction commits, its nodes apply
 * and release on their own, one a little before the other. A lock entry on another node than the
 * row could be free while the row still has its old value, and the next statement would read that.
 * An entry of the row's own partition is held by the node that holds the row, which releases only
 * after it has applied all it has of the transaction. Tables without a sharding share one cache
 * group with their lock entries, so that both are always on the same node. Tables with a sharding
 * of their own have a cache of lock entries each, spread by the same function.
 *
 * <p>Entries are taken in one order, by first owner and partition, so that two statements over the
 * whole of one table do not wait for each other in a circle.
 */
final class SqlLocks {

  /** The cache group of tables without a sharding of their own. */
  static final String GROUP = "flotilla.tables";

  private static final String CACHE = "flotilla.sql.locks";

  private SqlLocks() {}

  /** How a table without a sharding of its own is kept. */
  static CacheConfiguration<Object, Object> tableConfig(Grid grid, String name) {
    return grid.cacheConfig(name).setGroupName(GROUP);
  }

  /** Called at each start of the engine. */
  static void start(Grid grid, Ignite ignite) {
    ignite.addCacheConfiguration(tableConfig(grid, Statement.TEMPLATE + "*"));
    ignite.getOrCreateCache(tableConfig(grid, CACHE));
  }

  /** The engine's name of a table's cache. */
  static String cacheName(String table) {
    return "SQL_PUBLIC_" + table;
  }

  /** Makes the lock entries' cache of a table with a sharding of its own; not in a transaction. */
  static void prepare(Grid grid, Ignite ignite, String table) {
    AffinityFunction function = function(ignite, table);
    if (function != null && !isDefault(function)) {
      ignite.getOrCreateCache(
          grid.<Object, Object>cacheConfig(CACHE + "." + table)
              .setAffinity(new LockAffinity(function)));
    }
  }

  /** Drops what {@link #prepare} made. */
  static void drop(Ignite ignite, String table) {
    ignite.destroyCache(CACHE + "." + table);
  }

  private static boolean isDefault(AffinityFunction function) {
    return function.getClass() == RendezvousAffinityFunction.class && function.partitions() == 64;
  }

  /** Asked so, since asking for a cache that is not there would start one. */
  private static boolean exists(Ignite ignite, String cache) {
    return ((IgniteEx) ignite).context().cache().cacheDescriptor(cache) != null;
  }

  @SuppressWarnings("unchecked")
  private static @Nullable AffinityFunction function(Ignite ignite, String table) {
    return exists(ignite, cacheName(table))
        ? ((CacheConfiguration<Object, Object>)
                ignite.cache(cacheName(table)).getConfiguration(CacheConfiguration.class))
            .getAffinity()
        : null;
  }

  /**
   * Locks what a statement may touch of these tables until the end of this thread's transaction.
   *
   * @return for people, what was locked
   */
  static String lock(
      Ignite ignite, Statement statement, Set<String> tables, List<@Nullable Object> arguments) {
    List<String> locked = new ArrayList<>();
    for (String table : new TreeSet<>(tables)) {
      if (!exists(ignite, cacheName(table))) {
        continue; // A view of the engine's, or no table: the statement itself will say so.
      }
      Affinity<Object> affinity = ignite.affinity(cacheName(table));
      Collection<Integer> partitions = partitions(ignite, table, statement, arguments, affinity);
      String cacheName = CACHE + "." + table;
      if (!exists(ignite, cacheName)) {
        cacheName = CACHE;
      }
      Affinity<Object> places = ignite.affinity(cacheName);
      List<Integer> ordered =
          new ArrayList<>(
              new TreeSet<>(
                  partitions.stream().map(partition -> partition % places.partitions()).toList()));
      if (ordered.size() > 1) {
        Map<Integer, String> owners = new LinkedHashMap<>();
        places
            .mapPartitionsToNodes(ordered)
            .forEach((partition, node) -> owners.put(partition, node.id().toString()));
        ordered.sort(
            java.util.Comparator.<Integer, String>comparing(
                    partition -> owners.getOrDefault(partition, ""))
                .thenComparing(partition -> partition));
      }
      Map<Object, Object> entries = new LinkedHashMap<>();
      for (int partition : ordered) {
        entries.put(new AffinityKey<>(table + ":" + partition, partition), (byte) 1);
      }
      ignite.<Object, Object>cache(cacheName).putAll(entries);
      locked.add(
          table
              + (ordered.size() == places.partitions() ? " as a whole" : " partitions " + ordered));
    }
    return String.join(", ", locked);
  }

  private static Collection<Integer> partitions(
      Ignite ignite,
      String table,
      Statement statement,
      List<@Nullable Object> arguments,
      Affinity<Object> affinity) {
    Optional<QueryEntity> entity = entity(ignite, table);
    if (entity.isPresent()) {
      SqlKeys keys =
          new SqlKeys(
              keyColumns(entity.get()), List.copyOf(entity.get().getFields().keySet()), arguments);
      Optional<Set<SqlKeys.Key>> pinned = keys.of(statement);
      if (pinned.isPresent()) {
        Set<Integer> partitions = new LinkedHashSet<>();
        for (SqlKeys.Key key : pinned.get()) {
          partitions.add(affinity.partition(engineKey(ignite, entity.get(), key)));
        }
        return partitions;
      }
    }
    List<Integer> all = new ArrayList<>();
    for (int i = 0; i < affinity.partitions(); i++) {
      all.add(i);
    }
    return all;
  }

  @SuppressWarnings("unchecked")
  static Optional<QueryEntity> entity(Ignite ignite, String table) {
    if (!exists(ignite, cacheName(table))) {
      return Optional.empty();
    }
    return ((CacheConfiguration<Object, Object>)
            ignite.cache(cacheName(table)).getConfiguration(CacheConfiguration.class))
        .getQueryEntities().stream()
            .filter(entity -> table.equals(entity.getTableName()))
            .findFirst();
  }

  /** Columns of the primary key; none if the table has none, or of unknown classes. */
  static Map<String, Class<?>> keyColumns(QueryEntity entity) {
    Map<String, Class<?>> columns = new LinkedHashMap<>();
    Collection<String> names =
        entity.getKeyFieldName() != null
            ? List.of(entity.getKeyFieldName())
            : entity.getKeyFields() == null ? List.of() : entity.getKeyFields();
    for (String name : names) {
      Class<?> type = boxed(String.valueOf(entity.getFields().get(name)));
      if (type == null) {
        return Map.of();
      }
      columns.put(name, type);
    }
    return columns;
  }

  /** The class of a column's values; the engine names those that cannot be NULL as primitives. */
  private static @Nullable Class<?> boxed(String type) {
    return switch (type) {
      case "boolean" -> Boolean.class;
      case "byte" -> Byte.class;
      case "short" -> Short.class;
      case "int" -> Integer.class;
      case "long" -> Long.class;
      case "float" -> Float.class;
      case "double" -> Double.class;
      default -> {
        try {
          yield Class.forName(type);
        } catch (ClassNotFoundException e) {
          yield null;
        }
      }
    };
  }

  private static Object engineKey(Ignite ignite, QueryEntity entity, SqlKeys.Key key) {
    if (entity.getKeyFieldName() != null) {
      return key.values().values().iterator().next();
    }
    BinaryObjectBuilder builder = ignite.binary().builder(entity.getKeyType());
    key.values().forEach(builder::setField);
    return builder.build();
  }
}

package dev.flotilla.data.sql;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.cluster.Registry;
import dev.flotilla.data.grid.Grid;
import java.math.BigDecimal;
import java.sql.Timestamp;
import java.time.LocalDate;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.stream.IntStream;
import org.apache.calcite.sql.SqlDataTypeSpec;
import org.apache.calcite.sql.SqlIdentifier;
import org.apache.calcite.sql.SqlNode;
import org.apache.calcite.sql.SqlNodeList;
import org.apache.calcite.sql.ddl.SqlColumnDeclaration;
import org.apache.calcite.sql.ddl.SqlDropTable;
import org.apache.calcite.sql.ddl.SqlKeyConstraint;
import org.apache.ignite.Ignite;
import org.apache.ignite.binary.BinaryObject;
import org.apache.ignite.cache.affinity.AffinityFunction;
import org.apache.ignite.cache.affinity.rendezvous.RendezvousAffinityFunction;
import org.apache.ignite.cache.query.ScanQuery;
import org.apache.ignite.cache.query.SqlFieldsQuery;
import org.apache.ignite.configuration.CacheConfiguration;
import org.apache.ignite.internal.IgniteEx;
import org.apache.ignite.internal.processors.query.calcite.sql.IgniteSqlCreateTable;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Sharding on the grid. What each table's sharding is stands in the registry; its rows stand in an
 * ordinary table of the engine, whose affinity function is made from that.
 */
public final class GridSharding implements Sharding {

  /**
   * One sharded table in the registry.
   *
   * @param type of the column in SQL
   * @param generation 0 in the table of its own name; after a move n, in {@code NAME__n}
   * @param left generations whose tables are to be dropped once no statement uses them
   */
  record Stored(
      String table,
      Strategy strategy,
      String column,
      String type,
      int spread,
      int partitions,
      List<Shard> shards,
      Optional<String> colocatedWith,
      int generation,
      Optional<Moving> moving,
      List<Integer> left) {

    String physical() {
      return physical(generation);
    }

    String physical(int number) {
      return number == 0 ? table : table + "__" + number;
    }

    /** Where its rows go, if they are being moved. */
    Optional<String> target() {
      return moving.map(move -> physical(move.generation()));
    }

    TableShards view() {
      return new TableShards(
          table, strategy, column, spread, partitions, shards, colocatedWith, moving.isPresent());
    }

    Stored with(Optional<Moving> move) {
      return with(partitions, shards, generation, move, left);
    }

    /** As if the move had not begun. */
    Stored takenBack() {
      return with(
          partitions,
          shards,
          generation,
          Optional.empty(),
          plus(moving.orElseThrow().generation()));
    }

    Stored withoutLeft() {
      return with(partitions, shards, generation, moving, List.of());
    }

    private List<Integer> plus(int number) {
      List<Integer> more = new ArrayList<>(left);
      more.add(number);
      return more;
    }

    private Stored with(
        int itsPartitions,
        List<Shard> itsShards,
        int itsGeneration,
        Optional<Moving> move,
        List<Integer> itsLeft) {
      return new Stored(
          table,
          strategy,
          column,
          type,
          spread,
          itsPartitions,
          itsShards,
          colocatedWith,
          itsGeneration,
          move,
          itsLeft);
    }

    /** As it is once the move is done. */
    Stored moved() {
      Moving move = moving.orElseThrow();
      return with(
          move.partitions(), move.shards(), move.generation(), Optional.empty(), plus(generation));
    }
  }

  /**
   * A move under way.
   *
   * @param holding whether statements wait, because the last rows are there and the names change
   */
  record Moving(
      List<Shard> shards, int partitions, int generation, String driver, boolean holding) {}

  static final String KIND = "table-shards";

  private static final Logger log = LoggerFactory.getLogger(GridSharding.class);
  private static final Set<String> NUMBERS =
      Set.of("TINYINT", "SMALLINT", "INTEGER", "INT", "BIGINT");
  private static final Set<String> TIMES = Set.of("TIMESTAMP", "DATE");
  private static final Set<String> TEXTS = Set.of("VARCHAR");
  private static final int HOTTEST = 10;
  private static final int KEYS_COUNTED = 100_000;

  private final Cluster cluster;
  private final Grid grid;
  private final ShardGate gate;
  private final ShardMove mover;

  public GridSharding(Cluster cluster, Grid grid) {
    this.cluster = cluster;
    this.grid = grid;
    this.gate = new ShardGate(cluster);
    this.mover = new ShardMove(cluster, grid, this);
    cluster.addService(gate);
    cluster.addReconciler(mover::tidy);
    grid.onStart(
        ignite -> {
          gate.start();
          mover.takeBackOwn();
        });
  }

  /**
   * The right to run statements on tables as they are now; close it when they have ended. All SQL
   * goes through one.
   */
  ShardGate.Pass pass() {
    return gate.pass();
  }

  /**
   * Runs the statement if it is one of ours: a table made with a sharding, a sharded table dropped,
   * a split or a move.
   *
   * @return whether it was; if not, nothing was done
   */
  boolean executeIfOurs(String statement) {
    String start = statement.stripLeading();
    if (start.regionMatches(true, 0, "CREATE", 0, 6)
        || start.regionMatches(true, 0, "ALTER", 0, 5)) {
      Optional<ShardStatement> parsed = ShardStatement.parse(statement);
      parsed.ifPresent(
          ours -> {
            switch (ours) {
              case ShardStatement.Create create -> create(create);
              case ShardStatement.Split split -> split(split.table(), split.at());
              case ShardStatement.Move move -> move(move.table(), move.shard(), move.nodes());
            }
          });
      return parsed.isPresent();
    }
    if (start.regionMatches(true, 0, "DROP", 0, 4)
        && SqlTables.parse(statement) instanceof SqlDropTable drop
        && SqlNames.isUsers(drop.name)) {
      Optional<Entry> entry = entry(drop.name.names.getLast());
      entry.ifPresent(this::drop);
      return entry.isPresent();
    }
    return false;
  }

  @Override
  public void execute(String statement) {
    if (!executeIfOurs(statement)) {
      throw new FlotillaException(
          Code.INVALID, "that statement has nothing to do with sharding", "Run it as SQL.");
    }
  }

  // What is stored.

  /** A table and the version that a change of it rests on. */
  record Entry(Stored stored, long epoch) {}

  Optional<Entry> entry(String table) {
    return cluster
        .registry()
        .get(new Registry.Key(KIND, table))
        .map(entry -> new Entry(Json.read(entry.value(), Stored.class), entry.epoch()));
  }

  List<Stored> stored() {
    return stored(cluster.registry());
  }

  static List<Stored> stored(Registry registry) {
    return registry.list(KIND).stream()
        .map(entry -> Json.read(entry.value(), Stored.class))
        .toList();
  }

  /** Changes each time a number of partitions was chosen. */
  private static final Registry.Key CHOSEN = new Registry.Key("table-shards-chosen", "last");

  /** To be asked before {@link #freePartitions}, for {@link #putChosen}. */
  long chosen() {
    return cluster.registry().get(CHOSEN).map(Registry.Entry::epoch).orElse(0L);
  }

  /**
   * As {@link #put}, of a sharding for which a number of partitions was chosen; empty also if one
   * was chosen for another table meanwhile, which may be the same.
   */
  Optional<Long> putChosen(Stored value, long epoch, long chosen) {
    Registry.Key key = new Registry.Key(KIND, value.table());
    return cluster
        .registry()
        .commit(
            List.of(new Registry.Condition(key, epoch), new Registry.Condition(CHOSEN, chosen)),
            List.of(
                new Registry.Write(key, Optional.of(Json.write(value))),
                new Registry.Write(CHOSEN, Optional.of(Json.write(value.table())))));
  }

  /** Empty if the entry has changed meanwhile. */
  Optional<Long> put(String table, long epoch, Optional<Stored> value) {
    Registry.Key key = new Registry.Key(KIND, table);
    return cluster
        .registry()
        .commit(
            List.of(new Registry.Condition(key, epoch)),
            List.of(new Registry.Write(key, value.map(Json::write))));
  }

  Entry required(String table) {
    return entry(table)
        .or(() -> entry(table.toUpperCase(java.util.Locale.ROOT)))
        .orElseThrow(
            () ->
                new FlotillaException(
                    Code.NOT_FOUND,
                    "there is no sharded table " + table,
                    "Create it with SHARD BY; tables without are spread by hash of their key."));
  }

  /** What users call the table that the engine calls so; empty for one that is being filled. */
  Optional<String> logicalName(String physical) {
    for (Stored each : stored()) {
      if (each.physical().equals(physical)) {
        return Optional.of(each.table());
      }
      if (each.target().equals(Optional.of(physical))) {
        return Optional.empty();
      }
    }
    return Optional.of(physical);
  }

  @Override
  public List<TableShards> tables() {
    return stored().stream().map(Stored::view).toList();
  }

  @Override
  public TableShards table(String name) {
    return required(name).stored().view();
  }

  // Making and dropping tables.

  private void create(ShardStatement.Create statement) {
    if (!(SqlTables.parse(statement.create()) instanceof IgniteSqlCreateTable create)
        || create.columnList() == null) {
      throw new FlotillaException(
          Code.INVALID,
          "a sharded table needs its columns named",
          "CREATE TABLE t (column type, …)");
    }
    if (create.createOptionList() != null) {
      throw new FlotillaException(
          Code.INVALID, "a sharded table takes no WITH options", "Leave them out.");
    }
    String table = create.name().names.getLast();
    SqlNames.checkNew(table);
    if (isThere(create)) {
      return;
    }
    // The registry first: a table that it does not know would be served unsharded.
    Stored stored = choose(table, statement.clause(), create);
    List<String> keys = primaryKey(create);
    StringBuilder ddl =
        new StringBuilder(
            SqlText.of(statement.create())
                .edited(Statement.keysNotNull(statement.create(), create))
                .text()
                .strip());
    ddl.append(" WITH \"template=").append(template(stored)).append(",value_type=flotilla.");
    ddl.append(table).append(".value");
    if (keys.size() > 1) {
      ddl.append(",key_type=flotilla.").append(table).append(".key");
      if (stored.spread() == 1) {
        ddl.append(",affinity_key=").append(stored.column());
      }
    }
    ddl.append('"');
    try {
      register(stored);
      grid.write(
          "creating table " + table,
          ignite -> {
            run(ignite, ddl.toString());
            return true;
          });
    } catch (FlotillaException e) {
      entry(table).ifPresent(entry -> put(table, entry.epoch(), Optional.empty()));
      throw e;
    }
    log.info("table {} is sharded by {} of {}", table, stored.strategy(), stored.column());
  }

  /** Puts the table's sharding into the registry, with partitions of a number of its own. */
  private Stored choose(String table, ShardStatement.Clause clause, IgniteSqlCreateTable create) {
    while (true) {
      long chosen = chosen();
      Stored stored = resolve(table, clause, create);
      if (putChosen(stored, 0, chosen).isPresent()) {
        return stored;
      }
      cluster.registry().sync();
      if (entry(table).isPresent()) {
        throw isThereAlready(table);
      }
    }
  }

  private static FlotillaException isThereAlready(String table) {
    return new FlotillaException(
        Code.CONFLICT, "there is a table " + table + " already", "Choose another name.");
  }

  /**
   * As {@link #isThere(IgniteSqlCreateTable)}, of a statement that makes a table without sharding.
   */
  boolean isThere(Statement statement) {
    return statement.parsed() instanceof IgniteSqlCreateTable create
        && SqlNames.isUsers(create.name())
        && isThere(create);
  }

  /**
   * Whether there is a sharded table of that name, so that nothing is left to do.
   *
   * @throws FlotillaException {@code CONFLICT} if there is, and the statement does not say IF NOT
   *     EXISTS, or if it was not made to the end
   */
  private boolean isThere(IgniteSqlCreateTable create) {
    String table = create.name().names.getLast();
    cluster.registry().sync();
    Optional<Entry> entry = entry(table);
    if (entry.isEmpty()) {
      return false;
    }
    if (!isMade(entry.get().stored())) {
      throw new FlotillaException(
          Code.CONFLICT,
          "table " + table + " is being made, or that was cut off",
          "Wait a little; if it stays so, DROP TABLE " + table + " and make it again.");
    }
    if (!create.ifNotExists()) {
      throw isThereAlready(table);
    }
    return true;
  }

  private boolean isMade(Stored stored) {
    return grid.read(
        "looking for table " + stored.table(),
        ignite ->
            ((IgniteEx) ignite).context().cache().cacheDescriptor(cacheName(stored.physical()))
                != null);
  }

  private void drop(Entry entry) {
    Stored stored = entry.stored();
    String table = stored.table();
    if (stored.moving().isPresent()) {
      throw beingMoved(table);
    }
    List<String> children =
        stored().stream()
            .filter(each -> each.colocatedWith().equals(Optional.of(table)))
            .map(Stored::table)
            .toList();
    if (!children.isEmpty()) {
      throw new FlotillaException(
          Code.CONFLICT,
          "tables " + children + " are co-located with " + table,
          "Drop those first.");
    }
    grid.write(
        "dropping table " + table,
        ignite -> {
          ignite.destroyCache(cacheName(stored.physical()));
          stored.left().forEach(each -> ignite.destroyCache(cacheName(stored.physical(each))));
          return true;
        });
    put(table, entry.epoch(), Optional.empty());
  }

  static FlotillaException beingMoved(String table) {
    return new FlotillaException(
        Code.CONFLICT,
        "the rows of table " + table + " are being moved to other shards",
        "Wait until that is done.");
  }

  /** The engine's name of a table's cache. */
  static String cacheName(String physical) {
    return "SQL_PUBLIC_" + physical;
  }

  static String template(Stored stored) {
    return "flotilla.shards." + stored.physical();
  }

  static void run(Ignite ignite, String sql) {
    ((IgniteEx) ignite)
        .context()
        .query()
        .querySqlFields(new SqlFieldsQuery(sql).setSchema("PUBLIC"), true)
        .getAll();
  }

  /** Makes the template known from which the engine makes the table. */
  void register(Stored stored) {
    grid.write(
        "preparing table " + stored.table(),
        ignite -> {
          CacheConfiguration<Object, Object> config = grid.cacheConfig(template(stored) + "*");
          config.setAffinity(function(stored));
          ignite.addCacheConfiguration(config);
          return true;
        });
  }

  static AffinityFunction function(Stored stored) {
    return stored.strategy() == Strategy.HASH
        ? new RendezvousAffinityFunction(false, stored.partitions())
        : affinity(stored);
  }

  static ShardAffinity affinity(Stored stored) {
    boolean list = stored.strategy() == Strategy.LIST;
    boolean text = TEXTS.contains(stored.type());
    TreeMap<Object, Integer> keys = new TreeMap<>();
    for (int shard = 0; shard < stored.shards().size(); shard++) {
      for (String value : stored.shards().get(shard).values()) {
        if (keys.put(text ? value : (Object) number(stored.type(), value), shard) != null) {
          throw new FlotillaException(
              Code.INVALID, value + " stands twice among the shards", "Name it once.");
        }
      }
    }
    if (!list) {
      int previous = 0;
      for (int shard : keys.values()) {
        if (shard < previous) {
          throw new FlotillaException(
              Code.INVALID, "the bounds of the ranges are not in order", "Sort them.");
        }
        previous = shard;
      }
    }
    return new ShardAffinity(
        stored.column(),
        stored.partitions(),
        stored.spread(),
        list,
        text ? new long[0] : keys.keySet().stream().mapToLong(key -> (Long) key).toArray(),
        text ? keys.keySet().stream().map(String::valueOf).toArray(String[]::new) : new String[0],
        keys.values().stream().mapToInt(shard -> shard).toArray(),
        stored.shards().stream()
            .map(shard -> shard.nodes().toArray(String[]::new))
            .toArray(String[][]::new));
  }

  private static Long number(String type, String text) {
    try {
      if (type.equals("DATE")) {
        return java.sql.Date.valueOf(LocalDate.parse(text)).getTime();
      }
      return type.equals("TIMESTAMP")
          ? Timestamp.valueOf(text.replace('T', ' ')).getTime()
          : Long.parseLong(text);
    } catch (RuntimeException e) {
      throw new FlotillaException(
          Code.INVALID,
          text + " is not a value of type " + type,
          type.equals("TIMESTAMP")
              ? "Write it as 'YYYY-MM-DD HH:MM:SS'."
              : type.equals("DATE") ? "Write it as 'YYYY-MM-DD'." : "Write a whole number.",
          e);
    }
  }

  private static List<String> primaryKey(IgniteSqlCreateTable create) {
    for (SqlNode each : create.columnList()) {
      if (each instanceof SqlKeyConstraint key) {
        return ((SqlNodeList) key.getOperandList().get(1))
            .getList().stream().map(name -> ((SqlIdentifier) name).getSimple()).toList();
      }
    }
    throw new FlotillaException(
        Code.INVALID, "a sharded table needs a primary key", "Add PRIMARY KEY (column, …).");
  }

  private Stored resolve(String table, ShardStatement.Clause clause, IgniteSqlCreateTable create) {
    List<String> keys = primaryKey(create);
    Optional<Stored> parent = clause.colocatedWith().map(with -> required(with).stored());
    String column = clause.column().isEmpty() ? parent.orElseThrow().column() : clause.column();
    if (!keys.contains(column)) {
      throw new FlotillaException(
          Code.INVALID,
          "column " + column + " decides the shard, but is not in the primary key " + keys,
          "Add it to the primary key, for a row must be found by its key alone.");
    }
    String type = type(create, column);
    if (parent.isPresent()) {
      return colocated(table, column, type, parent.get());
    }
    boolean known = TEXTS.contains(type) || NUMBERS.contains(type) || TIMES.contains(type);
    if (clause.strategy() == Strategy.HASH) {
      return new Stored(
          table,
          Strategy.HASH,
          column,
          type,
          1,
          clause.partitions(),
          List.of(),
          Optional.empty(),
          0,
          Optional.empty(),
          List.of());
    }
    if (!known) {
      throw new FlotillaException(
          Code.INVALID,
          "a column of type " + type + " has no ranges or lists",
          "Use an integer, a text, a timestamp or a date.");
    }
    int spread = clause.spread();
    List<Shard> shards =
        clause.shards().stream()
            .map(shard -> new Shard(shard.values(), nodeIds(shard.nodes())))
            .toList();
    Stored stored =
        new Stored(
            table,
            clause.strategy(),
            column,
            type,
            spread,
            freePartitions(shards.size() * spread),
            shards,
            Optional.empty(),
            0,
            Optional.empty(),
            List.of());
    affinity(stored);
    return stored;
  }

  private static String type(IgniteSqlCreateTable create, String column) {
    for (SqlNode each : create.columnList()) {
      if (each instanceof SqlColumnDeclaration declared
          && declared.name.getSimple().equals(column)) {
        SqlDataTypeSpec type = declared.dataType;
        return type.getTypeName().getSimple().toUpperCase(java.util.Locale.ROOT);
      }
    }
    throw new FlotillaException(Code.INVALID, "there is no column " + column, "");
  }

  private static Stored colocated(String table, String column, String type, Stored parent) {
    if (parent.moving().isPresent()) {
      throw beingMoved(parent.table());
    }
    if (parent.spread() > 1) {
      throw new FlotillaException(
          Code.INVALID,
          "table "
              + parent.table()
              + " spreads the rows of one "
              + parent.column()
              + " over "
              + parent.spread()
              + " partitions by the rest of their key, so nothing can lie beside them",
          "Create it with SPREAD 1.");
    }
    if (!type.equals(parent.type())) {
      throw new FlotillaException(
          Code.INVALID,
          "column "
              + column
              + " is of type "
              + type
              + ", but "
              + parent.column()
              + " of "
              + parent.type(),
          "Equal values of different types may lie on different nodes; give both one type.");
    }
    return new Stored(
        table,
        parent.strategy(),
        column,
        type,
        1,
        parent.partitions(),
        parent.shards(),
        Optional.of(parent.table()),
        0,
        Optional.empty(),
        List.of());
  }

  /** A number of partitions that no other sharding has: see {@link ShardAffinity}. */
  int freePartitions(int least) {
    Set<Integer> taken = new HashSet<>();
    for (Stored each : stored()) {
      taken.add(each.partitions());
      each.moving().ifPresent(move -> taken.add(move.partitions()));
    }
    return IntStream.iterate(least, n -> n + 1)
        .filter(n -> !taken.contains(n))
        .findFirst()
        .orElseThrow();
  }

  private List<String> nodeIds(List<String> named) {
    List<NodeInfo> all = cluster.nodes();
    return named.stream()
        .map(
            name ->
                all.stream()
                    .filter(node -> node.id().equals(name) || node.name().equals(name))
                    .map(NodeInfo::id)
                    .findFirst()
                    .orElseThrow(
                        () ->
                            new FlotillaException(
                                Code.INVALID,
                                "there is no node " + name + " in the cluster",
                                "Its nodes are " + all.stream().map(NodeInfo::name).toList())))
        .toList();
  }

  // Moving.

  @Override
  public void split(String table, String at) {
    cluster.registry().sync(); // a move that another node has just ended is seen
    Entry entry = required(table);
    Stored stored = entry.stored();
    if (stored.strategy() != Strategy.RANGE) {
      throw new FlotillaException(Code.INVALID, "table " + table + " has no ranges to split", "");
    }
    List<Shard> shards = new ArrayList<>(stored.shards());
    ShardAffinity now = affinity(stored);
    Object value = TEXTS.contains(stored.type()) ? at : number(stored.type(), at);
    int shard = now.shard(value);
    for (String bound : shards.get(shard).values()) {
      if (value.equals(TEXTS.contains(stored.type()) ? bound : number(stored.type(), bound))) {
        throw new FlotillaException(
            Code.CONFLICT, "table " + table + " is split at " + at + " already", "");
      }
    }
    if ((shards.size() + 1) * stored.spread() > ShardStatement.PARTITIONS_MAX) {
      throw new FlotillaException(
          Code.INVALID, "table " + table + " would have too many partitions", "");
    }
    shards.add(shard + 1, new Shard(List.of(at), shards.get(shard).nodes()));
    mover.move(entry, shards);
  }

  @Override
  public void move(String table, int shard, List<String> nodes) {
    cluster.registry().sync();
    Entry entry = required(table);
    List<Shard> shards = new ArrayList<>(entry.stored().shards());
    if (shard < 0 || shard >= shards.size()) {
      throw new FlotillaException(
          Code.INVALID,
          "table " + table + " has no shard " + shard,
          shards.isEmpty()
              ? "Tables sharded by hash have none to move."
              : "Its shards are 0 to " + (shards.size() - 1) + ".");
    }
    shards.set(shard, new Shard(shards.get(shard).values(), nodeIds(nodes)));
    mover.move(entry, shards);
  }

  /** Moves done, rows copied, how long statements waited in the last move. */
  Map<String, Long> counters() {
    return mover.counters();
  }

  // Explaining.

  @Override
  public Explanation explain(String statement, List<Object> arguments) {
    SqlNode parsed = SqlTables.parse(statement);
    Statement.Kind kind = Statement.kind(parsed);
    if (kind != Statement.Kind.QUERY && !kind.writes()) {
      throw new FlotillaException(
          Code.INVALID,
          "only SELECT, INSERT, UPDATE, DELETE and MERGE can be explained",
          "Other statements have no plan.");
    }
    List<SqlTables.Reference> references = SqlTables.of(statement, parsed);
    try (ShardGate.Pass pass = pass()) {
      List<TouchedTable> tables = new ArrayList<>();
      for (SqlTables.Reference each : references) {
        tables.add(touched(each, parsed, references.size() == 1, arguments, pass));
      }
      String plan =
          grid.read(
              "explaining a statement",
              ignite -> {
                SqlText resolved = pass.resolve(statement);
                SqlText text =
                    SqlInserts.columnsNamed(ignite, SqlTables.parse(resolved.text()), resolved)
                        .edited(List.of(new SqlText.Edit(0, 0, "EXPLAIN PLAN FOR ")));
                return String.valueOf(
                    SqlEngine.run(
                            ignite,
                            SqlErrors.About.of(text),
                            Sql.Request.of("", arguments.toArray()),
                            new Sql.Cancel())
                        .rows()
                        .getFirst()
                        .getFirst());
              });
      return new Explanation(tables, plan);
    }
  }

  private TouchedTable touched(
      SqlTables.Reference reference,
      SqlNode parsed,
      boolean single,
      List<? extends @Nullable Object> arguments,
      ShardGate.Pass pass) {
    String table = reference.table();
    Optional<Stored> stored = pass.table(table);
    return grid.read(
        "explaining a statement on " + table,
        ignite -> {
          String cache = cacheName(stored.map(Stored::physical).orElse(table));
          if (ignite.cache(cache) == null) {
            throw new FlotillaException(Code.NOT_FOUND, "there is no table " + table, "");
          }
          var affinity = ignite.<Object>affinity(cache);
          int spread = stored.map(Stored::spread).orElse(1);
          Optional<BitSet> units =
              stored.flatMap(each -> units(each, reference.alias(), parsed, single, arguments));
          int real =
              stored
                  .filter(each -> each.strategy() != Strategy.HASH)
                  .map(each -> each.shards().size() * each.spread())
                  .orElse(affinity.partitions());
          BitSet partitions = new BitSet();
          units.ifPresentOrElse(
              set -> set.stream().forEach(i -> partitions.set(i * spread, (i + 1) * spread)),
              () -> partitions.set(0, real));
          boolean hash = stored.map(each -> each.strategy() == Strategy.HASH).orElse(true);
          List<Integer> shards =
              hash
                  ? List.of()
                  : partitions.stream().map(p -> p / spread).distinct().boxed().toList();
          Map<String, List<Integer>> nodes = new TreeMap<>();
          partitions.stream()
              .forEach(
                  p ->
                      nodes
                          .computeIfAbsent(
                              String.valueOf(affinity.mapPartitionToNode(p).consistentId()),
                              id -> new ArrayList<>())
                          .add(p));
          return new TouchedTable(
              table,
              stored.map(each -> each.strategy().name()).orElse("HASH"),
              shards,
              partitions.cardinality(),
              real,
              partitions.cardinality() == real,
              nodes.entrySet().stream()
                  .map(node -> new NodePartitions(node.getKey(), node.getValue()))
                  .toList());
        });
  }

  private static Optional<BitSet> units(
      Stored stored,
      String alias,
      SqlNode parsed,
      boolean single,
      List<? extends @Nullable Object> arguments) {
    AffinityFunction function = function(stored);
    return new ShardConditions(
            alias,
            stored.column(),
            single,
            stored.strategy() == Strategy.HASH ? stored.partitions() : stored.shards().size(),
            stored.strategy() == Strategy.RANGE,
            arguments,
            value -> converted(stored, value),
            value -> unit(function, value),
            // Of a time that is finer than a millisecond only that is known.
            value ->
                function instanceof ShardAffinity ours && !TIMES.contains(stored.type())
                    ? ours.shardBelow(value)
                    : unit(function, value),
            value ->
                value instanceof Number number
                        && !TIMES.contains(stored.type())
                        && number.longValue() < Long.MAX_VALUE
                    ? unit(function, number.longValue() + 1)
                    : unit(function, value))
        .touched(parsed);
  }

  /**
   * The value as the engine holds it in the column; empty if it is of another type (such as 1.5, or
   * a number for a text), for the engine compares those in ways of its own.
   */
  private static int unit(AffinityFunction function, Object value) {
    return function instanceof ShardAffinity ours ? ours.shard(value) : function.partition(value);
  }

  private static Optional<Object> converted(Stored stored, Object value) {
    try {
      if (stored.type().equals("VARCHAR")) {
        return value instanceof String ? Optional.of(value) : Optional.empty();
      }
      if (TIMES.contains(stored.type())) {
        return Optional.of(number(stored.type(), String.valueOf(value)));
      }
      if (!(value instanceof Number)) {
        return Optional.empty();
      }
      long exact = new BigDecimal(String.valueOf(value)).longValueExact();
      return switch (stored.type()) {
        case "TINYINT" -> inRange(exact, (byte) exact, (byte) exact);
        case "SMALLINT" -> inRange(exact, (short) exact, (short) exact);
        case "INT", "INTEGER" ->
            inRange(exact, Math.clamp(exact, Integer.MIN_VALUE, Integer.MAX_VALUE), (int) exact);
        case "BIGINT" -> Optional.of(exact);
        default -> Optional.empty();
      };
    } catch (ArithmeticException | NumberFormatException | FlotillaException e) {
      return Optional.empty();
    }
  }

  private static Optional<Object> inRange(long exact, long narrowed, Object value) {
    return exact == narrowed ? Optional.of(value) : Optional.empty();
  }

  /**
   * The partitions to which a query can be confined, if its one table is sharded and its condition
   * says so.
   */
  static Optional<int[]> confined(
      Stored stored, String alias, SqlNode parsed, List<? extends @Nullable Object> arguments) {
    return units(stored, alias, parsed, true, arguments)
        .map(
            set ->
                set.stream()
                    .flatMap(i -> IntStream.range(i * stored.spread(), (i + 1) * stored.spread()))
                    .toArray());
  }

  // Measuring.

  @Override
  public Skew skew(String table) {
    Stored stored = required(table).stored();
    if (!isMade(stored)) {
      throw new FlotillaException(
          Code.NOT_FOUND,
          "table " + table + " is being made, or that was cut off",
          "Wait a little; if it stays so, drop it and make it again.");
    }
    return grid.read(
        "measuring table " + table,
        ignite -> {
          String cache = cacheName(stored.physical());
          var affinity = ignite.<Object>affinity(cache);
          int real =
              stored.strategy() == Strategy.HASH
                  ? stored.partitions()
                  : stored.shards().size() * stored.spread();
          Map<String, Long> keys = new HashMap<>();
          Map<String, NodeLoad> nodes = new LinkedHashMap<>();
          Grid.visible(ignite).stream()
              .sorted()
              .forEach(id -> nodes.put(id, new NodeLoad(id, 0, 0, 0)));
          List<PartitionLoad> partitions = new ArrayList<>();
          long rows = 0;
          long bytes = 0;
          for (int p = 0; p < real; p++) {
            long[] load = load(ignite, stored, cache, p, keys);
            String node = String.valueOf(affinity.mapPartitionToNode(p).consistentId());
            partitions.add(new PartitionLoad(p, p / stored.spread(), node, load[0], load[1]));
            nodes.merge(
                node,
                new NodeLoad(node, load[0], load[1], 1),
                (a, b) ->
                    new NodeLoad(
                        node,
                        a.rows() + b.rows(),
                        a.bytes() + b.bytes(),
                        a.partitions() + b.partitions()));
            rows += load[0];
            bytes += load[1];
          }
          long fullest = nodes.values().stream().mapToLong(NodeLoad::rows).max().orElse(0);
          long fullestPartition =
              partitions.stream().mapToLong(PartitionLoad::rows).max().orElse(0);
          List<HotKey> hottest =
              keys.entrySet().stream()
                  .sorted(Map.Entry.<String, Long>comparingByValue(Comparator.reverseOrder()))
                  .limit(HOTTEST)
                  .map(each -> new HotKey(each.getKey(), each.getValue()))
                  .toList();
          return new Skew(
              stored.table(),
              rows,
              bytes,
              rows == 0 ? 1 : (double) fullest * nodes.size() / rows,
              rows == 0 ? 1 : (double) fullestPartition * real / rows,
              List.copyOf(nodes.values()),
              partitions,
              hottest);
        });
  }

  private static long[] load(
      Ignite ignite, Stored stored, String cache, int partition, Map<String, Long> keys) {
    long rows = 0;
    long bytes = 0;
    try (var cursor =
        ignite
            .cache(cache)
            .withKeepBinary()
            .query(new ScanQuery<Object, Object>(partition).setPageSize(4096))) {
      for (var row : cursor) {
        rows++;
        bytes += bytes(row.getKey()) + bytes(row.getValue());
        Object value =
            row.getKey() instanceof BinaryObject key ? key.field(stored.column()) : row.getKey();
        keys.merge(String.valueOf(value), 1L, Long::sum);
        if (keys.size() > KEYS_COUNTED) {
          // What is rare so far is not among the hottest; frequent values lose at most what they
          // had when they were rare.
          long few = keys.values().stream().mapToLong(n -> n).sum() / keys.size();
          keys.values().removeIf(n -> n <= few);
        }
      }
    }
    return new long[] {rows, bytes};
  }

  private static long bytes(Object stored) {
    return switch (stored) {
      case BinaryObject binary -> binary.size();
      case String text -> text.length();
      case byte[] array -> array.length;
      default -> Long.BYTES;
    };
  }
}

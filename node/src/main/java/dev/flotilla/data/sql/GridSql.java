package dev.flotilla.data.sql;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.data.grid.Environment;
import dev.flotilla.data.grid.Grid;
import dev.flotilla.data.grid.TransactionScope;
import io.micrometer.core.instrument.Timer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Set;
import java.util.function.Function;
import org.apache.calcite.sql.SqlExplain;
import org.apache.ignite.Ignite;
import org.apache.ignite.cache.QueryEntity;
import org.apache.ignite.cache.query.SqlFieldsQuery;
import org.apache.ignite.internal.IgniteEx;
import org.apache.ignite.internal.processors.cache.DynamicCacheDescriptor;

/** The database on the grid. */
public final class GridSql implements Sql {

  private static final long RETRY_NS = 10_000_000_000L;

  private final Environment environment;
  private final Grid grid;
  private final GridSharding sharding;
  private final GridTransactions transactions;
  private final Migrations migrations;

  public GridSql(
      Environment environment, Grid grid, GridSharding sharding, GridTransactions transactions) {
    this.environment = environment;
    this.grid = grid;
    this.sharding = sharding;
    this.transactions = transactions;
    this.migrations = new Migrations(this, environment.cluster(), environment.clock());
  }

  @Override
  public SqlResult execute(Request request, Cancel cancel) {
    check(request);
    long beganNs = environment.nanoTime().getAsLong();
    String outcome = "failed";
    try {
      SqlResult result = run(request, cancel);
      outcome = "done";
      return result;
    } finally {
      Timer.builder("flotilla_sql")
          .tag("outcome", outcome)
          .register(environment.metrics())
          .record(
              environment.nanoTime().getAsLong() - beganNs,
              java.util.concurrent.TimeUnit.NANOSECONDS);
    }
  }

  private static void check(Request request) {
    if (request.rowsMax() < 1 || request.rowsMax() > ROWS_MAX) {
      throw new FlotillaException(
          Code.INVALID,
          "a limit of " + request.rowsMax() + " rows",
          "Choose from 1 to " + ROWS_MAX + "; use LIMIT and OFFSET for more.");
    }
    if (request.timeout().toMillis() < 1 || request.timeout().compareTo(TIMEOUT_MAX) > 0) {
      throw new FlotillaException(
          Code.INVALID,
          "a time-out of " + request.timeout().toMillis() + " ms",
          "Choose from 1 ms to 10 minutes.");
    }
  }

  private SqlResult run(Request request, Cancel cancel) {
    if (TransactionScope.current().isPresent()) {
      return GridTransactions.inThisTransaction(request, cancel);
    }
    String text = Statement.trimmed(request.statement());
    if (sharding.executeIfOurs(text)) {
      prepareLocks();
      return new SqlResult(List.of(), List.of(), 0, false);
    }
    Statement asWritten = Statement.parse(text);
    SqlEngine.checkArguments(asWritten, request.arguments());
    return switch (asWritten.kind()) {
      case QUERY -> query(asWritten, request, cancel);
      case INSERT, UPDATE, DELETE, MERGE ->
          transactions.autocommit(
              new Request(
                  request.statement(),
                  request.arguments(),
                  request.rowsMax(),
                  atLeast(request.timeout(), Duration.ofMillis(100))),
              cancel);
      case CREATE_TABLE ->
          sharding.isThere(asWritten)
              ? new SqlResult(List.of(), List.of(), 0, false)
              : define(asWritten.safeCreateTable(), request, cancel);
      case SCHEMA -> define(SqlText.of(text), request, cancel);
      case OTHER -> throw SqlErrors.notOffered(text);
    };
  }

  /** Sharded tables need lock entries of their own; a split or move makes the table anew. */
  private void prepareLocks() {
    for (GridSharding.Stored stored : sharding.stored()) {
      grid.write(
          "preparing the locks of table " + stored.table(),
          ignite -> {
            SqlLocks.prepare(grid, ignite, stored.physical());
            return true;
          });
    }
  }

  private static Duration atLeast(Duration given, Duration least) {
    return given.compareTo(least) < 0 ? least : given;
  }

  private SqlResult query(Statement asWritten, Request request, Cancel cancel) {
    String text = asWritten.text();
    return again(
        "a query",
        request,
        ignite -> {
          try (ShardGate.Pass pass = sharding.pass()) {
            return SqlEngine.run(
                ignite,
                SqlErrors.About.of(explainable(ignite, pass.resolve(text), asWritten)),
                pass.partitions(text, request.arguments()),
                request,
                cancel);
          }
        });
  }

  /** An INSERT that is only explained needs what one that runs needs. */
  private static SqlText explainable(Ignite ignite, SqlText resolved, Statement asWritten) {
    return asWritten.parsed() instanceof SqlExplain
        ? SqlInserts.columnsNamed(ignite, SqlTables.parse(resolved.text()), resolved)
        : resolved;
  }

  /** Again, while a node that left or came makes the engine refuse. */
  private SqlResult again(String what, Request request, Function<Ignite, SqlResult> read) {
    long deadlineNs =
        environment.nanoTime().getAsLong() + Math.min(RETRY_NS, request.timeout().toNanos());
    while (true) {
      try {
        return grid.read(what, read);
      } catch (SqlEngine.RetryOnStableTopology e) {
        if (environment.nanoTime().getAsLong() > deadlineNs) {
          throw new FlotillaException(
              Code.UNAVAILABLE,
              what + " met changes of the cluster's nodes again and again",
              "Try again soon.",
              e);
        }
        try {
          Thread.sleep(100);
        } catch (InterruptedException interrupted) {
          Thread.currentThread().interrupt();
          throw new FlotillaException(Code.FAILED, "interrupted", "", interrupted);
        }
      }
    }
  }

  /** The engine checks for a majority at writes of rows, not at changes of the schema: we do. */
  private SqlResult define(SqlText text, Request request, Cancel cancel) {
    if (!grid.hasMajority()) {
      throw new FlotillaException(
          Code.NO_MAJORITY,
          "a change of the schema: this node cannot reach a majority of the cluster's nodes",
          "Try another node, or again when the others are back.");
    }
    return grid.write(
        "a change of the schema",
        ignite -> {
          try (ShardGate.Pass pass = sharding.pass()) {
            return SqlEngine.run(ignite, SqlErrors.About.of(pass.resolve(text)), request, cancel);
          }
        });
  }

  @Override
  public List<SqlResult.Column> describe(String statement) {
    if (ShardStatement.parse(Statement.trimmed(statement)).isPresent()) {
      return List.of();
    }
    Statement parsed = Statement.parse(statement);
    if (parsed.kind() != Statement.Kind.QUERY) {
      return List.of();
    }
    Request request = Request.of(statement);
    return grid.read(
        "describing a query",
        ignite -> {
          SqlText asked = SqlText.of(parsed.text());
          try (ShardGate.Pass pass = sharding.pass()) {
            asked = pass.resolve(parsed.text());
            return SqlEngine.columns(
                ((IgniteEx) ignite)
                    .context()
                    .query()
                    .resultSetMetaData(new SqlFieldsQuery(asked.text()).setSchema("PUBLIC"), null));
          } catch (javax.cache.CacheException | org.apache.ignite.IgniteException e) {
            throw SqlEngine.said(e, request, SqlErrors.About.of(asked));
          }
        });
  }

  @Override
  public List<Table> tables() {
    return grid.read(
        "listing the tables",
        ignite -> {
          List<Table> tables = new ArrayList<>();
          for (DynamicCacheDescriptor cache :
              ((IgniteEx) ignite).context().cache().cacheDescriptors().values()) {
            for (QueryEntity entity : cache.schema().entities()) {
              sharding
                  .logicalName(entity.getTableName())
                  .ifPresent(name -> tables.add(table(name, entity)));
            }
          }
          tables.sort(Comparator.comparing(Table::name));
          return tables;
        });
  }

  private static Table table(String name, QueryEntity entity) {
    List<String> keys = List.copyOf(SqlLocks.keyColumns(entity).keySet());
    Set<String> notNull = entity.getNotNullFields() == null ? Set.of() : entity.getNotNullFields();
    List<TableColumn> columns = new ArrayList<>();
    entity
        .getFields()
        .forEach(
            (column, type) ->
                columns.add(
                    new TableColumn(
                        column,
                        SqlValues.type(type),
                        !keys.contains(column) && !notNull.contains(column),
                        keys.indexOf(column) + 1)));
    return new Table(name, columns);
  }

  @Override
  public List<Migration.Applied> migrate(List<Migration> all) {
    return migrations.migrate(all);
  }

  @Override
  public List<Migration.Applied> migrations() {
    return migrations.applied();
  }
}

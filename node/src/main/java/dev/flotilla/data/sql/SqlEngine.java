package dev.flotilla.data.sql;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.data.grid.Grid;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import javax.cache.CacheException;
import org.apache.calcite.runtime.CalciteException;
import org.apache.ignite.Ignite;
import org.apache.ignite.IgniteCheckedException;
import org.apache.ignite.IgniteException;
import org.apache.ignite.cache.query.FieldsQueryCursor;
import org.apache.ignite.cache.query.QueryCancelledException;
import org.apache.ignite.cache.query.SqlFieldsQuery;
import org.apache.ignite.cluster.ClusterTopologyException;
import org.apache.ignite.configuration.TransactionConfiguration;
import org.apache.ignite.internal.IgniteEx;
import org.apache.ignite.internal.IgniteFutureTimeoutCheckedException;
import org.apache.ignite.internal.IgniteInterruptedCheckedException;
import org.apache.ignite.internal.cluster.ClusterTopologyCheckedException;
import org.apache.ignite.internal.processors.cache.CacheInvalidStateException;
import org.apache.ignite.internal.processors.cache.query.IgniteQueryErrorCode;
import org.apache.ignite.internal.processors.cache.query.QueryCursorEx;
import org.apache.ignite.internal.processors.query.GridQueryCancel;
import org.apache.ignite.internal.processors.query.GridQueryFieldMetadata;
import org.apache.ignite.internal.processors.query.IgniteSQLException;
import org.apache.ignite.internal.processors.query.calcite.schema.IgniteStatisticsImpl;
import org.apache.ignite.internal.util.typedef.X;
import org.apache.ignite.spi.IgniteSpiException;
import org.apache.ignite.spi.IgniteSpiOperationTimeoutException;
import org.apache.ignite.transactions.TransactionDeadlockException;
import org.apache.ignite.transactions.TransactionIsolation;
import org.apache.ignite.transactions.TransactionOptimisticException;
import org.apache.ignite.transactions.TransactionTimeoutException;
import org.jspecify.annotations.Nullable;

/**
 * Runs parsed statements on the engine, inside what {@link Grid} gives: says errors in our words,
 * and turns values and limits to ours.
 */
final class SqlEngine {

  /** The statement ran into a change of the topology before it did anything; run it again. */
  static final class RetryOnStableTopology extends RuntimeException {
    private static final long serialVersionUID = 1L;

    RetryOnStableTopology(Throwable cause) {
      super(cause);
    }
  }

  /** How far from where something broke the planner is looked for. */
  private static final int PLANNER_FRAMES = 5;

  private static final int ARGUMENTS_MAX = 10_000;
  private static final long RESULT_BYTES_MAX = 64L << 20;

  static {
    // The engine refuses SQL in transactions but those of its read-committed kind, in which reads
    // of keys take no locks. Our own locks (SqlLocks) make SQL serializable, and keys need the
    // repeatable kind; nothing in how the engine runs SQL depends on it.
    TransactionConfiguration.TX_AWARE_QUERIES_SUPPORTED_MODES.add(
        TransactionIsolation.REPEATABLE_READ);
  }

  private SqlEngine() {}

  /** Checks the arguments against the statement's question marks. */
  static void checkArguments(Statement statement, List<@Nullable Object> arguments) {
    if (arguments.size() > ARGUMENTS_MAX) {
      throw new FlotillaException(
          Code.TOO_LARGE,
          "the statement has " + arguments.size() + " arguments, more than " + ARGUMENTS_MAX,
          "Split it.");
    }
    if (statement.parameters() != arguments.size()) {
      throw new FlotillaException(
          Code.INVALID,
          "the statement has "
              + statement.parameters()
              + (statement.parameters() == 1 ? " question mark, but " : " question marks, but ")
              + arguments.size()
              + (arguments.size() == 1 ? " argument came" : " arguments came"),
          "Send one for each.");
    }
  }

  /**
   * Locks what a statement of a transaction may touch.
   *
   * @param reads whether what it only reads is locked too
   */
  static String lock(
      Ignite ignite, Statement statement, List<@Nullable Object> arguments, boolean reads) {
    Set<String> tables = new LinkedHashSet<>();
    if (reads) {
      statement.tables().forEach(reference -> tables.add(reference.table()));
    }
    statement.target().ifPresent(tables::add);
    return tables.isEmpty() ? "" : SqlLocks.lock(ignite, statement, tables, arguments);
  }

  /** Runs a statement, in this thread's transaction if it has one. */
  static SqlResult run(
      Ignite ignite, SqlErrors.About about, Sql.Request request, Sql.Cancel cancel) {
    return run(ignite, about, Optional.empty(), request, cancel);
  }

  /**
   * The same.
   *
   * @param partitions the only ones that can hold rows that a query asks for
   */
  static SqlResult run(
      Ignite ignite,
      SqlErrors.About about,
      Optional<int[]> partitions,
      Sql.Request request,
      Sql.Cancel cancel) {
    SqlFieldsQuery query = query(about.text().text(), request);
    partitions.ifPresent(query::setPartitions);
    GridQueryCancel engineCancel = new GridQueryCancel();
    cancel.onCancel(engineCancel::cancel);
    try (FieldsQueryCursor<List<?>> cursor =
        ((IgniteEx) ignite)
            .context()
            .query()
            .querySqlFields(null, query, null, true, true, engineCancel)
            .getFirst()) {
      cancel.onCancel(cursor::close);
      return result(cursor, request.rowsMax());
    } catch (FlotillaException | IllegalStateException e) {
      throw e;
    } catch (RuntimeException | AssertionError e) {
      throw said(e, request, about);
    }
  }

  private static SqlFieldsQuery query(String sql, Sql.Request request) {
    List<@Nullable Object> arguments = new ArrayList<>();
    for (Object argument : request.arguments()) {
      arguments.add(SqlValues.toEngine(argument));
    }
    return new SqlFieldsQuery(sql)
        .setSchema("PUBLIC")
        .setArgs(arguments.toArray())
        .setTimeout((int) request.timeout().toMillis(), TimeUnit.MILLISECONDS);
  }

  /** Plans a statement of this thread's transaction, for {@link #run} to find it. */
  static void plan(Ignite ignite, SqlErrors.About about, Sql.Request request) {
    try {
      SqlPlans.plan(ignite, query(about.text().text(), request));
    } catch (FlotillaException | IllegalStateException e) {
      throw e;
    } catch (RuntimeException | AssertionError e) {
      throw said(e, request, about);
    }
  }

  private static SqlResult result(FieldsQueryCursor<List<?>> cursor, int rowsMax) {
    QueryCursorEx<List<?>> known = (QueryCursorEx<List<?>>) cursor;
    if (!known.isQuery()) {
      long updated = 0;
      for (List<?> row : cursor) {
        updated += row.getFirst() instanceof Number number ? number.longValue() : 0;
      }
      return new SqlResult(List.of(), List.of(), updated, false);
    }
    List<SqlResult.Column> columns = columns(known.fieldsMeta());
    List<List<@Nullable Object>> rows = new ArrayList<>();
    long bytes = 0;
    Iterator<List<?>> each = cursor.iterator();
    while (each.hasNext()) {
      if (rows.size() == rowsMax) {
        return new SqlResult(columns, rows, 0, true);
      }
      List<@Nullable Object> row = new ArrayList<>();
      for (Object value : each.next()) {
        row.add(SqlValues.fromEngine(value));
        bytes +=
            value instanceof String text ? text.length() : value instanceof byte[] b ? b.length : 8;
      }
      if (bytes > RESULT_BYTES_MAX) {
        throw new FlotillaException(
            Code.TOO_LARGE,
            "the result is larger than " + (RESULT_BYTES_MAX >> 20) + " MiB",
            "Ask for fewer rows or columns.");
      }
      rows.add(row);
    }
    return new SqlResult(columns, rows, 0, false);
  }

  static List<SqlResult.Column> columns(@Nullable List<GridQueryFieldMetadata> fields) {
    List<SqlResult.Column> columns = new ArrayList<>();
    if (fields != null) {
      for (GridQueryFieldMetadata field : fields) {
        columns.add(new SqlResult.Column(field.fieldName(), SqlValues.type(field.fieldTypeName())));
      }
    }
    return columns;
  }

  /** What went wrong between nodes has no type of its own; what is wrong with a statement has. */
  private static boolean isBetweenNodes(Throwable cause) {
    return cause.getClass() == IgniteCheckedException.class
        || cause instanceof IgniteSpiException
        || cause instanceof IgniteSpiOperationTimeoutException
        || cause instanceof IgniteFutureTimeoutCheckedException
        || cause instanceof IgniteInterruptedCheckedException
        || cause instanceof IOException;
  }

  private static boolean isOfEngine(Throwable cause) {
    return cause instanceof IllegalStateException
        || cause instanceof IgniteException
        || isBetweenNodes(cause);
  }

  /** Whether the planner has a mistake there, rather than the statement or the world. */
  private static boolean isOfPlanner(Throwable cause) {
    return cause instanceof NullPointerException
        && Stream.of(cause.getStackTrace())
            .limit(PLANNER_FRAMES)
            .anyMatch(frame -> frame.getClassName().startsWith("org.apache.calcite."));
  }

  /** Whether the planner asked for the size of a table whose cache is being stopped or started. */
  private static boolean isOfClosingTable(Throwable cause) {
    return cause instanceof NullPointerException
        && Stream.of(cause.getStackTrace())
            .limit(1)
            .anyMatch(frame -> frame.getClassName().equals(IgniteStatisticsImpl.class.getName()));
  }

  private static Throwable rootCause(Throwable thrown) {
    List<Throwable> chain = X.getThrowableList(thrown);
    return chain.isEmpty() ? thrown : chain.getLast();
  }

  /** An error of the engine in our words; what {@link Grid} understands better is left to it. */
  static RuntimeException said(Throwable thrown, Sql.Request request, SqlErrors.About about) {
    if ((thrown.getClass() == RuntimeException.class && isOfEngine(rootCause(thrown)))
        || isOfClosingTable(rootCause(thrown))) {
      // The planner, which asks the engine for sizes, hides what that threw.
      return new RetryOnStableTopology(thrown);
    }
    if (!(thrown instanceof CacheException || thrown instanceof IgniteException)) {
      // Neither a refusal nor a fault of the world: the planner met what it is not made for.
      return SqlErrors.unplanned(thrown);
    }
    RuntimeException e = (RuntimeException) thrown;
    if (isOfPlanner(rootCause(e))) {
      return SqlErrors.unplanned(e);
    }
    if (X.hasCause(
        e,
        CacheInvalidStateException.class,
        TransactionDeadlockException.class,
        TransactionTimeoutException.class,
        TransactionOptimisticException.class)) {
      return e;
    }
    IgniteSQLException sql = X.cause(e, IgniteSQLException.class);
    if (X.hasCause(e, QueryCancelledException.class)
        || (sql != null && sql.statusCode() == IgniteQueryErrorCode.QUERY_CANCELED)) {
      return new FlotillaException(
          Code.BUSY,
          "the statement was cancelled, or ran for more than "
              + request.timeout().toMillis()
              + " ms",
          "Nothing was done; ask for less, or give it more time.",
          e);
    }
    if (X.hasCause(e, ClusterTopologyException.class, ClusterTopologyCheckedException.class)
        || (sql != null
            && sql.statusCode() == IgniteQueryErrorCode.UNKNOWN
            && isBetweenNodes(rootCause(e)))) {
      return new RetryOnStableTopology(e);
    }
    if (sql == null) {
      return X.hasCause(
              e,
              ArithmeticException.class,
              NumberFormatException.class,
              ClassCastException.class,
              CalciteException.class)
          ? SqlErrors.said(e, IgniteQueryErrorCode.UNKNOWN, about)
          : e;
    }
    String message = SqlErrors.message(e);
    if (message.contains("ode is stopping")) {
      return new FlotillaException(
          Code.OUTCOME_UNKNOWN,
          "the data grid of this node stopped meanwhile",
          "Look whether it was done, then try again.",
          e);
    }
    return sql.statusCode() == IgniteQueryErrorCode.CONCURRENT_UPDATE
        ? new FlotillaException(
            Code.CONFLICT, "another transaction came first", "Nothing was done; try again.", e)
        : SqlErrors.said(e, sql.statusCode(), about);
  }
}

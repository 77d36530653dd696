package dev.flotilla.data.sql;

import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * The database: tables over all nodes, reached by SQL.
 *
 * <p>A statement that writes is a transaction of its own, serializable and all or nothing, also
 * when it writes many rows; inside {@link Transactions#run} it belongs to that one. A query of its
 * own sees only what has been committed, but not all of its rows at one instant: run it in a
 * transaction where that matters. Every table has its rows on three nodes where there are as many,
 * and is written synchronously; no option weakens that.
 *
 * <p>Errors: {@code INVALID} with line and column if a statement is not SQL or names no known
 * column; {@code NOT_FOUND} for an unknown table or index; {@code CONFLICT} for a duplicate key,
 * for what exists already, or if another transaction came first; {@code BUSY} if it took longer
 * than its time-out, and nothing was done; {@code TOO_LARGE}, {@code NO_MAJORITY}, {@code
 * OUTCOME_UNKNOWN}.
 */
public interface Sql {

  /** Rows that a query returns where the caller does not say. */
  int ROWS = 10_000;

  /** Rows that a query returns at most. */
  int ROWS_MAX = 100_000;

  /** The longest that a statement may run. */
  Duration TIMEOUT_MAX = Duration.ofMinutes(10);

  /**
   * A statement.
   *
   * @param arguments one for each question mark, in order: values as {@link SqlResult#rows} has
   *     them, or java.time.Instant (stored in UTC)
   * @param rowsMax a query returns so many at most, and says if there were more
   * @param timeout after which it is cancelled
   */
  record Request(
      String statement, List<@Nullable Object> arguments, int rowsMax, Duration timeout) {

    /** With up to {@link #ROWS} rows, for up to 30 s. */
    public static Request of(String statement, @Nullable Object... arguments) {
      return new Request(
          statement, new ArrayList<>(Arrays.asList(arguments)), ROWS, Duration.ofSeconds(30));
    }
  }

  /** Stops what runs, from another thread. */
  final class Cancel {

    private final List<Runnable> actions = new ArrayList<>();
    private boolean cancelled;

    /** Cancels, now or as soon as it begins. */
    public void cancel() {
      List<Runnable> now;
      synchronized (this) {
        cancelled = true;
        now = List.copyOf(actions);
      }
      now.forEach(Runnable::run);
    }

    void onCancel(Runnable action) {
      boolean already;
      synchronized (this) {
        actions.add(action);
        already = cancelled;
      }
      if (already) {
        action.run();
      }
    }
  }

  /** Runs one statement. */
  SqlResult execute(Request request, Cancel cancel);

  /** Runs one statement. */
  default SqlResult execute(String statement, @Nullable Object... arguments) {
    return execute(Request.of(statement, arguments), new Cancel());
  }

  /**
   * A column of a table.
   *
   * @param key its place in the primary key, from 1; 0 if it does not belong to it
   */
  record TableColumn(String name, String type, boolean nullable, int key) {}

  /** A table; names are in upper case unless they were quoted when it was made. */
  record Table(String name, List<TableColumn> columns) {}

  /** All tables, by name. */
  List<Table> tables();

  /** The columns that a statement would return, without running it; empty if it is no query. */
  List<SqlResult.Column> describe(String statement);

  /**
   * Brings the schema to a version: runs those of the migrations that have not run, in order, each
   * once in the whole cluster.
   *
   * @return what was done, in order
   * @throws dev.flotilla.FlotillaException {@code CONFLICT} if one that has run has changed since,
   *     or is no longer there, or versions are out of order; {@code FAILED} or the statement's own
   *     code if one fails, with its name and statement
   */
  List<Migration.Applied> migrate(List<Migration> migrations);

  /** The migrations that have run, in order. */
  List<Migration.Applied> migrations();

  /**
   * How many question marks a statement has.
   *
   * @throws dev.flotilla.FlotillaException {@code INVALID} if it is not SQL
   */
  static int parameters(String statement) {
    return Statement.looseParameters(statement);
  }

  /** The statements of a script, which semicolons part. */
  static List<String> split(String script) {
    return Statement.split(script);
  }
}

package dev.flotilla.data.sql;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.util.List;
import java.util.Optional;
import java.util.regex.Pattern;
import org.apache.calcite.sql.SqlIdentifier;

/** Which tables are the program's own, so that users can read them at most. */
final class SqlNames {

  /** Which migrations have run: a table like any other, so that it can be mended by hand. */
  private static final String MIGRATIONS = "FLOTILLA_MIGRATIONS";

  /** What the engine calls a sharded table whose shards were split or moved. */
  private static final Pattern MOVED = Pattern.compile(".*__[0-9]+");

  private SqlNames() {}

  /**
   * Checks what a statement does to the tables that it names.
   *
   * @throws FlotillaException {@code INVALID} if it would change a table of the program's own
   */
  static void checkUse(
      Statement.Kind kind, List<SqlTables.Reference> tables, Optional<String> target) {
    if (kind == Statement.Kind.CREATE_TABLE) {
      target.ifPresent(SqlNames::checkNew);
      return;
    }
    if (kind.writes()) {
      target.ifPresent(SqlNames::checkChange);
    }
    tables.stream()
        .filter(SqlTables.Reference::definition)
        .forEach(reference -> checkChange(reference.table()));
  }

  /**
   * Checks the name of a table that is to be made.
   *
   * @throws FlotillaException {@code INVALID} if it is kept for the program's own
   */
  static void checkNew(String table) {
    if (isOwn(table) || MOVED.matcher(table).matches()) {
      throw new FlotillaException(
          Code.INVALID,
          "a table cannot be called " + table,
          "Names that begin with FLOTILLA_, or end with two underscores and a number, are"
              + " Flotilla's own; choose another.");
    }
  }

  private static void checkChange(String table) {
    if (isOwn(table)) {
      throw new FlotillaException(
          Code.INVALID,
          "table " + table + " is Flotilla's own",
          "It can be read, and not changed; nothing was done.");
    }
  }

  private static boolean isOwn(String table) {
    return table.startsWith("FLOTILLA_") && !table.equals(MIGRATIONS);
  }

  /** Whether a name, which may have a schema in front, is one of the users' tables. */
  static boolean isUsers(SqlIdentifier name) {
    return name.names.size() == 1 || name.names.getFirst().equals("PUBLIC");
  }
}

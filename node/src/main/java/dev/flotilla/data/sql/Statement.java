package dev.flotilla.data.sql;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.data.grid.Grid;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import org.apache.calcite.sql.SqlDelete;
import org.apache.calcite.sql.SqlDynamicParam;
import org.apache.calcite.sql.SqlIdentifier;
import org.apache.calcite.sql.SqlInsert;
import org.apache.calcite.sql.SqlKind;
import org.apache.calcite.sql.SqlMerge;
import org.apache.calcite.sql.SqlNode;
import org.apache.calcite.sql.SqlNodeList;
import org.apache.calcite.sql.SqlUpdate;
import org.apache.calcite.sql.ddl.SqlColumnDeclaration;
import org.apache.calcite.sql.ddl.SqlDropObject;
import org.apache.calcite.sql.ddl.SqlKeyConstraint;
import org.apache.calcite.sql.parser.SqlParserPos;
import org.apache.calcite.sql.util.SqlBasicVisitor;
import org.apache.ignite.internal.processors.query.calcite.sql.IgniteSqlAlterTableAddColumn;
import org.apache.ignite.internal.processors.query.calcite.sql.IgniteSqlAlterTableDropColumn;
import org.apache.ignite.internal.processors.query.calcite.sql.IgniteSqlCreateIndex;
import org.apache.ignite.internal.processors.query.calcite.sql.IgniteSqlCreateTable;
import org.apache.ignite.internal.processors.query.calcite.sql.IgniteSqlCreateTableOption;
import org.apache.ignite.internal.processors.query.calcite.sql.IgniteSqlCreateTableOptionEnum;
import org.apache.ignite.internal.processors.query.calcite.sql.IgniteSqlDropIndex;

/**
 * One SQL statement, parsed by the engine's own parser.
 *
 * @param text without the semicolon behind it
 * @param parameters question marks in it
 */
record Statement(
    String text,
    Kind kind,
    SqlNode parsed,
    List<SqlTables.Reference> tables,
    Optional<String> target,
    int parameters) {

  /** What it does. */
  enum Kind {
    QUERY,
    INSERT,
    UPDATE,
    DELETE,
    MERGE,
    CREATE_TABLE,
    /** Any other change of the schema. */
    SCHEMA,
    /** Anything else; not for users. */
    OTHER;

    boolean writes() {
      return this == INSERT || this == UPDATE || this == DELETE || this == MERGE;
    }
  }

  /** The template of all tables that have no sharding of their own. */
  static final String TEMPLATE = "flotilla.table";

  static final int CHARACTERS_MAX = 256 << 10;

  /**
   * Parses one statement.
   *
   * @throws FlotillaException {@code INVALID} with line and column if it is not SQL, or if it would
   *     change a table of Flotilla's own; {@code TOO_LARGE} if it is too long
   */
  static Statement parse(String statement) {
    String text = trimmed(statement);
    SqlNode parsed = SqlTables.parse(text);
    Kind kind = kind(parsed);
    Optional<String> target =
        switch (parsed) {
          case SqlInsert insert -> Optional.of(name(insert.getTargetTable()));
          case SqlUpdate update -> Optional.of(name(update.getTargetTable()));
          case SqlDelete delete -> Optional.of(name(delete.getTargetTable()));
          case SqlMerge merge -> Optional.of(name(merge.getTargetTable()));
          case IgniteSqlCreateTable create -> Optional.of(create.name().names.getLast());
          default -> Optional.empty();
        };
    List<SqlTables.Reference> tables = SqlTables.of(text, parsed);
    SqlNames.checkUse(kind, tables, target);
    return new Statement(text, kind, parsed, tables, target, parameters(parsed));
  }

  /** As of {@link #parse}; 0 for the statements that sharding adds, which have none. */
  static int looseParameters(String statement) {
    String text = trimmed(statement);
    return ShardStatement.parse(text).isPresent() ? 0 : parameters(SqlTables.parse(text));
  }

  /** Without blanks around it and semicolons behind it; checked for its length. */
  static String trimmed(String statement) {
    if (statement.length() > CHARACTERS_MAX) {
      throw new FlotillaException(
          Code.TOO_LARGE,
          "the statement has " + statement.length() + " characters, more than " + CHARACTERS_MAX,
          "Pass values as arguments, or split it.");
    }
    // What stands in front of it stays, for errors to say the right line and column.
    String text = statement.stripTrailing();
    while (text.endsWith(";")) {
      text = text.substring(0, text.length() - 1).stripTrailing();
    }
    if (text.isBlank()) {
      throw new FlotillaException(Code.INVALID, "the statement is empty", "Write one.");
    }
    return text;
  }

  static Kind kind(SqlNode parsed) {
    return switch (parsed) {
      case SqlInsert insert -> insert.isUpsert() ? Kind.MERGE : Kind.INSERT;
      case SqlUpdate any -> Kind.UPDATE;
      case SqlDelete any -> Kind.DELETE;
      case SqlMerge any -> Kind.MERGE;
      case IgniteSqlCreateTable any -> Kind.CREATE_TABLE;
      case IgniteSqlCreateIndex any -> Kind.SCHEMA;
      case IgniteSqlDropIndex any -> Kind.SCHEMA;
      case IgniteSqlAlterTableAddColumn any -> Kind.SCHEMA;
      case IgniteSqlAlterTableDropColumn any -> Kind.SCHEMA;
      case SqlDropObject any -> Kind.SCHEMA;
      default ->
          parsed.isA(SqlKind.QUERY) || parsed.getKind() == SqlKind.EXPLAIN
              ? Kind.QUERY
              : Kind.OTHER;
    };
  }

  private static String name(SqlNode table) {
    return table instanceof org.apache.calcite.sql.SqlIdentifier identifier
        ? identifier.names.getLast()
        : table.toString();
  }

  private static int parameters(SqlNode parsed) {
    int[] most = {0};
    parsed.accept(
        new SqlBasicVisitor<Void>() {
          @Override
          @SuppressWarnings("NullAway") // Nothing is what this visitor brings.
          public Void visit(SqlDynamicParam parameter) {
            most[0] = Math.max(most[0], parameter.getIndex() + 1);
            return null;
          }
        });
    return most[0];
  }

  /**
   * This CREATE TABLE with the options that keep rows safe, whatever it asks for itself.
   *
   * @throws FlotillaException {@code INVALID} if it asks for less, or for what we do not offer
   */
  SqlText safeCreateTable() {
    IgniteSqlCreateTable create = (IgniteSqlCreateTable) parsed;
    List<SqlText.Edit> edits = new ArrayList<>(keysNotNull(text, create));
    if (create.query() != null) {
      throw new FlotillaException(
          Code.INVALID,
          "CREATE TABLE … AS is not offered, since it is not all or nothing",
          "Create the table, then INSERT INTO … SELECT.");
    }
    StringBuilder options = new StringBuilder("template=" + TEMPLATE);
    if (create.createOptionList() == null) {
      edits.add(new SqlText.Edit(text.length(), text.length(), " WITH \"" + options + "\""));
      return SqlText.of(text).edited(edits);
    }
    for (SqlNode node : create.createOptionList()) {
      IgniteSqlCreateTableOption option = (IgniteSqlCreateTableOption) node;
      String value = String.valueOf(option.value()).replace("'", "").replace("`", "");
      if (option.key() == IgniteSqlCreateTableOptionEnum.AFFINITY_KEY) {
        options.append(",affinity_key=").append(value);
      } else if (!isWhatWeDoAnyway(option.key(), value.toUpperCase(Locale.ROOT))) {
        throw new FlotillaException(
            Code.INVALID,
            "the table's option " + option.key() + "=" + value + " is not offered",
            "Every table has "
                + Grid.BACKUPS
                + " copies beside the first, synchronous writes and transactions; of the options,"
                + " only AFFINITY_KEY is yours to choose. SHARD BY … chooses a sharding.");
      }
    }
    edits.add(new SqlText.Edit(withAt(text), text.length(), "WITH \"" + options + "\""));
    return SqlText.of(text).edited(edits);
  }

  /**
   * The engine stores a key with a part that is NULL, unless its columns are declared NOT NULL: so
   * they are.
   *
   * @throws FlotillaException {@code INVALID} for a column that is named twice, or a primary key of
   *     a column that is not there, which the engine takes
   */
  static List<SqlText.Edit> keysNotNull(String text, IgniteSqlCreateTable create) {
    Map<String, SqlColumnDeclaration> columns = new LinkedHashMap<>();
    Set<String> keys = new LinkedHashSet<>();
    for (SqlNode each : create.columnList() == null ? SqlNodeList.EMPTY : create.columnList()) {
      if (each instanceof SqlColumnDeclaration column) {
        String name = column.name.getSimple();
        if (columns.put(name, column) != null) {
          throw new FlotillaException(
              Code.INVALID,
              "table " + create.name().names.getLast() + " has two columns " + name,
              "Give each a name of its own.");
        }
      } else if (each instanceof SqlKeyConstraint key) {
        ((SqlNodeList) key.getOperandList().get(1))
            .forEach(name -> keys.add(((SqlIdentifier) name).getSimple()));
      }
    }
    List<SqlText.Edit> edits = new ArrayList<>();
    for (String key : keys) {
      SqlColumnDeclaration column = columns.get(key);
      if (column == null) {
        throw new FlotillaException(
            Code.INVALID,
            "the primary key names column " + key + ", which is not among the table's",
            "Its columns are " + String.join(", ", columns.keySet()) + ".");
      }
      if (!Boolean.FALSE.equals(column.dataType.getNullable())) {
        SqlParserPos type = column.dataType.getParserPosition();
        int behind = SqlText.offset(text, type.getEndLineNum(), type.getEndColumnNum()) + 1;
        edits.add(new SqlText.Edit(behind, behind, " NOT NULL"));
      }
    }
    return edits;
  }

  private static boolean isWhatWeDoAnyway(IgniteSqlCreateTableOptionEnum key, String value) {
    return switch (key) {
      case TEMPLATE -> value.equals("PARTITIONED");
      case BACKUPS -> value.equals(String.valueOf(Grid.BACKUPS));
      case ATOMICITY -> value.equals("TRANSACTIONAL");
      case WRITE_SYNCHRONIZATION_MODE -> value.equals("FULL_SYNC");
      default -> false;
    };
  }

  /** Where the options begin: the first WITH that stands outside parentheses, quotes, comments. */
  private static int withAt(String text) {
    int depth = 0;
    for (int i = 0; i < text.length(); ) {
      int next = behindQuote(text, i);
      if (next > i) {
        i = next;
        continue;
      }
      char c = text.charAt(i);
      depth += c == '(' ? 1 : c == ')' ? -1 : 0;
      if (depth == 0
          && text.regionMatches(true, i, "WITH", 0, 4)
          && !Character.isLetterOrDigit(text.charAt(i - 1))) {
        return i;
      }
      i++;
    }
    throw new IllegalStateException("options without WITH in " + text);
  }

  /** The place behind the quoted text or comment that begins at i; i itself if none does. */
  private static int behindQuote(String text, int i) {
    char c = text.charAt(i);
    if (c == '\'' || c == '"') {
      int end = text.indexOf(c, i + 1);
      return end < 0 ? text.length() : end + 1;
    }
    if (text.startsWith("--", i)) {
      int end = text.indexOf('\n', i);
      return end < 0 ? text.length() : end + 1;
    }
    if (text.startsWith("/*", i)) {
      int end = text.indexOf("*/", i + 2);
      return end < 0 ? text.length() : end + 2;
    }
    return i;
  }

  /** The statements of a script, which semicolons part. */
  public static List<String> split(String script) {
    List<String> statements = new ArrayList<>();
    StringBuilder current = new StringBuilder();
    boolean blank = true;
    for (int i = 0; i < script.length(); ) {
      int next = behindQuote(script, i);
      if (next > i) {
        boolean comment = script.charAt(i) == '-' || script.charAt(i) == '/';
        blank &= comment;
        current.append(script, i, next);
        i = next;
        continue;
      }
      char c = script.charAt(i++);
      if (c != ';') {
        blank &= Character.isWhitespace(c);
        current.append(c);
        continue;
      }
      if (!blank) {
        statements.add(current.toString().strip());
      }
      current.setLength(0);
      blank = true;
    }
    if (!blank) {
      statements.add(current.toString().strip());
    }
    return statements;
  }
}

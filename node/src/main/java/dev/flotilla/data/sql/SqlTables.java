package dev.flotilla.data.sql;

import dev.flotilla.FlotillaException;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import org.apache.calcite.sql.SqlBasicCall;
import org.apache.calcite.sql.SqlCall;
import org.apache.calcite.sql.SqlDelete;
import org.apache.calcite.sql.SqlIdentifier;
import org.apache.calcite.sql.SqlInsert;
import org.apache.calcite.sql.SqlJoin;
import org.apache.calcite.sql.SqlKind;
import org.apache.calcite.sql.SqlMerge;
import org.apache.calcite.sql.SqlNode;
import org.apache.calcite.sql.SqlNodeList;
import org.apache.calcite.sql.SqlSelect;
import org.apache.calcite.sql.SqlUpdate;
import org.apache.calcite.sql.SqlWith;
import org.apache.calcite.sql.SqlWithItem;
import org.apache.calcite.sql.ddl.SqlDropTable;
import org.apache.calcite.sql.parser.SqlParseException;
import org.apache.calcite.sql.parser.SqlParser;
import org.apache.calcite.sql.parser.SqlParserPos;
import org.apache.ignite.internal.processors.query.calcite.CalciteQueryProcessor;
import org.apache.ignite.internal.processors.query.calcite.sql.IgniteSqlAlterTableAddColumn;
import org.apache.ignite.internal.processors.query.calcite.sql.IgniteSqlAlterTableDropColumn;
import org.apache.ignite.internal.processors.query.calcite.sql.IgniteSqlCreateIndex;
import org.jspecify.annotations.Nullable;

/** Finds the tables that a statement names, by the engine's own parser. */
final class SqlTables {

  /**
   * Where a table is named.
   *
   * @param start offset of its first character
   * @param end offset behind its last
   * @param named whether the statement gives it another name, or needs none
   * @param alias what the statement calls it
   * @param definition whether the statement changes the table's form
   */
  record Reference(
      String table, int start, int end, boolean named, String alias, boolean definition) {}

  private final String statement;
  private final List<Reference> references = new ArrayList<>();

  /** What WITH has named so far; a part of it sees those before it, and not itself. */
  private final Set<String> local = new HashSet<>();

  private SqlTables(String statement) {
    this.statement = statement;
  }

  /**
   * Parses one statement.
   *
   * @throws FlotillaException {@code INVALID} if it is not SQL
   */
  static SqlNode parse(String statement) {
    try {
      return SqlParser.create(statement, CalciteQueryProcessor.FRAMEWORK_CONFIG.getParserConfig())
          .parseStmt();
    } catch (SqlParseException e) {
      throw SqlErrors.unparsed(statement, e);
    }
  }

  /** All tables named in a parsed statement, in order of their place. */
  static List<Reference> of(String statement, SqlNode parsed) {
    SqlTables tables = new SqlTables(statement);
    tables.walk(parsed, false, false);
    tables.references.sort(java.util.Comparator.comparingInt(Reference::start));
    return tables.references;
  }

  private void walk(@Nullable SqlNode node, boolean table, boolean named) {
    walk(node, table, named, "");
  }

  private void walk(@Nullable SqlNode node, boolean table, boolean named, String alias) {
    switch (node) {
      case null -> {}
      case SqlIdentifier name -> {
        if (table) {
          add(name, named, alias, false);
        }
      }
      case SqlNodeList list -> list.forEach(each -> walk(each, table, named));
      case SqlSelect select -> {
        walk(select.getFrom(), true, false);
        walk(select.getSelectList(), false, false);
        walk(select.getWhere(), false, false);
        walk(select.getGroup(), false, false);
        walk(select.getHaving(), false, false);
        walk(select.getOrderList(), false, false);
      }
      case SqlJoin join -> {
        walk(join.getLeft(), true, false);
        walk(join.getRight(), true, false);
        walk(join.getCondition(), false, false);
      }
      case SqlInsert insert -> {
        walk(insert.getTargetTable(), true, true);
        walk(insert.getSource(), false, false);
      }
      case SqlUpdate update -> {
        walk(update.getTargetTable(), true, update.getAlias() != null);
        walk(update.getSourceExpressionList(), false, false);
        walk(update.getCondition(), false, false);
      }
      case SqlDelete delete -> {
        walk(delete.getTargetTable(), true, delete.getAlias() != null);
        walk(delete.getCondition(), false, false);
      }
      case SqlMerge merge -> {
        walk(merge.getTargetTable(), true, merge.getAlias() != null);
        walk(merge.getSourceTableRef(), true, false);
        walk(merge.getCondition(), false, false);
        if (merge.getUpdateCall() != null) {
          walk(merge.getUpdateCall().getSourceExpressionList(), false, false);
        }
        if (merge.getInsertCall() != null) {
          walk(merge.getInsertCall().getSource(), false, false);
        }
      }
      case SqlWith with -> {
        Set<String> outside = Set.copyOf(local);
        for (SqlNode each : with.withList) {
          walk(((SqlWithItem) each).query, false, false);
          local.add(((SqlWithItem) each).name.getSimple());
        }
        walk(with.body, false, false);
        local.retainAll(outside);
      }
      case SqlDropTable drop -> add(drop.name, true, "", true);
      case IgniteSqlCreateIndex index -> add(index.tableName(), true, "", true);
      case IgniteSqlAlterTableAddColumn alter -> add(alter.name(), true, "", true);
      case IgniteSqlAlterTableDropColumn alter -> add(alter.name(), true, "", true);
      case SqlBasicCall call when call.getKind() == SqlKind.AS ->
          walk(call.operand(0), table, true, String.valueOf(call.operand(1)));
      case SqlCall call -> {
        boolean reference = call.getKind() == SqlKind.TABLE_REF;
        for (SqlNode operand : call.getOperandList()) {
          walk(operand, table && reference, named, alias);
        }
      }
      default -> {}
    }
  }

  private void add(SqlIdentifier name, boolean named, String alias, boolean definition) {
    if (!SqlNames.isUsers(name) || (name.names.size() == 1 && local.contains(name.getSimple()))) {
      return;
    }
    SqlParserPos position = name.getParserPosition();
    references.add(
        new Reference(
            name.names.getLast(),
            SqlText.offset(statement, position.getLineNum(), position.getColumnNum()),
            SqlText.offset(statement, position.getEndLineNum(), position.getEndColumnNum()) + 1,
            named,
            alias.isEmpty() ? name.names.getLast() : alias,
            definition));
  }
}

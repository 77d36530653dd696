package dev.flotilla.data.sql;

import java.util.List;
import java.util.Locale;
import java.util.Optional;
import org.apache.calcite.sql.SqlExplain;
import org.apache.calcite.sql.SqlIdentifier;
import org.apache.calcite.sql.SqlInsert;
import org.apache.calcite.sql.SqlMerge;
import org.apache.calcite.sql.SqlNode;
import org.apache.calcite.sql.parser.SqlParserPos;
import org.apache.ignite.Ignite;
import org.apache.ignite.cache.QueryEntity;

/**
 * Names the columns of an INSERT that names none, where the engine would count one too many: a
 * table whose columns all belong to its primary key has a hidden one there for the rest of the row.
 */
final class SqlInserts {

  private SqlInserts() {}

  static SqlText columnsNamed(Ignite ignite, SqlNode parsed, SqlText text) {
    SqlNode statement = parsed instanceof SqlExplain explain ? explain.getExplicandum() : parsed;
    Optional<SqlInsert> insert =
        switch (statement) {
          case SqlInsert plain -> Optional.of(plain);
          case SqlMerge merge -> Optional.ofNullable(merge.getInsertCall());
          default -> Optional.empty();
        };
    if (insert.isEmpty()
        || insert.get().getTargetColumnList() != null
        || !(target(statement) instanceof SqlIdentifier table)) {
      return text;
    }
    Optional<QueryEntity> entity = SqlLocks.entity(ignite, table.names.getLast());
    if (entity.isEmpty()
        || !SqlLocks.keyColumns(entity.get()).keySet().equals(entity.get().getFields().keySet())) {
      return text;
    }
    String columns = "";
    for (String column : entity.get().getFields().keySet()) {
      columns += (columns.isEmpty() ? " (\"" : ", \"") + column + "\"";
    }
    int at =
        statement instanceof SqlMerge
            ? behindInsert(text.text(), insert.get())
            : offsetBehind(text.text(), table.getParserPosition());
    return text.edited(List.of(new SqlText.Edit(at, at, columns + ") ")));
  }

  private static SqlNode target(SqlNode statement) {
    return statement instanceof SqlMerge merge
        ? merge.getTargetTable()
        : ((SqlInsert) statement).getTargetTable();
  }

  private static int offsetBehind(String text, SqlParserPos position) {
    return SqlText.offset(text, position.getEndLineNum(), position.getEndColumnNum()) + 1;
  }

  /** A MERGE's INSERT names no table, and stands right before its rows. */
  private static int behindInsert(String text, SqlInsert insert) {
    SqlParserPos rows = insert.getSource().getParserPosition();
    int start = SqlText.offset(text, rows.getLineNum(), rows.getColumnNum());
    String word = "INSERT";
    return text.toUpperCase(Locale.ROOT).lastIndexOf(word, start) + word.length();
  }
}

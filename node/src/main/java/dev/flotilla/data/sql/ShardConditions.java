package dev.flotilla.data.sql;

import java.util.BitSet;
import java.util.List;
import java.util.Optional;
import java.util.function.Function;
import java.util.function.ToIntFunction;
import org.apache.calcite.sql.SqlBasicCall;
import org.apache.calcite.sql.SqlCall;
import org.apache.calcite.sql.SqlDelete;
import org.apache.calcite.sql.SqlDynamicParam;
import org.apache.calcite.sql.SqlIdentifier;
import org.apache.calcite.sql.SqlInsert;
import org.apache.calcite.sql.SqlJoin;
import org.apache.calcite.sql.SqlKind;
import org.apache.calcite.sql.SqlLiteral;
import org.apache.calcite.sql.SqlNode;
import org.apache.calcite.sql.SqlNodeList;
import org.apache.calcite.sql.SqlNumericLiteral;
import org.apache.calcite.sql.SqlOrderBy;
import org.apache.calcite.sql.SqlSelect;
import org.apache.calcite.sql.SqlUpdate;
import org.apache.calcite.sql.fun.SqlBetweenOperator;
import org.jspecify.annotations.Nullable;

/**
 * Which units of a table (its shards, or with a hash its partitions) can hold rows that meet a
 * statement's condition. Works on what is certain: comparisons of the shard column with values,
 * joined by AND and OR; everything else counts as met anywhere.
 *
 * @param alias what the statement calls the table
 * @param single whether the statement names no other table, so that a bare column is this table's
 * @param units how many there are
 * @param ordered whether greater values are in the same or later units
 * @param value turns a literal's or argument's value into the column's type
 * @param unit the unit of a value
 * @param below where they are ordered, the last unit with values below one
 * @param above the first unit with values above one
 */
record ShardConditions(
    String alias,
    String column,
    boolean single,
    int units,
    boolean ordered,
    List<? extends @Nullable Object> arguments,
    Function<Object, Optional<Object>> value,
    ToIntFunction<Object> unit,
    ToIntFunction<Object> below,
    ToIntFunction<Object> above) {

  /** Empty for a statement that may touch all. */
  Optional<BitSet> touched(SqlNode statement) {
    return switch (statement) {
      case SqlOrderBy order -> touched(order.query);
      case SqlSelect select when select.getWhere() != null && names(select.getFrom()) ->
          met(select.getWhere());
      case SqlUpdate update when update.getCondition() != null -> met(update.getCondition());
      case SqlDelete delete when delete.getCondition() != null -> met(delete.getCondition());
      case SqlInsert insert -> inserted(insert);
      default -> Optional.empty();
    };
  }

  /** Whether the table itself stands there, rather than a query whose columns may mean others. */
  private boolean names(@Nullable SqlNode from) {
    return switch (from) {
      case null -> false;
      case SqlIdentifier name -> name.names.getLast().equals(alias);
      case SqlJoin join -> names(join.getLeft()) || names(join.getRight());
      case SqlBasicCall call when call.getKind() == SqlKind.AS ->
          call.operand(0) instanceof SqlIdentifier && String.valueOf(call.operand(1)).equals(alias);
      default -> false;
    };
  }

  private Optional<BitSet> inserted(SqlInsert insert) {
    SqlNodeList columns = insert.getTargetColumnList();
    if (columns == null || insert.getSource().getKind() != SqlKind.VALUES) {
      return Optional.empty();
    }
    int at = -1;
    for (int i = 0; i < columns.size(); i++) {
      if (columns.get(i) instanceof SqlIdentifier name && name.names.getLast().equals(column)) {
        at = i;
      }
    }
    if (at < 0) {
      return Optional.empty();
    }
    BitSet all = new BitSet();
    for (SqlNode row : ((SqlCall) insert.getSource()).getOperandList()) {
      Optional<Object> found = constant(((SqlCall) row).operand(at));
      if (found.isEmpty()) {
        return Optional.empty();
      }
      all.set(unit.applyAsInt(found.get()));
    }
    return Optional.of(all);
  }

  private Optional<BitSet> met(SqlNode condition) {
    if (!(condition instanceof SqlBasicCall call)) {
      return Optional.empty();
    }
    return switch (call.getKind()) {
      case AND -> both(met(call.operand(0)), met(call.operand(1)));
      case OR -> either(met(call.operand(0)), met(call.operand(1)));
      case EQUALS, LESS_THAN, LESS_THAN_OR_EQUAL, GREATER_THAN, GREATER_THAN_OR_EQUAL ->
          isColumn(call.operand(0))
              ? compared(call.getKind(), call.operand(1))
              : isColumn(call.operand(1))
                  ? compared(call.getKind().reverse(), call.operand(0))
                  : Optional.empty();
      case IN -> isColumn(call.operand(0)) ? among(call.operand(1)) : Optional.empty();
      case BETWEEN -> {
        boolean negated = ((SqlBetweenOperator) call.getOperator()).isNegated();
        yield isColumn(call.operand(0)) && !negated
            ? both(
                compared(SqlKind.GREATER_THAN_OR_EQUAL, call.operand(1)),
                compared(SqlKind.LESS_THAN_OR_EQUAL, call.operand(2)))
            : Optional.empty();
      }
      default -> Optional.empty();
    };
  }

  private static Optional<BitSet> both(Optional<BitSet> a, Optional<BitSet> b) {
    if (a.isEmpty() || b.isEmpty()) {
      return a.isEmpty() ? b : a;
    }
    BitSet common = (BitSet) a.get().clone();
    common.and(b.get());
    return Optional.of(common);
  }

  private static Optional<BitSet> either(Optional<BitSet> a, Optional<BitSet> b) {
    if (a.isEmpty() || b.isEmpty()) {
      return Optional.empty();
    }
    BitSet union = (BitSet) a.get().clone();
    union.or(b.get());
    return Optional.of(union);
  }

  private boolean isColumn(SqlNode node) {
    return node instanceof SqlIdentifier name
        && name.names.getLast().equals(column)
        && (name.names.size() == 1 ? single : name.names.get(name.names.size() - 2).equals(alias));
  }

  private Optional<BitSet> among(SqlNode list) {
    if (!(list instanceof SqlNodeList values)) {
      return Optional.empty();
    }
    Optional<BitSet> all = Optional.of(new BitSet());
    for (SqlNode each : values) {
      all = either(all, compared(SqlKind.EQUALS, each));
    }
    return all;
  }

  private Optional<BitSet> compared(SqlKind kind, SqlNode with) {
    Optional<Object> found = constant(with);
    if (found.isEmpty() || (kind != SqlKind.EQUALS && !ordered)) {
      return Optional.empty();
    }
    int at = unit.applyAsInt(found.get());
    BitSet set = new BitSet();
    switch (kind) {
      case EQUALS -> set.set(at);
      case LESS_THAN -> set.set(0, below.applyAsInt(found.get()) + 1);
      case LESS_THAN_OR_EQUAL -> set.set(0, at + 1);
      case GREATER_THAN -> set.set(above.applyAsInt(found.get()), units);
      default -> set.set(at, units);
    }
    return Optional.of(set);
  }

  private Optional<Object> constant(SqlNode node) {
    Object raw = raw(node);
    return raw == null ? Optional.empty() : value.apply(raw);
  }

  private @Nullable Object raw(SqlNode node) {
    return switch (node) {
      case SqlDynamicParam parameter ->
          parameter.getIndex() < arguments.size() ? arguments.get(parameter.getIndex()) : null;
      case SqlNumericLiteral number -> number.bigDecimalValue();
      case SqlLiteral literal -> literal.toValue();
      case SqlCall call when call.getKind() == SqlKind.MINUS_PREFIX ->
          call.operand(0) instanceof SqlNumericLiteral number
              ? number.bigDecimalValue().negate()
              : null;
      default -> null;
    };
  }
}

package dev.flotilla.data.sql;

import java.math.BigDecimal;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.UUID;
import org.apache.calcite.sql.SqlBasicCall;
import org.apache.calcite.sql.SqlCall;
import org.apache.calcite.sql.SqlDelete;
import org.apache.calcite.sql.SqlDynamicParam;
import org.apache.calcite.sql.SqlIdentifier;
import org.apache.calcite.sql.SqlInsert;
import org.apache.calcite.sql.SqlKind;
import org.apache.calcite.sql.SqlLiteral;
import org.apache.calcite.sql.SqlNode;
import org.apache.calcite.sql.SqlNodeList;
import org.apache.calcite.sql.SqlOrderBy;
import org.apache.calcite.sql.SqlSelect;
import org.apache.calcite.sql.SqlUpdate;
import org.jspecify.annotations.Nullable;

/**
 * The primary keys that a statement is confined to, as far as that is certain: those that its
 * condition names by {@code =} and {@code IN}, joined by AND, or that its VALUES hold. In doubt (a
 * value of another type than the column's, an expression, OR, a sub-query) it may touch any.
 *
 * @param columns of the primary key and their Java classes
 */
record SqlKeys(
    Map<String, Class<?>> columns, List<String> allColumns, List<@Nullable Object> arguments) {

  private static final int KEYS_MAX = 64;

  /** A key: the value of each column of the primary key. */
  record Key(Map<String, Object> values) {}

  /** Empty if it may touch any. */
  Optional<Set<Key>> of(Statement statement) {
    if (columns.isEmpty() || statement.tables().size() != 1) {
      return Optional.empty();
    }
    return of(statement.parsed());
  }

  private Optional<Set<Key>> of(SqlNode parsed) {
    return switch (parsed) {
      case SqlOrderBy order -> of(order.query);
      case SqlSelect select -> where(select.getWhere());
      case SqlUpdate update -> where(update.getCondition());
      case SqlDelete delete -> where(delete.getCondition());
      case SqlInsert insert -> inserted(insert);
      default -> Optional.empty();
    };
  }

  private Optional<Set<Key>> where(@Nullable SqlNode condition) {
    Map<String, Set<Object>> pinned = new LinkedHashMap<>();
    pin(condition, pinned);
    if (!pinned.keySet().equals(columns.keySet())) {
      return Optional.empty();
    }
    List<Map<String, Object>> keys = List.of(Map.of());
    for (Map.Entry<String, Set<Object>> column : pinned.entrySet()) {
      List<Map<String, Object>> longer = new ArrayList<>();
      for (Map<String, Object> key : keys) {
        for (Object value : column.getValue()) {
          Map<String, Object> with = new LinkedHashMap<>(key);
          with.put(column.getKey(), value);
          longer.add(with);
        }
      }
      keys = longer;
      if (keys.size() > KEYS_MAX) {
        return Optional.empty();
      }
    }
    Set<Key> all = new HashSet<>();
    keys.forEach(key -> all.add(new Key(key)));
    return Optional.of(all);
  }

  private void pin(@Nullable SqlNode condition, Map<String, Set<Object>> pinned) {
    if (!(condition instanceof SqlBasicCall call)) {
      return;
    }
    switch (call.getKind()) {
      case AND -> call.getOperandList().forEach(operand -> pin(operand, pinned));
      case EQUALS -> {
        pinColumn(call.operand(0), List.of(call.operand(1)), pinned);
        pinColumn(call.operand(1), List.of(call.operand(0)), pinned);
      }
      case IN -> {
        if (call.operand(1) instanceof SqlNodeList values) {
          pinColumn(call.operand(0), values.getList(), pinned);
        }
      }
      default -> {}
    }
  }

  private void pinColumn(
      SqlNode column, List<? extends @Nullable SqlNode> nodes, Map<String, Set<Object>> pinned) {
    if (!(column instanceof SqlIdentifier identifier)) {
      return;
    }
    Class<?> type = columns.get(identifier.names.getLast());
    if (type == null || pinned.containsKey(identifier.names.getLast())) {
      return;
    }
    Set<Object> values = new HashSet<>();
    for (SqlNode node : nodes) {
      Optional<Object> value = constant(node, type);
      if (value.isEmpty()) {
        return;
      }
      values.add(value.get());
    }
    pinned.put(identifier.names.getLast(), values);
  }

  private Optional<Set<Key>> inserted(SqlInsert insert) {
    if (insert.getSource().getKind() != SqlKind.VALUES) {
      return Optional.empty();
    }
    List<String> names = new ArrayList<>();
    SqlNodeList targets = insert.getTargetColumnList();
    if (targets == null) {
      names.addAll(allColumns);
    } else {
      targets.forEach(target -> names.add(((SqlIdentifier) target).names.getLast()));
    }
    Set<Key> keys = new HashSet<>();
    for (SqlNode row : ((SqlCall) insert.getSource()).getOperandList()) {
      List<SqlNode> cells = ((SqlCall) row).getOperandList();
      Map<String, Object> key = new LinkedHashMap<>();
      for (Map.Entry<String, Class<?>> column : columns.entrySet()) {
        int at = names.indexOf(column.getKey());
        Optional<Object> value =
            at < 0 || at >= cells.size()
                ? Optional.empty()
                : constant(cells.get(at), column.getValue());
        if (value.isEmpty()) {
          return Optional.empty();
        }
        key.put(column.getKey(), value.get());
      }
      keys.add(new Key(key));
    }
    return Optional.of(keys);
  }

  /** A constant of exactly the column's type. */
  private Optional<Object> constant(@Nullable SqlNode node, Class<?> type) {
    if (node instanceof SqlBasicCall call && call.getKind() == SqlKind.MINUS_PREFIX) {
      return call.operand(0) instanceof SqlLiteral literal
              && literal.getValue() instanceof BigDecimal number
          ? typed(number.negate(), type)
          : Optional.empty();
    }
    return switch (node) {
      case SqlDynamicParam parameter -> typed(arguments.get(parameter.getIndex()), type);
      case SqlLiteral literal when literal.getValue() instanceof BigDecimal number ->
          typed(number, type);
      case SqlLiteral literal
          when literal.getValue() instanceof org.apache.calcite.util.NlsString ->
          typed(literal.toValue(), type);
      case null, default -> Optional.empty();
    };
  }

  private static Optional<Object> typed(@Nullable Object value, Class<?> type) {
    if (value == null) {
      return Optional.empty();
    }
    if (type == String.class || type == UUID.class) {
      return type.isInstance(value) ? Optional.of(value) : Optional.empty();
    }
    if (!(value instanceof Byte
        || value instanceof Short
        || value instanceof Integer
        || value instanceof Long
        || value instanceof BigDecimal)) {
      return Optional.empty();
    }
    try {
      BigDecimal number = new BigDecimal(value.toString());
      if (type == Integer.class) {
        return Optional.of(number.intValueExact());
      }
      if (type == Long.class) {
        return Optional.of(number.longValueExact());
      }
      if (type == Short.class) {
        return Optional.of(number.shortValueExact());
      }
      return type == Byte.class ? Optional.of(number.byteValueExact()) : Optional.empty();
    } catch (ArithmeticException outOfRange) {
      return Optional.empty();
    }
  }
}

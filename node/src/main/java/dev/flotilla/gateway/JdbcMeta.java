package dev.flotilla.gateway;

import dev.flotilla.FlotillaException;
import dev.flotilla.data.sql.Sql;
import dev.flotilla.data.sql.SqlResult;
import dev.flotilla.data.sql.Transactions;
import java.math.BigDecimal;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.Types;
import java.time.Duration;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.LocalTime;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Comparator;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.LongSupplier;
import java.util.regex.Pattern;
import org.apache.calcite.avatica.AvaticaParameter;
import org.apache.calcite.avatica.AvaticaSeverity;
import org.apache.calcite.avatica.ColumnMetaData;
import org.apache.calcite.avatica.ColumnMetaData.Rep;
import org.apache.calcite.avatica.ConnectionPropertiesImpl;
import org.apache.calcite.avatica.Meta;
import org.apache.calcite.avatica.MissingResultsException;
import org.apache.calcite.avatica.NoSuchConnectionException;
import org.apache.calcite.avatica.NoSuchStatementException;
import org.apache.calcite.avatica.QueryState;
import org.apache.calcite.avatica.remote.AvaticaRuntimeException;
import org.apache.calcite.avatica.remote.TypedValue;
import org.jspecify.annotations.Nullable;

/**
 * The database as Avatica's remote JDBC driver asks for it. Connections are of the node they were
 * opened on; one that was not used for ten minutes is forgotten, and its transaction rolled back.
 */
final class JdbcMeta implements Meta {

  /** What a statement was last used for. */
  private static final class OpenStatement {
    final String sql;

    // What the client has not fetched yet; guarded by this.
    private List<Object> rows = List.of();
    private long bytes;

    OpenStatement(String sql) {
      this.sql = sql;
    }
  }

  private static final class OpenConnection {
    final Map<Integer, OpenStatement> statements = new ConcurrentHashMap<>();
    ConnectionPropertiesImpl properties =
        new ConnectionPropertiesImpl(true, false, Connection.TRANSACTION_SERIALIZABLE, "", SCHEMA);
    Optional<Transactions.Session> session = Optional.empty();

    /** A statement failed and took its transaction with it; the caller must know, by rollback. */
    boolean aborted;

    volatile long usedAtNs;
  }

  private static final String SCHEMA = "PUBLIC";
  private static final int CONNECTIONS_MAX = 1_000;
  private static final int STATEMENTS_MAX = 1_000;
  private static final int FRAME_ROWS = 1_000;
  private static final int CELL_BYTES = 24;
  private static final long IDLE_NS = 600_000_000_000L;
  private static final Duration TRANSACTION_TIMEOUT = Duration.ofSeconds(60);
  private static final Duration STATEMENT_TIMEOUT = Duration.ofSeconds(60);

  private static final Map<String, Integer> TYPES = new TreeMap<>();

  static {
    TYPES.put("BOOLEAN", Types.BOOLEAN);
    TYPES.put("TINYINT", Types.TINYINT);
    TYPES.put("SMALLINT", Types.SMALLINT);
    TYPES.put("INTEGER", Types.INTEGER);
    TYPES.put("BIGINT", Types.BIGINT);
    TYPES.put("REAL", Types.REAL);
    TYPES.put("DOUBLE", Types.DOUBLE);
    TYPES.put("DECIMAL", Types.DECIMAL);
    TYPES.put("VARCHAR", Types.VARCHAR);
    TYPES.put("VARBINARY", Types.VARBINARY);
    TYPES.put("DATE", Types.DATE);
    TYPES.put("TIME", Types.TIME);
    TYPES.put("TIMESTAMP", Types.TIMESTAMP);
  }

  private final Sql sql;
  private final Transactions transactions;
  private final LongSupplier nanoTime;
  private final String version;
  private final long keptBytesMax;

  /** Of all rows that clients have not fetched yet. */
  private final AtomicLong keptBytes = new AtomicLong();

  private final Map<String, OpenConnection> connections = new ConcurrentHashMap<>();
  private final AtomicInteger statementIds = new AtomicInteger();
  private final ThreadLocal<Sql.Cancel> cancel = ThreadLocal.withInitial(Sql.Cancel::new);

  /**
   * Wires it.
   *
   * @param keptBytesMax how much may wait here to be fetched, of all clients together
   */
  JdbcMeta(
      Sql sql,
      Transactions transactions,
      LongSupplier nanoTime,
      String version,
      long keptBytesMax) {
    this.keptBytesMax = keptBytesMax;
    this.sql = sql;
    this.transactions = transactions;
    this.nanoTime = nanoTime;
    this.version = version;
  }

  /** What runs on this thread from now on is stopped by this. */
  void cancelBy(Sql.Cancel theCancel) {
    cancel.set(theCancel);
  }

  // Connections.

  @Override
  public void openConnection(ConnectionHandle handle, Map<String, String> info) {
    forgetIdle();
    if (connections.size() >= CONNECTIONS_MAX) {
      throw said(
          new FlotillaException(
              FlotillaException.Code.BUSY,
              "this node has " + CONNECTIONS_MAX + " JDBC connections",
              "Close some, or connect to another node."));
    }
    OpenConnection connection = new OpenConnection();
    connection.usedAtNs = nanoTime.getAsLong();
    connections.put(handle.id, connection);
  }

  private void forgetIdle() {
    long oldNs = nanoTime.getAsLong() - IDLE_NS;
    connections
        .entrySet()
        .removeIf(
            entry -> {
              boolean idle = entry.getValue().usedAtNs - oldNs < 0;
              if (idle) {
                leave(entry.getValue());
              }
              return idle;
            });
  }

  private void leave(OpenConnection connection) {
    connection.statements.values().forEach(this::release);
    connection.session.ifPresent(Transactions.Session::rollback);
  }

  private OpenConnection connection(String id) {
    OpenConnection connection = connections.get(id);
    if (connection == null) {
      throw new NoSuchConnectionException(
          "connection " + id + " is not open on this node; it was idle, or the node restarted");
    }
    connection.usedAtNs = nanoTime.getAsLong();
    return connection;
  }

  @Override
  public void closeConnection(ConnectionHandle handle) {
    OpenConnection connection = connections.remove(handle.id);
    if (connection != null) {
      leave(connection);
    }
  }

  @Override
  public ConnectionProperties connectionSync(ConnectionHandle handle, ConnectionProperties wanted) {
    OpenConnection connection = connection(handle.id);
    connection.properties = connection.properties.merge(wanted);
    connection.properties.setDirty(false);
    if (Boolean.TRUE.equals(connection.properties.isAutoCommit())) {
      commit(handle);
    }
    return connection.properties;
  }

  @Override
  public void commit(ConnectionHandle handle) {
    end(handle, true, Transactions.Session::commit);
  }

  @Override
  public void rollback(ConnectionHandle handle) {
    end(handle, false, Transactions.Session::rollback);
  }

  /** JDBC wants a number; it is the HTTP status that the same error has elsewhere. */
  private static int vendorCode(FlotillaException.Code code) {
    return ApiError.of(new FlotillaException(code, "", "")).status();
  }

  private static AvaticaRuntimeException aborted() {
    return new AvaticaRuntimeException(
        "the transaction was rolled back when a statement in it failed; nothing of it was done."
            + " Call rollback, then begin again",
        vendorCode(FlotillaException.Code.CONFLICT),
        "25P02",
        AvaticaSeverity.ERROR);
  }

  private void end(
      ConnectionHandle handle,
      boolean commit,
      java.util.function.Consumer<Transactions.Session> how) {
    OpenConnection connection = connection(handle.id);
    Optional<Transactions.Session> session = connection.session;
    connection.session = Optional.empty();
    boolean aborted = connection.aborted;
    connection.aborted = false;
    if (aborted && commit) {
      throw aborted();
    }
    try {
      session.ifPresent(how);
    } catch (FlotillaException e) {
      throw said(e);
    }
  }

  // Statements.

  @Override
  public StatementHandle createStatement(ConnectionHandle handle) {
    return new StatementHandle(handle.id, open(connection(handle.id), ""), null);
  }

  private int open(OpenConnection connection, String text) {
    if (connection.statements.size() >= STATEMENTS_MAX) {
      throw said(
          new FlotillaException(
              FlotillaException.Code.BUSY,
              "the connection has " + STATEMENTS_MAX + " open statements",
              "Close those that are done."));
    }
    int id = statementIds.incrementAndGet();
    connection.statements.put(id, new OpenStatement(text));
    return id;
  }

  @Override
  public void closeStatement(StatementHandle handle) {
    OpenConnection connection = connections.get(handle.connectionId);
    OpenStatement statement = connection == null ? null : connection.statements.remove(handle.id);
    if (statement != null) {
      release(statement);
    }
  }

  @Override
  public StatementHandle prepare(ConnectionHandle handle, String text, long maxRowCount) {
    OpenConnection connection = connection(handle.id);
    try {
      Signature signature = signature(text, sql.describe(text));
      return new StatementHandle(handle.id, open(connection, text), signature);
    } catch (FlotillaException e) {
      throw said(e);
    }
  }

  private static Signature signature(String text, List<SqlResult.Column> columns) {
    List<AvaticaParameter> parameters = new ArrayList<>();
    for (int i = 0; i < Sql.parameters(text); i++) {
      parameters.add(
          new AvaticaParameter(
              true, 0, 0, Types.OTHER, "OTHER", Object.class.getName(), "?" + (i + 1)));
    }
    return Signature.create(
        columns.isEmpty() ? List.of() : columns(columns),
        text,
        parameters,
        CursorFactory.LIST,
        columns.isEmpty() ? StatementType.OTHER_DML : StatementType.SELECT);
  }

  @Override
  public ExecuteResult execute(
      StatementHandle handle, List<TypedValue> parameters, int rowsInFirstFrame)
      throws NoSuchStatementException {
    OpenStatement statement = statement(handle);
    return run(handle, statement.sql, parameters, -1, rowsInFirstFrame);
  }

  @Override
  @Deprecated
  public ExecuteResult execute(
      StatementHandle handle, List<TypedValue> parameters, long maxRowCount)
      throws NoSuchStatementException {
    return run(handle, statement(handle).sql, parameters, maxRowCount, FRAME_ROWS);
  }

  @Override
  public ExecuteResult prepareAndExecute(
      StatementHandle handle,
      String text,
      long maxRowCount,
      int rowsInFirstFrame,
      PrepareCallback callback)
      throws NoSuchStatementException {
    return run(handle, text, List.of(), maxRowCount, rowsInFirstFrame);
  }

  @Override
  @Deprecated
  public ExecuteResult prepareAndExecute(
      StatementHandle handle, String text, long maxRowCount, PrepareCallback callback)
      throws NoSuchStatementException {
    return run(handle, text, List.of(), maxRowCount, FRAME_ROWS);
  }

  private OpenStatement statement(StatementHandle handle) throws NoSuchStatementException {
    OpenStatement statement = connection(handle.connectionId).statements.get(handle.id);
    if (statement == null) {
      throw new NoSuchStatementException(handle);
    }
    return statement;
  }

  private ExecuteResult run(
      StatementHandle handle,
      String text,
      List<TypedValue> parameters,
      long maxRowCount,
      int rowsInFirstFrame)
      throws NoSuchStatementException {
    OpenStatement statement = statement(handle);
    release(statement);
    SqlResult result =
        execute(connection(handle.connectionId), text, arguments(parameters), maxRowCount);
    if (result.columns().isEmpty()) {
      return new ExecuteResult(
          List.of(MetaResultSet.count(handle.connectionId, handle.id, result.updated())));
    }
    List<Object> rows = rows(result);
    Frame first = frame(rows, 0, rowsInFirstFrame);
    if (!first.done) {
      keep(handle, statement, rows);
    }
    Signature signature =
        Signature.create(
            columns(result.columns()), text, List.of(), CursorFactory.LIST, StatementType.SELECT);
    return new ExecuteResult(
        List.of(MetaResultSet.create(handle.connectionId, handle.id, false, signature, first)));
  }

  /** Until the client has fetched them, or closes the statement. */
  private void keep(StatementHandle handle, OpenStatement statement, List<Object> rows) {
    long bytes = 0;
    for (Object row : rows) {
      for (Object cell : (List<?>) row) {
        bytes += CELL_BYTES + (cell instanceof String text ? text.length() : 0);
      }
    }
    if (keptBytes.addAndGet(bytes) > keptBytesMax) {
      keptBytes.addAndGet(-bytes);
      throw said(
          new FlotillaException(
              FlotillaException.Code.BUSY,
              "too many rows wait on this node to be fetched",
              "Fetch all rows of open results or close them, ask for fewer rows, or try another"
                  + " node."));
    }
    synchronized (statement) {
      statement.rows = rows;
      statement.bytes = bytes;
    }
    OpenConnection connection = connections.get(handle.connectionId);
    if (connection == null || !statement.equals(connection.statements.get(handle.id))) {
      // Closed meanwhile.
      release(statement);
    }
  }

  private void release(OpenStatement statement) {
    synchronized (statement) {
      keptBytes.addAndGet(-statement.bytes);
      statement.bytes = 0;
      statement.rows = List.of();
    }
  }

  private SqlResult execute(
      OpenConnection connection, String text, List<@Nullable Object> arguments, long maxRowCount) {
    int rowsMax = maxRowCount <= 0 ? Sql.ROWS_MAX : (int) Math.min(maxRowCount, Sql.ROWS_MAX);
    Sql.Request request = new Sql.Request(text, arguments, rowsMax, STATEMENT_TIMEOUT);
    try {
      SqlResult result =
          Boolean.FALSE.equals(connection.properties.isAutoCommit())
              ? inSession(connection, request)
              : sql.execute(request, cancel.get());
      if (result.truncated() && maxRowCount <= 0) {
        throw new FlotillaException(
            FlotillaException.Code.TOO_LARGE,
            "the result has more than " + Sql.ROWS_MAX + " rows",
            "Use LIMIT and OFFSET, or setMaxRows.");
      }
      return result;
    } catch (FlotillaException e) {
      throw said(e);
    }
  }

  private SqlResult inSession(OpenConnection connection, Sql.Request request) {
    if (connection.aborted) {
      throw aborted();
    }
    if (connection.session.isEmpty()) {
      connection.session = Optional.of(transactions.begin(options(connection)));
    }
    try {
      return connection.session.get().sql(request, cancel.get());
    } catch (FlotillaException e) {
      connection.session = Optional.empty();
      connection.aborted = true;
      throw e;
    }
  }

  private static Transactions.Options options(OpenConnection connection) {
    Integer isolation = connection.properties.getTransactionIsolation();
    return new Transactions.Options(
        isolation != null
                && (isolation == Connection.TRANSACTION_READ_COMMITTED
                    || isolation == Connection.TRANSACTION_READ_UNCOMMITTED)
            ? Transactions.Mode.READ_COMMITTED
            : Transactions.Mode.PESSIMISTIC,
        TRANSACTION_TIMEOUT);
  }

  @Override
  public ExecuteBatchResult prepareAndExecuteBatch(StatementHandle handle, List<String> texts)
      throws NoSuchStatementException {
    long[] counts = new long[texts.size()];
    for (int i = 0; i < counts.length; i++) {
      statement(handle);
      counts[i] = execute(connection(handle.connectionId), texts.get(i), List.of(), 0).updated();
    }
    return new ExecuteBatchResult(counts);
  }

  @Override
  public ExecuteBatchResult executeBatch(StatementHandle handle, List<List<TypedValue>> batches)
      throws NoSuchStatementException {
    String text = statement(handle).sql;
    long[] counts = new long[batches.size()];
    for (int i = 0; i < counts.length; i++) {
      counts[i] =
          execute(connection(handle.connectionId), text, arguments(batches.get(i)), 0).updated();
    }
    return new ExecuteBatchResult(counts);
  }

  @Override
  public Frame fetch(StatementHandle handle, long offset, int rowsMax)
      throws NoSuchStatementException, MissingResultsException {
    OpenStatement statement = statement(handle);
    synchronized (statement) {
      Frame frame = frame(statement.rows, offset, rowsMax);
      if (frame.done) {
        release(statement);
      }
      return frame;
    }
  }

  private static Frame frame(List<Object> rows, long offset, int rowsMax) {
    int from = (int) Math.min(offset, rows.size());
    int size = rowsMax <= 0 ? FRAME_ROWS : rowsMax;
    int to = (int) Math.min((long) from + size, rows.size());
    return new Frame(from, to == rows.size(), new ArrayList<>(rows.subList(from, to)));
  }

  @Override
  public boolean syncResults(StatementHandle handle, QueryState state, long offset)
      throws NoSuchStatementException {
    OpenStatement statement = statement(handle);
    synchronized (statement) {
      return offset < statement.rows.size();
    }
  }

  @Override
  public Iterable<Object> createIterable(
      StatementHandle handle,
      QueryState state,
      Signature signature,
      List<TypedValue> parameters,
      Frame firstFrame) {
    throw new IllegalStateException("only a client asks for that");
  }

  // Values.

  private static List<@Nullable Object> arguments(List<TypedValue> parameters) {
    List<@Nullable Object> arguments = new ArrayList<>();
    for (TypedValue parameter : parameters) {
      arguments.add(argument(parameter));
    }
    return arguments;
  }

  private static @Nullable Object argument(TypedValue parameter) {
    Object value = parameter.value;
    if (value == null) {
      return null;
    }
    return switch (parameter.type) {
      case JAVA_SQL_TIMESTAMP, JAVA_UTIL_DATE ->
          LocalDateTime.ofEpochSecond(
              Math.floorDiv(((Number) value).longValue(), 1000L),
              (int) Math.floorMod(((Number) value).longValue(), 1000L) * 1_000_000,
              ZoneOffset.UTC);
      case JAVA_SQL_DATE -> LocalDate.ofEpochDay(((Number) value).longValue());
      case JAVA_SQL_TIME -> LocalTime.ofNanoOfDay(((Number) value).longValue() * 1_000_000);
      case BYTE_STRING -> Base64.getDecoder().decode(value.toString());
      case BYTE, PRIMITIVE_BYTE -> ((Number) value).byteValue();
      case SHORT, PRIMITIVE_SHORT -> ((Number) value).shortValue();
      case INTEGER, PRIMITIVE_INT -> ((Number) value).intValue();
      case LONG, PRIMITIVE_LONG -> ((Number) value).longValue();
      case FLOAT, PRIMITIVE_FLOAT -> ((Number) value).floatValue();
      case DOUBLE, PRIMITIVE_DOUBLE -> ((Number) value).doubleValue();
      case NUMBER -> new BigDecimal(value.toString());
      case BOOLEAN, PRIMITIVE_BOOLEAN, STRING -> value;
      default -> value.toString();
    };
  }

  private static List<Object> rows(SqlResult result) {
    List<Object> rows = new ArrayList<>();
    for (List<@Nullable Object> row : result.rows()) {
      List<@Nullable Object> cells = new ArrayList<>();
      for (Object value : row) {
        cells.add(
            switch (value) {
              case null -> null;
              case LocalDateTime time -> time.toInstant(ZoneOffset.UTC).toEpochMilli();
              case LocalDate date -> (int) date.toEpochDay();
              case LocalTime time -> (int) (time.toNanoOfDay() / 1_000_000);
              case byte[] bytes -> Base64.getEncoder().encodeToString(bytes);
              case Boolean _, Number _ -> value;
              default -> value.toString();
            });
      }
      rows.add(cells);
    }
    return rows;
  }

  private static List<ColumnMetaData> columns(List<SqlResult.Column> columns) {
    List<ColumnMetaData> all = new ArrayList<>();
    for (SqlResult.Column column : columns) {
      all.add(column(all.size(), column.name(), column.type()));
    }
    return all;
  }

  private static ColumnMetaData column(int ordinal, String name, String type) {
    int id = TYPES.getOrDefault(type, Types.VARCHAR);
    Rep rep =
        switch (id) {
          case Types.BOOLEAN -> Rep.BOOLEAN;
          case Types.TINYINT -> Rep.BYTE;
          case Types.SMALLINT -> Rep.SHORT;
          case Types.INTEGER -> Rep.INTEGER;
          case Types.BIGINT -> Rep.LONG;
          case Types.REAL -> Rep.FLOAT;
          case Types.DOUBLE -> Rep.DOUBLE;
          case Types.DECIMAL, Types.DATE, Types.TIME, Types.TIMESTAMP -> Rep.NUMBER;
          case Types.VARBINARY -> Rep.BYTE_STRING;
          default -> Rep.STRING;
        };
    int precision = id == Types.TIMESTAMP ? 3 : 0;
    return new ColumnMetaData(
        ordinal,
        false,
        true,
        true,
        false,
        DatabaseMetaData.columnNullableUnknown,
        true,
        40,
        name,
        name,
        SCHEMA,
        precision,
        0,
        "",
        "",
        ColumnMetaData.scalar(id, type, rep),
        true,
        false,
        false,
        className(id));
  }

  private static String className(int id) {
    return switch (id) {
      case Types.BOOLEAN -> "java.lang.Boolean";
      case Types.TINYINT -> "java.lang.Byte";
      case Types.SMALLINT -> "java.lang.Short";
      case Types.INTEGER -> "java.lang.Integer";
      case Types.BIGINT -> "java.lang.Long";
      case Types.REAL -> "java.lang.Float";
      case Types.DOUBLE -> "java.lang.Double";
      case Types.DECIMAL -> "java.math.BigDecimal";
      case Types.DATE -> "java.sql.Date";
      case Types.TIME -> "java.sql.Time";
      case Types.TIMESTAMP -> "java.sql.Timestamp";
      case Types.VARBINARY -> "[B";
      default -> "java.lang.String";
    };
  }

  private static AvaticaRuntimeException said(FlotillaException e) {
    String state =
        switch (e.code()) {
          case INVALID, BAD_FILE -> "42000";
          case NOT_FOUND -> "42S02";
          case CONFLICT -> e.explanation().contains("primary key") ? "23505" : "40001";
          case BUSY -> "57014";
          case TOO_LARGE -> "54000";
          case UNAUTHENTICATED -> "28000";
          case UNAVAILABLE, NO_MAJORITY -> "08006";
          case OUTCOME_UNKNOWN -> "08007";
          case STORAGE -> "53100";
          case FAILED -> "XX000";
        };
    return new AvaticaRuntimeException(
        e.explanation(), vendorCode(e.code()), state, AvaticaSeverity.ERROR);
  }

  // What there is.

  private MetaResultSet table(
      ConnectionHandle handle, List<SqlResult.Column> columns, List<Object> rows) {
    OpenConnection connection = connection(handle.id);
    int id = open(connection, "");
    return MetaResultSet.create(
        handle.id,
        id,
        true,
        Signature.create(columns(columns), "", List.of(), CursorFactory.LIST, StatementType.SELECT),
        frame(rows, 0, Integer.MAX_VALUE));
  }

  private static List<SqlResult.Column> named(String... namesAndTypes) {
    List<SqlResult.Column> columns = new ArrayList<>();
    for (String each : namesAndTypes) {
      int at = each.indexOf(' ');
      columns.add(
          at < 0
              ? new SqlResult.Column(each, "VARCHAR")
              : new SqlResult.Column(each.substring(0, at), each.substring(at + 1)));
    }
    return columns;
  }

  private static List<Object> row(@Nullable Object... values) {
    List<Object> row = new ArrayList<>();
    for (Object value : values) {
      row.add(value);
    }
    return row;
  }

  private MetaResultSet none(ConnectionHandle handle, String... columns) {
    return table(handle, named(columns), List.of());
  }

  /** A pattern of JDBC: {@code %} for any characters, {@code _} for one. */
  private static boolean matches(Pat pattern, String name) {
    if (pattern.s == null) {
      return true;
    }
    StringBuilder regex = new StringBuilder();
    for (int i = 0; i < pattern.s.length(); i++) {
      char c = pattern.s.charAt(i);
      if (c == '\\' && i + 1 < pattern.s.length()) {
        regex.append(Pattern.quote(String.valueOf(pattern.s.charAt(++i))));
      } else {
        regex.append(c == '%' ? ".*" : c == '_' ? "." : Pattern.quote(String.valueOf(c)));
      }
    }
    return name.matches(regex.toString());
  }

  @Override
  public Map<DatabaseProperty, Object> getDatabaseProperties(ConnectionHandle handle) {
    Map<DatabaseProperty, Object> properties = new EnumMap<>(DatabaseProperty.class);
    properties.put(DatabaseProperty.GET_DATABASE_PRODUCT_NAME, "Flotilla");
    properties.put(DatabaseProperty.GET_DATABASE_PRODUCT_VERSION, version);
    properties.put(
        DatabaseProperty.GET_DEFAULT_TRANSACTION_ISOLATION, Connection.TRANSACTION_SERIALIZABLE);
    return properties;
  }

  @Override
  public MetaResultSet getTables(
      ConnectionHandle handle, String catalog, Pat schema, Pat name, List<String> types) {
    List<Object> rows = new ArrayList<>();
    if (matches(schema, SCHEMA) && (types == null || types.isEmpty() || types.contains("TABLE"))) {
      for (Sql.Table table : tables()) {
        if (matches(name, table.name())) {
          rows.add(row("", SCHEMA, table.name(), "TABLE", "", null, null, null, null, null));
        }
      }
    }
    return table(
        handle,
        named(
            "TABLE_CAT",
            "TABLE_SCHEM",
            "TABLE_NAME",
            "TABLE_TYPE",
            "REMARKS",
            "TYPE_CAT",
            "TYPE_SCHEM",
            "TYPE_NAME",
            "SELF_REFERENCING_COL_NAME",
            "REF_GENERATION"),
        rows);
  }

  private List<Sql.Table> tables() {
    try {
      return sql.tables();
    } catch (FlotillaException e) {
      throw said(e);
    }
  }

  @Override
  public MetaResultSet getColumns(
      ConnectionHandle handle, String catalog, Pat schema, Pat tableName, Pat name) {
    List<Object> rows = new ArrayList<>();
    for (Sql.Table table : tables()) {
      if (!matches(schema, SCHEMA) || !matches(tableName, table.name())) {
        continue;
      }
      int ordinal = 0;
      for (Sql.TableColumn column : table.columns()) {
        ordinal++;
        if (matches(name, column.name())) {
          rows.add(
              row(
                  "",
                  SCHEMA,
                  table.name(),
                  column.name(),
                  TYPES.getOrDefault(column.type(), Types.VARCHAR),
                  column.type(),
                  null,
                  null,
                  null,
                  10,
                  column.nullable()
                      ? DatabaseMetaData.columnNullable
                      : DatabaseMetaData.columnNoNulls,
                  null,
                  null,
                  null,
                  null,
                  null,
                  ordinal,
                  column.nullable() ? "YES" : "NO",
                  null,
                  null,
                  null,
                  null,
                  "NO",
                  "NO"));
        }
      }
    }
    return table(
        handle,
        named(
            "TABLE_CAT",
            "TABLE_SCHEM",
            "TABLE_NAME",
            "COLUMN_NAME",
            "DATA_TYPE INTEGER",
            "TYPE_NAME",
            "COLUMN_SIZE INTEGER",
            "BUFFER_LENGTH INTEGER",
            "DECIMAL_DIGITS INTEGER",
            "NUM_PREC_RADIX INTEGER",
            "NULLABLE INTEGER",
            "REMARKS",
            "COLUMN_DEF",
            "SQL_DATA_TYPE INTEGER",
            "SQL_DATETIME_SUB INTEGER",
            "CHAR_OCTET_LENGTH INTEGER",
            "ORDINAL_POSITION INTEGER",
            "IS_NULLABLE",
            "SCOPE_CATALOG",
            "SCOPE_SCHEMA",
            "SCOPE_TABLE",
            "SOURCE_DATA_TYPE INTEGER",
            "IS_AUTOINCREMENT",
            "IS_GENERATEDCOLUMN"),
        rows);
  }

  @Override
  public MetaResultSet getSchemas(ConnectionHandle handle, String catalog, Pat schema) {
    return table(
        handle,
        named("TABLE_SCHEM", "TABLE_CATALOG"),
        matches(schema, SCHEMA) ? List.of(row(SCHEMA, "")) : List.of());
  }

  @Override
  public MetaResultSet getCatalogs(ConnectionHandle handle) {
    return table(handle, named("TABLE_CAT"), List.of(row("")));
  }

  @Override
  public MetaResultSet getTableTypes(ConnectionHandle handle) {
    return table(handle, named("TABLE_TYPE"), List.of(row("TABLE")));
  }

  @Override
  public MetaResultSet getTypeInfo(ConnectionHandle handle) {
    List<Object> rows = new ArrayList<>();
    TYPES.entrySet().stream()
        .sorted(Comparator.comparing(Map.Entry::getValue))
        .forEach(
            type -> {
              boolean quoted =
                  List.of(Types.VARCHAR, Types.DATE, Types.TIME, Types.TIMESTAMP)
                      .contains(type.getValue());
              rows.add(
                  row(
                      type.getKey(),
                      type.getValue(),
                      null,
                      quoted ? "'" : null,
                      quoted ? "'" : null,
                      null,
                      DatabaseMetaData.typeNullable,
                      true,
                      DatabaseMetaData.typeSearchable,
                      false,
                      false,
                      false,
                      type.getKey(),
                      0,
                      0,
                      null,
                      null,
                      10));
            });
    return table(
        handle,
        named(
            "TYPE_NAME",
            "DATA_TYPE INTEGER",
            "PRECISION INTEGER",
            "LITERAL_PREFIX",
            "LITERAL_SUFFIX",
            "CREATE_PARAMS",
            "NULLABLE INTEGER",
            "CASE_SENSITIVE BOOLEAN",
            "SEARCHABLE INTEGER",
            "UNSIGNED_ATTRIBUTE BOOLEAN",
            "FIXED_PREC_SCALE BOOLEAN",
            "AUTO_INCREMENT BOOLEAN",
            "LOCAL_TYPE_NAME",
            "MINIMUM_SCALE INTEGER",
            "MAXIMUM_SCALE INTEGER",
            "SQL_DATA_TYPE INTEGER",
            "SQL_DATETIME_SUB INTEGER",
            "NUM_PREC_RADIX INTEGER"),
        rows);
  }

  @Override
  public MetaResultSet getPrimaryKeys(
      ConnectionHandle handle, String catalog, String schema, String name) {
    List<Object> rows = new ArrayList<>();
    for (Sql.Table table : tables()) {
      if (table.name().equals(name)) {
        for (Sql.TableColumn column : table.columns()) {
          if (column.key() > 0) {
            rows.add(row("", SCHEMA, table.name(), column.name(), column.key(), "PRIMARY"));
          }
        }
      }
    }
    return table(
        handle,
        named(
            "TABLE_CAT", "TABLE_SCHEM", "TABLE_NAME", "COLUMN_NAME", "KEY_SEQ INTEGER", "PK_NAME"),
        rows);
  }

  // What there is none of; the driver answers these by itself, and does not ask.

  @Override
  public MetaResultSet getProcedures(ConnectionHandle handle, String catalog, Pat s, Pat name) {
    return none(handle, "PROCEDURE_NAME");
  }

  @Override
  public MetaResultSet getProcedureColumns(
      ConnectionHandle handle, String catalog, Pat s, Pat name, Pat column) {
    return none(handle, "PROCEDURE_NAME");
  }

  @Override
  public MetaResultSet getColumnPrivileges(
      ConnectionHandle handle, String catalog, String s, String table, Pat column) {
    return none(handle, "TABLE_NAME");
  }

  @Override
  public MetaResultSet getTablePrivileges(
      ConnectionHandle handle, String catalog, Pat s, Pat table) {
    return none(handle, "TABLE_NAME");
  }

  @Override
  public MetaResultSet getBestRowIdentifier(
      ConnectionHandle handle, String c, String s, String table, int scope, boolean nullable) {
    return none(handle, "COLUMN_NAME");
  }

  @Override
  public MetaResultSet getVersionColumns(
      ConnectionHandle handle, String catalog, String s, String table) {
    return none(handle, "COLUMN_NAME");
  }

  @Override
  public MetaResultSet getImportedKeys(
      ConnectionHandle handle, String catalog, String s, String table) {
    return none(handle, "FKTABLE_NAME");
  }

  @Override
  public MetaResultSet getExportedKeys(
      ConnectionHandle handle, String catalog, String s, String table) {
    return none(handle, "FKTABLE_NAME");
  }

  @Override
  public MetaResultSet getCrossReference(
      ConnectionHandle handle, String c, String s, String t, String fc, String fs, String ft) {
    return none(handle, "FKTABLE_NAME");
  }

  @Override
  public MetaResultSet getIndexInfo(
      ConnectionHandle handle, String c, String s, String table, boolean unique, boolean rough) {
    return none(handle, "INDEX_NAME");
  }

  @Override
  public MetaResultSet getUDTs(
      ConnectionHandle handle, String catalog, Pat s, Pat type, int[] types) {
    return none(handle, "TYPE_NAME");
  }

  @Override
  public MetaResultSet getSuperTypes(ConnectionHandle handle, String catalog, Pat s, Pat type) {
    return none(handle, "TYPE_NAME");
  }

  @Override
  public MetaResultSet getSuperTables(ConnectionHandle handle, String catalog, Pat s, Pat table) {
    return none(handle, "TABLE_NAME");
  }

  @Override
  public MetaResultSet getAttributes(
      ConnectionHandle handle, String catalog, Pat s, Pat type, Pat attribute) {
    return none(handle, "ATTR_NAME");
  }

  @Override
  public MetaResultSet getClientInfoProperties(ConnectionHandle handle) {
    return none(handle, "NAME");
  }

  @Override
  public MetaResultSet getFunctions(ConnectionHandle handle, String catalog, Pat s, Pat name) {
    return none(handle, "FUNCTION_NAME");
  }

  @Override
  public MetaResultSet getFunctionColumns(
      ConnectionHandle handle, String catalog, Pat s, Pat name, Pat column) {
    return none(handle, "FUNCTION_NAME");
  }

  @Override
  public MetaResultSet getPseudoColumns(
      ConnectionHandle handle, String catalog, Pat s, Pat table, Pat column) {
    return none(handle, "COLUMN_NAME");
  }
}

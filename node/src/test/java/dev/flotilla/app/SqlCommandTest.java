package dev.flotilla.app;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.client.Client;
import dev.flotilla.client.HttpCaches;
import dev.flotilla.client.HttpSql;
import dev.flotilla.client.HttpTransactions;
import dev.flotilla.data.sql.Transactions;
import dev.flotilla.data.sql.Transactions.Step;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.Date;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Timestamp;
import java.time.LocalDate;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class SqlCommandTest {

  @TempDir static Path folder;

  private static TestNode node;

  @BeforeAll
  static void start() {
    node = TestNode.start(folder.resolve("node"));
  }

  @AfterAll
  static void stop() {
    node.close();
  }

  private static String output(int expected, String... command) {
    PrintStream before = System.out;
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    System.setOut(new PrintStream(out, true, StandardCharsets.UTF_8));
    try {
      assertThat(node.run(command)).isEqualTo(expected);
    } finally {
      System.setOut(before);
    }
    return out.toString(StandardCharsets.UTF_8);
  }

  private static JsonNode sql(String statement, Object... arguments) {
    return node.client()
        .post("/api/sql", Map.of("statement", statement, "arguments", List.of(arguments)));
  }

  @Test
  void statementsRunOverHttp() {
    sql("CREATE TABLE fruit (id BIGINT PRIMARY KEY, name VARCHAR, price DECIMAL(10, 2), day DATE)");
    JsonNode inserted =
        sql(
            "INSERT INTO fruit VALUES (?, ?, ?, ?)",
            9007199254740993L,
            "apple",
            Map.of("type", "DECIMAL", "value", "1.50"),
            Map.of("type", "DATE", "value", "2026-05-01"));
    assertThat(inserted.path("updated").asInt()).isEqualTo(1);
    JsonNode read = sql("SELECT * FROM fruit");
    assertThat(read.path("columns").get(0).toString())
        .isEqualTo("{\"name\":\"ID\",\"type\":\"BIGINT\"}");
    assertThat(read.path("rows").toString())
        .isEqualTo("[[9007199254740993,\"apple\",\"1.50\",\"2026-05-01\"]]");
    assertThatThrownBy(() -> sql("SELECT * FROM vegetable"))
        .isInstanceOfSatisfying(
            FlotillaException.class, e -> assertThat(e.code()).isEqualTo(Code.NOT_FOUND));
    assertThat(node.client().get("/api/sql/tables").toString())
        .contains("{\"name\":\"ID\",\"type\":\"BIGINT\",\"nullable\":false,\"key\":1}");
  }

  @Test
  void transactionsRunOverHttp() {
    HttpSql sql = new HttpSql(node.client());
    HttpTransactions transactions = new HttpTransactions(node.client());
    sql.execute("CREATE TABLE http_account (id INT PRIMARY KEY, n INT)");
    var outcome =
        transactions.run(
            Transactions.Options.of(Transactions.Mode.PESSIMISTIC),
            List.of(
                new Step.Statement("INSERT INTO http_account VALUES (1, 10)", List.of()),
                new Step.Statement("UPDATE http_account SET n = n - ? WHERE id = 1", List.of(4)),
                new Step.Statement("SELECT n FROM http_account", List.of())),
            Optional.of("my-transfer"));
    assertThat(outcome.id()).isEqualTo("my-transfer");
    assertThat(outcome.results().get(2).sql().orElseThrow().rows()).isEqualTo(List.of(List.of(6)));
    assertThatThrownBy(
            () ->
                node.client()
                    .post(
                        "/api/transactions",
                        Map.of(
                            "steps",
                            List.of(
                                Map.of("statement", "UPDATE http_account SET n = 0"),
                                Map.of("statement", "INSERT INTO http_account VALUES (1, 1)")))))
        .isInstanceOfSatisfying(
            FlotillaException.class, e -> assertThat(e.code()).isEqualTo(Code.CONFLICT));
    assertThat(
            transactions.<Object>run(
                Transactions.Mode.PESSIMISTIC,
                t -> {
                  t.sql("UPDATE http_account SET n = n + 1 WHERE id = 1");
                  return t.sql("SELECT n FROM http_account").rows();
                }))
        .isEqualTo(List.of(List.of(7)));
    assertThat(transactions.find("my-transfer").orElseThrow().state())
        .isEqualTo(Transactions.State.COMMITTED);
    assertThat(output(0, "transactions")).contains("my-transfer").contains("committed");
    assertThat(output(0, "transactions", "my-transfer")).contains("UPDATE http_account");
  }

  @Test
  void aCacheAndATableChangeTogether() {
    HttpSql sql = new HttpSql(node.client());
    HttpTransactions transactions = new HttpTransactions(node.client());
    sql.execute("CREATE TABLE both_sides (id INT PRIMARY KEY, n INT)");
    new HttpCaches(node.client()).cache("both").put("k", "before".getBytes(StandardCharsets.UTF_8));
    var options = Transactions.Options.of(Transactions.Mode.PESSIMISTIC);
    List<Step> steps = new ArrayList<>();
    steps.add(new Step.Statement("INSERT INTO both_sides VALUES (1, 1)", List.of()));
    steps.add(new Step.Put("both", "k", Optional.of("after".getBytes(StandardCharsets.UTF_8))));
    steps.add(new Step.Get("both", "k"));
    var outcome = transactions.run(options, steps, Optional.empty());
    assertThat(outcome.results().get(2).value().orElseThrow()).asString().isEqualTo("after");
    steps.set(1, new Step.Put("both", "k", Optional.empty()));
    steps.add(steps.removeFirst());
    assertThatThrownBy(() -> transactions.run(options, steps, Optional.empty()))
        .hasMessageContaining("step 3");
    assertThat(
            transactions
                .run(options, List.of(new Step.Get("both", "k")), Optional.empty())
                .results()
                .getFirst()
                .value()
                .orElseThrow())
        .asString()
        .isEqualTo("after");
  }

  @Test
  void theCommandPrintsTablesAndRunsFiles() throws IOException {
    Path script = folder.resolve("script.sql");
    Files.writeString(
        script,
        "-- a script; with a comment\nCREATE TABLE shell (id INT PRIMARY KEY, s VARCHAR);\n"
            + "INSERT INTO shell VALUES (1, 'a;b'), (2, NULL);\n");
    assertThat(output(0, "sql", "-f", script.toString())).isEqualTo("0 rows\n2 rows\n");
    assertThat(output(0, "sql", "SELECT * FROM shell ORDER BY id"))
        .isEqualTo("ID  S\n1   a;b\n2   NULL\n(2 rows)\n");
    assertThat(output(0, "sql", "--json", "SELECT COUNT(*) AS c FROM shell"))
        .contains("\"BIGINT\"");
    assertThat(output(1, "sql", "SELEC 1")).isEmpty();
    Path migrations = Files.createDirectory(folder.resolve("migrations"));
    Files.writeString(
        migrations.resolve("V1__start.sql"), "CREATE TABLE migrated (id INT PRIMARY KEY, n INT)");
    assertThat(output(0, "sql", "migrate", migrations.toString())).contains("applied 1 start");
    assertThat(output(0, "sql", "migrate", migrations.toString())).contains("nothing to do");
    Files.writeString(
        migrations.resolve("V1__start.sql"), "CREATE TABLE migrated (id INT PRIMARY KEY, m INT)");
    assertThat(output(1, "sql", "migrate", migrations.toString())).isEmpty();
  }

  private static Connection connect(String key) throws SQLException {
    return DriverManager.getConnection(
        "jdbc:avatica:remote:url="
            + node.url()
            + "/api/jdbc;authentication=BASIC;avatica_user=key;avatica_password="
            + key);
  }

  @Test
  void aJdbcDriverReadsWritesAndDescribes() throws SQLException {
    try (Connection connection = connect(node.key());
        Statement statement = connection.createStatement()) {
      statement.executeUpdate(
          "CREATE TABLE jdbc (id INT PRIMARY KEY, name VARCHAR, n BIGINT, price DECIMAL(10, 2),"
              + " f DOUBLE, b BOOLEAN, x VARBINARY, day DATE, at TIMESTAMP)");
      try (PreparedStatement insert =
          connection.prepareStatement("INSERT INTO jdbc VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")) {
        for (int i = 0; i < 3; i++) {
          insert.setInt(1, i);
          insert.setString(2, i == 2 ? null : "name " + i);
          insert.setLong(3, Long.MAX_VALUE - i);
          insert.setBigDecimal(4, new BigDecimal("1.25"));
          insert.setDouble(5, 0.5);
          insert.setBoolean(6, true);
          insert.setBytes(7, new byte[] {1, -1});
          insert.setDate(8, Date.valueOf("2026-02-28"));
          insert.setTimestamp(9, Timestamp.valueOf("2026-02-28 23:59:59.123"));
          assertThat(insert.executeUpdate()).isEqualTo(1);
        }
      }
      try (ResultSet rows = statement.executeQuery("SELECT * FROM jdbc ORDER BY id")) {
        assertThat(rows.next()).isTrue();
        assertThat(rows.getInt(1)).isZero();
        assertThat(rows.getString("NAME")).isEqualTo("name 0");
        assertThat(rows.getLong(3)).isEqualTo(Long.MAX_VALUE);
        assertThat(rows.getBigDecimal(4)).isEqualByComparingTo("1.25");
        assertThat(rows.getDouble(5)).isEqualTo(0.5);
        assertThat(rows.getBoolean(6)).isTrue();
        assertThat(rows.getBytes(7)).containsExactly(1, -1);
        assertThat(rows.getDate(8)).isEqualTo(Date.valueOf(LocalDate.of(2026, 2, 28)));
        assertThat(rows.getTimestamp(9)).isEqualTo(Timestamp.valueOf("2026-02-28 23:59:59.123"));
        assertThat(rows.next()).isTrue();
        assertThat(rows.next()).isTrue();
        assertThat(rows.getString(2)).isNull();
        assertThat(rows.wasNull()).isTrue();
        assertThat(rows.next()).isFalse();
      }
      try (PreparedStatement select =
          connection.prepareStatement("SELECT n FROM jdbc WHERE name = ?")) {
        assertThat(select.getMetaData().getColumnTypeName(1)).isEqualTo("BIGINT");
        select.setString(1, "name 1");
        try (ResultSet rows = select.executeQuery()) {
          assertThat(rows.next()).isTrue();
          assertThat(rows.getLong(1)).isEqualTo(Long.MAX_VALUE - 1);
        }
      }
      try (ResultSet tables =
          connection.getMetaData().getTables(null, null, "JD%", new String[] {"TABLE"})) {
        assertThat(tables.next()).isTrue();
        assertThat(tables.getString("TABLE_NAME")).isEqualTo("JDBC");
        assertThat(tables.next()).isFalse();
      }
      List<String> columns = new ArrayList<>();
      try (ResultSet found = connection.getMetaData().getColumns(null, null, "JDBC", null)) {
        while (found.next()) {
          columns.add(found.getString("COLUMN_NAME") + " " + found.getInt("DATA_TYPE"));
        }
      }
      assertThat(columns).hasSize(9).contains("ID 4", "NAME 12", "AT 93");
      assertThatThrownBy(() -> statement.executeQuery("SELECT * FROM nowhere"))
          .isInstanceOfSatisfying(
              SQLException.class,
              e -> {
                assertThat(e.getSQLState()).isEqualTo("42S02");
                assertThat(e.getMessage()).contains("NOWHERE");
              });
    }
  }

  @Test
  void aTableThatIsAllKeyTakesRowsOverJdbc() throws SQLException {
    try (Connection connection = connect(node.key());
        Statement statement = connection.createStatement()) {
      statement.execute(
          "CREATE TABLE all_key (team VARCHAR, person VARCHAR, PRIMARY KEY (team, person))");
      try (PreparedStatement insert =
          connection.prepareStatement("INSERT INTO all_key VALUES (?, ?)")) {
        insert.setString(1, "a");
        insert.setString(2, "b");
        assertThat(insert.executeUpdate()).isEqualTo(1);
        insert.setNull(2, java.sql.Types.VARCHAR);
        assertThatThrownBy(insert::executeUpdate)
            .hasMessageContaining("column PERSON of table ALL_KEY cannot be NULL");
      }
      try (ResultSet rows = statement.executeQuery("SELECT * FROM all_key")) {
        assertThat(rows.getMetaData().getColumnCount()).isEqualTo(2);
        assertThat(rows.next()).isTrue();
        assertThat(rows.getString(2)).isEqualTo("b");
        assertThat(rows.next()).isFalse();
      }
    }
  }

  @Test
  void whatIsWrongWithAStatementIsSaidInOneLine() {
    for (String[] each :
        new String[][] {
          {"SELEC 1", "400", "no statement begins with SELEC"},
          {"SELECT * FROM nowhere", "404", "line 1, column 15: there is no table NOWHERE"},
          {"SELECT 1/0", "400", "division by zero"},
          {"SELECT * FROM (SELECT 1 AS id) WHERE id = TRUE", "400", ""},
          {"EXPLAIN PLAN FOR DROP TABLE x", "400", "DROP has no plan"},
        }) {
      JsonNode error = refusal(each[0]);
      assertThat(error.path("status").asText()).as(each[0]).isEqualTo(each[1]);
      assertThat(error.path("error").path("message").asText())
          .contains(each[2])
          .doesNotContain("\n", "Exception", "org.apache", "java.");
    }
  }

  private static JsonNode refusal(String statement) {
    Client.Answer answer =
        node.client()
            .exchange(
                "POST",
                "/api/sql",
                Map.of("Content-Type", "application/json"),
                Json.write(Map.of("statement", statement)),
                400,
                404,
                500);
    return ((ObjectNode) Json.read(answer.body(), JsonNode.class)).put("status", answer.status());
  }

  @Test
  void aJdbcTransactionCommitsOrRollsBack() throws SQLException {
    try (Connection connection = connect(node.key());
        Connection other = connect(node.key());
        Statement statement = connection.createStatement();
        Statement elsewhere = other.createStatement()) {
      statement.executeUpdate("CREATE TABLE jdbc_tx (id INT PRIMARY KEY, n INT)");
      statement.executeUpdate("INSERT INTO jdbc_tx VALUES (1, 1)");
      connection.setAutoCommit(false);
      statement.executeUpdate("UPDATE jdbc_tx SET n = 2");
      assertThat(n(statement)).isEqualTo(2);
      assertThat(n(elsewhere)).isEqualTo(1);
      connection.rollback();
      assertThat(n(statement)).isEqualTo(1);
      statement.executeUpdate("UPDATE jdbc_tx SET n = 3");
      connection.commit();
      assertThat(n(elsewhere)).isEqualTo(3);
      assertThatThrownBy(() -> statement.executeUpdate("INSERT INTO jdbc_tx VALUES (1, 1)"))
          .isInstanceOfSatisfying(
              SQLException.class, e -> assertThat(e.getSQLState()).isEqualTo("23505"));
      assertThatThrownBy(() -> statement.executeUpdate("UPDATE jdbc_tx SET n = 4"))
          .isInstanceOfSatisfying(
              SQLException.class, e -> assertThat(e.getSQLState()).isEqualTo("25P02"));
      connection.rollback();
      statement.executeUpdate("UPDATE jdbc_tx SET n = 4");
      connection.setAutoCommit(true);
      // The driver tells the server with the connection's next statement.
      assertThat(n(statement)).isEqualTo(4);
      assertThat(n(elsewhere)).isEqualTo(4);
    }
  }

  private static int n(Statement statement) throws SQLException {
    try (ResultSet rows = statement.executeQuery("SELECT n FROM jdbc_tx")) {
      rows.next();
      return rows.getInt(1);
    }
  }

  @Test
  void aWrongKeyIsRefusedOverJdbcToo() {
    assertThatThrownBy(() -> connect("fk-wrong").createStatement()).hasStackTraceContaining("401");
  }
}

package dev.flotilla.data.sql;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.catchThrowableOfType;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** What wrong statements are answered with, and rows whose key is all there is, or not there. */
class SqlErrorsTest {

  @TempDir static Path folder;

  private static TestSql grids;
  private static TestSql.Node node;

  @BeforeAll
  static void start() {
    grids = new TestSql(folder);
    node = grids.add();
    node.sql()
        .execute(
            "CREATE TABLE acct (id INT PRIMARY KEY, name VARCHAR(5), n INT NOT NULL,"
                + " d DECIMAL(4, 2), ts TIMESTAMP, u UUID)");
    node.sql().execute("CREATE TABLE pair (a INT, b VARCHAR, n INT, PRIMARY KEY (a, b))");
    node.sql().execute("INSERT INTO acct (id, n) VALUES (1, 1)");
    node.sql().execute("INSERT INTO pair VALUES (1, 'x', 1)");
    node.sql().execute("CREATE INDEX acct_n ON acct (n)");
  }

  @AfterAll
  static void stop() {
    grids.close();
  }

  private record Wrong(
      Code code, String words, String statement, List<@Nullable Object> arguments) {}

  private static Wrong wrong(Code code, String words, String statement, Object... arguments) {
    return new Wrong(code, words, statement, new ArrayList<>(List.of(arguments)));
  }

  private static final List<Wrong> WRONG =
      List.of(
          wrong(
              Code.INVALID,
              "column 1: no statement begins with SELEC. Did you mean SELECT?",
              "SELEC 1"),
          wrong(Code.INVALID, "line 1, column 6: the statement ends too early", "SELECT"),
          wrong(Code.INVALID, "ends too early, after FROM", "SELECT 1 FROM"),
          wrong(Code.INVALID, "ends too early, after (1", "SELECT (1"),
          wrong(Code.INVALID, "line 1, column 15: acct is not expected", "SELECT * FORM acct"),
          wrong(Code.INVALID, "line 2, column 3: ) is not expected", "SELECT\n 1)"),
          wrong(Code.INVALID, "column 8: the quote ' is never closed", "SELECT 'abc"),
          wrong(Code.INVALID, "column 8: the quote \" is never closed", "SELECT \"abc"),
          wrong(Code.INVALID, "column 9: # is not expected", "SELECT #"),
          wrong(Code.INVALID, "column 8: X is not expected", "SELECT X'zz'"),
          wrong(Code.INVALID, "something is wrong near LIMIT", "SELECT id FROM acct LIMIT 'a'"),
          wrong(
              Code.INVALID, "something is wrong near TABLE select", "CREATE TABLE select (id INT)"),
          wrong(Code.INVALID, "column 9: something follows the semicolon", "SELECT 1; SELECT 2"),
          wrong(
              Code.INVALID,
              "CREATE has no plan",
              "EXPLAIN PLAN FOR CREATE TABLE x (id INT PRIMARY KEY)"),
          wrong(Code.INVALID, "DROP has no plan", "EXPLAIN DROP TABLE acct"),
          wrong(Code.INVALID, "Write EXPLAIN PLAN FOR", "EXPLAIN SELECT 1"),
          wrong(Code.INVALID, "TRUNCATE is not offered. Use DELETE", "TRUNCATE TABLE acct"),
          wrong(Code.INVALID, "BEGIN is not offered", "BEGIN"),
          wrong(Code.INVALID, "COMMIT is not offered. Transactions", "COMMIT"),
          wrong(Code.INVALID, "CREATE VIEW is not offered", "CREATE VIEW v AS SELECT 1"),
          wrong(
              Code.INVALID,
              "this form of ALTER TABLE is not offered. It takes ADD COLUMN",
              "ALTER TABLE acct NOLOGGING"),
          wrong(
              Code.INVALID,
              "the statement cannot be planned",
              "WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT * FROM r"),
          wrong(
              Code.INVALID,
              "a table cannot be called FLOTILLA_X",
              "CREATE TABLE flotilla_x (id INT PRIMARY KEY)"),
          wrong(
              Code.INVALID,
              "a table cannot be called ACCT__2",
              "CREATE TABLE acct__2 (id INT PRIMARY KEY)"),
          wrong(
              Code.INVALID,
              "a table cannot be called ACCT__3",
              "CREATE TABLE acct__3 (id INT PRIMARY KEY) SHARD BY HASH (id) INTO 8"),
          wrong(
              Code.INVALID,
              "table FLOTILLA_JOB_ROWS is Flotilla's own. It can be read",
              "DELETE FROM flotilla_job_rows"),
          wrong(
              Code.INVALID,
              "is Flotilla's own",
              "INSERT INTO PUBLIC.flotilla_job_rows (id) VALUES ('x')"),
          wrong(Code.INVALID, "is Flotilla's own", "UPDATE flotilla_job_rows SET data = 'x'"),
          wrong(Code.INVALID, "is Flotilla's own", "DROP TABLE flotilla_job_rows"),
          wrong(Code.INVALID, "is Flotilla's own", "CREATE INDEX i ON flotilla_job_rows (data)"),
          wrong(
              Code.INVALID, "is Flotilla's own", "ALTER TABLE flotilla_job_rows ADD COLUMN x INT"),
          wrong(Code.INVALID, "KILL is not offered", "KILL QUERY '1'"),
          wrong(Code.INVALID, "SHOW is not offered", "SHOW TABLES"),
          wrong(Code.NOT_FOUND, "line 1, column 15: there is no table NOPE", "SELECT * FROM nope"),
          wrong(Code.NOT_FOUND, "column 13: there is no table NOPE", "INSERT INTO nope VALUES (1)"),
          wrong(Code.NOT_FOUND, "there is no table NOPE", "DROP TABLE nope"),
          wrong(Code.NOT_FOUND, "there is no index NOPE", "DROP INDEX nope"),
          wrong(Code.NOT_FOUND, "there is no column NOPE", "ALTER TABLE acct DROP COLUMN nope"),
          wrong(
              Code.INVALID,
              "line 3, column 3: there is no column NOPE",
              "\nSELECT id,\n  nope FROM acct"),
          wrong(Code.INVALID, "A has no column NOPE", "SELECT a.nope FROM acct a"),
          wrong(Code.INVALID, "column 17: there is no column NOPE", "UPDATE acct SET nope = 1"),
          wrong(Code.INVALID, "names no table or alias Z", "SELECT z.id FROM acct a"),
          wrong(
              Code.INVALID,
              "column ID is in several tables",
              "SELECT id FROM acct a JOIN acct b ON a.id = b.id"),
          wrong(Code.INVALID, "there is no function NOFUNCTION", "SELECT nofunction(1)"),
          wrong(Code.INVALID, "function ABS takes 1 arguments", "SELECT ABS(1, 2)"),
          wrong(Code.INVALID, "ID is neither grouped", "SELECT id, COUNT(*) FROM acct"),
          wrong(
              Code.INVALID,
              "differ in their number of columns",
              "SELECT id FROM acct UNION SELECT id, n FROM acct"),
          wrong(Code.INVALID, "has several columns", "SELECT (SELECT id, n FROM acct)"),
          wrong(
              Code.INVALID,
              "returned several rows",
              "SELECT id FROM acct WHERE id = (SELECT 1 UNION ALL SELECT 2)"),
          wrong(Code.INVALID, "cannot be planned", "SELECT * FROM acct WHERE id = TRUE"),
          wrong(Code.INVALID, "division by zero", "SELECT n / 0 FROM acct"),
          wrong(Code.INVALID, "division by zero", "UPDATE acct SET n = 1 / ?", 0),
          wrong(Code.INVALID, "a text that is no number", "SELECT CAST('abc' AS INT)"),
          wrong(
              Code.INVALID,
              "a text that is no number",
              "INSERT INTO acct (id, n) VALUES (?, 1)",
              "abc"),
          wrong(
              Code.INVALID,
              "too large for the type INTEGER",
              "INSERT INTO acct (id, n) VALUES (2, 99999999999)"),
          wrong(
              Code.INVALID,
              "'nouuid' is no UUID",
              "INSERT INTO acct (id, n, u) VALUES (2, 1, 'nouuid')"),
          wrong(
              Code.INVALID,
              "'yesterday' is no date or time",
              "INSERT INTO acct (id, n, ts) VALUES (2, 1, 'yesterday')"),
          wrong(
              Code.INVALID,
              "type VARCHAR stands where TIMESTAMP",
              "INSERT INTO acct (id, n, ts) VALUES (2, 1, ?)",
              "soon"),
          wrong(
              Code.INVALID,
              "there is no date or time '2026-99-99'",
              "SELECT CAST('2026-99-99' AS DATE)"),
          wrong(
              Code.INVALID,
              "column N takes INTEGER, but the value is VARCHAR",
              "UPDATE acct SET n = 'abc'"),
          wrong(
              Code.INVALID,
              "column NAME has a length of 8, more than the 5",
              "INSERT INTO acct (id, name, n) VALUES (2, 'abcdefgh', 1)"),
          wrong(
              Code.INVALID,
              "more digits than its column",
              "INSERT INTO acct (id, n, d) VALUES (2, 1, 12345.678)"),
          wrong(Code.INVALID, "column N of table ACCT cannot be NULL", "UPDATE acct SET n = NULL"),
          wrong(Code.INVALID, "is into 6 columns, but gives 1", "INSERT INTO acct VALUES (1)"),
          wrong(
              Code.INVALID,
              "2 question marks, but 1 argument came",
              "INSERT INTO acct (id, n) VALUES (?, ?)",
              1),
          wrong(Code.INVALID, "1 question mark, but 2 arguments came", "SELECT ?", 1, 2),
          wrong(
              Code.CONFLICT, "there already: 1. Nothing", "INSERT INTO acct (id, n) VALUES (1, 1)"),
          wrong(Code.CONFLICT, "there already: (A=1, B=x)", "INSERT INTO pair VALUES (1, 'x', 1)"),
          wrong(
              Code.CONFLICT,
              "there already: (A=1, B=x)",
              "INSERT INTO pair SELECT a, b, n FROM pair"),
          wrong(
              Code.CONFLICT,
              "there is a table ACCT already",
              "CREATE TABLE acct (id INT PRIMARY KEY)"),
          wrong(
              Code.CONFLICT, "there is an index ACCT_N already", "CREATE INDEX acct_n ON acct (n)"),
          wrong(Code.CONFLICT, "there is a column N already", "ALTER TABLE acct ADD COLUMN n INT"),
          wrong(
              Code.INVALID,
              "ID belongs to the primary key, which cannot be changed",
              "UPDATE acct SET id = 7"),
          wrong(
              Code.INVALID,
              "ID belongs to the primary key, and cannot be dropped",
              "ALTER TABLE acct DROP COLUMN id"),
          wrong(Code.INVALID, "index ACCT_N is on column N", "ALTER TABLE acct DROP COLUMN n"),
          wrong(
              Code.INVALID, "there is no type NOTYPE", "CREATE TABLE bad (id NOTYPE PRIMARY KEY)"),
          wrong(
              Code.INVALID,
              "two columns ID",
              "CREATE TABLE bad (id INT, id INT, PRIMARY KEY (id))"),
          wrong(
              Code.INVALID,
              "more than one primary key",
              "CREATE TABLE bad (id INT PRIMARY KEY, PRIMARY KEY (id))"),
          wrong(
              Code.INVALID,
              "primary key names column NOPE",
              "CREATE TABLE bad (id INT, PRIMARY KEY (nope))"),
          wrong(
              Code.INVALID,
              "there is no option NOPE",
              "CREATE TABLE bad (id INT PRIMARY KEY) WITH \"nope=0\""),
          wrong(
              Code.INVALID,
              "column 45: expected HASH, RANGE or LIST, but there is NOPE",
              "CREATE TABLE r (k INT PRIMARY KEY) SHARD BY NOPE (k)"),
          wrong(
              Code.INVALID,
              "a is not a value of type INTEGER",
              "CREATE TABLE r (k INT PRIMARY KEY) SHARD BY RANGE (k) SPLIT AT ('a')"));

  @Test
  void everyWrongStatementIsAnsweredWithOneLineThatSaysWhatIsWrong() {
    for (Wrong each : WRONG) {
      FlotillaException e =
          catchThrowableOfType(
              FlotillaException.class,
              () -> node.sql().execute(each.statement(), each.arguments().toArray()));
      assertThat(e).as(each.statement()).isNotNull();
      assertThat(e.explanation()).as(each.statement()).contains(each.words());
      assertThat(e.explanation())
          .as(each.statement())
          .doesNotContain("\n", "..", "idHash", "Exception", "org.apache", "java.", "null", "<EOF>")
          .hasSizeLessThan(400);
      assertThat(e.remedy()).as(each.statement()).isNotEmpty();
      assertThat(e.code()).as(each.statement()).isEqualTo(each.code());
    }
    assertThat(node.sql().execute("SELECT COUNT(*) FROM acct").rows())
        .isEqualTo(List.of(List.of(1L)));
    assertThat(node.sql().execute("SELECT COUNT(*) FROM pair").rows())
        .isEqualTo(List.of(List.of(1L)));
  }

  @Test
  void aTableWhoseColumnsAreAllInTheKeyTakesPlainInserts() {
    GridSql sql = node.sql();
    sql.execute("CREATE TABLE member (team VARCHAR, person VARCHAR, PRIMARY KEY (team, person))");
    sql.execute("CREATE TABLE alone (id INT PRIMARY KEY)");
    assertThat(sql.execute("INSERT INTO member VALUES ('a', 'b'), ('a', ?)", "c").updated())
        .isEqualTo(2);
    sql.execute("INSERT INTO member SELECT 'a', 'd'");
    sql.execute("INSERT INTO alone VALUES (1)");
    sql.execute(
        "MERGE INTO member m USING (SELECT 'a' AS t, 'e' AS p) s ON m.team = s.t AND m.person = s.p"
            + " WHEN NOT MATCHED THEN INSERT VALUES (s.t, s.p)");
    node.transactions()
        .<Object>run(
            Transactions.Mode.PESSIMISTIC,
            t -> {
              t.sql("INSERT INTO member VALUES ('a', 'f')");
              return t.sql("INSERT INTO alone VALUES (2)");
            });
    SqlResult members = sql.execute("SELECT * FROM member ORDER BY person");
    assertThat(members.columns())
        .extracting(SqlResult.Column::name)
        .containsExactly("TEAM", "PERSON");
    assertThat(members.rows()).extracting(List::getLast).containsExactly("b", "c", "d", "e", "f");
    assertThat(sql.execute("SELECT * FROM alone ORDER BY id").rows())
        .isEqualTo(List.of(List.of(1), List.of(2)));
    assertThat(sql.execute("EXPLAIN PLAN FOR INSERT INTO alone VALUES (3)").rows()).hasSize(1);
    assertThat(sql.execute("DELETE FROM member WHERE team = 'a' AND person = 'b'").updated())
        .isEqualTo(1);
  }

  private static void refused(String column, String table, String statement, Object... arguments) {
    assertThatThrownBy(() -> node.sql().execute(statement, arguments))
        .as(statement)
        .isInstanceOfSatisfying(
            FlotillaException.class, e -> assertThat(e.code()).isEqualTo(Code.INVALID))
        .hasMessageContaining(column)
        .hasMessageContaining(table)
        .hasMessageContaining("cannot be NULL");
  }

  @Test
  @SuppressWarnings("NullAway") // NULL is what is refused.
  void noPartOfAKeyCanBeNull() {
    GridSql sql = node.sql();
    sql.execute(
        "CREATE TABLE parts (a VARCHAR(5), b DECIMAL(4, 2), c INT NOT NULL, v INT,"
            + " PRIMARY KEY (a, b, c))");
    sql.execute("CREATE TABLE single (id BIGINT PRIMARY KEY, v INT)");
    sql.execute("INSERT INTO parts VALUES ('a', 1, 1, 1)");
    Object[] none = {null};
    refused("column A", "table PARTS", "INSERT INTO parts VALUES (NULL, 1, 1, 1)");
    refused("column A", "table PARTS", "INSERT INTO parts VALUES (?, 1, 1, 1)", none);
    refused("column B", "table PARTS", "INSERT INTO parts (a, c, v) VALUES ('a', 1, 1)");
    refused(
        "column B", "table PARTS", "INSERT INTO parts VALUES ('b', 1, 1, 1), ('a', ?, 1, 1)", none);
    refused(
        "column B",
        "table PARTS",
        "INSERT INTO parts SELECT 'n', CASE WHEN c = 1 THEN NULL ELSE b END, c, v FROM parts");
    refused(
        "column B",
        "table PARTS",
        "MERGE INTO parts p USING (SELECT 'm' AS a, 9 AS c) s ON p.a = s.a"
            + " WHEN NOT MATCHED THEN INSERT (a, b, c) VALUES (s.a, NULL, s.c)");
    refused("column ID", "table SINGLE", "INSERT INTO single VALUES (NULL, 1)");
    refused("column ID", "table SINGLE", "INSERT INTO single VALUES (?, 1)", none);
    refused("column ID", "table SINGLE", "INSERT INTO single (v) VALUES (1)");
    refused(
        "column ID",
        "table SINGLE",
        "INSERT INTO single SELECT v, v FROM parts WHERE FALSE UNION ALL SELECT CAST(NULL AS INT), 1");
    assertThat(sql.execute("SELECT a FROM parts").rows()).isEqualTo(List.of(List.of("a")));
    assertThat(sql.execute("SELECT * FROM single").rows()).isEmpty();
  }

  @Test
  @SuppressWarnings("NullAway") // NULL is what is refused.
  void aSplitTableKeepsWhatItsColumnsMustHave() {
    GridSql sql = node.sql();
    sql.execute(
        "CREATE TABLE ranged (k INT, j VARCHAR, v INT NOT NULL, PRIMARY KEY (k, j))"
            + " SHARD BY RANGE (k) SPLIT AT (10)");
    sql.execute("ALTER TABLE ranged SPLIT SHARD AT (5)");
    Object[] none = {null};
    refused("column J", "table RANGED", "INSERT INTO ranged VALUES (1, ?, 1)", none);
    refused("column V", "table RANGED", "INSERT INTO ranged VALUES (1, 'j', ?)", none);
    // The engine knows the table by another name now, which is longer.
    assertThatThrownBy(() -> sql.execute("SELECT k FROM ranged WHERE nope = 1"))
        .hasMessageContaining("line 1, column 28: there is no column NOPE");
    assertThat(sql.execute("SELECT * FROM ranged").rows()).isEmpty();
  }

  @Test
  void aKeyThatCannotBeNullStillLocksOnlyItsOwnRows() {
    node.sql().execute("CREATE TABLE locked (id INT PRIMARY KEY, n INT)");
    node.sql().execute("INSERT INTO locked VALUES (1, 1)");
    String id =
        node.transactions()
            .run(
                Transactions.Mode.PESSIMISTIC,
                t -> {
                  t.sql("UPDATE locked SET n = 2 WHERE id = 1");
                  return t.id();
                });
    assertThat(node.transactions().find(id).orElseThrow().steps().toString())
        .contains("locked LOCKED partitions [");
  }
}

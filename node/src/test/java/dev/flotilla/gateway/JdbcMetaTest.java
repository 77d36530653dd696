package dev.flotilla.gateway;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatExceptionOfType;

import dev.flotilla.data.sql.Migration;
import dev.flotilla.data.sql.Sql;
import dev.flotilla.data.sql.SqlResult;
import dev.flotilla.data.sql.Transactions;
import java.lang.reflect.Proxy;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;
import org.apache.calcite.avatica.Meta;
import org.apache.calcite.avatica.remote.AvaticaRuntimeException;
import org.junit.jupiter.api.Test;

class JdbcMetaTest {

  private static final int NUMBERS = 3_000;

  /** Of a row's one number. */
  private static final int ROW_BYTES = 24;

  private static final int FIRST_FRAME = 100;

  /** Every query has the same result. */
  private static final class Numbers implements Sql {
    @Override
    public SqlResult execute(Request request, Cancel cancel) {
      return new SqlResult(
          describe(request.statement()),
          IntStream.range(0, NUMBERS).mapToObj(i -> List.<Object>of(i)).toList(),
          0,
          false);
    }

    @Override
    public List<SqlResult.Column> describe(String statement) {
      return List.of(new SqlResult.Column("N", "INTEGER"));
    }

    @Override
    public List<Table> tables() {
      return List.of();
    }

    @Override
    public List<Migration.Applied> migrate(List<Migration> migrations) {
      throw new AssertionError("not asked for here");
    }

    @Override
    public List<Migration.Applied> migrations() {
      return List.of();
    }
  }

  private static final Transactions NONE =
      (Transactions)
          Proxy.newProxyInstance(
              JdbcMetaTest.class.getClassLoader(),
              new Class<?>[] {Transactions.class},
              (proxy, method, arguments) -> {
                throw new AssertionError("not asked for here");
              });

  private final JdbcMeta meta =
      new JdbcMeta(new Numbers(), NONE, System::nanoTime, "1", NUMBERS * ROW_BYTES * 3 / 2);

  private Meta.StatementHandle prepared(String connection) {
    return meta.prepare(new Meta.ConnectionHandle(connection), "SELECT n FROM numbers", -1);
  }

  private Meta.Frame begun(Meta.StatementHandle statement) throws Exception {
    return meta.execute(statement, List.of(), FIRST_FRAME).resultSets.getFirst().firstFrame;
  }

  private void assertNoRoom(Meta.StatementHandle statement) {
    assertThatExceptionOfType(AvaticaRuntimeException.class)
        .isThrownBy(() -> begun(statement))
        .satisfies(
            e ->
                assertThat(e.getErrorMessage())
                    .contains("too many rows wait on this node to be fetched"));
  }

  private static int count(Meta.Frame frame) {
    int[] rows = {0};
    frame.rows.forEach(row -> rows[0]++);
    return rows[0];
  }

  @Test
  void rowsThatNobodyFetchesAreBoundedAndWhatIsFetchedOrClosedMakesRoom() throws Exception {
    meta.openConnection(new Meta.ConnectionHandle("one"), Map.of());
    meta.openConnection(new Meta.ConnectionHandle("two"), Map.of());
    Meta.StatementHandle first = prepared("one");
    Meta.StatementHandle second = prepared("two");
    Meta.Frame frame = begun(first);
    assertThat(frame.done).isFalse();
    assertNoRoom(second);

    int seen = count(frame);
    while (!frame.done) {
      frame = meta.fetch(first, seen, 1_000);
      seen += count(frame);
    }
    assertThat(seen).isEqualTo(NUMBERS);

    assertThat(begun(second).done).isFalse();
    assertNoRoom(first);
    meta.closeStatement(second);
    assertThat(begun(first).done).isFalse();
    // The same statement again lets go of what it had.
    assertThat(begun(first).done).isFalse();
    meta.closeConnection(new Meta.ConnectionHandle("one"));
    assertThat(begun(prepared("two")).done).isFalse();
  }
}

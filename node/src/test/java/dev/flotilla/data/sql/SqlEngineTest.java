package dev.flotilla.data.sql;

import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.FlotillaException;
import java.util.NoSuchElementException;
import javax.cache.CacheException;
import org.apache.ignite.IgniteCheckedException;
import org.apache.ignite.internal.processors.cache.query.IgniteQueryErrorCode;
import org.apache.ignite.internal.processors.query.IgniteSQLException;
import org.apache.ignite.internal.processors.query.calcite.schema.IgniteStatisticsImpl;
import org.apache.ignite.spi.IgniteSpiOperationTimeoutException;
import org.junit.jupiter.api.Test;

class SqlEngineTest {

  private static RuntimeException said(RuntimeException thrown) {
    String statement = "SELECT 1";
    return SqlEngine.said(
        thrown, Sql.Request.of(statement), SqlErrors.About.of(SqlText.of(statement)));
  }

  @Test
  void whatBreaksThePlannerBecauseTheEngineStopsIsTriedAgain() {
    RuntimeException stopping =
        new RuntimeException(
            "Error while applying rule",
            new IllegalStateException("Failed to execute task due to grid shutdown"));
    assertThat(said(stopping)).isInstanceOf(SqlEngine.RetryOnStableTopology.class);
    RuntimeException unreachable =
        new RuntimeException("Error", new IgniteCheckedException("Remote node does not observe"));
    assertThat(said(unreachable)).isInstanceOf(SqlEngine.RetryOnStableTopology.class);
    NullPointerException closing = new NullPointerException("sizeLong");
    closing.setStackTrace(
        new StackTraceElement[] {
          new StackTraceElement(IgniteStatisticsImpl.class.getName(), "refresh", "", 1)
        });
    assertThat(said(closing)).isInstanceOf(SqlEngine.RetryOnStableTopology.class);
  }

  @Test
  void aHandshakeThatTookTooLongIsNotTheStatementsMistake() {
    Throwable late = new IgniteSpiOperationTimeoutException("Failed to perform handshake");
    RuntimeException thrown =
        new CacheException(new IgniteSQLException("Failed", IgniteQueryErrorCode.UNKNOWN, late));
    assertThat(said(thrown)).isInstanceOf(SqlEngine.RetryOnStableTopology.class);
  }

  @Test
  void whatThePlannerIsNotMadeForIsTheStatementsMistake() {
    assertThat(said(new NoSuchElementException("no such type")))
        .isInstanceOfSatisfying(
            FlotillaException.class,
            e -> assertThat(e.code()).isEqualTo(FlotillaException.Code.INVALID));
  }
}

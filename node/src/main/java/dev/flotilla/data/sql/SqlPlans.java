package dev.flotilla.data.sql;

import java.util.List;
import org.apache.calcite.schema.SchemaPlus;
import org.apache.calcite.sql.SqlNode;
import org.apache.ignite.Ignite;
import org.apache.ignite.IgniteException;
import org.apache.ignite.cache.query.SqlFieldsQuery;
import org.apache.ignite.internal.GridKernalContext;
import org.apache.ignite.internal.IgniteEx;
import org.apache.ignite.internal.processors.cache.distributed.near.GridNearTxLocal;
import org.apache.ignite.internal.processors.query.QueryContext;
import org.apache.ignite.internal.processors.query.calcite.CalciteQueryProcessor;
import org.apache.ignite.internal.processors.query.calcite.RootQuery;
import org.apache.ignite.internal.processors.query.calcite.prepare.CacheKey;
import org.apache.ignite.internal.processors.query.calcite.util.Commons;

/**
 * Plans a transaction's statements before they run.
 *
 * <p>The engine's planner asks all nodes how large the tables are, and they answer only when the
 * topology has settled; a topology that changes, in turn, waits for the transactions that run. So a
 * statement that is planned while it runs, under locks, would wait for itself, and the whole
 * cluster with it. Planned here it can still be rolled back ({@link TransactionWatch}); the
 * execution then finds the plan in the engine's cache.
 */
final class SqlPlans {

  private static final String SCHEMA = "PUBLIC";

  /** What the engine distinguishes plans by: local, the order of joins kept, no transaction. */
  private static final List<Boolean> IN_TRANSACTION = List.of(false, false, false);

  private SqlPlans() {}

  /**
   * Plans a statement of this thread's transaction, unless the engine knows its plan.
   *
   * @param query as it will be executed
   * @throws IgniteException if it is no statement, or the transaction has been rolled back
   */
  static void plan(Ignite ignite, SqlFieldsQuery query) {
    GridKernalContext context = ((IgniteEx) ignite).context();
    CalciteQueryProcessor calcite = Commons.lookupComponent(context, CalciteQueryProcessor.class);
    Object[] arguments = query.getArgs() == null ? new Object[0] : query.getArgs();
    CacheKey key = new CacheKey(SCHEMA, query.getSql(), IN_TRANSACTION, arguments);
    if (calcite.queryPlanCache().queryPlan(key) != null) {
      return;
    }
    GridNearTxLocal transaction = context.cache().context().tm().userTx();
    if (transaction == null) {
      throw new IgniteException("the transaction has been rolled back");
    }
    SqlNode statement =
        Commons.parse(query.getSql(), calcite.frameworkConfig().getParserConfig()).get(0);
    SchemaPlus schema = calcite.schemaHolder().schema(SCHEMA);
    RootQuery<Object[]> planned =
        new RootQuery<>(
            query.getSql(),
            schema,
            arguments,
            QueryContext.of(query, transaction.xidVersion()),
            false,
            false,
            null,
            calcite.exchangeService(),
            (_, _) -> {},
            context.log(SqlPlans.class),
            query.getTimeout(),
            query.getTimeout());
    var _ =
        calcite
            .queryPlanCache()
            .queryPlan(
                key,
                () -> calcite.prepareService().prepareSingle(statement, planned.planningContext()));
  }
}

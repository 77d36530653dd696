package dev.flotilla.data.sql;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.Names;
import dev.flotilla.data.grid.Environment;
import dev.flotilla.data.grid.Grid;
import dev.flotilla.data.grid.Grid.TransactionMode;
import dev.flotilla.data.grid.TransactionScope;
import io.micrometer.core.instrument.MeterRegistry;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.time.Duration;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.Locale;
import java.util.Objects;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Function;
import javax.cache.expiry.CreatedExpiryPolicy;
import org.apache.ignite.Ignite;
import org.apache.ignite.IgniteException;
import org.apache.ignite.transactions.TransactionConcurrency;
import org.apache.ignite.transactions.TransactionIsolation;
import org.jspecify.annotations.Nullable;

/** Transactions on the grid. */
public final class GridTransactions implements Transactions, AutoCloseable {

  /** Runs the steps of caches and queues, in this thread's transaction. */
  @FunctionalInterface
  interface Steps {
    StepResult run(Step step);
  }

  private static final String RECORDS = "flotilla.transactions";
  private static final Duration RECORD_TIME = Duration.ofDays(1);
  private static final int RECORD_BYTES_MAX = 64 << 10;
  private static final int STEPS_MAX = 1_000;
  private static final long RETRY_NS = 10_000_000_000L;
  private static final long SETTLE_NS = 15_000_000_000L;

  /**
   * The one this thread is in, for SQL; {@link TransactionScope} is the other parts' view of it.
   */
  private static final ThreadLocal<@Nullable Bound> RUNNING = new ThreadLocal<>();

  private final Environment environment;
  private final Grid grid;
  private final GridSharding sharding;
  private final TransactionLog log;
  private final InstantSource clock;
  private final MeterRegistry metrics;
  private final TransactionSessions sessions;
  private final TransactionWatch watch;
  private volatile Steps otherSteps =
      step -> {
        throw new FlotillaException(
            Code.INVALID, "this node takes no steps of caches and queues", "Use SQL.");
      };

  public GridTransactions(Environment environment, Grid grid, GridSharding sharding) {
    this.environment = environment;
    this.grid = grid;
    this.sharding = sharding;
    this.clock = environment.clock();
    this.metrics = environment.metrics();
    this.log = new TransactionLog(environment.cluster(), clock);
    this.watch = new TransactionWatch(environment.nanoTime());
    this.sessions = new TransactionSessions(this, environment.nanoTime());
    grid.onStart(
        ignite -> {
          SqlLocks.start(grid, ignite);
          ignite.getOrCreateCache(grid.<String, byte[]>cacheConfig(RECORDS));
        });
  }

  /** Who runs the steps of caches and queues. */
  public void steps(Steps steps) {
    otherSteps = steps;
  }

  private String newId() {
    byte[] bytes = new byte[9];
    environment.random().nextBytes(bytes);
    return "tx-" + Long.toString(clock.millis(), 36) + "-" + HexFormat.of().formatHex(bytes);
  }

  @Override
  public <T> T run(Options options, Function<Transaction, T> body) {
    return attempt(newId(), options, body);
  }

  @Override
  public <T> Optional<T> runOnce(String id, Options options, Function<Transaction, T> body) {
    checkId(id);
    return recorded(id, "", options, transaction -> Optional.of(body.apply(transaction)), _ -> "")
        .orElse(Optional.empty());
  }

  private static void checkId(String id) {
    Names.check("a transaction", id);
  }

  @Override
  public Outcome run(Options options, List<Step> steps, Optional<String> id) {
    if (steps.isEmpty() || steps.size() > STEPS_MAX) {
      throw new FlotillaException(
          Code.INVALID,
          "a transaction of " + steps.size() + " steps",
          "Send from 1 to " + STEPS_MAX + ".");
    }
    id.ifPresent(GridTransactions::checkId);
    String name = id.orElseGet(this::newId);
    Function<Transaction, Outcome> body =
        transaction -> {
          List<StepResult> results = new ArrayList<>();
          for (int i = 0; i < steps.size(); i++) {
            results.add(step(transaction, steps.get(i), "step " + (i + 1) + ": "));
          }
          return new Outcome(name, results, false);
        };
    if (id.isEmpty()) {
      return retried(options, () -> attempt(name, options, body));
    }
    String digest = digest(steps);
    return retried(
        options,
        () ->
            recorded(
                    name,
                    digest,
                    options,
                    body,
                    outcome -> TransactionJson.results(outcome.results()).toString())
                .orElseGet(() -> first(name, digest)));
  }

  /** Tells lists of steps apart. */
  private static String digest(List<Step> steps) {
    try {
      MessageDigest digest = MessageDigest.getInstance("SHA-256");
      steps.forEach(step -> digest.update(Json.write(TransactionJson.toJson(step))));
      return HexFormat.of().formatHex(digest.digest());
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException("every JDK has SHA-256", e);
    }
  }

  /** What the first run of this id brought. */
  private Outcome first(String id, String digest) {
    JsonNode record =
        record(id)
            .orElseThrow(
                () ->
                    new FlotillaException(
                        Code.UNAVAILABLE,
                        "the record of transaction " + id + " went while it was read",
                        "Try again."));
    if (record.has("digest") && !record.path("digest").asText().equals(digest)) {
      throw new FlotillaException(
          Code.CONFLICT,
          "transaction " + id + " has been done, with other steps than these",
          "Nothing was done now. Give what is new an id of its own.");
    }
    List<StepResult> results = List.of();
    String text = record.path("results").asText();
    if (!text.isEmpty()) {
      results =
          TransactionJson.results(Json.read(text.getBytes(StandardCharsets.UTF_8), JsonNode.class));
    }
    return new Outcome(id, results, true);
  }

  /** Runs a step; an error says which. */
  StepResult step(Transaction transaction, Step step, String which) {
    try {
      return step instanceof Step.Statement statement
          ? new StepResult(
              Optional.of(transaction.sql(statement.statement(), statement.arguments().toArray())),
              Optional.empty())
          : otherSteps.run(step);
    } catch (FlotillaException e) {
      throw new FlotillaException(e.code(), which + e.getMessage(), e.remedy(), e);
    }
  }

  /** One statement as a transaction of its own. */
  SqlResult autocommit(Sql.Request request, Sql.Cancel cancel) {
    Options options = new Options(Mode.PESSIMISTIC, request.timeout());
    return retried(
        options,
        () -> attempt(newId(), options, transaction -> ((Bound) transaction).sql(request, cancel)));
  }

  /** Again, while a node that left or came makes the engine refuse; nothing was done then. */
  private <T> T retried(Options options, java.util.function.Supplier<T> run) {
    long deadlineNs =
        environment.nanoTime().getAsLong() + Math.min(RETRY_NS, options.timeout().toNanos());
    while (true) {
      try {
        return run.get();
      } catch (FlotillaException e) {
        if (!(e.getCause() instanceof SqlEngine.RetryOnStableTopology)
            || environment.nanoTime().getAsLong() > deadlineNs) {
          throw e;
        }
        pause(100);
      }
    }
  }

  private static void pause(long ms) {
    try {
      Thread.sleep(ms);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new FlotillaException(Code.FAILED, "interrupted", "", e);
    }
  }

  /** Empty if a run with this id had committed before. */
  private <T> Optional<T> recorded(
      String id,
      String digest,
      Options options,
      Function<Transaction, T> body,
      Function<T, String> results) {
    try {
      return attempt(
          id,
          options,
          transaction -> {
            var records = ((Bound) transaction).ignite.<String, byte[]>cache(RECORDS);
            TransactionLog.Entry entry = ((Bound) transaction).entry();
            if (records.get(id) != null) {
              entry.repeats();
              return Optional.<T>empty();
            }
            T result = body.apply(transaction);
            entry.look(((Bound) transaction).ignite);
            String text = results.apply(result);
            ObjectNode record =
                Json.MAPPER
                    .createObjectNode()
                    .put("node", environment.cluster().self())
                    .put("mode", options.mode().name())
                    .put("digest", digest)
                    .put("results", text.length() > RECORD_BYTES_MAX ? "" : text);
            entry.describe(record);
            records
                .withExpiryPolicy(
                    new CreatedExpiryPolicy(
                        new javax.cache.expiry.Duration(
                            java.util.concurrent.TimeUnit.SECONDS, RECORD_TIME.toSeconds())))
                .put(id, Json.write(record));
            return Optional.of(result);
          });
    } catch (FlotillaException e) {
      if (e.code() != Code.OUTCOME_UNKNOWN) {
        throw e;
      }
      return settle(id, e);
    }
  }

  /**
   * Finds out what became of a recorded one: its record's key stays locked until the engine has
   * resolved it, so that who reads it under a lock knows.
   */
  private <T> Optional<T> settle(String id, FlotillaException unknown) {
    long deadlineNs = environment.nanoTime().getAsLong() + SETTLE_NS;
    while (environment.nanoTime().getAsLong() < deadlineNs) {
      try {
        if (record(id).isPresent()) {
          log.settled(id, State.COMMITTED);
          return Optional.empty();
        }
        log.settled(id, State.ROLLED_BACK);
        throw new FlotillaException(
            Code.UNAVAILABLE,
            "transaction " + id + " was rolled back, since a node was lost",
            "Nothing was done; try again.",
            unknown);
      } catch (FlotillaException e) {
        if (Objects.equals(e.getCause(), unknown)) {
          throw e;
        }
        pause(200);
      }
    }
    throw unknown;
  }

  private Optional<JsonNode> record(String id) {
    return Optional.ofNullable(
            grid.<byte @Nullable []>transact(
                "reading the record of transaction " + id,
                TransactionMode.PESSIMISTIC,
                ignite -> ignite.<String, byte[]>cache(RECORDS).get(id)))
        .map(bytes -> Json.read(bytes, JsonNode.class));
  }

  private static TransactionMode engineMode(Options options) {
    long timeoutMs = options.timeout().toMillis();
    if (timeoutMs < 100 || timeoutMs > Sql.TIMEOUT_MAX.toMillis()) {
      throw new FlotillaException(
          Code.INVALID,
          "a transaction's time-out of " + timeoutMs + " ms",
          "Choose from 100 ms to 10 minutes.");
    }
    // What may hold SQL is timed by TransactionWatch, not by the engine.
    return options.mode() == Mode.OPTIMISTIC
        ? new TransactionMode(
            TransactionConcurrency.OPTIMISTIC, TransactionIsolation.SERIALIZABLE, timeoutMs)
        : new TransactionMode(
            TransactionConcurrency.PESSIMISTIC, TransactionIsolation.REPEATABLE_READ, 0);
  }

  /** The one way every transaction runs. */
  private <T> T attempt(String id, Options options, Function<Transaction, T> body) {
    if (TransactionScope.current().isPresent()) {
      throw new FlotillaException(
          Code.INVALID,
          "a transaction inside a transaction",
          "Do all of it in the outer one, or begin the inner one on another thread.");
    }
    TransactionMode mode = engineMode(options);
    TransactionLog.Entry entry = log.begin(id, options.mode());
    TransactionScope scope = new TransactionScope(id, entry::step);
    AtomicReference<TransactionWatch.Watched> watched = new AtomicReference<>();
    try (ShardGate.Pass pass = sharding.pass()) {
      T result =
          grid.transact(
              "transaction " + id,
              mode,
              ignite -> {
                scope.enter();
                TransactionWatch.Watched own =
                    watch.watch(id, ignite, options.timeout().toMillis());
                watched.set(own);
                try {
                  Bound transaction = new Bound(id, options, ignite, pass, entry, own);
                  RUNNING.set(transaction);
                  T value = applied(body, transaction);
                  pass.mirror(ignite);
                  entry.look(ignite);
                  own.commit();
                  entry.state(State.COMMITTING, "");
                  return value;
                } finally {
                  RUNNING.remove();
                  scope.leave();
                }
              });
      entry.state(State.COMMITTED, "");
      count(options.mode(), "committed");
      scope.afterCommit().forEach(Runnable::run);
      return result;
    } catch (SqlEngine.RetryOnStableTopology e) {
      throw ended(entry, options, metChange(id, e));
    } catch (FlotillaException e) {
      throw ended(
          entry,
          options,
          Optional.ofNullable(watched.get())
              .flatMap(TransactionWatch.Watched::end)
              .map(reason -> said(id, reason, e))
              .orElse(e));
    } catch (BodyFailed e) {
      rolledBack(entry, options, e);
      throw e.exception;
    } catch (RuntimeException | Error e) {
      rolledBack(entry, options, e);
      throw e;
    } finally {
      Optional.ofNullable(watched.get()).ifPresent(TransactionWatch.Watched::end);
    }
  }

  private static FlotillaException metChange(String id, SqlEngine.RetryOnStableTopology cause) {
    return new FlotillaException(
        Code.UNAVAILABLE,
        "transaction " + id + " met a change of the cluster's nodes or tables",
        "Nothing was done; try again.",
        cause);
  }

  private static FlotillaException said(
      String id, TransactionWatch.Reason reason, FlotillaException cause) {
    return switch (reason) {
      case TOPOLOGY -> metChange(id, new SqlEngine.RetryOnStableTopology(cause));
      case DEADLOCK ->
          new FlotillaException(
              Code.CONFLICT,
              "transaction "
                  + id
                  + " and another waited for each other, and this one was rolled back",
              "Nothing was done; try again, and take locks in one order.",
              cause);
      case TIMEOUT ->
          new FlotillaException(
              Code.BUSY,
              "transaction " + id + " took too long, and was rolled back",
              "Nothing was done; try again, or give it more time.",
              cause);
    };
  }

  private void rolledBack(TransactionLog.Entry entry, Options options, Throwable why) {
    entry.state(State.ROLLED_BACK, String.valueOf(why.getMessage()));
    count(options.mode(), "rolled_back");
  }

  /** The body threw what the engine, too, throws when it stops. */
  private static final class BodyFailed extends RuntimeException {
    private static final long serialVersionUID = 1L;
    private final IllegalStateException exception;

    BodyFailed(IllegalStateException exception) {
      super(exception.getMessage(), exception, false, false);
      this.exception = exception;
    }
  }

  private static <T> T applied(Function<Transaction, T> body, Transaction transaction) {
    try {
      return body.apply(transaction);
    } catch (IllegalStateException e) {
      throw new BodyFailed(e);
    }
  }

  /** Before the commit began, nothing can have been done, whatever the engine says. */
  private FlotillaException ended(
      TransactionLog.Entry entry, Options options, FlotillaException e) {
    boolean unknown = e.code() == Code.OUTCOME_UNKNOWN;
    if (unknown && entry.state() == State.COMMITTING) {
      entry.state(State.UNKNOWN, e.explanation());
      count(options.mode(), "unknown");
      return e;
    }
    FlotillaException said = e;
    if (unknown) {
      said =
          new FlotillaException(
              grid.hasMajority() ? Code.UNAVAILABLE : Code.NO_MAJORITY,
              String.valueOf(e.getMessage())
                  .replace(": it cannot be told whether it was done", " was rolled back"),
              "Nothing was done; try again, or another node.",
              e);
    }
    entry.state(State.ROLLED_BACK, said.explanation());
    count(options.mode(), "rolled_back");
    return said;
  }

  private void count(Mode mode, String outcome) {
    metrics
        .counter(
            "flotilla_transactions",
            "mode",
            mode.name().toLowerCase(java.util.Locale.ROOT),
            "outcome",
            outcome)
        .increment();
  }

  /** A transaction on the thread that runs its body. */
  private record Bound(
      String id,
      Options options,
      Ignite ignite,
      ShardGate.Pass pass,
      TransactionLog.Entry entry,
      TransactionWatch.Watched watched)
      implements Transaction {

    @Override
    public SqlResult sql(String statement, @Nullable Object... arguments) {
      return sql(
          new Sql.Request(
              statement, new ArrayList<>(Arrays.asList(arguments)), Sql.ROWS, options.timeout()),
          new Sql.Cancel());
    }

    SqlResult sql(Sql.Request request, Sql.Cancel cancel) {
      if (options.mode() == Mode.OPTIMISTIC) {
        throw new FlotillaException(
            Code.INVALID,
            "SQL in an optimistic transaction",
            "Use the mode PESSIMISTIC or READ_COMMITTED.");
      }
      SqlText text = pass.resolve(Statement.trimmed(request.statement()));
      Statement statement = Statement.parse(text.text());
      SqlText named = SqlInserts.columnsNamed(ignite, statement.parsed(), text);
      if (!named.equals(text)) {
        statement = Statement.parse(named.text());
      }
      if (statement.kind() != Statement.Kind.QUERY && !statement.kind().writes()) {
        throw new FlotillaException(
            Code.INVALID,
            "a transaction takes SELECT, INSERT, UPDATE, DELETE and MERGE only",
            "Change the schema before it; begin, commit and roll back by their own calls.");
      }
      SqlEngine.checkArguments(statement, request.arguments());
      try {
        return run(statement, named, request, cancel);
      } catch (IllegalStateException e) {
        throw new IgniteException("the engine stops: " + e.getMessage(), e);
      }
    }

    private SqlResult run(
        Statement statement, SqlText text, Sql.Request request, Sql.Cancel cancel) {
      SqlErrors.About about =
          new SqlErrors.About(
              text,
              statement.target().map(pass::logicalName),
              statement
                  .target()
                  .flatMap(target -> SqlLocks.entity(ignite, target))
                  .map(entity -> SqlLocks.keyColumns(entity).keySet())
                  .orElse(Set.of()));
      SqlEngine.plan(ignite, about, request);
      String locked =
          SqlEngine.lock(
              ignite, statement, request.arguments(), options.mode() == Mode.PESSIMISTIC);
      SqlResult result;
      watched.enterStatement();
      try {
        result = SqlEngine.run(ignite, about, request, cancel);
      } finally {
        watched.leaveStatement();
      }
      entry.step("sql: " + statement.text() + (locked.isEmpty() ? "" : " (locked " + locked + ")"));
      entry.look(ignite);
      return result;
    }
  }

  /** A statement of {@link Sql} on a thread that is in a transaction. */
  static SqlResult inThisTransaction(Sql.Request request, Sql.Cancel cancel) {
    Bound running = RUNNING.get();
    if (running == null) {
      throw new IllegalStateException("the transaction has not begun");
    }
    return running.sql(request, cancel);
  }

  @Override
  public Session begin(Options options) {
    return sessions.begin(options);
  }

  @Override
  public Optional<Session> beginOnce(String id, Options options) {
    checkId(id);
    return sessions.begin(options, Optional.of(id));
  }

  @Override
  public Optional<Session> session(String id) {
    return sessions.find(id);
  }

  @Override
  public List<View> list() {
    return log.list("");
  }

  @Override
  public Optional<View> find(String id) {
    checkId(id);
    return log.list(id).stream()
        .findFirst()
        .or(() -> record(id).map(record -> recordedView(id, record)));
  }

  /** Of one whose node has forgotten it, or is no more. */
  private static View recordedView(String id, JsonNode record) {
    ObjectNode json = record.deepCopy();
    json.put("id", id)
        .put("mode", record.path("mode").asText().toLowerCase(Locale.ROOT))
        .put("state", "committed")
        .put("originator", record.path("node").asText())
        .put("started_at_ms", record.path("started_at_ms").asLong(record.path("at_ms").asLong()))
        .put("ended_at_ms", record.path("at_ms").asLong());
    return TransactionJson.view(json);
  }

  @Override
  public void close() {
    watch.close();
    sessions.close();
  }
}

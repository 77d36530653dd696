package dev.flotilla.client;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.data.sql.Sql;
import dev.flotilla.data.sql.SqlResult;
import dev.flotilla.data.sql.Transaction;
import dev.flotilla.data.sql.TransactionJson;
import dev.flotilla.data.sql.Transactions;
import java.io.IOException;
import java.net.ConnectException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.function.Function;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;

/**
 * Transactions over HTTP. A body runs here, on the calling thread; its transaction is a session on
 * the node that the client speaks to, and what the thread asks of caches, queues and SQL meanwhile
 * carries its id.
 */
public final class HttpTransactions implements Transactions {

  private final Client client;

  /** On the node that the client speaks to. */
  public HttpTransactions(Client client) {
    this.client = client;
  }

  @Override
  public <T> T run(Options options, Function<Transaction, T> body) {
    refuseInner();
    long beganNs = System.nanoTime();
    return run(begin(options), options, beganNs, body);
  }

  @Override
  public <T> Optional<T> runOnce(String id, Options options, Function<Transaction, T> body) {
    refuseInner();
    long beganNs = System.nanoTime();
    return beginOnce(id, options).map(session -> run(session, options, beganNs, body));
  }

  private void refuseInner() {
    if (client.transaction().isPresent()) {
      throw new FlotillaException(
          Code.INVALID,
          "a transaction inside a transaction",
          "Do all of it in the outer one, or begin the inner one on another thread.");
    }
  }

  private <T> T run(Session session, Options options, long beganNs, Function<Transaction, T> body) {
    try {
      T result = session.call(() -> body.apply(new Remote(session, options)));
      session.commit();
      return result;
    } catch (RuntimeException | Error e) {
      try {
        session.rollback();
      } catch (FlotillaException ended) {
        // It has ended: rolled back where it failed, or the commit said how it went.
      }
      boolean late = System.nanoTime() - beganNs >= options.timeout().toNanos();
      if (late && e instanceof FlotillaException known && known.code() == Code.NOT_FOUND) {
        throw new FlotillaException(
            Code.BUSY,
            "the transaction was open for more than " + options.timeout().toMillis() + " ms",
            "It was rolled back; begin again, with a longer time-out.",
            known);
      }
      throw e;
    }
  }

  private final class Remote implements Transaction {
    private final Session session;
    private final Options options;

    Remote(Session session, Options options) {
      this.session = session;
      this.options = options;
    }

    @Override
    public String id() {
      return session.id();
    }

    @Override
    public SqlResult sql(String statement, @Nullable Object... arguments) {
      Sql.Request request =
          new Sql.Request(
              statement, new ArrayList<>(Arrays.asList(arguments)), Sql.ROWS, options.timeout());
      return session.call(() -> new HttpSql(client).execute(request, new Sql.Cancel()));
    }
  }

  private static ObjectNode options(Options options) {
    return Json.MAPPER
        .createObjectNode()
        .put("mode", options.mode().name().toLowerCase(Locale.ROOT))
        .put("timeout_ms", options.timeout().toMillis());
  }

  @Override
  public Outcome run(Options options, List<Step> steps, Optional<String> id) {
    refuseInner();
    ObjectNode body = options(options);
    id.ifPresent(name -> body.put("id", name));
    ArrayNode array = body.putArray("steps");
    steps.forEach(step -> array.add(TransactionJson.toJson(step)));
    return TransactionJson.outcome(client.post("/api/transactions", body));
  }

  @Override
  public Session begin(Options options) {
    return new Open(client.post("/api/transactions/begin", options(options)).path("id").asText());
  }

  @Override
  public Optional<Session> beginOnce(String id, Options options) {
    JsonNode begun = client.post("/api/transactions/begin", options(options).put("id", id));
    return begun.path("repeated").asBoolean() ? Optional.empty() : Optional.of(new Open(id));
  }

  @Override
  public Optional<Session> session(String id) {
    return Optional.of(new Open(id));
  }

  private final class Open implements Session {
    private final String id;

    Open(String id) {
      this.id = id;
    }

    private JsonNode post(String what, Object body) {
      return client.post("/api/transactions/" + Client.encode(id) + "/" + what, body);
    }

    @Override
    public String id() {
      return id;
    }

    @Override
    public StepResult step(Step step) {
      return TransactionJson.result(post("steps", TransactionJson.toJson(step)));
    }

    @Override
    public SqlResult sql(Sql.Request request, Sql.Cancel cancel) {
      return step(new Step.Statement(request.statement(), request.arguments())).sql().orElseThrow();
    }

    @Override
    public <T> T call(Supplier<T> work) {
      return client.inTransaction(id, work);
    }

    @Override
    public void commit() {
      try {
        post("commit", Json.MAPPER.createObjectNode());
      } catch (FlotillaException e) {
        if (e.getCause() instanceof IOException && !(e.getCause() instanceof ConnectException)) {
          throw new FlotillaException(
              Code.OUTCOME_UNKNOWN,
              "the connection broke while transaction " + id + " was being committed",
              "Look whether it was done; what ran under an id of yours can be run again.",
              e);
        }
        throw e;
      }
    }

    @Override
    public void rollback() {
      post("rollback", Json.MAPPER.createObjectNode());
    }
  }

  /** {@inheritDoc} Without their participants and steps, which {@link #find} has. */
  @Override
  public List<View> list() {
    List<View> views = new ArrayList<>();
    client
        .get("/api/transactions")
        .path("transactions")
        .forEach(view -> views.add(TransactionJson.view(view)));
    return views;
  }

  @Override
  public Optional<View> find(String id) {
    try {
      return Optional.of(
          TransactionJson.view(client.get("/api/transactions/" + Client.encode(id))));
    } catch (FlotillaException e) {
      if (e.code() == Code.NOT_FOUND) {
        return Optional.empty();
      }
      throw e;
    }
  }
}

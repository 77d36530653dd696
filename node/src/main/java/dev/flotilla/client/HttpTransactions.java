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
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;

/**
 * Transactions over HTTP. A body's SQL runs in a session on the node that the client speaks to;
 * unlike in a node's own process, operations on caches and queues take part as steps of {@link
 * Session} only, not by running on the same thread.
 */
public final class HttpTransactions implements Transactions {

  private final Client client;

  /** On the node that the client speaks to. */
  public HttpTransactions(Client client) {
    this.client = client;
  }

  @Override
  public <T> T run(Options options, Function<Transaction, T> body) {
    Session session = begin(options);
    T result;
    try {
      result = body.apply(new Remote(session));
    } catch (RuntimeException | Error e) {
      try {
        session.rollback();
      } catch (FlotillaException ended) {
        // It was rolled back where it failed.
      }
      throw e;
    }
    session.commit();
    return result;
  }

  private record Remote(Session session) implements Transaction {
    @Override
    public String id() {
      return session.id();
    }

    @Override
    public SqlResult sql(String statement, @Nullable Object... arguments) {
      return session
          .step(new Step.Statement(statement, new ArrayList<>(Arrays.asList(arguments))))
          .sql()
          .orElseThrow();
    }
  }

  /** Refused: only a list of steps can carry the caller's id over HTTP. */
  @Override
  public <T> Optional<T> runOnce(String id, Options options, Function<Transaction, T> body) {
    throw new FlotillaException(
        Code.INVALID,
        "a body that runs once, over HTTP",
        "Send a list of steps with an id instead.");
  }

  private static ObjectNode options(Options options) {
    return Json.MAPPER
        .createObjectNode()
        .put("mode", options.mode().name().toLowerCase(Locale.ROOT))
        .put("timeout_ms", options.timeout().toMillis());
  }

  @Override
  public Outcome run(Options options, List<Step> steps, Optional<String> id) {
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
    public void commit() {
      post("commit", Json.MAPPER.createObjectNode());
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

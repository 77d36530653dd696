package dev.flotilla.client;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.data.sql.Sagas;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;

/** Sagas through a node's HTTP API; what they do is registered on the nodes. */
public final class HttpSagas implements Sagas {

  private static final long WAIT_MS = 10_000;

  private final Client client;

  /** Through this client's node. */
  public HttpSagas(Client client) {
    this.client = client;
  }

  private static String path(String id) {
    return "/api/sagas/" + Client.encode(id);
  }

  /** Refused: steps are code, which runs on the nodes. */
  @Override
  public void register(String saga, List<Step> steps) {
    throw new FlotillaException(
        Code.INVALID,
        "a saga's steps are code, and run on the cluster's nodes",
        "Register " + saga + " in programs that embed a node: Flotilla.start(config, register).");
  }

  @Override
  public void start(String saga, String id, Map<String, String> parameters) {
    var _ = client.post("/api/sagas", Map.of("saga", saga, "id", id, "parameters", parameters));
  }

  @Override
  public Optional<View> find(String id) {
    return found(path(id));
  }

  private Optional<View> found(String path) {
    try {
      return Optional.of(view(client.get(path)));
    } catch (FlotillaException e) {
      if (e.code() == Code.NOT_FOUND) {
        return Optional.empty();
      }
      throw e;
    }
  }

  @Override
  public View await(String id, Duration timeout) throws InterruptedException {
    long deadlineNs = System.nanoTime() + timeout.toNanos();
    while (true) {
      long leftMs = Math.max(0, (deadlineNs - System.nanoTime()) / 1_000_000);
      View view = view(client.get(path(id) + "?wait_ms=" + Math.min(WAIT_MS, leftMs)));
      boolean over = view.state() != State.RUNNING && view.state() != State.COMPENSATING;
      if (over || leftMs == 0) {
        return view;
      }
      if (Thread.interrupted()) {
        throw new InterruptedException();
      }
    }
  }

  private static View view(JsonNode json) {
    return new View(
        json.path("id").asText(),
        json.path("saga").asText(),
        State.valueOf(json.path("state").asText().toUpperCase(Locale.ROOT)),
        texts(json.path("parameters")),
        texts(json.path("results")),
        json.path("steps_done").asInt(),
        json.path("error").asText(),
        json.path("updated_at_ms").asLong());
  }

  private static Map<String, String> texts(JsonNode json) {
    Map<String, String> texts = new LinkedHashMap<>();
    json.properties().forEach(each -> texts.put(each.getKey(), each.getValue().asText()));
    return texts;
  }
}

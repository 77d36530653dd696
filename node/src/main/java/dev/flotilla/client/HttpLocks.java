package dev.flotilla.client;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.cluster.Locks;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;

/**
 * Locks through a node's HTTP API. A long wait is several requests with one claim, which keeps its
 * place in the queue between them.
 */
public final class HttpLocks implements Locks {

  /** Below what the server takes. */
  private static final long POLL_MS = 15_000;

  private final Client client;

  /** Through this client's node. */
  public HttpLocks(Client client) {
    this.client = client;
  }

  @Override
  public Optional<Grant> acquire(Request request) {
    long askedNs = System.nanoTime();
    while (true) {
      long passedMs = (System.nanoTime() - askedNs) / 1_000_000;
      long leftMs = Math.max(0, request.waitMs() - passedMs);
      boolean last = leftMs <= POLL_MS;
      Optional<Grant> grant =
          poll(
              request
                  .await(Duration.ofMillis(Math.min(leftMs, POLL_MS)))
                  .keepingItsPlace(!last || request.keepWaiting()));
      if (grant.isPresent() || last) {
        return grant;
      }
    }
  }

  private Optional<Grant> poll(Request request) {
    Map<String, Object> body = new HashMap<>();
    body.put("holder", request.holder());
    body.put("claim", request.claim());
    body.put("mode", request.mode().name().toLowerCase(Locale.ROOT));
    body.put("permits", request.permits());
    body.put("ttl_ms", request.ttlMs());
    body.put("wait_ms", request.waitMs());
    body.put("keep_waiting", request.keepWaiting());
    return post(request.name(), "acquire", body, "is held by another")
        .map(answer -> grant(request.name(), request.holder(), answer));
  }

  private static Grant grant(String name, String holder, JsonNode answer) {
    return new Grant(
        name,
        holder,
        answer.path("claim").asText(),
        answer.path("token").asLong(),
        answer.path("ttl_ms").asLong());
  }

  /** Empty if the answer is the conflict that is the method's "no". */
  private Optional<JsonNode> post(
      String name, String verb, Map<String, Object> body, String refusal) {
    try {
      return Optional.of(client.post("/api/locks/" + Client.encode(name) + "/" + verb, body));
    } catch (FlotillaException e) {
      if (e.code() == Code.CONFLICT && String.valueOf(e.getMessage()).contains(refusal)) {
        return Optional.empty();
      }
      throw e;
    }
  }

  private static Map<String, Object> body(Grant grant) {
    Map<String, Object> body = new HashMap<>();
    body.put("holder", grant.holder());
    body.put("token", grant.token());
    if (!grant.claim().isEmpty()) {
      body.put("claim", grant.claim());
    }
    return body;
  }

  @Override
  public Optional<Grant> renew(Grant grant) {
    return post(grant.name(), "renew", body(grant), "no longer this holder's")
        .map(answer -> grant(grant.name(), grant.holder(), answer));
  }

  @Override
  public boolean release(Grant grant) {
    return post(grant.name(), "release", body(grant), "no longer this holder's").isPresent();
  }

  @Override
  public View show(String name) {
    return view(client.get("/api/locks/" + Client.encode(name)));
  }

  @Override
  public List<View> list() {
    List<View> all = new ArrayList<>();
    client.get("/api/locks").forEach(lock -> all.add(view(lock)));
    return all;
  }

  private static View view(JsonNode lock) {
    return new View(
        lock.path("name").asText(),
        lock.path("permits").asInt(),
        claimants(lock.path("holders")),
        claimants(lock.path("waiting")));
  }

  private static List<Claimant> claimants(JsonNode list) {
    List<Claimant> all = new ArrayList<>();
    for (JsonNode one : list) {
      all.add(
          new Claimant(
              one.path("holder").asText(),
              Mode.valueOf(one.path("mode").asText().toUpperCase(Locale.ROOT)),
              one.path("token").asLong(),
              one.path("ttl_ms").asLong()));
    }
    return all;
  }
}

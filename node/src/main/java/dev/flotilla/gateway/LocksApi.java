package dev.flotilla.gateway;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.Json;
import dev.flotilla.cluster.Fence;
import dev.flotilla.cluster.Locks;
import dev.flotilla.cluster.Locks.Grant;
import dev.flotilla.cluster.Locks.Mode;
import dev.flotilla.cluster.Locks.Request;
import dev.flotilla.gateway.GatewayHandler.Access;
import dev.flotilla.gateway.GatewayHandler.Route;
import java.math.BigDecimal;
import java.time.InstantSource;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.UUID;

/**
 * Locks over HTTP. A wait is at most {@value #WAIT_MS_MAX} ms per request; who wants to wait longer
 * sends a {@code claim} and {@code "keep_waiting": true}, and asks again with the same claim, which
 * keeps its place.
 */
final class LocksApi {

  /** Below what an idle connection may last. */
  static final int WAIT_MS_MAX = 20_000;

  private final Locks locks;
  private final InstantSource clock;
  private final GatewayServices services;

  LocksApi(GatewayServices services) {
    this.services = services;
    this.locks = services.data().locks();
    this.clock = services.clock();
  }

  List<Route> routes() {
    return List.of(
        Route.of("GET", "/api/locks", Access.KEY, this::list),
        Route.named("GET", "/api/locks/*", Access.KEY, this::show),
        Route.named("POST", "/api/locks/*/acquire", Access.WORK, this::acquire)
            .fields("holder", "ttl_ms", "wait_ms", "mode", "permits", "claim", "keep_waiting"),
        Route.named("POST", "/api/locks/*/renew", Access.WORK, this::renew)
            .fields("holder", "token", "claim", "ttl_ms"),
        Route.named("POST", "/api/locks/*/release", Access.WORK, this::release)
            .fields("holder", "token", "claim", "ttl_ms"));
  }

  /** The optional {@code "fence": {"lock", "token"}} of a request to a guarded resource. */
  static Optional<Fence> fence(Fields fields) {
    return fields
        .object("fence")
        .map(
            fence ->
                new Fence(
                    fence.only("lock", "token").requiredText("lock"),
                    fence.requiredInteger("token", 1, Long.MAX_VALUE)));
  }

  private void list(Exchange exchange) {
    ArrayNode all = Json.MAPPER.createArrayNode();
    locks.list().forEach(lock -> all.add(node(lock)));
    exchange.sendCopy(all, services.hasMajority());
  }

  private void show(Exchange exchange, String name) {
    exchange.sendCopy(node(locks.show(name)), services.hasMajority());
  }

  private static ObjectNode node(Locks.View lock) {
    ObjectNode node = Json.MAPPER.createObjectNode();
    node.put("name", lock.name());
    node.put("state", lock.holders().isEmpty() ? "free" : "held");
    if (lock.permits() > 0) {
      node.put("permits", lock.permits());
    }
    ArrayNode holders = node.putArray("holders");
    lock.holders()
        .forEach(
            holder ->
                holders
                    .addObject()
                    .put("holder", holder.holder())
                    .put("mode", holder.mode().name().toLowerCase(Locale.ROOT))
                    .put("token", holder.token())
                    .put("ttl_ms", holder.ttlMs()));
    ArrayNode waiting = node.putArray("waiting");
    lock.waiting()
        .forEach(
            waiter ->
                waiting
                    .addObject()
                    .put("holder", waiter.holder())
                    .put("mode", waiter.mode().name().toLowerCase(Locale.ROOT)));
    return node;
  }

  private static int permits(Fields fields, Mode mode) {
    if (mode == Mode.PERMIT && fields.node("permits").isEmpty()) {
      throw ApiError.missing("permits", " with mode permit: how many the semaphore has");
    }
    return fields.integer("permits", 0, 0, Locks.PERMITS_MAX);
  }

  private void acquire(Exchange exchange, String name) {
    Fields fields = exchange.json();
    Mode mode =
        switch (fields.text("mode").orElse("exclusive")) {
          case "exclusive" -> Mode.EXCLUSIVE;
          case "shared" -> Mode.SHARED;
          case "permit" -> Mode.PERMIT;
          default -> throw ApiError.invalid("mode", "mode must be exclusive, shared or permit.");
        };
    Request request =
        new Request(
            name,
            fields.requiredText("holder"),
            fields.text("claim").orElseGet(() -> UUID.randomUUID().toString()),
            mode,
            permits(fields, mode),
            fields.integer("ttl_ms", Locks.TTL_MS_MIN, Locks.TTL_MS_MAX).orElse(Locks.TTL_MS),
            fields.integer("wait_ms", 0, 0, WAIT_MS_MAX),
            fields.flag("keep_waiting", false));
    Grant grant =
        locks
            .acquire(request)
            .orElseThrow(
                () ->
                    ApiError.of(
                        409,
                        "lock_held",
                        "Lock "
                            + name
                            + " is held by another. Try again, or wait for it with wait_ms."));
    exchange.send(200, node(grant));
  }

  private ObjectNode node(Grant grant) {
    return Json.MAPPER
        .createObjectNode()
        .put("token", grant.token())
        .put("expires_at", BigDecimal.valueOf(clock.millis() + grant.ttlMs(), 3))
        .put("ttl_ms", grant.ttlMs())
        .put("claim", grant.claim());
  }

  private static Grant grant(Fields fields, String name) {
    return new Grant(
        name,
        fields.requiredText("holder"),
        fields.text("claim").orElse(""),
        fields.requiredInteger("token", 1, Long.MAX_VALUE),
        fields.integer("ttl_ms", Locks.TTL_MS_MIN, Locks.TTL_MS_MAX).orElse(Locks.TTL_MS));
  }

  private void renew(Exchange exchange, String name) {
    Grant grant = grant(exchange.json(), name);
    Grant renewed = locks.renew(grant).orElseThrow(() -> lost(name));
    exchange.send(200, node(renewed));
  }

  private void release(Exchange exchange, String name) {
    if (!locks.release(grant(exchange.json(), name))) {
      throw lost(name);
    }
    exchange.send(200, Json.MAPPER.createObjectNode().put("name", name).put("state", "released"));
  }

  private static ApiError lost(String name) {
    return ApiError.of(
        409,
        "lock_lost",
        "Lock " + name + " is no longer this holder's: it was released or expired.");
  }
}

package dev.flotilla.gateway;

import dev.flotilla.data.sql.Sql;
import dev.flotilla.gateway.GatewayHandler.Access;
import dev.flotilla.gateway.GatewayHandler.Route;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.List;
import org.apache.calcite.avatica.metrics.noop.NoopMetricsSystem;
import org.apache.calcite.avatica.remote.Handler.HandlerResponse;
import org.apache.calcite.avatica.remote.JsonHandler;
import org.apache.calcite.avatica.remote.LocalService;
import org.eclipse.jetty.server.Request;

/**
 * JDBC: Avatica's remote driver speaks its JSON protocol to {@code POST /api/jdbc}. Its address is
 * {@code jdbc:avatica:remote:url=http://HOST:PORT/api/jdbc;authentication=BASIC;
 * avatica_user=key;avatica_password=KEY}: it knows no bearer tokens, so on this path a key is taken
 * as the password of HTTP Basic, too.
 */
final class JdbcApi {

  private final JdbcMeta meta;
  private final JsonHandler handler;
  private final ApiKeys keys;

  JdbcApi(GatewayServices services, ApiKeys keys) {
    this.keys = keys;
    this.meta =
        new JdbcMeta(
            services.data().sql(),
            services.data().transactions(),
            services.nanoTime(),
            "1",
            Runtime.getRuntime().maxMemory() / 8);
    this.handler = new JsonHandler(new LocalService(meta), NoopMetricsSystem.getInstance());
  }

  List<Route> routes() {
    return List.of(Route.of("POST", "/api/jdbc", Access.OPEN, this::handle).lenient());
  }

  private void handle(Exchange exchange) {
    try {
      keys.check(
          exchange.header("Authorization").map(JdbcApi::bearer),
          Request.getRemoteAddr(exchange.request()));
    } catch (ApiError e) {
      if (e.status() != 401) {
        throw e;
      }
      exchange.putHeader("WWW-Authenticate", "Basic realm=\"flotilla\"");
      exchange.send(401, e.body());
      return;
    }
    String request = new String(exchange.body(), StandardCharsets.UTF_8);
    Sql.Cancel cancel = new Sql.Cancel();
    meta.cancelBy(cancel);
    HandlerResponse<String> response =
        SqlApi.cancellable(exchange, cancel, () -> handler.apply(request));
    exchange.send(
        response.getStatusCode(),
        "application/json",
        response.getResponse().getBytes(StandardCharsets.UTF_8));
  }

  private static String bearer(String authorization) {
    if (!authorization.regionMatches(true, 0, "Basic ", 0, 6)) {
      return authorization;
    }
    try {
      String pair =
          new String(
              Base64.getDecoder().decode(authorization.substring(6).strip()),
              StandardCharsets.UTF_8);
      return "Bearer " + pair.substring(pair.indexOf(':') + 1);
    } catch (IllegalArgumentException e) {
      return "";
    }
  }
}

package dev.flotilla.gateway;

import dev.flotilla.FlotillaException;
import dev.flotilla.StaleReads;
import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicInteger;
import org.eclipse.jetty.io.EofException;
import org.eclipse.jetty.server.Handler;
import org.eclipse.jetty.server.Request;
import org.eclipse.jetty.server.Response;
import org.eclipse.jetty.util.Callback;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** Finds the route of each request, lets it pass or not, and turns exceptions into answers. */
final class GatewayHandler extends Handler.Abstract {

  /** Who may use a route, and while what. */
  enum Access {
    /** Anyone. */
    OPEN,
    /** With a key. */
    KEY,
    /** With a key, and not while draining: it starts work. */
    WORK
  }

  /**
   * What a route does; {@code segments} are those that its path's {@code *} stand for, in order.
   */
  @FunctionalInterface
  interface Action {
    void run(Exchange exchange, List<String> segments) throws InterruptedException;
  }

  /** What a route does whose path has one {@code *}. */
  @FunctionalInterface
  interface NamedAction {
    void run(Exchange exchange, String segment) throws InterruptedException;
  }

  /** What a route does whose path is fixed. */
  @FunctionalInterface
  interface PlainAction {
    void run(Exchange exchange) throws InterruptedException;
  }

  /**
   * What a request may hold beside its path: names of parameters of its query, and of its body's
   * fields. Others are refused, unless it takes anything.
   */
  record Takes(boolean anything, List<String> query, List<String> fields) {

    static final Takes ANYTHING = new Takes(true, List.of(), List.of());
    static final Takes NOTHING = new Takes(false, List.of(), List.of());

    /** The same with one parameter more. */
    Takes andQuery(String name) {
      List<String> more = new ArrayList<>(query);
      more.add(name);
      return new Takes(anything, more, fields);
    }
  }

  /**
   * A route. It takes no parameters and no fields but those that it names ({@link #query}, {@link
   * #fields}).
   *
   * @param path of segments; {@code *} stands for any one, not empty. A request's segments are
   *     taken apart as they were sent, and each that a star stands for is percent-decoded once: so
   *     a name may hold any character, slashes too
   */
  record Route(String method, String path, Access access, Takes takes, Action action) {

    Route(String method, String path, Access access, Action action) {
      this(method, path, access, Takes.NOTHING, action);
    }

    /** The same, whose requests may have these parameters. */
    Route query(String... names) {
      return new Route(
          method, path, access, new Takes(false, List.of(names), takes.fields), action);
    }

    /** The same, whose bodies may have these fields. */
    Route fields(String... names) {
      return new Route(method, path, access, new Takes(false, takes.query, List.of(names)), action);
    }

    /** The same for clients that send what we do not know, as those of other servers do. */
    Route lenient() {
      return new Route(method, path, access, Takes.ANYTHING, action);
    }

    /** The same that does something else. */
    Route doing(Action other) {
      return new Route(method, path, access, takes, other);
    }

    static Route of(String method, String path, Access access, PlainAction action) {
      return new Route(method, path, access, (exchange, segments) -> action.run(exchange));
    }

    static Route named(String method, String path, Access access, NamedAction action) {
      return new Route(
          method, path, access, (exchange, segments) -> action.run(exchange, segments.get(0)));
    }

    /** What the path's stars stand for, if the path is this route's. */
    Optional<List<String>> match(String requested) {
      if (path.indexOf('*') < 0) {
        return requested.equals(path) ? Optional.of(List.of()) : Optional.empty();
      }
      String[] mine = path.split("/", -1);
      String[] theirs = requested.split("/", -1);
      if (mine.length != theirs.length) {
        return Optional.empty();
      }
      List<String> segments = new ArrayList<>();
      for (int i = 0; i < mine.length; i++) {
        if (mine[i].equals("*") && !theirs[i].isEmpty()) {
          segments.add(decoded(theirs[i]));
        } else if (!mine[i].equals(theirs[i])) {
          return Optional.empty();
        }
      }
      return Optional.of(segments);
    }

    private static String decoded(String segment) {
      if (segment.indexOf('%') < 0) {
        return segment;
      }
      try {
        // A plus sign in a path is a plus sign.
        return URLDecoder.decode(segment.replace("+", "%2B"), StandardCharsets.UTF_8);
      } catch (IllegalArgumentException e) {
        throw ApiError.of(400, "invalid_value", "The path is not well percent-encoded.");
      }
    }
  }

  private static final Logger log = LoggerFactory.getLogger(GatewayHandler.class);

  private final List<Route> routes;
  private final ApiKeys keys;
  private final GatewayConfig.Limits limits;
  private final AtomicInteger running = new AtomicInteger();
  private volatile boolean draining;

  GatewayHandler(List<Route> routes, ApiKeys keys, GatewayConfig.Limits limits) {
    this.routes = routes;
    this.keys = keys;
    this.limits = limits;
  }

  /** From now on requests that start work are refused. */
  void startDraining() {
    draining = true;
  }

  boolean draining() {
    return draining;
  }

  /** Requests being handled now. */
  int running() {
    return running.get();
  }

  @Override
  public boolean handle(Request request, Response response, Callback callback) {
    // Time spent working is not idleness; reads and writes have bounds of their own.
    request.addIdleTimeoutListener(timeout -> false);
    Exchange exchange = new Exchange(request, response, limits);
    int now = running.incrementAndGet();
    try {
      answer(exchange, now);
      callback.succeeded();
    } catch (Exchange.ClientGone e) {
      log.debug("{} {}: {}", exchange.method(), exchange.path(), e.getMessage());
      // An end of the connection, which Jetty does not take for a fault of ours.
      callback.failed(new EofException(e));
    } finally {
      running.decrementAndGet();
    }
    return true;
  }

  private void answer(Exchange exchange, int now) {
    try {
      if (now > limits.requests()) {
        throw ApiError.of(429, "busy", "This node handles too many requests now. Try again.");
      }
      dispatch(exchange);
    } catch (ApiError e) {
      sendError(exchange, e);
    } catch (FlotillaException e) {
      if (e.code() == FlotillaException.Code.FAILED) {
        log.warn("{} {} failed", exchange.method(), exchange.path(), e);
      }
      sendError(exchange, ApiError.of(e));
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      sendError(exchange, ApiError.of(503, "unavailable", "This node is stopping. Ask another."));
    } catch (Exchange.ClientGone e) {
      throw e;
    } catch (RuntimeException | AssertionError e) {
      log.error("{} {} failed", exchange.method(), exchange.path(), e);
      sendError(
          exchange,
          ApiError.of(500, "internal_error", "This is a fault of the server; its log says more."));
    }
  }

  private static void sendError(Exchange exchange, ApiError error) {
    if (exchange.started()) {
      throw new Exchange.ClientGone("cannot report after the answer began: " + error.getMessage());
    }
    exchange.send(error);
  }

  private void dispatch(Exchange exchange) throws InterruptedException {
    String path = exchange.path();
    String method = exchange.method().equals("HEAD") ? "GET" : exchange.method();
    List<Route> here = routes.stream().filter(r -> r.match(path).isPresent()).toList();
    Optional<Route> route = here.stream().filter(r -> r.method().equals(method)).findFirst();
    if (route.isEmpty() || route.get().access() != Access.OPEN) {
      exchange.keyName(
          keys.check(exchange.header("Authorization"), Request.getRemoteAddr(exchange.request())));
    }
    if (here.isEmpty()) {
      throw ApiError.of(404, "not_found", "There is nothing at this path.");
    }
    if (route.isEmpty()) {
      exchange.putHeader("Allow", String.join(", ", here.stream().map(Route::method).toList()));
      throw ApiError.of(405, "method_not_allowed", "This path does not take " + method + ".");
    }
    if (draining && route.get().access() == Access.WORK) {
      throw ApiError.of(503, "draining", "This node is stopping. Ask another node.");
    }
    boolean reads = method.equals("GET");
    // Our client says it with whatever it asks for while old answers are allowed.
    exchange.takes(route.get().takes().andQuery(StaleReads.PARAMETER));
    Action action = route.get().action();
    if (reads && exchange.allowsStale()) {
      action = allowingStale(action);
    }
    action.run(exchange, route.get().match(path).orElseThrow());
  }

  /** The same, which may answer from what this node holds while it sees no majority. */
  static Action allowingStale(Action action) {
    return (exchange, segments) -> {
      boolean interrupted =
          StaleReads.allow(
                  () -> {
                    try {
                      action.run(exchange, segments);
                      return false;
                    } catch (InterruptedException e) {
                      return true;
                    }
                  })
              .value();
      if (interrupted) {
        throw new InterruptedException();
      }
    };
  }
}

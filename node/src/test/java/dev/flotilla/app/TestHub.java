package dev.flotilla.app;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import dev.flotilla.Json;
import java.io.IOException;
import java.io.OutputStream;
import java.net.InetSocketAddress;
import java.net.URI;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;

/**
 * A server with the hub's interface and ranges, which breaks off where it is told to. Real HTTP
 * over loopback.
 */
final class TestHub implements AutoCloseable {

  private final HttpServer server;
  private final Map<String, byte[]> files = new ConcurrentHashMap<>();

  /** What was asked: {@code PATH RANGE}, with {@code token} where one came along. */
  final List<String> asked = new CopyOnWriteArrayList<>();

  /** After how many bytes the next answers break off. */
  final List<Integer> breaks = new CopyOnWriteArrayList<>();

  volatile Optional<String> redirect = Optional.empty();
  volatile Optional<String> token = Optional.empty();
  volatile boolean tags = true;
  volatile boolean lies;

  TestHub() throws IOException {
    server = HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
    server.createContext("/", this::answer);
    server.start();
  }

  URI at(String path) {
    return URI.create("http://127.0.0.1:" + server.getAddress().getPort() + path);
  }

  /** A file of a repository, or of the server if there is none. */
  void put(String path, byte[] content) {
    files.put(path, content);
  }

  private void answer(HttpExchange exchange) throws IOException {
    try (exchange) {
      String path = exchange.getRequestURI().getPath();
      String range = exchange.getRequestHeaders().getFirst("Range");
      String authorization = exchange.getRequestHeaders().getFirst("Authorization");
      asked.add(
          path + (range == null ? "" : " " + range) + (authorization == null ? "" : " token"));
      if (token.isPresent() && !("Bearer " + token.get()).equals(authorization)) {
        exchange.sendResponseHeaders(401, -1);
      } else if (redirect.isPresent()) {
        exchange.getResponseHeaders().add("Location", redirect.get());
        exchange.sendResponseHeaders(302, -1);
      } else if (path.startsWith("/api/models/")) {
        list(exchange, path.split("/")[3] + "/" + path.split("/")[4]);
      } else {
        file(exchange, files.get(path.replaceFirst("/resolve/main/", "/")), range);
      }
    }
  }

  /** Two entries a page, so that there are several. */
  private void list(HttpExchange exchange, String repository) throws IOException {
    List<Map<String, Object>> entries = new ArrayList<>();
    for (Map.Entry<String, byte[]> each : new TreeMap<>(files).entrySet()) {
      if (each.getKey().startsWith("/" + repository + "/")) {
        entries.add(
            Map.of(
                "type",
                "file",
                "path",
                each.getKey().substring(repository.length() + 2),
                "lfs",
                Map.of("oid", lies ? "0".repeat(64) : sha256(each.getValue()))));
      }
    }
    String query = String.valueOf(exchange.getRequestURI().getQuery());
    int from = query.contains("cursor=") ? Integer.parseInt(query.replaceFirst(".*=", "")) : 0;
    int to = Math.min(entries.size(), from + 2);
    if (to < entries.size()) {
      exchange
          .getResponseHeaders()
          .add(
              "Link",
              "<" + at(exchange.getRequestURI().getPath() + "?cursor=" + to) + ">; rel=\"next\"");
    }
    send(exchange, 200, Json.write(entries.subList(from, to)), Integer.MAX_VALUE);
  }

  private void file(HttpExchange exchange, byte[] content, String range) throws IOException {
    if (content == null) {
      exchange.sendResponseHeaders(404, -1);
      return;
    }
    String tag = "\"" + sha256(content).substring(0, 16) + "\"";
    if (tags) {
      exchange.getResponseHeaders().add("ETag", tag);
    }
    int breakAt = breaks.isEmpty() ? Integer.MAX_VALUE : breaks.removeFirst();
    String condition = exchange.getRequestHeaders().getFirst("If-Range");
    if (range == null || (condition != null && !condition.equals(tag))) {
      send(exchange, 200, content, breakAt);
      return;
    }
    int from = Integer.parseInt(range.replaceAll("[^0-9]", ""));
    if (from >= content.length) {
      exchange.sendResponseHeaders(416, -1);
      return;
    }
    exchange
        .getResponseHeaders()
        .add("Content-Range", "bytes " + from + "-" + (content.length - 1) + "/" + content.length);
    send(exchange, 206, Arrays.copyOfRange(content, from, content.length), breakAt);
  }

  private static void send(HttpExchange exchange, int status, byte[] body, int breakAt)
      throws IOException {
    exchange.sendResponseHeaders(status, body.length);
    OutputStream out = exchange.getResponseBody();
    out.write(body, 0, Math.min(body.length, breakAt));
    if (breakAt < body.length) {
      out.flush();
      throw new IOException("breaks off, as told");
    }
    out.close();
  }

  static String sha256(byte[] content) {
    try {
      return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(content));
    } catch (java.security.NoSuchAlgorithmException e) {
      throw new IllegalStateException(e);
    }
  }

  @Override
  public void close() {
    server.stop(0);
  }
}

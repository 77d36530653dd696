package dev.flotilla.client;

import com.fasterxml.jackson.annotation.JsonInclude;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.PropertyNamingStrategies;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.StaleReads;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.function.Consumer;
import java.util.function.Predicate;
import java.util.function.Supplier;
import java.util.stream.IntStream;
import java.util.stream.Stream;

/** Speaks to a node's HTTP API for the commands and the demo. */
public final class Client {

  private static final Duration CONNECT_TIMEOUT = Duration.ofSeconds(5);

  /** Paths of what any node goes on with. */
  private static final String ANSWERS = "/v1/";

  private static final String RESPONSES = ANSWERS + "responses";

  private static final long OTHERS_FRESH_NS = 30_000_000_000L;

  private static final ObjectMapper SNAKE_CASE =
      Json.MAPPER
          .copy()
          .setPropertyNamingStrategy(PropertyNamingStrategies.SNAKE_CASE)
          .setDefaultPropertyInclusion(JsonInclude.Include.NON_ABSENT);

  private final URI base;
  private final Optional<String> key;
  private final ThreadLocal<Optional<String>> transaction =
      ThreadLocal.withInitial(Optional::empty);
  private final Optional<Runnable> onStale;
  private final List<URI> known;
  private volatile URI streaming;
  private volatile List<URI> others = List.of();
  private volatile long othersNs;
  private final HttpClient http = HttpClient.newBuilder().connectTimeout(CONNECT_TIMEOUT).build();

  /** A client of the node at this address, with this key where one is needed. */
  public Client(String url, Optional<String> key) {
    this(address(url), key, Optional.empty(), List.of());
  }

  private Client(URI base, Optional<String> key, Optional<Runnable> onStale, List<URI> known) {
    this.base = base;
    this.known = known;
    this.streaming = base;
    this.key = key;
    this.onStale = onStale;
  }

  private static URI address(String url) {
    try {
      URI address = URI.create(url.endsWith("/") ? url : url + "/");
      if (address.getHost() != null && address.getScheme() != null) {
        return address;
      }
    } catch (IllegalArgumentException notAnAddress) {
      // Said below.
    }
    throw new FlotillaException(
        Code.INVALID, url + " is not an address of a node", "It looks like http://HOST:PORT.");
  }

  /** The text behind a path, such as of {@code /metrics}. */
  public String text(String path) {
    return send(request(path).GET().build());
  }

  /** The folder of a node's data where none is named. */
  public static Path defaultFolder() {
    return Path.of(System.getProperty("user.home"), ".flotilla");
  }

  /** The open transaction that this thread's requests take part in. */
  Optional<String> transaction() {
    return transaction.get();
  }

  /** Runs some work whose requests, on this thread, are parts of a transaction. */
  <T> T inTransaction(String id, Supplier<T> work) {
    Optional<String> outer = transaction.get();
    transaction.set(Optional.of(id));
    try {
      return work.get();
    } finally {
      transaction.set(outer);
    }
  }

  public URI base() {
    return base;
  }

  public JsonNode get(String path) {
    return json(send(request(path).GET().build()));
  }

  public JsonNode post(String path, Object body) {
    return json(
        send(
            request(path)
                .header("Content-Type", "application/json")
                .POST(HttpRequest.BodyPublishers.ofByteArray(Json.write(body)))
                .build()));
  }

  public void delete(String path) {
    send(request(path).DELETE().build());
  }

  /**
   * Posts, and hands over the data of each server-sent event until the last. When the connection of
   * an answer of a model breaks, or its node dies, the other nodes are asked for the rest: each
   * event comes once. Other work is of one node, and ends with its connection.
   */
  public void stream(String path, Map<String, ?> body, Consumer<JsonNode> onEvent) {
    Set<URI> nodes = new LinkedHashSet<>();
    if (path.startsWith(ANSWERS)) {
      nodes.add(streaming);
      nodes.add(base);
      nodes.addAll(known);
      nodes.addAll(others());
    } else {
      nodes.add(base);
    }
    EventReader.Kind kind =
        path.equals(RESPONSES)
            ? new EventReader.BySequenceNumber(this::request, path, Json.write(body))
            : new EventReader.ByLastEventId(this::request, path, Json.write(body));
    EventReader reader =
        new EventReader(
            http,
            kind,
            this::refused,
            Client::unreachable,
            nodes,
            EventReader.SILENCE_MAX,
            onEvent);
    try {
      URI last = reader.read();
      if (path.startsWith(ANSWERS)) {
        streaming = last;
      }
    } catch (InterruptedException e) {
      throw interrupted(e);
    }
  }

  /** The addresses of the cluster's other nodes, as far as they are known; at most that old. */
  private List<URI> others() {
    long nowNs = System.nanoTime();
    if (othersNs == 0 || nowNs - othersNs > OTHERS_FRESH_NS) {
      othersNs = nowNs;
      try {
        List<URI> found = new ArrayList<>();
        for (JsonNode node :
            json(send(request("/api/cluster").timeout(CONNECT_TIMEOUT).GET().build()))
                .path("nodes")) {
          found.add(address(base.getScheme() + "://" + node.path("address").asText()));
        }
        others = found;
      } catch (FlotillaException e) {
        // What was known must do; the request itself says what is wrong.
        if (others.isEmpty()) {
          othersNs = 0; // asked again for the next stream, which would have nowhere else to go
        }
      }
    }
    return others;
  }

  /** Hands over each line of an answer that does not end, until the consumer says no. */
  public void lines(String path, Predicate<String> onLine) {
    try {
      HttpResponse<Stream<String>> response =
          noted(http.send(request(path).GET().build(), HttpResponse.BodyHandlers.ofLines()));
      try (Stream<String> lines = response.body()) {
        if (response.statusCode() != 200) {
          throw refused(response.statusCode(), String.join("\n", lines.toList()));
        }
        var each = lines.iterator();
        while (each.hasNext()) {
          if (!onLine.test(each.next())) {
            return;
          }
        }
      } catch (UncheckedIOException e) {
        throw unreachable(new IOException(e.getMessage(), e));
      }
    } catch (IOException e) {
      throw unreachable(e);
    } catch (InterruptedException e) {
      throw interrupted(e);
    }
  }

  /** A record of ours as the HTTP API names its fields. */
  public static JsonNode snakeCase(Object value) {
    return SNAKE_CASE.valueToTree(value);
  }

  public static String encode(String part) {
    return URLEncoder.encode(part, StandardCharsets.UTF_8).replace("+", "%20");
  }

  private HttpRequest.Builder request(String path) {
    return request(base, path);
  }

  private HttpRequest.Builder request(URI node, String path) {
    String asked =
        onStale.isPresent() || StaleReads.allowed()
            ? path + (path.contains("?") ? "&" : "?") + StaleReads.PARAMETER + "=true"
            : path;
    HttpRequest.Builder builder = HttpRequest.newBuilder(node.resolve(asked.substring(1)));
    key.ifPresent(value -> builder.header("Authorization", "Bearer " + value));
    transaction.get().ifPresent(id -> builder.header("X-Flotilla-Transaction", id));
    return builder;
  }

  /** Takes note of an answer that may be old. */
  private <T> HttpResponse<T> noted(HttpResponse<T> response) {
    if (response.headers().firstValue(StaleReads.HEADER).isPresent()) {
      StaleReads.mark();
      onStale.ifPresent(Runnable::run);
    }
    return response;
  }

  /**
   * A client whose every read may be answered by a node that sees no majority; {@link StaleReads}
   * is for single ones.
   *
   * @param action called for each answer that may be old
   */
  public Client allowingStale(Runnable action) {
    return new Client(base, key, Optional.of(action), known);
  }

  /**
   * A client that goes on with a stream at these nodes, too, when the one that it comes from is
   * lost. Those that the cluster tells of need not be named.
   */
  public Client knowing(List<String> urls) {
    return new Client(base, key, onStale, urls.stream().map(Client::address).toList());
  }

  /** An answer of which more than the text matters. */
  public record Answer(int status, byte[] body, Map<String, List<String>> headers) {

    /** The first header of that name, in lower case. */
    public Optional<String> header(String name) {
      return Optional.ofNullable(headers.get(name)).flatMap(values -> values.stream().findFirst());
    }
  }

  /**
   * Sends bytes, and returns the answer if its status is 2xx or one of those accepted; otherwise
   * throws as the node said.
   */
  public Answer exchange(
      String method, String path, Map<String, String> headers, byte[] body, int... accepted) {
    HttpRequest.Builder builder = request(path);
    headers.forEach(builder::header);
    try {
      HttpResponse<byte[]> response =
          noted(
              http.send(
                  builder.method(method, HttpRequest.BodyPublishers.ofByteArray(body)).build(),
                  HttpResponse.BodyHandlers.ofByteArray()));
      int status = response.statusCode();
      if (status / 100 != 2 && IntStream.of(accepted).noneMatch(code -> code == status)) {
        throw refused(status, new String(response.body(), StandardCharsets.UTF_8));
      }
      return new Answer(status, response.body(), response.headers().map());
    } catch (IOException e) {
      throw unreachable(e);
    } catch (InterruptedException e) {
      throw interrupted(e);
    }
  }

  /** Sends what the stream holds, without keeping it, and returns the answer. */
  public JsonNode send(String method, String path, InputStream content) {
    return json(
        send(
            request(path)
                // So that a refusal comes before the content is sent.
                .expectContinue(true)
                .method(method, HttpRequest.BodyPublishers.ofInputStream(() -> content))
                .build()));
  }

  /** The content behind a path, as it comes; close it. */
  public InputStream receive(String path, Map<String, String> headers) {
    HttpRequest.Builder builder = request(path);
    headers.forEach(builder::header);
    try {
      HttpResponse<InputStream> response =
          noted(http.send(builder.build(), HttpResponse.BodyHandlers.ofInputStream()));
      if (response.statusCode() / 100 != 2) {
        try (InputStream body = response.body()) {
          throw refused(
              response.statusCode(), new String(body.readAllBytes(), StandardCharsets.UTF_8));
        }
      }
      return response.body();
    } catch (IOException e) {
      throw unreachable(e);
    } catch (InterruptedException e) {
      throw interrupted(e);
    }
  }

  private String send(HttpRequest request) {
    try {
      HttpResponse<String> response =
          noted(http.send(request, HttpResponse.BodyHandlers.ofString()));
      if (response.statusCode() / 100 != 2) {
        throw refused(response.statusCode(), response.body());
      }
      return response.body();
    } catch (IOException e) {
      throw unreachable(e);
    } catch (InterruptedException e) {
      throw interrupted(e);
    }
  }

  private JsonNode json(String body) {
    try {
      return Json.MAPPER.readTree(body);
    } catch (IOException e) {
      throw new FlotillaException(
          Code.FAILED,
          base + " answered with something that is not JSON",
          "Is this the port of a Flotilla node?",
          e);
    }
  }

  private FlotillaException refused(int status, String body) {
    Code code =
        switch (status) {
          case 401 -> Code.UNAUTHENTICATED;
          case 404 -> Code.NOT_FOUND;
          case 409 -> Code.CONFLICT;
          case 413 -> Code.TOO_LARGE;
          case 429 -> Code.BUSY;
          case 503 -> Code.UNAVAILABLE;
          case 507 -> Code.STORAGE;
          default -> status < 500 ? Code.INVALID : Code.FAILED;
        };
    String message = "";
    try {
      JsonNode error = Json.MAPPER.readTree(body).path("error");
      message = error.path("message").asText();
      code =
          switch (error.path("code").asText()) {
            case "no_majority" -> Code.NO_MAJORITY;
            case "outcome_unknown" -> Code.OUTCOME_UNKNOWN;
            default -> code;
          };
    } catch (IOException notJson) {
      // The status alone must do.
    }
    return new FlotillaException(
        code,
        message.isEmpty() ? base + " answered with status " + status : message,
        code == Code.UNAUTHENTICATED
            ? "Name the key with --key, or the data folder that holds admin.key with --data."
            : "");
  }

  private FlotillaException unreachable(IOException e) {
    return unreachable(base, e);
  }

  private static FlotillaException unreachable(URI node, IOException e) {
    return new FlotillaException(
        Code.UNAVAILABLE,
        "cannot reach a node at "
            + node
            + " ("
            + (e.getMessage() == null ? "connection refused" : e.getMessage())
            + ")",
        "Start one with: flotilla up; or name another with --url.",
        e);
  }

  private static FlotillaException interrupted(InterruptedException e) {
    Thread.currentThread().interrupt();
    return new FlotillaException(Code.FAILED, "interrupted", "", e);
  }

  /** The key in a node's data folder, if it is there. */
  public static Optional<String> keyIn(Path folder) {
    Path file = folder.resolve("admin.key");
    try {
      return Files.exists(file) ? Optional.of(Files.readString(file).strip()) : Optional.empty();
    } catch (IOException e) {
      throw new FlotillaException(
          Code.UNAUTHENTICATED,
          "cannot read " + file + ": " + e.getMessage(),
          "Run this as the user who started the node, or name a key with --key.",
          e);
    }
  }
}

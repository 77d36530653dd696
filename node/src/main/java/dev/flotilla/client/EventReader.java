package dev.flotilla.client;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.net.http.HttpTimeoutException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import java.util.function.BiFunction;
import java.util.function.Consumer;

/**
 * Reads one stream of server-sent events to its end, through as many connections and nodes as that
 * takes: when one breaks off, or is silent for so long that its node cannot be well (nodes write a
 * comment where there is no event), it asks the next node that it knows for what is behind the last
 * event that came.
 */
final class EventReader {

  /** How a request without a body is made for a node and a path. */
  @FunctionalInterface
  interface Requests {
    HttpRequest.Builder to(URI node, String path);
  }

  /** How a kind of stream is begun, gone on with, and read. */
  interface Kind {

    /** The request that begins it. */
    HttpRequest.Builder begin(URI node);

    /** The request for what is behind a place. */
    HttpRequest.Builder goOn(URI node, String place);

    /**
     * The place behind an event; empty if nobody can go on from there.
     *
     * @param before the place before it; empty for the first
     * @param id the last {@code id} line
     */
    String place(String before, String id, JsonNode event);

    /** Whether it is the last one. */
    boolean ends(JsonNode event);
  }

  /** Events have ids, and the request itself is sent again with the last of them. */
  record ByLastEventId(Requests requests, String path, byte[] body) implements Kind {

    @Override
    public HttpRequest.Builder begin(URI node) {
      return posted(requests.to(node, path), body);
    }

    @Override
    public HttpRequest.Builder goOn(URI node, String place) {
      return begin(node).header("Last-Event-ID", place);
    }

    @Override
    public String place(String before, String id, JsonNode event) {
      return id;
    }

    @Override
    public boolean ends(JsonNode event) {
      return false; // [DONE] says so
    }
  }

  /** OpenAI's responses, whose events are numbered, and which have an address of their own. */
  record BySequenceNumber(Requests requests, String path, byte[] body) implements Kind {

    private static final Set<String> LAST =
        Set.of("response.completed", "response.incomplete", "response.failed");

    @Override
    public HttpRequest.Builder begin(URI node) {
      return posted(requests.to(node, path), body);
    }

    @Override
    public HttpRequest.Builder goOn(URI node, String place) {
      int colon = place.lastIndexOf(':');
      return requests
          .to(
              node,
              path
                  + "/"
                  + Client.encode(place.substring(0, colon))
                  + "?stream=true&starting_after="
                  + place.substring(colon + 1))
          .GET();
    }

    @Override
    public String place(String before, String id, JsonNode event) {
      String response =
          event
              .path("response")
              .path("id")
              .asText(before.isEmpty() ? "" : before.substring(0, before.lastIndexOf(':')));
      return response.isEmpty() ? "" : response + ":" + event.path("sequence_number").asInt();
    }

    @Override
    public boolean ends(JsonNode event) {
      return LAST.contains(event.path("type").asText());
    }
  }

  private static HttpRequest.Builder posted(HttpRequest.Builder request, byte[] body) {
    return request
        .header("Content-Type", "application/json")
        .POST(HttpRequest.BodyPublishers.ofByteArray(body));
  }

  /** What is thrown for an answer that is a refusal. */
  @FunctionalInterface
  interface Refusals {
    FlotillaException of(int status, String body);
  }

  /** What another node, or the same one a while later, may answer otherwise. */
  private static final Set<Code> PASSING = Set.of(Code.UNAVAILABLE, Code.NO_MAJORITY, Code.BUSY);

  /** Three times as long as a node that is well is silent, and some more. */
  static final Duration SILENCE_MAX = Duration.ofSeconds(7);

  private static final long PATIENCE_NS = TimeUnit.SECONDS.toNanos(60);
  private static final Duration HEAD_TIMEOUT = Duration.ofSeconds(15);
  private static final long PAUSE_MS_MIN = 50;
  private static final long PAUSE_MS_MAX = 1000;

  private final HttpClient http;
  private final Kind kind;
  private final Refusals refusals;
  private final BiFunction<URI, IOException, FlotillaException> unreachable;
  private final List<URI> nodes;
  private final Duration silenceMax;
  private final Consumer<JsonNode> onEvent;
  private String lastId = "";

  /** What came cannot be told from what would come again. */
  private boolean withoutId;

  /** Some node took the request. */
  private boolean taken;

  /** A node took a request to go on and did not answer in time. */
  private boolean hung;

  private long progressNs = System.nanoTime();

  /** When the last line came, of whatever kind. */
  private volatile long heardNs;

  /** Whether silence is the node's, and the stream can be gone on with elsewhere. */
  private volatile boolean resumable;

  /**
   * @param unreachable what is thrown when the last node that was tried cannot be reached
   * @param nodes where the request can be sent, in the order in which they are tried
   * @param silenceMax a stream that can be gone on with is given up after so long without a line
   */
  EventReader(
      HttpClient http,
      Kind kind,
      Refusals refusals,
      BiFunction<URI, IOException, FlotillaException> unreachable,
      Set<URI> nodes,
      Duration silenceMax,
      Consumer<JsonNode> onEvent) {
    this.http = http;
    this.kind = kind;
    this.refusals = refusals;
    this.unreachable = unreachable;
    this.nodes = new ArrayList<>(new LinkedHashSet<>(nodes));
    this.silenceMax = silenceMax;
    this.onEvent = onEvent;
  }

  /** A connection that ended before the stream did. */
  private static final class Broken extends Exception {
    private static final long serialVersionUID = 1L;

    Broken(IOException cause) {
      super(String.valueOf(cause.getMessage()), cause);
    }

    IOException reason() {
      return getCause() instanceof IOException io ? io : new IOException(getMessage(), this);
    }
  }

  /**
   * Returns at the end of the stream.
   *
   * @return the node that it came from last
   * @throws FlotillaException as a node says; {@code UNAVAILABLE} when none goes on with it for a
   *     minute; {@code FAILED} when it was taken and broke before its first event, and no node took
   *     it then
   */
  URI read() throws InterruptedException {
    long pauseMs = PAUSE_MS_MIN;
    for (int attempt = 0; ; attempt++) {
      URI node = nodes.get(attempt % nodes.size());
      String before = lastId;
      FlotillaException failure;
      try {
        read(node);
        return node;
      } catch (Broken e) {
        hung |= e.reason() instanceof HttpTimeoutException;
        if (withoutId) {
          throw unreachable.apply(node, e.reason());
        }
        failure =
            lastId.isEmpty()
                ? unreachable.apply(node, e.reason())
                : new FlotillaException(
                    Code.UNAVAILABLE,
                    "the stream from " + node + " broke off: " + e.getMessage(),
                    "Try again.",
                    e);
      } catch (FlotillaException e) {
        // What stood still with our own request may have taken the stream since.
        boolean ours = hung && e.code() == Code.CONFLICT;
        hung = false;
        if (withoutId
            || !(ours || PASSING.contains(e.code()))
            || (lastId.isEmpty() && e.code() == Code.BUSY)) {
          throw e;
        }
        failure = e;
      }
      boolean begun = !lastId.isEmpty();
      boolean allTried = attempt + 1 >= nodes.size();
      if (begun ? System.nanoTime() - progressNs > PATIENCE_NS : allTried) {
        throw taken && !begun ? brokenBeforeItBegan(failure) : failure;
      }
      if (!before.equals(lastId)) {
        pauseMs = PAUSE_MS_MIN;
      }
      if (begun) {
        Thread.sleep(pauseMs);
        pauseMs = Math.min(2 * pauseMs, PAUSE_MS_MAX);
      }
    }
  }

  private static FlotillaException brokenBeforeItBegan(FlotillaException failure) {
    return new FlotillaException(
        Code.FAILED,
        "the stream broke off before its first event: " + failure.getMessage(),
        "Try again.",
        failure);
  }

  private void read(URI node) throws Broken, InterruptedException {
    HttpRequest.Builder request =
        // A node that hangs is not waited for when another may have the rest.
        lastId.isEmpty() ? kind.begin(node) : kind.goOn(node, lastId).timeout(HEAD_TIMEOUT);
    request.header("Accept", "text/event-stream");
    HttpResponse<InputStream> response;
    try {
      response = http.send(request.build(), HttpResponse.BodyHandlers.ofInputStream());
    } catch (IOException e) {
      throw new Broken(e);
    }
    try (InputStream bytes = response.body();
        BufferedReader lines =
            new BufferedReader(new InputStreamReader(bytes, StandardCharsets.UTF_8))) {
      if (response.statusCode() != 200) {
        String refusal = new String(bytes.readAllBytes(), StandardCharsets.UTF_8);
        throw refusals.of(response.statusCode(), refusal);
      }
      taken = true;
      heardNs = System.nanoTime();
      Thread watch = Thread.startVirtualThread(() -> watch(bytes));
      try {
        events(lines);
      } finally {
        watch.interrupt();
      }
    } catch (IOException e) {
      throw new Broken(e);
    }
  }

  /** Closes the stream once it is silent for too long, so that whoever reads it hears of it. */
  private void watch(InputStream bytes) {
    try {
      long leftNs = silenceMax.toNanos();
      while (leftNs > 0) {
        TimeUnit.NANOSECONDS.sleep(leftNs);
        // Without an event's id nothing could be gone on with.
        leftNs =
            resumable ? heardNs + silenceMax.toNanos() - System.nanoTime() : silenceMax.toNanos();
      }
      bytes.close();
    } catch (InterruptedException | IOException ended) {
      Thread.currentThread().interrupt();
    }
  }

  private void events(BufferedReader lines) throws Broken, IOException {
    String id = lastId;
    for (String line = lines.readLine(); line != null; line = lines.readLine()) {
      heardNs = System.nanoTime();
      if (line.startsWith("id: ")) {
        id = line.substring(4);
      } else if (line.equals("data: [DONE]")) {
        return;
      } else if (line.startsWith("data: ")) {
        JsonNode event = json(line.substring(6));
        if (event.has("error")) {
          throw refusals.of(status(event.path("error")), line.substring(6));
        }
        // Who takes the events may take its time.
        resumable = false;
        onEvent.accept(event);
        lastId = kind.place(lastId, id, event);
        withoutId |= lastId.isEmpty();
        heardNs = System.nanoTime();
        resumable = !withoutId;
        progressNs = System.nanoTime();
        if (kind.ends(event)) {
          return;
        }
      }
    }
    throw new Broken(new IOException("it ended early"));
  }

  /** The status with which an error would have come before the stream began. */
  private static int status(JsonNode error) {
    if (error.has("status")) {
      return error.path("status").asInt();
    }
    return switch (error.path("code").asText()) {
      case "conflict" -> 409;
      case "not_found" -> 404;
      case "busy" -> 429;
      case "invalid_value", "invalid_last_event_id" -> 400;
      case "internal_error" -> 500;
      default -> 503;
    };
  }

  private static JsonNode json(String data) throws Broken {
    try {
      return Json.MAPPER.readTree(data);
    } catch (IOException e) {
      throw new Broken(new IOException("an event is cut", e));
    }
  }
}

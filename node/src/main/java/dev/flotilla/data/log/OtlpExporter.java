package dev.flotilla.data.log;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.cluster.NodeFiles;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Sends this node's log to a collector by OTLP over HTTP with JSON (OpenTelemetry protocol 1.x,
 * {@code ExportLogsServiceRequest} to {@code ENDPOINT/v1/logs}). What the collector has taken is
 * kept in a file, so everything arrives at least once, also over restarts.
 *
 * <p>As the protocol asks: 429, 502, 503 and 504 and a broken connection are tried again, later
 * each time or when {@code Retry-After} says; any other refusal is final, and the batch is passed
 * over.
 */
public final class OtlpExporter implements AutoCloseable {

  private static final Logger log = LoggerFactory.getLogger(OtlpExporter.class);
  private static final long BATCH_BYTES = 256L << 10;
  private static final long IDLE_MS = 500;
  private static final long BACKOFF_MAX_MS = 30_000;

  private final URI endpoint;
  private final NodeLog source;
  private final String nodeId;
  private final Path offsetFile;
  private final HttpClient http =
      HttpClient.newBuilder()
          .version(HttpClient.Version.HTTP_1_1)
          .connectTimeout(Duration.ofSeconds(5))
          .build();
  private final Thread thread;
  private volatile boolean closed;

  /**
   * @param endpoint the collector's base address, such as {@code http://collector:4318}
   * @throws FlotillaException {@code INVALID} if it is no http address
   */
  public OtlpExporter(String endpoint, NodeLog source, String nodeId, Path folder) {
    this.endpoint = address(endpoint);
    this.source = source;
    this.nodeId = nodeId;
    this.offsetFile = folder.resolve("otlp.offset");
    this.thread = Thread.ofVirtual().name("otlp-export").unstarted(this::run);
  }

  private static URI address(String endpoint) {
    try {
      String base =
          endpoint.endsWith("/") ? endpoint.substring(0, endpoint.length() - 1) : endpoint;
      URI uri = URI.create(base.endsWith("/v1/logs") ? base : base + "/v1/logs");
      if (("http".equals(uri.getScheme()) || "https".equals(uri.getScheme()))
          && uri.getHost() != null) {
        return uri;
      }
    } catch (IllegalArgumentException e) {
      // Said below.
    }
    throw new FlotillaException(
        Code.INVALID,
        "the OTLP endpoint " + endpoint + " is not an http address",
        "It looks like http://HOST:4318.");
  }

  public void start() {
    thread.start();
  }

  private void run() {
    long backoffMs = IDLE_MS;
    while (!closed) {
      try {
        List<LogSegments.Line> lines = source.own(offset(), BATCH_BYTES);
        if (lines.isEmpty()) {
          Thread.sleep(IDLE_MS);
          continue;
        }
        long waitMs = send(lines, backoffMs);
        if (waitMs > 0) {
          Thread.sleep(waitMs);
          backoffMs = Math.min(BACKOFF_MAX_MS, backoffMs * 2);
        } else {
          remember(lines.getLast().seq());
          backoffMs = IDLE_MS;
        }
      } catch (IOException | RuntimeException e) {
        log.debug("the log cannot be exported now: {}", e.toString());
        try {
          Thread.sleep(backoffMs);
        } catch (InterruptedException stop) {
          return;
        }
        backoffMs = Math.min(BACKOFF_MAX_MS, backoffMs * 2);
      } catch (InterruptedException stop) {
        return;
      }
    }
  }

  /** 0 if the batch is done with, else how long to wait before it is sent again. */
  private long send(List<LogSegments.Line> lines, long backoffMs)
      throws IOException, InterruptedException {
    HttpRequest request =
        HttpRequest.newBuilder(endpoint)
            .timeout(Duration.ofSeconds(10))
            .header("Content-Type", "application/json")
            .POST(HttpRequest.BodyPublishers.ofByteArray(Json.write(payload(nodeId, lines))))
            .build();
    HttpResponse<String> response = http.send(request, HttpResponse.BodyHandlers.ofString());
    int status = response.statusCode();
    if (status / 100 == 2) {
      return 0;
    }
    if (status == 429 || status == 502 || status == 503 || status == 504) {
      return response
          .headers()
          .firstValue("Retry-After")
          .filter(text -> text.matches("[0-9]{1,4}"))
          .map(text -> Math.max(1, Long.parseLong(text) * 1000))
          .orElse(backoffMs);
    }
    log.warn(
        "the collector at {} refuses {} log entries: status {}", endpoint, lines.size(), status);
    return 0;
  }

  /** {@code ExportLogsServiceRequest}: 64-bit integers are strings, as in protobuf's JSON. */
  static ObjectNode payload(String node, List<LogSegments.Line> lines) {
    ObjectNode request = Json.MAPPER.createObjectNode();
    ObjectNode resourceLogs = request.putArray("resourceLogs").addObject();
    ArrayNode resource = resourceLogs.putObject("resource").putArray("attributes");
    attribute(resource, "service.name", "flotilla");
    attribute(resource, "service.instance.id", node);
    ArrayNode scopes = resourceLogs.putArray("scopeLogs");
    Map<String, ArrayNode> byLogger = new LinkedHashMap<>();
    for (LogSegments.Line line : lines) {
      Log.Entry entry = Json.read(line.json(), Log.Entry.class);
      ArrayNode records =
          byLogger.computeIfAbsent(
              entry.logger(),
              name -> {
                ObjectNode scope = scopes.addObject();
                scope.putObject("scope").put("name", name);
                return scope.putArray("logRecords");
              });
      ObjectNode record = records.addObject();
      String timeNs = entry.timeMs() + "000000";
      record.put("timeUnixNano", timeNs);
      record.put("observedTimeUnixNano", timeNs);
      record.put("severityNumber", entry.level().severity());
      record.put("severityText", entry.level().name());
      record.putObject("body").put("stringValue", entry.message());
      ArrayNode attributes = record.putArray("attributes");
      attribute(attributes, "flotilla.seq", Long.toString(entry.seq()));
      entry
          .fields()
          .forEach(
              (name, value) ->
                  attribute(
                      attributes,
                      switch (name) {
                        case "exception" -> "exception.stacktrace";
                        case "thread" -> "thread.name";
                        default -> name;
                      },
                      value));
    }
    return request;
  }

  private static void attribute(ArrayNode attributes, String key, String value) {
    ObjectNode attribute = attributes.addObject();
    attribute.put("key", key);
    attribute.putObject("value").put("stringValue", value);
  }

  private long offset() throws IOException {
    if (!Files.exists(offsetFile)) {
      return 0;
    }
    try {
      return Long.parseLong(Files.readString(offsetFile).strip());
    } catch (NumberFormatException damaged) {
      return 0;
    }
  }

  private void remember(long seq) throws IOException {
    NodeFiles.writeDurably(offsetFile, Long.toString(seq).getBytes(StandardCharsets.UTF_8), false);
  }

  @Override
  public void close() {
    closed = true;
    thread.interrupt();
    http.shutdownNow();
  }
}

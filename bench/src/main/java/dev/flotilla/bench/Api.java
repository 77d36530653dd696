package dev.flotilla.bench;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.MissingNode;
import dev.flotilla.Json;
import dev.flotilla.bench.History.Outcome;
import java.io.IOException;
import java.net.ConnectException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpConnectTimeoutException;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentSkipListMap;

/** One node's HTTP API as a client under faults sees it: an answer, a refusal, or no idea. */
final class Api {

  /**
   * What came of a request.
   *
   * @param status of HTTP; 0 if no answer came
   * @param code of the error; empty if done
   */
  record Answer(Outcome outcome, int status, String code, JsonNode body) {}

  /** Errors that promise that nothing was done. */
  private static final Set<String> NOTHING_DONE =
      Set.of("conflict", "no_majority", "busy", "invalid_value", "not_found", "too_large");

  private static final Duration PATIENCE = Duration.ofSeconds(8);

  /** How often each request ended how, for the report. */
  private static final Map<String, Integer> ENDS = new ConcurrentSkipListMap<>();

  private final HttpClient http;
  private final String url;
  private final String key;

  Api(HttpClient http, String url, String key) {
    this.http = http;
    this.url = url;
    this.key = key;
  }

  static HttpClient client() {
    return HttpClient.newBuilder()
        .connectTimeout(Duration.ofSeconds(1))
        .version(HttpClient.Version.HTTP_1_1)
        .build();
  }

  Answer get(String path) throws InterruptedException {
    return send(request(path).GET().build());
  }

  Answer post(String path, Map<String, ?> body) throws InterruptedException {
    return send(
        request(path)
            .header("Content-Type", "application/json")
            .POST(HttpRequest.BodyPublishers.ofByteArray(Json.write(body)))
            .build());
  }

  private HttpRequest.Builder request(String path) {
    return HttpRequest.newBuilder(URI.create(url + path))
        .timeout(PATIENCE)
        .header("Authorization", "Bearer " + key);
  }

  /** Each kind of request with how it ended, and how often. */
  static Map<String, Integer> ends() {
    return ENDS;
  }

  private Answer send(HttpRequest request) throws InterruptedException {
    Answer answer = sendOnce(request);
    ENDS.merge(
        request.uri().getPath() + " " + answer.status() + " " + answer.code(), 1, Integer::sum);
    return answer;
  }

  private Answer sendOnce(HttpRequest request) throws InterruptedException {
    try {
      HttpResponse<byte[]> response = http.send(request, HttpResponse.BodyHandlers.ofByteArray());
      JsonNode body =
          response.body().length == 0
              ? MissingNode.getInstance()
              : Json.MAPPER.readTree(response.body());
      if (response.statusCode() / 100 == 2) {
        return new Answer(Outcome.DONE, response.statusCode(), "", body);
      }
      String code = body.path("error").path("code").asText();
      if (response.statusCode() == 400) {
        throw new IllegalStateException("this test asks for something malformed: " + body);
      }
      return new Answer(
          NOTHING_DONE.contains(code) ? Outcome.NOT_DONE : Outcome.UNKNOWN,
          response.statusCode(),
          code,
          body);
    } catch (ConnectException | HttpConnectTimeoutException e) {
      return new Answer(Outcome.NOT_DONE, 0, "unreachable", MissingNode.getInstance());
    } catch (IOException e) {
      return new Answer(Outcome.UNKNOWN, 0, "broke_off", MissingNode.getInstance());
    }
  }
}

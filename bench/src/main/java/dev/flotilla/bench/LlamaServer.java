package dev.flotilla.bench;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import java.io.IOException;
import java.net.ServerSocket;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/** llama.cpp's server with one model, by itself or over its RPC workers. */
final class LlamaServer implements AutoCloseable {

  private static final long READY_MS_MAX = 300_000;

  private final List<Process> processes = new ArrayList<>();
  private final HttpClient http = HttpClient.newHttpClient();
  private final URI url;

  /**
   * Returns once it answers.
   *
   * @param folder where {@code llama-server} and {@code ggml-rpc-server} are
   * @param workerCores the cores of each RPC worker, as taskset takes them, a thread for each
   *     worker; none: the server computes by itself
   * @param threads of a server that computes by itself
   * @param slots how many requests run at once
   * @param positions of each of them, prompt included
   */
  LlamaServer(
      Path folder, Path model, List<String> workerCores, int threads, int slots, int positions)
      throws IOException, InterruptedException {
    int port = freePort();
    url = URI.create("http://127.0.0.1:" + port);
    try {
      List<String> workers = new ArrayList<>();
      for (String cores : workerCores) {
        int own = freePort();
        workers.add("127.0.0.1:" + own);
        String program = folder.resolve("ggml-rpc-server").toString();
        start(List.of("taskset", "-c", cores, program, "-p", "" + own, "-t", "1"));
      }
      List<String> server = new ArrayList<>(List.of(folder.resolve("llama-server").toString()));
      server.addAll(List.of("-m", model.toString(), "--port", "" + port, "-fa", "on"));
      server.addAll(List.of("-np", "" + slots, "-c", "" + slots * positions, "-t", "" + threads));
      if (!workers.isEmpty()) {
        Thread.sleep(1_000); // the server gives up at once on a worker that does not listen yet
        server.addAll(List.of("--rpc", String.join(",", workers), "-ngl", "999"));
      }
      start(server);
      PinnedNodes.await("llama-server did not start: run it by hand to see why", this::isReady);
    } catch (IOException | InterruptedException | RuntimeException e) {
      close();
      throw e;
    }
  }

  private void start(List<String> command) throws IOException {
    processes.add(
        new ProcessBuilder(command)
            .redirectErrorStream(true)
            .redirectOutput(ProcessBuilder.Redirect.DISCARD)
            .start());
  }

  private boolean isReady() {
    for (Process process : processes) {
      if (!process.isAlive()) {
        throw new FlotillaException(
            FlotillaException.Code.FAILED,
            process.info().command().orElse("llama.cpp") + " ended with " + process.exitValue(),
            "Run it by hand to see why");
      }
    }
    try {
      HttpRequest health = HttpRequest.newBuilder(url.resolve("/health")).build();
      return http.send(health, HttpResponse.BodyHandlers.discarding()).statusCode() == 200;
    } catch (IOException e) {
      return false;
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      return false;
    }
  }

  /**
   * Continues a prompt by the most likely token each time, never by the end of text.
   *
   * @param prompt a text, or token ids
   * @param likeliest how many log-probabilities to tell of each token
   * @return the body of {@code POST /completion}
   */
  JsonNode complete(Object prompt, int tokens, int likeliest)
      throws IOException, InterruptedException {
    Map<String, Object> body = new HashMap<>();
    body.put("prompt", prompt);
    body.put("n_predict", tokens);
    body.put("temperature", 0);
    body.put("ignore_eos", true);
    body.put("cache_prompt", false);
    body.put("return_tokens", true);
    body.put("n_probs", likeliest);
    HttpResponse<byte[]> response =
        http.send(
            HttpRequest.newBuilder(url.resolve("/completion"))
                .timeout(Duration.ofMillis(READY_MS_MAX))
                .POST(HttpRequest.BodyPublishers.ofByteArray(Json.write(body)))
                .build(),
            HttpResponse.BodyHandlers.ofByteArray());
    JsonNode answer = Json.MAPPER.readTree(response.body());
    if (response.statusCode() != 200) {
      throw new IOException("llama-server: " + response.statusCode() + " " + answer);
    }
    return answer;
  }

  private static int freePort() throws IOException {
    try (ServerSocket socket = new ServerSocket(0)) {
      return socket.getLocalPort();
    }
  }

  @Override
  public void close() throws InterruptedException {
    http.shutdownNow();
    for (Process process : processes.reversed()) {
      process.destroy();
      if (!process.waitFor(10, TimeUnit.SECONDS)) {
        process.destroyForcibly();
      }
    }
  }
}

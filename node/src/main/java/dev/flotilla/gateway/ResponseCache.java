package dev.flotilla.gateway;

import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.data.cache.CacheConfig;
import dev.flotilla.data.cache.Caches;
import dev.flotilla.serve.GenerationRequest;
import io.micrometer.core.instrument.Counter;
import io.micrometer.core.instrument.MeterRegistry;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Complete answers to requests whose answer is determined by the request: greedy, or with a seed of
 * the client's own. A request is a value, and the same value gives the same tokens on any machine;
 * so its answer can be repeated without computing it.
 *
 * <p>The key is a digest of everything that determines the tokens: the digest of the model's file
 * (other weights under the same name are another model), how its deployment computes, the prompts'
 * token ids, the sampling, the limits, the grammar and the texts that stop it. What is kept are the
 * tokens, which are then sent like those of a generation: streamed or at once, as this client asks.
 *
 * <p>A client opts out with the field {@code "cache": false}, or the header {@code Cache-Control:
 * no-cache} or {@code no-store}; the answer's header {@value #HEADER} says {@code hit} or {@code
 * miss}. The cache never makes an answer fail, and delays it by {@value #PATIENCE_MS} ms at most.
 */
final class ResponseCache {

  static final String HEADER = "X-Flotilla-Cache";
  static final long PATIENCE_MS = 50;

  private static final String NAME = "flotilla.responses";
  private static final CacheConfig CONFIG =
      CacheConfig.DEFAULT
          .withTtlMs(TimeUnit.HOURS.toMillis(1))
          .withBounds(100_000, 256L << 20)
          .withNearBytes(16L << 20);
  private static final Logger log = LoggerFactory.getLogger(ResponseCache.class);

  private final PatientCache cache;
  private final Counter hits;
  private final Counter misses;

  ResponseCache(Caches caches, MeterRegistry metrics) {
    this.cache = new PatientCache(caches, NAME, CONFIG, PATIENCE_MS);
    this.hits = counter(metrics, "hit");
    this.misses = counter(metrics, "miss");
  }

  private static Counter counter(MeterRegistry metrics, String result) {
    return Counter.builder("flotilla.response.cache")
        .description("Requests whose answer is determined by them, by whether it was in the cache")
        .tag("result", result)
        .register(metrics);
  }

  /** Whether the request determines its answer, and its client lets it be repeated. */
  static boolean wanted(Exchange exchange, Fields fields, GenerationOptions options) {
    return (greedy(options) || fields.node("seed").isPresent()) && wanted(exchange, fields);
  }

  /** Whether the client lets what is known be used for it. */
  static boolean wanted(Exchange exchange, Fields fields) {
    String control = exchange.header("Cache-Control").orElse("").toLowerCase(Locale.ROOT);
    return fields.flag("cache", true)
        && !control.contains("no-cache")
        && !control.contains("no-store");
  }

  private static boolean greedy(GenerationOptions options) {
    return options.sampling().temperature() == 0 || options.sampling().topK() == 1;
  }

  /** What determines the answer to one prompt. A seed that draws nothing is left out. */
  private record Question(
      int[] prompt,
      float temperature,
      float topP,
      int topK,
      long seed,
      int maxTokens,
      int[] endTokens,
      String grammar) {

    static Question of(GenerationRequest request) {
      var sampling = request.sampling();
      boolean greedy = sampling.temperature() == 0 || sampling.topK() == 1;
      return new Question(
          request.prompt(),
          greedy ? 0 : sampling.temperature(),
          greedy ? 1 : sampling.topP(),
          greedy ? 1 : sampling.topK(),
          greedy ? 0 : sampling.seed(),
          request.maxTokens(),
          request.endTokens(),
          request.grammar().orElse(""));
    }
  }

  private record Questions(String model, List<Question> questions, List<String> stops) {}

  /**
   * The digest of all that determines the answer.
   *
   * @param model its {@link ServedModel#form}
   */
  static String key(String model, List<GenerationRequest> requests, List<String> stops) {
    Questions questions = new Questions(model, requests.stream().map(Question::of).toList(), stops);
    try {
      return HexFormat.of()
          .formatHex(MessageDigest.getInstance("SHA-256").digest(Json.write(questions)));
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException("every JDK has SHA-256", e);
    }
  }

  /** The answer, if it is there at once. */
  Optional<Recording> find(String key) {
    Optional<Recording> found = Optional.empty();
    try {
      found =
          cache
              .find(List.of(key))
              .map(there -> there.get(key))
              .map(json -> Json.read(json, Recording.class));
    } catch (FlotillaException e) {
      log.debug("another version's answer: {}", e.toString());
    }
    (found.isPresent() ? hits : misses).increment();
    return found;
  }

  /** Keeps an answer, later and if it can. */
  void keep(String key, Recording recording) {
    cache.keep(Map.of(key, Json.write(recording)));
  }
}

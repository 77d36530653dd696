package dev.flotilla.gateway;

import dev.flotilla.FlotillaException;
import dev.flotilla.model.Pooling;
import dev.flotilla.serve.Claim;
import dev.flotilla.serve.Embedder;
import dev.flotilla.serve.EmbeddingRequest;
import io.micrometer.core.instrument.Counter;
import io.micrometer.core.instrument.MeterRegistry;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.LinkedBlockingQueue;

/**
 * Embeddings of texts, each computed once: those that are in the cache are taken from there, equal
 * ones in one request are one, and what another request on this node is just computing is waited
 * for. A computation is stopped when the last who waits for it has left.
 *
 * <p>The rest go to the model some at a time, enough to fill its steps without holding up others.
 */
final class Embeddings {

  /** Texts of one request that are computed at a time. */
  private static final int AT_ONCE = 16;

  /** Keys that are looked up, or vectors that are kept, at a time. */
  private static final int TOGETHER = 64;

  /** One computation, and how many wait for it. */
  private static final class Flight {
    final CompletableFuture<float[]> result = new CompletableFuture<>();
    volatile Runnable cancel = () -> {};
    // Guarded by the map of flights:
    int waiting;
  }

  /**
   * What a request gets.
   *
   * @param vectors one per text, {@code [width]}, of length 1
   * @param found how many different texts were not computed for it
   * @param computed how many were
   */
  record Embedded(List<float[]> vectors, int found, int computed) {}

  private final Embedder embedder;
  private final EmbeddingCache cache;
  private final Map<String, Flight> flights = new HashMap<>();
  private final Counter hits;
  private final Counter shared;
  private final Counter misses;

  Embeddings(Embedder embedder, EmbeddingCache cache, MeterRegistry metrics) {
    this.embedder = embedder;
    this.cache = cache;
    this.hits = counter(metrics, "hit");
    this.shared = counter(metrics, "shared");
    this.misses = counter(metrics, "miss");
  }

  private static Counter counter(MeterRegistry metrics, String result) {
    return Counter.builder("flotilla.embedding.cache")
        .description("Texts to embed: in the cache, being computed for another, or computed")
        .tag("result", result)
        .register(metrics);
  }

  /**
   * Prepares to embed; {@link Task#run} does it.
   *
   * @param id of the request, unique in the cluster
   * @param texts token ids
   * @param claim in whose name
   * @param cached whether what is known may be used, and what is computed kept
   * @throws ApiError 400 if the model is not made to embed
   */
  Task task(String id, ServedModel model, List<int[]> texts, Claim claim, boolean cached) {
    Pooling pooling =
        model
            .pooling()
            .orElseThrow(
                () ->
                    ApiError.invalid(
                        "model", model.name() + " is not made to embed; choose another model."));
    return new Task(id, model, pooling, texts, claim, cached);
  }

  /** One request's texts; one thread runs it, any may abandon it. */
  final class Task implements AutoCloseable {

    private sealed interface Event {}

    private record Done(String key, float[] vector) implements Event {}

    private record Failed(RuntimeException error) implements Event {}

    private final String id;
    private final ServedModel model;
    private final Pooling pooling;
    private final Claim claim;
    private final boolean cached;
    private final List<String> order = new ArrayList<>();
    private final Map<String, int[]> texts = new LinkedHashMap<>();
    private final Map<String, float[]> vectors = new HashMap<>();
    private final Map<String, Flight> running = new HashMap<>();
    private final LinkedBlockingQueue<Event> events = new LinkedBlockingQueue<>();
    private final Set<String> own = new HashSet<>();

    private Task(
        String id,
        ServedModel model,
        Pooling pooling,
        List<int[]> texts,
        Claim claim,
        boolean cached) {
      this.id = id;
      this.model = model;
      this.pooling = pooling;
      this.claim = claim;
      this.cached = cached;
      for (int[] tokens : texts) {
        String key = EmbeddingCache.key(model.form(), pooling, tokens);
        order.add(key);
        this.texts.put(key, tokens);
      }
    }

    /**
     * Embeds.
     *
     * @throws FlotillaException as {@link Embedder#embed} and its sinks
     * @throws Exchange.ClientGone if it was abandoned
     */
    Embedded run() throws InterruptedException {
      if (cached) {
        lookUp();
      }
      Deque<String> missing = new ArrayDeque<>(texts.keySet());
      missing.removeAll(vectors.keySet());
      Map<String, float[]> fresh = new HashMap<>();
      try {
        while (!missing.isEmpty() || !running.isEmpty()) {
          while (!missing.isEmpty() && running.size() < AT_ONCE) {
            begin(missing.removeFirst());
          }
          take(events.take(), fresh);
        }
      } finally {
        keep(fresh);
      }
      return new Embedded(
          order.stream().map(vectors::get).toList(), texts.size() - own.size(), own.size());
    }

    private void take(Event event, Map<String, float[]> fresh) {
      switch (event) {
        case Done(String key, float[] vector) -> {
          running.remove(key);
          vectors.put(key, vector);
          if (own.contains(key)) {
            fresh.put(key, vector);
          }
          if (fresh.size() == TOGETHER) {
            keep(fresh);
          }
        }
        case Failed(RuntimeException error) -> throw error;
      }
    }

    private void lookUp() {
      List<String> keys = List.copyOf(texts.keySet());
      for (int from = 0; from < keys.size(); from += TOGETHER) {
        Optional<Map<String, float[]>> there =
            cache.find(keys.subList(from, Math.min(keys.size(), from + TOGETHER)));
        if (there.isEmpty()) {
          return; // it is slow or away: better compute than ask for each piece
        }
        there
            .get()
            .forEach(
                (key, vector) -> {
                  if (vector.length == model.view().config().width()) {
                    vectors.put(key, vector);
                    hits.increment();
                  }
                });
      }
    }

    private void keep(Map<String, float[]> fresh) {
      if (cached) {
        cache.keep(Map.copyOf(fresh));
      }
      fresh.clear();
    }

    private void begin(String key) {
      // Who wants nothing repeated does not want another's either.
      String name = cached ? key : id + " " + key;
      Flight flight;
      boolean first;
      synchronized (flights) {
        Optional<Flight> there = Optional.ofNullable(flights.get(name));
        first = there.isEmpty();
        flight = there.orElseGet(Flight::new);
        flight.waiting++;
        flights.put(name, flight);
      }
      running.put(key, flight);
      if (first) {
        misses.increment();
        own.add(key);
        int[] tokens = Objects.requireNonNull(texts.get(key));
        compute(
            name,
            flight,
            new EmbeddingRequest(id + "-" + own.size(), model.name(), tokens, pooling, claim));
      } else {
        shared.increment();
      }
      var _ =
          flight.result.whenComplete(
              (vector, error) ->
                  events.add(
                      error instanceof RuntimeException e ? new Failed(e) : new Done(key, vector)));
    }

    private void compute(String name, Flight flight, EmbeddingRequest request) {
      try {
        flight.cancel =
            embedder.embed(
                request,
                new Embedder.Sink() {
                  @Override
                  public void embedded(float[] vector) {
                    land(name, flight);
                    flight.result.complete(vector);
                  }

                  @Override
                  public void failed(FlotillaException error) {
                    land(name, flight);
                    flight.result.completeExceptionally(error);
                  }
                });
      } catch (RuntimeException e) {
        land(name, flight);
        flight.result.completeExceptionally(e);
      }
    }

    /** Makes the thread that runs it give up. */
    void abandon(String why) {
      events.add(new Failed(new Exchange.ClientGone(why)));
    }

    /** Leaves what still runs. */
    @Override
    public void close() {
      running.forEach((key, flight) -> leave(cached ? key : id + " " + key, flight));
      running.clear();
    }
  }

  private void land(String name, Flight flight) {
    synchronized (flights) {
      var _ = flights.remove(name, flight);
    }
  }

  private void leave(String name, Flight flight) {
    synchronized (flights) {
      if (--flight.waiting > 0) {
        return;
      }
      var _ = flights.remove(name, flight);
    }
    flight.cancel.run();
  }
}

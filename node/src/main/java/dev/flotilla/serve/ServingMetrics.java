package dev.flotilla.serve;

import io.micrometer.core.instrument.Counter;
import io.micrometer.core.instrument.Gauge;
import io.micrometer.core.instrument.Meter;
import io.micrometer.core.instrument.MeterRegistry;
import io.micrometer.core.instrument.Timer;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;

/**
 * What serving measures. Heads report steps and queues; routers report what a client sees, on the
 * node that the client talks to.
 */
final class ServingMetrics {

  private static final class Replica {
    volatile int running;
    volatile int waiting;
    final Timer step;
    final Counter rows;
    final List<Meter> meters;

    Replica(MeterRegistry registry, String id) {
      step =
          Timer.builder("flotilla.serve.step")
              .description("Time of one step in the head's stage")
              .tag("replica", id)
              .register(registry);
      rows =
          Counter.builder("flotilla.serve.rows")
              .description("Rows that went through the head's stage")
              .tag("replica", id)
              .register(registry);
      meters =
          List.of(
              step,
              rows,
              Gauge.builder("flotilla.serve.requests.running", this, r -> r.running)
                  .tag("replica", id)
                  .register(registry),
              Gauge.builder("flotilla.serve.requests.waiting", this, r -> r.waiting)
                  .tag("replica", id)
                  .register(registry));
    }
  }

  private final MeterRegistry registry;
  private final Map<String, Replica> replicas = new ConcurrentHashMap<>();
  private final Counter promptTokens;
  private final Counter generatedTokens;
  private final Counter embeddings;
  private final Counter resumptions;
  private final Timer firstToken;
  private final Timer perToken;
  private final Timer pause;

  ServingMetrics(MeterRegistry registry) {
    this.registry = registry;
    this.promptTokens = counter("prompt.tokens", "Prompt tokens of requests started here");
    this.generatedTokens = counter("generated.tokens", "Tokens delivered here");
    this.embeddings = counter("embeddings", "Embeddings computed for requests started here");
    this.resumptions = counter("resumptions", "Requests continued after a replica was lost");
    this.firstToken = timer("first.token", "Time from a request to its first token");
    this.perToken = timer("per.token", "Time between two tokens of a request");
    this.pause = timer("pause", "Time without a token around the loss of a replica");
  }

  private Counter counter(String name, String description) {
    return Counter.builder("flotilla.serve." + name).description(description).register(registry);
  }

  private Timer timer(String name, String description) {
    return Timer.builder("flotilla.serve." + name)
        .description(description)
        .publishPercentiles(0.5, 0.95)
        .register(registry);
  }

  private Replica replica(String id) {
    return replicas.computeIfAbsent(id, i -> new Replica(registry, i));
  }

  void step(String id, long elapsedNs, int rows) {
    Replica replica = replica(id);
    replica.step.record(elapsedNs, TimeUnit.NANOSECONDS);
    replica.rows.increment(rows);
  }

  void queue(String id, int running, int waiting) {
    Replica replica = replica(id);
    replica.running = running;
    replica.waiting = waiting;
  }

  /** Reports a stage's cache until the meter is removed. */
  Meter stage(String replica, int index, Stage stage) {
    return Gauge.builder("flotilla.serve.kv.free.positions", stage, Stage::freePositions)
        .tag("replica", replica)
        .tag("stage", Integer.toString(index))
        .register(registry);
  }

  void remove(Meter meter) {
    Meter _ = registry.remove(meter);
  }

  void gone(String id) {
    Replica replica = replicas.remove(id);
    if (replica != null) {
      replica.meters.forEach(registry::remove);
    }
  }

  void prompt(int tokens) {
    promptTokens.increment(tokens);
  }

  void firstToken(long elapsedNs) {
    generatedTokens.increment();
    firstToken.record(elapsedNs, TimeUnit.NANOSECONDS);
  }

  void nextToken(long elapsedNs) {
    generatedTokens.increment();
    perToken.record(elapsedNs, TimeUnit.NANOSECONDS);
  }

  void embedded() {
    embeddings.increment();
  }

  void resumed() {
    resumptions.increment();
  }

  void pause(long elapsedNs) {
    pause.record(elapsedNs, TimeUnit.NANOSECONDS);
  }
}

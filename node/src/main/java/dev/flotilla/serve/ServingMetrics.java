package dev.flotilla.serve;

import io.micrometer.core.instrument.Counter;
import io.micrometer.core.instrument.FunctionCounter;
import io.micrometer.core.instrument.Gauge;
import io.micrometer.core.instrument.Meter;
import io.micrometer.core.instrument.MeterRegistry;
import io.micrometer.core.instrument.MultiGauge;
import io.micrometer.core.instrument.Tags;
import io.micrometer.core.instrument.Timer;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.function.ToDoubleFunction;
import java.util.stream.Collectors;

/**
 * What serving measures. Heads report steps and queues; routers report what a client sees, on the
 * node that the client talks to.
 */
final class ServingMetrics {

  /** What a head says of its replica: written by the head's thread, read by any. */
  private static final class Replica {
    volatile int running;
    volatile int waiting;
    volatile int heldBlocks;
    volatile int idleBlocks;
    volatile int keptBlocks;
    volatile int blankBlocks;
    volatile int lagBlocks;
    volatile Scheduler.Counts counts = Scheduler.Counts.NONE;
    private Map<String, Integer> waitingByTenant = Map.of();
    private final String id;
    private final MeterRegistry registry;
    private final MultiGauge byTenant;
    final Timer step;
    final Counter rows;
    final Counter copiedBytes;
    private final List<Meter> meters = new ArrayList<>();

    Replica(MeterRegistry registry, String id) {
      this.id = id;
      this.registry = registry;
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
      meters.add(step);
      meters.add(rows);
      gauge("requests.running", "Requests with positions in the KV cache", r -> r.running);
      gauge("requests.waiting", "Requests that wait for room", r -> r.waiting);
      gauge(
          "kv.free.positions",
          "Positions of the KV cache that no request holds",
          r -> (r.idleBlocks + r.keptBlocks + r.blankBlocks) * Scheduler.BLOCK);
      blocks("held", r -> r.heldBlocks);
      blocks("idle", r -> r.idleBlocks);
      blocks("kept", r -> r.keptBlocks);
      blocks("blank", r -> r.blankBlocks);
      gauge(
          "kv.copies.lag.blocks",
          "Full blocks of running requests of which another replica is to have a copy, and has none",
          r -> r.lagBlocks);
      copiedBytes =
          Counter.builder("flotilla.serve.kv.copied.bytes")
              .description("Content of blocks that was sent to another replica, as copies")
              .tag("replica", id)
              .register(registry);
      meters.add(copiedBytes);
      count("prefix.tokens", "Prompt tokens begun", Scheduler.Counts::promptTokens);
      count(
          "prefix.found.tokens",
          "Prompt tokens found in the KV cache",
          Scheduler.Counts::foundTokens);
      count("drafted.tokens", "Tokens guessed", Scheduler.Counts::draftedTokens);
      count("accepted.tokens", "Guesses that were right", Scheduler.Counts::acceptedTokens);
      count("evictions", "Requests that lost their blocks", Scheduler.Counts::evictions);
      count(
          "replayed.tokens",
          "Tokens of continued requests that were computed again",
          Scheduler.Counts::replayedTokens);
      byTenant =
          MultiGauge.builder("flotilla.serve.tenant.waiting")
              .description("Requests that wait, of each tenant that has some here")
              .tag("replica", id)
              .register(registry);
    }

    private void gauge(String name, String description, ToDoubleFunction<Replica> value) {
      meters.add(
          Gauge.builder("flotilla.serve." + name, this, value)
              .description(description)
              .tag("replica", id)
              .register(registry));
    }

    private void blocks(String state, ToDoubleFunction<Replica> value) {
      meters.add(
          Gauge.builder("flotilla.serve.kv.blocks", this, value)
              .description(
                  "Blocks of the KV cache: held by requests, idle with text that may come again,"
                      + " kept as copies for another replica's requests, or blank")
              .tag("replica", id)
              .tag("state", state)
              .register(registry));
    }

    private void count(String name, String description, ToDoubleFunction<Scheduler.Counts> value) {
      meters.add(
          FunctionCounter.builder(
                  "flotilla.serve." + name, this, r -> value.applyAsDouble(r.counts))
              .description(description)
              .tag("replica", id)
              .register(registry));
    }

    void show(Scheduler scheduler) {
      running = scheduler.running();
      waiting = scheduler.waiting();
      BlockLedger ledger = scheduler.ledger();
      heldBlocks = ledger.held();
      idleBlocks = ledger.idle();
      keptBlocks = ledger.kept();
      blankBlocks = ledger.blocks() - ledger.held() - ledger.idle() - ledger.kept();
      lagBlocks = scheduler.copies().lag();
      counts = scheduler.counts();
      Map<String, Integer> now = scheduler.waitingByTenant();
      if (!now.equals(waitingByTenant)) {
        waitingByTenant = now;
        byTenant.register(
            now.entrySet().stream()
                .map(e -> MultiGauge.Row.of(Tags.of("tenant", e.getKey()), e.getValue()))
                .collect(Collectors.toList()),
            true);
      }
    }

    void remove() {
      byTenant.register(List.of(), true);
      meters.forEach(registry::remove);
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

  /** Content of blocks was sent to another replica. */
  void copied(String id, long bytes) {
    replica(id).copiedBytes.increment((double) bytes);
  }

  /** The state of a replica's queue and cache; on the head's thread. */
  void queue(String id, Scheduler scheduler) {
    replica(id).show(scheduler);
  }

  void gone(String id) {
    Replica replica = replicas.remove(id);
    if (replica != null) {
      replica.remove();
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

package dev.flotilla.gateway;

import io.micrometer.core.instrument.Counter;
import io.micrometer.core.instrument.MeterRegistry;
import io.micrometer.core.instrument.Timer;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.LongSupplier;

/** What passes through this node's gateway now, and since it started. */
final class Traffic {

  private static final int SLOTS = 12;
  private static final long SLOT_NS = 250_000_000L;

  private final LongSupplier nanoTime;
  private final AtomicInteger running = new AtomicInteger();
  private final Counter promptTokens;
  private final Counter generatedTokens;
  private final Timer firstToken;
  private final Timer whole;

  /** Tokens per quarter of a second, for the last three seconds, and the one now filling. */
  private final long[] tokensBySlot = new long[SLOTS + 1];

  private long newestSlot;

  Traffic(MeterRegistry metrics, LongSupplier nanoTime) {
    this.nanoTime = nanoTime;
    this.newestSlot = slotNow();
    this.promptTokens =
        Counter.builder("flotilla.prompt.tokens")
            .description("Prompt tokens of requests that this node took")
            .register(metrics);
    this.generatedTokens =
        Counter.builder("flotilla.generated.tokens")
            .description("Tokens generated for requests that this node took")
            .register(metrics);
    this.firstToken =
        Timer.builder("flotilla.time.to.first.token")
            .description("From the request to its first token")
            .publishPercentileHistogram()
            .register(metrics);
    this.whole =
        Timer.builder("flotilla.request.duration")
            .description("From the request to the end of its answer")
            .publishPercentileHistogram()
            .register(metrics);
    metrics.gauge("flotilla.requests.running", running);
  }

  /** One request that is being answered. */
  final class Request {
    private final long startNs = nanoTime.getAsLong();
    private boolean first = true;

    /** Another token came; called by serving threads. */
    void token() {
      generatedTokens.increment();
      synchronized (Traffic.this) {
        if (first) {
          first = false;
          firstToken.record(nanoTime.getAsLong() - startNs, TimeUnit.NANOSECONDS);
        }
        advance();
        tokensBySlot[Math.floorMod(newestSlot, tokensBySlot.length)]++;
      }
    }

    void end() {
      running.decrementAndGet();
      whole.record(nanoTime.getAsLong() - startNs, TimeUnit.NANOSECONDS);
    }
  }

  Request request(int prompt) {
    running.incrementAndGet();
    promptTokens.increment(prompt);
    return new Request();
  }

  int requestsRunning() {
    return running.get();
  }

  /** Over the last three seconds. */
  synchronized double tokensPerSecond() {
    advance();
    long tokens = 0;
    for (int i = 1; i <= SLOTS; i++) {
      tokens += tokensBySlot[Math.floorMod(newestSlot - i, tokensBySlot.length)];
    }
    return tokens * 1e9 / (SLOTS * SLOT_NS);
  }

  private long slotNow() {
    return Math.floorDiv(nanoTime.getAsLong(), SLOT_NS);
  }

  private void advance() {
    long now = slotNow();
    for (long slot = Math.max(newestSlot + 1, now - SLOTS); slot <= now; slot++) {
      tokensBySlot[Math.floorMod(slot, tokensBySlot.length)] = 0;
    }
    newestSlot = Math.max(newestSlot, now);
  }
}

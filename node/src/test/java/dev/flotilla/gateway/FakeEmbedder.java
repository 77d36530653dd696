package dev.flotilla.gateway;

import dev.flotilla.FlotillaException;
import dev.flotilla.serve.Embedder;
import dev.flotilla.serve.EmbeddingRequest;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;

/** Embeds each text as a vector of its own, on a thread of its own, when a test lets it. */
final class FakeEmbedder implements Embedder {

  static final int WIDTH = 64;

  /** Nothing is answered before it is open. */
  volatile CountDownLatch gate = new CountDownLatch(0);

  volatile Optional<FlotillaException> failure = Optional.empty();
  volatile Optional<FlotillaException> refusal = Optional.empty();
  final List<EmbeddingRequest> requests = new CopyOnWriteArrayList<>();
  final AtomicInteger running = new AtomicInteger();
  final AtomicInteger runningMost = new AtomicInteger();

  @Override
  public Runnable embed(EmbeddingRequest request, Sink sink) {
    requests.add(request);
    if (refusal.isPresent()) {
      throw refusal.get();
    }
    runningMost.accumulateAndGet(running.incrementAndGet(), Math::max);
    AtomicBoolean ended = new AtomicBoolean();
    CountDownLatch wait = gate;
    Thread.startVirtualThread(
        () -> {
          try {
            wait.await();
          } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
          }
          if (ended.compareAndSet(false, true)) {
            running.decrementAndGet();
            failure.ifPresentOrElse(sink::failed, () -> sink.embedded(vector(request.tokens())));
          }
        });
    return () -> {
      if (ended.compareAndSet(false, true)) {
        running.decrementAndGet();
      }
    };
  }

  /** Of length 1, and the tokens' own. */
  static float[] vector(int[] tokens) {
    float[] vector = new float[WIDTH];
    double squares = 0;
    for (int i = 0; i < WIDTH; i++) {
      vector[i] = (tokens[i % tokens.length] * 31 + i * 7) % 101 - 50;
      squares += vector[i] * vector[i];
    }
    for (int i = 0; i < WIDTH; i++) {
      vector[i] /= (float) Math.sqrt(squares);
    }
    return vector;
  }
}

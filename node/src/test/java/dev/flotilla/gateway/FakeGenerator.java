package dev.flotilla.gateway;

import dev.flotilla.FlotillaException;
import dev.flotilla.serve.GenerationRequest;
import dev.flotilla.serve.Generator;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Function;

/** Says what a test tells it to, token by token on a thread of its own, until cancelled. */
final class FakeGenerator implements Generator {

  /** The answer to each request, as token ids; an empty answer goes on for ever. */
  volatile Function<GenerationRequest, int[]> answer = request -> TestText.tokens("Hello!");

  /** A pause before each token, or before every so many. */
  volatile long delayMs;

  volatile int tokensPerPause = 1;

  /** Fails after so many tokens. */
  volatile int failAfter = Integer.MAX_VALUE;

  volatile Optional<FlotillaException> failure = Optional.empty();
  volatile boolean refuse;

  final AtomicInteger running = new AtomicInteger();
  final AtomicInteger emitted = new AtomicInteger();
  final List<GenerationRequest> requests = new CopyOnWriteArrayList<>();

  @Override
  public Generation resume(GenerationRequest request, int[] generated, Sink sink) {
    requests.add(request);
    if (refuse) {
      throw failure.orElseThrow();
    }
    AtomicBoolean cancelled = new AtomicBoolean();
    running.incrementAndGet();
    int[] tokens = answer.apply(request);
    Thread.startVirtualThread(
        () -> {
          FinishReason reason = FinishReason.STOP;
          Optional<FlotillaException> error = Optional.empty();
          for (int i = generated.length; tokens.length == 0 || i < tokens.length; i++) {
            if (i >= failAfter) {
              error = failure;
              break;
            }
            if (i >= request.maxTokens()) {
              reason = FinishReason.LENGTH;
              break;
            }
            if (i % tokensPerPause == 0) {
              pause();
            }
            if (cancelled.get()) {
              reason = FinishReason.CANCELLED;
              break;
            }
            emitted.incrementAndGet();
            sink.token(tokens.length == 0 ? 'a' : tokens[i]);
          }
          running.decrementAndGet();
          if (error.isPresent()) {
            sink.failed(error.get());
          } else {
            sink.finished(reason);
          }
        });
    return () -> cancelled.set(true);
  }

  private void pause() {
    if (delayMs > 0) {
      try {
        Thread.sleep(delayMs);
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
      }
    }
  }
}

package dev.flotilla.data.search;

import dev.flotilla.FlotillaException;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.Future;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.function.Function;
import java.util.function.LongSupplier;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The first answer of several who may know: one is asked; when it fails the next is asked at once,
 * and when it is slow the next is asked beside it (a hedged request: Dean and Barroso, The Tail at
 * Scale, CACM 2013).
 */
final class SearchHedge {

  private static final Logger log = LoggerFactory.getLogger(SearchHedge.class);

  /** How one answered: one of the two is there. */
  record Outcome<T>(Optional<T> answer, Optional<Throwable> failure) {}

  /** Asks one; the outcome is handed over on any thread. */
  @FunctionalInterface
  interface Ask<T> {
    Future<?> of(String candidate, Consumer<Outcome<T>> outcome);
  }

  private SearchHedge() {}

  /**
   * The first answer; empty if all failed or none came in time. Those still asked are cancelled.
   *
   * @param refusal what a failure says about the question itself: it is thrown, since others would
   *     say the same
   * @param onHedge called when one is asked beside a slow one
   */
  static <T> Optional<T> first(
      List<String> candidates,
      Ask<T> ask,
      Function<Throwable, Optional<FlotillaException>> refusal,
      Runnable onHedge,
      long hedgeAfterNs,
      long deadlineNs,
      LongSupplier nanoTime)
      throws InterruptedException {
    LinkedBlockingQueue<Outcome<T>> outcomes = new LinkedBlockingQueue<>();
    List<Future<?>> asked = new ArrayList<>();
    int failed = 0;
    try {
      while (failed < candidates.size()) {
        long leftNs = deadlineNs - nanoTime.getAsLong();
        if (leftNs <= 0) {
          return Optional.empty();
        }
        if (asked.size() == failed) {
          asked.add(ask.of(candidates.get(asked.size()), outcomes::add));
        }
        boolean canHedge = asked.size() < candidates.size();
        Outcome<T> outcome =
            outcomes.poll(canHedge ? Math.min(leftNs, hedgeAfterNs) : leftNs, TimeUnit.NANOSECONDS);
        if (outcome == null) {
          if (canHedge) {
            onHedge.run();
            asked.add(ask.of(candidates.get(asked.size()), outcomes::add));
          }
        } else if (outcome.answer.isPresent()) {
          return outcome.answer;
        } else {
          Throwable failure = outcome.failure.orElseThrow();
          Optional<FlotillaException> refused = refusal.apply(failure);
          if (refused.isPresent()) {
            throw refused.get();
          }
          log.debug("a replica failed: {}", failure.toString());
          failed++;
        }
      }
      return Optional.empty();
    } finally {
      asked.forEach(future -> future.cancel(true));
    }
  }
}

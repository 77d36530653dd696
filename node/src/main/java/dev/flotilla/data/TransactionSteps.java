package dev.flotilla.data;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.data.Transactions.Step;
import dev.flotilla.data.Transactions.StepResult;
import java.util.Optional;

/** Runs the steps of a transaction that are not SQL, in this thread's transaction. */
final class TransactionSteps implements GridTransactions.Steps {

  private final Caches caches;

  TransactionSteps(Caches caches) {
    this.caches = caches;
  }

  @Override
  public StepResult run(Step step) {
    return switch (step) {
      case Step.Put put -> {
        Cache cache = cache(put.cache());
        put.value()
            .ifPresentOrElse(value -> cache.put(put.key(), value), () -> cache.remove(put.key()));
        yield new StepResult(Optional.empty(), Optional.empty());
      }
      case Step.Get get -> new StepResult(Optional.empty(), cache(get.cache()).get(get.key()));
      case Step.Send _, Step.Acknowledge _ ->
          throw new FlotillaException(
              Code.INVALID, "a step of a queue", "This version takes none; use SQL and caches.");
      case Step.Statement _ -> throw new IllegalStateException("a statement is no other step");
    };
  }

  /** The engine makes no cache inside a transaction. */
  private Cache cache(String name) {
    return caches
        .find(name)
        .orElseThrow(
            () ->
                new FlotillaException(
                    Code.NOT_FOUND, "there is no cache " + name, "Make it before."));
  }
}

package dev.flotilla.data.sql;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.data.cache.Cache;
import dev.flotilla.data.cache.Caches;
import dev.flotilla.data.queue.Queue;
import dev.flotilla.data.queue.Queues;
import dev.flotilla.data.sql.Transactions.Step;
import dev.flotilla.data.sql.Transactions.StepResult;
import java.nio.charset.StandardCharsets;
import java.util.Optional;

/** Runs the steps of a transaction that are not SQL, in this thread's transaction. */
public final class TransactionSteps implements GridTransactions.Steps {

  private final Caches caches;
  private final Queues queues;

  public TransactionSteps(Caches caches, Queues queues) {
    this.caches = caches;
    this.queues = queues;
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
      case Step.Send send -> {
        String id = queue(send.queue()).send(Queue.Outgoing.of(send.key(), send.body()));
        yield new StepResult(Optional.empty(), Optional.of(id.getBytes(StandardCharsets.UTF_8)));
      }
      case Step.Acknowledge ack -> {
        queue(ack.queue()).acknowledge(ack.receipts(), Optional.empty());
        yield new StepResult(Optional.empty(), Optional.empty());
      }
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

  private Queue queue(String name) {
    return queues
        .find(name)
        .orElseThrow(
            () ->
                new FlotillaException(
                    Code.NOT_FOUND, "there is no queue " + name, "Make it before."));
  }
}

package dev.flotilla.data.sql;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.data.sql.Transactions.Options;
import dev.flotilla.data.sql.Transactions.Session;
import dev.flotilla.data.sql.Transactions.Step;
import dev.flotilla.data.sql.Transactions.StepResult;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import java.util.function.LongSupplier;
import java.util.function.Supplier;

/**
 * Transactions that stay open across calls. The engine binds a transaction to a thread, so each has
 * one of its own, which waits for what to do next.
 */
final class TransactionSessions implements AutoCloseable {

  /** Something to do on the transaction's thread. */
  private record Task(
      Function<Transaction, Object> action, boolean last, CompletableFuture<Object> result) {}

  /** The body ends so when it is to be rolled back. */
  private static final class RolledBack extends RuntimeException {
    private static final long serialVersionUID = 1L;

    RolledBack() {
      super("rolled back", null, false, false);
    }
  }

  private static final int OPEN_MAX = 1_000;

  private final GridTransactions transactions;
  private final LongSupplier nanoTime;
  private final Map<String, Open> open = new ConcurrentHashMap<>();

  TransactionSessions(GridTransactions transactions, LongSupplier nanoTime) {
    this.transactions = transactions;
    this.nanoTime = nanoTime;
  }

  Session begin(Options options) {
    return begin(options, Optional.empty()).orElseThrow();
  }

  /** Empty if a transaction of the caller's id had committed before. */
  Optional<Session> begin(Options options, Optional<String> callersId) {
    if (open.size() >= OPEN_MAX) {
      throw new FlotillaException(
          Code.BUSY,
          "this node has " + OPEN_MAX + " open transactions",
          "Commit or roll back some, or try again later.");
    }
    Open session = new Open(options, callersId);
    Thread.ofVirtual().name("transaction-session").start(session);
    return session.begun();
  }

  Optional<Session> find(String id) {
    return Optional.ofNullable(open.get(id));
  }

  private final class Open implements Session, Runnable {

    private final Options options;
    private final Optional<String> callersId;
    private final long deadlineNs;
    private final LinkedBlockingQueue<Task> tasks = new LinkedBlockingQueue<>();
    private final CompletableFuture<Optional<String>> id = new CompletableFuture<>();
    private final CompletableFuture<Void> ended = new CompletableFuture<>();

    private Optional<Task> broken = Optional.empty();

    Open(Options options, Optional<String> callersId) {
      this.options = options;
      this.callersId = callersId;
      this.deadlineNs = nanoTime.getAsLong() + options.timeout().toNanos();
    }

    Optional<Session> begun() {
      return get(id).map(_ -> this);
    }

    @Override
    public void run() {
      try {
        if (callersId.isPresent()) {
          var _ = transactions.runOnce(callersId.get(), options, this::opened);
        } else {
          transactions.run(options, this::opened);
        }
        id.complete(Optional.empty());
        ended.complete(null);
      } catch (RolledBack e) {
        ended.complete(null);
      } catch (RuntimeException e) {
        broken.ifPresent(task -> task.result().completeExceptionally(e));
        id.completeExceptionally(e);
        ended.completeExceptionally(e);
      } finally {
        id.thenAccept(name -> name.ifPresent(open::remove));
        for (Task left = tasks.poll(); left != null; left = tasks.poll()) {
          left.result().completeExceptionally(over());
        }
      }
    }

    private boolean opened(Transaction transaction) {
      open.put(transaction.id(), this);
      id.complete(Optional.of(transaction.id()));
      work(transaction);
      return true;
    }

    private void work(Transaction transaction) {
      while (true) {
        Task task;
        try {
          task = tasks.poll(deadlineNs - nanoTime.getAsLong(), TimeUnit.NANOSECONDS);
        } catch (InterruptedException e) {
          throw new RolledBack();
        }
        if (task == null) {
          throw new FlotillaException(
              Code.BUSY,
              "the transaction was open for more than " + options.timeout().toMillis() + " ms",
              "It was rolled back; begin again, with a longer time-out.");
        }
        try {
          task.result().complete(task.action().apply(transaction));
        } catch (FlotillaException e) {
          task.result().completeExceptionally(e);
          throw new RolledBack();
        } catch (RolledBack e) {
          task.result().completeExceptionally(e);
          throw e;
        } catch (RuntimeException e) {
          // The engine's: how the transaction ends says what it means.
          broken = Optional.of(task);
          throw e;
        }
        if (task.last()) {
          return;
        }
      }
    }

    private Object act(Function<Transaction, Object> action, boolean last) {
      CompletableFuture<Object> result = new CompletableFuture<>();
      Task task = new Task(action, last, result);
      tasks.add(task);
      if (ended.isDone() && tasks.remove(task)) {
        throw over();
      }
      return get(result);
    }

    private FlotillaException over() {
      return new FlotillaException(
          Code.NOT_FOUND,
          "the transaction has ended: committed, rolled back, or out of time",
          "Begin another.");
    }

    @Override
    public String id() {
      return get(id).orElseThrow();
    }

    @Override
    public StepResult step(Step step) {
      return (StepResult) act(transaction -> transactions.step(transaction, step, ""), false);
    }

    @Override
    public SqlResult sql(Sql.Request request, Sql.Cancel cancel) {
      return (SqlResult) act(_ -> GridTransactions.inThisTransaction(request, cancel), false);
    }

    /** What work brought, or how it failed: in the latter case, too, the transaction goes on. */
    private record Done<T>(Supplier<T> result) {}

    @Override
    @SuppressWarnings("unchecked")
    public <T> T call(Supplier<T> work) {
      return ((Done<T>)
              act(
                  transaction -> {
                    try {
                      T result = work.get();
                      return new Done<>(() -> result);
                    } catch (RuntimeException | Error e) {
                      return new Done<>(
                          () -> {
                            throw e;
                          });
                    }
                  },
                  false))
          .result()
          .get();
    }

    @Override
    public void commit() {
      act(transaction -> true, true);
      get(ended);
    }

    @Override
    public void rollback() {
      try {
        act(
            transaction -> {
              throw new RolledBack();
            },
            true);
      } catch (RolledBack done) {
        get(ended);
      }
    }
  }

  private static <T> T get(CompletableFuture<T> result) {
    try {
      return result.get();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new FlotillaException(Code.FAILED, "interrupted", "", e);
    } catch (ExecutionException e) {
      if (e.getCause() instanceof RuntimeException known) {
        throw known;
      }
      throw new IllegalStateException(e.getCause());
    }
  }

  @Override
  public void close() {
    List.copyOf(open.values()).forEach(Open::rollback);
  }
}

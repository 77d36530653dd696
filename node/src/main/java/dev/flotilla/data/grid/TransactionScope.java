package dev.flotilla.data.grid;

import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/**
 * The transaction that this thread runs in: the seam for every part whose operations may take part
 * in one (cache, queue).
 *
 * <p>Taking part costs nothing: while {@code Transactions.run} runs its body, the engine's
 * transaction is bound to the thread, so every operation on a cache of atomicity {@code
 * TRANSACTIONAL} belongs to it, and {@link Grid#transact} inside it joins it instead of starting
 * one. The isolation is repeatable read with locks at the first touch (or optimistic serializable),
 * as in {@link Grid.TransactionMode}. A part does three things more:
 *
 * <ul>
 *   <li>says what it did by {@link #step}, so that people can see it;
 *   <li>puts off what must not happen unless the transaction commits (waking consumers, counting,
 *       filling a near cache) with {@link #afterCommit};
 *   <li>does no retry of its own while {@link #current} is present: the caller of the transaction
 *       does.
 * </ul>
 */
public final class TransactionScope {

  private static final ThreadLocal<@Nullable TransactionScope> CURRENT = new ThreadLocal<>();

  private final String id;
  private final Consumer<String> onStep;
  private final List<Runnable> afterCommit = new ArrayList<>();

  public TransactionScope(String id, Consumer<String> onStep) {
    this.id = id;
    this.onStep = onStep;
  }

  /** The one this thread is in. */
  public static Optional<TransactionScope> current() {
    return Optional.ofNullable(CURRENT.get());
  }

  /** Binds it to this thread; a thread has one at most. */
  public void enter() {
    if (CURRENT.get() != null) {
      throw new IllegalStateException("a transaction inside a transaction");
    }
    CURRENT.set(this);
  }

  /** Unbinds it. */
  public void leave() {
    CURRENT.remove();
  }

  /** The transaction's id in the cluster. */
  String id() {
    return id;
  }

  /**
   * Notes an operation that now belongs to the transaction.
   *
   * @param what for people, such as {@code "cache prices: put apple"}
   */
  public void step(String what) {
    onStep.accept(what);
  }

  /** Runs this once the transaction has committed; not at all if it is rolled back. */
  public void afterCommit(Runnable action) {
    afterCommit.add(action);
  }

  /** What waits for the commit, in order. */
  public List<Runnable> afterCommit() {
    return afterCommit;
  }
}

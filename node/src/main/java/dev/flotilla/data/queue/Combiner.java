package dev.flotilla.data.queue;

import dev.flotilla.FlotillaException;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;

/**
 * Lets callers that come at once share one commit: whoever finds nobody at work does the work of
 * all who wait, its own included. If the shared work fails and nothing was done, each does its own
 * alone, so that nobody fails for another's sake; if it cannot be told, all are told so.
 */
final class Combiner<A, R> {

  private static final class Waiting<A, R> {
    final List<A> items;
    @Nullable List<R> results;
    @Nullable FlotillaException failure;
    boolean alone;

    Waiting(List<A> items) {
      this.items = items;
    }
  }

  private final int most;
  private final Function<List<A>, List<R>> work;
  private final ReentrantLock atWork = new ReentrantLock();
  private final Deque<Waiting<A, R>> queue = new ArrayDeque<>();

  /**
   * @param most items in one go
   * @param work answers one result for each item, in order
   */
  Combiner(int most, Function<List<A>, List<R>> work) {
    this.most = most;
    this.work = work;
  }

  List<R> submit(List<A> items) {
    Waiting<A, R> mine = new Waiting<>(items);
    synchronized (queue) {
      queue.add(mine);
    }
    atWork.lock();
    try {
      if (mine.results == null && !mine.alone) {
        workForAll();
      }
    } finally {
      atWork.unlock();
    }
    if (mine.failure != null) {
      throw mine.failure;
    }
    List<R> results = mine.results;
    return results != null ? results : work.apply(items);
  }

  private void workForAll() {
    List<Waiting<A, R>> batch = new ArrayList<>();
    List<A> all = new ArrayList<>();
    synchronized (queue) {
      while (!queue.isEmpty()
          && (batch.isEmpty() || all.size() + queue.peek().items.size() <= most)) {
        Waiting<A, R> next = queue.remove();
        batch.add(next);
        all.addAll(next.items);
      }
    }
    batch.forEach(each -> each.alone = true);
    if (batch.size() == 1) {
      batch.getFirst().results = work.apply(all);
      return;
    }
    List<R> results;
    try {
      results = work.apply(all);
    } catch (FlotillaException e) {
      if (e.code() == FlotillaException.Code.OUTCOME_UNKNOWN) {
        // It may have been done: nobody may do its own again.
        batch.forEach(each -> each.failure = e);
      }
      return;
    }
    int from = 0;
    for (Waiting<A, R> each : batch) {
      each.results = results.subList(from, from + each.items.size());
      from += each.items.size();
    }
  }
}

package dev.flotilla.data.grid;

import dev.flotilla.FlotillaException;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.function.Function;
import java.util.function.ToLongFunction;
import org.jspecify.annotations.Nullable;

/**
 * Lets callers that come at once share one commit: whoever finds nobody at work does the work of
 * all who wait, its own included; the next batch gathers meanwhile, and its first caller is told to
 * lead before the others hear of their results. It waits for a moment for as many as came together
 * the last time: they have just heard, and would otherwise take turns in two halves. If the shared
 * work fails and nothing was done, each does its own alone, so that nobody fails for another's
 * sake; if it cannot be told, all are told so.
 */
public final class Combiner<A, R> {

  private static final class Call<A, R> {
    final List<A> items;

    /** Woken when its work has ended, or before that, to lead. */
    final CompletableFuture<Boolean> woken = new CompletableFuture<>();

    boolean ended;
    @Nullable List<R> results;
    @Nullable FlotillaException failure;

    Call(List<A> items) {
      this.items = items;
    }
  }

  /** Short beside a commit that is forced to a disk. */
  private static final long COMPANY_NS = 50_000;

  private final long most;
  private final ToLongFunction<A> weight;
  private final Function<List<A>, List<R>> shared;
  private final Function<List<A>, List<R>> alone;
  private final Deque<Call<A, R>> waiting = new ArrayDeque<>();
  private boolean atWork;

  /** Callers that came together lately. */
  private int company = 1;

  /**
   * @param most weight in one go; what one caller brings is never divided
   * @param shared answers one result for each item, in order
   * @param alone the same for one caller's items, after the shared work has failed
   */
  public Combiner(
      long most,
      ToLongFunction<A> weight,
      Function<List<A>, List<R>> shared,
      Function<List<A>, List<R>> alone) {
    this.most = most;
    this.weight = weight;
    this.shared = shared;
    this.alone = alone;
  }

  /** Returns the results of these, done with whatever others wait for. */
  public List<R> submit(List<A> items) {
    Call<A, R> mine = new Call<>(items);
    boolean lead;
    synchronized (waiting) {
      waiting.add(mine);
      lead = !atWork;
      atWork = true;
    }
    if (!lead) {
      mine.woken.join();
    }
    if (!mine.ended) {
      workForAll();
    }
    if (mine.failure != null) {
      throw mine.failure;
    }
    List<R> results = mine.results;
    return results != null ? results : alone.apply(items);
  }

  private void workForAll() {
    List<Call<A, R>> batch = new ArrayList<>();
    List<A> all = new ArrayList<>();
    awaitCompany();
    gather(batch, all);
    try {
      List<R> results = shared.apply(all);
      int from = 0;
      for (Call<A, R> each : batch) {
        each.results = results.subList(from, from + each.items.size());
        from += each.items.size();
      }
    } catch (FlotillaException e) {
      if (e.code() == FlotillaException.Code.OUTCOME_UNKNOWN) {
        // It may have been done: nobody may do its own again.
        batch.forEach(each -> each.failure = e);
      }
    } finally {
      handOver(batch.size());
      for (Call<A, R> each : batch) {
        each.ended = true;
        each.woken.complete(true);
      }
    }
  }

  /** Who leads is the first of those who wait, and so among them. */
  private void gather(List<Call<A, R>> batch, List<A> all) {
    synchronized (waiting) {
      long sum = 0;
      while (!waiting.isEmpty()) {
        long more = waiting.element().items.stream().mapToLong(weight).sum();
        if (!batch.isEmpty() && sum + more > most) {
          return;
        }
        sum += more;
        Call<A, R> next = waiting.remove();
        batch.add(next);
        all.addAll(next.items);
      }
    }
  }

  /** Yields, since to park takes about as long as the whole wait. */
  @SuppressWarnings("ThreadPriorityCheck")
  private void awaitCompany() {
    long untilNs = System.nanoTime() + COMPANY_NS;
    while (!isCompanyThere() && System.nanoTime() - untilNs < 0) {
      Thread.yield();
    }
  }

  private boolean isCompanyThere() {
    synchronized (waiting) {
      return waiting.size() >= company;
    }
  }

  private void handOver(int served) {
    Call<A, R> next;
    synchronized (waiting) {
      company = served + waiting.size();
      next = waiting.peek();
      atWork = next != null;
    }
    if (next != null) {
      next.woken.complete(true);
    }
  }
}

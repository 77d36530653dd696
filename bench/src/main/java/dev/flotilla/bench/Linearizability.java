package dev.flotilla.bench;

import dev.flotilla.bench.History.Operation;
import dev.flotilla.bench.History.Outcome;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import org.jspecify.annotations.Nullable;

/**
 * Whether a history could have come from one copy that does one operation at a time, each at a
 * moment between its call and its end.
 *
 * <p>The search is Wing and Gong's ("Testing and verifying concurrent objects", 1993) with Lowe's
 * memory of configurations already tried ("Testing for linearizability", 2017). The events, calls
 * and ends, form a list in time order. Going through it from the start, each call seen before the
 * first end may be the next to take effect: if the model allows it there, it is lifted out with its
 * end and the search starts again from the front. On reaching the end of an operation not yet
 * lifted out, the last choice was wrong and is undone. A pair (set lifted out, state) is never
 * tried twice.
 *
 * <p>Linearizability is local (Herlihy and Wing, 1990): each key is judged alone, which keeps the
 * sets small. An operation of unknown outcome has no end; it may be lifted out anywhere, or never.
 * Each would double the search, so two things are not tried, for either leads nowhere that another
 * way does not. One that would do the same as another is not lifted out before that one if it was
 * called later. And none is lifted out whose effect the next operation does not need: where that
 * one could come without it, and either overwrites it, or changes nothing so that it can come
 * first.
 */
final class Linearizability {

  /** One copy: from a state and an operation to the state after it, or nothing if not allowed. */
  @FunctionalInterface
  interface Model<S> {
    Optional<S> apply(S state, Operation operation);
  }

  private static final class Event {
    final int id;
    final Operation operation;
    final boolean isCall;
    final long timeNs;
    Event end;
    Event previous;
    Event next;

    /** Of unknown outcome too, would do the same, and was called before. */
    @Nullable Event twin;

    Event(int id, Operation operation, boolean isCall, long timeNs) {
      this.id = id;
      this.operation = operation;
      this.isCall = isCall;
      this.timeNs = timeNs;
      this.end = this;
      this.previous = this;
      this.next = this;
    }
  }

  /** Configurations after which the search gives up rather than fill the memory. */
  private static final int MOST_CONFIGURATIONS = 2_000_000;

  /**
   * @param without the state before the last operation, if that one's outcome is unknown
   */
  private record Tried(BitSet lifted, Object state, Optional<?> without) {}

  private record Choice<S>(Event call, S before, Optional<S> without) {}

  private Linearizability() {}

  /** The keys whose histories are not linearizable, with the operations of each. */
  static <S> Map<String, List<Operation>> violations(
      Collection<Operation> history, S initial, Model<S> model) {
    Map<String, List<Operation>> byKey = new TreeMap<>();
    for (Operation operation : history) {
      if (operation.outcome() != Outcome.NOT_DONE) {
        byKey.computeIfAbsent(operation.key(), k -> new ArrayList<>()).add(operation);
      }
    }
    byKey.values().removeIf(operations -> isLinearizable(operations, initial, model));
    return byKey;
  }

  /**
   * Whether the operations on one key are linearizable.
   *
   * @throws IllegalStateException if the search grows too large to decide
   */
  static <S> boolean isLinearizable(List<Operation> operations, S initial, Model<S> model) {
    Event head = link(operations);
    Set<Tried> tried = new HashSet<>();
    List<Choice<S>> choices = new ArrayList<>();
    BitSet lifted = new BitSet(operations.size());
    long certain = operations.stream().filter(o -> o.outcome() == Outcome.DONE).count();
    long certainLifted = 0;
    S state = initial;
    Optional<S> without = Optional.empty();
    Event event = head.next;
    while (certainLifted < certain) {
      if (event != head && event.isCall) {
        Optional<S> after = next(event, state, without, lifted, model);
        if (after.isPresent()) {
          BitSet with = (BitSet) lifted.clone();
          with.set(event.id);
          boolean sure = event.operation.outcome() == Outcome.DONE;
          Optional<S> skipped = sure ? Optional.empty() : Optional.of(state);
          if (tried.add(new Tried(with, after.get(), skipped))) {
            if (tried.size() > MOST_CONFIGURATIONS) {
              throw new IllegalStateException(
                  "undecided after " + MOST_CONFIGURATIONS + " configurations; use more keys");
            }
            choices.add(new Choice<>(event, state, without));
            state = after.get();
            without = skipped;
            lifted = with;
            certainLifted += sure ? 1 : 0;
            lift(event);
            event = head.next;
            continue;
          }
        }
        event = event.next;
        continue;
      }
      // An end whose call was not lifted, or the end of the list: the last choice was wrong.
      if (choices.isEmpty()) {
        return false;
      }
      Choice<S> last = choices.removeLast();
      state = last.before();
      without = last.without();
      lifted = (BitSet) lifted.clone();
      lifted.clear(last.call().id);
      certainLifted -= last.call().operation.outcome() == Outcome.DONE ? 1 : 0;
      unlift(last.call());
      event = last.call().next;
    }
    return true;
  }

  /**
   * The state after it, unless it is not allowed here, or leads nowhere that another way doesn't.
   */
  private static <S> Optional<S> next(
      Event call, S state, Optional<S> without, BitSet lifted, Model<S> model) {
    Optional<S> after = model.apply(state, call.operation);
    if (after.isEmpty()) {
      return after;
    }
    if (call.operation.outcome() != Outcome.DONE
        && (after.get().equals(state) || (call.twin != null && !lifted.get(call.twin.id)))) {
      return Optional.empty();
    }
    if (without.isPresent()) {
      Optional<S> alone = model.apply(without.get(), call.operation);
      boolean overwrites = alone.equals(after);
      boolean changesNothing = alone.equals(without) && after.get().equals(state);
      if (overwrites || changesNothing) {
        return Optional.empty();
      }
    }
    return after;
  }

  private static Event link(List<Operation> operations) {
    List<Event> events = new ArrayList<>();
    Map<List<String>, Event> twins = new HashMap<>();
    for (int id = 0; id < operations.size(); id++) {
      Operation operation = operations.get(id);
      Event call = new Event(id, operation, true, operation.calledNs());
      events.add(call);
      if (operation.outcome() == Outcome.DONE) {
        call.end = new Event(id, operation, false, operation.endedNs());
        events.add(call.end);
      }
    }
    Event[] ordered = events.toArray(Event[]::new);
    // A call at the moment of another's end may have come first.
    Arrays.sort(
        ordered,
        (a, b) ->
            a.timeNs != b.timeNs
                ? Long.compare(a.timeNs, b.timeNs)
                : Boolean.compare(b.isCall, a.isCall));
    Event head = new Event(-1, new Operation(0, "", "", "", "", Outcome.DONE, 0, 0), false, 0);
    Event last = head;
    for (Event event : ordered) {
      if (event.operation.outcome() != Outcome.DONE) {
        Operation operation = event.operation;
        event.twin = twins.put(List.of(operation.action(), operation.argument()), event);
      }
      event.previous = last;
      last.next = event;
      last = event;
    }
    last.next = head;
    head.previous = last;
    return head;
  }

  private static void lift(Event call) {
    unlink(call);
    if (call.end != call) {
      unlink(call.end);
    }
  }

  private static void unlift(Event call) {
    if (call.end != call) {
      relink(call.end);
    }
    relink(call);
  }

  private static void unlink(Event event) {
    event.previous.next = event.next;
    event.next.previous = event.previous;
  }

  private static void relink(Event event) {
    event.previous.next = event;
    event.next.previous = event;
  }
}

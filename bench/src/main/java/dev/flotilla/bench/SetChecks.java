package dev.flotilla.bench;

import dev.flotilla.bench.History.Operation;
import dev.flotilla.bench.History.Outcome;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** Checks that count: what was acknowledged must be there, once, and nothing else. */
final class SetChecks {

  private SetChecks() {}

  /**
   * A set: every {@code add} that was done is in what was read at the end; nothing is there that
   * nobody tried to add.
   */
  static List<String> set(Collection<Operation> history, Set<String> readAtEnd) {
    List<String> anomalies = new ArrayList<>();
    Set<String> tried = new HashSet<>();
    for (Operation operation : history) {
      if (!operation.action().equals("add")) {
        continue;
      }
      if (operation.outcome() != Outcome.NOT_DONE) {
        tried.add(operation.argument());
      }
      if (operation.outcome() == Outcome.DONE && !readAtEnd.contains(operation.argument())) {
        anomalies.add("lost: " + operation);
      }
    }
    for (String element : readAtEnd) {
      if (!tried.contains(element)) {
        anomalies.add("never added, or refused, and yet there: " + element);
      }
    }
    return anomalies;
  }

  /**
   * A queue that was drained at the end: every {@code send} that was done was delivered with effect
   * exactly once; one of unknown outcome at most once; nothing else was.
   *
   * @param effects what deliveries left behind, each as often as it took effect
   */
  static List<String> totalQueue(Collection<Operation> history, Collection<String> effects) {
    List<String> anomalies = new ArrayList<>();
    Map<String, Integer> times = new HashMap<>();
    effects.forEach(effect -> times.merge(effect, 1, Integer::sum));
    Map<String, Operation> sent = new HashMap<>();
    for (Operation operation : history) {
      if (operation.action().equals("send") && operation.outcome() != Outcome.NOT_DONE) {
        sent.put(operation.argument(), operation);
        if (operation.outcome() == Outcome.DONE && !times.containsKey(operation.argument())) {
          anomalies.add("acknowledged and lost: " + operation);
        }
      }
    }
    times.forEach(
        (message, count) -> {
          if (!sent.containsKey(message)) {
            anomalies.add("delivered, but never sent: " + message);
          } else if (count > 1) {
            anomalies.add("took effect " + count + " times: " + message);
          }
        });
    return anomalies;
  }

  /** A bank: every {@code read} that was done answers balances that add up to the same total. */
  static List<String> bank(Collection<Operation> history, long total) {
    List<String> anomalies = new ArrayList<>();
    for (Operation operation : history) {
      if (operation.action().equals("read") && operation.outcome() == Outcome.DONE) {
        long sum = 0;
        for (String balance : operation.answer().split(" ")) {
          sum += Long.parseLong(balance);
        }
        if (sum != total) {
          anomalies.add("the sum is " + sum + " instead of " + total + ": " + operation);
        }
      }
    }
    return anomalies;
  }
}

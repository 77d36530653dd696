package dev.flotilla.bench;

import java.util.ArrayList;
import java.util.List;
import java.util.function.LongSupplier;

/**
 * What clients asked and what they were told, in the order of one clock: the input of every
 * checker.
 *
 * <p>An operation begins at {@code calledNs} and ends at {@code endedNs}. One whose outcome is
 * {@link Outcome#UNKNOWN} may take effect at any time after its call, or never: its end is
 * infinity.
 */
final class History {

  /** What is known of an operation's effect. */
  enum Outcome {
    /** It took effect, and the answer is in it. */
    DONE,
    /** It certainly had no effect. */
    NOT_DONE,
    /** It cannot be told. */
    UNKNOWN
  }

  /**
   * One operation.
   *
   * @param client who asked; a client asks one thing at a time
   * @param key what it was about, such as a register's name
   * @param action such as {@code read}, {@code write}
   * @param argument what was given
   * @param answer what came back; only meaningful if done
   */
  record Operation(
      int client,
      String key,
      String action,
      String argument,
      String answer,
      Outcome outcome,
      long calledNs,
      long endedNs) {

    Operation withArgument(String other) {
      return new Operation(client, key, action, other, answer, outcome, calledNs, endedNs);
    }
  }

  /** An operation on its way. */
  record Call(int client, String key, String action, String argument, long calledNs) {}

  private final LongSupplier nanoTime;
  private final List<Operation> operations = new ArrayList<>();

  History(LongSupplier nanoTime) {
    this.nanoTime = nanoTime;
  }

  Call call(int client, String key, String action, String argument) {
    return new Call(client, key, action, argument, nanoTime.getAsLong());
  }

  void end(Call call, Outcome outcome, String answer) {
    long endedNs = outcome == Outcome.UNKNOWN ? Long.MAX_VALUE : nanoTime.getAsLong();
    Operation operation =
        new Operation(
            call.client(),
            call.key(),
            call.action(),
            call.argument(),
            answer,
            outcome,
            call.calledNs(),
            endedNs);
    synchronized (operations) {
      operations.add(operation);
    }
  }

  /** All that ended, by the time of their calls. */
  List<Operation> operations() {
    synchronized (operations) {
      return operations.stream()
          .sorted((a, b) -> Long.compare(a.calledNs(), b.calledNs()))
          .toList();
    }
  }

  int size() {
    synchronized (operations) {
      return operations.size();
    }
  }
}

package dev.flotilla.bench;

import dev.flotilla.bench.History.Operation;
import dev.flotilla.bench.History.Outcome;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/** The single copies that histories are judged against. */
final class Models {

  /**
   * A register: {@code write} sets it; {@code read} answers it; {@code cas} with the argument
   * {@code "old new"} sets it if it holds old, and answers {@code true} or {@code false}. An
   * operation of unknown outcome is one whose answer nobody saw.
   */
  static final Linearizability.Model<String> REGISTER =
      (state, operation) -> {
        boolean seen = operation.outcome() == Outcome.DONE;
        return switch (operation.action()) {
          case "write" -> Optional.of(operation.argument());
          case "read" ->
              !seen || operation.answer().equals(state) ? Optional.of(state) : Optional.empty();
          case "cas" -> {
            String[] oldAndNew = operation.argument().split(" ");
            boolean changes = oldAndNew[0].equals(state);
            yield seen && changes != Boolean.parseBoolean(operation.answer())
                ? Optional.empty()
                : Optional.of(changes ? oldAndNew[1] : state);
          }
          default -> throw new IllegalArgumentException(operation.action());
        };
      };

  private static final String UNSEEN = "unseen";

  /**
   * The registers whose histories are not linearizable, with the operations of each. All values of
   * unknown outcome that no answer shows and that no compare-and-set expects (each value is written
   * once) are taken for one: what they do is the same, which makes the search small.
   */
  static Map<String, List<Operation>> registerViolations(Collection<Operation> history) {
    Set<String> seen = new HashSet<>();
    for (Operation operation : history) {
      if (operation.action().equals("read") && operation.outcome() == Outcome.DONE) {
        seen.add(operation.key() + " " + operation.answer());
      } else if (operation.action().equals("cas")) {
        seen.add(operation.key() + " " + operation.argument().split(" ")[0]);
      }
    }
    List<Operation> judged = new ArrayList<>();
    for (Operation operation : history) {
      if (operation.outcome() != Outcome.UNKNOWN) {
        judged.add(operation);
      } else if (!operation.action().equals("read")) {
        String argument = operation.argument();
        int value = argument.indexOf(' ') + 1;
        judged.add(
            seen.contains(operation.key() + " " + argument.substring(value))
                ? operation
                : operation.withArgument(argument.substring(0, value) + UNSEEN));
      }
    }
    return Linearizability.violations(judged, "0", REGISTER);
  }

  /** A lock's grants: who holds it, and the token; each grant's token is larger than the last. */
  record Held(String holder, long token) {

    static final Held NOBODY = new Held("", 0);
  }

  /**
   * A lock: {@code acquire} (argument: holder) answers a token larger than any before, and only if
   * nobody holds it; {@code release} (argument: {@code "holder token"}) lets go. A lease that ends
   * by itself is recorded as a {@code release} of unknown outcome, called when its time had passed
   * since the acquire was called: it may happen at any time from then on, and not before.
   */
  static final Linearizability.Model<Held> LOCK =
      (state, operation) -> {
        boolean seen = operation.outcome() == Outcome.DONE;
        return switch (operation.action()) {
          case "acquire" -> {
            if (!seen) {
              // One that nobody was told of is as good as never granted: its lease ran out.
              yield Optional.of(state);
            }
            long token = Long.parseLong(operation.answer());
            yield state.holder().isEmpty() && token > state.token()
                ? Optional.of(new Held(operation.argument(), token))
                : Optional.empty();
          }
          case "release" -> {
            String[] holderAndToken = operation.argument().split(" ");
            boolean its =
                state.holder().equals(holderAndToken[0])
                    && state.token() == Long.parseLong(holderAndToken[1]);
            if (its) {
              yield Optional.of(new Held("", state.token()));
            }
            yield seen ? Optional.empty() : Optional.of(state);
          }
          default -> throw new IllegalArgumentException(operation.action());
        };
      };

  /**
   * What a lock guards: {@code write} with a token succeeds only if no larger token has written;
   * its state is the largest so far.
   */
  static final Linearizability.Model<Long> FENCED =
      (state, operation) -> {
        long token = Long.parseLong(operation.argument());
        return token >= state
            ? Optional.of(token)
            : operation.outcome() == Outcome.DONE ? Optional.empty() : Optional.of(state);
      };

  private Models() {}
}

package dev.flotilla.bench;

import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.bench.History.Operation;
import dev.flotilla.bench.History.Outcome;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.Test;

class SetChecksTest {

  private static Operation operation(String action, String argument, Outcome outcome) {
    return new Operation(1, "x", action, argument, "", outcome, 0, 1);
  }

  @Test
  void anAcknowledgedElementMustBeThere() {
    List<Operation> history =
        List.of(
            operation("add", "1", Outcome.DONE),
            operation("add", "2", Outcome.UNKNOWN),
            operation("add", "3", Outcome.NOT_DONE));
    assertThat(SetChecks.set(history, Set.of("1"))).isEmpty();
    assertThat(SetChecks.set(history, Set.of("1", "2"))).isEmpty();
    assertThat(SetChecks.set(history, Set.of("2"))).hasSize(1);
    assertThat(SetChecks.set(history, Set.of("1", "3"))).hasSize(1);
  }

  @Test
  void aMessageTakesEffectOnce() {
    List<Operation> history =
        List.of(
            operation("send", "1", Outcome.DONE),
            operation("send", "2", Outcome.UNKNOWN),
            operation("send", "3", Outcome.NOT_DONE));
    assertThat(SetChecks.totalQueue(history, List.of("1"))).isEmpty();
    assertThat(SetChecks.totalQueue(history, List.of("1", "2"))).isEmpty();
    assertThat(SetChecks.totalQueue(history, List.of("2"))).hasSize(1);
    assertThat(SetChecks.totalQueue(history, List.of("1", "2", "2"))).hasSize(1);
    assertThat(SetChecks.totalQueue(history, List.of("1", "3"))).hasSize(1);
  }

  @Test
  void theBanksTotalIsKept() {
    Operation good = new Operation(1, "x", "read", "", "5 5 10", Outcome.DONE, 0, 1);
    Operation bad = new Operation(1, "x", "read", "", "5 5 9", Outcome.DONE, 0, 1);
    assertThat(SetChecks.bank(List.of(good), 20)).isEmpty();
    assertThat(SetChecks.bank(List.of(good, bad), 20)).hasSize(1);
  }
}

package dev.flotilla.bench;

import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.bench.History.Operation;
import dev.flotilla.bench.History.Outcome;
import dev.flotilla.bench.Models.Held;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class LinearizabilityTest {

  private static Operation done(
      int client, String action, String argument, String answer, long called, long ended) {
    return new Operation(client, "x", action, argument, answer, Outcome.DONE, called, ended);
  }

  private static Operation unknown(int client, String action, String argument, long called) {
    return new Operation(
        client, "x", action, argument, "", Outcome.UNKNOWN, called, Long.MAX_VALUE);
  }

  private static boolean register(Operation... operations) {
    return Linearizability.isLinearizable(List.of(operations), "0", Models.REGISTER);
  }

  @Test
  void aReadAfterAWriteSeesIt() {
    assertThat(register(done(1, "write", "1", "", 0, 10), done(2, "read", "", "1", 20, 30)))
        .isTrue();
    assertThat(register(done(1, "write", "1", "", 0, 10), done(2, "read", "", "0", 20, 30)))
        .isFalse();
  }

  @Test
  void aReadDuringAWriteMaySeeEither() {
    for (String seen : List.of("0", "1")) {
      assertThat(register(done(1, "write", "1", "", 0, 100), done(2, "read", "", seen, 20, 30)))
          .isTrue();
    }
  }

  @Test
  void readsDoNotGoBack() {
    assertThat(
            register(
                done(1, "write", "1", "", 0, 100),
                done(2, "read", "", "1", 10, 20),
                done(3, "read", "", "0", 30, 40)))
        .isFalse();
  }

  @Test
  void aWriteOfUnknownOutcomeMayHappenLateOrNever() {
    assertThat(
            register(
                unknown(1, "write", "1", 0),
                done(2, "read", "", "0", 10, 20),
                done(2, "read", "", "1", 500, 600)))
        .isTrue();
    assertThat(register(unknown(1, "write", "1", 0), done(2, "read", "", "0", 500, 600))).isTrue();
    assertThat(
            register(
                unknown(1, "write", "1", 0),
                done(2, "read", "", "1", 10, 20),
                done(2, "read", "", "0", 500, 600)))
        .isFalse();
  }

  @Test
  void compareAndSetAnswersTruthfully() {
    assertThat(
            register(done(1, "cas", "0 5", "true", 0, 10), done(2, "cas", "0 6", "false", 20, 30)))
        .isTrue();
    assertThat(
            register(done(1, "cas", "0 5", "true", 0, 10), done(2, "cas", "0 6", "true", 20, 30)))
        .isFalse();
  }

  @Test
  void whatNobodySawMayBeWhyACompareAndSetChangedNothing() {
    List<Operation> history =
        List.of(
            done(1, "write", "1", "", 0, 10),
            unknown(2, "write", "2", 5),
            done(1, "cas", "1 3", "false", 20, 30));
    assertThat(Models.registerViolations(history)).isEmpty();
    // It cannot be why twice.
    List<Operation> again = new ArrayList<>(history);
    again.add(done(1, "write", "4", "", 40, 50));
    again.add(done(1, "cas", "4 5", "false", 60, 70));
    assertThat(Models.registerViolations(again)).containsKey("x");
    // Nor before it was called.
    again.add(unknown(3, "cas", "4 6", 75));
    assertThat(Models.registerViolations(again)).containsKey("x");
    again.add(unknown(3, "cas", "4 7", 65));
    assertThat(Models.registerViolations(again)).isEmpty();
  }

  @Test
  void keysAreJudgedAlone() {
    Operation other = new Operation(1, "y", "read", "", "9", Outcome.DONE, 0, 1);
    assertThat(
            Linearizability.violations(
                    List.of(other, done(1, "read", "", "0", 0, 1)), "0", Models.REGISTER)
                .keySet())
        .containsExactly("y");
  }

  @Test
  void aLockGrantedTwiceAtOnceIsFound() {
    Operation first = done(1, "acquire", "a", "5", 0, 10);
    Operation second = done(2, "acquire", "b", "6", 20, 30);
    assertThat(Linearizability.isLinearizable(List.of(first, second), Held.NOBODY, Models.LOCK))
        .isFalse();
    Operation release = done(1, "release", "a 5", "", 12, 18);
    assertThat(
            Linearizability.isLinearizable(
                List.of(first, release, second), Held.NOBODY, Models.LOCK))
        .isTrue();
    Operation expiry = unknown(1, "release", "a 5", 15);
    assertThat(
            Linearizability.isLinearizable(
                List.of(first, expiry, second), Held.NOBODY, Models.LOCK))
        .isTrue();
    Operation tooLate = unknown(1, "release", "a 5", 40);
    assertThat(
            Linearizability.isLinearizable(
                List.of(first, tooLate, second), Held.NOBODY, Models.LOCK))
        .isFalse();
  }

  @Test
  void aStaleTokenThatWritesIsFound() {
    Operation newer = done(2, "write", "7", "", 0, 10);
    Operation stale = done(1, "write", "5", "", 20, 30);
    assertThat(Linearizability.isLinearizable(List.of(newer, stale), 0L, Models.FENCED)).isFalse();
    assertThat(
            Linearizability.isLinearizable(
                List.of(newer, done(1, "write", "9", "", 20, 30)), 0L, Models.FENCED))
        .isTrue();
  }

  @ParameterizedTest
  @ValueSource(longs = {1, 2, 3, 4, 5, 6, 7, 8})
  void whatARealRegisterDidIsAcceptedAndOneWrongAnswerIsNot(long seed) {
    Random random = new Random(seed);
    List<Operation> history = new ArrayList<>();
    String value = "0";
    long[] freeAt = new long[6];
    int written = 0;
    for (long moment = 100; moment < 20_000; moment += 1 + random.nextInt(40)) {
      int client = random.nextInt(freeAt.length);
      if (freeAt[client] >= moment) {
        continue;
      }
      long called = Math.max(freeAt[client] + 1, moment - random.nextInt(60));
      long ended = moment + random.nextInt(60);
      freeAt[client] = ended;
      if (random.nextInt(20) == 0) {
        // Its effect, if any, is at this moment.
        String argument = Integer.toString(++written);
        value = random.nextBoolean() ? argument : value;
        history.add(unknown(client, "write", argument, called));
      } else if (random.nextInt(3) == 0) {
        // What was there a while ago, so that many change nothing.
        String expected = random.nextBoolean() ? value : Integer.toString(written / 2);
        String argument = expected + " " + ++written;
        boolean changes = expected.equals(value);
        value = changes ? Integer.toString(written) : value;
        if (random.nextInt(10) == 0) {
          history.add(unknown(client, "cas", argument, called));
        } else {
          history.add(done(client, "cas", argument, Boolean.toString(changes), called, ended));
        }
      } else if (random.nextBoolean()) {
        value = Integer.toString(++written);
        history.add(done(client, "write", value, "", called, ended));
      } else {
        history.add(done(client, "read", "", value, called, ended));
      }
    }
    history.sort(Comparator.comparingLong(Operation::calledNs));
    assertThat(Models.registerViolations(history)).as("seed %d", seed).isEmpty();
    int victim = history.size() - 1;
    while (!history.get(victim).action().equals("read")) {
      victim--;
    }
    Operation honest = history.get(victim);
    history.set(
        victim, done(honest.client(), "read", "", "never", honest.calledNs(), honest.endedNs()));
    assertThat(Models.registerViolations(history)).as("seed %d", seed).isNotEmpty();
  }
}

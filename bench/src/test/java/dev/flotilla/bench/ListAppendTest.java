package dev.flotilla.bench;

import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.bench.History.Outcome;
import dev.flotilla.bench.ListAppend.Step;
import dev.flotilla.bench.ListAppend.Transaction;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class ListAppendTest {

  private static Step append(String key, int value) {
    return new Step.Append(key, value);
  }

  private static Step read(String key, Integer... values) {
    return new Step.Read(key, Optional.of(List.of(values)));
  }

  /** All at once, so that time orders nothing. */
  private static Transaction done(int id, Step... steps) {
    return new Transaction(id, List.of(steps), Outcome.DONE, 0, 100);
  }

  private static List<String> check(Transaction... transactions) {
    return ListAppend.check(Arrays.asList(transactions));
  }

  @Test
  void aSerialHistoryIsFine() {
    assertThat(
            check(
                done(0, append("x", 1), append("y", 2)),
                done(1, read("x", 1), append("x", 3)),
                done(2, read("x", 1, 3), read("y", 2))))
        .isEmpty();
  }

  @Test
  void lostUpdateIsACycle() {
    // Both read the list with 1 and append; the second one's read did not see the first's append.
    assertThat(
            check(
                done(0, append("x", 1)),
                done(1, read("x", 1), append("x", 2)),
                done(2, read("x", 1), append("x", 3)),
                done(3, read("x", 1, 2, 3))))
        .singleElement()
        .asString()
        .startsWith("G-single");
  }

  @Test
  void writeSkewIsG2() {
    assertThat(
            check(
                done(0, read("x"), append("y", 1)),
                done(1, read("y"), append("x", 2)),
                done(2, read("x", 2), read("y", 1))))
        .singleElement()
        .asString()
        .startsWith("G2");
  }

  @Test
  void circularInformationIsG1c() {
    assertThat(check(done(0, append("x", 1), read("y", 2)), done(1, append("y", 2), read("x", 1))))
        .singleElement()
        .asString()
        .startsWith("G1c");
  }

  @Test
  void interleavedWritesAreG0() {
    assertThat(
            check(
                done(0, append("x", 1), append("y", 1)),
                done(1, append("x", 2), append("y", 2)),
                done(2, read("x", 1, 2), read("y", 2, 1))))
        .singleElement()
        .asString()
        .startsWith("G0");
  }

  @Test
  void anAbortedOrIntermediateReadIsFound() {
    assertThat(
            check(
                new Transaction(0, List.of(append("x", 1)), Outcome.NOT_DONE, 0, 10),
                done(1, read("x", 1))))
        .singleElement()
        .asString()
        .startsWith("G1a");
    assertThat(check(done(0, append("x", 1), append("x", 2)), done(1, read("x", 1))))
        .singleElement()
        .asString()
        .startsWith("G1b");
  }

  @Test
  void anAcknowledgedAppendThatIsGoneIsFound() {
    assertThat(
            check(
                new Transaction(0, List.of(append("x", 1)), Outcome.DONE, 0, 10),
                new Transaction(1, List.of(read("x")), Outcome.DONE, 20, 30)))
        .singleElement()
        .asString()
        .startsWith("a cycle with real time");
  }

  @Test
  void aStaleReadIsACycleWithRealTime() {
    assertThat(
            check(
                new Transaction(0, List.of(append("x", 1)), Outcome.DONE, 0, 10),
                new Transaction(1, List.of(append("x", 2)), Outcome.DONE, 20, 30),
                new Transaction(2, List.of(read("x", 1)), Outcome.DONE, 40, 50),
                new Transaction(3, List.of(read("x", 1, 2)), Outcome.DONE, 40, 50)))
        .singleElement()
        .asString()
        .startsWith("a cycle with real time");
  }

  @Test
  void listsThatDisagreeOrRepeatAreFound() {
    assertThat(
            check(
                done(0, append("x", 1)),
                done(1, append("x", 2)),
                done(2, read("x", 1, 2)),
                done(3, read("x", 2))))
        .anyMatch(a -> a.startsWith("lists of x disagree"));
    assertThat(check(done(0, append("x", 1)), done(1, read("x", 1, 1))))
        .anyMatch(a -> a.startsWith("a value twice"));
  }

  @ParameterizedTest
  @ValueSource(longs = {1, 2, 3, 4, 5})
  void whatASerialStoreDidIsFineAndOneLostAppendIsNot(long seed) {
    Random random = new Random(seed);
    Map<String, List<Integer>> store = new HashMap<>();
    List<Transaction> history = new ArrayList<>();
    int value = 0;
    for (int id = 0; id < 300; id++) {
      List<Step> steps = new ArrayList<>();
      for (int i = 0; i <= random.nextInt(4); i++) {
        String key = "k" + random.nextInt(5);
        List<Integer> list = store.computeIfAbsent(key, k -> new ArrayList<>());
        if (random.nextBoolean()) {
          list.add(++value);
          steps.add(append(key, value));
        } else {
          steps.add(new Step.Read(key, Optional.of(List.copyOf(list))));
        }
      }
      long moment = 100L * id;
      history.add(
          new Transaction(
              id,
              steps,
              Outcome.DONE,
              moment - random.nextInt(300),
              moment + 1 + random.nextInt(300)));
    }
    assertThat(ListAppend.check(history)).as("seed %d", seed).isEmpty();
    Step last = append("k0", ++value);
    history.add(new Transaction(300, List.of(last), Outcome.DONE, 40_000, 40_001));
    history.add(
        new Transaction(
            301,
            List.of(new Step.Read("k0", Optional.of(List.copyOf(store.get("k0"))))),
            Outcome.DONE,
            40_002,
            40_003));
    assertThat(ListAppend.check(history)).as("seed %d", seed).isNotEmpty();
  }
}

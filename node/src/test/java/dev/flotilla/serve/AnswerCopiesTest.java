package dev.flotilla.serve;

import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.serve.Generator.FinishReason;
import dev.flotilla.serve.proto.AnswerUpdate;
import dev.flotilla.serve.proto.ChoiceUpdate;
import dev.flotilla.serve.proto.KeepReply;
import dev.flotilla.serve.proto.KeepRequest;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Optional;
import java.util.Random;
import org.junit.jupiter.api.Test;

class AnswerCopiesTest {

  private static final long RETENTION_NS = 1000;
  private static final byte[] RENDERING = {1, 2, 3};

  private final AnswerCopies copies = new AnswerCopies(100_000, RETENTION_NS);

  static AnswerValue answer(String id, String tenant, int choices, int promptLength) {
    int[] prompt = new Random(promptLength).ints(promptLength, 0, 150_000).toArray();
    List<GenerationRequest> requests = new ArrayList<>();
    for (int i = 0; i < choices; i++) {
      requests.add(
          new GenerationRequest(
              id + "-" + i,
              "m",
              prompt,
              new SamplingParameters(0.7f, 0.9f, 40, i == 0 ? Long.MIN_VALUE : i),
              500,
              new int[] {2, 7},
              Optional.of("root ::= [a-z]+"),
              new Claim(tenant, Priority.HIGH)));
    }
    return AnswerValue.of(id, RENDERING, requests);
  }

  private static KeepRequest request(AnswerUpdate... updates) {
    return KeepRequest.newBuilder()
        .setOwner("a")
        .setIncarnation(3)
        .addAllUpdates(List.of(updates))
        .build();
  }

  private static AnswerUpdate start(long number, AnswerValue value) {
    return AnswerUpdate.newBuilder().setNumber(number).setStart(AnswerWire.start(value)).build();
  }

  private static AnswerUpdate update(long number, ChoiceUpdate... choices) {
    return AnswerUpdate.newBuilder().setNumber(number).addAllChoices(List.of(choices)).build();
  }

  private static ChoiceUpdate tokens(int choice, int position, int... tokens) {
    return AnswerWire.choice(choice, position, tokens, Optional.empty());
  }

  private int[] found(String id, int choice) {
    return copies.find(id, 0).orElseThrow().progress().get(choice).tokens();
  }

  @Test
  void aCopyIsTheWholeValue() {
    AnswerValue value = answer("x", "ann", 2, 30);
    ChoiceUpdate ended =
        AnswerWire.choice(1, 0, new int[] {9, 150_000}, Optional.of(FinishReason.LENGTH));
    assertThat(copies.keep(request(start(1, value)), 0)).isEqualTo(KeepReply.getDefaultInstance());
    copies.keep(request(update(1, tokens(0, 0, 5, 6), ended)), 0);
    AnswerValue found = copies.find("x", 0).orElseThrow();
    assertThat(found)
        .usingRecursiveComparison()
        .isEqualTo(
            new AnswerValue(
                "x",
                0,
                RENDERING,
                value.requests(),
                List.of(
                    new AnswerValue.Progress(new int[] {5, 6}, Optional.empty()),
                    new AnswerValue.Progress(
                        new int[] {9, 150_000}, Optional.of(FinishReason.LENGTH)))));
    assertThat(found.requests().get(0).prompt()).isSameAs(found.requests().get(1).prompt());
    assertThat(copies.find("y", 0)).isEmpty();
  }

  @Test
  void whatComesTwiceLateOrOutOfOrderChangesNothing() {
    long seed = System.nanoTime();
    Random random = new Random(seed);
    for (int round = 0; round < 200; round++) {
      int[][] tokens = new int[2][];
      List<AnswerUpdate> updates = new ArrayList<>();
      String id = "r" + round;
      for (int choice = 0; choice < 2; choice++) {
        tokens[choice] = random.ints(random.nextInt(40), 0, 150_000).toArray();
        for (int from = 0; from < tokens[choice].length; ) {
          int to = Math.min(tokens[choice].length, from + 1 + random.nextInt(8));
          updates.add(
              update(round, tokens(choice, from, Arrays.copyOfRange(tokens[choice], from, to))));
          from = to - random.nextInt(Math.min(2, to - from)); // now and then with some again
        }
      }
      updates.addAll(List.copyOf(updates));
      Collections.shuffle(updates, random);
      copies.keep(request(start(round, answer(id, "ann", 2, 3))), 0);
      // What leaves a gap is told to the sender, who sends the rest whole.
      for (AnswerUpdate update : updates) {
        KeepReply reply = copies.keep(request(update), 0);
        if (reply.getUnknownCount() > 0) {
          assertThat(reply.getUnknownList()).containsExactly((long) round);
          AnswerUpdate whole =
              start(round, answer(id, "ann", 2, 3)).toBuilder()
                  .addChoices(tokens(0, 0, tokens[0]))
                  .addChoices(tokens(1, 0, tokens[1]))
                  .build();
          assertThat(copies.keep(request(whole), 0).getUnknownList()).isEmpty();
        }
      }
      for (int choice = 0; choice < 2; choice++) {
        assertThat(found(id, choice))
            .as("seed %s, round %s", seed, round)
            .isEqualTo(tokens[choice]);
      }
      copies.keep(request().toBuilder().addForgotten(round).build(), 0);
    }
  }

  @Test
  void aGapOrAnAnswerNeverHeardOfIsToldToTheSender() {
    assertThat(copies.keep(request(update(4, tokens(0, 0, 1))), 0).getUnknownList())
        .containsExactly(4L);
    copies.keep(request(start(4, answer("x", "ann", 1, 3))), 0);
    assertThat(copies.keep(request(update(4, tokens(0, 1, 1))), 0).getUnknownList())
        .containsExactly(4L);
    assertThat(copies.keep(request(update(4, tokens(0, 0, 1))), 0).getUnknownList())
        .as("it was dropped, for what it lacks may be anything")
        .containsExactly(4L);
  }

  @Test
  void otherTokensThanThoseThatAreThereAreNotMixed() {
    copies.keep(request(start(1, answer("x", "ann", 1, 3)), update(1, tokens(0, 0, 5, 6))), 0);
    assertThat(copies.keep(request(update(1, tokens(0, 1, 7))), 0).getUnknownList())
        .containsExactly(1L);
    assertThat(copies.find("x", 0)).isEmpty();
    assertThat(copies.keep(request(update(1, tokens(7, 0, 7))), 0).getUnknownList())
        .containsExactly(1L);
    assertThat(copies.bytes()).isZero();
  }

  @Test
  void anotherLifeOfTheSenderHasItsOwnNumbers() {
    copies.keep(request(start(1, answer("old", "ann", 1, 3))), 0);
    KeepRequest reborn =
        request(start(1, answer("new", "ann", 1, 3))).toBuilder().setIncarnation(4).build();
    copies.keep(reborn, 0);
    copies.keep(request(update(1, tokens(0, 0, 8))), 0); // late, of the life before
    assertThat(found("old", 0)).containsExactly(8);
    assertThat(found("new", 0)).isEmpty();
  }

  @Test
  void ofTwoSendersCopiesTheLongerCounts() {
    AnswerValue value = answer("x", "ann", 1, 3);
    copies.keep(request(start(1, value), update(1, tokens(0, 0, 5, 6, 7))), 0);
    KeepRequest other =
        KeepRequest.newBuilder()
            .setOwner("b")
            .addUpdates(start(1, value).toBuilder().addChoices(tokens(0, 0, 5, 6)))
            .build();
    copies.keep(other, 0);
    assertThat(found("x", 0)).containsExactly(5, 6, 7);
    copies.keep(request().toBuilder().addForgotten(1).build(), 0);
    assertThat(found("x", 0)).containsExactly(5, 6);
  }

  @Test
  void aCopyExpiresAWhileAfterTheLastWordOfIt() {
    copies.keep(request(start(1, answer("x", "ann", 1, 3))), 0);
    copies.keep(request(start(2, answer("y", "ann", 1, 3))), 0);
    copies.keep(request(update(1)), RETENTION_NS);
    assertThat(copies.find("x", RETENTION_NS + 1)).isPresent();
    assertThat(copies.find("y", RETENTION_NS + 1)).isEmpty();
    assertThat(copies.find("x", 2 * RETENTION_NS + 1)).isEmpty();
    assertThat(copies.count()).isZero();
    assertThat(copies.bytes()).isZero();
  }

  @Test
  void memoryIsBoundedAndWhatRunsIsNotGivenUpForWhatIsNew() {
    ChoiceUpdate end = AnswerWire.choice(0, 0, new int[0], Optional.of(FinishReason.STOP));
    copies.keep(request(start(1, answer("ended", "ann", 1, 5_000)), update(1, end)), 0);
    long number = 2;
    int refused = 0;
    while (refused < 3) {
      AnswerUpdate next = start(number, answer("n" + number, "ann", 1, 5_000));
      refused += copies.keep(request(next), 0).getRefusedCount();
      assertThat(copies.bytes()).isLessThanOrEqualTo(100_000);
      number++;
    }
    assertThat(copies.find("ended", 0)).isEmpty();
    assertThat(copies.find("n2", 0)).isPresent();
    assertThat(number).isLessThan(10);
    // One that grows beyond the bound goes.
    KeepReply reply = copies.keep(request(update(2, tokens(0, 0, new int[10_000]))), 0);
    assertThat(reply.getRefusedList()).containsExactly(2L);
    assertThat(copies.find("n2", 0)).isEmpty();
    assertThat(copies.bytes()).isLessThanOrEqualTo(100_000);
  }
}

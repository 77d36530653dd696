package dev.flotilla.serve;

import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.model.LayerRange;
import dev.flotilla.model.Rows;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;

final class DrafterTest {

  private static Drafter.Context context(long id, int most, int... tokens) {
    return new Drafter.Context(id, tokens, tokens.length, most, SamplingParameters.GREEDY);
  }

  private static int[] lookUp(int most, int... tokens) {
    return new PromptLookup().draft(List.of(context(1, most, tokens))).getFirst();
  }

  @Test
  void aTextIsGuessedToGoOnAsItDidTheLastTime() {
    assertThat(lookUp(3, 1, 2, 3, 4, 5, 6, 1, 2)).containsExactly(3, 4, 5);
    assertThat(lookUp(9, 1, 2, 3, 4, 1, 2)).containsExactly(3, 4, 1, 2);
    // Of two places the later one, unless more is alike at the earlier one.
    assertThat(lookUp(1, 1, 2, 7, 1, 2, 8, 1, 2)).containsExactly(8);
    assertThat(lookUp(1, 9, 1, 2, 7, 5, 1, 2, 8, 9, 1, 2)).containsExactly(7);
    assertThat(lookUp(2, 6, 6, 6)).containsExactly(6);
  }

  @Test
  void nothingIsGuessedOfAnythingNew() {
    assertThat(lookUp(3, 1, 2, 3, 4)).isEmpty();
    assertThat(lookUp(3, 1, 2, 3, 2)).isEmpty();
    assertThat(lookUp(3, 1)).isEmpty();
    assertThat(lookUp(3)).isEmpty();
  }

  @Test
  void whatOneDoesNotGuessAnotherMay() {
    Drafter constant =
        new Drafter() {
          @Override
          public List<int[]> draft(List<Context> contexts) {
            return contexts.stream().map(c -> new int[] {(int) c.sequence()}).toList();
          }

          @Override
          public void forget(long sequence) {}

          @Override
          public void clear() {}
        };
    List<int[]> guesses =
        new PromptLookup()
            .or(constant)
            .draft(List.of(context(5, 2, 1), context(6, 1, 1, 2, 3, 1, 2), context(7, 2, 1)));
    assertThat(guesses.get(0)).containsExactly(5);
    assertThat(guesses.get(1)).containsExactly(3);
    assertThat(guesses.get(2)).containsExactly(7);
  }

  private static DraftModel toy(int positions) {
    ToySlice slice = new ToySlice(new LayerRange(0, 5), positions, Rows.CHUNK, 0);
    slice.routesDiffer = false; // a guess may go any route
    return new DraftModel(slice);
  }

  @Test
  void aDraftModelFollowsATextThatTookAnotherTurnThanItGuessed() {
    long seed = System.nanoTime();
    Random random = new Random(seed);
    DraftModel model = toy(512);
    int[] text = random.ints(30, 0, 97).toArray();
    for (int turn = 0; turn < 20; turn++) {
      int most = 1 + random.nextInt(5);
      int[] guessed = model.draft(List.of(context(1, most, text))).getFirst();
      int[] fresh = toy(512).draft(List.of(context(2, most, text))).getFirst();
      assertThat(guessed).as("seed %d turn %d", seed, turn).hasSize(most).isEqualTo(fresh);
      int right = random.nextInt(most + 1);
      int[] longer = Arrays.copyOf(text, text.length + right + 1);
      System.arraycopy(guessed, 0, longer, text.length, right);
      longer[text.length + right] = random.nextInt(97);
      text = longer;
    }
  }

  @Test
  void aDraftModelWithoutRoomGuessesNothingAndGoesOnWhenThereIs() {
    DraftModel model = toy(64);
    assertThat(model.draft(List.of(context(1, 3, new int[40]))).getFirst()).hasSize(3);
    assertThat(model.draft(List.of(context(2, 3, new int[40]))).getFirst()).isEmpty();
    assertThat(model.draft(List.of(context(3, 3, new int[63]))).getFirst()).isEmpty();
    model.forget(1);
    assertThat(model.draft(List.of(context(2, 3, new int[40]))).getFirst()).hasSize(3);
    model.clear();
    assertThat(model.draft(List.of(context(4, 3, new int[40]))).getFirst()).hasSize(3);
  }
}

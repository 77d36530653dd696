package dev.flotilla.serve;

import dev.flotilla.FlotillaException;
import dev.flotilla.model.LayerSlice;
import dev.flotilla.model.Rows;
import dev.flotilla.model.Sequences;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * Guesses with a smaller model of the same words, which runs whole beside the first stage. It draws
 * as the large one does, with the same seed and position: so where the two agree, its guess is
 * right, whatever the temperature.
 *
 * <p>It has a KV cache of its own, which follows the texts: what was guessed wrongly is cut off.
 * Where that cache is full, or a text too long for it, it guesses nothing.
 */
final class DraftModel implements Drafter {

  /** Rows of a text taken up at a time, so that a long prompt does not hold up a step for long. */
  private static final int ROWS_MOST = 2 * Rows.CHUNK;

  private final LayerSlice slice;
  private final Sequences sequences;
  private final int maxLength;

  /** What the cache has of each sequence. */
  private final Map<Long, int[]> cached = new HashMap<>();

  /**
   * @param slice the whole model
   */
  DraftModel(LayerSlice slice) {
    this.slice = slice;
    this.sequences = new Sequences(slice.blocks());
    this.maxLength = Math.min(slice.config().contextLength(), slice.blocks() * Scheduler.BLOCK);
  }

  private static final class Guess {
    final Context context;
    int[] tokens;
    int length;

    Guess(Context context) {
      this.context = context;
      this.length = context.length();
      this.tokens = Arrays.copyOf(context.tokens(), length + context.most());
    }

    int[] guessed() {
      return Arrays.copyOfRange(tokens, context.length(), length);
    }
  }

  @Override
  public List<int[]> draft(List<Context> contexts) {
    List<Guess> guesses = contexts.stream().map(Guess::new).toList();
    List<Guess> going = new ArrayList<>();
    for (Guess guess : guesses) {
      if (guess.tokens.length <= maxLength && takeUp(guess)) {
        going.add(guess);
      }
    }
    while (!going.isEmpty()) {
      step(going);
      going.removeIf(guess -> guess.length == guess.tokens.length);
    }
    return guesses.stream().map(Guess::guessed).toList();
  }

  /** Brings the cache up to all but the last token; whether it is there. */
  private boolean takeUp(Guess guess) {
    long id = guess.context.sequence();
    int[] had = cached.getOrDefault(id, new int[0]);
    int last = guess.length - 1;
    int same = Arrays.mismatch(had, 0, had.length, guess.tokens, 0, last);
    int known = Math.min(same < 0 ? had.length : same, Math.min(last, sequences.length(id)));
    sequences.cut(id, known);
    int count = Math.min(last - known, ROWS_MOST);
    if (count > 0) {
      Rows rows;
      try {
        rows = sequences.prompt(id, count);
      } catch (FlotillaException e) {
        return false; // it is full
      }
      float[] hidden = slice.embed(Arrays.copyOfRange(guess.tokens, known, known + count));
      slice.forward(hidden, rows);
    }
    cached.put(id, Arrays.copyOf(guess.tokens, known + count));
    return known + count == last;
  }

  /** One more token for each; who finds no room has guessed all it will. */
  private void step(List<Guess> going) {
    List<Guess> members = new ArrayList<>();
    List<Rows.Run> runs = new ArrayList<>();
    for (Guess guess : List.copyOf(going)) {
      long id = guess.context.sequence();
      try {
        runs.addAll(sequences.rows(new long[] {id}, new int[] {guess.length - 1}).runs());
        members.add(guess);
      } catch (FlotillaException e) {
        going.remove(guess);
      }
    }
    if (members.isEmpty()) {
      return;
    }
    float[] hidden =
        slice.embed(members.stream().mapToInt(guess -> guess.tokens[guess.length - 1]).toArray());
    slice.forward(hidden, new Rows(runs));
    int[] all = new int[members.size()];
    Arrays.setAll(all, i -> i);
    float[] logits = slice.logits(hidden, all);
    int vocabulary = slice.config().vocabularySize();
    for (int i = 0; i < all.length; i++) {
      Guess guess = members.get(i);
      cached.put(guess.context.sequence(), Arrays.copyOf(guess.tokens, guess.length));
      try {
        guess.tokens[guess.length] =
            Sampler.sample(logits, i, vocabulary, guess.context.sampling(), guess.length);
        guess.length++;
      } catch (FlotillaException e) {
        going.remove(guess); // its output is not a number: no guess is as good as any
      }
    }
  }

  @Override
  public void forget(long sequence) {
    sequences.release(sequence);
    cached.remove(sequence);
  }

  @Override
  public void clear() {
    List.copyOf(cached.keySet()).forEach(this::forget);
  }
}

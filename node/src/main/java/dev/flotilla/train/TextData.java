package dev.flotilla.train;

import dev.flotilla.FlotillaException;
import dev.flotilla.text.BpeTrainer;
import dev.flotilla.text.Tokenizer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.SplittableRandom;

/**
 * Any text: the first nine tenths to train on, in windows that begin anywhere, and the last tenth
 * to validate on, in consecutive windows. Every token is learned.
 */
final class TextData implements TrainingData {

  private static final int VALIDATION_TOKENS = 16_384;

  private final long seed;
  private final int length;
  private final String tokenizerJson;
  private final Tokenizer tokenizer;
  private final int[] training;
  private final int[] held;

  TextData(TrainingConfig config, String text) {
    seed = config.seed();
    length = config.contextLength();
    int cut = text.offsetByCodePoints(0, (int) (text.codePointCount(0, text.length()) * 0.9));
    String trainingText = text.substring(0, cut);
    tokenizerJson =
        BpeTrainer.train(trainingText, config.vocabularySize(), SPECIAL_TOKENS).tokenizerJson();
    tokenizer = Tokenizer.fromJson(tokenizerJson, "the training text");
    training = tokenizer.encode(trainingText);
    held = tokenizer.encode(text.substring(cut));
    if (training.length <= length) {
      tokenizer.close();
      throw new FlotillaException(
          FlotillaException.Code.INVALID,
          "the text has " + training.length + " tokens, fewer than one sequence of " + length,
          "Give a longer text or a shorter context_length.");
    }
  }

  @Override
  public Tokenizer tokenizer() {
    return tokenizer;
  }

  @Override
  public String tokenizerJson() {
    return tokenizerJson;
  }

  @Override
  public String chatTemplate() {
    return "{% for message in messages %}{{ message['content'] }}\n{% endfor %}";
  }

  @Override
  public Sequence sequence(long number) {
    var random = new SplittableRandom(SmallWorld.mix(seed) + SmallWorld.mix(number + 1));
    return window(training, random.nextInt(training.length - length));
  }

  @Override
  public List<Sequence> validation() {
    List<Sequence> windows = new ArrayList<>();
    for (int from = 0; from + length < held.length && from < VALIDATION_TOKENS; from += length) {
      windows.add(window(held, from));
    }
    return windows;
  }

  private Sequence window(int[] from, int start) {
    int[] positions = new int[length];
    Arrays.setAll(positions, i -> i);
    return new Sequence(
        Arrays.copyOfRange(from, start, start + length),
        positions,
        new int[length],
        Arrays.copyOfRange(from, start + 1, start + length + 1));
  }

  @Override
  public void close() {
    tokenizer.close();
  }
}

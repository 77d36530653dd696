package dev.flotilla.text;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class BpeTrainerTest {

  private static final List<String> SPECIAL = List.of("<|endoftext|>", "<|im_start|>");

  @Test
  void mergesTheMostFrequentPairFirstAndTheLowestOnATie() {
    // "ab" three times, "bc" twice, " x" and "xy" twice each; a space is below x.
    BpeVocabulary vocabulary = BpeTrainer.train("ab\nab\nab\nbc\nbc xy xy", 256 + 3, List.of());
    assertThat(vocabulary.merges())
        .startsWith(new BpeVocabulary.Merge("a", "b"))
        .contains(new BpeVocabulary.Merge("Ġ", "x"));
    assertThat(vocabulary.merges().get(1)).isEqualTo(new BpeVocabulary.Merge("Ġ", "x"));
  }

  @Test
  void agreesWithCountingEveryPairAnewForEachMerge() {
    long seed = 42;
    Random random = new Random(seed);
    StringBuilder text = new StringBuilder();
    for (int i = 0; i < 4000; i++) {
      text.append("aabbcdé \n".charAt(random.nextInt(9)));
    }
    BpeVocabulary vocabulary = BpeTrainer.train(text.toString(), 256 + 60, List.of());
    assertThat(vocabulary.merges()).as("seed %d", seed).isEqualTo(slowMerges(text.toString(), 60));
  }

  /** BPE as its definition says, without index or heap. */
  private static List<BpeVocabulary.Merge> slowMerges(String text, int count) {
    List<String> names = new ArrayList<>();
    for (int b = 0; b < 256; b++) {
      names.add(String.valueOf(ByteAlphabet.characterOf(b)));
    }
    List<List<Integer>> words = new ArrayList<>();
    var matcher = BpeTrainer.GPT2_WORDS.matcher(text);
    while (matcher.find()) {
      List<Integer> word = new ArrayList<>();
      for (byte b : matcher.group().getBytes(java.nio.charset.StandardCharsets.UTF_8)) {
        word.add(b & 0xFF);
      }
      words.add(word);
    }
    List<BpeVocabulary.Merge> merges = new ArrayList<>();
    while (merges.size() < count) {
      Map<List<Integer>, Integer> counts = new HashMap<>();
      for (List<Integer> word : words) {
        for (int i = 0; i + 1 < word.size(); i++) {
          counts.merge(List.of(word.get(i), word.get(i + 1)), 1, Integer::sum);
        }
      }
      List<Integer> best =
          counts.entrySet().stream()
              .filter(
                  e -> !names.contains(names.get(e.getKey().get(0)) + names.get(e.getKey().get(1))))
              .min(
                  java.util.Comparator.comparingInt(
                          (Map.Entry<List<Integer>, Integer> e) -> -e.getValue())
                      .thenComparingInt(e -> e.getKey().get(0))
                      .thenComparingInt(e -> e.getKey().get(1)))
              .orElseThrow()
              .getKey();
      merges.add(new BpeVocabulary.Merge(names.get(best.get(0)), names.get(best.get(1))));
      names.add(names.get(best.get(0)) + names.get(best.get(1)));
      for (List<Integer> word : words) {
        for (int i = 0; i + 1 < word.size(); i++) {
          if (word.get(i).equals(best.get(0)) && word.get(i + 1).equals(best.get(1))) {
            word.set(i, names.size() - 1);
            word.subList(i + 1, i + 2).clear();
          }
        }
      }
    }
    return merges;
  }

  @Test
  void writesAFileThatTheLibraryLoadsAndThatRoundTripsAnyText(@TempDir Path folder) {
    String text = "the cat sat on the mat, the rat sat on the hat. ".repeat(50);
    BpeVocabulary vocabulary = BpeTrainer.train(text, 320, SPECIAL);
    Path file = folder.resolve("tokenizer.json");
    vocabulary.write(file);
    assertThat(folder).isDirectoryContaining(file::equals);
    try (Tokenizer tokenizer = Tokenizer.fromFile(file)) {
      assertThat(tokenizer.vocabularySize()).isEqualTo(vocabulary.tokens().size());
      assertThat(tokenizer.encode(text).length).isLessThan(text.length() / 3);
      for (String sample : List.of(text, "Zürich 北京 🦙\r\n\t x<|endoftext|>", " ", "\u0000")) {
        assertThat(tokenizer.decode(tokenizer.encode(sample))).isEqualTo(sample);
      }
      assertThat(tokenizer.encode("<|endoftext|>")).doesNotContain(0);
      assertThat(tokenizer.specialIds()).containsExactly(0, 1);
    }
  }

  @Test
  void learnsFewerTokensFromATextThatRepeatsNothing() {
    assertThat(BpeTrainer.train("abc", 1000, SPECIAL).tokens()).hasSize(258);
  }

  @Test
  void refusesAnEmptyTextASmallVocabularyAndRepeatedSpecialTokens() {
    assertThatThrownBy(() -> BpeTrainer.train("", 300, SPECIAL))
        .isInstanceOf(FlotillaException.class)
        .hasMessageContaining("empty");
    assertThatThrownBy(() -> BpeTrainer.train("text", 257, SPECIAL))
        .isInstanceOf(FlotillaException.class)
        .hasMessageContaining("257");
    assertThatThrownBy(() -> BpeTrainer.train("text", 300, List.of("<s>", "<s>")))
        .isInstanceOf(FlotillaException.class)
        .hasMessageContaining("<s>");
  }

  @Test
  void learnsShakespeareInSecondsAndCompressesIt() throws IOException {
    String text = Files.readString(SharedData.require("tinyshakespeare.txt"));
    BpeVocabulary vocabulary = BpeTrainer.train(text, 4096, SPECIAL);
    assertThat(vocabulary.tokens()).hasSize(4096);
    assertThat(vocabulary).isEqualTo(BpeTrainer.train(text, 4096, SPECIAL));
    try (Tokenizer tokenizer = Tokenizer.fromJson(vocabulary.tokenizerJson(), "test")) {
      int[] ids = tokenizer.encode(text);
      assertThat(tokenizer.decode(ids)).isEqualTo(text);
      assertThat(Arrays.stream(ids).max().orElseThrow()).isLessThan(4096);
      assertThat((double) text.length() / ids.length).isGreaterThan(3.0);
    }
  }
}

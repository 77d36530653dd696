package dev.flotilla.gateway;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import org.junit.jupiter.api.Test;

class StopFilterTest {

  @Test
  void nothingOfAStopStringIsDeliveredWhereverTheTextIsCut() {
    long seed = System.nanoTime();
    SplittableRandom random = new SplittableRandom(seed);
    for (int round = 0; round < 20_000; round++) {
      String text = letters(random, random.nextInt(30));
      List<String> stops = new ArrayList<>();
      for (int i = random.nextInt(4); i >= 0; i--) {
        stops.add(letters(random, 1 + random.nextInt(4)));
      }
      StopFilter filter = new StopFilter(stops);
      StringBuilder delivered = new StringBuilder();
      for (int at = 0; at < text.length(); ) {
        int end = Math.min(text.length(), at + 1 + random.nextInt(4));
        delivered.append(filter.push(text.substring(at, end)));
        assertThat(stops.stream().noneMatch(s -> delivered.indexOf(s) >= 0))
            .as("seed %d, text %s, stops %s", seed, text, stops)
            .isTrue();
        at = end;
      }
      delivered.append(filter.end());
      assertThat(delivered.toString())
          .as("seed %d, text %s, stops %s", seed, text, stops)
          .isEqualTo(beforeFirstOf(stops, text));
    }
  }

  /** In the letters a and b alone, stop strings overlap as badly as they can. */
  private static String letters(SplittableRandom random, int length) {
    StringBuilder text = new StringBuilder();
    for (int i = 0; i < length; i++) {
      text.append(random.nextBoolean() ? 'a' : 'b');
    }
    return text.toString();
  }

  /** The text before the stop string that is complete first; of those, the longest. */
  private static String beforeFirstOf(List<String> stops, String text) {
    for (int end = 1; end <= text.length(); end++) {
      int first = Integer.MAX_VALUE;
      for (String stop : stops) {
        if (text.startsWith(stop, end - stop.length()) && end >= stop.length()) {
          first = Math.min(first, end - stop.length());
        }
      }
      if (first < Integer.MAX_VALUE) {
        return text.substring(0, first);
      }
    }
    return text;
  }

  @Test
  void textThatCannotBeginAStopStringIsDeliveredAtOnce() {
    StopFilter filter = new StopFilter(List.of("\n\n", "User:"));
    assertThat(filter.push("Hello ")).isEqualTo("Hello ");
    assertThat(filter.push("Us")).isEmpty();
    assertThat(filter.push("ually")).isEqualTo("Usually");
    assertThat(filter.push("\n")).isEmpty();
    assertThat(filter.push("\nmore")).isEmpty();
    assertThat(filter.matched()).isTrue();
  }
}

package dev.flotilla.train;

import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.train.SmallWorld.Kind;
import dev.flotilla.train.SmallWorld.Question;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;

class SmallWorldTest {

  private static final int CONVERSATIONS = 4_000;

  @Test
  void isAPureFunctionOfSeedAndNumber() {
    for (int i = 0; i < 200; i++) {
      assertThat(SmallWorld.conversation(3, i)).isEqualTo(SmallWorld.conversation(3, i));
    }
    assertThat(SmallWorld.conversation(3, 0)).isNotEqualTo(SmallWorld.conversation(4, 0));
    assertThat(SmallWorld.heldOut(3, 30)).isEqualTo(SmallWorld.heldOut(3, 60).subList(0, 30));
  }

  @Test
  void everyAnswerIsThatOfAnIndependentSolver() {
    for (int i = 0; i < CONVERSATIONS; i++) {
      List<Question> turns = SmallWorld.conversation(1, i);
      for (Question turn : turns) {
        String story = before(turns, turn);
        assertThat(turn.answer()).as(story + turn.prompt()).isEqualTo(solve(story + turn.prompt()));
      }
    }
    for (Question question : SmallWorld.heldOut(1, 300)) {
      assertThat(question.answer()).as(question.prompt()).isEqualTo(solve(question.prompt()));
    }
  }

  @Test
  void heldOutContentIsInNoTrainingConversation() {
    Set<String> trained = new HashSet<>();
    for (int i = 0; i < CONVERSATIONS; i++) {
      List<Question> turns = SmallWorld.conversation(1, i);
      for (Question turn : turns) {
        String story = before(turns, turn);
        trained.add(content(story + turn.prompt()));
      }
    }
    List<Question> heldOut = SmallWorld.heldOut(1, 300);
    assertThat(heldOut).extracting(Question::prompt).doesNotHaveDuplicates();
    for (Question question : heldOut) {
      assertThat(trained).doesNotContain(content(question.prompt()));
    }
    assertThat(heldOut.stream().collect(Collectors.groupingBy(Question::kind)))
        .hasSize(Kind.values().length)
        .allSatisfy((kind, of) -> assertThat(of).hasSize(50));
  }

  @Test
  void heldOutSumsAreTrainedInNoWording() {
    Pattern bare = Pattern.compile("(?:What is|Add) (\\d+) (?:plus|\\+|and) (\\d+).*");
    Set<String> heldOut =
        SmallWorld.heldOut(1, 300).stream()
            .map(question -> bare.matcher(question.prompt()))
            .filter(Matcher::matches)
            .map(found -> found.group(1) + "+" + found.group(2))
            .collect(Collectors.toSet());
    assertThat(heldOut).isNotEmpty();
    for (int i = 0; i < CONVERSATIONS; i++) {
      for (Question turn : SmallWorld.conversation(1, i)) {
        Matcher found = bare.matcher(turn.prompt());
        if (found.matches()) {
          assertThat(heldOut).doesNotContain(found.group(1) + "+" + found.group(2));
        }
      }
    }
  }

  /** All that the user said before a turn. */
  private static String before(List<Question> turns, Question turn) {
    StringBuilder said = new StringBuilder();
    for (Question earlier : turns) {
      if (earlier.equals(turn)) {
        break;
      }
      said.append(earlier.prompt()).append(' ');
    }
    return said.toString();
  }

  /**
   * What a question is about, whatever the words: the story's facts in order, and what is asked.
   */
  private static String content(String prompt) {
    String asked = lastAsked(prompt);
    if (asked.isEmpty()) {
      return prompt
          .replaceAll("[^a-z0-9 ]|up|Count|How|many|animals|are|here|Reverse|Spell|backwards", "")
          .replaceAll(" +", " ")
          .toLowerCase(java.util.Locale.ROOT)
          .strip();
    }
    return String.join(";", facts(prompt)) + "?" + asked;
  }

  private static List<String> facts(String prompt) {
    List<String> facts = new ArrayList<>();
    for (String sentence : prompt.split("(?<=[.?]) ")) {
      Matcher holds =
          Pattern.compile("(\\w+) (?:has|found|took|got) the (\\w+)(?: from \\w+)?\\.")
              .matcher(sentence);
      Matcher gives = Pattern.compile("\\w+ gave the (\\w+) to (\\w+)\\.").matcher(sentence);
      Matcher lies =
          Pattern.compile("The (\\w+) (?:is|lies|is now|was moved) (?:in|to) the (\\w+)\\.")
              .matcher(sentence);
      if (holds.matches()) {
        facts.add(holds.group(2) + "=" + holds.group(1));
      } else if (gives.matches()) {
        facts.add(gives.group(1) + "=" + gives.group(2));
      } else if (lies.matches()) {
        facts.add(lies.group(1) + "=in the " + lies.group(2));
      } else {
        assertThat(sentence).as("a sentence the solver knows").endsWith("?");
      }
    }
    return facts;
  }

  private static String lastAsked(String prompt) {
    Matcher asked = Pattern.compile("(?:Who has|Where is) the (\\w+)(?: now)?\\?").matcher(prompt);
    String last = "";
    while (asked.find()) {
      last = asked.group(1);
    }
    return last;
  }

  private static String solve(String prompt) {
    String asked = lastAsked(prompt);
    if (!asked.isEmpty()) {
      Map<String, String> now = new HashMap<>();
      for (String fact : facts(prompt)) {
        now.put(fact.substring(0, fact.indexOf('=')), fact.substring(fact.indexOf('=') + 1));
      }
      return now.get(asked);
    }
    List<Integer> numbers =
        Pattern.compile("\\d+")
            .matcher(prompt)
            .results()
            .map(r -> Integer.valueOf(r.group()))
            .toList();
    if (prompt.startsWith("Count from") || prompt.startsWith("Count up")) {
      return IntStream.rangeClosed(numbers.get(0), numbers.get(1))
          .mapToObj(String::valueOf)
          .collect(Collectors.joining(" "));
    }
    Matcher list = Pattern.compile("(?:here|animals): ([\\w ]+)[.?]").matcher(prompt);
    if (list.find()) {
      return "" + list.group(1).split(" ").length;
    }
    Matcher letters =
        Pattern.compile("(?:Reverse:|Spell) ((?:\\w )*\\w)(?: backwards)?\\.").matcher(prompt);
    if (letters.matches()) {
      return new StringBuilder(letters.group(1)).reverse().toString();
    }
    assertThat(numbers).as(prompt).hasSize(2);
    return "" + (numbers.get(0) + numbers.get(1));
  }
}

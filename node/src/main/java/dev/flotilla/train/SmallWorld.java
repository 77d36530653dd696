package dev.flotilla.train;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.SplittableRandom;

/**
 * A small world that a small model can learn: chat exchanges whose answers can be checked. Who
 * holds a thing that was passed on, where a thing is that was moved, small sums, counting, and
 * reversing a word spelled letter by letter.
 *
 * <p>Everything is a pure function of a seed and a number, so that any worker can make any
 * conversation without having made the ones before. Questions are split into training and held-out
 * by a hash of what they are about (events and thing asked for, summands, letters …), not of their
 * wording: the content of a held-out question is in no training conversation, however phrased.
 */
public final class SmallWorld {

  /** What a question is about. */
  public enum Kind {
    /** Who holds a thing that was passed on. */
    HOLDER,
    /** Where a thing is that was moved. */
    PLACE,
    /** A small sum, bare or in words. */
    SUM,
    /** How often a word occurs in a list. */
    COUNT,
    /** Counting from one number to another. */
    COUNT_UP,
    /** A word spelled backwards. */
    REVERSE
  }

  /**
   * A question with its one right answer.
   *
   * @param prompt the user's message
   * @param answer the assistant's message, exactly
   */
  public record Question(Kind kind, String prompt, String answer) {}

  /** A question about a content, which decides on which side of the split it falls. */
  private record Draft(String content, Question question) {}

  private static final String[] NAMES = {
    "Ann", "Ben", "Cara", "Dan", "Eva", "Finn", "Gina", "Hugo"
  };
  private static final String[] THINGS = {
    "ball", "key", "cup", "book", "lamp", "coin", "hat", "ring"
  };
  private static final String[] PLACES = {
    "kitchen", "garden", "attic", "cellar", "hall", "shed", "office", "car"
  };
  private static final String[] ANIMALS = {"cat", "dog", "bird", "fish", "frog"};
  private static final String[] GOODS = {"apples", "plums", "nuts", "cakes", "shells"};
  private static final int HELD_OUT_ONE_IN = 10;
  private static final int STORY_THINGS = Integer.getInteger("things", 2);

  /** How often each kind is trained on: the hard ones more often. */
  private static final Kind[] TRAINED = java.util.Arrays.stream(System.getProperty("kinds", "HOLDER,HOLDER,PLACE,PLACE,SUM,SUM,COUNT,COUNT,COUNT_UP,REVERSE").split(",")).map(Kind::valueOf).toArray(Kind[]::new);

  private SmallWorld() {}

  /**
   * A training conversation: questions of which each may build on those before.
   *
   * @param number which one; any two numbers give independent conversations
   */
  public static List<Question> conversation(long seed, long number) {
    var random = new SplittableRandom(mix(seed) + mix(number + 1));
    while (true) {
      List<Draft> drafts = draft(TRAINED[random.nextInt(TRAINED.length)], random);
      List<Question> kept = new ArrayList<>();
      for (Draft draft : drafts) {
        if (!isHeldOut(draft)) {
          kept.add(draft.question());
        } else if (kept.isEmpty()) {
          break; // a later question leans on the story told with the first
        }
      }
      if (!kept.isEmpty()) {
        return kept;
      }
    }
  }

  /**
   * Held-out questions, all different, of all kinds in turn. The first {@code n} do not depend on
   * how many are asked for.
   */
  public static List<Question> heldOut(long seed, int count) {
    var random = new SplittableRandom(mix(seed) ^ 0x48454c444f5554L);
    List<Question> questions = new ArrayList<>();
    Set<String> prompts = new HashSet<>();
    while (questions.size() < count) {
      Kind kind = Kind.values()[questions.size() % Kind.values().length];
      Draft draft = draft(kind, random).getFirst();
      if (isHeldOut(draft) && prompts.add(draft.question().prompt())) {
        questions.add(draft.question());
      }
    }
    return questions;
  }

  private static boolean isHeldOut(Draft draft) {
    long hash = 0;
    for (byte b : (draft.question().kind() + " " + draft.content()).getBytes(StandardCharsets.UTF_8)) {
      hash = mix(hash ^ b);
    }
    return Long.remainderUnsigned(hash, HELD_OUT_ONE_IN) == 0;
  }

  private static List<Draft> draft(Kind kind, SplittableRandom random) {
    return switch (kind) {
      case HOLDER -> holder(random);
      case PLACE -> place(random);
      case SUM -> List.of(sum(random));
      case COUNT -> List.of(count(random));
      case COUNT_UP -> List.of(countUp(random));
      case REVERSE -> List.of(reverse(random));
    };
  }

  private static List<Draft> holder(SplittableRandom random) {
    String[] things = some(THINGS, STORY_THINGS, random);
    String[] names = some(NAMES, 4, random);
    Map<String, String> holders = new HashMap<>();
    List<String> events = new ArrayList<>();
    StringBuilder story = new StringBuilder();
    int sentences = STORY_THINGS + random.nextInt(3);
    for (int i = 0; i < sentences; i++) {
      String thing = i < STORY_THINGS ? things[i] : things[random.nextInt(STORY_THINGS)];
      String before = holders.getOrDefault(thing, "");
      String after = other(names, before, random);
      story.append(
          before.isEmpty()
              ? pick(random, "%2$s has the %1$s. ", "%2$s found the %1$s. ")
                  .formatted(thing, after)
              : (Boolean.getBoolean("gave") ? pick(random, "%3$s gave the %1$s to %2$s. ", "%2$s took the %1$s from %3$s. ") : pick(random, "%2$s took the %1$s from %3$s. ", "%2$s got the %1$s from %3$s. "))
                  .formatted(thing, after, before));
      events.add(after + "<" + thing);
      holders.put(thing, after);
    }
    return asked(
        Kind.HOLDER,
        story.toString(),
        events,
        things,
        random,
        List.of("Who has the %s?", "Who has the %s now?", "Who holds the %s?"),
        holders);
  }

  private static List<Draft> place(SplittableRandom random) {
    String[] things = some(THINGS, STORY_THINGS, random);
    String[] names = some(NAMES, 2, random);
    String[] places = some(PLACES, 4, random);
    Map<String, String> where = new HashMap<>();
    List<String> events = new ArrayList<>();
    StringBuilder story = new StringBuilder();
    int sentences = STORY_THINGS + random.nextInt(3);
    for (int i = 0; i < sentences; i++) {
      String thing = i < STORY_THINGS ? things[i] : things[random.nextInt(STORY_THINGS)];
      String before = where.getOrDefault(thing, "");
      String after = other(places, before, random);
      String name = names[random.nextInt(names.length)];
      story.append(
          before.isEmpty()
              ? pick(random, "The %1$s is in the %2$s. ", "%3$s put the %1$s in the %2$s. ")
                  .formatted(thing, after, name)
              : pick(random, "%3$s moved the %1$s to the %2$s. ", "%3$s took the %1$s to the %2$s. ")
                  .formatted(thing, after, name));
      events.add(thing + ">" + after);
      where.put(thing, after);
    }
    where.replaceAll((thing, place) -> "in the " + place);
    return asked(
        Kind.PLACE,
        story.toString(),
        events,
        things,
        random,
        List.of("Where is the %s?", "Where is the %s now?"),
        where);
  }

  /** Asks for one thing after the story, and for the others in further turns. */
  private static List<Draft> asked(
      Kind kind,
      String story,
      List<String> events,
      String[] things,
      SplittableRandom random,
      List<String> questions,
      Map<String, String> answers) {
    List<Draft> drafts = new ArrayList<>();
    String[] order = some(things, things.length, random);
    for (int turn = 0; turn < order.length; turn++) {
      String thing = order[turn];
      String text =
          turn == 0
              ? story + questions.get(random.nextInt(questions.size())).formatted(thing)
              : "And the %s?".formatted(thing);
      String answer = answers.getOrDefault(thing, "");
      drafts.add(new Draft(String.join(" ", events) + "?" + thing, new Question(kind, text, answer)));
    }
    return drafts;
  }

  private static Draft sum(SplittableRandom random) {
    int a = 1 + random.nextInt(12);
    int b = 1 + random.nextInt(Math.min(12, 20 - a));
    if (random.nextBoolean()) {
      String prompt =
          pick(random, "What is %d plus %d?", "What is %d + %d?", "Add %d and %d.").formatted(a, b);
      return new Draft(a + "+" + b, new Question(Kind.SUM, prompt, "" + (a + b)));
    }
    String name = NAMES[random.nextInt(NAMES.length)];
    String goods = GOODS[random.nextInt(GOODS.length)];
    String prompt =
        "%s has %d %s and %s %d more. How many %s does %s have?"
            .formatted(name, a, goods, pick(random, "finds", "gets"), b, goods, name);
    return new Draft(
        a + "+" + b + " " + name + " " + goods, new Question(Kind.SUM, prompt, "" + (a + b)));
  }

  private static Draft count(SplittableRandom random) {
    String[] kinds = some(ANIMALS, 2, random);
    String asked = kinds[0];
    int length = 2 + random.nextInt(5);
    List<String> list = new ArrayList<>();
    int times = 0;
    for (int i = 0; i < length; i++) {
      String word = random.nextInt(2) == 0 ? asked : kinds[1];
      times += word.equals(asked) ? 1 : 0;
      list.add(word);
    }
    String words = String.join(" ", list);
    String prompt =
        pick(random, "How often do you see %s in: %s?", "Count the word %s in: %s.")
            .formatted(asked, words);
    return new Draft(asked + " " + words, new Question(Kind.COUNT, prompt, "" + times));
  }

  private static Draft countUp(SplittableRandom random) {
    int from = 1 + random.nextInt(50);
    int to = from + 2 + random.nextInt(8);
    StringBuilder answer = new StringBuilder("" + from);
    for (int i = from + 1; i <= to; i++) {
      answer.append(' ').append(i);
    }
    String prompt =
        pick(random, "Count from %d to %d.", "Count up from %d to %d.").formatted(from, to);
    return new Draft(from + "-" + to, new Question(Kind.COUNT_UP, prompt, answer.toString()));
  }

  private static Draft reverse(SplittableRandom random) {
    int length = 3 + random.nextInt(3);
    List<String> letters = new ArrayList<>();
    for (int i = 0; i < length; i++) {
      letters.add(String.valueOf((char) ('a' + random.nextInt(26))));
    }
    String word = String.join(" ", letters);
    String prompt = pick(random, "Reverse: %s.", "Spell %s backwards.").formatted(word);
    return new Draft(
        word, new Question(Kind.REVERSE, prompt, String.join(" ", letters.reversed())));
  }

  private static String pick(SplittableRandom random, String... choices) {
    return choices[random.nextInt(choices.length)];
  }

  private static String other(String[] from, String not, SplittableRandom random) {
    while (true) {
      String candidate = from[random.nextInt(from.length)];
      if (!candidate.equals(not)) {
        return candidate;
      }
    }
  }

  /** A few different ones, in random order. */
  private static String[] some(String[] from, int count, SplittableRandom random) {
    String[] pool = from.clone();
    for (int i = 0; i < count; i++) {
      int j = i + random.nextInt(pool.length - i);
      String swapped = pool[i];
      pool[i] = pool[j];
      pool[j] = swapped;
    }
    return Arrays.copyOf(pool, count);
  }

  /** The finaliser of SplitMix64, Steele, Lea and Flood 2014. */
  static long mix(long x) {
    x += 0x9E3779B97F4A7C15L;
    x = (x ^ (x >>> 30)) * 0xBF58476D1CE4E5B9L;
    x = (x ^ (x >>> 27)) * 0x94D049BB133111EBL;
    return x ^ (x >>> 31);
  }
}
